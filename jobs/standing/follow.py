"""Wait for a job and, if asked, show rank 0's log and a progress bar. Ctrl-C ends the showing, never the job."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from jobs.standing.runs import State, progress, state_of, why
from vidmae.runs.record import RunFolder

LOOK_S, FIRST_ASK_S, SLOWEST_ASK_S = 0.3, 1.0, 10.0
BLOCK_BYTES = 64 * 1024
SILENT_S = 600.0  # a controller that does not answer for this long ends the wait


class Tail:
    """New whole lines of a file that may not exist yet; of one that has become shorter, from its beginning."""

    def __init__(self, path: Path, *, last_lines: int | None = None) -> None:
        self._path, self._place, self._rest = path, 0, ""
        self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        if last_lines is not None:
            self._place = _place_of_last(path, last_lines)

    def lines(self) -> list[str]:
        """What was added since the last call."""
        try:
            with self._path.open("rb") as f:
                if f.seek(0, os.SEEK_END) < self._place:  # it was written anew: a job that is requeued may
                    self._place, self._rest = 0, ""
                    self._decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
                f.seek(self._place)
                data = f.read()
        except FileNotFoundError:
            return []
        self._place += len(data)
        *whole, self._rest = (self._rest + self._decode(data)).split("\n")
        return whole

    def rest(self) -> list[str]:
        """The last line, where it has no end."""
        return [self._rest] if self._rest else []


def _place_of_last(path: Path, lines: int) -> int:
    """Where the last lines of a file begin; 0 where there is none. It is read from its end, for a log may have gigabytes."""
    try:
        with path.open("rb") as f:
            place, found = f.seek(0, os.SEEK_END), b""
            while place and found.count(b"\n") <= lines:
                before = max(0, place - BLOCK_BYTES)
                f.seek(before)
                found, place = f.read(place - before) + found, before
    except FileNotFoundError:
        return 0
    return place + sum(map(len, (whole := found.splitlines(keepends=True))[:max(0, len(whole) - lines)]))


def wait_for(run: RunFolder, *, show: bool, last_lines: int | None = None) -> State:
    """Wait until the run's newest job has ended.

    Args:
        run: The run folder.
        show: Show rank 0's log and the progress on stderr.
        last_lines: Start the log this many lines before its end; None starts at its beginning.
    Returns:
        The last state.
    Raises:
        SlurmError: The controller did not answer for ten minutes.
    """
    latest = state_of(run)
    tail = Tail(latest.log, last_lines=last_lines)
    with _display(show) as display:
        for state in watch(run, latest):
            latest = state
            display.update(latest, tail.lines())
        display.update(latest, tail.lines() + tail.rest())
    return latest


def watch(run: RunFolder, state: State) -> Iterator[State]:
    """The state several times a second until the job has ended; the scheduler is asked ever more seldom.

    Args:
        run: The run folder.
        state: The state now.
    Raises:
        SlurmError: The controller did not answer for ten minutes.
    """
    pause_s, asked, answered = FIRST_ASK_S, time.monotonic(), time.monotonic()
    while state.active:
        yield state
        time.sleep(LOOK_S)
        if time.monotonic() - asked < pause_s and not run.result.exists():
            continue
        asked = time.monotonic()
        pause_s = FIRST_ASK_S if state.cluster == "local" else min(SLOWEST_ASK_S, pause_s * 1.3)
        try:
            state, answered = state_of(run), time.monotonic()
        except slurm.SlurmError as error:
            left_s = answered + SILENT_S - time.monotonic()
            if left_s < 0:
                raise
            print(f"{error}; still watching, for {left_s:.0f} s more", file=sys.stderr, flush=True)
    yield state


def outcome(state: State) -> tuple[int, str]:
    """Exit code and last line for a job that has ended."""
    if state.state == "COMPLETED" and state.run.result.exists():
        return 0, f"done: {state.run.result}"
    again = "continue it with --retry"
    if state.state == "COMPLETED":
        return 1, f"job {state.job_id} ended without a result.json, log {state.log}; {again}"
    return 1, f"{why(state)}; log {state.log}; {again}"


class _Plain:
    """Lines as they come, for a pipe."""

    def __init__(self, show: bool) -> None:
        self._show, self._last = show, ""

    def update(self, state: State, lines: list[str]) -> None:
        reason = state.where if state.state == "PENDING" and state.where != "(None)" else ""
        now = f"{state.state} {reason}".strip()
        if self._show and now != self._last and state.active:
            print(f"[job {state.job_id}: {now}]", file=sys.stderr, flush=True)
            self._last = now
        for line in lines if self._show else []:
            print(line, file=sys.stderr, flush=True)


class _Bar:
    """The log, and below it a bar of the steps."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task

    def update(self, state: State, lines: list[str]) -> None:
        for line in lines:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        beat = progress(state.run)
        mine = beat if str(beat.get("job_id")) == state.job_id else {}
        loss = f"loss {mine['loss']:.4f}  {mine['clips_per_s']:.1f} clips/s" if mine.get("loss") is not None else ""
        self._bar.update(self._task, description=f"job {state.job_id} {mine.get('state') or state.state.lower()}",
                         completed=mine.get("step", 0), total=mine.get("total_steps"), numbers=loss)


@contextmanager
def _display(show: bool) -> Iterator[Any]:
    if not show or not sys.stderr.isatty():
        yield _Plain(show)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"),
               TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield _Bar(bar, bar.add_task("", total=None, numbers=""))
