"""The sets of the dense probes: what a command names, what is in it, and its sequences one after the other.

    davis=FOLDER            masks, in the layout of DAVIS 2017
    tapvid=FILE|FOLDER      points, in the layout of TAP-Vid
    generated               masks and points of scenes that are rendered when they are looked at

No torch here: the launcher reads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from vidmae.evaluate.dense.davis_layout import LIST, davis_files, davis_names, read_davis
from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.tapvid_layout import read_tapvid, tapvid_files
from vidmae.footage.manifest import content_hash
from vidmae.settings.programs.dense_config import DenseProbeConfig, SetKind

GENERATED: SetKind = "generated"
RENDERED = "rendered-1"  # content of rendered scenes: changes with what a seed gives
TUNING = 1  # second number of the seeds of scenes on which a threshold is chosen; those of the set have 0
RAW_FRAME_BYTES = 480 * 854 * 3  # of a frame of TAP-Vid's DAVIS


@dataclass(frozen=True)
class DenseSet:
    """A set that a command names.

    Attributes:
        name: In tables and in the names of run folders.
        kind: Its layout.
        path: Where it lies; None for rendered scenes.
        content: Content hash.
        frames: How many there are; for files that are not opened an estimate from their size.
    """

    name: str
    kind: SetKind
    path: Path | None
    content: str
    frames: int


def parse_set_name(word: str) -> tuple[SetKind, Path | None]:
    """A word of --sets: the layout, and where the set lies.

    Raises:
        ValueError: It is none; the message says what would do.
    """
    kind, equal, path = (part.strip() for part in word.partition("="))
    for known in get_args(SetKind):
        if kind == known and bool(path) == (known != GENERATED) and bool(equal) == bool(path):
            return known, Path(path).expanduser() if path else None
    raise ValueError(f"{word!r} is no set; allowed: davis=FOLDER, tapvid=FILE.pkl|FOLDER, generated (--sets)")


def open_set(name: str, kind: SetKind, path: Path | None, how: DenseProbeConfig) -> DenseSet:
    """Look at a set.

    Raises:
        ValueError: It has not its layout.
    """
    if path is None:
        return DenseSet(name, kind, None, RENDERED, how.scenes * how.scene_frames)
    path = path.absolute()
    if kind == "davis":
        frames = sum(len(davis_files(path, each)[0]) for each in davis_names(path))
    else:
        frames = max(1, sum(file.stat().st_size for file in tapvid_files(path)) // RAW_FRAME_BYTES)
    return DenseSet(name, kind, path, content_of(kind, path), frames)


def content_of(kind: SetKind, path: Path | None) -> str:
    """Content hash of a set, wherever it lies: 16 hex digits.

    Raises:
        ValueError: It has not its layout.
    """
    if path is None:
        return RENDERED
    if kind == "davis":
        files = [path / LIST]
        for name in davis_names(path):
            frames, masks = davis_files(path, name)
            files += [*frames, *masks]
    else:
        files = tapvid_files(path)
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(f"{file.relative_to(path)} {content_hash(file)}\n".encode())
    return digest.hexdigest()


def sequences_of(how: DenseProbeConfig) -> Iterator[Callable[[], DenseSequence]]:
    """The sequences of a set in order; each is decoded or rendered when it is called.

    Raises:
        ValueError: The set has not its layout.
    """
    if how.kind == GENERATED:
        yield from (partial(_scene, how, 0, number) for number in range(how.scenes))
        return
    path = Path(how.path)
    if how.kind == "davis":
        yield from (partial(read_davis, path, name) for name in davis_names(path))
        return
    for file in tapvid_files(path):
        for sequence in read_tapvid(file):
            yield partial(_same, sequence)


def tuning_scenes(how: DenseProbeConfig) -> Iterator[DenseSequence]:
    """Scenes that belong to no set."""
    return (_scene(how, TUNING, number) for number in range(how.tuning_scenes))


def _scene(how: DenseProbeConfig, what: int, number: int) -> DenseSequence:
    from vidmae.evaluate.dense.rendered_scenes import render_scene  # scipy takes long for a launcher

    return render_scene((how.scene_seed, what, number), num_frames=how.scene_frames, size=how.scene_px)


def _same(sequence: DenseSequence) -> DenseSequence:
    return sequence
