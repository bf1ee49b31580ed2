"""What must stay: runs that a person protects, and runs that others were made from.

    runs/s-vith14-1a2b3c4d/protected    a person wants it to stay as it is (jobs/clean.py --protect RUN)

A run is named by others where its id or its signature stands in their run.json or config.yaml (the checkpoint of a cell,
train.init, the model that was tested, the other run of a pair), or in a table.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from vidmae.runs.record import RunFolder, write_json

PROTECTED = "protected"
TABLES = (".csv", ".json", ".md", ".tex")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*-[0-9a-f]{8}(?![A-Za-z0-9_-])|(?<=run:)[0-9a-f]{8}(?![0-9a-f])")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe, too, and ten times as fast


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
        inits: Files and folders that runs started from (train.init), without links on the way.
        unknown: A run whose records cannot be read, so that it may name any other; empty: there is none.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    inits: frozenset[Path] = frozenset()
    unknown: str = ""

    def starts_from(self, path: Path) -> bool:
        """Whether a run started from something in a folder, or from that file."""
        real = Path(os.path.realpath(path))
        return any(init == real or real in init.parents for init in self.inits)

    def why_needed(self, run: RunFolder) -> str:
        """Why a run is needed by others, or may be; nothing where nobody names it."""
        if by := self.named.get(run.path.name):
            return f"{by} names it"
        return f"{self.unknown} is damaged and may name it" if self.unknown not in ("", run.path.name) else ""


def find_references(runs: Sequence[RunFolder], tables: Iterable[Path] = ()) -> References:
    """Who names whom.

    Args:
        runs: All runs of the folder.
        tables: Folders of tables; those that are not there name nothing.
    """
    by_signature = {run.path.name[-8:]: run.path.name for run in runs}
    ids, named, inits, unknown = {run.path.name for run in runs}, dict[str, str](), set[Path](), ""
    for run in runs:
        own = run.path.name
        try:
            words, init = _words_of(str(run.record), _stamp(run.record)), value_of(run, "train", "init")
            words |= _words_of(str(run.config), _stamp(run.config))
        except ValueError:
            unknown = unknown or own
            continue
        inits |= {Path(os.path.realpath(Path(init).expanduser()))} if init else set()
        for word in sorted(words):
            of = word if word in ids else by_signature.get(word, "")
            if of and of != own:
                named.setdefault(of, own)
    for folder in tables:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            if path.suffix in TABLES and path.is_file():
                for word in sorted(set(_NAMED.findall(_text(path)))):
                    if of := word if word in ids else by_signature.get(word, ""):
                        named.setdefault(of, f"the table {path.name}")
    return References(named, frozenset(inits), unknown)


def value_of(run: RunFolder, section: str, key: str) -> str:
    """A text of a run's config.yaml; empty where it is not given.

    Raises:
        ValueError: The file cannot be read.
    """
    found = _sections(str(run.config), _stamp(run.config)).get(section)
    return str((found.get(key) if isinstance(found, dict) else None) or "")


def _stamp(path: Path) -> tuple[int, ...]:
    """What is another where the file is."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@cache  # who names whom is looked up again before every removal
def _sections(path: str, stamp: tuple[int, ...]) -> dict[str, Any]:
    try:
        found = yaml.load(_text(Path(path)), Loader=_LOADER) if stamp else None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML") from error
    return found if isinstance(found, dict) else {}


@cache
def _words_of(path: str, stamp: tuple[int, ...]) -> frozenset[str]:
    """What a record names; only what looks like a name of a run."""
    text = _text(Path(path)) if stamp else ""
    if path.endswith(".json") and stamp:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is damaged") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path} is damaged")
    return frozenset(_NAMED.findall(text))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
