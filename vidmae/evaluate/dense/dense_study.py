"""One sequence under both probes: its record, and the threshold that says when a point is hidden.

A record is what sequences/00007.json of a cell holds: `objects`, J and F of each; `points`, the scores of each kind of
queries. Letters: T frames, h w cells, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from vidmae.evaluate.dense.dense_sequence import VOID, DenseSequence
from vidmae.evaluate.dense.mask_scores import score_masks
from vidmae.evaluate.dense.point_scores import score_points
from vidmae.evaluate.dense.point_tracking import (
    RASTER_PX,
    Followed,
    Queries,
    QueryMode,
    follow,
    make_queries,
    unit,
)
from vidmae.evaluate.dense.propagation import Carrying, carry_labels, labels_of_cells, masks_of
from vidmae.settings.programs.dense_config import DenseProbeConfig

MODES: tuple[QueryMode, ...] = get_args(QueryMode)
THRESHOLDS_PX = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0, 64.0, 96.0, 128.0, float(2 * RASTER_PX))


@torch.inference_mode()
def study(sequence: DenseSequence, features: Tensor | None, how: DenseProbeConfig, hidden_px: float,
          joined: int = 1) -> dict[str, Any]:
    """Carry the labels and follow the points of one sequence, as far as it has them.

    Args:
        sequence: With its truth.
        features: float32 [T, h, w, D] of length 1 each; None: labels and points stay where they are.
        how: The recipe.
        hidden_px: A point whose way back ends farther from the query is hidden.
        joined: Cells along each axis that are averaged to one for masks, whose time grows with the square of their number.
    Returns:
        What the module says.
    """
    record: dict[str, Any] = {"frames": len(sequence.frames), "objects": [], "points": {}}
    if sequence.masks is not None:
        said = carried(sequence.masks, features if features is None or joined == 1 else _joined(features, joined), how)
        record["objects"] = [asdict(each) for each in score_masks(said, sequence.masks)]
    if sequence.points is not None and sequence.occluded is not None:
        for mode in MODES:
            queries, truth, occluded = _asked(sequence.points, sequence.occluded, mode)
            followed = followed_points(truth, queries, features, how)
            score = score_points(followed.places, followed.back_px > hidden_px, truth, occluded, queries.frame, mode)
            if score:
                record["points"][mode] = asdict(score)
    return record


def carried(masks: np.ndarray, features: Tensor | None, how: DenseProbeConfig) -> np.ndarray:
    """The masks of all frames, uint8 [T, H, W], from those of the first."""
    first = np.where(masks[0] == VOID, 0, masks[0])
    if features is None:
        return np.broadcast_to(first, masks.shape)
    numbers, place = np.unique(np.append(0, first), return_inverse=True)
    mask = torch.from_numpy(place[1:].reshape(first.shape).astype(np.int64))
    _, height, width, _ = features.shape
    cells = labels_of_cells(mask, len(numbers) - 1, height, width).to(features.device)
    labels = carry_labels(features, cells, Carrying(how.last_frames, how.radius, how.neighbours, how.temperature))
    return np.asarray(numbers.astype(np.uint8)[masks_of(labels, *masks.shape[1:]).cpu().numpy()])


def followed_points(truth: np.ndarray, queries: Queries, features: Tensor | None, how: DenseProbeConfig) -> Followed:
    """The points of queries in all frames, from their places in the frames of the queries."""
    place = truth[np.arange(len(truth)), queries.frame]
    if features is None:
        frames = truth.shape[1]
        return Followed(np.repeat(place[:, None], frames, axis=1), np.zeros((len(truth), frames)))
    return follow(features, queries.frame, place, temperature=how.point_temperature, radius=how.point_radius)


def _joined(features: Tensor, cells: int) -> Tensor:
    """Features of larger cells."""
    _, height, width, _ = features.shape
    parts = features[:, :height // cells * cells, :width // cells * cells]
    return unit(parts.unflatten(2, (-1, cells)).unflatten(1, (-1, cells)).mean(dim=(2, 4)))


def choose_threshold(seen: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """The distance in px that tells hidden points from seen ones best.

    Args:
        seen: Of each sequence how far the way back ends from the query, and whether the point is hidden: [M] each.
    Returns:
        The one of THRESHOLDS_PX with the highest accuracy, the largest of several: without a reason nothing is hidden.
    """
    back, hidden = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    right = [float(((back > threshold) == hidden).mean()) for threshold in THRESHOLDS_PX]
    return max(zip(right, THRESHOLDS_PX, strict=True))[1]


def ways_back(sequence: DenseSequence, features: Tensor | None, how: DenseProbeConfig) -> tuple[np.ndarray, np.ndarray]:
    """What `choose_threshold` wants of one sequence with points: of all frames but that of the query."""
    assert sequence.points is not None and sequence.occluded is not None, "a scene has points"
    queries, truth, occluded = _asked(sequence.points, sequence.occluded, "first")
    followed = followed_points(truth, queries, features, how)
    counts = np.arange(truth.shape[1])[None] > queries.frame[:, None]
    return followed.back_px[counts], occluded[counts]


def _asked(points: np.ndarray, occluded: np.ndarray, mode: QueryMode) -> tuple[Queries, np.ndarray, np.ndarray]:
    queries = make_queries(occluded, mode)
    return queries, points[queries.track], occluded[queries.track]
