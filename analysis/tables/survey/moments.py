"""Moments of the recordings of a data set as numpy arrays, the groups that they are of, and weighted numbers of a group.

A moment stands for as many seconds as its recording has for each of its moments, so that a long recording does not count as
a short one. What is computed of moments is said of seconds of footage.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vidmae.footage.manifest import Manifest

ALL = "all"
MEASURES = {"motion_pct_per_s": "Motion (% of the short side per s)", "change": "Change in 0.27 s (grey levels)",
            "sharpness": "Sharpness (variance of the Laplacian)", "brightness": "Brightness (0 to 255)",
            "contrast": "Contrast (grey levels)"}
"""Column of the features to its name on an axis."""
FEWEST = 6  # recordings for an interval
RESAMPLED = 1000


@dataclass(frozen=True)
class Group:
    """Recordings and moments of a data set, or of a child in it. R recordings, M moments.

    Attributes:
        data: Name of the data set.
        child: Name of the child, or ALL.
        seconds: float64 [R], lengths of the recordings.
        age_months: float64 [R], NaN where it is not known.
        content: uint64 [R].
        moments: M rows with the columns of the features.
        weight: float64 [M], seconds for which each moment stands.
        of: int64 [M], its recording, 0 to R - 1.
    """

    data: str
    child: str
    seconds: np.ndarray
    age_months: np.ndarray
    content: np.ndarray
    moments: pd.DataFrame
    weight: np.ndarray
    of: np.ndarray

    @property
    def name(self) -> str:
        """As in a figure."""
        return self.data if self.child == ALL else f"{self.data}, {self.child}"

    @property
    def hours(self) -> float:
        """Footage in hours."""
        return float(self.seconds.sum() / 3600)


def read_groups(manifest: Path, features: Path) -> list[Group]:
    """A data set and, where its manifest names several children, each of them, by name.

    Raises:
        ValueError: The features are of other recordings.
    """
    videos, moments = Manifest.read(manifest), pd.read_csv(features, dtype={"content": str, "hash": str})
    rows = moments["row"].to_numpy(dtype=np.int64)
    contents = np.array([int(text, 16) for text in moments["content"]], dtype=np.uint64)
    if len(rows) and (rows.max() >= len(videos) or (videos.content[rows] != contents).any()):
        raise ValueError(f"{features} was made of other recordings than {manifest} lists; delete it")
    everyone = np.ones(len(videos), dtype=bool)
    groups = [_group(manifest.stem, ALL, everyone, videos, moments, rows)]
    if len(videos.children) > 1:
        for place, child in sorted(enumerate(videos.children), key=lambda each: each[1]):
            groups.append(_group(manifest.stem, child, videos.child == place, videos, moments, rows))
    return groups


def _group(data: str, child: str, chosen: np.ndarray, videos: Manifest, moments: pd.DataFrame, rows: np.ndarray) -> Group:
    place = np.cumsum(chosen) - 1
    mine = chosen[rows]
    of = place[rows[mine]]
    seconds = np.asarray(videos.seconds[chosen])
    counts = np.bincount(of, minlength=len(seconds))
    return Group(data, child, seconds, np.asarray(videos.age_months[chosen]), np.asarray(videos.content[chosen]),
                 moments[mine].reset_index(drop=True), seconds[of] / np.maximum(counts[of], 1), of)


def quantiles(values: np.ndarray, weight: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Weighted quantiles: the least value up to which at least the share of the weight lies; NaN of nothing."""
    if not len(values):
        return np.full(len(shares), np.nan)
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(weight[order])
    places = np.searchsorted(ends, shares * ends[-1] * (1 - 1e-12))
    return np.asarray(values[order][np.minimum(places, len(values) - 1)])


def mean(values: np.ndarray, group: Group) -> float:
    """Of a second of footage; NaN of nothing."""
    total = group.weight.sum()
    return float((values * group.weight).sum() / total) if total else float("nan")


def resampled(values: np.ndarray, group: Group, seed: int) -> np.ndarray:
    """Means [RESAMPLED] with recordings drawn anew, each time as many as there are; NaN with fewer than FEWEST."""
    recordings = len(group.seconds)
    if recordings < FEWEST or not len(values):
        return np.full(RESAMPLED, np.nan)
    sums = np.bincount(group.of, values * group.weight, minlength=recordings)
    weights = np.bincount(group.of, group.weight, minlength=recordings)
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, recordings, recordings) for _ in range(RESAMPLED))
    return np.array([sums[drawn].sum() / max(weights[drawn].sum(), 1e-12) for drawn in draws])


def above(values: np.ndarray, weight: np.ndarray, others: np.ndarray, other_weight: np.ndarray) -> float:
    """How often a second of one has more than a second of the other, 0 to 1; equal ones count half."""
    if not len(values) or not len(others):
        return float("nan")
    order = np.argsort(others, kind="stable")
    ends = np.concatenate([[0.0], np.cumsum(other_weight[order])])
    below, up_to = (ends[np.searchsorted(others[order], values, side=side)] for side in ("left", "right"))
    return float((weight * (below + up_to) / 2).sum() / weight.sum() / ends[-1])
