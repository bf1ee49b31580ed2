"""Checkpoints of a run: the only writer of checkpoints/.

    checkpoints/
      step_00012000/
        state/...      deepspeed's shards, one set per rank
        COMPLETE       JSON: step, world size, ZeRO stage, size and hash of every file; written last
      .step_00013000.tmp/   a save in progress or cut off; never read

A folder appears under its final name by one rename, after everything in it is on disk. The newest complete one is found
by looking at the folders and checking every file against COMPLETE.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidmae.config import CheckpointConfig, TrainConfig
from vidmae.dist import Ranks
from vidmae.engine import Engine
from vidmae.record import SCHEMA, RunFolder, fsync_folder, make_private_folder, read_json, write_json

COMPLETE = "COMPLETE"
Say = Callable[[str], None]


class CheckpointError(RuntimeError):
    """No checkpoint can be used, or one cannot be written; the message says what to do."""


def folder_of(run: RunFolder, step: int) -> Path:
    """Final folder of the checkpoint after `step` updates."""
    return run.checkpoints / f"step_{step:08d}"


def save(engine: Engine, run: RunFolder, step: int, train: TrainConfig, ranks: Ranks, *, keep: CheckpointConfig) -> float:
    """Write a checkpoint and drop old ones. Collective.

    Args:
        keep: Which older checkpoints stay.
    Returns:
        Seconds that it took.
    """
    started = time.monotonic()
    final = folder_of(run, step)
    tmp = run.checkpoints / f".{final.name}.tmp"
    if ranks.is_main:
        make_private_folder(run.checkpoints)
        shutil.rmtree(tmp, ignore_errors=True)
        tmp.mkdir(mode=0o700)
    ranks.barrier()
    engine.save(tmp)
    ranks.barrier()
    files: dict[str, dict[str, Any]] = {}
    for part in ranks.gather({str(p.relative_to(tmp)): _sealed(p) for p in _share(_files(tmp), ranks)}):
        files.update(part)
    if ranks.is_main:
        write_json(tmp / COMPLETE, {
            "schema": SCHEMA, "step": step, "world_size": ranks.world_size, "zero_stage": train.zero_stage,
            "precision": train.precision, "files": dict(sorted(files.items()))})
        for folder in sorted({p.parent for p in _files(tmp)}):
            fsync_folder(folder)
        _publish(tmp, final)
        _prune(run, keep)
    ranks.barrier()
    return time.monotonic() - started


def restore(engine: Engine, run: RunFolder, train: TrainConfig, ranks: Ranks, say: Say) -> int:
    """Load the newest complete checkpoint. Collective.

    Args:
        say: Told which checkpoint is used and which ones are damaged and why.
    Returns:
        Updates done; 0 where the run has no checkpoint yet.
    Raises:
        CheckpointError: There are checkpoints but none is complete, or the one found was saved with another number
            of ranks or another ZeRO stage.
    """
    names = sorted((p.name for p in run.checkpoints.glob("step_*")), reverse=True) if run.checkpoints.is_dir() else []
    damage = []
    for name in ranks.from_main(names):
        folder = run.checkpoints / name
        problem = _problem(folder, ranks)
        if problem is None:
            return _load(engine, folder, train, ranks, say)
        damage.append(f"{name}: {problem}")
        say(f"checkpoint {damage[-1]}; trying the one before")
    if damage:
        raise CheckpointError(f"{run.checkpoints} holds no usable checkpoint ({'; '.join(damage)}); nothing was "
                              "changed. Put an intact copy back, or move the folder away to start from step 0")
    return 0


def _load(engine: Engine, folder: Path, train: TrainConfig, ranks: Ranks, say: Say) -> int:
    record = read_json(folder / COMPLETE)
    assert record is not None
    for key, now, flag in (("world_size", ranks.world_size, "--nodes x --gpus-per-node"),
                           ("zero_stage", train.zero_stage, "--set train.zero_stage"),
                           ("precision", train.precision, "--set train.precision")):
        whole = train.zero_stage == 0 and record["zero_stage"] == 0 and key == "world_size"
        if record[key] != now and not whole:
            raise CheckpointError(f"{folder} was saved with {key} {record[key]}, this job has {now}; "
                                  f"continue with {record[key]} ({flag})")
    engine.load(folder)
    say(f"continuing from {folder.name}, step {record['step']}")
    return int(record["step"])


def _problem(folder: Path, ranks: Ranks) -> str | None:
    """Why a checkpoint is not complete, or None. Each rank hashes its share of the files; all get the same answer."""
    problem = None
    try:
        record = read_json(folder / COMPLETE)
        if record is None:
            problem = f"no {COMPLETE} marker"
        else:
            for name in _share(sorted(record["files"]), ranks):
                problem = problem or _mismatch(folder / name, record["files"][name])
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = str(error)
    return next((p for p in ranks.gather(problem) if p), None)


def _mismatch(path: Path, expected: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != expected["bytes"]:
        return f"{path.name} has {size} bytes, {COMPLETE} says {expected['bytes']}"
    if _hash(path) != expected["blake2b"]:
        return f"{path.name} has other content than was written (hash differs)"
    return None


def _sealed(path: Path) -> dict[str, Any]:
    """Flush a file to disk; its size and hash."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return {"bytes": path.stat().st_size, "blake2b": _hash(path)}


def _hash(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as f:
        while chunk := f.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


def _share(items: list[Any], ranks: Ranks) -> list[Any]:
    return items[ranks.rank::ranks.world_size]


def _publish(tmp: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():  # only a damaged one can stand here: a complete one would have been continued from
        final.rename(aside)
    tmp.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(run: RunFolder, keep: CheckpointConfig) -> None:
    complete = sorted(p.parent for p in run.checkpoints.glob(f"step_*/{COMPLETE}"))
    for old in complete[:-keep.keep_last]:
        if keep.keep_every and int(old.name.removeprefix("step_")) % keep.keep_every == 0:
            continue
        trash = old.with_name(f".{old.name}.old")  # a rename first: a prune cut off leaves no half checkpoint
        old.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
