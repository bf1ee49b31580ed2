"""Is the model better than a baseline? Paired differences over the same clips, with bootstrap intervals. Numpy and scipy.

Several clips of one recording are not independent: each recording's mean difference counts once, and recordings are what is
drawn again. With fewer than six no interval is claimed: that all of five differ the same way is chance once in 16 times.
Plain percentile intervals of few recordings are too narrow (of eight they hold the truth in 89 of 100 draws, not in 95);
these are widened as Student's t widens those of a mean. On clips in which nothing moves every baseline is right, so
differences are also given for the third of the clips that moves least, the middle third, and the third that moves most.

Two sets of recordings, such as those of a child that a model has seen and of another child, are drawn again each by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap, norm, t

FEWEST = 6  # recordings of an interval
RESAMPLES = 2000
LEVEL = 0.95
THIRDS = ("still", "middle", "moving")


@dataclass(frozen=True)
class Difference:
    """Model minus baseline.

    Attributes:
        mean: Mean over recordings.
        low: Lower end of the 95 % interval; NaN with fewer than FEWEST recordings.
        high: Upper end.
        clips: Clips.
        recordings: Recordings.
    """

    mean: float
    low: float
    high: float
    clips: int
    recordings: int


def paired_difference(model: np.ndarray, baseline: np.ndarray, recording: np.ndarray, *, seed: int = 0) -> Difference:
    """Mean difference of paired scores and its expanded bootstrap percentile interval.

    Args:
        model: float [N], a score of the model, one per clip.
        baseline: float [N], of the baseline on the same clips.
        recording: [N], which recording a clip is from.
        seed: Of the resampling.
    Raises:
        ValueError: No clip, or scores that are not finite.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13; Hesterberg 2015 (arXiv 1411.5279) sec. 4.
    """
    apart = np.asarray(model, dtype=np.float64) - np.asarray(baseline, dtype=np.float64)
    if not len(apart) or not np.isfinite(apart).all():
        raise ValueError(f"{len(apart)} differences, {int((~np.isfinite(apart)).sum())} of them not finite")
    _, which = np.unique(recording, return_inverse=True)
    each = np.bincount(which, weights=apart) / np.bincount(which)
    low, high = _interval(each, seed)
    return Difference(float(each.mean()), low, high, len(apart), len(each))


def _interval(each: np.ndarray, seed: int) -> tuple[float, float]:
    if len(each) < FEWEST:
        return float("nan"), float("nan")
    if np.ptp(each) == 0:
        return float(each[0]), float(each[0])
    found = bootstrap((each,), np.mean, n_resamples=RESAMPLES, confidence_level=_expanded(len(each)), method="percentile",
                      batch=max(1, 10**7 // len(each)), rng=np.random.default_rng(seed))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _expanded(count: int) -> float:
    """The level at which a percentile interval of so few is as wide as a t interval: 0.989 for 8, 0.954 for 100."""
    return float(1 - 2 * norm.cdf(-np.sqrt(count / (count - 1)) * t.ppf((1 + LEVEL) / 2, count - 1)))


@dataclass(frozen=True)
class Drawn:
    """A number of one set of units, and what it is of units that are drawn again.

    Attributes:
        value: The number.
        draws: float64 [R], of drawn units, as many each time as there are.
        units: Independent units: recordings, or classes.
    """

    value: float
    draws: np.ndarray
    units: int


def interval_apart(one: Drawn, other: Drawn) -> tuple[float, float]:
    """Interval of the first number minus the second, of two sets of units that have nothing to do with each other.

    Drawn again, n units spread by sqrt((n - 1) / n) too little: each set is widened by that. Then the two ends, 2.5 and
    97.5 percent of the draws, are moved away from the difference as Student's t (with Welch's degrees of freedom) is wider
    than the normal distribution. The draws of six units have no tails from which a percentile farther out could be taken.

    Returns:
        95 % interval; NaN where one of the sets has fewer than FEWEST units.
    Source: Hesterberg 2015 (arXiv 1411.5279) sec. 4; Welch 1947 for the degrees of freedom.
    """
    if min(one.units, other.units) < FEWEST:
        return float("nan"), float("nan")
    wide = [each.value + (each.draws - each.value) * np.sqrt(each.units / (each.units - 1)) for each in (one, other)]
    spread = np.array([draws.var() for draws in wide])
    if not spread.any():
        return (one.value - other.value,) * 2
    free = spread.sum() ** 2 / (spread**2 / [one.units - 1, other.units - 1]).sum()
    value, wider = one.value - other.value, t.ppf((1 + LEVEL) / 2, free) / norm.ppf((1 + LEVEL) / 2)
    low, high = np.quantile(wide[0] - wide[1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(value + (low - value) * wider), float(value + (high - value) * wider)


@dataclass(frozen=True)
class Crossed:
    """A paired difference on one set of recordings minus that on another.

    Attributes:
        one: Mean difference over the recordings of the first set.
        other: Of the second.
        low: Lower end of the 95 % interval of `one - other`; NaN with fewer than FEWEST recordings in a set.
        high: Upper end.
        recordings: Of the first set and of the second.
        clips: The same.
    """

    one: float
    other: float
    low: float
    high: float
    recordings: tuple[int, int]
    clips: tuple[int, int]


def difference_of_differences(one: np.ndarray, one_recording: np.ndarray, other: np.ndarray, other_recording: np.ndarray, *,
                              seed: int = 0) -> Crossed:
    """Is a paired difference larger on one set of recordings than on another?

    Args:
        one: float [N], a difference of paired scores, one per clip of the first set.
        one_recording: [N], which recording a clip is from.
        other: float [M], of the second set.
        other_recording: [M].
        seed: Of the resampling.
    Raises:
        ValueError: A set has no clip, or a difference is not finite.
    """
    found = []
    for place, (apart, recording) in enumerate(((one, one_recording), (other, other_recording))):
        if not len(apart) or not np.isfinite(apart).all():
            raise ValueError(f"{len(apart)} differences, {int((~np.isfinite(apart)).sum())} of them not finite")
        _, which = np.unique(recording, return_inverse=True)
        each = np.bincount(which, weights=apart) / np.bincount(which)
        rng = np.random.default_rng([seed, place])
        draws = each[rng.integers(len(each), size=(RESAMPLES, len(each)))].mean(axis=1)
        found.append(Drawn(float(each.mean()), draws, len(each)))
    low, high = interval_apart(*found)
    return Crossed(found[0].value, found[1].value, low, high, (found[0].units, found[1].units), (len(one), len(other)))


def motion_thirds(motion_px: np.ndarray) -> np.ndarray:
    """The third of each clip by how much moves in it: str [N], of THIRDS. Equal values are never parted."""
    edges = np.quantile(motion_px, [1 / 3, 2 / 3])
    return np.array(THIRDS)[np.searchsorted(edges, motion_px, side="left")]
