"""J and F of carried masks, as the official evaluation of DAVIS has them.

    J    intersection over union of the pixels of an object
    F    harmonic mean of precision and recall of its outline; a pixel of an outline is right within 0.008 of the diagonal
    mean, recall (share of frames above 0.5), decay (mean of the first quarter of the frames minus that of the last)

The first and the last frame do not count. Each object counts alike, whatever the sequence.
Source: Perazzi et al. 2016 (DAVIS, CVPR) sec. 4; the code github.com/davisvideochallenge/davis2017-evaluation for borders,
rounding and empty masks. Letters: T frames, H W px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vidmae.evaluate.dense.dense_sequence import VOID

TOLERANCE = 0.008  # of the diagonal
RIGHT = 0.5
QUARTERS = 4


@dataclass(frozen=True)
class Kept:
    """How well something is kept over the frames: mean, recall and decay, in 0..1."""

    mean: float
    recall: float
    decay: float


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object of a sequence."""

    number: int
    j: Kept
    f: Kept


def region_iou(said: np.ndarray, truth: np.ndarray, asked: np.ndarray) -> float:
    """Intersection over union, of bool [H, W] each; 1 where both are empty."""
    union = ((said | truth) & asked).sum()
    return float((said & truth & asked).sum() / union) if union else 1.0


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from the one to the right, below, or both: bool [H, W]. The border of the frame is no outline."""
    wide = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return np.asarray((mask != wide[:-1, 1:]) | (mask != wide[1:, :-1]) | (mask != wide[1:, 1:]))


def outline_f(said: np.ndarray, truth: np.ndarray, asked: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F of two outlines.

    Args:
        said, truth: bool [H, W].
        asked: bool [H, W], pixels that count.
        tolerance: Share of the diagonal, rounded up to whole px.
    Returns:
        1 where both have no outline, 0 where one of them has none.
    """
    reach = math.ceil(tolerance * math.hypot(*said.shape))
    ours, theirs = outline(said & asked), outline(truth & asked)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = (ours & _near(theirs, reach)).sum() / ours.sum()
    recall = (theirs & _near(ours, reach)).sum() / theirs.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _near(pixels: np.ndarray, reach: int) -> np.ndarray:
    """Pixels no farther than `reach` px from some others: what a disc of that radius covers."""
    return np.asarray(ndimage.distance_transform_edt(~pixels) <= reach)


def kept(values: np.ndarray) -> Kept:
    """Mean, recall and decay over frames [T]; quarters share their borders, as in the official code."""
    edges = np.round(np.linspace(1, len(values), QUARTERS + 1) + 1e-10).astype(int) - 1
    first, last = values[edges[0]:edges[1] + 1], values[edges[-2]:edges[-1] + 1]
    return Kept(float(values.mean()), float((values > RIGHT).mean()), float(first.mean() - last.mean()))


def score_masks(said: np.ndarray, truth: np.ndarray) -> list[ObjectScore]:
    """Scores of every object of the first frame.

    Args:
        said: uint8 [T, H, W].
        truth: uint8 [T, H, W]; VOID is not asked about.
    Raises:
        ValueError: There are fewer than three frames.
    """
    if len(truth) < 3 or said.shape != truth.shape:
        raise ValueError(f"masks of {list(said.shape)} for {list(truth.shape)}, allowed: 3 frames or more, of one size")
    found = []
    for number in sorted(set(np.unique(truth[0]).tolist()) - {0, VOID}):
        pairs = [(mine == number, right == number, right != VOID)
                 for mine, right in zip(said[1:-1], truth[1:-1], strict=True)]
        j, f = (np.array([measure(*pair) for pair in pairs]) for measure in (region_iou, outline_f))
        found.append(ObjectScore(number, kept(j), kept(f)))
    return found
