"""The labelled rows of a manifest, and whether a training and a validation manifest fit each other."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidmae.footage.manifest import ALL_COLUMNS, COLUMNS, ManifestError, Summary, read_rows
from vidmae.footage.manifest_columns import class_table

SHOWN = 10  # of a long list in a message
HOW_TO_LABEL = "python jobs/prepare.py manifest FOLDER --labels folders --name NAME"


@dataclass(frozen=True)
class Labelled:
    """What selection needs of a manifest, packed in arrays; row numbers are those of `Manifest`.

    Attributes:
        path: The manifest.
        summary: Its totals.
        classes: Labels in the order of their class index.
        class_of: int64 [N]; place of every row's label in `classes`.
        contents: uint64 [N]; the rows' content hashes as numbers, of a prepared row that of the recording it is made of: so
            footage is known again however it was prepared, and the same clips are drawn of it.
        paths: Of the files; empty unless asked for.
    """

    path: Path
    summary: Summary
    classes: tuple[str, ...]
    class_of: np.ndarray
    contents: np.ndarray
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.contents)


def read_labelled(manifest: Path, *, paths: bool = False) -> Labelled:
    """Read the labels and content hashes of a manifest; a million rows take seconds.

    Args:
        manifest: The csv.
        paths: Keep the files' paths, too.
    Raises:
        ManifestError: It cannot be read, or rows have no label.
    """
    summary, rows = read_rows(manifest)
    content = COLUMNS.index("content")
    codes, contents, known, files = array("q"), array("Q"), dict[str, int](), list[str]()
    for row in rows:
        codes.append(known.setdefault(row[1], len(known)))
        contents.append(int(row[-1] if len(row) == len(ALL_COLUMNS) else row[content], 16))
        if paths:
            files.append(row[0])
    labels, class_of = list(known), np.array(codes)
    if "" in known:
        bare = int((class_of == known[""]).sum())
        raise ManifestError(f"{bare} of {len(class_of)} rows of {manifest} have no label; make it again with labels: "
                            f"{HOW_TO_LABEL}, or from a list of `path, label` lines")
    order = np.argsort(class_table(labels), kind="stable")
    place = np.empty(len(labels), dtype=np.int64)
    place[order] = np.arange(len(labels))
    return Labelled(manifest, summary, tuple(labels[i] for i in order), place[class_of], np.array(contents), tuple(files))


def check_apart(train: Labelled, val: Labelled) -> None:
    """Refuse a validation manifest that shares recordings with the training manifest, or counts its classes differently.

    A single class is refused, too: whatever a model says of it is right.

    Raises:
        ManifestError: They do; the message has counts and row numbers (from 1), no file names.
    """
    _check_classes(train, val)
    shared = np.intersect1d(train.contents, val.contents)
    if len(shared):
        here, there = (np.flatnonzero(np.isin(side.contents, shared)) for side in (train, val))
        raise ManifestError(f"{len(there)} of {len(val)} recordings of {val.path} are also in {train.path}, by content: "
                            f"rows {some_rows((there + 1).tolist())} of the first, rows "
                            f"{some_rows((here + 1).tolist())} of the second; take them out of one")


def _check_classes(train: Labelled, val: Labelled) -> None:
    if len(train.classes) < 2:
        raise ManifestError(f"all {len(train)} videos of {train.path} have the label {train.classes[0]!r}, so there is "
                            f"nothing to tell apart; 2 classes or more are needed: {HOW_TO_LABEL}")
    unknown = sorted(set(val.classes) - set(train.classes))
    if unknown:
        raise ManifestError(f"{len(unknown)} of {len(val.classes)} classes of {val.path} are not in {train.path}: "
                            f"{some(unknown)}")
    missing = sorted(set(train.classes) - set(val.classes))
    if missing and not all(label.isdecimal() for label in train.classes):
        raise ManifestError(f"{len(missing)} of {len(train.classes)} classes of {train.path} are not in {val.path}, so the "
                            f"classes of the two, numbered by their names, would have other numbers: {some(missing)}")


def some(labels: Sequence[str]) -> str:
    """The first ten of many names, and how many more there are."""
    return ", ".join(map(repr, labels[:SHOWN])) + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")


def some_rows(numbers: Sequence[int]) -> str:
    """The first ten of many row numbers."""
    return ", ".join(map(str, numbers[:SHOWN])) + (" ..." if len(numbers) > SHOWN else "")
