"""A cell of an array on this machine, forked from the controller, which has loaded what all cells need.

To load torch and deepspeed takes longer than a small cell takes to learn. Only on a CPU: CUDA does not survive a fork. The
controller computes nothing and has joined nobody, so a cell finds what it would find after its own imports.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from vidmae.runs.record import RunFolder

PROGRAM = "vidmae.train.cell"


def load_programs() -> None:
    """Load what cells need, once for all of them; where something is missing each cell says so in its own log."""
    try:
        program = importlib.import_module(PROGRAM)
        if load := getattr(program, "load_libraries", None):
            load()
    except Exception:
        traceback.print_exc()


def run_cell(path: str) -> NoReturn:
    """Be a cell's program on this machine, and end this process with its exit code."""
    from vidmae.ranks import preempt, watchdog

    if not RunFolder(Path(path)).result.exists():
        preempt.listen()
        watchdog.end_process(importlib.import_module(PROGRAM).main(path))
    watchdog.end_process(0)


class ForkedCell:
    """A cell that runs, with what the controller needs of a subprocess.Popen. It leads a process group of its own.

    Args:
        path: Its run folder.
        env: What its environment has besides.
        log: Descriptor of the file that gets its output.
    """

    def __init__(self, path: str, env: Mapping[str, str], log: int) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(path, env, log)
        with contextlib.suppress(OSError):  # it has ended
            os.setpgid(self.pid, self.pid)  # here and there: nobody knows who comes first

    def poll(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int | None:
        """Wait for its end; see `poll`."""
        return self._wait(0)

    def _wait(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode


def _become(path: str, env: Mapping[str, str], log: int) -> NoReturn:
    """In the new process."""
    try:
        os.setpgid(0, 0)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ.update(env)
        run_cell(path)
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
