"""A folder of runs as it looks after a month: made from the runs of earlier code, nothing of it younger than 40 days."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.launching import ROOT
from vidmae.runs.record import RunFolder

EARLIER = ROOT / "tests/earlier_runs/runs"
CODE = {"pyproject.toml": "[project]\n", "vidmae/__init__.py": "", "jobs/clusters/example.yaml": "partition: gpu\n"}
DAYS = 40


def copy_run(runs: Path, source: str, name: str, **record: Any) -> RunFolder:
    """A run of earlier code under another name."""
    run = RunFolder(runs / name)
    shutil.copytree(EARLIER / source, run.path)
    said = json.loads(run.record.read_text())
    said |= {"name": name.rpartition("-")[0], "signature": name[-8:], **record}
    run.record.write_text(json.dumps(said))
    return run


def add_checkpoints(run: RunFolder, *steps: int) -> None:
    """More checkpoints, each a copy of the one that there is of `stopped`."""
    (one,) = (EARLIER / "stopped-b17e30cc/checkpoints").iterdir()
    for step in steps:
        target = run.checkpoints / f"step_{step:08d}"
        if not target.exists():
            shutil.copytree(one, target)


def add_code(folder: Path, **more: str) -> None:
    """A snapshot of code."""
    for name, text in {**CODE, **more}.items():
        path = folder / "code" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def grow_old(folder: Path, days: float = DAYS) -> None:
    """Let everything below a folder be of so many days ago."""
    then = time.time() - 86400 * days
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """done-edd1b7a1 and stopped-b17e30cc (one checkpoint each), two cells of the first, of which the second is not done."""
    folder = tmp_path / "runs"
    folder.mkdir()
    done = copy_run(folder, "done-edd1b7a1", "done-edd1b7a1")
    copy_run(folder, "stopped-b17e30cc", "stopped-b17e30cc")
    add_checkpoints(done, 23)
    cells = [copy_run(folder, f"done-motion-2shot-seed{seed}-finetune-{signature}", f"done-motion-2shot-seed{seed}-finetune-{signature}")
             for seed, signature in ((0, "0f11464a"), (1, "78e23e68"))]
    cells[1].result.unlink()
    for run in (done, RunFolder(folder / "stopped-b17e30cc")):
        add_code(run.path)
    grow_old(folder)
    return folder


def contents(folder: Path) -> dict[str, str]:
    """Every path below a folder, and what a file holds or a link says."""
    return {str(path.relative_to(folder)): f"-> {path.readlink()}" if path.is_symlink() else
            path.read_bytes().hex() if path.is_file() else "" for path in sorted(folder.rglob("*"))}
