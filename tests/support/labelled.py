"""Labelled manifests without videos: all that a sweep reads before its cells run."""

from __future__ import annotations

from pathlib import Path

from vidmae.footage.manifest import Check, Row, write_manifest

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
