"""What runs can do without: checkpoints, runs that failed, what was cut off, weights where that is asked for.

    checkpoints   of a run that is done and whose weights are whole: all of them
                  of one that is not: those before the newest ones that `checkpoint.keep_last` keeps
    failed        the whole folder of a run that ended without a result, and that nothing names
    leftovers     saves and copies of code that were cut off, and what an interrupted removal has left
    weights       of a run that is done, and that nothing names; only where it is asked for
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from jobs.keeping.idle import Standing
from jobs.keeping.spare import CHECKPOINTS, DAY_S, FAILED, LEFTOVERS, TRASH, WEIGHTS, Search, Spare, newest_s, size_of
from jobs.keeping.whole_weights import damage_of
from jobs.standing.runs import NOT_STARTED, progress
from vidmae.ranks.saving.retention import superseded
from vidmae.runs.record import COMPLETE, RunFolder, read_json
from vidmae.settings.keeping_config import CheckpointConfig
from vidmae.settings.layers import ConfigError, read_yaml

_STEP = re.compile(r"step_(\d{8})")
_CUT_OFF = (".code.new", ".code.old")


def spare_checkpoints(search: Search) -> Iterator[Spare]:
    """Checkpoints that no run needs."""
    for standing in search.standings:
        run = standing.run
        if not run.checkpoints.is_dir():
            continue
        done = run.result.exists()
        found, why = (_of_done(run) if done else _of_unfinished(run))
        if not found:
            if why:
                search.left.setdefault(run.path.name, why)
            continue
        if not search.touchable(standing, "checkpoints") or not _is_own(search, run.checkpoints):
            continue
        for path in found:
            if search.references.starts_from(path):
                search.left.setdefault(f"{run.path.name} {path.name}", "a run started from this checkpoint (train.init)")
            elif search.is_old(path):
                yield Spare(CHECKPOINTS, path, why, *size_of(path), of=run)


def _of_done(run: RunFolder) -> tuple[list[Path], str]:
    found = sorted(path for path in run.checkpoints.iterdir() if _STEP.fullmatch(path.name))
    if not found:
        return [], ""
    if _keeps_weights(run) and (damage := damage_of(run.weights)):
        return [], f"it is done, and {run.weights.name} is not whole ({damage}): its checkpoints stay"
    return found, "the run is done" + (" and its weights are whole" if run.weights.is_file() else "")


def _keeps_weights(run: RunFolder) -> bool:
    """Whether a run that is done must have its weights: pretraining always, a cell where it was asked to keep them."""
    if (read_json(run.record) or {}).get("kind", "pretrain") == "pretrain":
        return True
    return bool(re.search(r"^keep_weights: true$", run.config.read_text(), re.MULTILINE)) if run.config.is_file() else True


def _of_unfinished(run: RunFolder) -> tuple[list[Path], str]:
    """Those before the newest that stay. One counts among these only where its files have the sizes that it says."""
    there = {int(found[1]): path for path in run.checkpoints.iterdir() if (found := _STEP.fullmatch(path.name))}
    whole = [step for step, path in there.items() if _has_its_sizes(path)]
    if len(whole) < 2:
        return [], ""
    try:
        keep = _keeping(run)
    except (ConfigError, ValueError, TypeError) as error:
        return [], f"its config.yaml cannot be read, so its checkpoints stay: {error}"
    stay = f"a later one is complete, and checkpoint.keep_last {keep.keep_last} are kept"
    return [there[step] for step in superseded(whole, keep)], stay


def _keeping(run: RunFolder) -> CheckpointConfig:
    section = read_yaml(run.config).values.get("checkpoint") or {}
    usual = CheckpointConfig()
    return CheckpointConfig(**{name: section.get(name, getattr(usual, name)) for name in
                               ("every_steps", "keep_last", "keep_every")})


def _has_its_sizes(folder: Path) -> bool:
    try:
        files = (read_json(folder / COMPLETE) or {})["files"]
        return all((folder / name).stat().st_size == said["bytes"] for name, said in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def spare_failures(search: Search) -> Iterator[Spare]:
    """Runs that ended without a result, where an age is asked for."""
    over = [s for s in search.standings if s.state.active is False and not s.run.result.exists()
            and s.state.state not in NOT_STARTED]
    if search.older_than_s is None:
        if over:
            search.left.setdefault("failed runs", f"{len(over)} ended without a result; they are listed with an age "
                                                  "(--older-than DAYS)")
        return
    for standing in over:
        run = standing.run
        if not search.is_old(run.path) or not search.touchable(standing, "the run"):
            continue
        if why := search.references.why_needed(run):
            search.left.setdefault(run.path.name, f"{why}; the run would go otherwise")
        elif not _is_own(search, run.path, run.checkpoints, run.submit):
            continue
        else:
            yield Spare(FAILED, run.path, _what_failed(standing), *size_of(run.path), of=run)


def _what_failed(standing: Standing) -> str:
    run, beat = standing.run, progress(standing.run)
    days = int((time.time() - newest_s(run.path)) / DAY_S)
    steps = f"step {beat['step']} of {beat['total_steps']}" if {"step", "total_steps"} <= beat.keys() else "no step"
    kept = len([path for path in run.checkpoints.iterdir() if _STEP.fullmatch(path.name)]) if run.checkpoints.is_dir() else 0
    return f"{standing.state.state} {days} days ago; it holds {steps}, {kept} checkpoints"


def spare_weights(search: Search) -> Iterator[Spare]:
    """Weights of runs that are done, and that nothing names."""
    for standing in search.standings:
        run = standing.run
        if not run.result.exists() or not run.weights.is_file() or not search.is_old(run.weights):
            continue
        if why := search.references.why_needed(run):
            search.left.setdefault(run.path.name, f"{why}, so its weights stay")
        elif search.references.starts_from(run.weights):
            search.left.setdefault(run.path.name, "a run started from its weights (train.init)")
        elif search.touchable(standing, "weights") and _is_own(search, run.weights):
            yield Spare(WEIGHTS, run.weights, "the run is done; --weights asks for it", *size_of(run.weights), of=run)


def spare_leftovers(search: Search) -> Iterator[Spare]:
    """What was cut off, and what an interrupted removal has left."""
    for standing in search.standings:
        run = standing.run
        cut = [run.path / name for name in _CUT_OFF if (run.path / name).is_dir()]
        if run.checkpoints.is_dir() and not run.checkpoints.is_symlink():
            cut += sorted(run.checkpoints.glob(".step_*"))
        if not cut or not search.touchable(standing, "what was cut off"):
            continue
        for path in filter(search.is_old, cut):
            what = "a copy of code" if path.name in _CUT_OFF else "a save or a removal"
            yield Spare(LEFTOVERS, path, f"{what} that was cut off", *size_of(path), of=run)
    trash = search.runs_dir / TRASH
    if not search.chosen and trash.is_dir() and not trash.is_symlink():
        for path in sorted(trash.iterdir()):
            yield Spare(LEFTOVERS, path, "a removal that was interrupted", *size_of(path))


def _is_own(search: Search, *paths: Path) -> bool:
    """Whether none of the paths leads out of the folder of the runs; else it is noted."""
    for path in paths:
        if path.exists() and (why := search.why_outside(path)):
            search.left.setdefault(str(path.relative_to(search.runs_dir)), why)
            return False
    return True
