"""Do two ways of testing rank models alike? Rank correlations over models, with bootstrap intervals.

Both correlations follow from the signs of differences between pairs of models, so thousands of resamples are a few sums:

    S[i, j] = sign(x[i] - x[j])      Kendall's tau-b = sum(Sx * Sy) / sqrt(sum(Sx^2) * sum(Sy^2))
                                     rank of model i = sum over j of S[i, j] / 2 + a constant, and Spearman's rho is
                                     Pearson's correlation of the ranks

scipy.stats has both for one pair of lists, and its import takes 0.5 s; the tests compare with it.

Letters: M models, R resamples, n seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 3
"""Models of which ranks say anything."""
FEWEST_RESAMPLED = 6
"""Models that are resampled; of fewer a resample is often the same model several times."""
RESAMPLES = 2000
LEVEL = 0.95
SAME = 1e-9  # correlations that differ by rounding alone


class Agreement(NamedTuple):
    """How alike two lists rank the same models.

    Attributes:
        spearman, kendall: -1 to 1; NaN where a list does not tell its models apart.
        spearman_ends, kendall_ends: 95 % interval; NaN where nothing was resampled, or all resamples say the same.
        resampled: `models and seeds`, `models`, `seeds` or empty.
    """

    spearman: float
    kendall: float
    spearman_ends: tuple[float, float]
    kendall_ends: tuple[float, float]
    resampled: str


def rank_correlations(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spearman's rho and Kendall's tau-b of x and y, floating [..., M], over the last axis; NaN where all of one are equal.

    Source: Spearman 1904; Kendall 1945 (tau-b, which counts ties).
    """
    signs_x, signs_y = (np.sign(v[..., :, None] - v[..., None, :]) for v in (x, y))
    both, of_x, of_y = ((a * b).sum((-2, -1)) for a, b in ((signs_x, signs_y), (signs_x, signs_x), (signs_y, signs_y)))
    rank_x, rank_y = signs_x.sum(-1), signs_y.sum(-1)  # of mean 0
    product, square_x, square_y = ((a * b).sum(-1) for a, b in ((rank_x, rank_y), (rank_x, rank_x), (rank_y, rank_y)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return product / np.sqrt(square_x * square_y), both / np.sqrt(of_x * of_y)


def agreement(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], *, resamples: int = RESAMPLES, seed: int = 0,
              ) -> Agreement | None:
    """How alike two ways of testing rank models by their means over seeds.

    Args:
        x: What each model scored, a number for each seed.
        y: The same models, tested in another way; the seeds need not be the same.
        resamples: R.
        seed: Of the draws; equal values give equal draws.
    Returns:
        The correlations, with percentile intervals: models are drawn with replacement where there are FEWEST_RESAMPLED, and
        their seeds where some have several. A resample of fewer than FEWEST different models is left out. None of fewer than
        FEWEST models.
    """
    assert len(x) == len(y)
    models = len(x)
    if models < FEWEST:
        return None
    rho, tau = rank_correlations(np.array([np.mean(v) for v in x]), np.array([np.mean(v) for v in y]))
    of_models, of_seeds = models >= FEWEST_RESAMPLED, any(len(v) > 1 for v in (*x, *y))
    resampled = " and ".join(["models"] * of_models + ["seeds"] * of_seeds)
    nothing = (float("nan"), float("nan"))
    if not resampled:
        return Agreement(float(rho), float(tau), nothing, nothing, "")
    rng = np.random.default_rng(seed)
    means_x, means_y = (np.stack([_resampled(rng, v, resamples) for v in values], axis=1) for values in (x, y))
    if of_models:
        drawn = rng.integers(models, size=(resamples, models))
        different = (np.diff(np.sort(drawn, axis=1), axis=1) > 0).sum(axis=1) + 1
        drawn = drawn[different >= FEWEST]
        means_x, means_y = (np.take_along_axis(means[different >= FEWEST], drawn, axis=1) for means in (means_x, means_y))
    rhos, taus = rank_correlations(means_x, means_y)
    return Agreement(float(rho), float(tau), _ends(rhos), _ends(taus), resampled)


def _resampled(rng: np.random.Generator, values: Sequence[float], resamples: int) -> np.ndarray:
    """Means over drawn seeds [R]."""
    known = np.asarray(values, dtype=np.float64)
    return np.asarray(known[rng.integers(len(known), size=(resamples, len(known)))].mean(axis=1))


def _ends(draws: np.ndarray) -> tuple[float, float]:
    """The middle 95 %; NaN where all draws say the same: models in one order stay in it, which says nothing of others."""
    defined = draws[np.isfinite(draws)]
    if not len(defined) or np.ptp(defined) < SAME:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
