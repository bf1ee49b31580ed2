"""Call a function in processes that can be killed when it takes too long: `map_killable`, `KillableProcess`.

A video decoder can hang in native code while it holds the interpreter lock (dmlc/decord#220, #269, #363): no thread, signal
handler or timeout inside the process gets a turn then. Only the end of the process bounds it.

pebble's ProcessPool bounds and replaces such workers, too. This stays by hand: a call costs 0.28 ms here and 0.77 ms there,
with three threads in the caller; a worker that hangs outlives there a caller that is killed with SIGKILL, here it ends; once
in 13 tries the crash of one item was counted there for the item before it; and nothing there bounds the growth of memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import multiprocessing.context
import multiprocessing.popen_fork
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")

START_LIMIT_S = 300.0  # libraries may come from a cold and busy file system
SETTLE_CALLS = 20  # after which a process has the memory that it needs
PR_SET_PDEATHSIG = 1  # of prctl(2)
JOB_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class _Popen(multiprocessing.popen_fork.Popen):
    """Processes that ignore SIGTERM and may hang with the interpreter lock: only SIGKILL ends them."""

    def terminate(self) -> None:
        self.kill()


class _ForkProcess(multiprocessing.context.ForkProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:
        return _Popen(process_obj)

    def start(self) -> None:
        """Also in a daemonic process, such as a DataLoader worker: `follow_parent` leaves no orphan."""
        config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        daemonic, config["daemon"] = config.get("daemon"), False
        try:
            super().start()
        finally:
            config["daemon"] = daemonic


class KillableFork(multiprocessing.context.ForkContext):
    """Makes forked processes that are ended with SIGKILL; call `follow_parent` in each."""

    Process = _ForkProcess


def follow_parent() -> None:
    """Make this process end when the thread that started it does, however that ends, and not at the job's signals.

    Slurm's signals reach every process of a step, Ctrl-C every process of a terminal; what they mean is the parent's
    affair, which needs this process until it has saved. Handlers that were inherited from it are dropped.
    """
    for number in signal.valid_signals():
        if number in JOB_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        elif callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """Make this process end when the thread that started it does, however that ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it ended before the line above


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What came of item `index`: a value, or the reason why there is none."""

    index: int
    value: Value | None
    reason: str | None


class _Worker:
    """One process and the item that it works on."""

    def __init__(self, context: Any, serve: Callable[..., None], *args: Any) -> None:
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=serve, args=(theirs, *args), daemon=True)
        self.process.start()
        theirs.close()
        self.owner = os.getpid()
        self.index: int | None = None
        self.deadline = float("inf")
        self.ready = False

    def give(self, index: int, item: Any) -> None:
        self.index = index
        self.pipe.send(item)

    def end(self) -> None:
        if os.getpid() == self.owner:  # a forked copy of this object must not end the original's process
            self.pipe.close()
            self.process.kill()
            self.process.join()

    def exit_reason(self) -> str:
        self.process.join()
        return f"exit code {self.process.exitcode}"


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):  # the caller is gone, or Ctrl-C ends both
        _answer_calls(pipe, function)


def _answer_calls(pipe: Connection, function: Callable[[Any], Any]) -> None:
    pipe.send(None)  # imported and ready: an item's time begins after this
    while True:
        item = pipe.recv()
        answer: tuple[Any, str | None]
        try:
            answer = (function(item), None)
        except Exception as error:
            answer = (None, str(error) or type(error).__name__)
        pipe.send(answer)


def _serve_forked(pipe: Connection, set_up: Callable[[], None], function: Callable[[Any], Any]) -> None:
    follow_parent()
    set_up()
    _serve(pipe, function)


class KillableProcess(Generic[Item, Value]):
    """A function that is called again and again in one process of its own.

    The process is forked from the caller at the first call, so nothing needs to be picklable but items and values. It is
    killed where it takes too long, and ends with this object; after its loss the next call starts another.

    Args:
        function: Its exceptions become reasons.
        time_limit_s: Seconds for one call.
        max_growth_bytes: The process is replaced when its own memory has grown by more since its first calls.
        set_up: Called once in the process, outside the time limit.
    """

    def __init__(self, function: Callable[[Item], Value], *, time_limit_s: float, max_growth_bytes: int,
                 set_up: Callable[[], None]) -> None:
        self._function, self._set_up = function, set_up
        self._time_limit_s, self._max_growth_bytes = time_limit_s, max_growth_bytes
        self._worker: _Worker | None = None
        self._calls = self._settled_bytes = 0

    def __call__(self, item: Item) -> tuple[Value | None, str | None]:
        """Call the function.

        Returns:
            Its value and None; or None and the reason why there is no value.
        Raises:
            RuntimeError: The process cannot be started.
        """
        if self._worker is not None and not self._worker.process.is_alive():
            self.end()  # killed while it had nothing to do: no item's fault
        worker = self._worker or self._start()
        try:
            worker.pipe.send(item)
            if worker.pipe.poll(self._time_limit_s):
                answer: tuple[Value | None, str | None] = worker.pipe.recv()
                self._replace_if_grown(worker)
                return answer
            reason = f"no answer within {self._time_limit_s:g} s (the decoder hangs)"
        except (EOFError, OSError):
            reason = f"the decoder crashed ({worker.exit_reason()})"
        except BaseException:  # Ctrl-C: the answer that is still to come must not be taken for the next item's
            self.end()
            raise
        self.end()
        return None, reason

    def _start(self) -> _Worker:
        worker = self._worker = _Worker(KillableFork(), _serve_forked, self._set_up, self._function)
        self._end_worker = weakref.finalize(self, worker.end)
        self._calls = 0
        try:
            if not worker.pipe.poll(START_LIMIT_S):
                raise RuntimeError(f"a reading process was not ready within {START_LIMIT_S:g} s")
            worker.pipe.recv()
        except (EOFError, OSError):
            raise RuntimeError(f"a reading process died at its start ({worker.exit_reason()})") from None
        return worker

    def _replace_if_grown(self, worker: _Worker) -> None:
        self._calls += 1
        size = _own_bytes(worker.process.pid)
        if self._calls <= SETTLE_CALLS:
            self._settled_bytes = size
        elif size - self._settled_bytes > self._max_growth_bytes:
            self.end()

    def end(self) -> None:
        """Kill the process, if there is one."""
        if self._worker is not None:
            self._worker = None
            self._end_worker()


def _own_bytes(pid: int | None) -> int:
    """Resident memory of a process that is no file's and not shared by intent."""
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def map_killable(function: Callable[[Item], Value], items: Sequence[Item], *, workers: int,
                 time_limit_s: float) -> Iterator[Outcome[Value]]:
    """Call `function(item)` for all items, in any order.

    Args:
        function: Importable by name; an exception becomes the item's reason.
        items: What it is called with.
        workers: Processes.
        time_limit_s: Seconds for one item; then its process is killed and replaced.
    Yields:
        One outcome for every item, as they come.
    """
    spawn = multiprocessing.get_context("spawn")
    todo = list(range(len(items)))[::-1]
    pool = [_Worker(spawn, _serve, function) for _ in range(min(workers, len(items)))]
    left = len(items)
    try:
        while left:
            now = time.monotonic()
            timeout = max(0.0, min((w.deadline for w in pool), default=now) - now)
            ready = wait([w.pipe for w in pool], timeout=min(timeout, 3600))
            for i, worker in enumerate(pool):
                outcome: Outcome[Value] | None = None
                if worker.pipe in ready:
                    try:
                        answer = worker.pipe.recv()
                    except (EOFError, OSError):
                        code = worker.exit_reason()
                        if worker.index is None:
                            raise RuntimeError(f"a worker process died at its start ({code})") from None
                        outcome = Outcome(worker.index, None, f"the decoder crashed ({code})")
                    else:
                        if worker.ready and worker.index is not None:
                            outcome = Outcome(worker.index, *answer)
                        worker.ready = True
                elif time.monotonic() >= worker.deadline and worker.index is not None:
                    outcome = Outcome(worker.index, None, f"no answer within {time_limit_s:g} s (the decoder hangs)")
                if outcome is not None:
                    left -= 1
                    yield outcome
                    worker.index, worker.deadline = None, float("inf")
                    if not worker.process.is_alive() or worker.pipe not in ready:
                        worker.end()
                        worker = pool[i] = _Worker(spawn, _serve, function)
                if worker.ready and worker.index is None and todo:
                    index = todo.pop()
                    worker.give(index, items[index])
                    worker.deadline = time.monotonic() + time_limit_s
    finally:
        for worker in pool:
            worker.end()
