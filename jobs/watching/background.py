"""What is read beside the keys, so that no file system and no Slurm makes them wait: two threads and what they read.

One looks at all runs, every few seconds. The other reads what the screen shows now: curves of the rows, the end of one log.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jobs.standing.follow import Tail
from jobs.watching.curve import sampled_losses
from jobs.watching.seen_runs import Picture, Seen, Watcher

MOST_PAUSE_S = 60.0  # between two looks where Slurm does not answer
PEEK_S = 1.0
LOG_LINES = 200
GROWN = 1 / 32  # a curve is read anew when its file has grown by this share
NOT_TEXT = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Repeat(threading.Thread):
    """Calls a function again and again, until the program ends, which does not wait for it.

    Args:
        work: Returns the seconds until its next call.
        failed: Is called with what went wrong in a call; the next one comes all the same.
    """

    def __init__(self, work: Callable[[], float], failed: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._work, self._failed, self._woken, self._stopped = work, failed, threading.Event(), False

    def run(self) -> None:
        """Work until it is stopped."""
        while not self._stopped:
            self._woken.clear()
            try:
                pause_s = self._work()
            except Exception as error:  # a screen that stands still and says nothing would be believed
                pause_s = MOST_PAUSE_S
                self._failed(f"what is shown is old: {type(error).__name__}: {error}")
            self._woken.wait(pause_s)

    def wake(self) -> None:
        """Let the next call be now, or right after the one that is under way."""
        self._woken.set()

    def stop(self) -> None:
        """Let no further call begin."""
        self._stopped = True
        self._woken.set()


class Looks:
    """Looks at all runs, and says what it sees.

    Args:
        watcher: What is looked at.
        every_s: Seconds between two looks.
        publish: Is called with each picture.
        unasked_first: Say what the folders say before Slurm is asked for the first time.
    """

    def __init__(self, watcher: Watcher, every_s: float, publish: Callable[[Picture], None], *,
                 unasked_first: bool = True) -> None:
        self._unasked_first = unasked_first
        self._watcher, self._every_s, self._publish = watcher, every_s, publish
        self._pause_s, self._last = every_s, Picture()

    def __call__(self) -> float:
        """Look once; the seconds until the next look."""
        if self._unasked_first and not self._last.time_s:
            self._show(ask=False)
        self._show(ask=True)
        self._pause_s = min(MOST_PAUSE_S, 2 * self._pause_s) if self._last.away else self._every_s
        return max(self._pause_s, self._every_s)

    def _show(self, *, ask: bool) -> None:
        try:
            self._last = self._watcher.look(ask=ask)
        except (ValueError, OSError) as error:  # the runs that were named are gone, or their folder is
            self._last = replace(self._last, notes=(str(error),))
        self._publish(self._last)


@dataclass(frozen=True)
class Details:
    """What is shown of the rows on the screen.

    Attributes:
        losses: By the id of a run, see `sampled_losses`.
        name: The run whose log it is.
        log: The end of its log.
    """

    losses: Mapping[str, Sequence[float]] = field(default_factory=dict)
    name: str = ""
    log: tuple[str, ...] = ()


class Peeks:
    """Reads what the screen shows, and says it where it is new.

    Args:
        publish: Is called with what was read.
    """

    def __init__(self, publish: Callable[[Details], None]) -> None:
        self._publish, self._last = publish, Details()
        self._wanted: tuple[Sequence[Seen], Seen | None] = ((), None)
        self._curves: dict[Path, tuple[int, list[float]]] = {}
        self._log: Path | None = None
        self._tail, self._lines = Tail(Path()), deque[str](maxlen=LOG_LINES)

    def want(self, visible: Sequence[Seen], chosen: Seen | None) -> None:
        """Say which runs the screen shows, and of which the log."""
        self._wanted = (visible, chosen)

    def __call__(self) -> float:
        """Read once."""
        visible, chosen = self._wanted
        losses = {one.name: self._losses(one.state.run.metrics) for one in visible}
        found = Details(losses, chosen.name if chosen else "", self._end_of(chosen.state.log) if chosen else ())
        if found != self._last:
            self._last = found
            self._publish(found)
        return PEEK_S

    def _losses(self, path: Path) -> list[float]:
        try:
            size = path.stat().st_size
        except OSError:
            return []
        before, losses = self._curves.get(path, (-1, []))
        if not before <= size <= before * (1 + GROWN):
            losses = sampled_losses(path)
            self._curves[path] = (size, losses)
        return losses

    def _end_of(self, log: Path) -> tuple[str, ...]:
        try:
            if log != self._log:
                self._tail = Tail(log, last_lines=LOG_LINES)
                self._log = log
                self._lines.clear()
            self._lines.extend(map(plain_text, self._tail.lines()))
        except OSError as error:
            return (f"{log}: {error.strerror}",)
        return tuple(self._lines)


def plain_text(line: str) -> str:
    """A line of a log without what would move the cursor or change colours; of a progress bar its last state."""
    return NOT_TEXT.sub("", line.rstrip("\r").rpartition("\r")[2])
