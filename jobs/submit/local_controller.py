"""The controller of a job on this machine: starts its ranks, ends all once one fails, leaves the exit code in exit.json.

    python -m jobs.submit.local_controller FOLDER      the last line of a local job's script (jobs/submit/launch.py)
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from jobs.standing.runs import EXIT_RECORD
from jobs.submit import notice
from jobs.submit.launch import EXIT_CODE, KILLED_BY_LIMIT
from vidmae.ranks.health.hang_report import report_hang
from vidmae.ranks.preempt import EXIT_PREEMPTED
from vidmae.runs.record import CANCELLED, SCHEMA, RunFolder, write_json

INTERRUPTED = 130


def control_local_job(folder: str) -> int:
    """Be the controller of the job in a folder; the exit code.

    Where a file `cancelled` appears in the job's folder (jobs/cancel.py), the ranks get the run's signal: they save and
    leave, or are killed after the signal delay.
    """
    from submitit.local.local import Controller, LocalJobEnvironment

    class StrictController(Controller):
        """submitit's controller waits for every rank, also for those that wait for one that has failed."""

        @property
        def cancelled(self) -> bool:
            return (self.folder / CANCELLED).exists()

        def wait(self, freq: int = 10) -> list[int | None]:
            ends = time.monotonic() + self.timeout_s
            warned = False
            while True:
                codes = [task.poll() for task in self.tasks]
                if None not in codes or any(codes) or time.monotonic() > ends:
                    return codes
                if not warned and (self.cancelled or time.monotonic() > ends - self.signal_delay_s):
                    self._forward_signal(LocalJobEnvironment._usr_sig())
                    warned, ends = True, min(ends, time.monotonic() + self.signal_delay_s)
                time.sleep(1 / freq)

    controller = StrictController(Path(folder.replace("%j", str(os.getpid()))))
    run = RunFolder(controller.folder.parents[1])
    codes: list[int | None] = [INTERRUPTED]  # cancelled before they started, or a person's own Ctrl-C
    try:
        if not controller.cancelled:
            controller.start_tasks()
            codes = controller.wait()
    except KeyboardInterrupt:
        pass
    finally:
        if controller.cancelled:
            controller._forward_signal(signal.SIGKILL)  # kill_tasks interrupts first, which leaves a traceback
        controller.kill_tasks()
    failed = [code for code in codes if code]
    noted = controller.folder / EXIT_CODE
    left = int(noted.read_text()) if noted.exists() else 0  # ranks that saved and left exit 0
    code = failed[0] if failed else KILLED_BY_LIMIT if None in codes else left
    if controller.cancelled:
        code = code_of_cancelled(code)
    if code and not controller.cancelled:
        with contextlib.suppress(OSError):  # the disk is full: the logs have the stacks
            report_hang(run, controller.folder.name)
    write_json(controller.folder / EXIT_RECORD, {"schema": SCHEMA, "exit_code": code, "time": time.time()})
    notice.run_ended(run, controller.folder.name)
    return code if 0 <= code < 256 else 1


def code_of_cancelled(code: int) -> int:
    """Exit code of a local job that was cancelled: an end by that is no preemption; other ends stay as they are."""
    return INTERRUPTED if code < 0 or code in (EXIT_PREEMPTED, KILLED_BY_LIMIT) else code


if __name__ == "__main__":
    sys.exit(control_local_job(sys.argv[1]))
