"""An array over run folders: what its tasks share, and which of them runs what. Stdlib only.

    runs/arrays/20261124T101701-fewshot/
      cells.txt         one run folder a line; task i runs line i, from 0
      code/             the snapshot that all tasks run
      submit/<A>_<a>/   pickled call, log and exit code of task a of job A; submit/<A>/ the batch script

A run that is a task has code and submit/<A>_<a> as links into the array's folder, so that it looks like any other run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from vidmae.runs.record import RunFolder, make_private_folder, write_atomic

ARRAYS = "arrays"  # in the folder of the runs
CELLS = "cells.txt"


def array_path(runs_dir: Path, name: str) -> Path:
    """Where an array that is submitted now would lie; a number follows where the folder exists."""
    first = runs_dir / ARRAYS / f"{time.strftime('%Y%m%dT%H%M%S')}-{name}"
    path, number = first, 1
    while path.exists():
        number += 1
        path = first.with_name(f"{first.name}-{number}")
    return path


def make_array(path: Path, runs: Sequence[RunFolder]) -> RunFolder:
    """Make the folder of an array; its paths are named like those of a run."""
    array = RunFolder(make_private_folder(path))
    write_atomic(path / CELLS, "".join(f"{run.path}\n" for run in runs).encode("utf-8", "surrogateescape"))
    make_private_folder(array.submit)
    return array


def cells_of(path: Path) -> list[RunFolder]:
    """The run of every task of an array, in order."""
    text = (path / CELLS).read_text(encoding="utf-8", errors="surrogateescape")
    return [RunFolder(Path(line)) for line in text.split("\n") if line]


def run_of_task(path: Path) -> RunFolder:
    """The run of this process: of its array's folder the line of its task, else the run folder itself."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    if task is None or not (path / CELLS).exists():
        return RunFolder(path)
    return cells_of(path)[int(task)]


def link_task(run: RunFolder, array: RunFolder, job_id: str) -> None:
    """Let a run's code and the folder of its job be those of the array."""
    submit = str(run.submit)
    with suppress(FileExistsError):
        os.mkdir(submit, 0o700)  # noqa: PTH102  (texts: of a hundred thousand runs, paths take as long as the disk)
    to_array = os.path.relpath(array.path, run.path)
    _link(str(run.code), f"{to_array}/{array.code.name}")
    _link(f"{submit}/{job_id}", f"../{to_array}/{array.submit.name}/{job_id}")


def _link(path: str, target: str) -> None:
    """A relative link, in place of an older one: the folder of the runs may be moved as a whole."""
    try:
        os.symlink(target, path)  # noqa: PTH211
    except FileExistsError:
        draft = f"{path}.{os.getpid()}.link"
        Path(draft).unlink(missing_ok=True)
        Path(draft).symlink_to(target)
        Path(draft).replace(path)
