"""Which runs nothing works at: only those may be touched. What cannot be known counts as work.

A run is left alone where its newest job waits or runs, where nobody can tell (Slurm does not answer, the job is of another
machine), while a launcher or a job holds a lock on it, and for ten minutes after its last sign of life.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.place.scheduler import slurm
from jobs.standing.runs import FRESH_S, State, process_birth, states, submissions
from jobs.submit.submission import LOCK
from vidmae.runs.record import RunFolder, read_json


@dataclass(frozen=True)
class Standing:
    """A run, its state, and why it must be left alone; nothing where it may be touched."""

    state: State
    busy: str

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return self.state.run


def look_at(runs: Sequence[RunFolder]) -> tuple[list[Standing], list[str]]:
    """Every run with its state, and what could not be asked. Slurm is asked once for all of them."""
    unanswered = _unanswered(runs)
    found, problems = states(runs)
    return [Standing(state, why_busy(state, unanswered)) for state in found], problems


def damage_of_record(run: RunFolder) -> str:
    """Why a run's run.json tells nothing of its jobs; nothing where it does."""
    try:
        entries = submissions(run)
    except (ValueError, OSError, TypeError, RecursionError):
        return "its run.json is damaged, so nobody knows whether a job works at it"
    return "" if all(isinstance(entry, dict) for entry in entries) else "its run.json is damaged"


def why_busy(state: State, unanswered: str) -> str:
    """Why a run must be left alone; nothing where nothing works at it.

    Args:
        state: Of the run.
        unanswered: What Slurm said in place of an answer, or nothing.
    """
    newest = (submissions(state.run) or [{}])[-1]
    if state.active:
        return f"job {state.job_id} is {state.state}"
    if state.active is None:
        return f"whether job {state.job_id} lives is not known"
    if state.state == "SUBMITTING":
        return "it was being submitted, and a job may be in the queue"
    if newest.get("cluster") == "slurm" and newest.get("job_id") and unanswered and state.state != "COMPLETED":
        return f"whether job {state.job_id} lives is not known, since Slurm does not answer"
    return "a launcher is at it" if (state.run.path / LOCK).exists() else signs_of_life(state.run)


def signs_of_life(run: RunFolder) -> str:
    """What in the folder itself says that a job works at it; nothing where nothing does. The last heartbeat of a run that is
    done is none."""
    age_s = time.time() - max(_changed_s(run.heartbeat), _changed_s(run.lock))
    try:
        holder = read_json(run.lock)
    except ValueError:
        return "its lock is damaged"
    if holder is not None:
        lives = holder.get("host") == socket.gethostname() and process_birth(int(holder.get("pid", 0))) is not None
        if lives or age_s < FRESH_S:
            return f"job {holder.get('job_id')} holds its lock"
    if not run.result.exists() and age_s < FRESH_S:
        return f"its last sign of life is {age_s:.0f} s old, and it is left alone for {FRESH_S:.0f} s"
    return ""


def _unanswered(runs: Sequence[RunFolder]) -> str:
    """What stands against asking squeue, where any of the runs has a job that it would know."""
    newest = [(submissions(run) or [{}])[-1] for run in runs]
    ids = [str(entry["job_id"]) for entry in newest if entry.get("cluster") == "slurm" and entry.get("job_id")]
    try:
        slurm.queued(ids)
    except slurm.SlurmError as error:
        return str(error)
    return ""


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
