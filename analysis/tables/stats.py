"""Statistics over the seeds of a cell: the mean and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """An accuracy in %, from one run or several.

    Attributes:
        pct: The mean over seeds, or the one value that there is.
        lower: Lower end of the 95 % confidence interval of the mean; None where no interval can be claimed.
        upper: Its upper end.
        n: Number of seeds; None where nobody counted them, as for logs of mae_st.
    """

    pct: float
    lower: float | None = None
    upper: float | None = None
    n: int | None = None

    @property
    def half_width(self) -> float | None:
        """Half of the interval: what stands behind the plus-minus sign."""
        return None if self.lower is None or self.upper is None else (self.upper - self.lower) / 2


def over_seeds(pcts: Sequence[float]) -> Estimate:
    """The mean, with its interval over seeds.

    Args:
        pcts: One accuracy per seed, in %; at least one. Of a single one no interval is claimed.
    """
    mean, found = float(np.mean(pcts)), mean_interval(pcts)
    return Estimate(mean, *found, len(pcts)) if found else Estimate(mean, n=len(pcts))


def mean_interval(values: Sequence[float], level: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's t interval for the mean of normal values of unknown spread; None for a single one: none can be claimed.

    Args:
        values: At least one.
        level: Confidence, between 0 and 1.
    Source: Student 1908; the quantile is scipy's `stdtrit`, that of scipy.stats.t, whose import takes 0.5 s more.
    """
    n = len(values)
    if n < 2:
        return None
    from scipy.special import stdtrit  # here, since most calls need none of it

    mean = float(np.mean(values))
    half = float(stdtrit(n - 1, (1 + level) / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return mean - half, mean + half
