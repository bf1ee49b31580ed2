"""Carry out a scaling sweep: write the fractions, submit the pretraining runs, and the last job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from jobs.place.experiment import Experiment
from jobs.scheduler import slurm
from jobs.standing.follow import outcome, wait_for
from jobs.standing.runs import State
from jobs.submit import launch
from jobs.submit.submission import make_request, submit_once
from sweeps.grid.points import Point, look_at
from sweeps.run import last_job
from sweeps.run.array_submission import Say, last_request
from sweeps.run.study import Study
from vidmae.runs.record import RunFolder


def write_fractions(study: Study) -> None:
    """Write the manifests that are missing."""
    for portion in {point.portion.source.manifest: point.portion for point in study.points}.values():
        portion.write()


def pretrain(study: Study, max_parallel: int, command: list[str], say: Say, note: Callable[[list[str]], None],
             ) -> list[Point]:
    """Submit the pretraining runs that are missing to Slurm.

    Args:
        study: From `sweeps.run.study.resolve`.
        max_parallel: Jobs at a time: each waits for the end of the one so many before it; 0 is no limit.
        command: What the user typed, for the record.
        say: Tells people.
        note: Told the id of every job that is submitted.
    Returns:
        All runs, as they are then.
    Raises:
        SlurmError: sbatch refused or was not answered; what was submitted before stays.
    """
    lane, points = _active(study), []
    for point in study.points:
        if point.kind not in study.again:
            points.append(point)
            continue
        done = submit_once(_in_turn(point.experiment, lane, max_parallel), retry=point.kind != "new", command=command)
        if done.kind == "submitted":
            say(f"submitted job {done.job_id}: {point.run.path}")
            note([done.job_id])
        if done.kind == "done":
            points.append(replace(point, kind="done"))
            continue
        lane.append(done.job_id)
        points.append(replace(point, kind="active", state=State(point.run, done.job_id, "slurm", "PENDING", True)))
    return points


def scripts(study: Study, max_parallel: int) -> list[str]:
    """The batch scripts of the pretraining runs that this call submits; a name in angle brackets is an id to come."""
    lane, found = _active(study), []
    for point in study.submits:
        e = point.experiment if study.place.cluster == "local" else _in_turn(point.experiment, lane, max_parallel)
        found.append(launch.batch_script(make_request(e), study.place.cluster))
        lane.append(f"<{point.run.path.name}>")
    return found


def _active(study: Study) -> list[str]:
    return [point.state.job_id for point in study.points if point.kind == "active" and point.state]


def _in_turn(e: Experiment, lane: Sequence[str], max_parallel: int) -> Experiment:
    """The experiment, to start once the job so many places before it has ended, however."""
    if not max_parallel or len(lane) < max_parallel:
        return e
    waits = ",".join(filter(None, [e.profile.dependency, f"afterany:{lane[-max_parallel]}"]))
    return replace(e, profile=replace(e.profile, dependency=waits))


def pretrain_here(study: Study, command: list[str], say: Say, note: Callable[[list[str]], None]) -> list[Point]:
    """Run the pretraining runs that are not done on this machine, one after the other; see `pretrain`."""
    todo = [point for point in study.points if point in study.submits or point.kind == "active"]
    for number, point in enumerate(todo, 1):
        done = submit_once(point.experiment, retry=point.kind not in ("new", "active"), command=command)
        say(f"pretraining run {number} of {len(todo)}, job {done.job_id}: {point.run.path}")
        if done.kind == "submitted":
            note([done.job_id])
        if done.kind != "done":
            say(f"  {outcome(wait_for(point.run, show=False))[1]}")
    return look_at(study.points)[0]


def submit_last(study: Study, arrays: Sequence[str], *, fresh: bool, retry: bool, say: Say) -> tuple[RunFolder, str]:
    """Submit the job that makes tables and figures, where it is missing.

    Args:
        study: As it is after everything else was submitted.
        arrays: Ids of the arrays that this call submitted.
        fresh: This call submitted pretraining runs or arrays.
        retry: Submit again one that failed.
        say: Tells people.
    Returns:
        Its folder, and its id where it was submitted.
    """
    sweep = study.cells.sweep
    job = last_job.folder_of(sweep, _name(study))
    submits, older = last_job.needed(job, fresh=fresh, retry=retry)
    if not submits:
        if older and not older.active and not last_job.has_run(older):
            say(f"the last job {older.job_id} is {older.state}, log {older.log}; --retry submits it again")
        return job, ""
    job_id = last_job.submit(sweep, job, study.commands, waits_for(study, arrays), _partition(study), older)
    say(f"submitted job {job_id}, which makes tables and figures once all has ended; log "
        f"{job.submit / job_id / f'{job_id}_0_log.out'}")
    return job, job_id


def waits_for(study: Study, arrays: Sequence[str]) -> list[str]:
    """Ids of all jobs that are under way, with the arrays that were just submitted."""
    cells = [slurm.base_id(s.state.job_id) for s in study.cells.standings if s.kind == "active" and s.state]
    return sorted({*_active(study), *cells, *arrays}, key=int)


def last_script(study: Study) -> str:
    """The batch script of the last job as it would be submitted; ids that are not known yet are names in angle brackets."""
    names = [f"<{point.run.path.name}>" for point in study.submits]
    arrays = [f"<array {i + 1}>" for i in range(len(study.cells.batches))]
    job = last_job.folder_of(study.cells.sweep, _name(study))
    return launch.batch_script(last_request(study.cells.sweep, job, [*waits_for(study, ()), *names, *arrays],
                                            _partition(study)), "slurm")


def _name(study: Study) -> str:
    return f"scaling-{study.signature}"


def _partition(study: Study) -> str:
    return study.cells.classes.trained.partition
