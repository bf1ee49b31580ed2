"""The names of the signals that ask a run to save and leave. Stdlib only."""

from __future__ import annotations

import signal

DEFAULT_SIGNALS = ("USR2", "TERM")


def number_of(name: str) -> int:
    """The number of a signal named as sbatch names it, such as `USR2`.

    Raises:
        ValueError: There is no such signal, or it cannot be caught.
    """
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals) or found in (signal.SIGKILL, signal.SIGSTOP):
        raise ValueError(f"{name!r} is no signal that can be caught; known: USR1, USR2, TERM, HUP, INT ...")
    return int(found)
