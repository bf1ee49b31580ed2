"""A released image MAE (facebookresearch/mae and its descendants) under this suite's names: a video MAE of one frame.

    names of the file                 here
    pos_embed [1, 1 + L, D]           pos_embed_class [1, 1, D], pos_embed_spatial [1, L, D], pos_embed_temporal: zero
    patch_embed.proj [D, 3, p, p]     [D, 3, 1, p, p]
    attn.qkv [3 D, D]                 attn.q, attn.k, attn.v [D, D]; files that have these three keep them

None of it changes a number. Pixels are normalised per channel by ImageNet's statistics there; that goes into the weights of
the first layer, so that this suite's normalisation fits. Source: He et al. 2022 (arXiv 2111.06377).

Letters: L tokens, D width, p px of a patch's side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vidmae.model.keys import PATCH_EMBED, clip_sizes

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES16 = "--views frames16 tests an image model on videos: the mean of the logits of 16 frames"


def is_released_image(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict has the layout of the original image MAE, with its decoder or without."""
    return "pos_embed" in state and PATCH_EMBED in state and state[PATCH_EMBED].ndim == 4


def under_our_names(state: Mapping[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """The weights of a released image MAE under this suite's names, for pixels that are normalised by `mean` and `std`.

    Args:
        state: Of a file for which `is_released_image` holds. Names of other things than those above stay.
        mean, std: Of the model that takes the weights.
    Raises:
        ValueError: A table of positions is not that of a class token and a square of tokens, or a matrix does not divide.
    """
    if "patch_embed.proj.bias" not in state:
        raise ValueError("patch_embed.proj.bias is missing, which an image MAE has")
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"(.*\.attn)\.qkv\.(\w+)", name):
            if tensor.shape[0] % 3:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, allowed: 3 equal parts for q, k and v")
            made |= {f"{match[1]}.{part}.{match[2]}": t for part, t in zip("qkv", tensor.chunk(3), strict=True)}
        elif match := re.fullmatch(r"(|decoder_)pos_embed", name):
            if round((tensor.shape[1] - 1) ** 0.5) ** 2 != tensor.shape[1] - 1:
                raise ValueError(f"{name} has {tensor.shape[1]} positions, allowed: 1 for the class token and a square "
                                 "number for the tokens of a picture")
            made |= {f"{name}_class": tensor[:, :1], f"{name}_spatial": tensor[:, 1:],
                     f"{name}_temporal": torch.zeros_like(tensor[:, :1])}
        else:
            made[name] = tensor
    weight, bias = (state[f"patch_embed.proj.{part}"].double() for part in ("weight", "bias"))
    means, stds = (torch.tensor(values, dtype=torch.double)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    made["patch_embed.proj.bias"] = bias + (weight * (mean - means) / stds).sum(dim=(1, 2, 3))
    made[PATCH_EMBED] = (weight * std / stds)[:, :, None]
    return made


def fit_names(state: Mapping[str, Tensor], *, num_frames: int, mean: float, std: float) -> Mapping[str, Tensor]:
    """The weights as a model of this suite takes them: those of a released image MAE under our names, others as they are.

    Args:
        state: Any state dict.
        num_frames: Of the model.
        mean, std: Of the model.
    Raises:
        ValueError: They are of an image model, and the model takes several frames.
    """
    released = is_released_image(state)
    if num_frames != 1 and (released or _takes_one_frame(state)):
        raise ValueError("the weights are of an image model, which sees one frame, and the model takes clips of "
                         f"{num_frames} frames (model.num_frames); {FRAMES16}")
    return under_our_names(state, mean, std) if released else state


def _takes_one_frame(state: Mapping[str, Tensor]) -> bool:
    try:
        return state[PATCH_EMBED].ndim == 5 and clip_sizes(state)[1] == 1
    except (KeyError, ValueError):
        return False
