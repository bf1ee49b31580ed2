"""An effect over seeds and test units, with its interval. Numpy and scipy.

A unit is what was drawn for tests independently of others: a scene, a recording or a picture. Clips of one unit show the
same footage and are averaged first (`averaged`).

Every seed pretrains and learns anew, and every seed is tested on the same units. So seeds and units are crossed, and both
were drawn: another seed would give another effect, and so would other units. The variance of the mean is that of seeds over
their number, plus that of units over theirs, plus that of what is left over both. An analysis of variance gives the three;
Satterthwaite's formula gives the degrees of freedom of their sum, and Student's t the width of the interval.

Letters: S seeds, C clips, U units.
Source: Searle, Casella and McCulloch 1992, Variance Components, ch. 4 (two-way crossed, one observation a cell);
Satterthwaite 1946 for the degrees of freedom. Tests draw a thousand synthetic results of several kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

LEVEL = 0.95
FEWEST_SEEDS, FEWEST_UNITS = 3, 6


@dataclass(frozen=True)
class Effect:
    """A mean difference over seeds and units.

    Attributes:
        value: The mean.
        low: Lower end of the 95 % interval; NaN with fewer than FEWEST_SEEDS seeds or FEWEST_UNITS units.
        high: Upper end.
        seeds: S.
        units: U.
        by_seed: The mean of each seed, in the order of the rows.
    """

    value: float
    low: float
    high: float
    seeds: int
    units: int
    by_seed: tuple[float, ...]

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2


def averaged(apart: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """The mean over the clips of each unit, float64 [S, U]; units count alike, however many clips they have.

    Args:
        apart: float [S, C].
        unit: int [C], which unit a clip is of.
    """
    _, which, clips = np.unique(unit, return_inverse=True, return_counts=True)
    total = np.zeros((len(clips), len(apart)))
    np.add.at(total, which, np.asarray(apart, dtype=np.float64).T)
    return np.asarray(total.T / clips)


def effect_of(apart: np.ndarray, *, least: float = 0.0) -> Effect:
    """The mean of differences and its interval over seeds and units.

    Args:
        apart: float [S, U], one model minus another, a row for each seed, a column for each unit.
        least: Standard error that is claimed at least. Where all seeds agree on all units nothing varies, and an interval
            without width would claim too much.
    Raises:
        ValueError: There is nothing, or a number is not finite.
    """
    apart = np.asarray(apart, dtype=np.float64)
    if apart.ndim != 2 or not apart.size or not np.isfinite(apart).all():
        raise ValueError(f"differences of shape {apart.shape}, {int((~np.isfinite(apart)).sum())} of them not finite; there "
                         "must be a row for each seed and a column for each unit")
    seeds, units = apart.shape
    value, by_seed = float(apart.mean()), tuple(apart.mean(axis=1).tolist())
    if seeds < FEWEST_SEEDS or units < FEWEST_UNITS:
        return Effect(value, np.nan, np.nan, seeds, units, by_seed)
    error, free = _error(apart)
    half = float(t.ppf((1 + LEVEL) / 2, free)) * max(error, least)
    return Effect(value, value - half, value + half, seeds, units, by_seed)


def _error(apart: np.ndarray) -> tuple[float, float]:
    """Standard error of the mean and its degrees of freedom."""
    seeds, units = apart.shape
    rows, columns = apart.mean(axis=1) - apart.mean(), apart.mean(axis=0) - apart.mean()
    rest = apart - apart.mean() - rows[:, None] - columns
    of_seeds, of_units = units * (rows**2).sum() / (seeds - 1), seeds * (columns**2).sum() / (units - 1)
    left = (rest**2).sum() / ((seeds - 1) * (units - 1))
    more = max(0.0, float(of_units - left))  # the mean square of seeds holds what is left over already
    total = float(of_seeds) + more
    if total <= 0:
        return 0.0, float(seeds - 1)
    return float(np.sqrt(total / apart.size)), total**2 / (float(of_seeds) ** 2 / (seeds - 1) + more**2 / (units - 1))
