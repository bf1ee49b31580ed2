"""What command lines share that start one of this package's programs on this machine: the folder of the results with its
config.yaml, a manifest of the videos that were given, the process and how far it is. No torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vidmae.footage.manifest import AUTO, Check, find_sources
from vidmae.footage.manifest_build import build, is_manifest_of
from vidmae.footage.video_list import EXTENSIONS
from vidmae.runs.record import make_private_folder, write_atomic
from vidmae.settings.layers import ConfigError, load, to_dict, to_yaml

CONFIG = "config.yaml"
ROOT = Path(__file__).resolve().parents[2]
PLAIN_EVERY_S, BAR_EVERY_S = 10.0, 0.5
CHECK_LIMIT_S = 600.0  # for one file, as in jobs/prepare.py
Tell = Callable[[int, int], None]
"""Told how many are done of how many."""


def is_footage(path: Path) -> bool:
    """A folder or a video, which has no manifest yet."""
    return path.is_dir() or path.suffix.lower() in EXTENSIONS


def make_manifest(footage: Path, made: Path, console: Console, *, decoder: str, workers: int) -> None:
    """Make the manifest of a folder or a file; one that has results already stays as it is.

    Args:
        footage: The folder or the file. Pictures that an earlier call wrote below it are no footage.
        made: The csv to write, in the folder of the results.
        console: Gets the bar, and how many files are left out.
        decoder: That files are checked with; auto tries all.
        workers: Processes that check them.
    Raises:
        ConfigError: Not one file can be read, or the folder is none of results or holds those of other videos.
        ManifestError: There is no video.
    """
    out = made.parent
    refuse_other_folder(out)
    sources = [source for source in find_sources(footage)
               if footage.absolute().is_relative_to(out) or not Path(source.path).is_relative_to(out)]
    if has_results(out):
        if not is_manifest_of(made, sources):
            raise ConfigError(f"{out} holds the results of other videos than those of {footage}; choose another --out")
        return
    make_private_folder(out)
    with progress(console, "files") as tell:
        summary, _ = build(sources, made, Check(decoder, True), workers=workers, time_limit_s=CHECK_LIMIT_S,
                           progress=tell)
    if summary.unreadable:
        hint = "" if decoder == AUTO else " (--decoder auto may read more)"
        console.print(f"{summary.unreadable} of {len(sources)} files cannot be read and are left out; "
                      f"{made.stem}.unreadable.csv says why{hint}", style="yellow", highlight=False)
    if not summary.videos:
        raise ConfigError(f"--videos {footage}: not one of {len(sources)} files can be read ({made.stem}.unreadable.csv)")


def prepare_folder(out: Path, config: Any) -> None:
    """Write config.yaml.

    Raises:
        ConfigError: The folder holds something else, or the results of another configuration (how many work at it is free).
    """
    refuse_other_folder(out)
    make_private_folder(out)
    path = out / CONFIG
    if has_results(out):
        there, now = (to_yaml(each).splitlines() for each in (load(type(config), path), config))  # keys may have moved since
        free = tuple(f"{key}:" for key in to_dict(config).keys() - to_dict(config, signed_only=True).keys())
        mine, theirs = ([line for line in lines if not line.startswith(free)] for lines in (now, there))
        if mine != theirs:
            raise ConfigError(f"{out} holds the results of another configuration (now {_first(mine, theirs)}, there "
                              f"{_first(theirs, mine)}); choose another --out")
    write_atomic(path, to_yaml(config).encode())


def has_results(out: Path) -> bool:
    """Whether a folder holds a configuration and more than what is there before the work, which is manifests of footage."""
    return (out / CONFIG).is_file() and any(map(_is_more, out.iterdir()))


def _is_more(path: Path) -> bool:
    return not path.name.startswith((CONFIG, "videos", "."))


def refuse_other_folder(out: Path) -> None:
    """Let results go to a folder that is new or empty, or holds results of a program.

    Raises:
        ConfigError: The folder is something else.
    """
    refuse_known_folder(out)
    if out.exists() and not (out / CONFIG).is_file() and (not out.is_dir() or any(map(_is_more, out.iterdir()))):
        raise ConfigError(f"--out {out} holds other files and no results; choose a new or empty folder")


def refuse_known_folder(out: Path) -> None:
    """The same for tables, which may lie beside other files.

    Raises:
        ConfigError: The folder is a run, the folder of the runs, one of manifests, or a copy of the source code.
    """
    marks = {"run.json": "a run's folder", "*/run.json": "the folder of the runs",
             "*.unreadable.csv": "a folder of manifests", "pyproject.toml": "a folder of source code"}
    for mark, what in marks.items():
        if any(not path.name.startswith("videos") for path in out.glob(mark)):
            raise ConfigError(f"--out {out} is {what}; choose another one for results, such as results/NAME")


def run_program(module: str, args: Sequence[str], console: Console, what: str, others: Sequence[str] = (), *,
                workers: int) -> int:
    """Run a program in a process of its own and show how far it is; its exit code.

    Args:
        module: Such as vidmae.insight.interpolation.interpolate.
        args: Of its command line.
        console: Gets what it prints.
        what: Lines such as `3/10 clips` move the bar, where `what` is clips.
        others: Other words that move it.
        workers: Processes in which it reads videos. torch gets the other cores, unless OMP_NUM_THREADS says something else:
            threads that wait for a core cost more than they bring.
    """
    threads = max(1, len(os.sched_getaffinity(0)) - workers)
    env = {"OMP_NUM_THREADS": str(threads), **os.environ,
           "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    with (subprocess.Popen([sys.executable, "-m", module, *args], stdout=subprocess.PIPE, text=True, env=env) as process,
          progress(console, what) as show):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if match := re.match(rf"(\d+)/(\d+) (?:{'|'.join([what, *others])})", line):
                    show(int(match[1]), int(match[2]))
                else:
                    tell(console, line.rstrip())
        except BaseException:
            process.kill()
            raise
    return process.returncode


@contextmanager
def progress(console: Console, what: str) -> Iterator[Tell]:
    """A function that is told how many are done of how many: a bar on a terminal, else a line now and then."""
    if console.is_terminal:
        with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    first: tuple[float, int] | None = None  # when, and what was done before
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, done)
        if now - last > PLAIN_EVERY_S:
            last, new = now, done - first[1]
            rate = new / (now - first[0]) if new else 0.0  # nothing is new where the very first line comes late
            left = f", {rate:.3g} a second, about {timedelta(seconds=round((total - done) / rate))} left" if rate else ""
            print(f"{done}/{total} {what}{left}", file=sys.stderr, flush=True)

    yield line


def tell(console: Console, text: str) -> None:
    """A line for people, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _first(lines: list[str], others: list[str]) -> str:
    return next((line.strip() for line in lines if line not in others), "nothing")
