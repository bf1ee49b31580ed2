"""How far the cells of a sweep are, and which of them a call submits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from jobs.standing.runs import NOT_STARTED, State, states, submissions, why
from sweeps.grid.any_cell import AnyCell
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs.record import RunFolder, read_json, write_json

RETRY = ("failed", "timeout", "oom", "missing", "all")
NEEDED = ("state", "cluster", "job_id", "job_name", "array", "task", "host", "submitted_at_s", "process_birth")
TIMEOUTS = ("TIMEOUT", "DEADLINE", "PREEMPTED")


@dataclass(frozen=True)
class Standing:
    """A cell and how far it is.

    Attributes:
        cell: The cell.
        run: Its run folder, which may not exist.
        kind: new (never submitted), active, done, unknown (nobody answers), or how it ended without a result: failed (an
            error), timeout (its time or its requeues were over), oom, missing (cancelled, node lost, nobody knows).
        state: Of its newest job; None where it never had one.
    """

    cell: AnyCell
    run: RunFolder
    kind: str
    state: State | None = None

    @property
    def reason(self) -> str:
        """Why it has no result, in one line."""
        return why(self.state) if self.state else self.kind


def look(cells: Sequence[AnyCell], runs_dir: Path, *, write: bool = True) -> tuple[list[Standing], list[str]]:
    """How far each cell is, and what could not be asked. Slurm is asked once for all of them.

    Args:
        cells: All cells of the grid.
        runs_dir: Folder of the runs.
        write: Note the ids of arrays that an earlier call submitted and did not live to note; False in a dry run.
    """
    folders = find_folders(cells, runs_dir)
    names = {path.name for path in runs_dir.iterdir()} if runs_dir.is_dir() else set()
    newest = {run: _newest(run) for run in folders if run.path.name in names and run.record.exists()}
    if write:
        _adopt(newest)
    found, problems = states(list(newest), newest=newest)
    known = {state.run.path: state for state in found}
    return [Standing(cell, run, kind_of(known.get(run.path)), known.get(run.path))
            for cell, run in zip(cells, folders, strict=True)], problems


def look_again(standings: Sequence[Standing]) -> list[Standing]:
    """How far cells are now; those that were done stay so, and are not asked for.

    Nothing changes in the folder of a cell before it starts, so those that waited in the queue and still wait there are not
    looked into: of a hundred thousand, a thousand run.
    """
    open_cells = [s for s in standings if s.kind != "done"]
    arrays = {slurm.base_id(s.state.job_id) for s in open_cells if s.state and s.state.cluster == "slurm" and s.state.job_id}
    queued: dict[str, slurm.Job] = {}
    with suppress(slurm.SlurmError):  # what can be known without it, `states` finds
        queued = {job.id: job for job in slurm.queued(arrays)}
    rest = [s.run for s in open_cells if not _still_waits(s, queued)]
    newest = {run: _newest(run) for run in rest}
    known = queued and all(slurm.base_id(str(one.get("job_id"))) in arrays for one in newest.values())
    found = {state.run.path: state for state in states(rest, newest=newest, queued=queued if known else None)[0]}
    return [Standing(s.cell, s.run, kind_of(state), state) if (state := found.get(s.run.path)) else s for s in standings]


def _newest(run: RunFolder) -> dict[str, Any]:
    """What a state follows from; of a hundred thousand cells the rest, such as the command, would take half a gigabyte."""
    last = (submissions(run) or [{}])[-1]
    return {key: last[key] for key in NEEDED if key in last}


def _still_waits(s: Standing, queued: Mapping[str, slurm.Job]) -> bool:
    return s.state is not None and s.state.state == "PENDING" and s.state.source == "squeue" and (
        (job := queued.get(s.state.job_id)) is not None and job.state == "PENDING")


def find_folders(cells: Sequence[AnyCell], runs_dir: Path) -> list[RunFolder]:
    """The run folder of each cell: one of its signature that exists, also where its checkpoint was called otherwise."""
    by_signature = defaultdict[str, list[str]](list)
    for path in runs_dir.iterdir() if runs_dir.is_dir() else []:
        by_signature[path.name[-8:]].append(path.name)
    found = []
    for cell in cells:
        names = sorted(name for name in by_signature.get(cell.signature, ()) if name.endswith(cell.tail))
        found.append(RunFolder(runs_dir / (cell.run_id if cell.run_id in names or not names else names[0])))
    return found


def kind_of(state: State | None) -> str:
    """The kind of a standing; see `Standing`."""
    if state is None or state.state in NOT_STARTED:
        return "new"
    if state.active is None:
        return "unknown"
    if state.active:
        return "active"
    if state.source == "result.json":
        return "done"
    failure = read_json(state.run.failure) or {}
    error = failure.get("error", "") if str(failure.get("job_id")) == state.job_id else ""
    if state.state == "OUT_OF_MEMORY" or error in ("OutOfMemoryError", "FullMemoryError", "MemoryError"):
        return "oom"
    if state.state in TIMEOUTS or (state.state == "FAILED" and state.exit_code == EXIT_PREEMPTED):
        return "timeout"
    return "failed" if state.state == "FAILED" else "missing"


def chosen(standings: Iterable[Standing], retry: str | None) -> list[Standing]:
    """The cells that this call submits: new ones, and of those that ended without a result the kind that is asked for."""
    again = set(RETRY) - {"all"} if retry == "all" else {retry}
    return [s for s in standings if s.kind == "new" or s.kind in again]


def _adopt(newest: dict[RunFolder, dict[str, Any]]) -> None:
    """Note the ids of arrays whose submission was not noted to its end, in `newest`, too."""
    arrays = defaultdict[tuple[str, str], list[RunFolder]](list)
    for run, last in newest.items():
        if last.get("state") == "submitting" and last.get("cluster") == "slurm":
            arrays[last["job_name"], last["array"]].append(run)
    for (name, array), members in arrays.items():
        ids = {slurm.base_id(job.id) for job in slurm.queued(name=name) if job.comment in ("", array)}
        for run in members if ids else []:
            record: dict[str, Any] = read_json(run.record) or {}
            last = record["submissions"][-1]
            last.update(state="submitted", job_id=f"{max(ids, key=int)}_{last['task']}")
            write_json(run.record, record)
            newest[run] = last
