"""The training lock of a run, judged by what Slurm knows. The training program itself goes by signs of life alone."""

from __future__ import annotations

import contextlib
import socket
import sys

from jobs.place.scheduler import slurm
from jobs.standing.runs import process_birth, submissions
from vidmae.runs.record import RunFolder, job_id, read_json


def live_holder(run: RunFolder) -> str | None:
    """The job that holds the lock, or None: there is no lock, or its job has ended, and then the lock is removed.

    A holder that was started by hand (torchrun, a notebook) counts as none: the training program itself decides on it.

    Raises:
        SlurmError: Whether the holder lives must be asked and cannot be.
    """
    holder = read_json(run.lock)
    if holder is None:
        return None
    of_job = str(holder.get("job_id"))
    known = next((s for s in submissions(run) if str(s.get("job_id")) == of_job), {})
    if not known and not slurm.is_job_id(of_job):
        return None
    if known.get("cluster", "slurm") == "slurm":
        alive = any(job.active for job in slurm.queued([of_job]))
    elif holder.get("host") == socket.gethostname():
        alive = process_birth(int(holder.get("pid", 0))) is not None
    else:
        alive = True
    if alive:
        return of_job
    print(f"job {of_job} has ended: its lock on {run.path.name} is removed", file=sys.stderr, flush=True)
    run.lock.unlink(missing_ok=True)
    return None


def release_lock_of_dead_job(run: RunFolder) -> None:
    """Before a job trains: remove a lock that Slurm knows to be stale; where Slurm cannot say, the lock stays."""
    holder = read_json(run.lock)
    if holder is not None and str(holder.get("job_id")) != job_id():
        with contextlib.suppress(slurm.SlurmError):
            live_holder(run)
