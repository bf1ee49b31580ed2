"""What a command line makes of an error: one line on standard error, and an exit code. Stdlib only."""

from __future__ import annotations

import sys
from collections.abc import Callable


def answer(work: Callable[[], int], *, interrupted: str) -> int:
    """Do the work of a command line; the exit code.

    Args:
        work: Its own exit code is taken as it is.
        interrupted: What to know after Ctrl-C.
    Returns:
        2 where something cannot be used, which is said in one line, 130 after Ctrl-C, else what the work returned.
    """
    try:
        return work()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr, flush=True)
        return 130
