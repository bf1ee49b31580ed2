"""A rank that waits in vain ends itself: its peer is stopped or hangs, and a collective would wait for half an hour.

The clock is faulthandler's: a C thread that needs no interpreter lock, so it also ends a rank whose decoder or kernel
hangs while holding it. It writes where every thread stood to the log and leaves with exit code 1; `srun
--kill-on-bad-exit` then ends the other ranks, the stopped one too. Of several ranks each writes the same to a file of its
own a little earlier (stack_file.py), from which it is told which of them did not come (health/hang_report.py).
"""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path
from typing import NoReturn

from vidmae.ranks.stack_file import StackFile

_stacks: list[StackFile] = []  # none, or the one of this rank


def write_stacks_to(folder: Path, rank: int, world_size: int) -> None:
    """From the next `expect_within` on, write where this rank stands to a file in `folder`, too, before it is ended."""
    _stacks.append(StackFile(folder, rank, world_size))


def end_stacks() -> None:
    """This rank leaves by itself: remove its file, unless it says where the rank hung."""
    while _stacks:
        _stacks.pop().close()


def expect_within(limit_s: float) -> None:
    """End this process unless it is told anew within `limit_s`; 0 stops the clock."""
    for stacks in _stacks:
        stacks.expect_within(limit_s)
    if limit_s > 0:
        faulthandler.dump_traceback_later(limit_s, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def end_process(code: int) -> NoReturn:
    """End this process at once, its output flushed.

    What is skipped is the teardown of C++ libraries. On a busy machine a rank that has done all its work aborts in it now
    and then (`terminate called without an active exception`, torch 2.13 with gloo and deepspeed 0.19), and would count as
    failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
