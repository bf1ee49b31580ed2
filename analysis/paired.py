"""Two series compared where both have a run of the same task, amount and seed: the earliest recordings against random
ones, one child against three at equal hours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fits import LEVEL
from analysis.series import METRICS, Result, Results
from analysis.sheets import Sheet

SUBSETS = {"contiguous", "random", "spread"}
NOTE = ("Points of accuracy; interval of the mean by Student's t over pairs. It takes pairs for independent; those of "
        "one seed share recordings, since smaller fractions lie within larger ones.")


@dataclass(frozen=True)
class Paired:
    """The differences of two series in one task and metric.

    Attributes:
        task: Of the results.
        metric: Place in METRICS.
        amounts, seeds, differences: Of each pair; first less second, in points of accuracy.
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
        from scipy.special import stdtrit

        n = len(self.differences)
        if n < 2:
            return None
        half = float(stdtrit(n - 1, (1 + level) / 2) * np.std(self.differences, ddof=1) / math.sqrt(n))
        return self.mean - half, self.mean + half


def compare(results: Results, first: str, second: str) -> list[Paired]:
    """Pair two series by task, amount and seed.

    All recordings are the same whichever way a part of them would be chosen, so they are no pair of two subsets.

    Raises:
        ValueError: A series does not exist, or not one pair does.
    """
    for name in (first, second):
        if name not in results.series():
            raise ValueError(f"there is no series {name!r}; there are: {', '.join(map(repr, results.series()))} (--compare)")
    if first == second:
        raise ValueError(f"--compare names {first!r} twice; give two series")
    found = [paired for task in results.tasks(first) for metric in range(len(METRICS))
             if (paired := _pair(results, (first, second), task, metric)).differences]
    if not found:
        raise ValueError(f"{first!r} and {second!r} have no task, {results.axis} and seed in common (--compare)")
    return found


def _pair(results: Results, names: tuple[str, str], task: str, metric: int) -> Paired:
    one, other = ({(float(f"{row.amount:.6g}"), row.seed): (pct, row.run) for row in results.of(name, task)
                   if (pct := row.pct[metric]) is not None and not _is_whole(row, results, names)} for name in names)
    both = sorted(key for key in one.keys() & other.keys() if not one[key][1] or one[key][1] != other[key][1])
    return Paired(task, metric, [amount for amount, _ in both], [seed for _, seed in both],
                  [one[key][0] - other[key][0] for key in both], len(one.keys() ^ other.keys()))


def _is_whole(row: Result, results: Results, names: tuple[str, str]) -> bool:
    return results.axis == "fraction" and row.amount == 1 and set(names) <= SUBSETS


def paired_sheet(found: Sequence[Paired], results: Results, first: str, second: str) -> Sheet:
    """The table of a comparison."""
    records, rows = [], []
    for each in found:
        between = each.interval()
        low, high = between or (None, None)
        records.append({"first": first, "second": second, "task": each.task, "metric": METRICS[each.metric],
                        "pairs": len(each.differences), "difference": each.mean, "low": low, "high": high,
                        "unpaired": each.unpaired})
        said = f"[{between[0]:+.2f}, {between[1]:+.2f}]" if between else "no interval on one pair"
        rows.append([each.task, METRICS[each.metric], str(len(each.differences)), f"{each.mean:+.2f}", said,
                     str(each.unpaired)])
    return Sheet("scaling-compare", f"{first} less {second}, paired by {results.axis} and seed",
                 ("task", "metric", "pairs", "difference", "[95 %]", "unpaired"), 2, rows, records,
                 [NOTE, f"Source: {results.source}."])
