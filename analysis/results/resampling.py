"""Intervals of whatever follows from means over images: the bootstrap, by counts of images that are alike.

Of N images drawn with replacement, the numbers of images of each kind are multinomial. So a resample costs one draw of as
many numbers as there are kinds, and not of N images. Several values of an image stay together, so what follows from
several means, such as a ratio or a difference of two models, is resampled as a whole: all intervals are paired.

Letters: N images, K values of each, R resamples.
"""

from __future__ import annotations

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
MOST_NUMBERS = 2**24  # of a block of draws: 128 MiB


def resampled_means(values: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over resampled images.

    Args:
        values: Floating [N, K].
        resamples: R.
        seed: Of the draws; equal values give equal draws.
    Returns:
        float64 [R, K].
    Raises:
        ValueError: There is no image.
    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
    """
    if not len(values):
        raise ValueError("there are 0 images, so nothing can be resampled")
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    rng, block = np.random.default_rng(seed), max(1, MOST_NUMBERS // len(kinds))
    drawn = [rng.multinomial(len(values), counts / len(values), size=min(block, resamples - first)) @ kinds
             for first in range(0, resamples, block)]
    means: np.ndarray = np.concatenate(drawn) / len(values)
    return means


def interval(draws: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """The middle of resampled numbers, by percentiles; those that are not defined (NaN) are left out."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
