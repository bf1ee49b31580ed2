"""Caches that nobody refers to and that can be made again: frozen features, and labelled clips that a sweep has prepared.

    runs/features/<weights>-<digest>/     stays while a cell that is not done would ask for features of these weights, and
                                          where the weights are not to be found any more
    runs/clips/256px-15fps-q90/           stays while a cell that is not done reads it, and where one of the recordings that
                                          it was made from is gone

What jobs/embed.py and the like write is a result, and lies where a user said: it is no cache, and is not looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs.keeping.protection import is_protected, value_of
from jobs.keeping.spare import CACHES, Search, Spare, newest_s, size_of
from jobs.keeping.whole_weights import damage_of
from jobs.standing.runs import FRESH_S
from vidmae.footage.archives.archive_layout import file_of
from vidmae.footage.manifest import first_paths
from vidmae.runs.record import RunFolder, read_json

FEATURES, CLIPS, ASKED = "features", "clips", "asked.csv"
SCRATCH = "scratch-seed"  # begins what features of random weights say of these: a seed makes them again


def spare_caches(search: Search) -> Iterator[Spare]:
    """Caches that may go."""
    if search.chosen:
        return
    for folder in _folders(search, FEATURES, "spec.json"):
        weights = str((read_json(folder / "spec.json") or {}).get("weights", ""))
        if why := _why_features_stay(search, weights) or _why_busy(folder):
            search.left.setdefault(_name(search, folder), why)
        else:
            said = f"features of {weights}, which every cell that asks for them has used; they can be extracted again"
            yield Spare(CACHES, folder, said, *size_of(folder))
    for folder in _folders(search, CLIPS, ASKED):
        if why := _why_clips_stay(search, folder) or _why_busy(folder):
            search.left.setdefault(_name(search, folder), why)
        else:
            yield Spare(CACHES, folder, "clips that every cell that reads them has read; they can be prepared again",
                        *size_of(folder))


def _folders(search: Search, name: str, mark: str) -> list[Path]:
    """The caches in a folder beside the runs, that are old enough."""
    found = [path.parent for path in sorted((search.runs_dir / name).glob(f"*/{mark}"))]
    return [path for path in found if not search.why_outside(path) and search.is_old(path)]


def _name(search: Search, folder: Path) -> str:
    return str(folder.relative_to(search.runs_dir))


def _unfinished(search: Search) -> list[RunFolder]:
    return [run for run in search.everything if not run.result.exists()]


def _found(run: RunFolder, section: str, key: str) -> str | None:
    """A value of a run's settings; None where they cannot be read."""
    try:
        return value_of(run, section, key)
    except ValueError:
        return None


def _why_features_stay(search: Search, weights: str) -> str:
    random = weights.startswith(SCRATCH)
    for run in _unfinished(search):
        content = _found(run, "train", "init_content")
        if content is None:
            return f"{run.path.name} is damaged and may ask for features of {weights}"
        is_cell = (_record(run) or {}).get("kind") != "pretrain"
        if is_cell and (content == weights or (random and not content)):
            return f"{run.path.name} is not done and may ask for features of {weights}"
    if random or _can_be_found(search.everything, weights):
        return ""
    return f"the weights {weights or 'of its spec.json'} are not here any more, so the features could not be extracted again"


def _record(run: RunFolder) -> dict[str, Any] | None:
    try:
        return read_json(run.record)
    except (ValueError, OSError):
        return None


def _can_be_found(runs: Sequence[RunFolder], weights: str) -> bool:
    """Whether the weights of features are here: of a run, or a file that a cell started from."""
    kind, _, signature = weights.partition(":")
    if kind == "run":
        return any(run.path.name.endswith(f"-{signature}") and not damage_of(run.weights) for run in runs)
    return bool(weights) and any(_found(run, "train", "init_content") == weights
                                 and Path(_found(run, "train", "init") or "/").is_file() for run in runs)


def _why_clips_stay(search: Search, folder: Path) -> str:
    for run in _unfinished(search):
        archives = _found(run, "data", "archives")
        if archives is None:
            return f"{run.path.name} is damaged and may read it"
        if archives and Path(archives).name == folder.name:
            return f"{run.path.name} is not done and reads it"
    paths = first_paths(folder / ASKED, 10**9)
    gone = sum(not path.exists() for path in {file_of(path) for path in paths})
    return f"{gone} of the {len(paths)} recordings that it was made from are not here: it could not be made again" if gone \
        else ""


def _why_busy(folder: Path) -> str:
    """Why a cache may be in use: a lock, a change in the last minutes, a person's word."""
    if is_protected(RunFolder(folder)):
        return "it is protected (a file `protected` in it)"
    age_s = time.time() - newest_s(folder)
    if (folder / "lock.json").exists() and age_s < FRESH_S:
        return "a job holds its lock"
    return f"it changed {age_s:.0f} s ago, and is left alone for {FRESH_S:.0f} s" if age_s < FRESH_S else ""
