"""Encoders of other families by another implementation (transformers), with random weights, and their files as authors write them.

Nothing is downloaded. Names of files are written here a second time, from the published code, and not taken from the suite.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import VideoMAEConfig, VideoMAEForPreTraining, ViTMAEConfig, ViTMAEModel, VJEPA2Config, VJEPA2Model

State = dict[str, Tensor]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
FRAMES, SIDE, PATCH = 4, 32, 8
SIZES = {"small": (384, 12, 6, 1536), "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096), "huge": (1280, 32, 16, 5120),
         "giant": (1408, 40, 16, 6144), "deep": (48, 32, 4, 192), "narrow": (24, 12, 2, 96), "nano": (96, 3, 3, 384)}


def pixels(clips: np.ndarray) -> Tensor:
    """uint8 [B, T, H, W, 3] as these families take them: [B, T, 3, H, W], normalised by ImageNet's statistics."""
    return torch.from_numpy(((clips / 255 - MEAN) / STD).transpose(0, 1, 4, 2, 3)).float()


def shaken(model: nn.Module) -> Any:
    """The model with weights that are all different from zero and one."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if not parameter.is_meta:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def videomae(size: str, *, frames: int = FRAMES, side: int = SIDE, patch: int = PATCH, build: type = VideoMAEForPreTraining,
             pooled: bool = False, **more: Any) -> Any:
    width, depth, heads, mlp = SIZES[size]
    return shaken(build(VideoMAEConfig(
        image_size=side, patch_size=patch, num_frames=frames, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=mlp, layer_norm_eps=1e-6, use_mean_pooling=pooled, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=32, **more)))


def vjepa2(size: str, *, frames: int = FRAMES, side: int = SIDE, patch: int = PATCH) -> Any:
    width, depth, heads, mlp = SIZES[size]
    return shaken(VJEPA2Model(VJEPA2Config(
        crop_size=side, patch_size=patch, frames_per_clip=frames, hidden_size=width, num_hidden_layers=depth,
        num_attention_heads=22 if size == "giant" else heads, mlp_ratio=mlp / width, pred_hidden_size=24, pred_num_hidden_layers=1,
        pred_num_attention_heads=2, layer_norm_eps=1e-6)))


def image_mae(size: str, *, side: int = SIDE, patch: int = PATCH) -> Any:
    width, depth, heads, mlp = SIZES[size]
    return shaken(ViTMAEModel(ViTMAEConfig(
        image_size=side, patch_size=patch, hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads,
        intermediate_size=mlp, layer_norm_eps=1e-6, mask_ratio=0.0)))


def as_videomae(state: State) -> State:
    """Under the names of MCG-NJU/VideoMAE, pretraining: one matrix for q, k and v, a bias for q and for v alone."""
    made = {}
    for name, tensor in state.items():
        name = name.removeprefix("videomae.")
        if match := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.query\.weight", name):
            parts = [state[f"videomae.encoder.layer.{match[1]}.attention.attention.{part}.weight"] for part in ("query", "key", "value")]
            made[f"encoder.blocks.{match[1]}.attn.qkv.weight"] = torch.cat(parts)
        elif match := re.fullmatch(r"encoder\.layer\.(\d+)\.attention\.attention\.(query|value)\.bias", name):
            made[f"encoder.blocks.{match[1]}.attn.{match[2][0]}_bias"] = tensor
        elif not re.search(r"attention\.attention\.(key|value)", name):
            for theirs, ours in (("encoder.layer.", "encoder.blocks."), ("embeddings.patch_embeddings.projection", "encoder.patch_embed.proj"),
                                 ("attention.output.dense", "attn.proj"), ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
                                 ("layernorm_before", "norm1"), ("layernorm_after", "norm2")):
                name = name.replace(theirs, ours)
            made[re.sub(r"^layernorm", "encoder.norm", name)] = tensor
    return made


def as_vjepa(state: State, wrapper: str = "module.backbone.") -> State:
    """Under the names of facebookresearch/jepa: one matrix and one bias for q, k and v. `state` is of a VJEPA2Model."""
    made = {}
    for name, tensor in state.items():
        if not name.startswith("encoder."):
            continue
        name = name.removeprefix("encoder.").replace("embeddings.patch_embeddings", "patch_embed").replace("layernorm", "norm")
        if match := re.fullmatch(r"layer\.(\d+)\.attention\.query\.(\w+)", name):
            parts = [state[f"encoder.layer.{match[1]}.attention.{part}.{match[2]}"] for part in ("query", "key", "value")]
            made[f"{wrapper}blocks.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
        elif not re.search(r"attention\.(key|value)", name):
            made[wrapper + name.replace("layer.", "blocks.").replace("attention", "attn")] = tensor
    return made


def as_first_vjepa(state: State, table: Tensor, wrapper: str = "module.backbone.") -> State:
    """The same for the first V-JEPA, from the names of `as_videomae`: it has a bias for k, too, and saves its table of places."""
    made = {f"{wrapper}pos_embed": table}
    for name, tensor in state.items():
        if name.startswith("encoder."):
            name = name.removeprefix("encoder.")
            if match := re.fullmatch(r"(.*)\.q_bias", name):
                k = torch.randn(len(tensor), device=tensor.device)  # adds the same to all scores of a query
                made[f"{wrapper}{match[1]}.qkv.bias"] = torch.cat([tensor, k, state[f"encoder.{match[1]}.v_bias"]])
            elif not name.endswith("v_bias"):
                made[wrapper + name] = tensor
    return made


def sines_of_places(t: int, side: int, width: int) -> Tensor:
    """The table of places of the first V-JEPA: a third of the columns each for slot, row and column, a half of it sines."""
    part = int(np.ceil(width / 6) * 2)
    frequencies = 1 / 10000 ** (np.arange(part // 2) / (part / 2))

    def of(place: int) -> np.ndarray:
        return np.concatenate([np.sin(place * frequencies), np.cos(place * frequencies)])

    rows = [np.concatenate([of(f), of(h), of(w)])[:width] for f in range(t) for h in range(side) for w in range(side)]
    return torch.tensor(np.array(rows), dtype=torch.float32)[None]


def as_image_mae(state: State) -> State:
    """Under the names of facebookresearch/mae, encoder alone; `state` is of a ViTMAEModel."""
    made = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"layers\.(\d+)\.attention\.q_proj\.(\w+)", name):
            parts = [state[f"layers.{match[1]}.attention.{part}_proj.{match[2]}"] for part in "qkv"]
            made[f"blocks.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
        elif not re.search(r"[kv]_proj", name):
            for theirs, ours in (("layers.", "blocks."), ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
                                 ("embeddings.position_embeddings", "pos_embed"), ("embeddings.cls_token", "cls_token"),
                                 ("attention.o_proj", "attn.proj"), ("layernorm_before", "norm1"), ("layernorm_after", "norm2")):
                name = name.replace(theirs, ours)
            made[re.sub("^layernorm", "norm", name)] = tensor
    return made


def as_hub_image_mae(state: State) -> State:
    """Under the names that the hub has for image MAEs, which are those of transformers before its fifth version."""
    made = {}
    for name, tensor in state.items():
        for now, then in (("layers.", "encoder.layer."), ("attention.o_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"),
                          ("mlp.fc2", "output.dense"), *((f"attention.{p[0]}_proj", f"attention.attention.{p}") for p in ("query", "key", "value"))):
            name = name.replace(now, then)
        made[f"vit.{name}"] = tensor
    return made
