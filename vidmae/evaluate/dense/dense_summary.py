"""From the records of sequences to the scores of a set, with intervals. No torch here.

A score is a mean: of J and F over objects, of points over sequences. What is drawn again for an interval is sequences, since
the objects of one are not independent. With fewer than six of them no interval is claimed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FEWEST = 6  # sequences of an interval
RESAMPLES = 2000
LEVEL = 0.95
OF_OBJECTS = {f"{measure}_{what}_pct": (measure, what) for measure in ("j", "f") for what in ("mean", "recall", "decay")}
JF = "jf_mean_pct"
OF_POINTS = {"delta_pct": "delta", "aj_pct": "jaccard", "occlusion_pct": "occlusion"}
QUERIES = ("first", "strided")


@dataclass(frozen=True)
class Measured:
    """A score in percent, or points of a difference.

    Attributes:
        pct: The mean.
        low: Lower end of the 95 % interval; None with fewer than FEWEST sequences.
        high: Upper end.
        sequences: Sequences that have the score.
    """

    pct: float
    low: float | None
    high: float | None
    sequences: int


def names_of_scores() -> list[str]:
    """Every score, as `summarise` names it."""
    return [JF, *OF_OBJECTS, *(f"{mode}_{name}" for mode in QUERIES for name in OF_POINTS)]


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Measured]:
    """The scores of a set.

    Args:
        records: Of its sequences, see `dense_study.study`.
    """
    found = {}
    for name in names_of_scores():
        sums, counts = _columns(records, name)
        if counts.any():
            found[name] = _measured(sums, counts)
    return found


def apart(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], name: str) -> Measured | None:
    """A score of one model minus that of another on the same sequences; None where they have no such score, or not the same.

    Args:
        one, other: Records of the same sequences in the same order.
        name: Of the score.
    """
    (ours, counts), (theirs, others) = _columns(one, name), _columns(other, name)
    if not counts.any() or not np.array_equal(counts, others):
        return None
    return _measured(ours - theirs, counts)


def _columns(records: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Of each sequence the sum of a score, in percent, and of how many values."""
    values = [_values(record, name) for record in records]
    return np.array([100.0 * sum(each) for each in values]), np.array([len(each) for each in values])


def _values(record: Mapping[str, Any], name: str) -> list[float]:
    if name == JF:
        return [(each["j"]["mean"] + each["f"]["mean"]) / 2 for each in record["objects"]]
    if name in OF_OBJECTS:
        measure, what = OF_OBJECTS[name]
        return [each[measure][what] for each in record["objects"]]
    mode, _, score = name.partition("_")
    return [record["points"][mode][OF_POINTS[score]]] if mode in record["points"] else []


def _measured(sums: np.ndarray, counts: np.ndarray) -> Measured:
    """A mean and its interval: percentiles of means of drawn sequences, widened as Student's t is wider than the normal
    distribution, and by sqrt(n / (n - 1)), since drawn sequences spread too little (Hesterberg 2015, arXiv 1411.5279)."""
    there = counts > 0
    sums, counts, n = sums[there], counts[there], int(there.sum())
    pct = float(sums.sum() / counts.sum())
    if n < FEWEST:
        return Measured(pct, None, None, n)
    from scipy.stats import norm, t  # it takes long for a launcher

    which = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    draws = sums[which].sum(axis=1) / counts[which].sum(axis=1)
    wider = np.sqrt(n / (n - 1)) * t.ppf((1 + LEVEL) / 2, n - 1) / norm.ppf((1 + LEVEL) / 2)
    low, high = np.quantile(pct + (draws - pct) * wider, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measured(pct, float(low), float(high), n)
