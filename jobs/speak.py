"""How a launcher speaks to people: lines on standard error, and an error as one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from jobs.slurm import SlurmError


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def fail(message: str, code: int) -> int:
    """An error on standard error; its exit code."""
    say(f"error: {message}")
    return code


def answer(work: Callable[[], int], *, interrupted: str) -> int:
    """Do the work of a command line; the exit code.

    Args:
        work: Its own exit code is taken as it is.
        interrupted: What to know after Ctrl-C.
    Returns:
        4 where Slurm refused or is away, 2 where something cannot be used, 130 after Ctrl-C, else what the work returned.
    """
    try:
        return work()
    except SlurmError as error:
        return fail(str(error), 4)
    except ValueError as error:
        return fail(str(error), 2)
    except OSError as error:
        return fail(f"{error.filename}: {error.strerror}", 2)
    except KeyboardInterrupt:
        say(f"\ninterrupted; {interrupted}")
        return 130
