"""What programs share that deal clips out to shards: `python -m vidmae.PROGRAM OUT [--shard I/N]` on every rank."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from vidmae.ranks import dist
from vidmae.ranks.program import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from vidmae.runs.record import make_private_folder, read_json, write_json

EXIT_INCOMPLETE = 3  # some clips could not be read
W = TypeVar("W")


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


def in_parts(
    out: Path, shard: int, shards: int, say_every_s: float, *, open_work: Callable[[], tuple[W, dist.Ranks]],
    describe: Callable[[W], str], do_part: Callable[[W, Path, int, int, Say], None], merge: Callable[[W, list[Path]], None],
) -> int:
    """Do this rank's part of one shard, unless it is done, and the tables where all parts are.

    Args:
        out: Folder of the results; `result.json` in it says that all is done.
        shard: This one, from 0.
        shards: How many there are.
        say_every_s: Least seconds between two lines of progress.
        open_work: Reads what is asked for and joins the ranks.
        describe: What is about to be done, in one line.
        do_part: Writes the rows of a part, given its path, its number from 0 and the number of parts; reasons of clips that
            cannot be read first, by `write_unreadable`, since the path says that the part is done.
        merge: Makes the tables and `result.json` of the rows of all parts.
    Returns:
        0, or 3 where some clips could not be read.
    """
    result = out / "result.json"
    if not result.exists():
        work, ranks = open_work()
        part, parts = shard * ranks.world_size + ranks.rank, shards * ranks.world_size
        paths = [out / "parts" / f"of_{parts:04d}" / f"{each:04d}.csv" for each in range(parts)]
        say = Say(say_every_s if ranks.is_main else None)
        say(describe(work), now=True)
        if paths[part].exists():
            say(f"part {part + 1} of {parts} was done before")
        else:
            make_private_folder(paths[part].parent)  # from now on the folder is that of this configuration
            do_part(work, paths[part], part, parts, say)
        ranks.barrier()
        if ranks.is_main and all(path.exists() for path in paths):  # else other shards are at work
            merge(work, paths)
        ranks.barrier()  # on every rank, whatever came of it: none may wait for one that has left
    return EXIT_INCOMPLETE if (read_json(result) or {}).get("unreadable") else EXIT_OK


def write_unreadable(part: Path, reasons: Mapping[str, int]) -> None:
    """Keep beside the rows of a part why clips could not be read, and how many."""
    write_json(part.with_suffix(".json"), {"unreadable": dict(reasons)})


def read_unreadable(parts: Sequence[Path]) -> Counter[str]:
    """The reasons of all parts."""
    found = Counter[str]()
    for part in parts:
        found.update((read_json(part.with_suffix(".json")) or {})["unreadable"])
    return found


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
