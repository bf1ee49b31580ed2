"""A model with VideoMAE's fixed positions under the names of `transformers`, as VideoMAEModel or with a head.

Models of that family take pixels that are normalised by ImageNet's means and deviations, and who opens one expects that. So
the first layer is made for such pixels: the reverse of `formats.translate.for_pixels`. A bias of k adds the same to all
scores of a query and changes nothing; `transformers` has none, so it is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vidmae.model.blocks import NORM_EPS
from vidmae.model.formats.file_model import FileModel
from vidmae.model.formats.keys import FIXED, PATCH_EMBED
from vidmae.model.formats.sines import sine_table
from vidmae.model.formats.translate import IMAGENET_MEAN, IMAGENET_STD

_NAMES = (
    (r"patch_embed\.proj\.(\w+)", r"embeddings.patch_embeddings.projection.\1"),
    (r"blocks\.(\d+)\.attn\.q\.(\w+)", r"encoder.layer.\1.attention.attention.query.\2"),
    (r"blocks\.(\d+)\.attn\.k\.weight", r"encoder.layer.\1.attention.attention.key.weight"),
    (r"blocks\.(\d+)\.attn\.v\.(\w+)", r"encoder.layer.\1.attention.attention.value.\2"),
    (r"blocks\.(\d+)\.attn\.proj\.(\w+)", r"encoder.layer.\1.attention.output.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc1\.(\w+)", r"encoder.layer.\1.intermediate.dense.\2"),
    (r"blocks\.(\d+)\.mlp\.fc2\.(\w+)", r"encoder.layer.\1.output.dense.\2"),
    (r"blocks\.(\d+)\.norm1\.(\w+)", r"encoder.layer.\1.layernorm_before.\2"),
    (r"blocks\.(\d+)\.norm2\.(\w+)", r"encoder.layer.\1.layernorm_after.\2"))
PATCH_BIAS = "patch_embed.proj.bias"
_K_BIAS = re.compile(r"blocks\.\d+\.attn\.k\.bias")


def videomae_state(state: Mapping[str, Tensor], model: FileModel, *, mean: float, std: float) -> dict[str, Tensor]:
    """The tensors under the names of `transformers`.

    Args:
        state: Under this suite's names.
        model: What it is.
        mean, std: By which its pixels, from 0 to 1, are normalised.
    Raises:
        ValueError: That library has no such model; says why.
    """
    s = model.shape
    if s.positions != "fixed":
        what = f"{s.positions} positions{' and a class token' if s.class_tokens else ''}"
        raise ValueError(f"it has {what}, and VideoMAE of transformers has a fixed table of sines and no class token; "
                         f"allowed: --form vidmae{', mae_st' if s.class_tokens else ''} or program")
    t, h, w = s.grid
    if not torch.equal(state[FIXED], sine_table(t * h * w, s.embed_dim).unflatten(0, (t, h * w))):
        raise ValueError("its table of positions is not VideoMAE's, which transformers computes by itself; allowed: --form "
                         "vidmae or program")
    before = "videomae." if model.head else ""
    made, unknown = dict[str, Tensor](), list[str]()
    for name, tensor in {**state, **_for_imagenet(state, mean, std)}.items():
        new = next((match.expand(to) for pattern, to in _NAMES if (match := re.fullmatch(pattern, name))), None)
        if new:
            made[before + new] = tensor
        elif name.startswith("norm."):
            made[name.replace("norm.", "fc_norm." if model.head else "layernorm.")] = tensor
        elif name.startswith("head."):
            made[name.replace("head.", "classifier.")] = tensor
        elif name != FIXED and not _K_BIAS.fullmatch(name):
            unknown.append(name)
    if unknown:
        raise ValueError(f"transformers has no place for {len(unknown)} of its tensors, such as {min(unknown)}")
    return made


def _for_imagenet(state: Mapping[str, Tensor], mean: float, std: float) -> dict[str, Tensor]:
    """The first layer, for pixels that are normalised by ImageNet's statistics."""
    wide = state[PATCH_EMBED].double()
    means, stds = (torch.tensor(values, dtype=torch.double)[:, None, None, None]
                   for values in (IMAGENET_MEAN, IMAGENET_STD))
    return {PATCH_EMBED: wide * stds / std,
            PATCH_BIAS: state[PATCH_BIAS].double() + (wide * (means - mean) / std).sum(dim=(1, 2, 3, 4))}


def videomae_config(model: FileModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and preprocessor_config.json of a model."""
    s = model.shape
    more = {"num_labels": model.head} if model.head else {}
    config = {
        "model_type": "videomae", "architectures": ["VideoMAEForVideoClassification" if model.head else "VideoMAEModel"],
        "image_size": s.img_size, "patch_size": s.patch_size, "num_channels": 3, "num_frames": s.num_frames,
        "tubelet_size": s.t_patch_size, "hidden_size": s.embed_dim, "num_hidden_layers": s.depth,
        "num_attention_heads": s.num_heads, "intermediate_size": 4 * s.embed_dim, "hidden_act": "gelu",
        "layer_norm_eps": NORM_EPS, "qkv_bias": True, "use_mean_pooling": bool(model.head), **more}
    pixels = {
        "image_processor_type": "VideoMAEImageProcessor", "do_resize": True, "size": {"shortest_edge": s.img_size},
        "do_center_crop": True, "crop_size": {"height": s.img_size, "width": s.img_size}, "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
    return config, pixels
