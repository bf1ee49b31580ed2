"""Call a function on many items in processes that can be killed when one of them takes too long.

A video decoder can hang in native code while it holds the interpreter lock (dmlc/decord#220, #269, #363): no thread, signal
handler or timeout inside the process gets a turn then. Only the end of the process bounds it.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """What came of item `index`: a value, or the reason why there is none."""

    index: int
    value: Value | None
    reason: str | None


class _Worker:
    """One process and the item that it works on."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self.process.start()
        theirs.close()
        self.index: int | None = None
        self.deadline = float("inf")
        self.ready = False

    def give(self, index: int, item: Any) -> None:
        self.index = index
        self.pipe.send(item)

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    pipe.send(None)  # imported and ready: an item's time begins after this
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        answer: tuple[Any, str | None]
        try:
            answer = (function(item), None)
        except Exception as error:
            answer = (None, str(error) or type(error).__name__)
        pipe.send(answer)


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
    todo = list(range(len(items)))[::-1]
    pool = [_Worker(function) for _ in range(min(workers, len(items)))]
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
                        worker.process.join()
                        if worker.index is None:
                            raise RuntimeError(f"a worker process died at its start (exit code "
                                               f"{worker.process.exitcode})") from None
                        outcome = Outcome(worker.index, None, f"the decoder crashed (exit code {worker.process.exitcode})")
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
                        worker = pool[i] = _Worker(function)
                if worker.ready and worker.index is None and todo:
                    index = todo.pop()
                    worker.give(index, items[index])
                    worker.deadline = time.monotonic() + time_limit_s
    finally:
        for worker in pool:
            worker.end()
