"""How a launcher speaks to people: lines on standard error, and an error as one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from jobs.place.scheduler.commands import SlurmError
from vidmae.settings import command_line

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """What shows progress and tables on standard error."""
    from rich.console import Console  # here: a command that lacks a library says so, once `jobs` is imported

    return Console(stderr=True)


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


def fail(message: str, code: int) -> int:
    """An error on standard error; its exit code."""
    say(f"error: {message}")
    return code


def answer(work: Callable[[], int], *, interrupted: str) -> int:
    """Do the work of a command line; the exit code: 4 where Slurm refused or is away, else see `command_line.answer`."""
    try:
        return command_line.answer(work, interrupted=interrupted)
    except SlurmError as error:
        return fail(str(error), 4)


def with_origins(values: Mapping[str, object], origins: Mapping[str, str]) -> list[str]:
    """Values as lines of YAML, each with where it comes from as a comment."""
    import yaml

    texts = {key: yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("...").strip()
             for key, value in values.items()}
    width = min(60, max(len(f"{key}: {text}") for key, text in texts.items()))
    return [f"{f'{key}: {text}':<{width}}  # {origins.get(key, 'default')}" for key, text in texts.items()]
