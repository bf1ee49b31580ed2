"""Checkpoints of a run: the only writer of checkpoints/.

    checkpoints/
      step_00012000/
        state/...      deepspeed's shards, one set per rank
        metrics.jsonl, quarantine.csv   the run's records up to this step
        COMPLETE       JSON: step, world size, ZeRO stage, size and hash of every file, seconds; written last
      .step_00013000.tmp/   a save in progress or cut off; never read

A folder appears under its final name by one rename, after everything in it is on disk. The newest complete one is found
by looking at the folders and checking every file against COMPLETE.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vidmae.ranks.dist import Ranks
from vidmae.ranks.engine import TAG, Engine
from vidmae.ranks.saving.retention import GIB, free_bytes, superseded, why_no_room
from vidmae.ranks.shard_writer import Background, hash_file, write_shards
from vidmae.runs.record import (
    COMPLETE,
    SCHEMA,
    STEPS,
    RunFolder,
    fsync_folder,
    make_private_folder,
    read_json,
    write_atomic,
    write_json,
)
from vidmae.settings.config import TrainConfig
from vidmae.settings.keeping_config import CheckpointConfig

Say = Callable[[str], None]


class CheckpointError(RuntimeError):
    """No checkpoint can be used, or one cannot be written; the message says what to do."""


def folder_of(run: RunFolder, step: int) -> Path:
    """Final folder of the checkpoint after `step` updates."""
    return run.checkpoints / f"step_{step:08d}"


class Saver:
    """Saves a run, while it trains on where `keep.background` says so. One save is under way at most.

        saver.prepare(start, total_steps)          # before the first step
        saver.begin(step)                          # copies the state; training goes on
        sums = engine.update(extra=[saver.busy])   # a number in each step's collective: all ranks learn the same
        saver.settle(mean_busy)                    # the next stage of a save, where no rank is busy any more
        saver.save(step)                           # the last step, or a stop: returns when it is on disk

    A save has two stages, each in threads of their own: every rank writes its shards; then rank 0, which has gathered their
    sizes and hashes, writes COMPLETE, renames and prunes. All methods are collective; they return the seconds that training
    lost and raise CheckpointError on every rank alike where any rank failed.

    Args:
        engine: What is saved.
        run: The run folder.
        train: The recipe's section.
        ranks: From `dist.init`.
        keep: Which older checkpoints stay.
        say: Told of each checkpoint.
    Attributes:
        slowest_s: The longest that a save has taken so far, from `begin` until it was complete; earlier jobs count.
    """

    def __init__(self, engine: Engine, run: RunFolder, train: TrainConfig, ranks: Ranks, *, keep: CheckpointConfig,
                 say: Say) -> None:
        self._engine, self._run, self._train, self._ranks, self._keep, self._say = engine, run, train, ranks, keep, say
        self.slowest_s = 0.0
        self._saved: int | None = None  # the newest step that is complete or under way
        self._writing: Background | None = None
        self._publishing: Background | None = None
        self._began = self._lost_s = 0.0

    @property
    def busy(self) -> float:
        """1 while this rank has something to do for a save, else 0."""
        stage = self._writing or self._publishing
        return float(stage is not None and stage.busy)

    def prepare(self, start: int, total_steps: int) -> None:
        """Clear away what saves that were cut off have left, and make sure that there is room.

        Args:
            start: Updates done; what `restore` returned.
            total_steps: Updates of the whole run.
        Raises:
            CheckpointError: The folder cannot be written or is too small for the run; before any step is trained.
        """
        problem = None
        if self._ranks.is_main:
            for left in self._run.checkpoints.glob(".step_*"):
                shutil.rmtree(left, ignore_errors=True)
            have = _complete(self._run, start)
            self.slowest_s = max((_save_s(path) for path in have.values()), default=0.0)
            problem = why_no_room(self._run.checkpoints, list(have), self._engine.checkpoint_bytes, start, total_steps,
                                  self._keep)
        problem, self.slowest_s = self._ranks.from_main((problem, self.slowest_s))
        if problem:
            raise CheckpointError(problem)
        self._saved = start or None

    def begin(self, step: int) -> float:
        """Start a save; one that is still under way is finished first."""
        before_s, started = self.finish(), time.monotonic()
        self._saved, self._began, self._lost_s = step, started, 0.0
        folder = self._tmp
        self._agree(self._on_main(lambda: _make_empty(folder, self._engine.checkpoint_bytes)))
        shards = self._engine.shards(copied=self._keep.background)
        if self._ranks.is_main:
            shards |= {path.name: path.read_bytes() for path in self._run.records if path.exists()}
        self._writing = Background(lambda: write_shards(folder, shards))
        self._lost_s = time.monotonic() - started
        return before_s + self._lost_s + (0.0 if self._keep.background else self.finish())

    def settle(self, busy: float) -> float:
        """Go on with the save under way if no rank is busy with it.

        Args:
            busy: Mean (or sum) of all ranks' `busy` at one moment.
        """
        return self._advance() if busy == 0 else 0.0

    def save(self, step: int) -> float:
        """Have `step` complete on disk when this returns."""
        begin_s = 0.0 if self._saved == step else self.begin(step)
        return begin_s + self.finish()

    def finish(self) -> float:
        """Have the save under way complete on disk when this returns; nothing where there is none."""
        lost_s = 0.0
        while self._writing or self._publishing:
            lost_s += self._advance()
        return lost_s

    def _advance(self) -> float:
        """End the stage that is under way, waiting for it where it must be, and start the next."""
        started, took_s = time.monotonic(), None
        if self._writing:
            own, self._writing = self._agree(self._writing), None
            files = dict(self._ranks.joined(list(own.items())))  # the one thing that each rank has to say: its files' hashes
            self._publishing = self._on_main(lambda: self._publish(files))
        elif self._publishing:
            own, self._publishing = self._agree(self._publishing), None
            took_s = self._ranks.from_main(own)
        lost_s = time.monotonic() - started
        self._lost_s += lost_s
        if took_s is not None:
            self.slowest_s = max(self.slowest_s, took_s)
            self._say(f"saved step {self._saved} in {took_s:.1f} s, {self._lost_s:.1f} s of them lost to training")
        return lost_s

    @property
    def _tmp(self) -> Path:
        assert self._saved is not None, "no save is under way"
        return self._run.checkpoints / f".{folder_of(self._run, self._saved).name}.tmp"

    def _on_main(self, act: Callable[[], Any]) -> Background:
        return Background(act if self._ranks.is_main else lambda: None)

    def _agree(self, stage: Background) -> Any:
        """This rank's result of a stage; where one rank has failed, all fail with it."""
        stage.wait()
        problem = self._ranks.first(f"rank {self._ranks.rank}: {stage.problem}" if stage.problem else None)
        if problem:
            if self._ranks.is_main:
                shutil.rmtree(self._tmp, ignore_errors=True)
            raise CheckpointError(
                f"the checkpoint of step {self._saved} could not be saved: {problem}. Earlier ones in "
                f"{self._run.checkpoints} are as they were. Make room there (disk or quota) or make it writable, then "
                "continue with --retry; fewer checkpoints stay with --set checkpoint.keep_last=N")
        return stage.result

    def _publish(self, files: dict[str, Any]) -> float:
        """Make the checkpoint appear and old ones go; seconds since `begin`."""
        assert self._saved is not None
        tmp, final = self._tmp, folder_of(self._run, self._saved)
        write_json(tmp / COMPLETE, {
            "schema": SCHEMA, "step": self._saved, "world_size": self._ranks.world_size,
            "zero_stage": self._train.zero_stage, "precision": self._train.precision,
            "save_s": time.monotonic() - self._began, "files": dict(sorted(files.items()))})
        fsync_folder(tmp / TAG)
        _rename(tmp, final)
        _prune(self._run, self._saved, self._keep)
        return time.monotonic() - self._began


def restore(engine: Engine, run: RunFolder, train: TrainConfig, ranks: Ranks, say: Say,
            from_memory: Callable[[Engine, int], int] | None = None) -> int:
    """Load the newest complete checkpoint. Collective.

    Args:
        say: Told which checkpoint is used and which ones are damaged and why.
        from_memory: Loads copies in the memory of the nodes that are newer than a step; the updates done, 0 where there are
            none (`MemorySaver.restore`).
    Returns:
        Updates done; 0 where the run has no checkpoint yet.
    Raises:
        CheckpointError: There are checkpoints but none is complete, or the one found was saved in another precision,
            or ZeRO is stage 0 on one side only.
    """
    damage = []
    for name in ranks.on_main(lambda: sorted((p.name for p in run.checkpoints.glob(STEPS)), reverse=True)):
        if from_memory and (step := from_memory(engine, int(name.removeprefix("step_")))):
            return step
        folder = run.checkpoints / name
        record, problem = ranks.on_main(partial(_marker, folder))
        problem = problem or _problem(folder, record, ranks)
        if problem is None:
            if ranks.is_main:
                restore_records(run, folder)
            return _load(engine, folder, record, train, ranks, say)
        damage.append(f"{name}: {problem}")
        say(f"checkpoint {damage[-1]}; trying the one before")
    if from_memory and (step := from_memory(engine, 0)):
        return step
    if damage:
        raise CheckpointError(f"{run.checkpoints} holds no usable checkpoint ({'; '.join(damage)}); nothing was "
                              "changed. Put an intact copy back, or move the folder away to start from step 0")
    return 0


def restore_records(run: RunFolder, folder: Path) -> None:
    """The records as they were at the checkpoint in `folder`, whatever was added, lost or written twice since."""
    for path in run.records:
        if (folder / path.name).exists():
            write_atomic(path, (folder / path.name).read_bytes())


def _load(engine: Engine, folder: Path, record: dict[str, Any], train: TrainConfig, ranks: Ranks, say: Say) -> int:
    step, world_size, stage = int(record["step"]), int(record["world_size"]), int(record["zero_stage"])
    if record["precision"] != train.precision:
        raise CheckpointError(f"{folder} was saved with train.precision {record['precision']}, this job has "
                              f"{train.precision}; continue with --set train.precision={record['precision']}")
    if bool(stage) != bool(train.zero_stage):
        allowed = "1, 2 or 3" if stage else "0"
        raise CheckpointError(f"{folder} was saved with train.zero_stage {stage}, this job has {train.zero_stage}; "
                              f"it continues with {allowed} (--set train.zero_stage={stage})")
    if stage == train.zero_stage and (stage == 0 or world_size == ranks.world_size):
        engine.load(folder)
        say(f"continuing from {folder.name}")
    else:
        engine.load_resharded(folder, zero_stage=stage, world_size=world_size)
        say(f"continuing from {folder.name}, saved on {world_size} ranks with ZeRO {stage}, on {ranks.world_size} with "
            f"ZeRO {train.zero_stage}: the same up to rounding")
    return step


def _marker(folder: Path) -> tuple[dict[str, Any], str | None]:
    """What COMPLETE of a checkpoint says, and why it cannot be used, or None. Of 1,024 ranks it is 0.1 MB: one reads it."""
    try:
        record = read_json(folder / COMPLETE)
    except (ValueError, OSError) as error:
        return {}, str(error)
    return record or {}, None if record is not None else f"no {COMPLETE} marker"


def _problem(folder: Path, record: dict[str, Any], ranks: Ranks) -> str | None:
    """Why a checkpoint is not complete, or None. Each rank hashes its share of the files; all get the same answer."""
    problem = None
    try:
        for name in _share(sorted(record["files"]), ranks):
            problem = problem or _mismatch(folder / name, record["files"][name])
    except (ValueError, KeyError, TypeError, OSError) as error:
        problem = str(error) or type(error).__name__
    return ranks.first(problem)


def _mismatch(path: Path, expected: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    size = path.stat().st_size
    if size != expected["bytes"]:
        return f"{path.name} has {size} bytes, {COMPLETE} says {expected['bytes']}"
    if hash_file(path) != expected["blake2b"]:
        return f"{path.name} has other content than was written (hash differs)"
    return None


def _share(items: list[Any], ranks: Ranks) -> list[Any]:
    return items[ranks.rank::ranks.world_size]


def _make_empty(tmp: Path, room_bytes: int) -> None:
    """A folder for a new checkpoint. A full disk is noticed here, before steps are trained beside a save that must fail."""
    shutil.rmtree(tmp, ignore_errors=True)
    make_private_folder(tmp / TAG)
    if (free := free_bytes(tmp)) < room_bytes:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} for a checkpoint of {room_bytes / GIB:.3g} GiB, "
                                    f"{free / GIB:.3g} are free", str(tmp.parent))


def _rename(tmp: Path, final: Path) -> None:
    aside = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if final.exists():  # only a damaged one can stand here: a complete one would have been continued from
        final.rename(aside)
    tmp.rename(final)
    fsync_folder(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _prune(run: RunFolder, newest: int, keep: CheckpointConfig) -> None:
    complete = _complete(run, newest)
    for step in superseded(complete, keep):
        trash = run.checkpoints / f".{complete[step].name}.old"  # a rename first: a prune cut off leaves no half one
        complete[step].rename(trash)
        shutil.rmtree(trash, ignore_errors=True)


def complete_steps(run: RunFolder) -> list[int]:
    """Steps whose checkpoints have their marker, ascending."""
    return sorted(run.complete_checkpoints())


def _complete(run: RunFolder, newest: int) -> dict[int, Path]:
    """Step -> folder of the checkpoints that have their marker; later than `newest` only damaged ones can be."""
    return {step: path for step, path in run.complete_checkpoints().items() if step <= newest}


def _save_s(folder: Path) -> float:
    try:
        return float((read_json(folder / COMPLETE) or {})["save_s"])
    except (KeyError, TypeError, ValueError):
        return 0.0  # written before the time was kept, or damaged
