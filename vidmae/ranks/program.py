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
from vidmae.runs.record import LOST, SCHEMA, RunFolder, RunLockedError, job_id, locked, write_json
from vidmae.settings.command_line import text_of
from vidmae.settings.config import RunConfig
from vidmae.settings.layers import load

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
C = TypeVar("C", bound=RunConfig)
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
        if config.train.threads:
            torch.set_num_threads(config.train.threads)
        if ranks.on_main(run.result.exists):
            say(ranks, f"{run.result} exists: this run is done")
            return EXIT_OK
        return EXIT_OK if _with_lock(run, config, ranks, train, started) else preempt.EXIT_PREEMPTED
    except RunLockedError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except Exception as error:
        _record_failure(run, error, ranks)
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED
    finally:
        dist.close()
        watchdog.expect_within(0)


def say(ranks: dist.Ranks, text: str) -> None:
    """A line in rank 0's log."""
    if ranks.is_main:
        print(text, flush=True)


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
    if not run.failure.exists():  # the first rank that fails knows why; the others fail because of it
        with contextlib.suppress(OSError):  # the disk is full: the log has it
            write_json(run.failure, {"schema": SCHEMA, "job_id": job_id(), "time": time.time(), "rank": rank,
                                     "kind": LOST if dist.is_lost_peer(error) else "error",
                                     "error": type(error).__name__, "message": text_of(error)})
