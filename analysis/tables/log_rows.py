"""Logs in a folder -> rows. A log is never dropped: it is a cell, or it has failed, or is no result.

A row is a model. Where a folder says of which generation (`old`, `new`), that is part of the row's name; where two logs
would still meet in one cell, their folders are, and at last the files.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.results.frames import LOG_COLUMNS, METRICS, of_logs
from analysis.results.mae_st_logs import ENDING, SELECTION, NoAccuracyError, read_log
from analysis.results.published import Version, generation, versions_of
from analysis.tables.result_table import CELL, LINE

TEXT = {".txt", ".json", ".jsonl", ".log"}  # worth a name where they are no logs; of other files only the number is said


@dataclass(frozen=True)
class Gathered:
    """Everything below a folder.

    Attributes:
        logs: The logs that say what they are the result of, in rows: `frames.of_logs` with `row` and `version`.
        left_out: `log`, `status` and `said` of the logs that do not say it (failed) and of files without a result (skipped).
        others: Suffix -> number of files of another kind.
    """

    logs: pd.DataFrame
    left_out: pd.DataFrame
    others: Counter[str]


def gather(folder: Path, versions: Sequence[Version]) -> Gathered:
    """Read every log below a folder; hidden files and folders are left alone, links to folders are not followed.

    Raises:
        ValueError: There is no such folder, or no log in it.
        OSError: A folder cannot be listed.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder (--logs)")
    logs, failed, skipped, others = [], [], [], Counter[str]()
    for path in _files(folder):
        if not path.name.lower().endswith(ENDING):
            if path.suffix.lower() in TEXT:
                skipped.append((str(path), "skipped", f"not named *{ENDING}"))
            else:
                others[path.suffix] += 1
            continue
        try:
            logs.append(read_log(path))
        except NoAccuracyError as error:
            skipped.append((str(path), "skipped", str(error)))
        except ValueError as error:
            failed.append((str(path), "failed", str(error)))
    if not logs and not failed and not skipped:
        raise ValueError(f"no logs below {folder}, expected files named *{ENDING} (--logs)")
    left_out = pd.DataFrame([*failed, *skipped], columns=["log", "status", "said"])
    return Gathered(in_rows(of_logs(logs), folder, versions), left_out, others)


def in_rows(logs: pd.DataFrame, folder: Path, versions: Sequence[Version]) -> pd.DataFrame:
    """Give every log a row, by the shortest name under which no two logs have the same cell; in the order of the rows."""
    paths = [Path(path).relative_to(folder) for path in logs["log"]]
    known = [generation(folder / path, versions) for path in paths]
    namings = (
        [f"{version.folder}/{model}" if version else model for version, model in zip(known, logs["model"], strict=True)],
        ["/".join([*(part for part in path.parent.parts if part not in (task, model)), model])
         for path, task, model in zip(paths, logs["task"], logs["model"], strict=True)],
        [path.as_posix() for path in paths],
    )
    row = pd.Series(None, logs.index, dtype=object)
    for naming in namings:
        names = pd.Series(naming, logs.index, dtype=object)[row.isna()]
        twice = names[pd.DataFrame({"row": names, "task": logs["task"][names.index]}).duplicated(keep=False)]
        row.update(names[~names.isin([*twice, *row.dropna()])])
    assert row.notna().all(), "a path is the name of one file"
    logs = logs.assign(row=row, version=pd.Series(known, logs.index, dtype=object))
    first = logs.drop_duplicates("row")
    ranked = sorted((*_rank(model, version, versions), row)
                    for row, model, version in first[["row", "model", "version"]].itertuples(index=False))
    place = {row: number for number, (*_, row) in enumerate(ranked)}
    return logs.sort_values("row", key=lambda rows: rows.map(place), kind="stable")


def cells_of(logs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the tables: best accuracies, nobody counted seeds."""
    logs = logs.assign(source="logs", selection=SELECTION, lower_pct=None, upper_pct=None, n=None)
    return pd.concat([logs[[*LINE, *CELL, "lower_pct", "upper_pct", "n"]].assign(metric=metric, pct=logs[f"{metric}_pct"])
                      for metric in METRICS])


def published_of(logs: pd.DataFrame, versions: Sequence[Version]) -> pd.DataFrame:
    """The published models that each row stands beside: those of its name."""
    first = logs.drop_duplicates("row")
    return pd.DataFrame([("logs", row, row, version.name, model)
                         for row, model, known in first[["row", "model", "version"]].itertuples(index=False)
                         for version in versions_of(model, known, versions)],
                        columns=["source", "row", "label", "version", "model"])


def notes_of(logs: pd.DataFrame) -> pd.DataFrame:
    """What a reader of a log's number should know."""
    said = logs.assign(source="logs", said=logs["notes"] + logs["problems"])
    return said[["source", "row", "task", "said"]].explode("said").dropna(subset="said")


def listed(gathered: Gathered) -> pd.DataFrame:
    """Every log and file and what became of it, with LOG_COLUMNS."""
    return pd.concat([part.reindex(columns=LOG_COLUMNS).astype(object) for part in (gathered.logs, gathered.left_out)])


def report(gathered: Gathered) -> list[str]:
    """What did not become a number, and why, for people."""
    logs = gathered.logs[gathered.logs["problems"].map(len) > 0]
    lines = [f"{status}: {path}: {'; '.join(problems)}"
             for status, path, problems in logs[["status", "log", "problems"]].itertuples(index=False)]
    lines += [f"{status}: {path}: {why}"
              for status, path, why in gathered.left_out[["status", "log", "said"]].itertuples(index=False)]
    if gathered.others:
        kinds = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in sorted(gathered.others.items()))
        lines.append(f"skipped: files of other kinds: {kinds}")
    return lines


def described(logs: pd.DataFrame) -> list[str]:
    """A line for each log: what `--explain` prints."""
    lines = []
    for log in logs.itertuples():
        best = [f"{name} --" if pd.isna(pct) else f"{name} {pct:.3f} at epoch {epoch}"
                for name, pct, epoch in (("top-1", log.top1_pct, log.top1_epoch), ("top-5", log.top5_pct, log.top5_epoch))]
        epochs = "no epochs" if pd.isna(log.first_epoch) else f"epochs {log.first_epoch} to {log.last_epoch}"
        lines.append("; ".join((f"{log.row} {log.task}: {', '.join(best)}", f"{log.lines} lines, {epochs}", *log.notes,
                                *log.problems, log.log)))
    return lines


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _refuse(error: OSError) -> None:
    raise error


def _rank(model: str, version: Version | None, versions: Sequence[Version]) -> tuple[int, int]:
    """The order of the published models, generation by generation; models of one's own come after."""
    known = next((list(found.models).index(model) for found in versions_of(model, version, versions)), 10**6)
    return list(versions).index(version) if version else len(versions), known
