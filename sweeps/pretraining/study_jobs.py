"""What a study writes and submits beside its runs and cells: the manifests of fractions, and the last job."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.place.scheduler import slurm
from jobs.submit import launch
from sweeps.pretraining.pretrain_jobs import active_jobs
from sweeps.pretraining.study import Study
from sweeps.run import last_job
from sweeps.run.array_submission import Say, last_request
from vidmae.runs.record import RunFolder


def write_fractions(study: Study) -> None:
    """Write the manifests that are missing."""
    for portion in {point.portion.source.manifest: point.portion for point in study.points if point.portion}.values():
        portion.write()


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
    return sorted({*active_jobs(study.points), *cells, *arrays}, key=int)


def last_script(study: Study) -> str:
    """The batch script of the last job as it would be submitted; ids that are not known yet are names in angle brackets."""
    names = [f"<{point.run.path.name}>" for point in study.submits]
    arrays = [f"<array {i + 1}>" for i in range(len(study.cells.batches))]
    job = last_job.folder_of(study.cells.sweep, _name(study))
    return launch.batch_script(last_request(study.cells.sweep, job, [*waits_for(study, ()), *names, *arrays],
                                            _partition(study)), "slurm")


def _name(study: Study) -> str:
    return f"{study.kind.name}-{study.signature}"


def _partition(study: Study) -> str:
    return study.cells.classes.trained.partition
