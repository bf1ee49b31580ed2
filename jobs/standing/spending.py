"""What runs have used of machines: by Slurm's accounting where it knows a job, else by the run's own records.

The accounting counts every start, also one that died before its first word, and what is between two attempts on the same
machines. The runs' records know which GPUs they had, and what these have drawn (NVML).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.place.scheduler import sacct
from jobs.place.scheduler.commands import SlurmError
from jobs.standing.runs import states, submissions
from vidmae.runs.nodes.usage import SLURM, Use, use_of, uses_of
from vidmae.runs.record import RunFolder, read_json

SINGLE = "single runs"


@dataclass(frozen=True)
class Usage:
    """The jobs of a run.

    Attributes:
        run: Its folder.
        uses: Its jobs that had machines.
        sweep: What it belongs to: the array of its newest job, the command that made it with others, or SINGLE.
        planned_gpu_h: GPU-hours that its newest submission was estimated at; 0 where nobody has noted any.
    """

    run: RunFolder
    uses: tuple[Use, ...]
    sweep: str
    planned_gpu_h: float


def usage_of(runs: Sequence[RunFolder]) -> tuple[list[Usage], list[str]]:
    """What each run has used, and what could not be read or asked. Slurm is asked once for all of them."""
    notes, read = list[str](), dict[RunFolder, tuple[list[Use], list[dict[str, Any]]]]()
    for run in runs:
        try:
            read[run] = uses_of(run), submissions(run)
        except (ValueError, OSError) as error:
            notes.append(f"{run.path.name} is not counted: {error}")
    ids = [str(entry["job_id"]) for _, entries in read.values() for entry in entries if _of_slurm(entry)]
    known: dict[str, list[sacct.Allocation]] = {}
    try:
        for one in sacct.allocations(ids) if ids else ():
            known.setdefault(one.id, []).append(one)
    except SlurmError as error:
        notes.append(f"starts that left no word are not counted, since the accounting cannot be asked: {error}")
    found = [_usage(run, uses, entries, known) for run, (uses, entries) in read.items()]
    apart = sum(shares_nodes(use) and any(one.energy_j for one in known.get(use.job_id, ()))
                for usage in found for use in usage.uses)
    if apart:
        notes.append(f"of {apart} tasks of arrays Slurm's energy is not taken: it is of whole nodes, which tasks share")
    return found, notes


def _usage(run: RunFolder, uses: Sequence[Use], entries: Sequence[Mapping[str, Any]],
           known: Mapping[str, Sequence[sacct.Allocation]]) -> Usage:
    found = {use.job_id: use for use in uses}
    for entry in filter(_of_slurm, entries):
        job_id = str(entry["job_id"])
        starts = [one for one in known.get(job_id, ()) if one.name == entry.get("job_name", one.name)]
        if starts:  # of another name: Slurm starts its ids anew sometimes
            found[job_id] = merged(found.get(job_id) or use_of(entry, (), job_id, ""), starts)
    newest = entries[-1] if entries else {}
    return Usage(run, tuple(sorted(found.values(), key=lambda use: use.started)), _sweep(run, newest),
                 float(newest.get("planned_gpu_h") or 0.0))


def merged(use: Use, starts: Sequence[sacct.Allocation]) -> Use:
    """A job as the accounting knows it; what only its run knows stays.

    Args:
        use: By the records of the run.
        starts: Of the job, one at least.
    """
    began = [one.started for one in starts if one.started]
    use = replace(use, started=min(began, default=use.started), seconds=sum(one.seconds for one in starts),
                  gpus=max(one.gpus for one in starts) or use.gpus, cores=max(one.cpus for one in starts) or use.cores,
                  gpu=use.gpu or starts[-1].gpu, user=starts[-1].user or use.user)
    measured = [one for one in starts if one.energy_j]
    if not measured or shares_nodes(use):
        return use
    return replace(use, energy_j=sum(one.energy_j for one in measured), energy_s=sum(one.seconds for one in measured),
                   energy_by=SLURM)


def shares_nodes(use: Use) -> bool:
    """Whether a job has a part of a node. Tasks of arrays do, one GPU each; the accounting has the energy of whole nodes."""
    return bool(use.sweep) or "_" in use.job_id


def others_of_account(account: str, since: str, mine: Sequence[Usage]) -> list[Use]:
    """The jobs of an account that are not those of the runs at hand.

    Raises:
        SlurmError: There is no accounting, or it does not answer.
    """
    here = {use.job_id for usage in mine for use in usage.uses}
    jobs: dict[tuple[str, str], list[sacct.Allocation]] = {}
    for one in sacct.allocations_of_account(account, since):
        if one.id not in here:
            jobs.setdefault((one.id, one.name), []).append(one)
    found = [merged(Use(job_id, 0.0, 0.0, 0, 0), starts) for (job_id, _), starts in jobs.items()]
    return [use for use in found if use.started >= _begin_of(since)]


def under_way_gpu_h(usages: Sequence[Usage]) -> float:
    """GPU-hours that runs which wait or run will still use, by what was estimated when they were submitted."""
    planned = [usage for usage in usages if usage.planned_gpu_h and not usage.run.result.exists()]
    active = {state.run for state in states([usage.run for usage in planned])[0] if state.active}
    return sum(max(0.0, usage.planned_gpu_h - sum(use.gpu_h for use in usage.uses)) for usage in planned
               if usage.run in active)


def since(usages: Sequence[Usage], day: str) -> list[Usage]:
    """The same, with the jobs alone that began on a day (`2026-01-31`, local time) or later; all where it is empty."""
    if not day:
        return list(usages)
    first = _begin_of(day)
    return [replace(usage, uses=tuple(use for use in usage.uses if use.started >= first)) for usage in usages]


def _begin_of(day: str) -> float:
    return time.mktime(time.strptime(day, "%Y-%m-%d"))


def _of_slurm(entry: Mapping[str, Any]) -> bool:
    return entry.get("cluster") == "slurm" and bool(entry.get("job_id"))


def _sweep(run: RunFolder, newest: Mapping[str, Any]) -> str:
    if array := newest.get("array"):
        return Path(str(array)).name
    command = (read_json(run.record) or {}).get("command") or ()
    return next((str(word) for word in command if str(word).startswith("sweeps/")), SINGLE)
