"""Subsets of a labelled manifest: k clips of every class, drawn by a seed or named by a list, or a share of each class.

    manifests/ssv2.shots10-seed0.json         which clips, by content hash: nothing in it depends on paths
    manifests/imagenet.shots2pct-seed0.json   2 % of the clips of every class, rounded, one at least

The clips of a class stand in an order that follows from the seed, the class's name and each clip's content alone, and k
shots are its first k: 2 shots lie within 10 and 10 within 50, and neither the order of the rows, nor the number of ranks,
nor the machine changes them. So it is with shares: 1 % lies within 2 %. (The released code drew a share of ImageNet on each
GPU by itself, so that four of them saw 7.76 % of the labels in place of 2 %.) Rows of one class with the same content are
one clip. Released lists: shot_list.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from vidmae.labels.splits import Labelled, some
from vidmae.runs.record import make_private_folder, read_json, write_json
from vidmae.settings.command_line import text_of

SCHEMA = 1
HOW_TO_DRAW = "python jobs/prepare.py shots MANIFEST --shots 2,10,50 --seed 0"


class ShotsError(ValueError):
    """A k-shot subset cannot be made or used; the message says why and what would do."""


@dataclass(frozen=True)
class Shots:
    """A k-shot subset, or a share of every class.

    Attributes:
        shots: k, clips per class; 0 where it is a share.
        seed: Of the draw; None where a list names the clips.
        manifest_sha256: Content hash of the manifest that it was made of.
        clips: Every class of that manifest to the content hashes of its clips (16 hex digits), in the order of the draw.
        fraction: Share of each class, between 0 and 1; 0 where `shots` says how many.
    """

    shots: int
    seed: int | None
    manifest_sha256: str
    clips: Mapping[str, Sequence[str]]
    fraction: float = 0.0

    def __len__(self) -> int:
        return sum(map(len, self.clips.values()))

    @property
    def amount(self) -> str:
        """What it is in a message: `10-shot`, or `2 %`."""
        return f"{100 * self.fraction:g} %" if self.fraction else f"{self.shots}-shot"

    @property
    def content_sha256(self) -> str:
        """Names the subset: equal exactly where the clips and their labels are equal."""
        lines = sorted(f"{clip} {label}\n" for label, clips in self.clips.items() for clip in clips)
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    @property
    def short(self) -> dict[str, int]:
        """The classes that have fewer than k clips, and how many."""
        return {label: len(clips) for label, clips in self.clips.items() if len(clips) < self.shots}


def shots_path(manifest: Path, shots: int, seed: int | None, fraction: float = 0.0) -> Path:
    """Where a subset lies beside its manifest: of so many shots, or of a share of each class."""
    amount = f"{100 * fraction:g}pct" if fraction else str(shots)
    return manifest.with_name(f"{manifest.stem}.shots{amount}-{'list' if seed is None else f'seed{seed}'}.json")


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
    ranked = _ranked(labelled, seed)
    return [checked(Shots(k, seed, labelled.summary.content_sha256, {label: clips[:k] for label, clips in ranked.items()}),
                    allow_fewer=allow_fewer) for k in shots]


def draw_fractions(labelled: Labelled, fractions: Sequence[float], seed: int) -> list[Shots]:
    """Draw nested subsets, each a share of every class: rounded (a half up), one clip at least.

    Args:
        labelled: All clips.
        fractions: One share for every subset, above 0 and below 1.
        seed: Another seed is another draw; with the same one the shares begin as k shots do.
    Raises:
        ShotsError: A share or the seed is out of range.
    """
    if wrong := [share for share in fractions if not 0 < share < 1]:
        raise ShotsError(f"--fractions {wrong[0]:g} must be above 0 and below 1")
    ranked = _ranked(labelled, seed)
    return [Shots(0, seed, labelled.summary.content_sha256,
                  {label: clips[:max(1, int(share * len(clips) + 0.5))] for label, clips in ranked.items()}, share)
            for share in fractions]


def _ranked(labelled: Labelled, seed: int) -> dict[str, list[str]]:
    """The clips of every class in the order of the draw."""
    if seed < 0:
        raise ShotsError(f"--seed {seed} must be 0 or more")
    return {label: sorted(map("{:016x}".format, labelled.contents[rows].tolist()), key=partial(_lot, seed, label))
            for label, rows in rows_by_class(labelled).items()}


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


def hold_out(subset: Shots, share: float) -> tuple[Shots, Shots]:
    """Split a subset: of each class the last clips of the draw are held out, their share rounded, one at least.

    Args:
        subset: At least two clips of every class.
        share: Of the clips of each class, between 0 and 1.
    Returns:
        What is left to learn from, and what is held out.
    Raises:
        ShotsError: A class would have nothing left.
    """
    held = {label: min(len(clips) - 1, max(1, round(share * len(clips)))) for label, clips in subset.clips.items()}
    if empty := [label for label, count in held.items() if count < 1]:
        raise ShotsError(f"{len(empty)} of {len(held)} classes have fewer than 2 clips, and select.rule holdout keeps one "
                         f"of each back: {some(empty)}; take more shots, or --select last")
    return (replace(subset, clips={label: clips[:-held[label]] for label, clips in subset.clips.items()}),
            replace(subset, clips={label: clips[-held[label]:] for label, clips in subset.clips.items()}))


def write_shots(path: Path, subset: Shots) -> None:
    """Write a subset, for its owner only. Lost in a power cut it is drawn again, alike: that is not worth a flush."""
    make_private_folder(path.parent)
    record = {"schema": SCHEMA, "shots": subset.shots, "seed": subset.seed, "clips": len(subset),
              "content_sha256": subset.content_sha256, "manifest_content_sha256": subset.manifest_sha256,
              "counts": {label: len(clips) for label, clips in subset.clips.items()},
              "contents": {label: list(clips) for label, clips in subset.clips.items()},
              **({"fraction": subset.fraction} if subset.fraction else {})}
    write_json(path, record, durable=False)


def read_shots(path: Path) -> Shots:
    """Read a subset.

    Raises:
        ShotsError: There is none, or it is not what was written.
    """
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise ShotsError(f"cannot read {path} ({text_of(error)}); make it again with: {HOW_TO_DRAW}") from error
    if record is None:
        raise ShotsError(f"there is no k-shot subset {path}; make it with: {HOW_TO_DRAW}")
    try:
        subset = Shots(record["shots"], record["seed"], record["manifest_content_sha256"], record["contents"],
                       record.get("fraction", 0.0))
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
        raise ShotsError(f"{labelled.path} has other classes than the {subset.amount} subset; in one of them only: "
                         f"{some(other)}; draw again with: {HOW_TO_DRAW}")
    found = []
    for label, rows in rows_by_class(labelled).items():
        wanted = np.array([int(clip, 16) for clip in subset.clips[label]], dtype=np.uint64)
        found.append(rows[np.isin(labelled.contents[rows], wanted)])
    chosen: np.ndarray = np.sort(np.concatenate(found))
    if len(chosen) != len(subset):
        raise ShotsError(f"{len(subset) - len(chosen)} of {len(subset)} clips of the {subset.amount} subset are not in "
                         f"{labelled.path} any more; draw again with: {HOW_TO_DRAW}")
    return chosen
