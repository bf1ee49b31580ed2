"""Accuracies at growing amounts of data as one frame, what is missing in it, and the published ones.

The frame of `Results` has a row per series, task, metric, amount and seed; rows of one curve lie together, series, tasks and
their rows in the order of the source:

    series   str     which curve it is a point of; may be empty
    task     str     such as `ssv2-10shot`
    metric   str     top-1 or top-5
    amount   float   of pretraining data: share of the recordings, or hours
    seed     int     which repeat
    pct      float   accuracy in %, 0 to 100; NaN where there is none
    run      str     the pretraining run; empty where it is not known
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from analysis.results.published import read_published

Axis = Literal["fraction", "hours"]
METRICS = ("top-1", "top-5")
CURVE = ["series", "task", "metric"]  # columns that tell one curve from another
PUBLISHED_SHARES = {"s_0.001": 0.001, "s_0.01": 0.01, "s_0.1": 0.1, "s": 1.0, "s_250ep": 1.0}  # of 10,496 videos


class Result(NamedTuple):
    """What one pretrained model reached in one task: two rows of the frame, with its names."""

    series: str
    task: str
    amount: float
    seed: int
    top1: float | None
    top5: float | None
    run: str = ""


@dataclass(frozen=True)
class Results:
    """Results on one axis."""

    axis: Axis  # what amounts are
    points: pd.DataFrame  # see the docstring of the module
    source: str  # for the tables' footer
    lost: Sequence[str] = ()  # what the source should hold and does not, apart from rows without a value
    data: Mapping[str, str] = field(default_factory=dict)  # the data set of each series, if there are several

    @property
    def whole(self) -> float:
        """The amount from which x10 and x100 count: all recordings, or the most hours there are."""
        return 1.0 if self.axis == "fraction" else float(self.points["amount"].max())

    def series(self) -> list[str]:
        """Their names, in order."""
        return list(self.points["series"].unique())


def tidy(results: Iterable[Result]) -> pd.DataFrame:
    """The frame of results that come in any order."""
    wide = pd.DataFrame(list(results), columns=["series", "task", "amount", "seed", *METRICS, "run"])
    frame = wide.melt(["series", "task", "amount", "seed", "run"], METRICS, "metric", "pct").astype({"pct": float})
    first_seen = [frame.groupby(CURVE[:columns], sort=False).ngroup() for columns in (3, 2, 1)]
    return frame.iloc[np.lexsort(first_seen)].reset_index(drop=True)


def missing(results: Results) -> list[str]:
    """What is not there: every amount of a series is expected in each of its tasks, for each of the task's seeds."""
    return [*results.lost, *_gaps(results)]


def _gaps(results: Results) -> Iterator[str]:
    amounts = results.points.groupby("series")["amount"].unique().map(np.sort)
    for (series, task, metric), rows in results.points.groupby(CURVE, sort=False):
        gaps = rows.pivot(index="amount", columns="seed", values="pct").reindex(amounts[series]).isna().stack()
        if gaps.any() and not gaps.all():
            lost = ", ".join(f"{amount:g} (seed {seed})" for amount, seed in gaps.index[gaps])
            yield (f"{series} {task} {metric}: {results.axis} {lost} missing: the fits stand on {(~gaps).sum()} of "
                   f"{len(gaps)} points".lstrip())


def published_results() -> Results:
    """The paper's own numbers: child S and its fractions, one run each, in both generations of models."""
    versions = {f"published {version.name}": version for version in read_published()}
    rows = [Result(name, task, share, 0, *accuracies[:2]) for name, version in versions.items()
            for model, share in PUBLISHED_SHARES.items() for task, accuracies in version.models.get(model, {}).items()
            if task.endswith("shot")]
    used = dict.fromkeys(row.series for row in rows)
    return Results("fraction", tidy(rows), "; ".join(f"{name}: {versions[name].source}" for name in used))
