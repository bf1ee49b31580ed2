"""k-shot subsets of a labelled manifest: exactly k clips of every class, drawn by a seed or named by a list.

    manifests/ssv2.shots10-seed0.json     which clips, by content hash: nothing in it depends on paths

The clips of a class stand in an order that follows from the seed, the class's name and each clip's content alone, and k
shots are its first k: 2 shots lie within 10 and 10 within 50, and neither the order of the rows, nor the number of ranks,
nor the machine changes them. Rows of one class with the same content are one clip. Released lists: shot_list.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidmae.labels.splits import Labelled, some
from vidmae.runs.record import make_private_folder, read_json, write_json

SCHEMA = 1
HOW_TO_DRAW = "python jobs/prepare.py shots MANIFEST --shots 2,10,50 --seed 0"


class ShotsError(ValueError):
    """A k-shot subset cannot be made or used; the message says why and what would do."""


@dataclass(frozen=True)
class Shots:
    """A k-shot subset.

    Attributes:
        shots: k, clips per class.
        seed: Of the draw; None where a list names the clips.
        manifest_sha256: Content hash of the manifest that it was made of.
        clips: Every class of that manifest to the content hashes of its clips (16 hex digits), in the order of the draw.
    """

    shots: int
    seed: int | None
    manifest_sha256: str
    clips: Mapping[str, Sequence[str]]

    def __len__(self) -> int:
        return sum(map(len, self.clips.values()))

    @property
    def content_sha256(self) -> str:
        """Names the subset: equal exactly where the clips and their labels are equal."""
        lines = sorted(f"{clip} {label}\n" for label, clips in self.clips.items() for clip in clips)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def short(self) -> dict[str, int]:
        """The classes that have fewer than k clips, and how many."""
        return {label: len(clips) for label, clips in self.clips.items() if len(clips) < self.shots}


def shots_path(manifest: Path, shots: int, seed: int | None) -> Path:
    """Where a subset lies beside its manifest."""
    return manifest.with_name(f"{manifest.stem}.shots{shots}-{'list' if seed is None else f'seed{seed}'}.json")


def draw_shots(labelled: Labelled, shots: Sequence[int], seed: int, *, allow_fewer: bool = False) -> list[Shots]:
    """Draw nested subsets.

    Args:
        labelled: All clips.
        shots: One k for every subset.
        seed: Another seed is another draw.
        allow_fewer: Take what there is of classes with fewer than k clips.
    Raises:
        ShotsError: k or the seed is out of range, or a class has fewer than k clips.
    """
    if seed < 0:
        raise ShotsError(f"--seed {seed} must be 0 or more")
    ranked = {label: sorted(map("{:016x}".format, labelled.contents[rows].tolist()), key=partial(_lot, seed, label))
              for label, rows in rows_by_class(labelled).items()}
    return [checked(Shots(k, seed, labelled.summary.content_sha256, {label: clips[:k] for label, clips in ranked.items()}),
                    allow_fewer=allow_fewer) for k in shots]


def _lot(seed: int, label: str, clip: str) -> bytes:
    text = f"{seed}\n{label}\n{clip}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).digest()


def rows_by_class(labelled: Labelled) -> dict[str, np.ndarray]:
    """The rows of every class; of rows with the same content, the first."""
    rows = np.lexsort((labelled.contents, labelled.class_of))
    classes, contents = labelled.class_of[rows], labelled.contents[rows]
    first = np.ones(len(rows), dtype=bool)
    first[1:] = (classes[1:] != classes[:-1]) | (contents[1:] != contents[:-1])
    ends = np.searchsorted(classes[first], np.arange(1, len(labelled.classes)))
    return dict(zip(labelled.classes, np.split(rows[first], ends), strict=True))


def checked(subset: Shots, *, allow_fewer: bool) -> Shots:
    """The subset itself, unless k is out of range or, without `allow_fewer`, a class has fewer than k clips (ShotsError)."""
    if subset.shots < 1:
        raise ShotsError(f"--shots {subset.shots} must be 1 or more")
    if subset.short and not allow_fewer:
        few = some([f"{label} ({count})" for label, count in subset.short.items()])
        raise ShotsError(f"{len(subset.short)} of {len(subset.clips)} classes have fewer than {subset.shots} different clips"
                         f": {few}; lower --shots, or take what there is with --allow-fewer")
    return subset


def write_shots(path: Path, subset: Shots) -> None:
    """Write a subset, for its owner only. Lost in a power cut it is drawn again, alike: that is not worth a flush."""
    make_private_folder(path.parent)
    record = {"schema": SCHEMA, "shots": subset.shots, "seed": subset.seed, "clips": len(subset),
              "content_sha256": subset.content_sha256, "manifest_content_sha256": subset.manifest_sha256,
              "counts": {label: len(clips) for label, clips in subset.clips.items()},
              "contents": {label: list(clips) for label, clips in subset.clips.items()}}
    write_json(path, record, durable=False)


def read_shots(path: Path) -> Shots:
    """Read a subset.

    Raises:
        ShotsError: There is none, or it is not what was written.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise ShotsError(f"cannot read {path} ({error}); make it again with: {HOW_TO_DRAW}") from error
    if record is None:
        raise ShotsError(f"there is no k-shot subset {path}; make it with: {HOW_TO_DRAW}")
    try:
        subset = Shots(record["shots"], record["seed"], record["manifest_content_sha256"], record["contents"])
        whole = record["schema"] == SCHEMA and record["content_sha256"] == subset.content_sha256
    except (KeyError, TypeError, AttributeError) as error:
        raise ShotsError(f"{path} is no k-shot subset ({error!r}); make it again with: {HOW_TO_DRAW}") from error
    if not whole:
        raise ShotsError(f"{path} was changed since it was made; make it again with: {HOW_TO_DRAW}")
    return subset


def rows_of(subset: Shots, labelled: Labelled) -> np.ndarray:
    """The rows of a manifest that a subset names, ascending int64; of the same content in one class the first row.

    Args:
        subset: What was drawn.
        labelled: The manifest, or a later one with the same clips.
    Raises:
        ShotsError: Clips are gone from the manifest, or it has other classes.
    """
    other = sorted(set(subset.clips) ^ set(labelled.classes))
    if other:
        raise ShotsError(f"{labelled.path} has other classes than the {subset.shots}-shot subset; in one of them only: "
                         f"{some(other)}; draw again with: {HOW_TO_DRAW}")
    found = []
    for label, rows in rows_by_class(labelled).items():
        wanted = np.array([int(clip, 16) for clip in subset.clips[label]], dtype=np.uint64)
        found.append(rows[np.isin(labelled.contents[rows], wanted)])
    chosen: np.ndarray = np.sort(np.concatenate(found))
    if len(chosen) != len(subset):
        raise ShotsError(f"{len(subset) - len(chosen)} of {len(subset)} clips of the {subset.shots}-shot subset are not in "
                         f"{labelled.path} any more; draw again with: {HOW_TO_DRAW}")
    return chosen
