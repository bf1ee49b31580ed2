"""Submit the cells of a sweep as arrays. run.json of each cell notes `submitting` before sbatch and the job's id after it.

The files of a cell that a second call would write alike go to the disk without a flush each: a thousand of them would
take longer than everything else.
"""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jobs.place.notify_ways import resolve
from jobs.place.profiles import ClusterProfile
from jobs.place.resources import Resources
from jobs.place.scheduler import slurm
from jobs.place.snapshot import CodeState, code_state, environment, share_snapshot, take_snapshot
from jobs.standing.arrays import array_path, link_task, make_array
from jobs.standing.runs import process_birth
from jobs.submit import launch, local_array, notice
from sweeps.grid.any_cell import AnyCell
from sweeps.grid.batches import Batch
from sweeps.grid.states import Standing
from vidmae.runs.record import SCHEMA, RunFolder, make_private_folder, read_json, write_atomic
from vidmae.settings.texts_of_cells import Texts, joined

NO_LIMIT = 10**9
COLLECT = Resources("", 1, 0, 1, 1, 2048, 30)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sweep:
    """What all arrays of a call have in common.

    Attributes:
        name: First part of the arrays' names.
        cluster: slurm or local.
        profile: Profile and flags.
        runs_dir: Folder of the runs.
        command: What the user typed.
        max_parallel: Cells of an array at a time; 0 is no limit.
        first: Slurm job that must have ended before any cell starts, or empty.
        planned_gpu_h: Estimate of every cell by its signature; none on CPUs.
    """

    name: str
    cluster: str
    profile: ClusterProfile
    runs_dir: Path
    command: tuple[str, ...]
    max_parallel: int
    first: str = ""
    planned_gpu_h: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Submitted:
    """An array that was submitted: its id, its folder, its cells."""

    job_id: str
    array: RunFolder
    cells: tuple[Standing, ...]


def task_ids(arrays: Sequence[Submitted]) -> dict[str, str]:
    """Signature of every cell that was submitted to its job."""
    return {s.cell.signature: f"{array.job_id}_{task}" for array in arrays for task, s in enumerate(array.cells)}


def make_request(sweep: Sweep, batch: Batch, array: Path, waits_for: Sequence[str]) -> launch.Request:
    """The array of a batch.

    Args:
        sweep: What all arrays have in common.
        batch: Its cells.
        array: Its folder.
        waits_for: Ids of the arrays that must have ended before.
    """
    p, config = sweep.profile, batch.cells[0].cell.config
    awaited = [*([sweep.first] if sweep.first else []), *waits_for]
    options = {name: getattr(p, name) for name in ("account", "qos", "constraint", "exclude", "nodelist")}
    waits = [p.dependency, f"afterok:{batch.after}" if batch.after else "",
             ":".join(["afterany", *awaited]) if awaited else ""]
    options["dependency"] = ",".join(filter(None, waits))
    return launch.Request(
        run=RunFolder(array), job_name=p.job_name or array.name, resources=batch.resources,
        on_cpu=config.train.device == "cpu" or batch.resources.gpus_per_node == 0, workers=config.data.workers,
        options={k: v for k, v in options.items() if v}, more_options=dict(p.sbatch), signal=config.recovery.signals[0],
        signal_delay_s=batch.resources.signal_delay_s, max_requeues=p.max_requeues, setup=p.setup, python=p.python,
        env=dict(p.env), tasks=len(batch.cells), max_parallel=sweep.max_parallel, notify=resolve(p.notify))


def scripts(sweep: Sweep, batches: Sequence[Batch]) -> list[str]:
    """The batch scripts as they would be submitted; an id that is not known yet is the array's name in angle brackets."""
    if sweep.cluster == "local":
        merged, first = merge(batches)
        return [local_array.script_of(make_request(sweep, merged, array_path(sweep.runs_dir, sweep.name), ()), first)]
    paths = _names(sweep, len(batches))
    return [launch.batch_script(make_request(sweep, batch, path, [f"<{paths[i].name}>" for i in batch.waits_for]), "slurm")
            for batch, path in zip(batches, paths, strict=True)]


def submit(sweep: Sweep, batches: Sequence[Batch], say: Say) -> list[Submitted]:
    """Submit all arrays, the first ones first.

    Raises:
        SlurmAwayError: sbatch was not answered; the next call finds the array, or submits it.
        SlurmError: sbatch refused; what was submitted before stays.
    """
    code, texts = code_state(), Texts()
    if sweep.cluster == "local":
        merged, first = merge(batches)
        array = array_path(sweep.runs_dir, sweep.name)
        return [_submit(sweep, merged, array, (), code, texts, lambda request, _: local_array.start(request, first))]
    done: list[Submitted] = []
    for batch, array in zip(batches, _names(sweep, len(batches)), strict=True):
        waits_for = [done[i].job_id for i in batch.waits_for]
        of_first = done[0].array if done else None
        done.append(_submit(sweep, batch, array, waits_for, code, texts, launch.submit_array, of_first))
        say(f"submitted array {done[-1].job_id}: {len(batch.cells)} cells, {array}")
    return done


def merge(batches: Sequence[Batch]) -> tuple[Batch, int]:
    """All batches as one array for this machine, and how many of its cells run before the others."""
    awaited = {i for batch in batches for i in batch.waits_for}
    order = sorted(range(len(batches)), key=lambda i: (i not in awaited, bool(batches[i].waits_for)))
    cells = tuple(s for i in order for s in batches[i].cells)
    return replace(batches[0], cells=cells, waits_for=()), sum(len(batches[i].cells) for i in awaited)


def _names(sweep: Sweep, count: int) -> list[Path]:
    first = array_path(sweep.runs_dir, sweep.name)
    return [first] if count == 1 else [first.with_name(f"{first.name}-{i + 1}") for i in range(count)]


def _submit(sweep: Sweep, batch: Batch, path: Path, waits_for: Sequence[str], code: CodeState, texts: Texts,
            start: Callable[[launch.Request, list[RunFolder]], str], of_first: RunFolder | None = None) -> Submitted:
    runs = [s.run for s in batch.cells]
    array = make_array(path, runs)
    if of_first:
        share_snapshot(array, of_first)
    else:
        take_snapshot(array, code)
    request = make_request(sweep, batch, path, waits_for)
    notice.keep_ways(array.submit, request.notify, sweep.cluster)
    entry: dict[str, Any] = {
        "state": "submitting", "job_id": None, "cluster": sweep.cluster, "job_name": request.job_name, "array": str(path),
        "command": sweep.command, **code.record(), **request.resources.record,
        **sweep.profile.rates.record, "host": socket.gethostname(),
        "submitted_at": _now(), "submitted_at_s": time.time()}
    state = texts.json({**code.record(), "environment": environment()})
    cells = [_write_cell(s, sweep, state, texts, {**entry, "task": task, **_planned(s, sweep)})
             for task, s in enumerate(batch.cells)]
    try:
        job_id = start(request, runs)
    except slurm.SlurmAwayError:
        raise  # there may be an array: the notes stay, and the next call looks for it
    except slurm.SlurmError:
        for cell in cells:
            cell.submissions.pop()
            cell.write(texts)
        shutil.rmtree(path)
        raise
    later = {"process_birth": process_birth(int(job_id))} if sweep.cluster == "local" else {}
    for task, cell in enumerate(cells):
        link_task(cell.run, array, f"{job_id}_{task}")
        cell.submissions[-1].update(state="submitted", job_id=f"{job_id}_{task}", **later)
        cell.write(texts)
    return Submitted(job_id, array, batch.cells)


def _planned(standing: Standing, sweep: Sweep) -> dict[str, float]:
    """The estimate that a later submission holds against a budget while this cell waits or runs."""
    planned = sweep.planned_gpu_h.get(standing.cell.signature)
    return {"planned_gpu_h": planned} if planned else {}


@dataclass(frozen=True)
class _CellRecord:
    """run.json of a cell: the text of all that stays, and the submissions, of which the last changes once it has an id."""

    run: RunFolder
    stays: str
    submissions: list[dict[str, Any]]

    def write(self, texts: Texts) -> None:
        text = joined(self.stays, texts.json({"submissions": self.submissions}))
        write_atomic(self.run.record, f"{text}\n".encode(), durable=False)


def _write_cell(standing: Standing, sweep: Sweep, code: str, texts: Texts, entry: dict[str, Any]) -> _CellRecord:
    """config.yaml and run.json of a cell; `code` is the text of the code's state."""
    run, cell = standing.run, standing.cell
    before = {} if _made(run.path) else read_json(run.record) or {}
    stays = joined(texts.json(_identity(cell, run, sweep, before, entry["submitted_at"])), code)
    record = _CellRecord(run, stays, [*before.get("submissions", []), entry])
    name = run.path.name.removesuffix(f"-{cell.signature}")
    config = cell.config if cell.config.name == name else replace(cell.config, name=name)
    write_atomic(run.config, texts.yaml(config).encode(), durable=False)
    record.write(texts)
    return record


def _made(folder: Path) -> bool:
    """Whether the folder of a run was not there; it is now."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    except FileNotFoundError:  # nor is that of all runs
        make_private_folder(folder)
    return True


def _identity(cell: AnyCell, run: RunFolder, sweep: Sweep, before: Mapping[str, Any], now: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA, "kind": cell.kind, "name": run.path.name.removesuffix(f"-{cell.signature}"),
        "signature": cell.signature, "created": before.get("created", now),
        "command": before.get("command", sweep.command), "cell": before.get("cell", cell.record(sweep.name)),
        **cell.identity(),
    }


def submit_collect(sweep: Sweep, arrays: Sequence[str], out: Path, partition: str) -> tuple[str, RunFolder]:
    """Submit a small job that makes the tables once all arrays have ended, however; its id and its folder."""
    job = make_array(array_path(sweep.runs_dir, "collect"), [])
    take_snapshot(job, code_state())
    argv = ("analysis/collect.py", str(sweep.runs_dir), "--out", str(out.absolute()))
    return submit_last(sweep, job, [argv], arrays, partition), job


def last_request(sweep: Sweep, job: RunFolder, waits_for: Sequence[str], partition: str) -> launch.Request:
    """A small job that starts once others have ended, however.

    Args:
        sweep: What jobs of the call have in common.
        job: Its folder.
        waits_for: Ids of the others.
        partition: Where it runs.
    """
    p = sweep.profile
    options = {"account": p.account, "qos": p.qos, "dependency": ":".join(["afterany", *waits_for]) if waits_for else ""}
    return launch.Request(
        run=job, job_name=job.path.name, resources=replace(COLLECT, partition=partition), on_cpu=True, workers=0,
        options={k: v for k, v in options.items() if v}, more_options=dict(p.sbatch), signal_delay_s=60, max_requeues=0,
        setup=p.setup, python=p.python, env=dict(p.env), recovers=False)


def submit_last(sweep: Sweep, job: RunFolder, commands: Sequence[tuple[str, ...]], waits_for: Sequence[str], partition: str,
                ) -> str:
    """Submit scripts of the suite with their arguments, to run from the job's snapshot once others have ended; the id."""
    of_snapshot = tuple((str(job.code / script), *more) for script, *more in commands)
    program = launch.Program(of_snapshot, str(Path.cwd()))
    return launch.submit_program(last_request(sweep, job, waits_for, partition), program)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
