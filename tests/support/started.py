"""Programs that a test starts, and what they print: forked from one that has torch and deepspeed loaded, or by Python itself."""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

from tests.support.facilities import own_folder
from tests.support.programs import forked

ROOT = Path(__file__).resolve().parents[2]
LOADED = "tests.support.programs.loaded"
AT_THE_START = {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
"""What of the environment must be so when torch is loaded, in the server and in the programs that compute."""
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
"""For the server: pandas loads pyarrow, whose allocator would start a thread, and a process with threads must not be forked."""


class Started:
    """A program that runs; as much of `subprocess.Popen` as the tests use.

    Args:
        program: A module, or the path of a script; see `forked.start`.
        args: Of its command line.
        env: Its environment.
        cwd: The folder that it starts in; None: this process's.
        merged: Its standard error goes where its standard output goes.
        anew: Python itself starts it, as a user does.
    """

    def __init__(self, program: str, *args: str, env: Mapping[str, str], cwd: Path | None = None, merged: bool = False,
                 anew: bool = False) -> None:
        self.args = [program, *args]
        self._texts: tuple[str, str] | None = None
        self._out = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the program and what asks for it)
        self._err = self._out if merged else tempfile.TemporaryFile()  # noqa: SIM115
        if anew:
            self._program = forked.start(program, args, env, self._out, self._err, cwd=cwd)
        else:
            self._program = forked.ask(_server(), program, args, env, self._out, self._err, cwd or Path.cwd())
        self.pid: int = self._program.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or minus the signal; None while it runs."""
        code: int | None = self._program.poll()
        return code

    def poll(self) -> int | None:
        """See `returncode`."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        self._program.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._program.kill()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; see `returncode`.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        code: int = self._program.wait(timeout)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; what it printed to standard output and, unless merged, to standard error.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        self.wait(timeout)
        if self._texts is None:
            self._texts = _read(self._out), "" if self._err is self._out else _read(self._err)
        return self._texts


def _read(file: IO[bytes]) -> str:
    """All of a file, which is closed."""
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")


def run(program: str, *args: str, env: Mapping[str, str], cwd: Path | None = None, timeout_s: float = 300,
        anew: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; see `Started`.

    Raises:
        subprocess.TimeoutExpired: It takes longer than `timeout_s`, and was killed.
    """
    started = Started(program, *args, env=env, cwd=cwd, anew=anew)
    try:
        out, err = started.communicate(timeout=timeout_s)
    finally:
        started.kill()
    return subprocess.CompletedProcess(started.args, started.wait(), out, err)


def _server() -> str:
    """The address of this process's server.

    Raises:
        forked.NotLoaded: It could not be started, which is tried once.
    """
    found = _address()
    if isinstance(found, forked.NotLoaded):
        raise forked.NotLoaded(str(found))
    return found


@cache
def _address() -> str | forked.NotLoaded:
    """Start the server, when first asked for; its address, or why there is none."""
    owner, left, address = os.getpid(), contextlib.ExitStack(), own_folder("forked") / "socket"
    atexit.register(lambda: left.close() if os.getpid() == owner else None)  # not in processes that this one forks
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    try:
        left.enter_context(forked.server(address, LOADED, {**clean, **AT_THE_START, **NO_THREAD}, ROOT))
    except forked.NotLoaded as error:
        return error
    return str(address)
