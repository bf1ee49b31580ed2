"""Labelled clips that the cells of sweeps share: prepared once, kept by content, whichever sweep asks for them.

    runs/clips/256px-15fps-q90/asked.csv     every clip that a sweep ever asked for, as the manifest of its files has it
    runs/clips/256px-15fps-q90/clips.csv     the same prepared: what cells read (vidmae/labels/pooled_clips.py)
    runs/clips/256px-15fps-q90/frames-*      archives, as `jobs/prepare.py footage` makes them; a later sweep adds some

How they are prepared: `Preparation.for_clips`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from vidmae.footage.known.facts import NO_FACTS
from vidmae.footage.manifest import Check, ManifestError, Row, Summary, read_all, read_summary, write_manifest
from vidmae.preparing.preparation import Preparation, PrepareError
from vidmae.preparing.prepare_archives import Report, Tell, prepare
from vidmae.preparing.prepared_folder import Order, reopen
from vidmae.runs.record import held, make_private_folder
from vidmae.settings.programs.prepare_config import PrepareConfig

ASKED, CLIPS = "asked.csv", "clips.csv"


def config_of(folder: Path, how: Preparation) -> PrepareConfig:
    """What a job that fills the folder is told."""
    asked = folder / ASKED
    return PrepareConfig(str(asked), read_summary(asked).content_sha256, str(folder / CLIPS), **asdict(how))


def not_asked(folder: Path, rows: Sequence[Row]) -> list[Row]:
    """The clips that no sweep has asked for yet, each content once."""
    there = {row.content for row in _asked(folder)}
    return list({row.content: row for row in rows if row.content not in there}.values())


def ask(folder: Path, how: Preparation, rows: Sequence[Row]) -> int:
    """Note clips that are to be prepared; how many of them nobody has asked for before.

    Raises:
        PrepareError: They are prepared footage already.
        RunLockedError: Another call is at the same, or the folder is being filled.
    """
    if any(row.source for row in rows):
        raise PrepareError("clips of prepared footage need not be prepared again: leave out --prepare")
    make_private_folder(folder)
    lock = folder / ".asking.json"
    with held(lock, heartbeat=lock, what=f"another sweep asks for clips in {folder}", remedy="start again in a minute"):
        new = not_asked(folder, rows)
        if new:
            bare = [replace(row, label="", facts=NO_FACTS) for row in new]
            write_manifest(folder / ASKED, [*_asked(folder), *bare], [], Check("auto", True))
            reopen(_order(folder, how))
    return len(new)


def is_filled(folder: Path) -> bool:
    """Whether all clips that were asked for are prepared, or have been tried."""
    try:
        made = read_summary(folder / CLIPS)
        return (made.prepared or {}).get("of_content_sha256") == read_summary(folder / ASKED).content_sha256
    except ManifestError:
        return False


def fill(folder: Path, how: Preparation, *, workers: int, tell: Tell) -> tuple[Summary, Report]:
    """Prepare on this machine what is missing.

    Args:
        folder: Of the clips.
        how: The settings.
        workers: Processes.
        tell: Told of the progress.
    Raises:
        PrepareError: Nothing can be written.
        RunLockedError: Another call is at work in it.
    """
    summary, report = prepare(_order(folder, how), workers=workers, time_limit_s=0.0, tell=tell)
    assert summary is not None
    return summary, report


def _order(folder: Path, how: Preparation) -> Order:
    return Order(folder / ASKED, how, folder, folder / CLIPS)


def _asked(folder: Path) -> list[Row]:
    return read_all(folder / ASKED)[1] if (folder / ASKED).exists() else []
