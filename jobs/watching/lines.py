"""The rows of the table: runs, and arrays with their cells folded away; which of them are shown, and in what order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.standing.runs import format_seconds
from jobs.status import is_over
from jobs.watching.seen_runs import Seen

COLUMNS = ("NAME", "ST", "STEP/TOTAL", "RESULT", "CURVE", "CLIPS/S", "WAIT", "MFU", "GIB", "STRAGGLER", "GOOD", "LEFT",
           "JOBID")
LESS = ("GIB", "MFU", "STRAGGLER", "GOOD", "WAIT", "JOBID", "CURVE", "LEFT", "CLIPS/S")
"""Columns that a narrow terminal lacks, the first first."""
CURVE_CHARS = 16
MOST_NAME_CHARS, MOST_ARRAY_CHARS = 52, 28
GAP = 2
FOLDED, OPEN, CELL = "▸ ", "▾ ", "  "


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        key: The run's id, or the array's name.
        seen: The run; of an array the cells that are shown or folded away.
        is_array: Whether it stands for an array.
        cells: A text for each of COLUMNS; that of CURVE is drawn later.
    """

    key: str
    seen: tuple[Seen, ...]
    is_array: bool
    cells: tuple[str, ...]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


SORTS: Mapping[str, Callable[[Seen], Any]] = {  # name of an order -> what a run is ordered by, the smallest first
    "active first": lambda one: (one.state.active is False, one.state.state != "RUNNING", -one.submitted_s),
    "newest": lambda one: -one.submitted_s,
    "name": lambda one: one.name,
    "state": lambda one: one.row[2],
    "loss": lambda one: _last(_number(one.record["loss"])),
    "clips/s": lambda one: _last(_number(one.newest.get("clips_per_s")), down=True),
    "wait": lambda one: _last(_number(one.record["spent"]["data_wait"]), down=True),
    "goodput": lambda one: _last(_number(one.record["spent"]["goodput"])),
    "time left": lambda one: _last(_number(one.record["eta_s"])),
}


def _last(value: float | None, *, down: bool = False) -> tuple[bool, float]:
    """A value to order by, what is not known last."""
    return (value is None, 0.0 if value is None else -value if down else value)


def fits(one: Seen, words: Sequence[str]) -> bool:
    """Whether each word is a part of a run's id, its state, its job's id, its array or where it runs."""
    text = f"{one.name} {one.state.state} {one.row[2]} {one.state.job_id} {one.array} {one.state.where}".lower()
    return all(word in text for word in words)


def lines_of(seen: Sequence[Seen], *, filtered: str = "", sort: str = "active first", opened: Collection[str] = (),
             ) -> list[Line]:
    """The rows of the table.

    Args:
        seen: All runs.
        filtered: Words that must all fit, see `fits`.
        sort: A key of SORTS. An array stands where the first of its cells would.
        opened: Names of the arrays whose cells are shown below them.
    """
    words = filtered.lower().split()
    shown = sorted((one for one in seen if fits(one, words)) if words else seen, key=SORTS[sort])
    cells = defaultdict[str, list[Seen]](list)
    for one in shown:
        cells[one.array].append(one)
    found, done = [], set()
    for one in shown:
        if not one.array or len(cells[one.array]) == 1:
            found.append(Line(one.name, (one,), False, texts(one)))
        elif one.array not in done:
            done.add(one.array)
            members = tuple(cells[one.array])
            found.append(Line(one.array, members, True, array_texts(one.array, members, is_open=one.array in opened)))
            if one.array in opened:
                found += [Line(cell.name, (cell,), False, texts(cell, before=CELL)) for cell in members]
    return found


def texts(one: Seen, *, before: str = "") -> tuple[str, ...]:
    """The cells of a run; those that `status` has, too, are the same."""
    job_id, _, code, _, _, steps, result, left, good, wait, _ = one.row
    speed, mfu, gib = (_number(one.newest.get(key)) for key in ("clips_per_s", "mfu", "peak_gib"))
    name = before + shortened(one.name, MOST_NAME_CHARS - len(before))
    return (name, code, steps, result, "", "-" if speed is None else f"{speed:.0f}",
            wait, "-" if mfu is None else f"{mfu:.0%}", "-" if gib is None else f"{gib:.1f}", straggler_of(one), good, left,
            job_id)


def array_texts(name: str, cells: Sequence[Seen], *, is_open: bool) -> tuple[str, ...]:
    """The cells of the row of an array: how many of its runs are done, and the mean of their results."""
    codes = Counter(one.row[2] for one in cells)
    done = [one for one in cells if one.state.state == "COMPLETED"]
    failed = sum(is_over(one.state) for one in cells)
    shown = next((code for code in ("R", "PD") if codes[code]), codes.most_common(1)[0][0])
    top1 = [value for one in done if (value := _number(one.record["top1_pct"])) is not None]
    speed = sum(_number(one.newest.get("clips_per_s")) or 0.0 for one in cells if one.state.active)
    left = max((value for one in cells if (value := _number(one.record["eta_s"])) is not None), default=None)
    job_id = cells[0].state.job_id.partition("_")[0]
    said = f"{(OPEN if is_open else FOLDED)}{shortened(name, MOST_ARRAY_CHARS)}, {len(cells)} cells"
    said += f", {failed} failed" if failed else ""
    return (said, shown, f"{len(done)}/{len(cells)} done", f"{sum(top1) / len(top1):.1f} %" if top1 else "-", "",
            f"{speed:.0f}" if speed else "-", "-", "-", "-", "-", "-", format_seconds(left), job_id or "-")


def straggler_of(one: Seen) -> str:
    """The node that holds up the others, and by how much; else a dash."""
    for slow in one.record["slow"]:
        return shortened(f"{slow['node'] or slow['cause']} {slow['pct']:.0f} %", 20)
    return "-"


def shortened(text: str, most: int) -> str:
    """A text with its middle left out where it is too long: the end of a run's id tells it from the others."""
    if len(text) <= most:
        return text
    head = max(1, (most - 1) // 2)
    return f"{text[:head]}…{text[len(text) - (most - 1 - head):]}"


def chosen_columns(lines: Sequence[Line], width: int) -> list[tuple[int, int]]:
    """The columns that fit: each its number in COLUMNS and its width; those of LESS go first.

    Args:
        lines: The rows.
        width: Characters of a line.
    """
    widest = [max([len(name), *(len(line.cells[i]) for line in lines)]) for i, name in enumerate(COLUMNS)]
    widest[COLUMNS.index("CURVE")] = CURVE_CHARS
    columns = list(range(len(COLUMNS)))
    for name in LESS:
        if sum(widest[i] + GAP for i in columns) <= width:
            break
        columns.remove(COLUMNS.index(name))
    return [(i, widest[i]) for i in columns]


def counts(seen: Sequence[Seen]) -> str:
    """How many runs there are, and how they stand."""
    running = sum(one.state.active is True and one.state.state == "RUNNING" for one in seen)
    active = sum(one.state.active is True for one in seen)
    done = sum(one.state.state == "COMPLETED" for one in seen)
    failed = sum(is_over(one.state) for one in seen)
    rest = len(seen) - active - done - failed
    return (f"{len(seen)} runs: {running} running, {active - running} waiting, {done} done, {failed} over without a result"
            + (f", {rest} new or unknown" if rest else ""))
