"""What command lines share: the parser, short names of settings, and an error as one line and an exit code. Stdlib only.

argparse stays: it imports in 11 ms, click in 49, typer in 58, tyro in 80 and simple-parsing in 87, and what they would
replace is the class `Parser`, 14 lines. A flag takes one declaration with each of them.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of writing that name no file, or one that was only read."""
SHORT_NAMES = {"lr": "train.phases.0.lr", "blr": "train.phases.0.blr", "duration": "train.phases.0.duration",
               "batch": "train.global_batch", "workers": "data.workers"}
"""What may be typed for a setting in `--set` and `--vary`. Recipes and records have the whole keys."""


class Parser(argparse.ArgumentParser):
    """No abbreviations, an error in one line, and the nearest flags for one that is misspelt."""

    def __init__(self, description: str | None = None, **more: Any) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, or leave with exit code 2 and a message that names the nearest flags."""
        known, unknown = self.parse_known_args(args, namespace)
        if unknown:
            verbs = [verb for each in self._actions if isinstance(each.choices, dict) for verb in each.choices.values()]
            flags = sorted({flag for each in (self, *verbs) for flag in each._option_string_actions if flag[:2] == "--"})
            self.error(f"unknown argument {unknown[0]!r}{nearest(unknown[0].partition('=')[0], flags)}")
        return known

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2; the flags are a page long, so they are not repeated here."""
        self.exit(2, f"error: {message} (--help lists the flags)\n")


def nearest(name: str, known: Sequence[str], prefix: str = "") -> str:
    """`, did you mean ...?` for a misspelt name, or nothing."""
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f", did you mean {' or '.join(prefix + c for c in close)}?" if close else ""


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
