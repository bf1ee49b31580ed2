"""Snapshots of code that are equal: their files can be one file with several names.

Each name is a hard link, so that every run folder keeps all of its code: it can be moved, copied (`rsync -a`) or removed
like any other, and nothing points out of it. This suite never writes into a snapshot: a new submission puts a new folder
there. Files with several names become read-only, so that nobody else changes one run's code and thereby that of others.
Cells have their array's snapshot by a link already.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from jobs.keeping.idle import Standing
from jobs.keeping.spare import SNAPSHOTS, Search, Spare
from jobs.standing.arrays import ARRAYS
from vidmae.runs.record import RunFolder

COMPILED = "__pycache__"


def spare_snapshots(search: Search) -> Iterator[Spare]:
    """Snapshots whose files the first of the same content can give, as links. Only where no job uses either of them: what a
    job starts with is never changed, not even in its permissions."""
    if search.chosen:
        return
    alike: dict[str, list[tuple[Path, RunFolder | None]]] = defaultdict(list)
    for code, run, users in _snapshots(search):
        if not search.why_outside(code) and all(search.touchable(user, "files of its code") for user in users):
            alike[content_of(code)].append((code, run))
    for (first, _), *others in alike.values():
        for code, run in others:
            size, files = _own(code, first)
            if files:
                said = f"equal to the code of {first.parent.name}; its files become links to those"
                yield Spare(SNAPSHOTS, code, said, size, files, of=run, like=first)


def _snapshots(search: Search) -> Iterator[tuple[Path, RunFolder | None, list[Standing]]]:
    """Every snapshot, the run that it belongs to (None: an array), and whose jobs start in it."""
    users: dict[Path, list[Standing]] = defaultdict(list)
    for standing in sorted(search.standings, key=lambda standing: standing.run.path):
        code = standing.run.code
        if code.is_symlink():
            users[code.resolve()].append(standing)
        elif code.is_dir():
            yield code, standing.run, [standing]
    for code in sorted((search.runs_dir / ARRAYS).glob("*/code")):
        if code.is_dir() and not code.is_symlink():
            yield code, None, users[code.resolve()]


def files_of(code: Path) -> list[str]:
    """The source files of a snapshot, from its top; not what Python has compiled of them."""
    return sorted(str(path.relative_to(code)) for path in code.rglob("*")
                  if path.is_file() and not path.is_symlink() and COMPILED not in path.parts)


def content_of(code: Path) -> str:
    """A hash that two snapshots share exactly where they have the same files."""
    digest = hashlib.sha256()
    for name in files_of(code):
        text = (code / name).read_bytes()
        digest.update(f"{name}\0{len(text)}\0".encode("utf-8", "surrogateescape"))
        digest.update(text)
    return digest.hexdigest()


def _own(code: Path, first: Path) -> tuple[int, int]:
    """Bytes and files that are not one with those of the first yet; a file of several names gives back no bytes."""
    stats = [((code / name).stat(), (first / name).stat()) for name in files_of(code)]
    apart = [mine for mine, other in stats if mine.st_ino != other.st_ino]
    return sum(mine.st_size for mine in apart if mine.st_nlink == 1), len(apart)


def link_files(code: Path, first: Path, draft: Path) -> None:
    """Make the files of a snapshot names of those of another one. At any moment the snapshot is complete.

    Args:
        code: The snapshot.
        first: Of the same content; files that are not the same by now stay.
        draft: A name on the same file system that nobody uses.
    Raises:
        OSError: The file system has no such links, or no more of a file.
    """
    for name in files_of(code):
        mine, other = code / name, first / name
        if other.is_file() and mine.stat().st_ino != other.stat().st_ino and mine.read_bytes() == other.read_bytes():
            draft.unlink(missing_ok=True)
            other.chmod(other.stat().st_mode & ~0o222)
            os.link(other, draft)
            draft.replace(mine)
