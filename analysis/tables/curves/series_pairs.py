"""Two series compared where both have a run of the same task, amount and seed: the earliest recordings against random
ones, one child against three at equal hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.tables.curves.series import Results
from analysis.tables.stats import mean_interval

NEAR = {"fraction": 1e-6, "hours": 0.02}  # amounts that count as equal; a minute in an hour is 1.7 %
SUBSETS = {"contiguous", "random", "spread"}


@dataclass(frozen=True)
class Paired:
    """The differences of two series in one task and metric."""

    task: str
    metric: str
    amounts: Sequence[float]  # of each pair, the first's
    differences: Sequence[float]  # of each pair, first less second, in points of accuracy
    unpaired: int  # runs of either series without a partner

    @property
    def mean(self) -> float:
        """Mean difference."""
        return float(np.mean(self.differences))

    def interval(self) -> tuple[float, float] | None:
        """Interval of the mean by Student's t over pairs; None for a single pair, of which none can be claimed."""
        return mean_interval(self.differences)


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
    there = results.points.dropna(subset="pct")
    if results.axis == "fraction" and {first, second} <= SUBSETS:
        there = there[there["amount"] != 1]
    runs = [set(there["run"][there["series"] == name]) - {""} for name in (first, second)]
    there = there[~there["run"].isin(runs[0] & runs[1])]  # the whole, in both series
    one, other = (there[there["series"] == name] for name in (first, second))
    found = []
    for (task, metric), mine in one.groupby(["task", "metric"], sort=False):
        theirs = other[(other["task"] == task) & (other["metric"] == metric)]
        pairs = _nearest(mine, theirs, NEAR[results.axis])
        if len(pairs):
            found.append(Paired(task, metric, pairs["amount"].tolist(), (pairs["pct"] - pairs["pct_other"]).tolist(),
                                len(mine) + len(theirs) - 2 * len(pairs)))
    return found


def _nearest(one: pd.DataFrame, other: pd.DataFrame, near: float) -> pd.DataFrame:
    """Pairs of one seed whose amounts differ by no more than `near`, the closest first to be taken; by amount and seed.

    By hand is that a run is in one pair only: merge_asof gives a run to all that are near it.
    """
    close = one.reset_index().merge(other.reset_index(), on="seed", suffixes=("", "_other"))
    amounts = close[["amount", "amount_other"]]
    ratio = (amounts.max(axis="columns") / amounts.min(axis="columns")).sort_values(kind="stable")
    kept: list[int] = []
    taken: set[int] = set()  # rows of the frame of points
    for place, pair in close.loc[ratio.index[ratio <= 1 + near], ["index", "index_other"]].iterrows():
        if taken.isdisjoint(pair):
            taken.update(pair)
            kept.append(place)
    return close.loc[kept].sort_values(["amount", "seed"])


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
