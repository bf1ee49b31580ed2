"""Results as pandas frames: a row per run or log, and a tidy one with a row per result, seed and metric for your own work.

Columns of `of_runs`, one row per few-shot run; results.csv has those of RUN_COLUMNS:

    run, status, said            its folder; found, missing, failed or superseded; why there is no result
    checkpoint, checkpoint_content   name of the weights it starts from, and what they are
    pair                         of an image model that is matched to a video model: by what, and the run of that; the
                                 column is left out where no run has it
    grid, grid_settings, repeat  of a checkpoint of a pretraining grid: the grid's name, the settings that vary over it, and
                                 which repeat it is; left out where no run has them
    data, task, shots, seed      data set; the column of the tables; labelled clips per class (0: all, or a share); seed
    method, overrides, select, views   how it learned and was tested; settings that differ from the recipe
    nmi_pct, purity_pct, ari_pct, ..._chance_pct   of method cluster: how well clusters agree with classes, and what chance
                                 gives; these columns are left out where no run has them
    top1_pct, top5_pct           accuracies in %, with the 95 % bootstrap interval over clips: top1_clips_lower_pct ...
    clips, classes, train_clips, selected_step   validation clips, classes, training clips, the step that was tested
    commit, dirty, finished      the code, whether it was changed since, seconds since 1970

Columns of `tidy`, tidy.csv, one row per result and metric; R: read.csv("tidy.csv", na.strings = "--"):

    source, row                  runs, logs or `published v3`; the row of the tables
    model, task, data, shots, seed, method, overrides, select, views, commit   as above; empty where a log does not say
    metric, pct                  top1 or top5, the accuracy in %; of method cluster also nmi, purity and ari
    clips_lower_pct, clips_upper_pct   95 % bootstrap interval over clips
    path                         the run's folder or the log
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from analysis.results.mae_st_logs import LogResult, Task
from analysis.results.published import Version
from analysis.results.scan import Run
from vidmae.runs.cell_record import CLUSTERING, Cell

METRICS = ("top1", "top5")
OF_CLUSTERS = ("nmi", "purity", "ari")
UNLABELLED = "-unlabelled"  # end of a task's name: nothing was learned from labels
IF_ANY = ("pair", "grid", "grid_settings", "repeat", *CLUSTERING)
"""Columns that are left out where no run has them."""
RUN_COLUMNS = ("run", "status", "row", "checkpoint", "checkpoint_content", "pair", "grid", "grid_settings", "repeat", "task",
               "shots", "seed", "method", "overrides", "select", "selected_step", "views", "top1_pct",
               "top1_clips_lower_pct", "top1_clips_upper_pct", "top5_pct", "top5_clips_lower_pct", "top5_clips_upper_pct",
               *CLUSTERING, "clips", "classes", "train_clips", "commit", "dirty", "said")
LOG_COLUMNS = ("log", "status", "row", "model", "task", "shots", "lines", "first_epoch", "last_epoch", "resets", "top1_pct",
               "top1_epoch", "top5_pct", "top5_epoch", "said")
TIDY_COLUMNS = ("source", "row", "model", "task", "data", "shots", "seed", "method", "overrides", "select", "views",
                "metric", "pct", "clips_lower_pct", "clips_upper_pct", "commit", "path")
_WHOLE = {"shots", "seed", "repeat", "selected_step", "clips", "classes", "train_clips", "lines", "first_epoch",
          "last_epoch", "resets", "top1_epoch", "top5_epoch"}  # whole numbers, also where some are missing


def task_of(cell: Cell) -> Task:
    """The column of a cell; a share of the labels is called as in logs of mae_st, `imagenet_0.02`, and what learned from no
    label `ssv2-unlabelled`."""
    if cell.method == "cluster":
        return Task(cell.data, UNLABELLED, None)
    if cell.fraction:
        return Task(cell.data, f"_{cell.fraction:g}", None)
    return Task(cell.data, f"-{cell.shots}shot", cell.shots) if cell.shots else Task(cell.data, "-all", None)


def of_runs(runs: Iterable[Run]) -> pd.DataFrame:
    """One row per run, see above; `settings` holds the overrides as pairs, `which` the end of the task's name, and
    `pictures` whether the data set has pictures and no videos."""
    return _typed([_run_record(run) for run in runs],
                  (*RUN_COLUMNS, "data", "which", "pictures", "settings", "finished", "grid_of"))


def of_logs(logs: Iterable[LogResult]) -> pd.DataFrame:
    """One row per log, with LOG_COLUMNS and data, which, pictures, notes and problems."""
    return _typed([_log_record(log) for log in logs], (*LOG_COLUMNS, "data", "which", "pictures", "notes", "problems"))


def tidy(runs: pd.DataFrame | None, logs: pd.DataFrame | None, versions: Sequence[Version]) -> pd.DataFrame:
    """One row per result and metric, of runs, logs and what was published; see above."""
    parts = []
    for source, frame, path in (("runs", runs, "run"), ("logs", logs, "log")):
        if frame is not None:
            named = frame.rename(columns={path: "path"}).assign(source=source)
            parts += [named.rename(columns={f"{metric}_pct": "pct", f"{metric}_clips_lower_pct": "clips_lower_pct",
                                            f"{metric}_clips_upper_pct": "clips_upper_pct"}).assign(metric=metric)
                      .reindex(columns=TIDY_COLUMNS) for metric in (*METRICS, *OF_CLUSTERS)]
    parts.append(pd.DataFrame(
        [{"source": f"published {version.name}", "row": model, "model": model, "task": task, "metric": metric, "pct": value,
          "path": source} for version in versions for model, tasks in version.models.items()
         for task, (*values, source) in tasks.items() for metric, value in zip(METRICS, values, strict=True)],
        columns=TIDY_COLUMNS))
    whole = pd.concat([part.astype(object) for part in parts], ignore_index=True)
    return whole[whole["pct"].notna()]


def records_of(frame: pd.DataFrame, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows as dictionaries for JSON: None where nothing is said."""
    chosen = frame.reindex(columns=columns).astype(object)
    records: list[dict[str, Any]] = chosen.where(chosen.notna(), None).to_dict("records")
    return records


def _run_record(run: Run) -> dict[str, Any]:
    record: dict[str, Any] = {"run": run.path, "status": run.status, "said": run.said or None}
    if cell := run.cell:
        task = task_of(cell)
        record |= {"checkpoint": cell.checkpoint, "checkpoint_content": cell.content or None, "pair": cell.pair or None,
                   "task": task.name, "data": cell.data, "which": task.which, "pictures": cell.pictures, "shots": cell.shots,
                   "seed": cell.seed,
                   "method": cell.method,
                   "grid": cell.grid or None, "grid_of": cell.grid_of or None, "repeat": cell.repeat,
                   "grid_settings": " ".join(f"{k}={v}" for k, v in cell.grid_settings) or None,
                   "settings": cell.overrides, "overrides": " ".join(f"{k}={v}" for k, v in cell.overrides) or None,
                   "select": cell.select or None, "views": cell.views or None}
    if result := run.result:
        for metric, interval in (("top1", result.top1_ci_pct), ("top5", result.top5_ci_pct)):
            if interval:
                record |= {f"{metric}_clips_lower_pct": interval[0], f"{metric}_clips_upper_pct": interval[1]}
        record |= {"top1_pct": result.top1_pct, "top5_pct": result.top5_pct, "clips": result.clips,
                   **{name: getattr(result, name) for name in CLUSTERING},
                   "classes": result.classes, "train_clips": result.train_clips, "selected_step": result.selected_step,
                   "commit": result.commit or None, "dirty": result.dirty, "finished": result.finished}
    return record


def _log_record(log: LogResult) -> dict[str, Any]:
    best = {f"{metric}_{name}": value for metric, found in (("top1", log.top1), ("top5", log.top5)) if found
            for name, value in (("pct", found.pct), ("epoch", found.epoch))}
    status = "failed" if log.failed else "damaged" if log.problems else "found"
    return {"log": str(log.path), "status": status, "model": log.model, "task": log.task.name, "data": log.task.data,
            "which": log.task.which, "pictures": log.task.data == "imagenet", "shots": log.task.shots, "lines": log.lines,
            "first_epoch": log.first_epoch,
            "last_epoch": log.last_epoch, "resets": log.resets, **best, "notes": log.notes, "problems": log.problems,
            "said": "; ".join((*log.notes, *log.problems)) or None}


def _typed(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(records, columns=list(columns))
    return frame.astype({name: "Int64" if name in _WHOLE else "boolean" if name in ("dirty", "pictures") else
                         "Float64" if name.endswith("_pct") or name == "finished" else "object" for name in frame})
