"""Work of rank 0 alone that takes long: the other ranks wait for it without a collective that would give up on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from vidmae.ranks import preempt
from vidmae.ranks.dist import Ranks

T = TypeVar("T")
POLL_S = 1.0


class _Work(Generic[T]):
    """A function in a thread of its own; at the end of the program it is not waited for."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.value: T | None = None
        self.error: Exception | None = None
        self._function = function
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.value = self._function()
        except Exception as error:  # raised again by whoever waits
            self.error = error

    def is_done(self, within_s: float) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()


def on_main(function: Callable[[], T], ranks: Ranks, tick: Callable[[], object]) -> tuple[bool, T | None]:
    """Call a function on rank 0, in a thread, until it returns or a signal asks any rank to stop. Collective.

    Args:
        function: What rank 0 does.
        ranks: All ranks.
        tick: Called every second on each rank: the sign of life.
    Returns:
        False where a signal came first (the thread goes on until the process ends), and on rank 0 the function's value.
    Raises:
        Exception: What the function raised; on the other ranks one of the same message.
    """
    work = _Work(function) if ranks.is_main else None
    while True:
        done, problem = ranks.from_main(_state(work) if work else None)
        if problem is not None:
            if work is not None and work.error is not None:
                raise work.error
            raise problem
        if done:
            return True, work.value if work else None
        tick()
        if asked_to_stop(ranks):
            return False, None


def asked_to_stop(ranks: Ranks) -> bool:
    """Whether a signal asked any rank to stop; the same on every rank. Collective."""
    return ranks.sum([float(preempt.received() is not None)])[0] > 0


def _state(work: _Work[T]) -> tuple[bool, Exception | None]:
    """Whether it is done, and an error that can travel to the other ranks."""
    done = work.is_done(POLL_S)
    if work.error is None:
        return done, None
    kind = ValueError if isinstance(work.error, ValueError) else RuntimeError
    return True, kind(f"rank 0: {work.error}")
