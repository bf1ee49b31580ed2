"""A signal asks the run to save and leave. The handler only sets a flag; the ranks agree on it at a step boundary.

    signal -> flag on some ranks -> summed with the step's other numbers, so all ranks see it in the same step
           -> all save -> all leave with EXIT_PREEMPTED -> the batch script asks Slurm to requeue the job

Saving is collective under ZeRO: a handler that saved by itself, or on rank 0 alone, would hang or lose the run.
Loader workers and decoders ignore these signals (loader.py). Stdlib only, so that a rank listens before torch is loaded.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from vidmae.settings.signals import DEFAULT_SIGNALS, number_of

EXIT_PREEMPTED = 75  # EX_TEMPFAIL: saved and left before the end

_received: list[str] = []


def listen(names: Sequence[str] = DEFAULT_SIGNALS, tell: Callable[[int], None] | None = None) -> None:
    """Take these signals as the wish to stop, from now on; one that came before is kept.

    Args:
        names: Of the signals.
        tell: Called with the number of each that comes.
    """
    def note(number: int, _frame: FrameType | None) -> None:
        _received.append(signal.Signals(number).name)
        if tell is not None:
            tell(number)

    for name in names:
        signal.signal(number_of(name), note)


def received() -> str | None:
    """Name of the signal that asked this rank to stop, or None."""
    return _received[0] if _received else None


@contextmanager
def held(names: Sequence[str]) -> Iterator[None]:
    """These signals wait until the end of this context, and processes that are started in it never get them.

    For a compiler that is started while others are signalled, too: Slurm signals all processes of a job, and a compiler that
    a signal ends would fail the run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number_of(name) for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
