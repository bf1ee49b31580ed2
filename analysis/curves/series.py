"""Accuracies at growing amounts of data: from a table of results, from the published numbers, from finished runs.

A table of results is CSV, one line per pretraining run and task, top5_pct may be left out or empty:

    fraction,task,seed,top1_pct,top5_pct,series
    0.01,ssv2-10shot,0,1.9,7.4,contiguous
    0.01,ssv2-10shot,1,2.1,7.9,contiguous

`hours` may stand for `fraction`. `series` tells curves apart (`contiguous` and `random`, `s` and `say`) and may be left out.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from analysis.curves.fits import Points
from analysis.results.published import read_published

Axis = Literal["fraction", "hours"]
METRICS = ("top-1", "top-5")
NEEDED = ("task", "seed", "top1_pct")
KNOWN = {"fraction", "hours", "task", "seed", "top1_pct", "top5_pct", "series"}
PUBLISHED_SHARES = {"s_0.001": 0.001, "s_0.01": 0.01, "s_0.1": 0.1, "s": 1.0, "s_250ep": 1.0}  # of 10,496 videos
EMPTY = ("", "--")


@dataclass(frozen=True)
class Result:
    """What one pretrained model reached in one task.

    Attributes:
        series: Which curve it is a point of; may be empty.
        task: Such as `ssv2-10shot`.
        amount: Of pretraining data: share of the recordings or hours.
        seed: Which repeat.
        pct: Top-1 and top-5 accuracy, 0 to 100; None where there is none.
        run: The pretraining run, where it is known.
    """

    series: str
    task: str
    amount: float
    seed: int
    pct: tuple[float | None, float | None]
    run: str = ""

    @property
    def key(self) -> tuple[str, str, float, int]:
        """What two results must not share."""
        return self.series, self.task, self.amount, self.seed


@dataclass(frozen=True)
class Results:
    """Results on one axis.

    Attributes:
        axis: What amounts are.
        rows: In the order of the source.
        source: For the tables' footer.
        lost: What the source should hold and does not, apart from rows without a value.
        data: Of each series the data set, where there are several and the source says it.
    """

    axis: Axis
    rows: Sequence[Result]
    source: str
    lost: Sequence[str] = ()
    data: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole(self) -> float:
        """The amount from which x10 and x100 count: all recordings, or the most hours there are."""
        return 1.0 if self.axis == "fraction" else max(row.amount for row in self.rows)

    def series(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(row.series for row in self.rows))

    def tasks(self, series: str) -> list[str]:
        """Of a series, in order."""
        return list(dict.fromkeys(row.task for row in self.rows if row.series == series))

    def of(self, series: str, task: str) -> list[Result]:
        """The results of one task in a series."""
        return [row for row in self.rows if (row.series, row.task) == (series, task)]


def points(rows: Sequence[Result], metric: int) -> Points:
    """Points to fit; results without a value are left out."""
    there = [(math.log10(row.amount), row.pct[metric]) for row in rows if row.pct[metric] is not None]
    return Points(np.array([x for x, _ in there]), np.array([y for _, y in there], dtype=float))


def missing(results: Results) -> list[str]:
    """What is not there: every amount of a series is expected in each of its tasks, for each of the task's seeds."""
    said = list(results.lost)
    for series in results.series():
        amounts = sorted({row.amount for row in results.rows if row.series == series})
        for task in results.tasks(series):
            rows = results.of(series, task)
            for metric, name in enumerate(METRICS):
                found = {(row.amount, row.seed) for row in rows if row.pct[metric] is not None}
                lost = [f"{amount:g} (seed {seed})" for amount in amounts for seed in sorted({row.seed for row in rows})
                        if (amount, seed) not in found]
                if lost and found:
                    said.append(f"{series} {task} {name}: {results.axis} {', '.join(lost)} missing: the fits stand on "
                                f"{len(found)} of {len(found) + len(lost)} points".lstrip())
    return said


def read_results(path: Path) -> Results:
    """Read a table of results.

    Raises:
        ValueError: It cannot be read, or a line is wrong or there twice; the message names the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as f:
            lines = csv.DictReader(f, skipinitialspace=True)
            axis = _axis(lines.fieldnames or (), path)
            numbered = [(lines.line_num, line) for line in lines]
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror} (--results)") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV: {error} (--results)") from error
    if not numbered:
        raise ValueError(f"{path} has no line of results (--results)")
    seen: dict[tuple[str, str, float, int], int] = {}
    rows = []
    for number, line in numbered:
        row = _row(line, axis, f"{path}:{number}")
        if row.key in seen:
            raise ValueError(f"{path}:{number}: {axis} {row.amount:g}, task {row.task}, seed {row.seed} is in line "
                             f"{seen[row.key]}, too; a result counts once (take one out, or give it its own seed or series)")
        seen[row.key] = number
        rows.append(row)
    return Results(axis, rows, str(path))


def published_results() -> Results:
    """The paper's own numbers: child S and its fractions, one run each, in both generations of models."""
    rows = list(_published())
    used = [version for version in read_published() if f"published {version.name}" in {row.series for row in rows}]
    return Results("fraction", rows, "; ".join(f"published {version.name}: {version.source}" for version in used))


def _published() -> Iterator[Result]:
    for version in read_published():
        for model, share in PUBLISHED_SHARES.items():
            for task, (top1, top5, *_) in version.models.get(model, {}).items():
                if task.endswith("shot"):
                    yield Result(f"published {version.name}", task, share, 0, (top1, top5))


def _axis(names: Sequence[str], path: Path) -> Axis:
    axes: list[Axis] = [axis for axis in ("fraction", "hours") if axis in names]
    wrong = [name for name in names if name not in KNOWN]
    absent = [name for name in NEEDED if name not in names]
    if len(axes) != 1 or wrong or absent:
        raise ValueError(f"{path} has the columns {', '.join(names) or 'none'}; needed: fraction or hours (one of them), "
                         f"{', '.join(NEEDED)}; allowed: top5_pct, series (--results)")
    return axes[0]


def _row(line: Mapping[str, str | None], axis: Axis, place: str) -> Result:
    if None in line or None in line.values():
        raise ValueError(f"{place} has another number of values than there are columns")
    text = {name: (value or "").strip() for name, value in line.items()}
    amount = _number(text[axis], place, axis)
    most = 1.0 if axis == "fraction" else math.inf
    if not 0 < amount <= most:
        raise ValueError(f"{place}: {axis} {text[axis]} is not allowed: more than 0" + (", up to 1" if most == 1 else ""))
    if not text["task"]:
        raise ValueError(f"{place}: task is empty")
    if not text["seed"].isdecimal():
        raise ValueError(f"{place}: seed {text['seed']!r} is not a whole number from 0")
    top1, top5 = (_pct(text.get(name, ""), place, name) for name in ("top1_pct", "top5_pct"))
    return Result(text.get("series", ""), text["task"], amount, int(text["seed"]), (top1, top5))


def _pct(text: str, place: str, name: str) -> float | None:
    if text in EMPTY:
        return None
    value = _number(text, place, name)
    if not 0 <= value <= 100:
        raise ValueError(f"{place}: {name} {text} is not allowed: 0 to 100")
    return value


def _number(text: str, place: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{place}: {name} {text!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{place}: {name} {text} is not a finite number")
    return value
