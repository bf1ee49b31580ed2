"""Pictures of what a model sees and fills in. Frames of private footage: written only where a recipe asks for it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vidmae.masking import Mask
from vidmae.model import MaskedAutoencoder
from vidmae.record import write_atomic

GREY = 0.5
GAP_PX = 4


def reconstruction(model: MaskedAutoencoder, clips: Tensor, mask: Mask, *, every: int = 2) -> np.ndarray:
    """Three rows for each clip: masked input, reconstruction, original.

    Args:
        model: In evaluation mode, on the device of `clips`.
        clips: uint8 [B, T, H, W, C].
        mask: What the model does not see.
        every: Every how many frames one is shown; the masked ones are cut by the same token, so 2 loses nothing.
    Returns:
        uint8 [height, width, 3], white between the pictures.
    """
    original = clips.float() / 255
    hidden = model.removed_pixels(mask.to(clips.device))
    rows = (torch.where(hidden, GREY, original), model.reconstruct(clips, mask), original)
    blocks = [_sheet([row[b, ::every] for row in rows]) for b in range(len(clips))]
    return (_stack(blocks, 3 * GAP_PX) * 255).round().astype(np.uint8)


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write a picture atomically, readable by its owner alone."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def _sheet(rows: list[Tensor]) -> np.ndarray:
    strips = [_stack([frame.cpu().numpy() for frame in row], GAP_PX, axis=1) for row in rows]
    return _stack(strips, GAP_PX)


def _stack(tiles: list[np.ndarray], gap: int, axis: int = 0) -> np.ndarray:
    shape = list(tiles[0].shape)
    shape[axis] = gap
    white = np.ones(shape, dtype=np.float32)
    return np.concatenate([part for tile in tiles for part in (tile, white)][:-1], axis=axis)
