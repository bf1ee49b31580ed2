"""How much accuracy is lost on the same clips, and how far apart two sets of clips are: intervals by bootstrap over clips.

A few clips that all go right would have an interval of no width. So something is added to the clips that are drawn again
that says the one and the other: for a difference on the same clips half a clip that was lost and half a clip that was
gained, for an accuracy a clip that is right and one that is wrong. Means are those of the clips alone. Of a hundred clips
this changes next to nothing; of ten it makes the interval hold the truth as often as it says (tests draw a thousand).

Source: Bonett and Price 2012, Adjusted Wald confidence interval for a difference of binomial proportions based on paired
data (it adds whole clips, with which the intervals of few clips held the truth too often); Agresti and Caffo 2000 for two
sets of clips. Both add to the formula of normal theory what is drawn here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.results.resampling import RESAMPLES, interval, resampled_means
from vidmae.runs.predictions import Predictions

FEWEST_CLIPS = 6


class Points(NamedTuple):
    """Percentage points and their 95 % interval over clips; the interval is NaN where clips are too few."""

    value: float
    low: float
    high: float


def lost(before: np.ndarray, after: np.ndarray, *, seed: int = 0) -> Points:
    """Accuracy before minus accuracy after on the same clips.

    Args:
        before: float or bool [N], whether each clip was right, or the share of seeds in which it was.
        after: [N], the same of what came of the clips.
        seed: Of the draws.
    Returns:
        Positive where accuracy was lost. The value is NaN without a clip, the interval with fewer than FEWEST_CLIPS.
    """
    return mean_points(np.asarray(before, float) - np.asarray(after, float), seed=seed)


def mean_points(each: np.ndarray, *, seed: int = 0) -> Points:
    """The mean of a difference of each clip, -1 to 1 or sums of such, in percentage points; as `lost`."""
    if not len(each):
        return Points(np.nan, np.nan, np.nan)
    value = 100 * float(each.mean())
    if len(each) < FEWEST_CLIPS:
        return Points(value, np.nan, np.nan)
    kinds, counts = np.unique(np.append(each, [-1.0, 1.0]), return_counts=True)
    weights = counts - 0.5 * np.isin(kinds, (-1, 1))
    drawn = np.random.default_rng(seed).multinomial(len(each) + 1, weights / weights.sum(), size=RESAMPLES) @ kinds
    return Points(value, *interval(100 * drawn / (len(each) + 1)))


def apart(one: np.ndarray, other: np.ndarray, *, seed: int = 0) -> Points:
    """Accuracy on some clips minus accuracy on other clips.

    Args:
        one: float or bool [N], whether each clip was right, or the share of seeds in which it was.
        other: [M], of the other clips.
        seed: Of the draws.
    Returns:
        As `lost`.
    """
    if not len(one) or not len(other):
        return Points(np.nan, np.nan, np.nan)
    value = 100 * float(np.mean(one) - np.mean(other))
    if min(len(one), len(other)) < FEWEST_CLIPS:
        return Points(value, np.nan, np.nan)
    drawn = [resampled_means(np.append(np.asarray(each, float), [0.0, 1.0])[:, None], seed=seed + place)[:, 0]
             for place, each in enumerate((one, other))]
    return Points(value, *interval(100 * (drawn[0] - drawn[1])))


def share_right(found: Sequence[Predictions]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of several tests of the same clips in which each clip was right.

    Returns:
        Content hashes uint64 [N], ascending; labels [N]; shares float64 [N].
    Raises:
        ValueError: The tests are of other clips or classes than the first.
    """
    first = found[0]
    order = np.argsort(first.content, kind="stable")
    right = np.zeros(len(first))
    for each in found:
        mine = np.argsort(each.content, kind="stable")
        if (not np.array_equal(each.classes, first.classes) or not np.array_equal(each.content[mine], first.content[order])
                or not np.array_equal(each.label[mine], first.label[order])):
            raise ValueError("the seeds were tested on other clips or classes, so they cannot be averaged clip by clip")
        right += each.rank[mine] == 0
    return first.content[order], first.label[order], right / len(found)
