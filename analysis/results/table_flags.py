"""What the command lines of this wing share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vidmae.ranks.local_program import refuse_known_folder
from vidmae.settings.command_line import Parser as Parser
from vidmae.settings.layers import ConfigError

RUNS_DIR = Path("runs")
"""The default of `--runs-dir`; another path that says the same was given by the user."""


def number(least: float, most: float, unit: str = "") -> Callable[[str], float]:
    """An argparse type: a number in a range, whole where the range is."""
    kind = type(least)
    allowed = f"{'a whole' if kind is int else 'a'} number, {least:,.10g} to {most:,.10g} {unit}".rstrip()

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not allowed: {allowed}")
        return value

    return parse


def tables_folder(text: str) -> Path:
    """`--out`: where tables go; see `refuse_known_folder`."""
    try:
        refuse_known_folder(Path(text))
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--out ")) from error
    return Path(text)


def add_tables_output(parser: argparse.ArgumentParser, *, numbers: str = "rows") -> None:
    """Where tables and figures go, and what is printed.

    Args:
        parser: Of the command.
        numbers: What --json has beside the files.
    """
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=tables_folder, default=Path("tables"), metavar="FOLDER",
                     help="where tables and figures go (default: %(default)s)")
    out.add_argument("--no-figures", action="store_true", help="write tables only")
    out.add_argument("--json", action="store_true",
                     help=f"one object instead of the paths: files, {numbers}, what is missing")


def add_folders(group: Any) -> None:
    """Folders of runs by position, or `--runs-dir` as in the other commands; see `folders_of`."""
    group.add_argument("folders", type=Path, nargs="*", metavar="FOLDER",
                       help="folders with run folders (default: that of --runs-dir)")
    add_runs_dir(group)


def folders_of(args: argparse.Namespace) -> list[Path]:
    """The folders of runs that `add_folders` took.

    Raises:
        ValueError: Folders and `--runs-dir` are both given, or `--runs-dir` is given and is no folder.
    """
    if args.runs_dir is not RUNS_DIR:
        if args.folders:
            raise ValueError(f"--runs-dir {args.runs_dir} and folders ({', '.join(map(str, args.folders))}) are both given; "
                             "name all of them as folders, or leave them out")
        if not args.runs_dir.is_dir():
            raise ValueError(f"--runs-dir {args.runs_dir} is not a folder")
    return args.folders or [args.runs_dir]


def add_runs_dir(group: Any) -> None:
    """`--runs-dir`."""
    group.add_argument("--runs-dir", type=Path, default=RUNS_DIR, metavar="FOLDER",
                       help="folder of the run folders (default: %(default)s)")
