"""The shards of a program on this machine: one process after the other, with a bar that shows how far it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vidmae.layers import ConfigError

ROOT = Path(__file__).resolve().parent.parent
PLAIN_EVERY_S, BAR_EVERY_S = 10.0, 0.5
INCOMPLETE = 3  # exit code: some clips could not be read


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        module: The program, such as `vidmae.embed`.
        out: Folder of the results.
        shards: N.
        device: auto, cuda or cpu.
        workers: Reading processes of each rank.
    """

    module: str
    out: Path
    shards: int
    device: str
    workers: int


def command_of(work: Work, number: int) -> list[str]:
    """The command of one shard on this machine."""
    return [sys.executable, "-m", work.module, str(work.out), "--shard", f"{number}/{work.shards}"]


def run_here(work: Work, console: Console) -> int:
    """Run all shards here, one after the other, each in a process of its own; exit code of the first that fails, or 0."""
    for number in range(work.shards):
        if (work.out / "result.json").exists():
            break
        code = _run_shard([*command_of(work, number), "--say-every-s", str(BAR_EVERY_S)], console)
        if code not in (0, INCOMPLETE):
            return code
    if not (work.out / "result.json").exists():
        raise ConfigError(f"all shards are done and {work.out}/result.json is missing; does another command work there?")
    return 0


def _run_shard(command: Sequence[str], console: Console) -> int:
    """Run the program and show how far it is; its exit code."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    with (subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process,
          progress(console, "clips") as show):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := re.match(r"(\d+)/(\d+) (?:clips|scenes)", line):
                    show(int(match[1]), int(match[2]))
                else:
                    tell(console, line.rstrip())
        except BaseException:
            process.kill()
            raise
    return process.returncode


@contextmanager
def progress(console: Console, what: str) -> Iterator[Any]:
    """A function that is told how many are done of how many: a bar on a terminal, else a line now and then."""
    if console.is_terminal:
        with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > PLAIN_EVERY_S:
            last = time.monotonic()
            print(f"{done}/{total} {what}", file=sys.stderr, flush=True)

    yield line


def tell(console: Console, text: str) -> None:
    """A line for people, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)
