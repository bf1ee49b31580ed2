"""What programs share that deal clips out to shards: `python -m vidmae.PROGRAM OUT [--shard I/N]` on every rank."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from vidmae.ranks import dist
from vidmae.ranks.program import EXIT_FAILED, EXIT_USAGE

EXIT_INCOMPLETE = 3  # some clips could not be read


class Say:
    """Lines on standard output, those of progress (`3/9 clips`) not too often; None keeps silent."""

    def __init__(self, every_s: float | None) -> None:
        self._every_s, self._last = every_s, float("-inf")

    def __call__(self, text: str, *, now: bool = False) -> None:
        """Print a line, or leave it out."""
        if self._every_s is None:
            return
        done, _, total = text.split()[0].partition("/")
        if now or done == total or not total or time.monotonic() - self._last >= self._every_s:
            self._last = time.monotonic()
            print(text, flush=True)


def run(program: str, argv: Sequence[str] | None, work: Callable[[Path, int, int, float], int]) -> int:
    """Do this rank's part of a shard.

    Args:
        program: Its module.
        argv: OUT, --shard I/N and --say-every-s; None takes the command line.
        work: Does it, given OUT, I, N and the least seconds between two lines of progress; returns the exit code.
    Returns:
        0 done, 1 failed, 2 cannot be done as asked, 3 some clips could not be read.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}")
    parser.add_argument("out", type=Path)
    parser.add_argument("--shard", type=parse_shard, default=(0, 1))
    parser.add_argument("--say-every-s", type=float, default=10.0)
    args = parser.parse_args(argv)
    shard, shards = args.shard
    try:
        return answer(lambda: work(args.out, shard, shards, args.say_every_s))
    finally:
        dist.close()


def answer(work: Callable[[], int]) -> int:
    """The work's own exit code, or that of its error, which is said: 2 what a user did, 1 anything else."""
    try:
        return work()
    except (ValueError, dist.RankError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except Exception:
        traceback.print_exc()
        return EXIT_FAILED


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` as numbers, I from 0.

    Raises:
        argparse.ArgumentTypeError: It has another form.
    """
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1, such as 0/4")
    return int(first), int(second)
