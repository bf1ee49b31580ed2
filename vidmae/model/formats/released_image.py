"""A released image MAE (facebookresearch/mae and its descendants) with its decoder under this suite's names: a video MAE of
one frame. `translate.py` has the encoder alone.

    names of the file                 here
    pos_embed [1, 1 + L, D]           pos_embed_class [1, 1, D], pos_embed_spatial [1, L, D], pos_embed_temporal: zero
    patch_embed.proj [D, 3, p, p]     [D, 3, 1, p, p]
    attn.qkv [3 D, D]                 attn.q, attn.k, attn.v [D, D]; files that have these three keep them

None of it changes a number. Pixels are normalised per channel by ImageNet's statistics there; that goes into the weights of
the first layer, so that this suite's normalisation fits. Source: He et al. 2022 (arXiv 2111.06377).

Letters: L tokens, D width, p px of a patch's side.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vidmae.model.formats.keys import PATCH_EMBED
from vidmae.model.formats.translate import for_pixels, split_qkv


def under_our_names(state: Mapping[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """The weights of a released image MAE under this suite's names, for pixels that are normalised by `mean` and `std`.

    Args:
        state: Of such a file. Names of other things than those above stay, the decoder's too.
        mean, std: Of the model that takes the weights.
    Raises:
        ValueError: A table of positions is not that of a class token and a square of tokens, or a matrix does not divide.
    """
    if "patch_embed.proj.bias" not in state:
        raise ValueError("patch_embed.proj.bias is missing, which an image MAE has")
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if parts := split_qkv(name, tensor):
            made |= parts
        elif name in ("pos_embed", "decoder_pos_embed"):
            if round((tensor.shape[1] - 1) ** 0.5) ** 2 != tensor.shape[1] - 1:
                raise ValueError(f"{name} has {tensor.shape[1]} positions, allowed: 1 for the class token and a square "
                                 "number for the tokens of a picture")
            made |= {f"{name}_class": tensor[:, :1], f"{name}_spatial": tensor[:, 1:],
                     f"{name}_temporal": torch.zeros_like(tensor[:, :1])}
        else:
            made[name] = tensor
    made |= for_pixels(state[PATCH_EMBED], state["patch_embed.proj.bias"], mean, std)
    return made
