"""Whose layout a file of weights has, from names and shapes alone, and what its names are called in one common layout.

The common layout is that of a plain ViT: patch_embed.proj, pos_embed, cls_token, blocks.N.{norm1,attn,norm2,mlp}, norm or
fc_norm, head. `translate.py` makes this suite's tensors of it. No torch here: launchers ask what a file holds.

    ours               released ST-MAE (Orhan et al., facebookresearch/mae_st), runs and exports of this suite
    image-mae          facebookresearch/mae and its descendants
    videomae           MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2, pretrained or finetuned
    vjepa, vjepa2      the encoder of facebookresearch/jepa and of facebookresearch/vjepa2
    hf-...             the same models as the library transformers saves them
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vidmae.model.formats.keys import PATCH_EMBED, Shapes
from vidmae.settings.sizes import Positions

OURS = "ours"


@dataclass(frozen=True)
class Layout:
    """How a family of files names its tensors.

    Attributes:
        title: For messages.
        positions: Of the model; see `sizes.Positions`.
        names: Pairs of a pattern for a whole name and what it is called in the common layout.
        left_out: Beginnings of names of other parts, which are not loaded: decoders, predictors, poolers.
        img_size, num_frames: What the released models take, where tensors do not say; 0 where they do.
    """

    title: str
    positions: Positions
    names: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    img_size: int = 0
    num_frames: int = 0


_BLOCK = r"(blocks\.\d+\.(?:norm1|norm2|attn\.(?:qkv|q|k|v|proj)|mlp\.fc[12])\.(?:weight|bias))"
_PLAIN = ((rf"{_BLOCK}|(patch_embed\.proj\.(?:weight|bias)|(?:norm|fc_norm|head)\.(?:weight|bias))", r"\1\2"),)
_VIDEOMAE = (
    (rf"(?:encoder\.)?(?:{_BLOCK}|(patch_embed\.proj\.(?:weight|bias)|(?:norm|fc_norm|head)\.(?:weight|bias)))", r"\1\2"),
    (r"(?:encoder\.)?(blocks\.\d+\.attn)\.([qv])_bias", r"\1.\2.bias"))
_HF_LAYER = r"(?:videomae\.|vit\.)?(?:encoder\.layer|layers)\.(\d+)"
_HF_VIT = (
    (r"(?:videomae\.|vit\.)?embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
    (rf"{_HF_LAYER}\.attention\.attention\.([qkv])(?:uery|ey|alue)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"{_HF_LAYER}\.attention\.attention\.([qv])_bias", r"blocks.\1.attn.\2.bias"),
    (rf"{_HF_LAYER}\.attention\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (rf"{_HF_LAYER}\.attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (rf"{_HF_LAYER}\.(?:intermediate\.dense|mlp\.fc1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
    (rf"{_HF_LAYER}\.(?:output\.dense|mlp\.fc2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    (rf"{_HF_LAYER}\.layernorm_before\.(\w+)", r"blocks.\1.norm1.\2"),
    (rf"{_HF_LAYER}\.layernorm_after\.(\w+)", r"blocks.\1.norm2.\2"),
    (r"(?:videomae\.|vit\.)?layernorm\.(\w+)", r"norm.\1"),
    (r"(?:vit\.)?embeddings\.position_embeddings", "pos_embed"),
    (r"(?:vit\.)?embeddings\.cls_token", "cls_token"),
    (r"fc_norm\.(\w+)", r"fc_norm.\1"),
    (r"classifier\.(\w+)", r"head.\1"))
_HF_VJEPA2 = (
    (r"(?:vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\.(\w+)", r"patch_embed.proj.\1"),
    (r"(?:vjepa2\.)?encoder\.layer\.(\d+)\.attention\.([qkv])(?:uery|ey|alue)\.(\w+)", r"blocks.\1.attn.\2.\3"),
    (r"(?:vjepa2\.)?encoder\.layer\.(\d+)\.attention\.proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
    (r"(?:vjepa2\.)?encoder\.layer\.(\d+)\.(norm1|norm2|mlp\.fc1|mlp\.fc2)\.(\w+)", r"blocks.\1.\2.\3"),
    (r"(?:vjepa2\.)?encoder\.layernorm\.(\w+)", r"norm.\1"))
_VIDEOMAE_REST = ("decoder.", "encoder_to_decoder.", "mask_token", "pos_embed", "position_embeddings")

LAYOUTS: Mapping[str, Layout] = {
    OURS: Layout("this suite and released ST-MAE", "learned"),
    "image-mae": Layout("the original image MAE", "learned", (*_PLAIN, (r"(cls_token|pos_embed)", r"\1")),
                        ("decoder_", "mask_token")),
    "videomae": Layout("VideoMAE", "fixed", _VIDEOMAE, ("decoder.", "encoder_to_decoder.", "mask_token"), 224, 16),
    "vjepa": Layout("V-JEPA", "fixed", (*_PLAIN, ("pos_embed", "pos_embed")), (), 0, 16),
    "vjepa2": Layout("V-JEPA 2", "rotary", _PLAIN, (), 256, 64),
    "hf-image-mae": Layout("an image MAE of transformers", "learned", _HF_VIT, ("decoder.", "mask_token")),
    "hf-videomae": Layout("VideoMAE of transformers", "fixed", _HF_VIT, _VIDEOMAE_REST, 224, 16),
    "hf-vjepa2": Layout("V-JEPA 2 of transformers", "rotary", _HF_VJEPA2, ("predictor.", "pooler.", "classifier."), 256, 64),
}


def layout_of(shapes: Shapes) -> str:
    """The layout of a file: a key of LAYOUTS. What none of the others fits is taken for `ours`, and then has to fit it."""
    patch = next((shape for name, shape in shapes.items()
                  if re.fullmatch(r"(?:\w+\.)*patch_embeddings\.proj(?:ection)?\.weight", name)), None)
    if any(name.endswith("encoder.embeddings.patch_embeddings.proj.weight") for name in shapes):
        return "hf-vjepa2"
    if patch is not None:
        return "hf-image-mae" if len(patch) == 4 else "hf-videomae"
    if any(re.fullmatch(r"(?:encoder\.)?blocks\.0\.attn\.q_bias", name) for name in shapes):
        return "videomae"
    dims = len(shapes.get(PATCH_EMBED, ()))
    if dims == 4 and "pos_embed" in shapes:
        return "image-mae"
    if dims == 5 and "cls_token" not in shapes and "blocks.0.attn.qkv.bias" in shapes:
        return "vjepa" if "pos_embed" in shapes else "vjepa2"
    return OURS


def common_names(layout: Layout, names: Iterable[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """What names are called in the common layout.

    Args:
        layout: Of the file.
        names: Of its tensors.
    Returns:
        Common name of each name that has one; names of other parts, which are left out; names that nobody knows.
    """
    found: dict[str, str] = {}
    left_out: list[str] = []
    unknown: list[str] = []
    for name in names:
        new = next((match.expand(to) for pattern, to in layout.names if (match := re.fullmatch(pattern, name))), None)
        if new is not None:
            found[name] = new
        else:
            (left_out if name.startswith(layout.left_out) else unknown).append(name)
    return found, left_out, unknown
