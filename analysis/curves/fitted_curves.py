"""What results at growing amounts of data say: curves fitted side by side, compared, and carried on to x100."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.curves.fits import CEILING, CURVES, LEAST_AMOUNTS, LINE, Fit, FitError, Points, fit, held_out, lack_of_fit
from analysis.curves.series import METRICS, Result, Results, points

DECADES = (0, 1, 2)  # all the data, x10, x100
DOUBTFUL = 0.05  # chance below which means are said not to lie on the line
MEANS = "log-linear of means"


@dataclass(frozen=True)
class Judged:
    """A fit and how it does on an amount that it has not seen.

    Attributes:
        name: As in tables.
        fit: The curve.
        held_out: log10 of each amount to measured less foreseen; None where too few amounts are left.
    """

    name: str
    fit: Fit
    held_out: Mapping[float, float] | None

    @property
    def held_out_rms(self) -> float | None:
        """Root mean square of the errors on amounts left out, in points of accuracy."""
        return None if self.held_out is None else math.sqrt(sum(e * e for e in self.held_out.values()) / len(self.held_out))


@dataclass(frozen=True)
class Study:
    """One task in one metric.

    Attributes:
        series, task: Of the results.
        metric: Place in METRICS.
        points: All runs.
        judged: The curves side by side, the line first.
        means: The line through the means of the amounts; None without repeats.
        by_seed: The line through the runs of each seed that has enough of them; empty without repeats.
        chosen: Name of a fit to what chose it.
        lack: Chance that repeats alone scatter the means so far from the line; None without repeats.
    """

    series: str
    task: str
    metric: int
    points: Points
    judged: Sequence[Judged]
    means: Judged | None
    by_seed: Mapping[int, Fit]
    chosen: Mapping[str, str]
    lack: float | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.series} {self.task} {METRICS[self.metric]}".lstrip()

    @property
    def line(self) -> Fit:
        """The log-linear fit."""
        return self.judged[0].fit

    @property
    def banded(self) -> Fit:
        """The line whose intervals are drawn: that of the means where repeats alone do not explain how far those lie off."""
        return self.means.fit if self.means and self.bent else self.line

    @property
    def bent(self) -> bool:
        """Whether the means of the amounts lie further from the line than repeats explain."""
        return self.lack is not None and self.lack < DOUBTFUL

    @property
    def repeated(self) -> bool:
        """Whether an amount has more than one run."""
        return len(self.points.x) > len(self.points.amounts)


def study(rows: Sequence[Result], metric: int) -> Study:
    """Fit every curve to the results of one task.

    Raises:
        FitError: There are results at fewer than three amounts of data.
    """
    found = points(rows, metric)
    if len(found.amounts) < LEAST_AMOUNTS:
        raise FitError(f"{rows[0].series} {rows[0].task} {METRICS[metric]}: no fit and no interval on {len(found.amounts)} "
                       f"amounts of data, needed: {LEAST_AMOUNTS}".lstrip())
    judged = [Judged(curve.name, fit(curve, found), held_out(curve, found)) for curve in CURVES]
    repeated = len(found.x) > len(found.amounts)
    means = Judged(MEANS, fit(LINE, found.means()), held_out(LINE, found.means())) if repeated else None
    return Study(rows[0].series, rows[0].task, metric, found, judged, means, _by_seed(rows, metric) if repeated else {},
                 choose(judged), lack_of_fit(judged[0].fit))


def choose(judged: Sequence[Judged]) -> dict[str, str]:
    """Name of a fit to what speaks for it: the lowest AICc, where every curve has one, and the lowest error left out."""
    best: dict[str, list[str]] = {}
    scores = {"AICc": [each.fit.aicc for each in judged], "left out": [each.held_out_rms for each in judged]}
    for reason, values in scores.items():
        there = [value for value in values if value is not None]
        if len(there) == len(judged):
            best.setdefault(judged[values.index(min(there))].name, []).append(reason)
    return {name: ", ".join(reasons) for name, reasons in best.items()}


def _by_seed(rows: Sequence[Result], metric: int) -> dict[int, Fit]:
    found = {seed: points([row for row in rows if row.seed == seed], metric) for seed in sorted({row.seed for row in rows})}
    return {seed: fit(LINE, some) for seed, some in found.items() if len(some.amounts) >= LEAST_AMOUNTS}


def study_all(results: Results) -> tuple[list[Study], list[str]]:
    """Every task in every metric, and why some have no fit."""
    studies, failed = [], []
    for series in results.series():
        for task in results.tasks(series):
            rows = results.of(series, task)
            for metric in range(len(METRICS)):
                if not any(row.pct[metric] is not None for row in rows):
                    continue
                try:
                    studies.append(study(rows, metric))
                except FitError as error:
                    failed.append(str(error))
    return studies, failed


def warnings(studies: Iterable[Study], whole: float) -> list[str]:
    """What the numbers alone would hide."""
    said = []
    for each in studies:
        for judged in each.judged:
            if (factor := passes_ceiling_at(judged.fit, whole)) is not None:
                top = float(judged.fit.at(math.log10(whole) + DECADES[-1])[0])
                said.append(f"{each.name}: the {judged.name} fit passes 100 % at x{factor:.3g} of the data ({top:.1f} % at "
                            "x100); it is shown clipped at 100 %")
        if each.bent:
            said.append(f"{each.name}: the means of the amounts lie further from the line than repeats explain (F test, p = "
                        f"{each.lack:.2g}): repeats make its intervals too narrow, go by {MEANS}")
    return said


def passes_ceiling_at(found: Fit, whole: float) -> float | None:
    """The multiple of all data, up to 100, at which a fit passes 100 %; None where it does not."""
    x = np.linspace(0, DECADES[-1], 2001)
    above = found.at(math.log10(whole) + x) > CEILING + 1e-9
    return float(10 ** x[int(above.argmax())]) if above.any() else None
