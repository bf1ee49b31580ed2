"""Programs that begin in a process which has torch and deepspeed loaded already: each start costs 3 to 4 s of CPU less.

    python -m tests.support.programs.forked SOCKET LOADED     loads the module LOADED, says so on standard output, and forks a
                                                              process for each program asked for

A program is a process of its own all the same, as `python -m MODULE ARGS` or `python SCRIPT ARGS` makes it: forked before
anything was computed, with no threads, and its module or script is run anew as `__main__`. What is read before a program
begins (OMP_NUM_THREADS, the variables of Python) is that of the server. Only on a CPU: CUDA does not survive a fork.

tests/support/started.py starts a server when a test first needs one, tests/gpu/run.py another for a smoke run. It ends with
the process that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SOCKET = "VIDMAE_TESTS_FORKED"
"""In the environment of a program: names the socket of the server that starts it. Where it is not set, Python itself does."""
MOST_BYTES = 2**20  # of a request: the environment, mostly


class NotLoaded(RuntimeError):
    """A server could not load its module."""


class Program:
    """A program that the server runs, with what its users need of a subprocess.Popen."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid, self.returncode = self._number(), None

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one.

        Raises:
            subprocess.TimeoutExpired: There is none in so many seconds.
        """
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, where it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout_s)[0]:
            self.returncode = self._number()
            self._connection.close()
        return self.returncode

    def _number(self) -> int:
        """A line from the server's side."""
        line = b""
        while not line.endswith(b"\n"):
            byte = self._connection.recv(1)
            if not byte:
                raise RuntimeError(f"{SOCKET}: the process that keeps a program has gone")
            line += byte
        return int(line)


def start(program: str, args: Sequence[str], env: Mapping[str, str], out: IO[Any], err: IO[Any] | None = None, *,
          cwd: Path | None = None, leads: bool = False) -> Any:
    """Start `python -m program` or, where it ends in `.py`, `python program`; a subprocess.Popen, or a Program.

    Args:
        program: A module with a `__main__`, or the path of a script.
        args: Of its command line.
        env: Its environment; SOCKET in it says that a server starts it, which ends it where the one who asked has gone.
        out: Where its standard output goes.
        err: Where its standard error goes; None: there, too.
        cwd: The folder that it starts in; None: this process's.
        leads: It leads a process group of its own; those of a server always do.
    """
    if SOCKET not in env:
        command = [program] if program.endswith(".py") else ["-m", program]
        return subprocess.Popen([sys.executable, *command, *args], env=dict(env), stdout=out, stderr=err or out, cwd=cwd,
                                stdin=subprocess.DEVNULL, start_new_session=leads, text=True)
    return ask(env[SOCKET], program, args, env, out, err or out, cwd or Path.cwd())


def ask(address: str, program: str, args: Sequence[str], env: Mapping[str, str], out: IO[Any], err: IO[Any], cwd: Path) -> Program:
    """Let the server at an address start a program; see `start`."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    request = json.dumps({"program": program, "args": list(args), "env": dict(env), "cwd": str(cwd)}).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], [out.fileno(), err.fileno()])
    connection.sendall(request)
    return Program(connection)


@contextlib.contextmanager
def server(address: Path, loaded: str, env: Mapping[str, str], cwd: Path) -> Iterator[None]:
    """A server in a folder as long as the block runs: `ask` it, or give programs an environment with `SOCKET: address`.

    Raises:
        NotLoaded: It cannot load the module; the reason is on standard error.
    """
    process = subprocess.Popen([sys.executable, "-m", __name__, str(address), loaded], cwd=cwd, env=dict(env),
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != b"ready":
            raise NotLoaded(f"the process that loads {loaded} has failed: its words are above")
        yield
    finally:
        process.kill()
        process.wait()


def serve(address: str, loaded: str) -> None:
    """Load, then fork for every request until whoever started this has gone."""
    importlib.import_module(loaded)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, f"{len(threads)} threads: they would be missing in a fork"
    gc.collect()
    gc.freeze()  # what is loaded is neither searched nor copied by each program
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
        while select.select([listener, sys.stdin], [], [])[0] == [listener]:
            connection = listener.accept()[0]
            if os.fork() == 0:
                try:
                    listener.close()
                    _keep(connection)
                finally:
                    os._exit(1)
            connection.close()


def _keep(connection: socket.socket) -> None:
    """Run one program and tell how it ended; end it with its children where nobody is there to be told. Does not return."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asked
    size, streams, _, _ = socket.recv_fds(connection, 4, 2)
    request = json.loads(_received(connection, int.from_bytes(size, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(request, streams)
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{pid}\n".encode())
    ended = os.pidfd_open(pid)
    if ended not in select.select([connection, ended], [], [])[0]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _received(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(min(MOST_BYTES, size - len(data)))
        if not part:
            raise EOFError("who asked for a program has gone")
        data += part
    return data


def _run(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Become the program. Does not return."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for target, source in enumerate((os.open(os.devnull, os.O_RDONLY), *streams)):
            os.dup2(source, target)
            os.close(source)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        program, args = request["program"], request["args"]
        sys.argv = [program, *args]
        if program.endswith(".py"):
            sys.path[0] = str(Path(program).parent)
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for end in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
            with contextlib.suppress(BaseException):
                end()
        os._exit(code)


if __name__ == "__main__":
    serve(*sys.argv[1:])
