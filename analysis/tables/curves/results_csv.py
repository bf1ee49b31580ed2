"""Accuracies at growing amounts of data from a table of results, whose wrong lines are named.

The table is CSV, one line per pretraining run and task, top5_pct may be left out or empty:

    fraction,task,seed,top1_pct,top5_pct,series
    0.01,ssv2-10shot,0,1.9,7.4,contiguous
    0.01,ssv2-10shot,1,2.1,7.9,contiguous

`hours` may stand for `fraction`. `series` tells curves apart (`contiguous` and `random`, `s` and `say`) and may be left out.
It is read by csv and not by pandas, which does not know the line that a row was in, and fills up lines that are too short.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.tables.curves.series import Axis, Result, Results, tidy

NEEDED = ("task", "seed", "top1_pct")
KNOWN = {"fraction", "hours", "task", "seed", "top1_pct", "top5_pct", "series"}
EMPTY = ("", "--")


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
        earlier = seen.setdefault(row[:4], number)
        if earlier != number:
            raise ValueError(f"{path}:{number}: {axis} {row.amount:g}, task {row.task}, seed {row.seed} is in line "
                             f"{earlier}, too; a result counts once (take one out, or give it its own seed or series)")
        rows.append(row)
    return Results(axis, tidy(rows), str(path))


def _axis(names: Sequence[str], path: Path) -> Axis:
    axes: list[Axis] = [axis for axis in ("fraction", "hours") if axis in names]
    if len(axes) != 1 or not set(NEEDED) <= set(names) <= KNOWN:
        raise ValueError(f"{path} has the columns {', '.join(names) or 'none'}; needed: fraction or hours (one of them), "
                         f"{', '.join(NEEDED)}; allowed: top5_pct, series (--results)")
    return axes[0]


def _row(line: Mapping[str, str | None], axis: Axis, place: str) -> Result:
    if None in line or None in line.values():
        raise ValueError(f"{place} has another number of values than there are columns")
    text = {name: (value or "").strip() for name, value in line.items()}
    amount = _number(text[axis], f"{place}: {axis}")
    if amount <= 0 or (axis == "fraction" and amount > 1):
        raise ValueError(f"{place}: {axis} {text[axis]} is not allowed: more than 0" + ", up to 1" * (axis == "fraction"))
    if not text["task"]:
        raise ValueError(f"{place}: task is empty")
    if not text["seed"].isdecimal():
        raise ValueError(f"{place}: seed {text['seed']!r} is not a whole number from 0")
    top1, top5 = (_pct(text.get(name, ""), f"{place}: {name}") for name in ("top1_pct", "top5_pct"))
    return Result(text.get("series", ""), text["task"], amount, int(text["seed"]), top1, top5)


def _pct(text: str, name: str) -> float | None:
    if text in EMPTY:
        return None
    if not 0 <= (value := _number(text, name)) <= 100:
        raise ValueError(f"{name} {text} is not allowed: 0 to 100")
    return value


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ValueError(f"{name} {text!r} is not a number") from error
    if not math.isfinite(value):
        raise ValueError(f"{name} {text} is not a finite number")
    return value
