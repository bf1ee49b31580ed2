"""Labelled manifests without videos: all that a sweep reads before its cells run."""

from __future__ import annotations

from pathlib import Path

from vidmae.footage.manifest import Check, Row, write_manifest

CLASSES = ("Pouring [something]", "Covering", "Dropping")


def write_labelled(folder: Path, name: str = "toys", *, per_class: int = 12, val_per_class: int = 4,
                   classes: tuple[str, ...] = CLASSES) -> Path:
    """Write NAME.csv and NAME-val.csv; the contents of no two rows are alike."""
    for number, (stem, count) in enumerate(((name, per_class), (f"{name}-val", val_per_class))):
        rows = [Row(f"/videos/{stem}/{label}/{i}.mp4", label, 60, 30.0, 2.0, 1000, 64, 48, "h264", 0, 0, 0,
                    f"{number + 1:04x}{len(name):04x}{place:04x}{i:04x}", 1, "decord") for place, label in enumerate(classes)
                for i in range(count)]
        write_manifest(folder / f"{stem}.csv", sorted(rows, key=lambda row: row.path), [], Check("decord", True))
    return folder / f"{name}.csv"
