"""Which files a manifest leaves out, and why: a list beside it.

    manifests/s.unreadable.csv    path, reason
"""

from __future__ import annotations

import csv
from pathlib import Path

COLUMNS = ("path", "reason")


def unreadable_path(manifest: Path) -> Path:
    """The list beside a manifest."""
    return manifest.with_suffix(".unreadable.csv")


def read_unreadable(manifest: Path) -> list[tuple[str, str]]:
    """Path and reason of each file that a manifest leaves out.

    Raises:
        OSError: There is no list, or it cannot be read.
    """
    with unreadable_path(manifest).open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [(row["path"], row["reason"]) for row in csv.DictReader(file)]
