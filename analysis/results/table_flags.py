"""What the command lines of this wing share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from vidmae.ranks.local_program import refuse_known_folder
from vidmae.settings.layers import ConfigError


class Parser(argparse.ArgumentParser):
    """No abbreviations; an error is one line."""

    def __init__(self, description: str | None) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Leave with exit code 2."""
        self.exit(2, f"error: {message} (--help lists the flags)\n")


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


def add_runs_dir(group: Any) -> None:
    """`--runs-dir`."""
    group.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="FOLDER",
                       help="folder of the run folders (default: %(default)s)")
