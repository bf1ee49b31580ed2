"""Find the few-shot runs below folders, and what became of each. Hundreds of thousands are listed in seconds.

A folder with a run.json or result.json is a run; nothing is looked for inside. Of each run one file is read, unless it is
known: `KnownRecords` keeps what was read before, by path, time, size and inode, so that a second call reads what is new.
Runs of another kind, such as pretraining, are passed over.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from vidmae.runs.cell_record import Cell, OtherKindError, Result, ResultError, parse_object, read_announced, read_result
from vidmae.runs.record import make_private_folder, write_atomic

RUN, RESULT, FAILURE, CONFIG = "run.json", "result.json", "failure.json", "config.yaml"
ARRAY = "cells.txt"  # in the folder of a job array: it holds a folder per task, and no run
CACHE_SCHEMA = 2
ERROR = "error"  # kind of a failure.json: the code failed, and would again

_cell_values = attrgetter(*(field.name for field in fields(Cell)))  # dataclasses.astuple takes ten times as long
_result_values = attrgetter(*(field.name for field in fields(Result)))


@dataclass(frozen=True)
class Run:
    """A few-shot run.

    Attributes:
        path: Its folder.
        status: found, missing (announced, no result yet) or failed (an error, or a damaged record).
        cell: Which cell it is; None where its records do not say.
        result: What it has found; None where nothing counts.
        said: Why there is no result.
    """

    path: str
    status: str
    cell: Cell | None
    result: Result | None
    said: str = ""


class KnownRecords:
    """Records that were read before; a file of its own, and no loss where it is gone, damaged or of another schema.

    Attributes:
        read: How many records had to be read.
    """

    def __init__(self, path: Path | None) -> None:
        self.read = 0
        self._path = path
        self._kept: dict[str, list[Any]] = {}
        self._old: dict[str, list[Any]] = {}
        try:
            stored = json.loads(path.read_bytes()) if path else {}
            if stored.get("schema") == CACHE_SCHEMA:
                self._old = stored["records"]
        except (OSError, ValueError, KeyError, AttributeError):
            self._old = {}

    def lookup(self, path: str) -> list[Any] | None:
        """What was kept of a file, if it is still the same."""
        known = self._old.get(path)
        if known is None or known[0] != _stamp(path):
            return None
        self._kept[path] = known
        return known[1:]

    def keep(self, path: str, stamp: list[int], *values: Any) -> None:
        """Remember what a file says that was read; `stamp` is of the very file."""
        self.read += 1
        self._kept[path] = [stamp, *values]

    def write(self) -> None:
        """Store what this call has met; files that are gone are forgotten."""
        if self._path is None or (not self.read and len(self._kept) == len(self._old)):
            return
        make_private_folder(self._path.parent)
        write_atomic(self._path, json.dumps({"schema": CACHE_SCHEMA, "records": self._kept}, separators=(",", ":")).encode())


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Records by the hundred thousand hold no cycles; looking for some among them doubles the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def scan(folders: Sequence[Path], known: KnownRecords) -> list[Run]:
    """Every few-shot run below folders, by path; each once, also where folders lie in each other.

    Raises:
        ValueError: There is no such folder.
        OSError: A folder cannot be listed.
    """
    runs: dict[str, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        runs.update((run.path, run) for run in _runs_below(str(folder), known))
    return [runs[path] for path in sorted(runs)]


def _runs_below(folder: str, known: KnownRecords) -> Iterator[Run]:
    stored = known.lookup(f"{folder}/{RESULT}")
    if stored is not None:  # most runs, on a second call: one look at one file
        yield Run(folder, "found", *_restore(*stored))
        return
    with os.scandir(folder) as entries:
        files = {entry.name: entry for entry in entries if not entry.name.startswith(".")}
    if RUN in files or RESULT in files:
        run = _read_run(folder, set(files), known)
        if run:
            yield run
        return
    for entry in files.values() if ARRAY not in files else ():
        if entry.is_dir(follow_symlinks=False):
            yield from _runs_below(entry.path, known)


def _read_run(path: str, files: set[str], known: KnownRecords) -> Run | None:
    """What became of a run; None where it is one of another kind."""
    said = ""
    if RESULT in files:
        try:
            content, stamp = _content(f"{path}/{RESULT}")
            cell, result = read_result(content)
            known.keep(f"{path}/{RESULT}", stamp, _cell_values(cell), _result_values(result))
            return Run(path, "found", cell, result)
        except (ResultError, OSError) as error:
            said = str(error)
        except OtherKindError as error:
            said = f"result.json is of kind {error}"
            if RUN not in files:
                return None
    if RUN not in files:
        return Run(path, "failed", None, None, said)
    try:
        cell, progress = _announced(path, known)
    except OtherKindError:
        return None
    except (ResultError, OSError) as error:
        return Run(path, "failed", None, None, "; ".join(filter(None, (said, str(error)))))
    return _without_result(path, cell, files, said, progress)


def _without_result(path: str, cell: Cell, files: set[str], damage: str, progress: str) -> Run:
    if damage:
        return Run(path, "failed", cell, None, damage)
    if FAILURE not in files:
        return Run(path, "missing", cell, None, progress)
    try:
        failure = parse_object(_content(f"{path}/{FAILURE}")[0], FAILURE)
    except (ResultError, OSError) as error:
        return Run(path, "failed", cell, None, str(error))
    kind, why = failure.get("kind"), f"{failure.get('error')}: {failure.get('message')}"
    return Run(path, "failed", cell, None, why) if kind == ERROR else Run(path, "missing", cell, None, f"{kind}: {why}")


def _announced(path: str, known: KnownRecords) -> tuple[Cell, str]:
    stored = known.lookup(f"{path}/{RUN}")
    if stored is not None:
        return _restore(stored[0])[0], stored[1]
    content, stamp = _content(f"{path}/{RUN}")
    cell, said = read_announced(content, Path(path, CONFIG))
    known.keep(f"{path}/{RUN}", stamp, _cell_values(cell), said)
    return cell, said


def _restore(cell: list[Any], result: Sequence[Any] = ()) -> tuple[Cell, Result | None]:
    """JSON has lists where there were tuples: a cell's overrides, a result's intervals."""
    of_cell: list[Any] = [tuple(map(tuple, value)) if isinstance(value, list) else value for value in cell]
    of_result: list[Any] = [tuple(value) if isinstance(value, list) else value for value in result]
    return Cell(*of_cell), Result(*of_result) if of_result else None


def _content(path: str) -> tuple[bytes, list[int]]:
    with open(path, "rb") as content:  # noqa: PTH123 - a Path for each of 100,000 files takes a second
        return content.read(), _stamp_of(os.fstat(content.fileno()))


def _stamp(path: str) -> list[int] | None:
    try:
        return _stamp_of(os.stat(path))  # noqa: PTH116 - as above
    except OSError:
        return None


def _stamp_of(status: os.stat_result) -> list[int]:
    return [status.st_mtime_ns, status.st_size, status.st_ino]
