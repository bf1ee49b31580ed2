"""Surprise without a model, for the same windows: what a model must beat, and what shows that a list of pairs can be used.

    hold         mean square of the difference from the last frame of the context: the model that copies what it saw last
    difference   mean square of the change from one frame to the next: what flickers or jumps is surprising
    flow         mean square of what is left of a frame when the motion before it goes on (dense inverse search)
    brightness   mean of the pixels: knows nothing of time; on balanced pairs it is right in 50 %
    oracle       of generated scenes: the share of predicted frames that are of another world than the first frame of the
                 window; right in 100 %

A window has the mean over the frames that a model has to predict there. In generated scenes difference, flow and brightness
are at chance whatever a model sees. So is hold as long as the last frame that is seen has the screen up; before that, it
remembers the object by copying it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from vidmae.insight.vision import beyond

HOLD, ORACLE = "hold", "oracle"
OF_FRAMES = ("difference", "flow", "brightness")
PLAIN = (HOLD, *OF_FRAMES)


def plain_surprise(video: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of all frames.

    Args:
        video: uint8 [F, S, S, 3].
    Returns:
        Of each of OF_FRAMES float64 [F]; NaN at the start, where there is no frame before.
    """
    pixels = video.astype(np.float32) / 255
    change = [float("nan"), *(_square(now - last) for last, now in pairwise(pixels))]
    rest = [float("nan")] * 2 + [_square(pixels[t] - beyond(pixels[t - 2], pixels[t - 1], 1)) for t in range(2, len(pixels))]
    return {"difference": np.array(change), "flow": np.array(rest[:len(pixels)]),
            "brightness": pixels.mean(axis=(1, 2, 3), dtype=np.float64)}


def of_windows(frames: np.ndarray, first: Sequence[int], context: int, num_frames: int) -> np.ndarray:
    """Mean over the predicted frames of every window: float64 [windows].

    Args:
        frames: float [F].
        first: First frames of the windows.
        context: Frames of each that are seen.
        num_frames: T.
    """
    return np.array([frames[s + context:s + num_frames].mean() for s in first])


def hold(video: np.ndarray, first: Sequence[int], context: int, num_frames: int) -> np.ndarray:
    """How far the predicted frames of every window are from the last one that is seen: float64 [windows].

    Args:
        video: uint8 [F, S, S, 3].
        first, context, num_frames: See `of_windows`.
    """
    pixels = video.astype(np.float32) / 255
    return np.array([_square(pixels[s + context:s + num_frames] - pixels[s + context - 1]) for s in first])


def oracle(truth: np.ndarray, first: Sequence[int], context: int, num_frames: int) -> np.ndarray:
    """The share of predicted frames that are of another world than the first frame: float64 [windows].

    Args:
        truth: int [F], see `violations.Violation.truth`.
        first, context, num_frames: See `of_windows`.
    """
    return np.array([(truth[s + context:s + num_frames] != truth[s]).mean() for s in first])


def _square(difference: np.ndarray) -> float:
    return float(np.square(difference, dtype=np.float64).mean())
