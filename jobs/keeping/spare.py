"""A thing that a folder of runs can do without, and what a search for such things knows of the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from jobs.keeping.idle import Standing, damage_of_record, look_at
from jobs.keeping.protection import References, find_references, is_protected
from jobs.standing.runs import all_runs
from vidmae.runs.record import RunFolder

CHECKPOINTS, FAILED, CACHES, SNAPSHOTS, LEFTOVERS, WEIGHTS = (
    "checkpoints", "failed", "caches", "snapshots", "leftovers", "weights")
KINDS = (CHECKPOINTS, FAILED, CACHES, SNAPSHOTS, LEFTOVERS, WEIGHTS)
TRASH = ".trash"  # in the folder of the runs: what is being removed; nothing reads it
DAY_S = 86400.0


@dataclass(frozen=True)
class Spare:
    """Something that may go.

    Attributes:
        kind: One of KINDS.
        path: A folder or file.
        why: It may go.
        bytes: That the disk gets back.
        files: Files and folders that it gets back.
        of: The run that it belongs to; None: of no run alone.
        like: Of a snapshot: the folder whose files take the place of its own, as hard links.
    """

    kind: str
    path: Path
    why: str
    bytes: int
    files: int
    of: RunFolder | None = None
    like: Path | None = None


@dataclass
class Search:
    """A folder of runs, looked at once, and what was left and why.

    Args:
        runs_dir: The folder, absolute.
        chosen: Only things of these runs; empty: of all, and what belongs to none.
        older_than_s: Only what nothing has changed for so long; None: of any age, and no failed run.
        tables: Folders of tables, whose runs stay.
    Attributes:
        left: Name -> why it stays although it looks like something that may go.
    """

    runs_dir: Path
    chosen: Sequence[RunFolder] = ()
    older_than_s: float | None = None
    tables: Sequence[Path] = ()
    left: dict[str, str] = field(default_factory=dict)

    @cached_property
    def everything(self) -> list[RunFolder]:
        """All runs of the folder."""
        return all_runs(self.runs_dir)

    @cached_property
    def standings(self) -> list[Standing]:
        """The chosen runs with their states; what could not be asked is noted."""
        damaged = {run: why for run in self.chosen or self.everything if (why := damage_of_record(run))}
        self.left |= {run.path.name: why for run, why in damaged.items()}
        found, problems = look_at([run for run in self.chosen or self.everything if run not in damaged])
        for problem in problems:
            self.left.setdefault("Slurm", problem)
        return found

    @cached_property
    def references(self) -> References:
        """Who names whom."""
        return find_references(self.everything, self.tables)

    def touchable(self, standing: Standing, what: str) -> bool:
        """Whether something of a run may go as far as the run itself says; else it is noted why not.

        Args:
            standing: The run.
            what: Would go, for the note.
        """
        run = standing.run
        why = "it is protected (--unprotect)" if is_protected(run) else standing.busy or self.why_outside(run.path)
        if why:
            self.left.setdefault(run.path.name, f"{why}; {what} would go otherwise")
        return not why

    def why_outside(self, path: Path) -> str:
        """Why a path is not followed: it, or a folder on the way to it, is a link. Nothing where it is none."""
        inside = path.resolve() == self.runs_dir.resolve() / path.relative_to(self.runs_dir)
        return "" if inside else "it is a link to elsewhere, which is not followed"

    def is_old(self, path: Path) -> bool:
        """Whether nothing below a path has changed for as long as was asked."""
        return self.older_than_s is None or time.time() - newest_s(path) >= self.older_than_s


def size_of(path: Path) -> tuple[int, int]:
    """Bytes and entries that the disk gets back once a folder or file is removed. Links are not followed; a file that has
    another name elsewhere gives no bytes back."""
    found = os.lstat(path)
    size = found.st_size if found.st_nlink == 1 else 0
    if path.is_symlink() or not path.is_dir():
        return size, 1
    total, entries = 0, 1
    for entry in os.scandir(path):
        more, count = size_of(Path(entry.path))
        total, entries = total + more, entries + count
    return total, entries


def newest_s(path: Path) -> float:
    """When something below a path last changed, in seconds since 1970. Links are not followed."""
    latest = os.lstat(path).st_mtime
    if path.is_symlink() or not path.is_dir():
        return latest
    return max([latest, *(newest_s(Path(entry.path)) for entry in os.scandir(path))])


def text_of_bytes(size: int) -> str:
    """A size for people."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
