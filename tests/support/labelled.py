"""Labelled manifests without videos, all that a sweep reads before its cells run; and preparing without processes of its own, each of
which would load OpenCV, scikit-image and PyAV anew, for a second of a core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vidmae.footage import killable
from vidmae.footage.killable import Outcome
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.preparing import prepare_archives

CLASSES = ("Pouring [something]", "Covering", "Dropping")


def write_labelled(folder: Path, name: str = "toys", *, per_class: int = 12, val_per_class: int = 4,
                   classes: tuple[str, ...] = CLASSES, pictures: bool = False) -> Path:
    """Write NAME.csv and NAME-val.csv, of videos or of pictures; the contents of no two rows are alike."""
    what = (1, 30 / 128, 128 / 30) if pictures else (60, 30.0, 2.0)
    codec, decoder = ("jpeg", "pillow") if pictures else ("h264", "decord")
    for number, (stem, count) in enumerate(((name, per_class), (f"{name}-val", val_per_class))):
        rows = [Row(f"/videos/{stem}/{label}/{i}.mp4", label, *what, 1000, 64, 48, codec, 0, 0, 0,
                    f"{number + 1:04x}{len(name):04x}{place:04x}{i:04x}", 1, decoder) for place, label in enumerate(classes)
                for i in range(count)]
        write_manifest(folder / f"{stem}.csv", sorted(rows, key=lambda row: row.path), [], Check(decoder, True))
    return folder / f"{name}.csv"


def _map_here(function: Any, items: Any, **_: Any) -> Iterator[Outcome[Any]]:
    for index, item in enumerate(items):
        try:
            yield Outcome(index, function(item), None)
        except Exception as error:
            yield Outcome(index, None, str(error))


@contextmanager
def in_this_process() -> Iterator[None]:
    """While it is entered, recordings are checked and prepared in this process."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (prepare_archives, killable):
            patch.setattr(module, "map_killable", _map_here)
        yield
