"""Logs in a folder -> rows. A log is never dropped: it is a cell, or it has failed, or is no result.

A row is a model. Where a folder says of which generation (`old`, `new`), that is part of the row's name; where two logs
would still meet in one cell, their folders are, and at last the files.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis.results.mae_st_logs import ENDING, SELECTION, LogResult, NoAccuracyError, Task, read_log
from analysis.results.published import Version, generation, versions_of
from analysis.tables.lines import Line, Published
from analysis.tables.result_table import Accuracies
from analysis.tables.stats import Estimate

TEXT = {".txt", ".json", ".jsonl", ".log"}  # worth a name where they are no logs; of other files only the number is said

Rows = dict[str, dict[Task, LogResult]]  # name of a row -> its cells


@dataclass(frozen=True)
class Gathered:
    """Everything below a folder.

    Attributes:
        rows: The logs that say what they are the result of, also those without a usable value.
        failed: Logs that do not say it, and why.
        skipped: Files that hold no result, and why.
        others: Suffix -> number of files of another kind.
    """

    rows: Rows
    failed: dict[Path, str]
    skipped: dict[Path, str]
    others: Counter[str]

    @property
    def logs(self) -> list[tuple[str, LogResult]]:
        """Name of its row, and log."""
        return [(row, log) for row, cells in self.rows.items() for log in cells.values()]


def gather(folder: Path, versions: list[Version]) -> Gathered:
    """Read every log below a folder; hidden files and folders are left alone, links to folders are not followed.

    Raises:
        ValueError: There is no such folder, or no log in it.
        OSError: A folder cannot be listed.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder (--logs)")
    logs, failed, skipped, others = [], {}, {}, Counter[str]()
    for path in _files(folder):
        if not path.name.lower().endswith(ENDING):
            if path.suffix.lower() in TEXT:
                skipped[path] = f"not named *{ENDING}"
            else:
                others[path.suffix] += 1
            continue
        try:
            logs.append(read_log(path))
        except NoAccuracyError as error:
            skipped[path] = str(error)
        except ValueError as error:
            failed[path] = str(error)
    if not logs and not failed and not skipped:
        raise ValueError(f"no logs below {folder}, expected files named *{ENDING} (--logs)")
    rows = name_rows(logs, folder, versions)
    return Gathered({name: rows[name] for name in sorted(rows, key=lambda name: _rank(name, rows[name], versions))},
                    failed, skipped, others)


def name_rows(logs: Iterable[LogResult], folder: Path, versions: list[Version]) -> Rows:
    """Give every log a row, by the shortest name under which no two logs have the same cell."""

    def by_generation(log: LogResult) -> str:
        version = generation(log.path, versions)
        return f"{version.folder}/{log.model}" if version else log.model

    def by_folder(log: LogResult) -> str:
        parts = log.path.relative_to(folder).parent.parts
        return "/".join([*(part for part in parts if part not in (log.task.name, log.model)), log.model])

    def by_file(log: LogResult) -> str:
        return log.path.relative_to(folder).as_posix()

    rows: Rows = {}
    unnamed = list(logs)
    namings: tuple[Callable[[LogResult], str], ...] = (by_generation, by_folder, by_file)
    for naming in namings:
        groups = defaultdict(list)
        for log in unnamed:
            groups[naming(log)].append(log)
        unnamed = []
        for name, members in groups.items():
            cells = {log.task: log for log in members}
            if len(cells) == len(members) and name not in rows:
                rows[name] = cells
            else:
                unnamed += members
    assert not unnamed, "a path is the name of one file"
    return rows


def lines_of(rows: Rows, versions: list[Version]) -> list[Line]:
    """The rows for the tables, each beside the published numbers of its name."""
    lines = []
    for name, cells in rows.items():
        log = next(iter(cells.values()))
        known = versions_of(log.model, generation(log.path, versions), versions)
        lines.append(Line(name, log.model, "logs", SELECTION, {task: _accuracies(log) for task, log in cells.items()},
                          [Published(name, version, log.model) for version in known],
                          {task: (*log.notes, *log.problems) for task, log in cells.items()}))
    return lines


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error


def _accuracies(log: LogResult) -> Accuracies:
    return Estimate(log.top1.pct) if log.top1 else None, Estimate(log.top5.pct) if log.top5 else None


def _rank(name: str, cells: dict[Task, LogResult], versions: list[Version]) -> tuple[int, int, str]:
    """The order of the published models, generation by generation; models of one's own come after."""
    log = next(iter(cells.values()))
    version = generation(log.path, versions)
    known = next((list(found.models).index(log.model) for found in versions_of(log.model, version, versions)), 10**6)
    return versions.index(version) if version else len(versions), known, name
