"""Programs that begin in a process which has torch and deepspeed loaded already: for the smoke run, which starts twenty.

    python -m tests.gpu.warm SOCKET     loads them, says so on standard output, and forks a process for each program asked for

Loading takes longer than anything else that a smoke run does. Only on a CPU: CUDA does not survive a fork. What is loaded has
computed nothing, has no threads and has joined nobody, so a program finds what it would find after its own imports.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SOCKET = "VIDMAE_GPU_WARM"
"""Names the socket; where it is not set every program starts anew."""
MOST_BYTES = 2**20  # of a request: the environment, mostly


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


def start(module: str, args: Sequence[str], env: Mapping[str, str], out: IO[str], *, leads: bool = False) -> Any:
    """Start `python -m module` in this folder; a subprocess.Popen, or a Program.

    Args:
        module: With a `__main__`.
        args: Of its command line.
        env: Its environment; SOCKET in it says that a server starts it, which ends it where the one who asked has gone.
        out: Where its output goes.
        leads: It leads a process group of its own; those of a server always do.
    """
    if SOCKET not in env:
        return subprocess.Popen([sys.executable, "-m", module, *args], env=dict(env), stdout=out, stderr=out,
                                start_new_session=leads, text=True)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(env[SOCKET])
    request = json.dumps({"module": module, "args": list(args), "env": dict(env), "cwd": str(Path.cwd())}).encode()
    socket.send_fds(connection, [len(request).to_bytes(4, "big")], [out.fileno()])
    connection.sendall(request)
    return Program(connection)


def load() -> None:
    """Import what programs of a smoke run import; `vidmae` first, which sets what must be set before torch is loaded."""
    for name in ("vidmae", "torch._dynamo", "torch._functorch.aot_autograd", "tests.gpu.steps", "vidmae.train.trainer"):
        importlib.import_module(name)
    engine = importlib.import_module("vidmae.ranks.engine")
    engine._deepspeed(importlib.import_module("torch").device("cpu"))


def serve(path: str) -> None:
    """Load, then fork for every request until whoever started this has gone."""
    load()
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, f"{len(threads)} threads: they would be missing in a fork"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
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
    size, (out,), _, _ = socket.recv_fds(connection, 4, 1)
    request = json.loads(_received(connection, int.from_bytes(size, "big")))
    pid = os.fork()
    if pid == 0:
        connection.close()
        _run(request, out)
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


def _run(request: dict[str, Any], out: int) -> None:
    """Become the program. Does not return."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        sys.argv = [request["module"], *request["args"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
