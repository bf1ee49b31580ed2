"""The shards of a program on this machine: one process after the other, with a bar that shows how far it is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from vidmae.ranks.local_program import BAR_EVERY_S, run_program
from vidmae.settings.layers import ConfigError

INCOMPLETE = 3  # exit code: some clips could not be read


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes:
        module: The program, such as `vidmae.insight.embed`.
        out: Folder of the results.
        shards: N.
        device: auto, cuda or cpu.
        workers: Reading processes of each rank.
    """

    module: str
    out: Path
    shards: int
    device: str
    workers: int


def command_of(work: Work, number: int) -> list[str]:
    """The command of one shard on this machine."""
    return [sys.executable, "-m", work.module, *_arguments(work, number)]


def run_here(work: Work, console: Console) -> int:
    """Run all shards here, one after the other, each in a process of its own; exit code of the first that fails, or 0."""
    for number in range(work.shards):
        if (work.out / "result.json").exists():
            break
        arguments = [*_arguments(work, number), "--say-every-s", str(BAR_EVERY_S)]
        code = run_program(work.module, arguments, console, "clips", ["scenes"], workers=work.workers)
        if code not in (0, INCOMPLETE):
            return code
    if not (work.out / "result.json").exists():
        raise ConfigError(f"all shards are done and {work.out}/result.json is missing; does another command work there?")
    return 0


def _arguments(work: Work, number: int) -> list[str]:
    return [str(work.out), "--shard", f"{number}/{work.shards}"]
