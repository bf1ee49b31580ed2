"""Pictures of what a model sees and fills in: rows of frames, each behind its name, and always seen, filled in, truth.

Frames of private footage: written only where a recipe or a flag asks for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidmae.insight.vision import heat, written
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import Mask
from vidmae.runs.record import write_atomic

GREY = 0.5
GAP_PX = 4
HEAT = 0.5  # share of a map's colour that is laid over a frame
ROWS = ("seen", "filled in", "truth")
SCALE = "low to high"
LEAST_SCALE_PX = 16  # height of the row that shows the colours of a map


def reconstruction(model: MaskedAutoencoder, clips: Tensor, mask: Mask, *, every: int = 2) -> np.ndarray:
    """Three rows for each clip: what the model saw, what it filled in, the truth.

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
    blocks = [_sheet({name: row[b, ::every].cpu().numpy() for name, row in zip(ROWS, rows, strict=True)})
              for b in range(len(clips))]
    return _bytes(_stack(blocks, 3 * GAP_PX))


def strip(clip: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """An interpolation as three rows of all frames: what the model saw, what it filled in, the truth.

    Args:
        clip: uint8 [T, H, W, 3].
        hidden: bool [T, H, W].
        filled: float [T, H, W, 3] in 0..1.
    Returns:
        uint8 [height, width, 3], white between the pictures.
    """
    return _bytes(_sheet(dict(zip(ROWS, _three(clip, hidden, filled), strict=True))))


def side_by_side(clip: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """The frames of a video: seen, filled in and truth beside each other; arguments as for `strip`.

    Returns:
        uint8 [T, H, 3 * W and gaps, 3].
    """
    rows = zip(*_three(clip, hidden, filled), strict=True)
    return np.stack([_bytes(_stack(list(frames), GAP_PX, axis=1)) for frames in rows])


def attention_strip(clip: np.ndarray, maps: Mapping[str, np.ndarray], *, every: int = 1) -> np.ndarray:
    """Frames, below them the frames with each map laid over, and at last the colours from low to high.

    Args:
        clip: uint8 [T, H, W, 3].
        maps: Name of each row -> [t, h, w], over patches; each token's colour covers its pixels (nearest, as in the paper);
            the brightest are the hundredth part of a map with the largest numbers.
        every: Every how many frames one is shown.
    Returns:
        uint8 [height, width, 3], white between the pictures.
    """
    original = clip.astype(np.float32) / 255
    over = {name: (1 - HEAT) * original + HEAT * _heated(each, clip.shape[:3]) for name, each in maps.items()}
    rows = {name: row[::every] for name, row in {"frames": original, **over}.items()}
    width = len(rows["frames"]) * (clip.shape[2] + GAP_PX) - GAP_PX
    colours = heat(np.linspace(0, 1, width)[None].repeat(max(LEAST_SCALE_PX, clip.shape[1] // 8), axis=0))
    return _bytes(_sheet({**rows, SCALE: [colours]}))


def attention_video(clip: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """The frames of a video: the clip and a map beside it.

    Args:
        clip: uint8 [T, H, W, 3].
        attention: [t, h, w].
    Returns:
        uint8 [T, H, 2 * W and a gap, 3].
    """
    pairs = zip(clip.astype(np.float32) / 255, _heated(attention, clip.shape[:3]), strict=True)
    return np.stack([_bytes(_stack(list(pair), GAP_PX, axis=1)) for pair in pairs])


def save_png(picture: np.ndarray, path: Path) -> None:
    """Write a picture atomically, readable by its owner alone."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def _three(clip: np.ndarray, hidden: np.ndarray, filled: np.ndarray) -> list[np.ndarray]:
    original = clip.astype(np.float32) / 255
    return [np.where(hidden[..., None], np.float32(GREY), original), filled.astype(np.float32), original]


def _heated(attention: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """A map over patches as colours of all pixels: float32 [T, H, W, 3]."""
    full = attention / (np.quantile(attention, 0.99) or attention.max())
    for axis, length in enumerate(size):
        full = full.repeat(length // full.shape[axis], axis=axis)
    return np.stack([heat(frame) for frame in full])


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


def _sheet(named: Mapping[str, Iterable[np.ndarray]]) -> np.ndarray:
    """Rows of frames below each other, each behind its name; frames of a row are alike in size."""
    rows = {name: list(frames) for name, frames in named.items()}
    heights = [frames[0].shape[0] for frames in rows.values()]
    names = written(list(rows), max(heights))
    return _stack([_stack([_middle(name, height), *frames], GAP_PX, axis=1)
                   for name, height, frames in zip(names, heights, rows.values(), strict=True)], GAP_PX)


def _middle(paper: np.ndarray, height: int) -> np.ndarray:
    top = (len(paper) - height) // 2
    return paper[top:top + height]


def _stack(tiles: list[np.ndarray], gap: int, axis: int = 0) -> np.ndarray:
    shape = list(tiles[0].shape)
    shape[axis] = gap
    white = np.ones(shape, dtype=np.float32)
    return np.concatenate([part for tile in tiles for part in (tile, white)][:-1], axis=axis)
