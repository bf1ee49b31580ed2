"""Where the seconds of a run went, attempt by attempt: attempts.json, written by rank 0.

An attempt is one start of the ranks; a run that is requeued ten times has eleven. A job that starts its ranks again itself
(vidmae/ranks/health/in_place.py; jobs/submit/local_controller.py) has one for each time. Its seconds are

    starting_s    from the start of the program to its first step: imports, restore, first clips; in place from the last
                  record of the attempt before, since the job held its nodes meanwhile
    useful_s      steps that no earlier attempt had done, less the waiting
    waiting_s     those steps' share of waiting for clips
    repeated_s    steps done again because their first result was lost
    saving_s      training stood still for a checkpoint

and goodput is useful_s / all of them. Seconds in the queue between attempts are counted apart: they cost nobody a GPU.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from vidmae.runs.record import SCHEMA, RunFolder, job_id, read_json, write_json

RESTARTED = "VIDMAE_RESTARTED"  # variable of ranks that their job has started again: why
PARTS = ("starting_s", "useful_s", "waiting_s", "repeated_s", "saving_s")


@dataclass
class Attempt:
    """One start of the job.

    Attributes:
        job_id: Slurm's or the launcher's.
        restart: How often Slurm had requeued the job before.
        started, updated: Seconds since 1970; the difference is the attempt's length.
        first_step, last_step: Updates done at its start and now.
        repeated_steps: Steps that an earlier attempt, or this one before a roll-back, had done and lost.
        slowest_save_s: Longest save, from its beginning to the published checkpoint.
        ranks: Processes that trained; 0 in records of earlier versions.
        gpu: What torch calls the GPU of each; empty on CPUs.
        energy_j: What the counters of the GPUs say, until the newest checkpoint; see vidmae/runs/nodes/gpu_counter.py.
        energy_s: Seconds of the attempt that this covers; 0 where nothing was measured.
        ended: done, preempted, or empty while it runs and where it failed or was killed.
        restarted: Why the job started its ranks again in place for this attempt; empty where it is the job's first.
    """

    job_id: str
    restart: int
    started: float
    updated: float
    first_step: int = 0
    last_step: int = 0
    starting_s: float = 0.0
    useful_s: float = 0.0
    waiting_s: float = 0.0
    repeated_s: float = 0.0
    saving_s: float = 0.0
    repeated_steps: int = 0
    slowest_save_s: float = 0.0
    ended: str = ""
    ranks: int = 0
    gpu: str = ""
    energy_j: float = 0.0
    energy_s: float = 0.0
    restarted: str = ""


def read_attempts(run: RunFolder) -> list[Attempt]:
    """The attempts of a run, oldest first; the newest may be running."""
    return [Attempt(**record) for record in (read_json(run.attempts) or {}).get("attempts", [])]


def start_of(attempt: Attempt) -> tuple[str, int]:
    """Which start of which job an attempt belongs to: that of one job and place in its queue."""
    return attempt.job_id, attempt.restart


def totals(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """Seconds over all attempts, goodput (0 to 1, None before the first step) and seconds in the queue between them; with
    `energy_j` and the `energy_s` seconds that it covers where the counters of GPUs were read.

    `data_wait` is the share of first steps' seconds that went into waiting for clips, 0 to 1; None before the first.
    """
    sums = {part: sum(getattr(a, part) for a in attempts) for part in PARTS}
    spent, steps_s = sum(sums.values()), sums["useful_s"] + sums["waiting_s"]
    gaps = (later.started - earlier.updated for earlier, later in pairwise(attempts))
    measured = {name: sum(getattr(a, name) for a in attempts) for name in ("energy_j", "energy_s")}
    return {"attempts": len(attempts), **sums, **(measured if measured["energy_s"] else {}),
            "between_s": sum(max(0.0, gap) for gap in gaps),
            "repeated_steps": sum(a.repeated_steps for a in attempts),
            "goodput": sums["useful_s"] / spent if sums["useful_s"] else None,
            "data_wait": sums["waiting_s"] / steps_s if steps_s else None,
            "slowest_save_s": max((a.slowest_save_s for a in attempts), default=0.0)}


class AttemptLog:
    """Keeps the account of the attempt that runs. Rank 0 only.

    Args:
        run: The run folder.
        started: When the program started, seconds since 1970.
        reached: The highest step that an earlier attempt did: of what follows, steps up to it are repeated.
        ranks: Processes that train.
        gpu: What torch calls the GPU of each; empty on CPUs.
    """

    def __init__(self, run: RunFolder, *, started: float, reached: int, ranks: int = 0, gpu: str = "") -> None:
        self._run, self._before, self._reached = run, read_attempts(run), reached
        self._training = False
        self.now = Attempt(job_id(), int(os.environ.get("SLURM_RESTART_COUNT", "0")), started, time.time(), ranks=ranks,
                           gpu=gpu, restarted=os.environ.get(RESTARTED, ""))
        if self.now.restarted and self._before and start_of(self._before[-1]) == start_of(self.now):
            self.now.started = self._before[-1].updated
        self.write()

    def begin(self, step: int) -> None:
        """Training starts, or starts again after a roll-back, with `step` updates done."""
        if not self._training:
            self.now.first_step = step
        self._reached = max(self._reached, self.now.last_step)
        self.now.last_step, self._training = step, True

    def step_done(self, record: Mapping[str, Any]) -> None:
        """Add a step by its line of metrics.jsonl."""
        now, step_s = self.now, record["step_s"]
        if now.starting_s == 0.0:
            now.starting_s = max(0.0, time.time() - now.started - step_s)
        if record["step"] <= self._reached:
            now.repeated_s += step_s
            now.repeated_steps += 1
        else:
            now.waiting_s += record["data_wait"] * step_s
            now.useful_s += (1 - record["data_wait"]) * step_s
        now.last_step = record["step"]

    def saved(self, stall_s: float, whole_s: float) -> None:
        """Add a checkpoint: seconds that training stood still, and seconds until it was published."""
        self.now.saving_s += stall_s
        self.now.slowest_save_s = max(self.now.slowest_save_s, whole_s)

    def used(self, energy_j: float, energy_s: float) -> None:
        """Note what the GPUs have used so far, and for how many seconds that was measured."""
        self.now.energy_j, self.now.energy_s = energy_j, energy_s

    def write(self, ended: str = "") -> None:
        """Put the account on disk."""
        self.now.updated, self.now.ended = time.time(), ended
        write_json(self._run.attempts, {"schema": SCHEMA, "attempts": [asdict(a) for a in (*self._before, self.now)]})

    def totals(self) -> dict[str, Any]:
        """Seconds over all attempts, this one included."""
        return totals([*self._before, self.now])
