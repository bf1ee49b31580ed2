"""Removes what was listed, so that Ctrl-C leaves nothing half: a thing is renamed into .trash first, and removed there.

Nothing reads .trash. What an interrupted removal has left in it is listed and removed by the next call.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.keeping.idle import signs_of_life
from jobs.keeping.protection import is_protected
from jobs.keeping.spare import CACHES, FAILED, TRASH, WEIGHTS, Search, Spare
from jobs.keeping.spare_caches import spare_caches
from jobs.keeping.spare_code import link_files
from jobs.standing.arrays import ARRAYS
from jobs.standing.runs import submissions
from jobs.submit.submission import one_launcher
from vidmae.runs.record import RunFolder, make_private_folder

NAMED = (CACHES, WEIGHTS, FAILED)  # what a run that is submitted meanwhile may name


@dataclass(frozen=True)
class Seen:
    """What of a run was seen when its things were listed; where it is otherwise now, somebody works at it."""

    submissions: int
    newest: Any
    done: bool


def seen(run: RunFolder) -> Seen:
    """What is to be the same when something of the run goes."""
    jobs = submissions(run)
    return Seen(len(jobs), jobs[-1] if jobs else None, run.result.exists())


def remove(search: Search, spare: Spare, before: Seen | None) -> str:
    """Remove one thing; why it was left, or nothing where it is gone.

    Args:
        search: That found it.
        spare: The thing.
        before: What was seen of its run when it was listed; None: it is of no run.
    Raises:
        OSError: It cannot be removed.
    """
    if spare.path.parent.name == TRASH and spare.path.parent.parent == search.runs_dir:
        _delete(spare.path)
        return ""
    if not os.path.lexists(spare.path):
        return "it is gone already"
    with _no_sweep(search, spare), one_launcher(spare.of.path) if spare.of else nullcontext():
        # a launcher waits, and then sees what was done
        if why := search.why_outside(spare.path):
            return why
        if spare.of and (why := _why_left(spare.of, before)):
            return why
        if why := why_needed(search, spare):
            return why
        trash = make_private_folder(search.runs_dir / TRASH)
        if spare.like:
            if not spare.like.is_dir():
                return "the copy that it is equal to is gone"
            link_files(spare.path, spare.like, trash / f"link-{os.getpid()}")
            return ""
        target = _free_name(trash, spare.path.relative_to(search.runs_dir))
        spare.path.rename(target)
    _delete(target)
    return ""


def _no_sweep(search: Search, spare: Spare) -> AbstractContextManager[None]:
    """No sweep submits meanwhile what may name a thing of these kinds."""
    return one_launcher(make_private_folder(search.runs_dir / ARRAYS)) if spare.kind in NAMED else nullcontext()


def why_needed(search: Search, spare: Spare) -> str:
    """Why a thing that others may name must stay, as it is at this moment; nothing where nobody does."""
    now = replace(search, left={})
    if spare.kind == CACHES:
        if any(again.path == spare.path for again in spare_caches(now)):
            return ""
        return now.left.get(str(spare.path.relative_to(now.runs_dir)), "it has changed since it was listed")
    if spare.kind not in NAMED or spare.of is None:
        return ""
    started = now.references.starts_from(spare.path)
    return now.references.why_needed(spare.of) or ("a run started from it (train.init)" if started else "")


def _why_left(run: RunFolder, before: Seen | None) -> str:
    if before != seen(run):
        return "its run was submitted, or came to its end, since it was listed"
    if is_protected(run):
        return "its run is protected by now"
    return signs_of_life(run)


def _free_name(trash: Path, name: Path) -> Path:
    first = trash / "--".join(name.parts)
    found, number = first, 1
    while os.path.lexists(found):
        number += 1
        found = first.with_name(f"{first.name}-{number}")
    return found


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
