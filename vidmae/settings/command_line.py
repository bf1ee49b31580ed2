"""What command lines share: short names of settings, and an error as one line and an exit code. Stdlib only."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of writing that name no file, or one that was only read."""
SHORT_NAMES = {"lr": "train.phases.0.lr", "blr": "train.phases.0.blr", "duration": "train.phases.0.duration",
               "batch": "train.global_batch", "workers": "data.workers"}
"""What may be typed for a setting in `--set` and `--vary`. Recipes and records have the whole keys."""


def with_whole_key(item: str) -> str:
    """An argparse type: `key=value`, in which a short name of a setting becomes the whole key."""
    key, equals, value = item.partition("=")
    return f"{SHORT_NAMES.get(key.strip(), key)}{equals}{value}"


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
