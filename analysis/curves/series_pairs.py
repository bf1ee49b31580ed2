"""Two series compared where both have a run of the same task, amount and seed: the earliest recordings against random
ones, one child against three at equal hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.curves.fits import LEVEL
from analysis.curves.series import METRICS, Result, Results
from analysis.tables.sheets import Sheet
from analysis.tables.stats import mean_interval

NEAR = {"fraction": 1e-6, "hours": 0.02}  # amounts that count as equal; a minute in an hour is 1.7 %
SUBSETS = {"contiguous", "random", "spread"}
NOTE = ("Points of accuracy; interval of the mean by Student's t over pairs. It takes pairs for independent; those of "
        "one seed share recordings, since smaller fractions lie within larger ones.")


@dataclass(frozen=True)
class Paired:
    """The differences of two series in one task and metric.

    Attributes:
        task: Of the results.
        metric: Place in METRICS.
        amounts, seeds, differences: Of each pair, the first's amount; first less second, in points of accuracy.
        unpaired: Runs of either series without a partner.
    """

    task: str
    metric: int
    amounts: Sequence[float]
    seeds: Sequence[int]
    differences: Sequence[float]
    unpaired: int

    @property
    def mean(self) -> float:
        """Mean difference."""
        return float(np.mean(self.differences))

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Interval of the mean by Student's t over pairs; None for a single pair, of which none can be claimed."""
        return mean_interval(self.differences, level)


def compare(results: Results, first: str, second: str) -> list[Paired]:
    """Pair two series by task, amount and seed; amounts in hours may differ by NEAR, since videos are whole.

    All recordings are the same whichever way a part of them would be chosen, so they are no pair of two subsets.

    Returns:
        Every task and metric with a pair; empty where there is none.
    Raises:
        ValueError: A series does not exist, or they are shares of two data sets.
    """
    for name in (first, second):
        if name not in results.series():
            raise ValueError(f"there is no series {name!r}; there are: {', '.join(map(repr, results.series()))} (--compare)")
    if first == second:
        raise ValueError(f"--compare names {first!r} twice; give two series")
    if results.axis == "fraction" and results.data.get(first) != results.data.get(second):
        raise ValueError(f"{first!r} and {second!r} are of two data sets, of which the same share is not the same amount; "
                         "they are compared at equal hours (--axis hours)")
    return [paired for task in results.tasks(first) for metric in range(len(METRICS))
            if (paired := _pair(results, (first, second), task, metric)).differences]


def series_of(results: Results, name: str) -> str:
    """The series that a name means: its own, or of a data set the only one.

    Raises:
        ValueError: The data set has several.
    """
    mine = [series for series in results.series() if results.data.get(series) == name]
    if name in results.series() or not mine:
        return name
    if len(mine) > 1:
        raise ValueError(f"{name!r} has several series, name one: {', '.join(map(repr, mine))} (--compare)")
    return mine[0]


def _pair(results: Results, names: tuple[str, str], task: str, metric: int) -> Paired:
    both = [[row for row in results.of(name, task) if row.pct[metric] is not None and not _is_whole(row, results, names)]
            for name in names]
    shared = {row.run for row in both[0] if row.run} & {row.run for row in both[1]}  # the whole, in both series
    one, other = ([row for row in rows if row.run not in shared] for rows in both)
    pairs = _nearest(one, other, NEAR[results.axis])
    return Paired(task, metric, [a.amount for a, _ in pairs], [a.seed for a, _ in pairs],
                  [(a.pct[metric] or 0.0) - (b.pct[metric] or 0.0) for a, b in pairs],
                  len(one) + len(other) - 2 * len(pairs))


def _nearest(one: Sequence[Result], other: Sequence[Result], near: float) -> list[tuple[Result, Result]]:
    """Pairs of one seed whose amounts differ by no more than `near`, the closest first to be taken; by amount and seed."""
    close = sorted((max(a.amount, b.amount) / min(a.amount, b.amount), i, j) for i, a in enumerate(one)
                   for j, b in enumerate(other) if a.seed == b.seed)
    partner: dict[int, int] = {}
    for ratio, i, j in close:
        if ratio <= 1 + near and i not in partner and j not in partner.values():
            partner[i] = j
    return sorted(((one[i], other[j]) for i, j in partner.items()), key=lambda pair: (pair[0].amount, pair[0].seed))


def _is_whole(row: Result, results: Results, names: tuple[str, str]) -> bool:
    return results.axis == "fraction" and row.amount == 1 and set(names) <= SUBSETS


def paired_sheet(results: Results, compared: Mapping[tuple[str, str], Sequence[Paired]]) -> Sheet:
    """The table of all comparisons, by the names of the two series."""
    records, rows = [], []
    for (first, second), found in compared.items():
        for each in found:
            between = each.interval()
            low, high = between or (None, None)
            amounts = ", ".join(f"{amount:.4g}" for amount in dict.fromkeys(each.amounts))
            records.append({"first": first, "second": second, "task": each.task, "metric": METRICS[each.metric],
                            "paired_by": results.axis, "amounts": amounts, "pairs": len(each.differences),
                            "difference": each.mean, "low": low, "high": high, "unpaired": each.unpaired})
            said = f"[{between[0]:+.2f}, {between[1]:+.2f}]" if between else "no interval on one pair"
            rows.append([f"{first} less {second}", each.task, METRICS[each.metric], amounts, str(len(each.differences)),
                         f"{each.mean:+.2f}", said, str(each.unpaired)])
    by = f"hours (within {100 * NEAR['hours']:g} %)" if results.axis == "hours" else results.axis
    return Sheet("scaling-compare", f"Differences, paired by {by} and seed",
                 ("series", "task", "metric", results.axis, "pairs", "difference", "[95 %]", "unpaired"), 4, rows, records,
                 [NOTE, f"Source: {results.source}."])
