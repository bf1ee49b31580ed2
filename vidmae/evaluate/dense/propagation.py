"""Carry the labels of the first frame through a video by the likeness of features.

A place of a frame takes the labels of the places of earlier frames whose features are most alike: of the first frame and of
the last few, no farther away than a radius, the k most alike, weighted by a softmax. What was carried to a frame is what the
next frames take from it.
Source: the recipe of Caron et al. 2021 (DINO, arXiv 2104.14294, sec. 4.2.2 and its released evaluation: 7 frames, radius 12,
k 5, temperature 0.1), after Jabri et al. 2020 (arXiv 2006.14613) and Oh et al. 2019 (space-time memory, arXiv 1904.00607).

Three things differ from that evaluation. Labels of the first frame are shares of a cell's area, not the label of its
middle, since the cells of these models are large. Of equally alike places the nearer one counts: a feature that says nothing
leaves labels where they are. And an object whose label is weak everywhere is gone, where that evaluation shows its last
trace.

Letters: T frames, h w cells, D width, C labels, H W px.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

NEARER = 1e-5  # of likeness, for each cell of distance: less than what features say, more than rounding
LEAST = 0.05  # share of a label in every cell below which an object is gone


@dataclass(frozen=True)
class Carrying:
    """How labels are carried.

    Attributes:
        last_frames: So many frames before this one are looked at, and the first.
        radius: In cells, along both axes.
        neighbours: k.
        temperature: Of the softmax over the likeness, a cosine.
    """

    last_frames: int = 7
    radius: int = 12
    neighbours: int = 5
    temperature: float = 0.1


def carry_labels(features: Tensor, first: Tensor, how: Carrying) -> Tensor:
    """Labels of all frames.

    Args:
        features: float [T, h, w, D] of length 1 each.
        first: float [h, w, C], labels of the first frame, of sum 1 in each cell.
        how: The recipe.
    Returns:
        float [T, h, w, C].
    """
    frames, height, width, _ = features.shape
    flat, labels = features.flatten(1, 2), [first.flatten(0, 1)]
    away = _away(height, width, how.radius, features)
    for t in range(1, frames):
        sources = [0, *range(max(1, t - how.last_frames), t)]
        known = torch.cat([labels[s] for s in sources])
        alike = torch.cat([flat[t] @ flat[s].T - away for s in sources], dim=1)
        best, which = alike.topk(min(how.neighbours, alike.shape[1]), dim=1)
        weights = (best / how.temperature).softmax(dim=1)
        labels.append((known[which] * weights[..., None]).sum(dim=1))
    found: Tensor = torch.stack(labels).unflatten(1, (height, width))
    return found


def _away(height: int, width: int, radius: int, like: Tensor) -> Tensor:
    """What is taken off the likeness of two cells: NEARER for each cell of distance, everything beyond the radius."""
    y, x = (each.flatten() for each in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    dy, dx = (y[:, None] - y[None]).abs(), (x[:, None] - x[None]).abs()
    away: Tensor = NEARER * (dy**2 + dx**2).double().sqrt()
    return away.masked_fill((dy > radius) | (dx > radius), float("inf")).to(like.device, like.dtype)


def labels_of_cells(mask: Tensor, objects: int, height: int, width: int) -> Tensor:
    """Share of each label in each cell.

    Args:
        mask: int64 [H, W], 0 to `objects`.
        objects: How many there are; label 0 is none of them.
        height, width: h and w.
    Returns:
        float32 [h, w, 1 + objects].
    """
    hot = F.one_hot(mask, 1 + objects).permute(2, 0, 1)[None].float()
    return F.adaptive_avg_pool3d(hot, (1 + objects, height, width))[0].permute(1, 2, 0)


def masks_of(labels: Tensor, height: int, width: int) -> Tensor:
    """The label of every pixel.

    Each label is interpolated over the frame (bilinear) and stretched, so that it reaches 1 somewhere and 0 somewhere; the
    largest one counts. One that has less than LEAST everywhere is gone.

    Args:
        labels: float [T, h, w, C].
        height, width: H and W.
    Returns:
        uint8 [T, H, W].
    """
    found = []
    for each in labels:
        wide = F.interpolate(each.permute(2, 0, 1)[None], size=(height, width), mode="bilinear")[0]
        low, high = wide.amin((1, 2), keepdim=True), wide.amax((1, 2), keepdim=True)
        stretched = (wide - low) / (high - low).clamp(min=1e-6)
        whole = high - low < 1e-6  # the same everywhere: it stays as it is
        shown = wide.where(whole, stretched).masked_fill(high < LEAST, -1)
        found.append(shown.argmax(0).to(torch.uint8))
    return torch.stack(found)
