"""A feature for every cell of every frame: of an encoder, or of a control that is meant to fail or to succeed.

A token of a video encoder sees several frames, and its features depend on the whole clip. The feature of a frame is made so:

    clip of frame 20     12 13 14 15 16 17 18 19 [20 21] 22 23 24 25 26 27        16 frames, 2 a token
                                                  token whose features are taken

Each frame has a clip of its own, in which it stands at the same place: the first frame of the token in the middle. So all
features have the same position in time. Before the first frame and after the last one the clip repeats them. An image model
sees each frame alone; a video model does so, too, where `still` fills the clip with copies of the frame.

    pixels     the colours of the cell, as the encoder gets them
    mean       the mean colour of the frame in each of its cells: it says nothing of places
    surface    which thing a cell shows, and which place of it, from the truth: the best that a grid of cells can say

Letters: T frames, H W px, S px side of what the encoder sees, h w cells, D width, B clips.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vidmae.clips.transforms import crop_resize
from vidmae.evaluate.dense.dense_sequence import VOID, DenseSequence
from vidmae.evaluate.dense.point_tracking import unit
from vidmae.evaluate.extract import arithmetic
from vidmae.model.classifier import VideoClassifier
from vidmae.model.patches import normalise

MEAN, STD = 0.45, 0.225  # of pixels, as this suite's encoders have them
WAVES = 128  # random waves of which the features of a surface consist, each with its cosine and its sine
MOST_SAMPLES = 4  # places of a cell along each axis at which its surface is looked at
REACH_CELLS = 1.5  # how far places of a surface are alike


class StoppedError(Exception):
    """The work was given up because a signal asked for it."""


def squares(frames: np.ndarray, size: int) -> Tensor:
    """Whole frames as squares, uint8 [T, S, S, 3]: stretched, nothing is cut off."""
    return crop_resize(np.ascontiguousarray(frames), np.arange(len(frames)), (0, 0, *frames.shape[1:3]), size, flip=False)


def clip_frames(frame: int, total: int, *, num_frames: int, t_patch_size: int, step: int, still: bool) -> np.ndarray:
    """Numbers of the frames of the clip of one frame: int64 [num_frames]; see the module."""
    place = middle_slot(num_frames, t_patch_size) * t_patch_size
    steps = np.zeros(num_frames, dtype=np.int64) if still else (np.arange(num_frames) - place) * step
    return np.asarray((frame + steps).clip(0, total - 1))


def middle_slot(num_frames: int, t_patch_size: int) -> int:
    """The token, along time, that holds the frame of a clip."""
    return num_frames // t_patch_size // 2


@torch.inference_mode()
def encoder_features(model: VideoClassifier, frames: np.ndarray, *, step: int, still: bool, batch: int, precision: str,
                     tick: Callable[[int, int], bool] = lambda *_: False) -> Tensor:
    """Features of an encoder.

    Args:
        model: In evaluation mode; the patch tokens of its last block are taken, normed.
        frames: uint8 [T, H, W, 3].
        step: Frames from one frame of a clip to the next.
        still: A clip repeats its frame.
        batch: Clips of one forward pass.
        precision: bf16, fp16 or fp32.
        tick: Told how many frames are done, and of how many; True gives up.
    Returns:
        float32 [T, h, w, D] of length 1 each, on the model's device.
    Raises:
        StoppedError: `tick` asked for it.
    """
    shape, device = model.shape, next(model.parameters()).device
    small, found = squares(frames, shape.img_size).to(device), []
    which = np.stack([clip_frames(t, len(frames), num_frames=shape.num_frames, t_patch_size=shape.t_patch_size, step=step,
                                  still=still) for t in range(len(frames))])
    for first in range(0, len(frames), batch):
        if tick(first, len(frames)):
            raise StoppedError
        clips = small[torch.from_numpy(which[first:first + batch]).to(device)]
        with arithmetic(precision, device.type):
            tokens = model.tokens(clips).unflatten(1, shape.grid)
        found.append(unit(tokens[:, middle_slot(shape.num_frames, shape.t_patch_size)].float()))
    return torch.cat(found)


def pixel_features(frames: np.ndarray, size: int, patch: int) -> Tensor:
    """The colours of every cell: float32 [T, h, w, D] of length 1 each, D = patch * patch * 3."""
    small, side = normalise(squares(frames, size), MEAN, STD), size // patch
    cells = small.reshape(len(small), side, patch, side, patch, 3).transpose(2, 3)
    return unit(cells.flatten(3))


def mean_features(frames: np.ndarray, size: int, patch: int) -> Tensor:
    """The mean colour of the frame in each cell: float32 [T, h, w, 3] of length 1 each."""
    colour = normalise(squares(frames, size), MEAN, STD).mean((1, 2))
    return unit(colour)[:, None, None].expand(-1, size // patch, size // patch, -1)


def surface_features(sequence: DenseSequence, rows: int, columns: int) -> Tensor:
    """What the truth says of every cell: float32 [T, rows, columns, 2 * WAVES] of length 1 each.

    Half of the numbers say which thing it is. The others are waves over its places, so that near places of one thing are
    alike. A cell has the mean of some of its pixels. Where only masks are known, all places of an object are alike.

    Raises:
        ValueError: Neither masks nor a surface is known.
    """
    if sequence.masks is None:
        raise ValueError("the truth of this set says nothing of things (dense.features); allowed: a set with masks")
    surface, (frames, height, width) = sequence.surface, sequence.masks.shape
    layer = np.where(sequence.masks == VOID, 0, sequence.masks) if surface is None else surface.layer
    rng = np.random.default_rng(0)
    reach = REACH_CELLS * np.sqrt(height / rows * width / columns)
    waves = (rng.standard_normal((2, WAVES)) / reach).astype(np.float32)
    waves[:, ::2] = 0
    phases = rng.uniform(0, 2 * np.pi, (256, WAVES)).astype(np.float32)
    tall, wide = (min(MOST_SAMPLES, -(-length // cells)) for length, cells in ((height, rows), (width, columns)))
    y = np.minimum((np.arange(rows * tall) + 0.5) * height / (rows * tall), height - 1).astype(int)
    x = np.minimum((np.arange(columns * wide) + 0.5) * width / (columns * wide), width - 1).astype(int)
    found = np.empty((frames, rows, columns, 2 * WAVES), dtype=np.float32)
    for t in range(frames):
        at = phases[layer[t][np.ix_(y, x)]]
        at = at if surface is None else at + surface.place[t][np.ix_(y, x)] @ waves
        values = np.concatenate([np.cos(at), np.sin(at)], axis=-1)
        found[t] = values.reshape(rows, tall, columns, wide, -1).mean(axis=(1, 3))
    return unit(torch.from_numpy(found))
