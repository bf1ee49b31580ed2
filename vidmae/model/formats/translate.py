"""The tensors of any known layout as this suite's: renamed, cut and folded so that the model computes the same.

    theirs                                  here
    attn.qkv.weight [3 D, D], its bias      attn.q, attn.k, attn.v [D, D] and [D]
    q_bias, v_bias and no bias of k         attn.q.bias, attn.v.bias; attn.k.bias is zero
    no table of positions (VideoMAE)        pos_embed_fixed [T, H * W, D], the sines that its code computes
    pos_embed [1, L, D] (V-JEPA)            pos_embed_fixed [T, H * W, D]
    pos_embed [1, 1 + L, D] (image MAE)     pos_embed_class, pos_embed_spatial; pos_embed_temporal is zero
    patch_embed.proj of an image [D, 3, p, p]   [D, 3, 1, p, p]
    fc_norm (after the mean of the tokens)  norm, which stands after it here, too

All of these normalise pixels by ImageNet's means and deviations; that goes into the first layer, so that this suite's
normalisation fits. A bias of k changes nothing: it adds the same to all scores of a query.

Letters: L tokens, D width, T H W token grid, p px of a patch's side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vidmae.model.formats.file_model import FileModel, Known, model_of
from vidmae.model.formats.keys import FIXED, PATCH_EMBED, TEMPORAL, shapes_of
from vidmae.model.formats.layouts import LAYOUTS, OURS, common_names
from vidmae.model.formats.sines import sine_table
from vidmae.settings.sizes import EncoderShape

Inflate = Literal["no", "centre", "mean"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAMES16 = "--views frames16 tests an image model on videos: the mean of the logits of 16 frames"
SPATIAL, OF_CLASS = "pos_embed_spatial", "pos_embed_class"


@dataclass(frozen=True)
class Translated:
    """The encoder of a file under this suite's names.

    Attributes:
        state: Its tensors, and those of the file that nobody knows, under their own names.
        model: What it is.
        reshaped: Names of ours whose tensor is cut, folded or computed and not the file's as it is.
        left_out: Names of the file that belong to other parts, such as a decoder.
    """

    state: dict[str, Tensor]
    model: FileModel
    reshaped: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def translate(state: Mapping[str, Tensor], *, mean: float, std: float, known: Known | None = None) -> Translated:
    """The weights of a file under this suite's names; those of a file of ours as they are.

    Args:
        state: Clean names and tensors of any layout.
        mean, std: By which the model that takes the weights normalises pixels.
        known: What is known of the model beside its tensors; see `file_model`.
    Raises:
        ValueError: The file is of no model that this suite has, or tensors of its layout are missing or of another shape.
    """
    model = model_of(shapes_of(state), known)
    if model.layout == OURS:
        return Translated(dict(state), model)
    return as_ours(state, model, mean=mean, std=std)


def as_ours(state: Mapping[str, Tensor], model: FileModel, *, mean: float, std: float) -> Translated:
    """The same where the model is known already; see `translate`."""
    layout = LAYOUTS[model.layout]
    renamed, left_out, unknown = common_names(layout, state)
    common = {new: state[old] for old, new in renamed.items()}
    if "patch_embed.proj.bias" not in common:
        raise ValueError(f"patch_embed.proj.bias is missing, which {layout.title} has")
    made: dict[str, Tensor] = {}
    for name, tensor in common.items():
        if parts := split_qkv(name, tensor):
            made |= parts
        elif name == "pos_embed":
            made |= _places(tensor, model.shape)
        elif name.startswith("fc_norm.") and "norm.weight" not in common:
            made[name.removeprefix("fc_")] = tensor
        elif not name.startswith("patch_embed."):
            made[name] = tensor
    if layout.positions == "fixed" and "pos_embed" not in common:
        t, h, w = model.shape.grid
        made[FIXED] = sine_table(t * h * w, model.shape.embed_dim).unflatten(0, (t, h * w))
    for name in [name for name in made if name.endswith(".attn.q.bias")]:
        made.setdefault(name.replace(".q.", ".k."), torch.zeros_like(made[name]))
    made |= for_pixels(common[PATCH_EMBED], common["patch_embed.proj.bias"], mean, std)
    same = {id(tensor) for tensor in state.values()}
    reshaped = tuple(name for name, tensor in made.items() if id(tensor) not in same)
    return Translated({**made, **{name: state[name] for name in unknown}}, model, reshaped, tuple(left_out))


def split_qkv(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A matrix or bias of q, k and v as those of each, under their names; empty for tensors of other names.

    Raises:
        ValueError: It has no 3 equal parts.
    """
    match = re.fullmatch(r"(.*\.attn)\.qkv\.(\w+)", name)
    if match is None:
        return {}
    if tensor.shape[0] % 3:
        raise ValueError(f"{name} is {tuple(tensor.shape)}, allowed: 3 equal parts for q, k and v")
    return {f"{match[1]}.{part}.{match[2]}": t for part, t in zip("qkv", tensor.chunk(3), strict=True)}


def for_pixels(weight: Tensor, bias: Tensor, mean: float, std: float) -> dict[str, Tensor]:
    """A first layer for pixels normalised by ImageNet's statistics as one for pixels normalised by `mean` and `std`.

    Args:
        weight: [D, 3, p, p] or [D, 3, u, p, p].
        bias: [D].
        mean, std: Of the model that takes it.
    """
    weight = weight[:, :, None] if weight.ndim == 4 else weight
    wide = weight.double()
    means, stds = (torch.tensor(values, dtype=torch.double, device=wide.device)[:, None, None, None]
                   for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {PATCH_EMBED: wide * std / stds,
            "patch_embed.proj.bias": bias.double() + (wide * (mean - means) / stds).sum(dim=(1, 2, 3, 4))}


def inflate(state: Mapping[str, Tensor], how: Inflate, *, num_frames: int, t_patch_size: int) -> dict[str, Tensor]:
    """The weights of an image model of ours as those of a video model.

    A token of several frames sees their middle frame (`centre`), or the mean of them (`mean`): either way a clip of one
    still frame gives the tokens of the image. All slots of time have the positions that the one of the image has.

    Args:
        state: Of a model of one frame, under this suite's names.
        how: centre or mean; no leaves the weights.
        num_frames, t_patch_size: Of the video model.
    Source: Carreira and Zisserman 2017 (arXiv 1705.07750) for the mean; Arnab et al. 2021 (arXiv 2103.15691) for the centre.
    """
    if how == "no":
        return dict(state)
    weight = state[PATCH_EMBED]
    if how == "mean":
        wide = weight.expand(-1, -1, t_patch_size, -1, -1) / t_patch_size
    else:
        wide = weight.new_zeros(*weight.shape[:2], t_patch_size, *weight.shape[3:])
        wide[:, :, t_patch_size // 2] = weight[:, :, 0]
    slots = num_frames // t_patch_size
    more = {name: tensor.expand(-1, slots, -1) for name, tensor in state.items() if name.endswith(TEMPORAL)}
    return {**state, **more, PATCH_EMBED: wide}


def _places(table: Tensor, shape: EncoderShape) -> dict[str, Tensor]:
    t, h, w = shape.grid
    if shape.positions == "fixed":
        of_time = table[0, :, 0]  # a table of sines begins with the numbers of time, alike within a slot
        if table.shape[1] != t * h * w or (t > 1 and not torch.equal(of_time, of_time[::h * w].repeat_interleave(h * w))):
            raise ValueError(f"the table of positions is not one of {t} x {h} x {w} places in order of time")
        return {FIXED: table[0].unflatten(0, (t, h * w))}
    if table.shape[1] != 1 + h * w:
        raise ValueError(f"pos_embed has {table.shape[1]} positions, allowed: 1 for the class token and a square number for "
                         "the tokens of a picture")
    return {OF_CLASS: table[:, :1], SPATIAL: table[:, 1:], TEMPORAL: torch.zeros_like(table[:, :1])}
