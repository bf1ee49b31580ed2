"""Submit the pretraining runs of a study: each once, what is missing alone; on this machine one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from jobs.place.experiment import Experiment
from jobs.standing.follow import outcome, wait_for
from jobs.standing.runs import State
from jobs.submit import launch
from jobs.submit.submission import make_request, submit_once
from sweeps.grid.states import RETRY
from sweeps.pretraining.pretraining_run import P, Pretraining, look_at
from sweeps.run.array_submission import Say


def kinds_again(retry: str | None) -> frozenset[str]:
    """The kinds of runs that a call submits: new ones, and those of --retry."""
    return frozenset({"new", *(RETRY if retry == "all" else filter(None, [retry]))}) - {"all"}


def pretrain(runs: Sequence[P], again: Collection[str], max_parallel: int, command: list[str], say: Say,
             note: Callable[[list[str]], None]) -> list[P]:
    """Submit the pretraining runs that are missing to Slurm.

    Args:
        runs: All of them.
        again: Kinds of those that are submitted.
        max_parallel: Jobs at a time: each waits for the end of the one so many before it; 0 is no limit.
        command: What the user typed, for the record.
        say: Tells people.
        note: Told the id of every job that is submitted.
    Returns:
        All runs, as they are then.
    Raises:
        SlurmError: sbatch refused or was not answered; what was submitted before stays.
    """
    lane, found = active_jobs(runs), []
    for one in runs:
        if one.kind not in again:
            found.append(one)
            continue
        done = submit_once(_in_turn(one.experiment, lane, max_parallel), retry=one.kind != "new", command=command)
        if done.kind == "submitted":
            say(f"submitted job {done.job_id}: {one.run.path}")
            note([done.job_id])
        if done.kind == "done":
            found.append(replace(one, kind="done"))
            continue
        lane.append(done.job_id)
        found.append(replace(one, kind="active", state=State(one.run, done.job_id, "slurm", "PENDING", True)))
    return found


def scripts(runs: Sequence[Pretraining], again: Collection[str], max_parallel: int, cluster: str) -> list[str]:
    """The batch scripts of the runs that a call submits; a name in angle brackets is an id to come."""
    lane, found = active_jobs(runs), []
    for one in (one for one in runs if one.kind in again):
        e = one.experiment if cluster == "local" else _in_turn(one.experiment, lane, max_parallel)
        found.append(launch.batch_script(make_request(e), cluster))
        lane.append(f"<{one.run.path.name}>")
    return found


def active_jobs(runs: Sequence[Pretraining]) -> list[str]:
    """Ids of the jobs that are under way."""
    return [one.state.job_id for one in runs if one.kind == "active" and one.state]


def _in_turn(e: Experiment, lane: Sequence[str], max_parallel: int) -> Experiment:
    """The experiment, to start once the job so many places before it has ended, however."""
    if not max_parallel or len(lane) < max_parallel:
        return e
    waits = ",".join(filter(None, [e.profile.dependency, f"afterany:{lane[-max_parallel]}"]))
    return replace(e, profile=replace(e.profile, dependency=waits))


def pretrain_here(runs: Sequence[P], again: Collection[str], command: list[str], say: Say, note: Callable[[list[str]], None],
                  ) -> list[P]:
    """Run the pretraining runs that are not done on this machine, one after the other; see `pretrain`."""
    todo = [one for one in runs if one.kind in again or one.kind == "active"]
    for number, one in enumerate(todo, 1):
        done = submit_once(one.experiment, retry=one.kind not in ("new", "active"), command=command)
        say(f"pretraining run {number} of {len(todo)}, job {done.job_id}: {one.run.path}")
        if done.kind == "submitted":
            note([done.job_id])
        if done.kind != "done":
            say(f"  {outcome(wait_for(one.run, show=False))[1]}")
    return look_at(runs)[0]
