"""What results at growing amounts of data say: curves fitted side by side, compared, and carried on to x100."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.tables.curves.fits import CEILING, CURVES, LEAST_AMOUNTS, LINE, Fit, FitError, Points, fit, lack_of_fit
from analysis.tables.curves.series import CURVE, Results

DECADES = (0, 1, 2)  # all the data, x10, x100
DOUBTFUL = 0.05  # chance below which means are said not to lie on the line
MEANS = replace(LINE, name="log-linear of means")


@dataclass(frozen=True)
class Study:
    """One task in one metric."""

    series: str
    task: str
    metric: str
    points: Points  # all runs
    fits: Sequence[Fit]  # the curves side by side, the line first
    means: Fit | None  # the line through the means of the amounts; None without repeats
    by_seed: Mapping[int, Fit]  # the line through the runs of each seed that has enough of them; empty without repeats

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.series} {self.task} {self.metric}".lstrip()

    @property
    def line(self) -> Fit:
        """The log-linear fit."""
        return self.fits[0]

    @cached_property
    def lack(self) -> float | None:
        """Chance that repeats alone scatter the means so far from the line; None without repeats."""
        return lack_of_fit(self.line)

    @property
    def bent(self) -> bool:
        """Whether the means of the amounts lie further from the line than repeats explain."""
        return self.lack is not None and self.lack < DOUBTFUL

    @property
    def banded(self) -> Fit:
        """The line whose intervals are drawn: that of the means where repeats alone do not explain how far those lie off."""
        return self.means if self.means and self.bent else self.line

    @cached_property
    def chosen(self) -> pd.Series:
        """The fit with the lowest AICc, if all have one, and that with the lowest error left out: reason to name."""
        scores = pd.DataFrame([(each.aicc, each.held_out_rms) for each in self.fits], dtype=float,
                              index=[each.curve.name for each in self.fits], columns=["AICc", "left out"])
        return scores.dropna(axis="columns").idxmin()


def points(rows: pd.DataFrame) -> Points:
    """Points to fit; results without a value are left out."""
    there = rows.dropna(subset="pct")
    return Points(there["amount"].map(math.log10).to_numpy(float), there["pct"].to_numpy())


def study(rows: pd.DataFrame) -> Study:
    """Fit every curve to the results of one task in one metric.

    Raises:
        FitError: There are results at fewer than three amounts of data.
    """
    series, task, metric = rows.iloc[0][CURVE]
    found = points(rows)
    if len(found.amounts) < LEAST_AMOUNTS:
        raise FitError(f"{series} {task} {metric}: no fit and no interval on {len(found.amounts)} amounts of data, needed: "
                       f"{LEAST_AMOUNTS}".lstrip())
    fits = [fit(curve, found) for curve in CURVES]
    if len(found.x) == len(found.amounts):
        return Study(series, task, metric, found, fits, None, {})
    by_seed = {seed: points(some) for seed, some in rows.groupby("seed")}
    return Study(series, task, metric, found, fits, fit(MEANS, found.means()),
                 {seed: fit(LINE, some) for seed, some in by_seed.items() if len(some.amounts) >= LEAST_AMOUNTS})


def study_all(results: Results) -> tuple[list[Study], list[str]]:
    """Every task in every metric, and why some have no fit."""
    studies, failed = [], []
    for _, rows in results.points.groupby(CURVE, sort=False):
        if rows["pct"].notna().any():
            try:
                studies.append(study(rows))
            except FitError as error:
                failed.append(str(error))
    return studies, failed


def warnings(studies: Iterable[Study], whole: float) -> list[str]:
    """What the numbers alone would hide."""
    said = []
    for each in studies:
        for found in each.fits:
            if (factor := passes_ceiling_at(found, whole)) is not None:
                top = float(found.at(math.log10(whole) + DECADES[-1])[0])
                said.append(f"{each.name}: the {found.curve.name} fit passes 100 % at x{factor:.3g} of the data "
                            f"({top:.1f} % at x100); it is shown clipped at 100 %")
        if each.bent:
            said.append(f"{each.name}: the means of the amounts lie further from the line than repeats explain (F test, p = "
                        f"{each.lack:.2g}): repeats make its intervals too narrow, go by {MEANS.name}")
    return said


def passes_ceiling_at(found: Fit, whole: float) -> float | None:
    """The multiple of all data, up to 100, at which a fit passes 100 %; None where it does not."""
    x = np.linspace(0, DECADES[-1], 2001)
    above = found.at(math.log10(whole) + x) > CEILING + 1e-9
    return float(10 ** x[int(above.argmax())]) if above.any() else None
