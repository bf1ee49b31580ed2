"""What becomes of a job whose ranks have left: the last command of its batch script, on its first node.

    python -m jobs.submit.recover RUN|ARRAY CODE --max-requeues 20 --signal-delay-s 300

    the run is done                                            exit 0
    saved and left because a signal asked for it (75)          requeue
    a rank was killed, a node was lost, a collective hung      requeue, without the nodes that Slurm calls bad
                                                               or that this job has left out (left_out.jsonl), where
                                                               the partition has others
    an error of the code, the configuration or the data        exit with its code: it would come again
    requeued too often, three attempts without progress,
    or Slurm refuses                                           exit 75, so that an `afterok` child does not start

Ranks do not requeue by themselves: one that does is killed by Slurm while others still save, and a killed one cannot.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from jobs.place.resources import SAVE_MARGIN_S
from jobs.place.scheduler import slurm
from jobs.place.scheduler.commands import SlurmAwayError
from jobs.standing.arrays import run_of_task
from jobs.submit import notice
from vidmae.ranks.health.hang_report import report_hang
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs import record
from vidmae.runs.attempts import Attempt, read_attempts, start_of, totals
from vidmae.runs.nodes.left_out import nodes_left_out
from vidmae.runs.record import CANCELLED, LOST, SCHEMA, RunFolder, read_json, why_not_writable, write_json

STUCK_ATTEMPTS = 3
OVER = ("TIMEOUT", "CANCELLED", "DEADLINE", "OUT_OF_MEMORY")  # of a job that Slurm ends and does not requeue
PATIENCE_S = 600.0  # a controller that is away for longer than this does not get the request


@dataclass(frozen=True)
class Verdict:
    """Whether to requeue; else the exit code; and why, for people."""

    requeue: bool
    exit_code: int
    why: str


def judge(run: RunFolder, job_id: str, code: int, *, restarts: int, max_requeues: int) -> Verdict:
    """Decide from the run's own records.

    Args:
        run: The run folder.
        job_id: Of the job whose ranks have left.
        code: Exit code of the ranks.
        restarts: How often Slurm has requeued the job.
        max_requeues: How often it may.
    """
    if run.result.exists():
        return Verdict(False, 0, "the run is done")
    if (run.submit / job_id / CANCELLED).exists():
        return Verdict(False, code or EXIT_PREEMPTED, "cancelled with jobs/cancel.py, so not requeued")
    failure = read_json(run.failure) or {}
    if str(failure.get("job_id")) == job_id and failure.get("kind") != LOST:
        return Verdict(False, code or 1, f"rank {failure['rank']} failed, so not requeued: {failure['message']}")
    if code == 2:
        return Verdict(False, 2, "another job writes to the run folder, or the configuration cannot run: not requeued")
    if restarts >= max_requeues:
        return Verdict(False, EXIT_PREEMPTED, f"requeued {restarts} times, which is all that --max-requeues allows")
    if code == EXIT_PREEMPTED:
        return Verdict(True, 0, "saved, requeueing")
    last_of_starts = [list(group)[-1] for _, group in groupby(read_attempts(run), start_of)]
    if is_stuck(run, last_of_starts):
        return Verdict(False, EXIT_PREEMPTED, f"{STUCK_ATTEMPTS} attempts in a row started at step "
                                              f"{last_of_starts[-1].first_step} and died before their next checkpoint: "
                                              "not requeued")
    how = f"killed by signal {code - 128}" if code > 128 else f"exit {code}"
    return Verdict(True, 0, f"a rank ended without being done ({how}), requeueing")


def who_hung(run: RunFolder, job_id: str, code: int) -> str:
    """Which rank did not come, in a sentence, where the ranks have ended because one hung; all stacks go to one file."""
    if code in (0, EXIT_PREEMPTED) or run.result.exists():
        return ""
    with contextlib.suppress(OSError):  # the disk is full: the logs have the stacks
        return report_hang(run, job_id)
    return ""


def is_stuck(run: RunFolder, attempts: Sequence[Attempt]) -> bool:
    """Whether the last three attempts began at the same step and were killed, and the last one left no checkpoint."""
    last = attempts[-STUCK_ATTEMPTS:]
    if len(last) < STUCK_ATTEMPTS or {(a.first_step, a.ended) for a in last} != {(last[0].first_step, "")}:
        return False
    return max(run.complete_checkpoints(), default=0) <= last[0].first_step


def check_writable(run: RunFolder, verdict: Verdict) -> Verdict:
    """Do not requeue where the run folder takes no more files: the next attempt could not even say so."""
    if not (problem := why_not_writable(run.path)):
        return verdict
    why = f"{run.path} cannot be written ({problem}), so the job is not requeued; make room, then --retry"
    print(why, flush=True)
    return Verdict(False, EXIT_PREEMPTED, why)


def requeue(job_id: str, left_out: Mapping[str, str]) -> bool:
    """Ask Slurm until it answers to requeue the job that this process belongs to; False where it refuses.

    Args:
        job_id: Of the job.
        left_out: Nodes that it shall stay off besides those that Slurm calls bad -> why.

    Asking twice does no harm: once the first request is accepted, the job is no longer running and this process ends.
    """
    deadline, pause_s = time.monotonic() + PATIENCE_S, 1.0
    while True:
        try:
            if (state := slurm.job_state(job_id)) not in (None, "RUNNING"):
                print(f"job {job_id} is {state}: Slurm is ending or requeueing it by itself", flush=True)
                return True
            bad = slurm.bad_nodes(os.environ.get("SLURM_JOB_NODELIST", ""))
            problem = cannot_do_without(job_id, [*bad, *left_out]) if left_out else ""  # whatever it is, it is requeued
            slurm.requeue(job_id)
            break
        except slurm.SlurmError as error:
            if not isinstance(error, SlurmAwayError) or time.monotonic() > deadline:
                print(f"error: {error}. Continue the run with --retry", flush=True)
                return False
            print(f"{error}; asking again in {pause_s:.0f} s", flush=True)
            time.sleep(pause_s)
            pause_s = min(30.0, 2 * pause_s)
    print(f"requeued job {job_id}", flush=True)
    if problem:
        print(f"warning: {problem}; the job may start on {','.join(left_out)} again", flush=True)
    else:
        bad = list(dict.fromkeys([*bad, *left_out]))
    if bad:
        try:
            slurm.exclude_nodes(job_id, bad)
            reasons = [f"{node} ({left_out[node]})" if node in left_out else node for node in bad]
            print(f"without {', '.join(reasons)}", flush=True)
        except slurm.SlurmError as error:
            print(f"warning: {error}; the job may start on {','.join(bad)} again", flush=True)
    return True


def cannot_do_without(job_id: str, nodes: Sequence[str]) -> str:
    """Why a job that waits would never start without some nodes, or that Slurm does not say; empty where nothing speaks
    against it. Nodes are counted, whatever GPUs they have.

    Args:
        job_id: Of the job; SLURM_JOB_PARTITION and SLURM_JOB_NUM_NODES are those of this process.
        nodes: That it shall stay off.
    """
    try:
        return _too_few_without(job_id, nodes)
    except slurm.SlurmError as error:
        return f"whether the job can do without {','.join(nodes)} is not known: {error}"


def _too_few_without(job_id: str, nodes: Sequence[str]) -> str:
    if fixed := sorted(set(slurm.required_nodes(job_id)) & set(nodes)):
        return f"the job asks for {','.join(fixed)} by name (--nodelist)"
    partition, wanted = os.environ.get("SLURM_JOB_PARTITION", ""), int(os.environ.get("SLURM_JOB_NUM_NODES", "0"))
    if partition and wanted:
        avoided = {*nodes, *slurm.excluded_nodes(job_id)}
        others = [node for node in slurm.up_nodes(partition) if node not in avoided]
        if len(others) < wanted:
            return (f"without {','.join(nodes)} partition {partition} has {len(others)} nodes that are up, and the job has "
                    f"{wanted}")
    return ""


def main(argv: list[str] | None = None) -> int:
    """Run the command; the job's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, or the array's folder, whose line of cells.txt is the run")
    parser.add_argument("code", type=int, help="exit code of the ranks")
    parser.add_argument("--max-requeues", type=int, default=20)
    parser.add_argument("--signal-delay-s", type=int, default=300)
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # requeueing ends this script with it, and there are nodes to exclude
    run, job_id = run_of_task(args.run), record.job_id()
    hung = who_hung(run, job_id, args.code)
    verdict = judge(run, job_id, args.code, restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
                    max_requeues=args.max_requeues)
    if hung:
        verdict = replace(verdict, why=f"{verdict.why}; {hung}")
    print(f"job {job_id}: {verdict.why}", flush=True)
    if verdict.requeue:
        verdict = check_writable(run, verdict)
    slowest_s = totals(read_attempts(run))["slowest_save_s"]
    if args.signal_delay_s < SAVE_MARGIN_S + slowest_s:
        print(f"warning: --signal-delay-s {args.signal_delay_s} is shorter than {SAVE_MARGIN_S} s plus the slowest save, "
              f"{slowest_s:.0f} s: a warning before the time limit may come too late to save", flush=True)
    if verdict.requeue and requeue(job_id, nodes_left_out(run, job_id)):
        if is_over(job_id):
            tell(args.run, run, job_id)
        return 0
    code = EXIT_PREEMPTED if verdict.requeue else verdict.exit_code
    if code and not run.failure.exists():
        with contextlib.suppress(OSError):  # the disk is full: the log has said why
            write_json(run.failure, {"schema": SCHEMA, "job_id": job_id, "time": time.time(), "rank": 0, "kind": "stopped",
                                     "error": "Stopped", "message": verdict.why})
    tell(args.run, run, job_id)
    return code


def is_over(job_id: str) -> bool:
    """Whether Slurm ends the job by itself for good, at its time limit or because somebody cancels it, and does not requeue
    it; False where it does not answer."""
    try:
        return slurm.job_state(job_id) in OVER
    except slurm.SlurmError:
        return False


def tell(path: Path, run: RunFolder, job_id: str) -> None:
    """Tell of the end of a run, or note that of a task of an array (--notify).

    Args:
        path: Of the run or the array.
        run: That of this job.
        job_id: Of the job.
    """
    if notice.is_array(path):
        notice.task_ended(RunFolder(path), job_id)
    else:
        notice.run_ended(run, job_id)


if __name__ == "__main__":
    sys.exit(main())
