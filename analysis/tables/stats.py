"""Statistics over the seeds of a cell: the mean and what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

CONFIDENCE = 0.95


def over_seeds(values: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Means over seeds with their intervals.

    Args:
        values: A row per seed with `pct`, an accuracy in %.
        by: The columns that name a cell.
    Returns:
        A row per cell, in order of appearance: `by`, pct, lower_pct and upper_pct of the 95 % confidence interval of the
        mean (Student's t; missing for a single seed, of which none can be claimed), n seeds.
    """
    found = values.groupby(list(by), sort=False)["pct"].agg(["mean", "std", "count"]).reset_index()
    n = found.pop("count")
    half = found.pop("std") * student_t(np.maximum(n - 1, 1)) / np.sqrt(n)
    pct = found.pop("mean")
    return found.assign(pct=pct, lower_pct=pct - half, upper_pct=pct + half, n=n)


def mean_interval(values: Sequence[float], level: float = CONFIDENCE) -> tuple[float, float] | None:
    """Student's t interval for the mean of normal values of unknown spread; None for a single one: none can be claimed.

    Args:
        values: At least one.
        level: Confidence, between 0 and 1.
    Source: Student 1908.
    """
    n = len(values)
    if n < 2:
        return None
    mean = float(np.mean(values))
    half = float(student_t(n - 1, level) * np.std(values, ddof=1) / np.sqrt(n))
    return mean - half, mean + half


def student_t(freedom: Any, level: float = CONFIDENCE) -> Any:
    """How many standard errors a two-sided interval reaches to each side.

    Args:
        freedom: Degrees of freedom, one number or an array.
        level: Confidence, between 0 and 1.
    """
    from scipy.special import stdtrit  # scipy.stats.t has the same quantile, and its import takes 0.5 s more

    return stdtrit(freedom, (1 + level) / 2)
