"""Real runs on the footage of the bundle: manifests of it on this machine, run folders, and the training program in them."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from tests.gpu.bundle import ROWS
from tests.support.programs import forked
from vidmae.footage.archives.archive_layout import index_path
from vidmae.footage.manifest import Check, parse_row, write_manifest
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import ModelConfig, PretrainConfig, TrainConfig
from vidmae.settings.layers import build, parse_set, to_yaml

FOOTAGE, WORK = "VIDMAE_GPU_FOOTAGE", "VIDMAE_GPU_WORK"
"""Set for a stage by run.py: the unpacked bundle, and a folder that is removed at the end."""
HAS_DETERMINISTIC, HAS_COMPILE = (name in {field.name for field in fields(TrainConfig)} for name in ("deterministic", "compile"))
"""Whether this commit has these settings of `train`."""


def work(name: str) -> Path:
    """A new private folder that is removed at the end."""
    path = Path(os.environ[WORK]) / name
    shutil.rmtree(path, ignore_errors=True)
    return make_private_folder(path)


def manifest(name: str, kind: str, *, copies: int = 1) -> Path:
    """A manifest of the bundle's files of a kind, each copied so often: other files as far as anybody can tell.

    Args:
        name: Of the csv.
        kind: recording, chunks or prepared.
        copies: Of each file.
    """
    bundle, folder = Path(os.environ[FOOTAGE]), work(f"{name}-footage")
    rows = []
    for name_in_bundle, record in json.loads((bundle / ROWS).read_text()).items():
        file, mark, key = name_in_bundle.partition("#")
        for i in range(copies if file.startswith(f"{kind}/") else 0):
            path = folder / f"{Path(file).stem}-{i:03d}{Path(file).suffix}"
            shutil.copyfile(bundle / file, path)
            if key:
                shutil.copyfile(index_path(bundle / file), index_path(path))
            rows.append(parse_row(record | {"path": f"{path}{mark}{key}", "mtime_ns": path.stat().st_mtime_ns}))
    out = folder.with_name(f"{name}.csv")
    write_manifest(out, sorted(rows, key=lambda row: row.path), [], Check("auto", True))
    return out


def make_run(name: str, clips: Path, model: ModelConfig, device: str, *settings: str, compiled: bool = False) -> RunFolder:
    """A run folder as the launcher makes it; `settings` are `key=value`. What is `compiled` takes half a minute longer."""
    given = [f"model.{key}={json.dumps(value)}" for key, value in asdict(model).items()]
    given += [f"name={name}", f"data.manifest={clips}", f"train.device={device}", "log.tensorboard=false",
              "data.recheck_pct=0"]  # which wants PyAV
    if HAS_COMPILE and device == "cuda" and not compiled:
        given.append("train.compile=false")
    run = RunFolder(work(name))
    run.config.write_text(to_yaml(build(PretrainConfig, parse_set([*given, *settings]))[0]))
    return run


def start(run: RunFolder, *, program: str = "vidmae.train.pretrain", args: tuple[str, ...] = (), threads: int = 0,
          anew: bool = False) -> Any:
    """Start the training program, or another that stands for it, in a run folder; its output goes to a file beside.

    Args:
        run: The folder.
        program: A module.
        args: Before the folder on its command line.
        threads: OMP_NUM_THREADS; 0 leaves it.
        anew: In a Python of its own also in a smoke run, as a job starts it.
    Returns:
        A subprocess.Popen, or what is like one (`forked.Program`).
    """
    env = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if anew:
        env.pop(forked.SOCKET, None)
    with (run.path / "said.txt").open("a") as out:
        return forked.start(program, [*args, str(run.path)], env, out)


def said(run: RunFolder) -> str:
    """What the programs in a run folder printed so far."""
    return (run.path / "said.txt").read_text()


def finish(process: Any, run: RunFolder, *, code: int, timeout_s: float) -> str:
    """Wait for a program to end with a code; what it printed.

    Raises:
        AssertionError: It ends with another; shows the end of its output.
    """
    try:
        process.wait(timeout=timeout_s)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, f"exit code {process.returncode}, not {code}: {said(run)[-400:]}"
    return said(run)


def wait_for(run: RunFolder, process: Any, step: int, *, timeout_s: float) -> list[dict[str, Any]]:
    """Wait until a run has done so many steps; its metrics.

    Raises:
        AssertionError: It ends before, or takes too long; shows the end of its output.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = read_metrics(run)
        if found and found[-1]["step"] >= step:
            return found
        assert process.poll() is None, f"it ended with exit code {process.returncode} before step {step}: {said(run)[-400:]}"
        assert time.monotonic() < deadline, f"step {step} is not done after {timeout_s:.0f} s: {said(run)[-400:]}"
        time.sleep(0.02)
