"""The scores of TAP-Vid for points that were followed.

    share within d px     of the frames in which a point is seen, in how many it is found within d px; d is 1, 2, 4, 8, 16 of
                          a frame of 256 x 256 px; whether it was said to be seen does not count. The mean over d is delta
    occlusion accuracy    share of frames for which it is right whether the point is seen
    Jaccard within d px   right / (frames in which it is seen + frames in which it is said to be seen, and is not, or is not
                          there); right is what is seen, said to be seen, and within d px. The mean over d is AJ

Frames that count are those after the query (mode first), or all but that of the query (strided). Sums go over all points
of a sequence, means over sequences.
Source: Doersch et al. 2022, TAP-Vid (arXiv 2211.03726) sec. 3.3. Letters: Q queries, T frames, K distances.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidmae.evaluate.dense.point_tracking import RASTER_PX, QueryMode

DISTANCES_PX = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class PointScore:
    """Scores of one sequence, in 0..1.

    Attributes:
        within: Share within each of DISTANCES_PX.
        delta: Their mean.
        jaccard: AJ, the mean of the Jaccard indexes.
        occlusion: Occlusion accuracy.
    """

    within: tuple[float, ...]
    delta: float
    jaccard: float
    occlusion: float


def score_points(said: np.ndarray, said_occluded: np.ndarray, truth: np.ndarray, occluded: np.ndarray, frame: np.ndarray,
                 mode: QueryMode) -> PointScore | None:
    """Score the queries of one sequence.

    Args:
        said: float [Q, T, 2], places as shares of width and height.
        said_occluded: bool [Q, T].
        truth: float [Q, T, 2].
        occluded: bool [Q, T].
        frame: int64 [Q], of each query.
        mode: How queries were chosen.
    Returns:
        None where no frame counts, or no point is seen in one that does.
    """
    when = np.arange(truth.shape[1])[None]
    counts = when > frame[:, None] if mode == "first" else when != frame[:, None]
    seen = ~occluded & counts
    if not seen.any():
        return None
    away = np.linalg.norm((np.where(occluded[..., None], said, truth) - said) * RASTER_PX, axis=-1)
    shown = ~said_occluded & counts
    within, jaccard = [], []
    for distance in DISTANCES_PX:
        close = away < distance
        right = (close & seen & shown).sum()
        wrong = (shown & (occluded | ~close)).sum()
        within.append(float((close & seen).sum() / seen.sum()))
        jaccard.append(float(right / (seen.sum() + wrong)))
    same = (said_occluded == occluded) & counts
    return PointScore(tuple(within), float(np.mean(within)), float(np.mean(jaccard)), float(same.sum() / counts.sum()))
