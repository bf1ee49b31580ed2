"""The controller of a job on this machine: starts its ranks, ends all once one fails, leaves the exit code in exit.json.

    python -m jobs.submit.local_controller FOLDER 20   the last line of a local job's script (jobs/submit/launch.py)

A job that Slurm would requeue because a rank was lost starts again here, at most so many times.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from jobs.standing.runs import EXIT_RECORD
from jobs.submit import notice
from jobs.submit.launch import EXIT_CODE, KILLED_BY_LIMIT
from jobs.submit.watched import is_worth_a_restart_here
from vidmae.ranks.health.hang_report import report_hang
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs.attempts import RESTARTED, read_attempts
from vidmae.runs.record import CANCELLED, SCHEMA, RunFolder, write_json

INTERRUPTED = 130
END_LIMIT_S = 60.0  # within which the kernel ends a rank that was killed


def control_local_job(folder: str, max_restarts: int = 0) -> int:
    """Be the controller of the job in a folder; the exit code.

    Where a file `cancelled` appears in the job's folder (jobs/cancel.py), the ranks get the run's signal: they save and
    leave, or are killed after the signal delay.

    Args:
        folder: Of the job; %j in it is this process.
        max_restarts: How often the ranks start again after one of them was lost.
    """
    from submitit.local.local import Controller, LocalJobEnvironment

    class StrictController(Controller):
        """submitit's controller waits for every rank, also for those that wait for one that has failed."""

        def __init__(self, folder: Path) -> None:
            self.asked = False  # to stop: by a signal to this process, or since the time is nearly up
            super().__init__(folder)
            self.ends = time.monotonic() + self.timeout_s

        @property
        def unwanted(self) -> bool:
            """A person wants it to end, or its time is up."""
            return self.asked or self.cancelled

        @property
        def cancelled(self) -> bool:
            return (self.folder / CANCELLED).exists()

        def _forward_signal(self, signum: signal.Signals, *args: Any) -> None:
            self.asked = self.asked or signum not in (signal.SIGINT, signal.SIGKILL)  # with which kill_tasks ends them
            super()._forward_signal(signum, *args)

        def wait(self, freq: int = 10) -> list[int | None]:
            ends, warned = self.ends, False
            while True:
                codes = [task.poll() for task in self.tasks]
                if None not in codes or any(codes) or time.monotonic() > ends:
                    return codes
                if not warned and (self.cancelled or time.monotonic() > ends - self.signal_delay_s):
                    self._forward_signal(LocalJobEnvironment._usr_sig())
                    warned, ends = True, min(ends, time.monotonic() + self.signal_delay_s)
                time.sleep(1 / freq)

    controller = StrictController(Path(folder.replace("%j", str(os.getpid()))))
    run, job_id = RunFolder(controller.folder.parents[1]), controller.folder.name
    code, restarts, before = INTERRUPTED, 0, _attempts(run)
    try:
        code, gone = _run_ranks(controller, run)
        while restarts < max_restarts and gone and not controller.unwanted and _comes_back(run, job_id, code, before):
            restarts, before = restarts + 1, _attempts(run)
            why = f"a rank was killed by signal {-code}" if code < 0 else f"a rank ended with exit code {code}"
            os.environ[RESTARTED] = why
            with contextlib.suppress(OSError), (controller.folder / f"{job_id}_0_log.out").open("a") as log:
                print(f"{why}: all ranks start again ({restarts} of {max_restarts} times)", file=log)
            code, gone = _run_ranks(controller, run)
    except KeyboardInterrupt:  # between two starts
        code = INTERRUPTED
    if controller.cancelled:
        code = code_of_cancelled(code)
    write_json(controller.folder / EXIT_RECORD, {"schema": SCHEMA, "exit_code": code, "time": time.time()})
    notice.run_ended(run, job_id)
    return code if 0 <= code < 256 else 1


def _run_ranks(controller: Any, run: RunFolder) -> tuple[int, bool]:
    """Start the ranks and wait for their end; the exit code, minus the number of a signal that killed a rank, and whether
    all of them are gone."""
    noted = controller.folder / EXIT_CODE  # by the first rank that leaves early
    codes: list[int | None] = [INTERRUPTED]  # cancelled before they started, or a person's own Ctrl-C
    noted.unlink(missing_ok=True)
    try:
        if not controller.unwanted:
            controller.start_tasks()
            codes = controller.wait()
    except KeyboardInterrupt:
        pass
    finally:
        ranks = list(controller.tasks)
        if controller.cancelled:
            controller._forward_signal(signal.SIGKILL)  # kill_tasks interrupts first, which leaves a traceback
        controller.kill_tasks()
    gone = all(map(_is_gone, ranks))
    failed = [code for code in codes if code]
    left = int(noted.read_text()) if noted.exists() else 0  # ranks that saved and left exit 0
    code = failed[0] if failed else KILLED_BY_LIMIT if None in codes else left
    if code and not controller.cancelled:
        with contextlib.suppress(OSError):  # the disk is full: the logs have the stacks
            report_hang(run, controller.folder.name)
    return code, gone


def _is_gone(rank: subprocess.Popen[str]) -> bool:
    """Whether a rank that was killed is gone; one that hangs in a driver or a file system cannot be killed."""
    try:
        rank.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _attempts(run: RunFolder) -> int:
    """How many attempts were recorded; 0 where the record is damaged."""
    try:
        return len(read_attempts(run))
    except (OSError, ValueError, TypeError):
        return 0


def _comes_back(run: RunFolder, job_id: str, code: int, before: int) -> bool:
    """Whether ranks that have ended with a code, or minus a signal, are to start again: what has not come as far as to
    record an attempt beside those `before` would fail again."""
    if code in (0, INTERRUPTED, KILLED_BY_LIMIT) or _attempts(run) == before:
        return False
    return is_worth_a_restart_here(run, job_id, code)


def code_of_cancelled(code: int) -> int:
    """Exit code of a local job that was cancelled: an end by that is no preemption; other ends stay as they are."""
    return INTERRUPTED if code < 0 or code in (EXIT_PREEMPTED, KILLED_BY_LIMIT) else code


if __name__ == "__main__":
    sys.exit(control_local_job(sys.argv[1], int(sys.argv[2])))
