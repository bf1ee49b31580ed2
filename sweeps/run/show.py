"""The grid of a sweep as a table on stderr, and as records: cells, how far they are, what the rest costs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.place.speak import say
from sweeps.grid.estimate import Estimate
from sweeps.grid.states import RETRY, Standing
from vidmae.runs.cost import gpu_peak_tflops, hours_of

MFU = 0.4
ASSUMED_GPU = "H100"
COLUMNS = ("CELLS", "DONE", "ACTIVE", "ENDED", "SUBMIT", "STEPS", "COST")
ENDED = ("failed", "timeout", "oom", "missing", "unknown")
SHOWN = 20  # cells that are named one by one
GAP, LEAST_WORD = 2, 8  # characters: between columns, and what long words are folded to at least
Row = tuple[str, ...]


def rows(standings: Sequence[Standing], costs: Mapping[str, Estimate], submits: set[str], unit: Unit) -> list[Row]:
    """The table: a line for every group of cells, such as those of a checkpoint, data set, method and number of shots.

    Args:
        standings: All cells, at least one.
        costs: Of each, by signature.
        submits: Signatures of the cells that this call submits.
        unit: Of the last column, which counts those alone.
    """
    groups: dict[tuple[str, ...], list[Standing]] = {}
    for s in standings:
        groups.setdefault(s.cell.group, []).append(s)
    head = (*standings[0].cell.headings, *COLUMNS)
    return [head, *((*key, *_numbers(group, costs, submits, unit)) for key, group in groups.items()),
            ("all", "", "", "", *_numbers(standings, costs, submits, unit, steps=False))]


def _numbers(group: Sequence[Standing], costs: Mapping[str, Estimate], submits: set[str], unit: Unit, *, steps: bool = True,
             ) -> Row:
    kinds = Counter(s.kind for s in group)
    now = [costs[s.cell.signature] for s in group if s.cell.signature in submits]
    lengths = sorted({costs[s.cell.signature].steps for s in group})
    shown = f"{lengths[0]:,}" + (f" to {lengths[-1]:,}" if len(lengths) > 1 else "") if steps else ""
    counts = (len(group), kinds["done"], kinds["active"], sum(kinds[kind] for kind in ENDED), len(now))
    return (*map(str, counts), shown, unit.text(sum(cost.flops for cost in now)))


class Unit:
    """What the cost is counted in: GPU-hours, or FLOPs where cells run on CPUs."""

    def __init__(self, *, on_cpu: bool, gpu_type: str) -> None:
        known = gpu_peak_tflops(gpu_type)
        self.gpu = gpu_type if known else ASSUMED_GPU
        self.peak_tflops = None if on_cpu else known or gpu_peak_tflops(ASSUMED_GPU)
        self.guess = "" if known else f" (the kind of GPU is not known, {ASSUMED_GPU} is assumed)"

    def text(self, flops: float) -> str:
        """A cost with its unit."""
        hours = self.hours(flops)
        return f"{flops / 1e15:,.3g} PFLOP" if hours is None else f"{hours:,.2f} GPU-h"

    def hours(self, flops: float) -> float | None:
        """GPU-hours; None on CPUs."""
        return None if self.peak_tflops is None else hours_of(flops, peak_tflops=self.peak_tflops, mfu=MFU)

    def basis(self) -> str:
        """What the numbers assume."""
        if self.peak_tflops is None:
            return "cost: arithmetic of training and evaluation; on CPUs its time is not predicted"
        return (f"cost: training and evaluation at {MFU:.0%} of {self.peak_tflops:g} TFLOP/s, {self.gpu}{self.guess}; "
                "loading is not counted, nor what the head of a probe takes")


def records(standings: Iterable[Standing], costs: Mapping[str, Estimate], submits: set[str], unit: Unit,
            ) -> list[dict[str, Any]]:
    """Every cell as JSON."""
    return [{"run": s.run.path.name, "path": str(s.run.path), **s.cell.record(""), "sweep": None, "state": s.kind,
             "reason": s.reason if s.kind in ENDED else None, "job_id": s.state.job_id or None if s.state else None,
             "submit": s.cell.signature in submits, "steps": costs[s.cell.signature].steps,
             "flops": costs[s.cell.signature].flops, "gpu_hours": unit.hours(costs[s.cell.signature].flops)}
            for s in standings]


def name_ended(ended: Sequence[Standing], more: Sequence[str] = ()) -> None:
    """Name cells that ended without a result and are not submitted again; `more`: kinds of what else ended so."""
    for s in ended[:SHOWN]:
        say(f"{s.kind}: {s.run.path.name}: {s.reason}")
    if len(ended) > SHOWN:
        say(f"and {len(ended) - SHOWN} more")
    kinds = [kind for kind in dict.fromkeys([*more, *(s.kind for s in ended)]) if kind in RETRY]
    if kinds:
        say(f"to submit them again: --retry {kinds[0] if len(kinds) == 1 else 'all'}")


def show(lines: Sequence[Row], words: int = 4) -> None:
    """A table on stderr: as wide as the terminal, plain otherwise. `words`: columns on the left that hold no numbers."""
    if sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        console.print(make_table(lines, words, console.width))
        return
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    for line in lines:
        text = "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print(f"  {text.rstrip()}", file=sys.stderr)


def make_table(lines: Sequence[Row], words: int, width: int) -> Any:
    """For rich; the first line is the header, the last a sum. Where it is too wide for the terminal, long words are folded,
    and numbers that do not fit stand in another table below, with the words again."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    blocks, widths = fitted(lines, words, width)
    tables: list[Table | str] = []
    for block in blocks:
        table = Table(box=None, pad_edge=False)
        for i in block:
            table.add_column(Text(lines[0][i]), width=widths[i] - GAP, no_wrap=i >= words, overflow="fold")
        for line in lines[1:]:
            table.add_row(*(Text(line[i]) for i in block), style="bold" if line is lines[-1] else "")
        tables += ["", table]
    return Group(*tables[1:])


def fitted(lines: Sequence[Row], words: int, width: int) -> tuple[list[list[int]], list[int]]:
    """Which columns stand beside each other, and how wide each is with the gap behind it; long words may be folded."""
    widths = [max(len(line[i]) for line in lines) + GAP for i in range(len(lines[0]))]
    spare = [max(0, widths[i] - max(LEAST_WORD, len(lines[0][i])) - GAP) for i in range(words)]
    while sum(widths) > width and sum(widths[:words]) > width // 2 and any(spare):
        widest = max((i for i in range(words) if spare[i]), key=widths.__getitem__)
        widths[widest], spare[widest] = widths[widest] - 1, spare[widest] - 1
    blocks = [list(range(words))]
    for i in range(words, len(widths)):
        if len(blocks[-1]) > words and sum(widths[j] for j in (*blocks[-1], i)) - GAP > width:
            blocks.append(list(range(words)))
        blocks[-1].append(i)
    return blocks, widths
