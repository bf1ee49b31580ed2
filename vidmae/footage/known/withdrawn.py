"""Which recordings were taken out of a data set; a file beside its manifest that names none of them.

    manifests/s.withdrawn.csv     content, bytes, date, reason; one row per recording, oldest first
    manifests/s.versions.jsonl    one line per withdrawal: when, how many, why, content_sha256 before and after

A manifest that is made again leaves out what is listed here, though the files may still lie in the folder.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Any

from vidmae.runs.record import write_atomic


@dataclass(frozen=True)
class Withdrawn:
    """One recording that was taken out.

    Attributes:
        content: Its hash (`manifest.content_hash`).
        bytes: Size of the file.
        date: Day of the withdrawal.
        reason: In the words of whoever did it.
    """

    content: str
    bytes: int
    date: str
    reason: str


@dataclass(frozen=True)
class Version:
    """A withdrawal, as a line of the history of a manifest.

    Attributes:
        date: Moment of the withdrawal, UTC.
        withdrawn: Recordings that were taken out.
        reason: In the words of whoever did it.
        before_content_sha256, after_content_sha256: Of the manifest.
    """

    date: str
    withdrawn: int
    reason: str
    before_content_sha256: str
    after_content_sha256: str


def withdrawn_path(manifest: Path) -> Path:
    """The list beside a manifest."""
    return manifest.with_suffix(".withdrawn.csv")


def versions_path(manifest: Path) -> Path:
    """The history beside a manifest."""
    return manifest.with_suffix(".versions.jsonl")


def read_withdrawn(manifest: Path) -> list[Withdrawn]:
    """What was taken out of a manifest, oldest first: for taking it out of what was made of it, too."""
    try:
        with withdrawn_path(manifest).open(encoding="utf-8", newline="") as file:
            return [Withdrawn(row["content"], int(row["bytes"]), row["date"], row["reason"]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []


def read_versions(manifest: Path) -> list[Version]:
    """The withdrawals of a manifest, oldest first."""
    try:
        lines = versions_path(manifest).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [Version(**json.loads(line)) for line in lines]


def add_withdrawn(manifest: Path, more: Sequence[Withdrawn]) -> None:
    """Note further recordings as taken out, each content once."""
    known = {each.content: each for each in [*more, *read_withdrawn(manifest)]}
    before = [each.content for each in read_withdrawn(manifest)]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(f.name for f in fields(Withdrawn))
    writer.writerows(astuple(known[content]) for content in dict.fromkeys([*before, *(each.content for each in more)]))
    write_atomic(withdrawn_path(manifest), text.getvalue().encode())


def add_version(manifest: Path, version: Version) -> None:
    """Add a line to the history."""
    lines: list[dict[str, Any]] = [asdict(each) for each in [*read_versions(manifest), version]]
    write_atomic(versions_path(manifest), "".join(json.dumps(line) + "\n" for line in lines).encode())
