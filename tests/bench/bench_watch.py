"""Watching many runs: from a key to its picture with 1,000 runs, and `status` over 10,000.

jobs/watch.py runs as a user starts it, in a terminal of 50 lines of 160 characters (a pty), beside a Slurm that answers. The
time of a key lasts from its byte until the terminal has got the picture that it makes: the name of the run that is chosen
now in the frame of its panel, the first run of another order, what a filter leaves. `status` is the whole command, in CPU
seconds, which say more on a busy machine; what it reads was read before.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.standing.runs import all_runs
from jobs.watching.lines import lines_of
from jobs.watching.seen_runs import Watcher
from tests.jobs.watching.made_runs import make_many, make_slurm

ROOT = Path(__file__).parents[2]
WATCHED, LISTED = 1_000, 10_000
LIMIT_MS, LIMIT_S = 200.0, 5.0
LINES, CHARACTERS = 50, 160
KEYS = 60  # down, then up
ROUNDS = 2
NOT_TEXT = re.compile(rb"\x1b\[[0-9;?=>]*[ -/]*[@-~]|\x1b[@-_]|\x1b.")


def results() -> Iterator[dict[str, Any]]:
    """Milliseconds of a key and seconds of `status` against their limits, and a second look against the first."""
    with tempfile.TemporaryDirectory() as folder:
        yield from keys(fabricate(Path(folder), WATCHED))
        yield looks(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        yield status(fabricate(Path(folder), LISTED))


def fabricate(folder: Path, runs: int) -> Path:
    """Run folders, and a Slurm that knows their jobs."""
    made, names = make_many(folder / "runs", runs, now=time.time())
    make_slurm(folder / "bin", made, names)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Of a command, with that Slurm."""
    return {**os.environ, "PATH": f"{folder}/bin{os.pathsep}{os.environ['PATH']}", "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}


class Terminal:
    """A terminal in which jobs/watch.py runs."""

    def __init__(self, folder: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, CHARACTERS, 0, 0))
        self.process = subprocess.Popen([sys.executable, str(ROOT / "jobs/watch.py")], cwd=folder, env=environment(folder), stdin=slave,
                                        stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

    def read_until(self, wanted: str, within_s: float = 60.0) -> bytes:
        """Read until a text is among what was written since this call."""
        seen, deadline = b"", time.monotonic() + within_s
        while wanted.encode() not in NOT_TEXT.sub(b"", seen):
            assert time.monotonic() < deadline, f"{wanted!r} did not come"
            if select.select([self._master], [], [], 0.05)[0]:
                seen += os.read(self._master, 65536)
        return seen

    def drain(self, quiet_s: float) -> None:
        """Read until nothing comes for some time."""
        with contextlib.suppress(OSError):  # which a terminal without a program gives
            while select.select([self._master], [], [], quiet_s)[0]:
                os.read(self._master, 65536)

    def key_ms(self, key: bytes, wanted: str) -> float:
        """Milliseconds from a key until a text was written."""
        self.drain(0.05)
        began = time.perf_counter()
        os.write(self._master, key)
        self.read_until(wanted)
        return 1e3 * (time.perf_counter() - began)

    @property
    def cpu_ms(self) -> float:
        """CPU time that the command has taken, in steps of 10 ms."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return 1e3 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Leave it."""
        os.write(self._master, b"q")
        self.drain(0.5)
        assert self.process.wait(30) == 0
        os.close(self._master)


def keys(folder: Path) -> Iterator[dict[str, Any]]:
    """Milliseconds of moving, and of what goes over all runs: orders and filters."""
    os.environ["PATH"] = environment(folder)["PATH"]
    seen = Watcher(lambda: all_runs(folder / "runs")).look().seen
    names = [line.key for line in lines_of(seen)]
    moving, over_all, spent_ms = [], [], [0.0, 0.0]
    for _ in range(ROUNDS):
        terminal = Terminal(folder)
        terminal.read_until(f"{WATCHED} runs: ")
        terminal.drain(1.0)
        places = [*range(1, KEYS // 2 + 1), *range(KEYS // 2 - 1, -1, -1)]
        before_ms = terminal.cpu_ms
        moving += [terminal.key_ms(b"\x1b[B" if n < KEYS // 2 else b"\x1b[A", f"─ {names[place]} ─") for n, place in enumerate(places)]
        spent_ms[0] += terminal.cpu_ms - before_ms
        before_ms = terminal.cpu_ms
        for order in ("newest", "name", "state", "loss", "clips/s", "wait", "goodput", "time left", "active first"):
            over_all.append(terminal.key_ms(b"s", f"[{order}]"))
        terminal.key_ms(b"/", "words that all fit")
        over_all += [terminal.key_ms(letter.encode(), f"only: {'seed1'[:n]}") for n, letter in enumerate("seed1", 1)]
        spent_ms[1] += terminal.cpu_ms - before_ms
        terminal.key_ms(b"\x1b", "[active first]  ")
        terminal.end()
    for name, times, cpu_ms in (("move", moving, spent_ms[0]), ("sort_and_filter", over_all, spent_ms[1])):
        last = statistics.quantiles(times, n=20)[-1]
        yield {"name": f"watch_{name}_ms", "unit": f"ms with {WATCHED:,} runs, 95th percentile", "target": 1.0, "rounds": len(times), "ours": last,
               "peer": LIMIT_MS, "ratio": LIMIT_MS / last, "median_ms": statistics.median(times), "most_ms": max(times),
               "cpu_ms": cpu_ms / len(times)}


def looks(folder: Path) -> dict[str, Any]:
    """CPU seconds of a second look, against the first, which reads everything."""
    gains, firsts, seconds = [], [], []
    for _ in range(3):
        watcher, spent = Watcher(lambda: all_runs(folder / "runs")), []
        for _ in range(3):
            began = time.process_time()
            watcher.look()
            spent.append(time.process_time() - began)
        firsts.append(spent[0])
        seconds.append(spent[-1])
        gains.append(spent[0] / spent[-1])
    return {"name": "watch_second_look", "unit": f"CPU s for {WATCHED:,} runs, second look against the first", "target": 1.0, "rounds": 3,
            "ours": statistics.median(seconds), "peer": statistics.median(firsts), "ratio": statistics.median(gains),
            "ratio_range": [min(gains), max(gains)]}


def status(folder: Path) -> dict[str, Any]:
    """CPU seconds of `status` over all runs; of three calls the first is left out, for it also warms the cache."""
    spent, walls = [], []
    for _ in range(3):
        began = time.perf_counter()
        with (folder / "said").open("w") as said:
            process = subprocess.Popen([sys.executable, str(ROOT / "jobs/status.py")], cwd=folder, env=environment(folder), stdout=said, stderr=said)
            _, code, usage = os.wait4(process.pid, 0)
        assert os.waitstatus_to_exitcode(code) == 0, (folder / "said").read_text()[-2000:]
        spent.append(usage.ru_utime + usage.ru_stime)
        walls.append(time.perf_counter() - began)
    cpu_s = statistics.median(spent[1:])
    return {"name": "status_seconds", "unit": f"CPU s for {LISTED:,} runs", "target": 1.0, "rounds": 2, "ours": cpu_s, "peer": LIMIT_S,
            "ratio": LIMIT_S / cpu_s, "wall_s": statistics.median(walls[1:]), "ratio_range": [LIMIT_S / max(spent[1:]), LIMIT_S / min(spent[1:])]}
