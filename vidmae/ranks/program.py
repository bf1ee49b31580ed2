"""What surrounds every training loop: ranks, the run folder's lock, signals, failure.json and the exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from vidmae.ranks import dist, preempt, watchdog
from vidmae.ranks.precision import with_precision
from vidmae.runs.nodes.left_out import leave_out_node, node_name, nodes_left_out
from vidmae.runs.record import LOST, SCHEMA, RunFolder, RunLockedError, job_id, locked, read_json, write_json
from vidmae.settings.command_line import text_of
from vidmae.settings.config import RunConfig
from vidmae.settings.layers import load

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
C = TypeVar("C", bound=RunConfig)


class LeaveError(Exception):
    """This attempt ends before it has done anything, and the job shall be requeued; the message says why. On every rank."""


class LostNodeError(Exception):
    """The node of this rank is not fit and stands in left_out.jsonl. On this rank alone: the others wait for it in vain, so
    it fails as a lost peer does, which ends them, too."""


Train = Callable[[RunFolder, C, dist.Ranks, float], bool]


def run_program(run_path: str, schema: type[C], train: Train[C]) -> int:
    """Train in a run folder that the launcher made. Every rank calls this.

    Args:
        run_path: The run folder.
        schema: Of its configuration.
        train: Called with the folder, its configuration, the ranks and the time of the start; True once the target is
            reached, False where a signal asked to stop and the state is saved.
    Returns:
        0 done, 75 saved and left before the end, 1 failed, 2 another job writes here or the configuration cannot run.
    """
    started, run, ranks = time.time(), RunFolder(Path(run_path)), None
    try:
        config = load(schema, run.config)
        preempt.listen(config.recovery.signals)
        watchdog.expect_within(config.recovery.start_limit_s)
        ranks = dist.init(config.train.device)
        if ranks.world_size > 1:
            watchdog.write_stacks_to(run.stacks, ranks.rank, ranks.world_size)
            watchdog.expect_within(config.recovery.start_limit_s)
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        if ranks.on_main(run.result.exists):
            say(ranks, f"{run.result} exists: this run is done")
            return EXIT_OK
        return EXIT_OK if _with_lock(run, config, ranks, train, started) else preempt.EXIT_PREEMPTED
    except LeaveError as error:
        print(error, flush=True)
        return preempt.EXIT_PREEMPTED
    except dist.NoGpuError as error:
        _record_failure(run, LostNodeError(str(error)) if _leaves_its_node(run, config, error) else error, ranks)
        return EXIT_FAILED
    except RunLockedError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except Exception as error:
        _record_failure(run, error, ranks)
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED
    finally:
        dist.close()
        watchdog.end_stacks()
        watchdog.expect_within(0)


def say(ranks: dist.Ranks, text: str) -> None:
    """A line in rank 0's log."""
    if ranks.is_main:
        print(text, flush=True)


def _leaves_its_node(run: RunFolder, config: RunConfig, error: dist.NoGpuError) -> bool:
    """Whether a rank whose GPU is not there has noted its node, so that the job is requeued without it.

    It cannot join the others for the checks before the first step (health/node_checks.py), so it acts alone. A build of
    torch for CPUs is no matter of a node, and a node that the job has left out before cannot be left out.
    """
    node, built = node_name(), torch.version.cuda or torch.version.hip
    if (config.recovery.checks != "enforce" or not built or "SLURM_JOB_ID" not in os.environ
            or node in nodes_left_out(run, job_id())):
        return False
    leave_out_node(run, node, str(error))
    return True


def _with_lock(run: RunFolder, config: C, ranks: dist.Ranks, train: Train[C], started: float) -> bool:
    """Rank 0 holds the lock for all; the others learn whether it got it."""
    if not ranks.is_main:
        if problem := ranks.from_main(None):
            raise RunLockedError(problem)
        return train(run, with_precision(run, config, ranks), ranks, started)
    told = False
    try:
        with locked(run):
            run.failure.unlink(missing_ok=True)
            ranks.from_main(None)
            told = True
            return train(run, with_precision(run, config, ranks), ranks, started)
    except RunLockedError as error:
        if not told:
            ranks.from_main(str(error))
        raise


def _record_failure(run: RunFolder, error: Exception, ranks: dist.Ranks | None) -> None:
    rank = ranks.rank if ranks else int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    traceback.print_exc()
    print(f"error: rank {rank}: {type(error).__name__}: {text_of(error)}", file=sys.stderr, flush=True)
    lost = isinstance(error, LostNodeError) or dist.is_lost_peer(error)
    with contextlib.suppress(OSError):  # the disk is full: the log has it
        if not _is_explained(run, lost=lost):
            write_json(run.failure, {"schema": SCHEMA, "job_id": job_id(), "time": time.time(), "rank": rank,
                                     "kind": LOST if lost else "error",
                                     "error": type(error).__name__, "message": text_of(error)})


def _is_explained(run: RunFolder, *, lost: bool) -> bool:
    """Whether failure.json stays: the first rank that fails knows why, and the others fail because of it.

    A record that a rank was lost gives way to a rank's own error: it may be of an earlier start.
    """
    try:
        record = read_json(run.failure)
    except ValueError:  # damaged
        return False
    return record is not None and (lost or record.get("kind") != LOST)
