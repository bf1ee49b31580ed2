"""The same without a terminal: the table of `status` as plain lines, again and again."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable

from jobs.status import HEADER, table
from jobs.watching.background import Looks
from jobs.watching.lines import counts
from jobs.watching.seen_runs import Picture, Watcher


def why_plain(asked: str) -> str:
    """Why plain lines are shown instead of the interface, or nothing.

    Args:
        asked: The flag that asks for it, or empty.
    """
    if asked:
        return asked
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "standard input and output are no terminal"
    if os.environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return f"the terminal cannot move its cursor (TERM={os.environ.get('TERM', '')})"
    if importlib.util.find_spec("textual") is None:
        return f"the library textual is missing in {sys.executable} (pip install textual)"
    return ""


def show_plain(watcher: Watcher, every_s: float, *, once: bool = False, pause: Callable[[float], None] = time.sleep) -> None:
    """Print the table until Ctrl-C.

    Args:
        watcher: What is looked at.
        every_s: Seconds between two tables; more while Slurm does not answer.
        once: Print one table only.
        pause: Waits so many seconds.
    """
    looks = Looks(watcher, every_s, _print, unasked_first=False)
    while True:
        pause_s = looks()
        if once:
            return
        pause(pause_s)


def _print(picture: Picture) -> None:
    """The table, and the notes on standard error."""
    print("\n".join(plain_lines(picture)), flush=True)
    for note in picture.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)


def plain_lines(picture: Picture) -> list[str]:
    """The table of `status`, and above it the time and how many runs there are."""
    when = time.strftime("%H:%M:%S", time.localtime(picture.time_s))
    return [f"{when}  {counts(picture.seen)}", *table([HEADER, *(one.row for one in picture.seen)], sys.maxsize)]
