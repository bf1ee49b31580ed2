"""What a command line makes of an error: one line on standard error, and an exit code. Stdlib only."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of writing that name no file, or one that was only read."""

def text_of(error: Exception) -> str:
    """An error in one line; of the system's errors the file and what is wrong with it, without a number."""
    if not isinstance(error, OSError):
        return str(error)
    where = "the output, or the folder for temporary files" if error.errno in FULL else error.filename
    return f"{where}: {error.strerror}" if where else str(error.strerror or error)


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
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        print(f"\ninterrupted; {interrupted}", file=sys.stderr, flush=True)
        return 130
