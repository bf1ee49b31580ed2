"""What must stay: runs that a person protects, and runs that others were made from.

    runs/s-vith14-1a2b3c4d/protected    a person wants it to stay as it is (jobs/clean.py --protect RUN)

A run is named by others where its id or its signature stands in their run.json or config.yaml (the checkpoint of a cell,
train.init, the model that was tested, the other run of a pair), or in a table.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vidmae.runs.record import RunFolder, write_json

PROTECTED = "protected"
TABLES = (".csv", ".json", ".md", ".tex")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{8}(?![A-Za-z0-9_-])|(?<=run:)[0-9a-f]{8}(?![0-9a-f])")
_INIT = re.compile(r"^  init: *(['\"]?)(.+?)\1 *$", re.MULTILINE)


def protect(run: RunFolder) -> bool:
    """Keep a run as it is; False where it was protected before."""
    if is_protected(run):
        return False
    with _as_old_as_before(run):
        write_json(run.path / PROTECTED, {"schema": 1, "by": "jobs/clean.py --protect"})
    return True


def unprotect(run: RunFolder) -> bool:
    """Let a run be cleaned again; False where it was not protected."""
    there = is_protected(run)
    with _as_old_as_before(run):
        (run.path / PROTECTED).unlink(missing_ok=True)
    return there


@contextmanager
def _as_old_as_before(run: RunFolder) -> Iterator[None]:
    """Whatever is done in the folder changes nothing of how long the run has been left alone."""
    before = run.path.stat()
    yield
    for path in (run.path, run.path / PROTECTED):
        if path.exists():
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def is_protected(run: RunFolder) -> bool:
    """Whether a person wants the run to stay as it is; any file of that name says so."""
    return (run.path / PROTECTED).exists()


@dataclass(frozen=True)
class References:
    """What the records of runs and tables name.

    Attributes:
        named: Run id -> the first that names it: another run's id, or `the table NAME`.
        inits: Files and folders that runs started from (train.init).
    """

    named: Mapping[str, str] = field(default_factory=dict)
    inits: frozenset[Path] = frozenset()

    def starts_from(self, path: Path) -> bool:
        """Whether a run started from something in a folder, or from that file."""
        return any(init == path or path in init.parents for init in self.inits)


def find_references(runs: Sequence[RunFolder], tables: Iterable[Path] = ()) -> References:
    """Who names whom.

    Args:
        runs: All runs of the folder.
        tables: Folders of tables; those that are not there name nothing.
    """
    by_signature = {run.path.name[-8:]: run.path.name for run in runs}
    ids, named, inits = set(by_signature.values()), dict[str, str](), set[Path]()
    ids |= {run.path.name for run in runs}
    for run in runs:
        own, config = run.path.name, _text(run.config)
        inits |= {Path(found[2]) for found in _INIT.finditer(config)}
        for word in _NAMED.findall(_text(run.record) + config):
            of = word if word in ids else by_signature.get(word, "")
            if of and of != own:
                named.setdefault(of, own)
    for folder in tables:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.suffix in TABLES and path.is_file():
                for word in set(_NAMED.findall(_text(path))) & ids:
                    named.setdefault(word, f"the table {path.name}")
    return References(named, frozenset(inits))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
