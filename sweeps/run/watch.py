"""Wait for the cells of a sweep: a live table on a terminal, plain lines when piped. Ctrl-C ends the watching alone."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from jobs.standing.runs import format_seconds
from sweeps.grid.states import Standing, look_again
from sweeps.run.show import ENDED, Row, make_table
from vidmae.runs.record import read_json

LOOK_S, SLOWEST_LOOK_S = 1.0, 10.0
SILENT_S = 600.0  # where nobody knows the state of a cell for this long, the wait ends
HEADER = ("DONE", "RUN", "WAIT", "FAIL", "MEAN TOP-1", "LEFT")


@dataclass
class Watch:
    """What was seen of a sweep.

    Attributes:
        standings: All cells, as they are now.
        began: Seconds since 1970.
        done_before: Cells that were done when watching began.
    """

    standings: list[Standing]
    began: float
    done_before: int
    found_pct: dict[Path, float] = field(default_factory=dict)  # top-1 of cells that are done: each result is read once

    def left_s(self, group: Sequence[Standing]) -> float | None:
        """Time left, where as many cells a second end as until now."""
        waiting = sum(s.kind == "active" for s in group)
        done = sum(s.kind == "done" for s in self.standings) - self.done_before
        if not waiting:
            return 0.0
        return waiting * (time.time() - self.began) / done if done else None

    def rows(self) -> list[Row]:
        """The table."""
        groups: dict[tuple[str, ...], list[Standing]] = {}
        for s in self.standings:
            groups.setdefault(s.cell.group, []).append(s)
        lines = [(*key, *self._numbers(group), "") for key, group in groups.items()]
        left = self.left_s(self.standings)
        head = (*self.standings[0].cell.headings, *HEADER)
        return [head, *lines, ("all", "", "", "", *self._numbers(self.standings, mean=False), format_seconds(left))]

    def _numbers(self, group: Sequence[Standing], *, mean: bool = True) -> Row:
        kinds = Counter(_word(s) for s in group)
        ended = sum(kinds[kind] for kind in ENDED)
        values = [value for s in group if mean and s.kind == "done" and (value := self._top1_pct(s)) is not None]
        return (str(kinds["done"]), str(kinds["running"]), str(kinds["waiting"] + kinds["new"]), str(ended),
                f"{sum(values) / len(values):.1f} %" if values else "-" if mean else "")

    def _top1_pct(self, s: Standing) -> float | None:
        if s.run.path not in self.found_pct and (value := _top1_pct(s)) is not None:
            self.found_pct[s.run.path] = value
        return self.found_pct.get(s.run.path)

    def line(self) -> str:
        """All of it in one line."""
        kinds = Counter(_word(s) for s in self.standings)
        left = self.left_s(self.standings)
        return (f"{kinds['done']}/{len(self.standings)} cells done, {kinds['running']} running, {kinds['waiting']} waiting, "
                f"{sum(kinds[kind] for kind in ENDED)} failed" + (f", {format_seconds(left)} left" if left else ""))


def wait_for(standings: Sequence[Standing]) -> list[Standing]:
    """Wait until no cell is active any more, and show how far they are.

    Raises:
        SlurmError: Nobody knew the state of a cell for ten minutes.
    """
    watch = Watch(list(standings), time.time(), sum(s.kind == "done" for s in standings))
    pause_s, answered = LOOK_S, time.monotonic()
    with _display() as show:
        while True:
            show(watch)
            if not any(s.kind in ("active", "unknown") for s in watch.standings):
                return watch.standings
            time.sleep(pause_s)
            watch.standings = look_again(watch.standings)
            pause_s = min(SLOWEST_LOOK_S, pause_s * 1.1)
            if not any(s.kind == "unknown" for s in watch.standings):
                answered = time.monotonic()
            elif time.monotonic() - answered > SILENT_S:
                raise slurm.SlurmError(f"the state of cells was not known for {SILENT_S:.0f} s; the jobs go on")


def _word(s: Standing) -> str:
    if s.kind != "active":
        return s.kind
    return "waiting" if s.state and s.state.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD") else "running"


def _top1_pct(s: Standing) -> float | None:
    try:
        value = (read_json(s.run.result) or {}).get("top1_pct")
    except ValueError:
        return None  # damaged: analysis/collect.py says so
    return float(value) if isinstance(value, (int, float)) and value == value else None


@contextmanager
def _display() -> Iterator[Any]:
    if not sys.stderr.isatty():
        last: list[str] = []

        def plain(watch: Watch) -> None:
            line = watch.line()
            if line.partition(" left")[0].rpartition(",")[0] not in last:
                print(line, file=sys.stderr, flush=True)
                last[:] = [line.partition(" left")[0].rpartition(",")[0]]

        yield plain
        return
    from rich.console import Console
    from rich.live import Live

    with Live(console=Console(stderr=True), auto_refresh=False) as live:
        yield lambda watch: live.update(make_table(watch.rows(), 4, live.console.width), refresh=True)
