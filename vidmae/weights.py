"""Weights in and out of files: released checkpoints, our exports, and a strict report of what fits.

    model = build_mae("mae_vit_huge_patch14")
    load_weights(model, Path("say_none.pth"))          # a released file: {"model": ..., "args": Namespace, ...}
    load_weights(model, Path("runs/x/weights.safetensors"))

Our parameters carry the released names, so nothing is mapped; a tensor that is missing, left over or of another shape is
an error that lists them by group.
"""

from __future__ import annotations

import argparse
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidmae.record import fsync_folder

WRAPPERS = ("module.", "_orig_mod.")  # left in the names by DistributedDataParallel and torch.compile
SPATIAL_TABLES = ("pos_embed_spatial", "decoder_pos_embed_spatial")


class WeightsError(ValueError):
    """A file does not hold the weights of the model; the message lists what does not fit, by group."""


def load_state(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or of a released .pth file, without running code from it.

    Raises:
        WeightsError: It is a folder, damaged, or holds no named tensors.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; give the weights.safetensors that a finished run writes, or a .pth file")
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):
                state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no file {path}") from error
    except Exception as error:  # each format has its own errors for a damaged file
        raise WeightsError(f"{path} cannot be read as weights: {str(error).splitlines()[0]}") from error
    for key in ("model", "model_state"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} holds no named tensors, neither at its top nor under model or model_state")
    return {_plain_name(name): tensor for name, tensor in state.items()}


def _plain_name(name: str) -> str:
    while name.startswith(WRAPPERS):
        name = name[len(next(w for w in WRAPPERS if name.startswith(w))):]
    return name.replace("head.projection.", "head.")  # files of facebookresearch/mae_st


def load_weights(model: nn.Module, path: Path, *, resize_positions: bool = False) -> list[str]:
    """Load a file into a model, strictly.

    Args:
        model: Takes the weights; its dtype and device stay.
        path: .safetensors, or .pth as released with the paper.
        resize_positions: Resize the spatial position tables (bicubic) where the file is of another image size.
    Returns:
        What was done beyond copying, one line each; empty where every tensor fitted as it was.
    Raises:
        WeightsError: Anything is missing, left over or of another shape.
    """
    state, done = load_state(path), []
    own = model.state_dict()
    for name in SPATIAL_TABLES:
        if name in state and name in own and state[name].shape[1] != own[name].shape[1] and resize_positions:
            done.append(f"{name}: resized from {state[name].shape[1]} to {own[name].shape[1]} cells")
            state[name] = resize_table(state[name], own[name].shape[1])
    report = mismatch(state, own)
    if report:
        raise WeightsError(f"{path} does not fit the model:\n  " + "\n  ".join(report))
    model.load_state_dict(state)
    return done


def mismatch(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from being loaded into `own`, a line per group of tensors; empty where nothing does."""
    both = state.keys() & own.keys()
    shapes = sorted(name for name in both if state[name].shape != own[name].shape)
    lines = [f"missing in the file: {group}" for group in _groups(own.keys() - state.keys())]
    lines += [f"not in the model: {group}" for group in _groups(state.keys() - own.keys())]
    lines += [f"other shape: {name} is {list(state[name].shape)}, the model has {list(own[name].shape)}"
              for name in shapes[:8]]
    if len(shapes) > 8:
        lines.append(f"other shape: {len(shapes) - 8} more")
    if any(name.rpartition(".")[2] in SPATIAL_TABLES for name in shapes):
        lines.append("the file is of another image size: match model.img_size, or load it with resize_positions=True")
    return lines


def _groups(names: Iterable[str]) -> list[str]:
    """Names with their block numbers folded: `blocks.*.attn.q.weight (32)`."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [f"{name} ({n})" if n > 1 else name for name, n in sorted(counts.items())]


def resize_table(table: Tensor, cells: int) -> Tensor:
    """Resize a square spatial position table [1, H*W, D] to [1, cells, D], bicubic as in the released code."""
    old, new = round(table.shape[1] ** 0.5), round(cells ** 0.5)
    if old**2 != table.shape[1] or new**2 != cells:
        raise WeightsError(f"a position table of {table.shape[1]} cells cannot be resized to {cells}: not both are squares")
    grid = table.float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, cells, -1).to(table.dtype)


def save_safetensors(state: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str]) -> None:
    """Write float32 tensors atomically, readable by their owner alone."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        tensors = {name: t.detach().float().cpu().contiguous() for name, t in state.items()}
        safetensors.torch.save_file(tensors, tmp, metadata={"format": "pt", **metadata})
        tmp.chmod(0o600)
        with tmp.open("rb") as f:
            os.fsync(f.fileno())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    fsync_folder(path.parent)
