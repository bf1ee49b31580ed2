"""Removes what was listed, so that Ctrl-C leaves nothing half: a thing is renamed into .trash first, and removed there.

Nothing reads .trash. What an interrupted removal has left in it is listed and removed by the next call.
"""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.keeping.idle import signs_of_life
from jobs.keeping.protection import is_protected
from jobs.keeping.spare import TRASH, Search, Spare
from jobs.keeping.spare_code import link_files
from jobs.standing.runs import submissions
from jobs.submit.submission import one_launcher
from vidmae.runs.record import RunFolder, make_private_folder


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
    with one_launcher(spare.of.path) if spare.of else nullcontext():  # a launcher waits, and then sees what was done
        if why := search.why_outside(spare.path):
            return why
        if spare.of and (why := _why_left(spare.of, before)):
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
