"""Start programs of the tests from a process that has loaded torch and deepspeed: each start costs 3 to 4 s of CPU less.

The rank is a process of its own all the same, as `python -m MODULE ARGS` makes it: forked before anything was computed, with
the module run anew as `__main__`. Tests of how a job starts (tests/jobs, tests/slurm, tests/same) start Python itself.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

LOADED = "tests.support.programs.loaded"
AT_THE_START = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
"""What of the environment must be so when torch is loaded, in the process and in those forked from it."""

_context = multiprocessing.get_context("forkserver")


class Forked:
    """A program that runs; as much of `subprocess.Popen` as the tests use, with stdout and stderr in one file."""

    def __init__(self, module: str, args: tuple[str, ...], env: Mapping[str, str]) -> None:
        file, name = tempfile.mkstemp(prefix="vidmae-test-", suffix=".log")
        os.close(file)
        self._output, self._text = Path(name), ""
        self._process: BaseProcess = _context.Process(target=_run, args=(module, args, dict(env), str(self._output)))
        with mock.patch.dict(os.environ, AT_THE_START):
            _context.set_forkserver_preload([LOADED])
            self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """See `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ends just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> int | None:
        """Wait for its end; see `returncode`."""
        self._process.join()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; what it printed.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0, self._output.read_bytes())
        if self._output.exists():
            self._text = self._output.read_text(errors="replace")
            self._output.unlink()
        return self._text, None


Program = Forked | subprocess.Popen[str]


def start(module: str, *args: str, env: Mapping[str, str]) -> Program:
    """Start `python -m module args` with an environment; where that asks for what is read before the fork, by Python itself."""
    if all(env.get(name) == value for name, value in AT_THE_START.items()):
        return Forked(module, args, env)
    return subprocess.Popen([sys.executable, "-m", module, *args], text=True, env=dict(env), stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)


def _run(module: str, args: tuple[str, ...], env: dict[str, str], output: str) -> None:
    """In the new process."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
