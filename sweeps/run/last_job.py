"""The last job of a study: the analysis, once everything else has ended, however. Submitted once, like a run.

    runs/arrays/scaling-1a2b3c4d/    run.json names its jobs; submit/<jobid>/ has the log, code/ the snapshot
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from typing import Any

from jobs.place.scheduler import slurm
from jobs.place.snapshot import code_state, take_snapshot
from jobs.standing.arrays import ARRAYS, make_array
from jobs.standing.runs import NOT_STARTED, State, state_of, submissions
from jobs.submit.launch import EXIT_CODE
from jobs.submit.submission import adopt
from sweeps.run.array_submission import Sweep, submit_last
from vidmae.runs.record import SCHEMA, RunFolder, write_json

INCOMPLETE = 3  # exit code of an analysis that says what is missing


def folder_of(sweep: Sweep, name: str) -> RunFolder:
    """Where the last job of a study lies."""
    return RunFolder(sweep.runs_dir / ARRAYS / name)


def needed(job: RunFolder, *, fresh: bool, retry: bool) -> tuple[bool, State | None]:
    """Whether a last job has to be submitted, and the state of the newest one.

    Args:
        job: Its folder.
        fresh: This call submitted something that it has to wait for.
        retry: One that failed is submitted again.
    Raises:
        SlurmError: Slurm must be asked and does not answer.
    """
    if not job.record.exists():
        return True, None
    adopt(job)
    state = state_of(job)
    if fresh or state.state in NOT_STARTED:
        return True, state
    return retry and not state.active and not has_run(state), state


def exit_code(state: State) -> int:
    """With what a last job that has ended left; 0 where nobody knows."""
    noted = state.run.submit / state.job_id / EXIT_CODE  # squeue does not tell it
    return int(noted.read_text()) if noted.exists() else state.exit_code or 0


def has_run(state: State) -> bool:
    """Whether the analysis ran to its end, with everything there or not."""
    return state.state in ("COMPLETED", "ENDED") or exit_code(state) == INCOMPLETE


def submit(sweep: Sweep, job: RunFolder, commands: Sequence[tuple[str, ...]], waits_for: Sequence[str], partition: str,
           older: State | None) -> str:
    """Submit the last job; one that still waits is cancelled, since it does not wait for what was submitted since.

    Args:
        sweep: What jobs of the call have in common.
        job: Its folder.
        commands: Scripts with their arguments.
        waits_for: Ids of all jobs that must have ended before.
        partition: Where it runs.
        older: State of the newest one.
    Returns:
        The job's id.
    Raises:
        SlurmAwayError: sbatch was not answered; the next call finds the job.
        SlurmError: sbatch refused.
    """
    if older and older.active:
        slurm.cancel(older.job_id)
    make_array(job.path, [])
    take_snapshot(job, code_state())
    entry: dict[str, Any] = {"state": "submitting", "job_id": None, "cluster": "slurm", "job_name": job.path.name,
                             "host": socket.gethostname(), "submitted_at_s": time.time()}
    before = submissions(job)
    record = {"schema": SCHEMA, "kind": "analysis", "name": job.path.name, "submissions": [*before, entry]}
    write_json(job.record, record)
    try:
        entry.update(job_id=submit_last(sweep, job, commands, waits_for, partition), state="submitted")
    except slurm.SlurmAwayError:
        raise  # there may be a job: the note stays, and the next call looks for it
    except slurm.SlurmError:
        write_json(job.record, {**record, "submissions": before})
        raise
    write_json(job.record, record)
    return str(entry["job_id"])
