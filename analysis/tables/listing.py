"""What the numbers of a table are made of, one by one: every log and every run, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analysis.results.cell_record import Interval
from analysis.results.mae_st_logs import LogResult
from analysis.results.scan import Run
from analysis.tables.log_rows import Gathered
from analysis.tables.run_rows import Grouped, task_of

LOG_COLUMNS = ("log", "status", "row", "model", "task", "shots", "lines", "first_epoch", "last_epoch", "resets", "top1_pct",
               "top1_epoch", "top5_pct", "top5_epoch", "said")
RUN_COLUMNS = ("run", "status", "row", "checkpoint", "checkpoint_content", "task", "shots", "seed", "method", "overrides",
               "select", "selected_step", "views", "top1_pct", "top1_clips_lower_pct", "top1_clips_upper_pct", "top5_pct",
               "top5_clips_lower_pct", "top5_clips_upper_pct", "clips", "classes", "train_clips", "commit", "dirty", "said")

Record = dict[str, Any]


def list_logs(gathered: Gathered) -> list[Record]:
    """Every log and what became of it, with the keys `LOG_COLUMNS`."""
    records = [log_record(row, log) for row, log in gathered.logs]
    for status, paths in (("failed", gathered.failed), ("skipped", gathered.skipped)):
        records += [dict.fromkeys(LOG_COLUMNS) | {"log": str(path), "status": status, "said": why}
                    for path, why in paths.items()]
    return records


def list_runs(grouped: Grouped) -> list[Record]:
    """Every run and what became of it, with the keys `RUN_COLUMNS`."""
    return [run_record(row, run) for row, run in [*grouped.runs, *((None, run) for run in grouped.superseded),
                                                  *((None, run) for run in grouped.failed)]]


def log_record(row: str, log: LogResult) -> Record:
    """A log with the keys `LOG_COLUMNS`; None where it does not say."""
    best = [(best.pct, best.epoch) if best else (None, None) for best in (log.top1, log.top5)]
    status = "failed" if log.failed else "damaged" if log.problems else "found"
    values = (str(log.path), status, row, log.model, log.task.name, log.task.shots, log.lines, log.first_epoch,
              log.last_epoch, log.resets, *best[0], *best[1], "; ".join((*log.notes, *log.problems)) or None)
    return dict(zip(LOG_COLUMNS, values, strict=True))


def run_record(row: str | None, run: Run) -> Record:
    """A run with the keys `RUN_COLUMNS`; None where it does not say. Its intervals are over clips, not over seeds."""
    record: Record = dict.fromkeys(RUN_COLUMNS)
    record |= {"run": run.path, "status": run.status, "row": row, "said": run.said or None}
    if cell := run.cell:
        record |= {"checkpoint": cell.checkpoint, "checkpoint_content": cell.content or None, "task": task_of(cell).name,
                   "shots": cell.shots, "seed": cell.seed, "method": cell.method, "select": cell.select or None,
                   "views": cell.views or None, "overrides": " ".join(f"{k}={v}" for k, v in cell.overrides) or None}
    if result := run.result:
        for metric, interval in (("top1", result.top1_ci_pct), ("top5", result.top5_ci_pct)):
            if interval:
                record |= {f"{metric}_clips_lower_pct": interval[0], f"{metric}_clips_upper_pct": interval[1]}
        record |= {name: getattr(result, name) for name in ("selected_step", "top1_pct", "top5_pct", "clips", "classes",
                                                            "train_clips", "dirty")}
        record["commit"] = result.commit or None
    return record


def behind_logs(gathered: Gathered, wanted: str) -> list[tuple[str, LogResult]]:
    """The logs of a row, or of all rows of a model."""
    rows = [wanted] if wanted in gathered.rows else [
        row for row, cells in gathered.rows.items() if any(log.model == wanted for log in cells.values())]
    return [(row, log) for row in rows for log in gathered.rows[row].values()]


def behind_runs(grouped: Grouped, wanted: str) -> list[tuple[str, Run]]:
    """The runs of a row, or of all rows of a checkpoint."""
    groups = [group for group in grouped.groups if group.name == wanted] or [
        group for group in grouped.groups if group.checkpoint == wanted]
    return [(group.name, run) for group in groups for runs in group.cells.values() for run in runs]


def describe_log(row: str, log: LogResult) -> str:
    """A log on one line."""
    best = [f"{name} {best.pct:.3f} at epoch {best.epoch}" if best else f"{name} --"
            for name, best in (("top-1", log.top1), ("top-5", log.top5))]
    epochs = "no epochs" if log.first_epoch is None else f"epochs {log.first_epoch} to {log.last_epoch}"
    return "; ".join((f"{row} {log.task.name}: {', '.join(best)}", f"{log.lines} lines, {epochs}", *log.notes, *log.problems,
                      str(log.path)))


def describe_run(row: str, run: Run) -> str:
    """A run on one line; intervals are over clips."""
    assert run.cell is not None, "a run of a row says which cell it is"
    name = f"{row} {task_of(run.cell).name} seed {run.cell.seed}"
    if not run.result:
        return f"{name}: {run.status}: {run.said}; {run.path}"
    result = run.result
    step = "no steps" if result.selected_step is None else f"step {result.selected_step}"
    dirty = " with uncommitted changes" if result.dirty else ""
    top1, top5 = _with_interval(result.top1_pct, result.top1_ci_pct), _with_interval(result.top5_pct, result.top5_ci_pct)
    return "; ".join((f"{name}: top-1 {top1}, top-5 {top5} on {result.clips} clips",
                      f"{step}, commit {result.commit[:7] or 'unknown'}{dirty}", run.path))


def _with_interval(pct: float, interval: Interval | None) -> str:
    return f"{pct:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else f"{pct:.3f}"


def report_logs(gathered: Gathered) -> list[str]:
    """What did not become a number, and why, for people."""
    lines = [f"{'failed' if log.failed else 'damaged'}: {log.path}: {'; '.join(log.problems)}" for _, log in gathered.logs
             if log.problems]
    lines += [f"failed: {path}: {why}" for path, why in gathered.failed.items()]
    lines += [f"skipped: {path}: {why}" for path, why in gathered.skipped.items()]
    if gathered.others:
        kinds = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in sorted(gathered.others.items()))
        lines.append(f"skipped: files of other kinds: {kinds}")
    return lines


def report_runs(grouped: Grouped) -> list[str]:
    """What did not become a number, and why, for people."""
    runs: Sequence[Run] = [*(run for _, run in grouped.runs if not run.result), *grouped.failed, *grouped.superseded]
    return [f"{run.status}: {Path(run.path)}: {run.said}" for run in runs]
