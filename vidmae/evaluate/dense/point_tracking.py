"""Follow points by the nearest feature: each frame by itself, over the whole frame.

The feature at a query is compared with that of every cell of a frame (cosine). The place found is the mean of the cells
around the best one, weighted by a softmax of their likeness, so it is finer than a cell. From there the way back is taken in
the same manner; how far from the query it ends says whether the point is seen at all.
Source: the cost volume and the soft argmax of TAP-Net (arXiv 2211.03726 sec. 4) without what it learns; the way back as in
Jabri et al. 2020 (arXiv 2006.14613).

Letters: T frames, h w cells, D width, Q queries. Places are (x, y) as shares of width and height.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vidmae.evaluate.dense.propagation import NEARER

QueryMode = Literal["first", "strided"]
STRIDE = 5  # frames between queries of mode strided
RASTER_PX = 256  # side of the frame in which distances are counted


@dataclass(frozen=True)
class Queries:
    """Where points are asked for.

    Attributes:
        track: int64 [Q], which point.
        frame: int64 [Q], in which frame it is shown.
    """

    track: np.ndarray
    frame: np.ndarray


@dataclass(frozen=True)
class Followed:
    """Where points were found.

    Attributes:
        places: float32 [Q, T, 2].
        back_px: float32 [Q, T], how far from the query the way back ends, of a frame of RASTER_PX.
    """

    places: np.ndarray
    back_px: np.ndarray


def make_queries(occluded: np.ndarray, mode: QueryMode) -> Queries:
    """The queries of a sequence.

    Args:
        occluded: bool [N, T].
        mode: `first`, each point where it is first seen; `strided`, in every STRIDE-th frame the points that are seen there.
    """
    seen = ~occluded
    if mode == "first":
        track = np.flatnonzero(seen.any(axis=1))
        return Queries(track, seen[track].argmax(axis=1))
    frame, track = np.nonzero(seen[:, ::STRIDE].T)
    return Queries(track, frame * STRIDE)


@torch.inference_mode()
def follow(features: Tensor, frame: np.ndarray, place: np.ndarray, *, temperature: float, radius: int) -> Followed:
    """Find points in all frames.

    Args:
        features: float [T, h, w, D] of length 1 each.
        frame: int64 [Q], of each query.
        place: float [Q, 2], of each query.
        temperature: Of the softmax.
        radius: Cells around the best one that count, along both axes.
    """
    frames, height, width, _ = features.shape
    places, back_px = np.empty((len(frame), frames, 2), np.float32), np.empty((len(frame), frames), np.float32)
    grid = _grid(height, width, features)
    for start in np.unique(frame).tolist():
        here = np.flatnonzero(frame == start)
        asked = torch.from_numpy(place[here]).to(features.device, features.dtype)
        wanted = feature_at(features[start], asked)
        for t in range(frames):
            found = _nearest(wanted, features[t], asked, grid, temperature, radius)
            back = _nearest(feature_at(features[t], found), features[start], found, grid, temperature, radius)
            places[here, t] = found.cpu().numpy()
            back_px[here, t] = ((back - asked) * RASTER_PX).norm(dim=1).cpu().numpy()
    return Followed(places, back_px)


def feature_at(cells: Tensor, place: Tensor) -> Tensor:
    """Features between cells.

    Args:
        cells: [h, w, D].
        place: [Q, 2].
    Returns:
        [Q, D] of length 1 each: the mean of the four nearest cells, by nearness; beyond the middle of an outermost cell that
        cell.
    """
    height, width, _ = cells.shape
    size = torch.tensor([width, height]).to(place)
    at = (place * size - 0.5).clamp(min=0).minimum(size - 1)
    low = at.floor().long()
    high = (low + 1).minimum(size.long() - 1)
    x, y = (at - low).unbind(1)
    corners = ((low[:, 1], low[:, 0], (1 - y) * (1 - x)), (low[:, 1], high[:, 0], (1 - y) * x),
               (high[:, 1], low[:, 0], y * (1 - x)), (high[:, 1], high[:, 0], y * x))
    mixed = sum(cells[row, column] * share[:, None] for row, column, share in corners)
    assert isinstance(mixed, Tensor)
    return unit(mixed)


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1; those of length 0 stay."""
    found: Tensor = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return found


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    """(x, y) of the middle of every cell, [h * w, 2], in cells."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return (torch.stack([x.flatten(), y.flatten()], dim=1).double() + 0.5).to(like.device, like.dtype)


def _nearest(wanted: Tensor, cells: Tensor, near: Tensor, grid: Tensor, temperature: float, radius: int) -> Tensor:
    """Places [Q, 2] in a frame of what is most like `wanted` [Q, D]; of equally alike ones the nearest to `near`."""
    height, width, _ = cells.shape
    size = torch.tensor([width, height]).to(near)
    away = (grid[None] - (near * size)[:, None]).norm(dim=-1)
    alike = wanted @ cells.flatten(0, 1).T - NEARER * away
    best = grid[alike.argmax(dim=1)]
    outside = ((grid[None] - best[:, None]).abs() > radius + 0.5).any(dim=-1)
    weights = (alike / temperature).masked_fill(outside, -float("inf")).softmax(dim=1)
    found: Tensor = weights @ grid / size
    return found
