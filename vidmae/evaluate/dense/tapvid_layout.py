"""Sequences with points in the layout of TAP-Vid: pickles, or the same in .npz, from which nothing can be run.

    FILE.pkl     a dictionary or a list of sequences, each a dictionary of
                   video      uint8 [T, H, W, 3], or JPEG files as bytes, one a frame
                   points     float [N, T, 2], (x, y) as shares of width and height, the upper left corner being (0, 0)
                   occluded   bool [N, T]
    FILE.npz     one sequence, with the same three arrays; a folder of them is a set

Pickles are read by `number_pickle`, which refuses everything that is no array of numbers.
Source: Doersch et al. 2022, TAP-Vid (arXiv 2211.03726), and the README of its data.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.number_pickle import read_numbers
from vidmae.runs.record import write_atomic

ENDINGS = (".pkl", ".npz")
PARTS = ("video", "points", "occluded")


def tapvid_files(path: Path) -> list[Path]:
    """The files of a set: one, or those of a folder in the order of their names.

    Raises:
        ValueError: There is none.
    """
    found = sorted(each for each in path.iterdir() if each.suffix in ENDINGS) if path.is_dir() else [path]
    if not found or not all(each.is_file() and each.suffix in ENDINGS for each in found):
        raise ValueError(f"{path} is no set of points, allowed: a file that ends in {' or '.join(ENDINGS)}, or a folder of "
                         "them (--sets tapvid=FILE|FOLDER)")
    return found


def read_tapvid(path: Path) -> Iterator[DenseSequence]:
    """The sequences of one file.

    Raises:
        UnsafePickleError: A pickle holds more than numbers and texts.
        ValueError: It is not in this layout.
    """
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                parts = {name: arrays[name] for name in arrays.files}
        except (OSError, EOFError, BadZipFile, zlib.error, TypeError, NotImplementedError) as error:
            raise ValueError(f"a file of the set is no .npz file, or it is damaged ({type(error).__name__})") from None
        yield _sequence(parts)
        return
    with path.open("rb") as file:
        content = read_numbers(file)
    listed = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise ValueError(f"a set of points holds a {type(content).__name__}, allowed: a dictionary or a list of sequences")
    del content  # else it holds on to all of them
    while listed:
        yield _sequence(listed.pop(0))  # a set fills the memory once, not twice


def write_tapvid(path: Path, sequence: DenseSequence) -> None:
    """Write one sequence as .npz.

    Raises:
        ValueError: It has no points.
    """
    if sequence.points is None or sequence.occluded is None:
        raise ValueError("the sequence has no points")
    data = io.BytesIO()
    np.savez_compressed(data, video=sequence.frames, points=sequence.points.astype(np.float32), occluded=sequence.occluded)
    write_atomic(path, data.getvalue())


def _sequence(parts: dict[str, Any]) -> DenseSequence:
    if missing := [name for name in PARTS if name not in parts]:
        raise ValueError(f"a sequence lacks {', '.join(missing)}, allowed: {', '.join(PARTS)}")
    video, points, occluded = (parts[name] for name in PARTS)
    if not isinstance(video, np.ndarray) or video.dtype.kind == "S":
        video = _decoded(list(video))
    points, occluded = _numbers("points", points).astype(np.float64), _numbers("occluded", occluded, "b").astype(bool)
    return DenseSequence(np.ascontiguousarray(video), points=points, occluded=occluded)


def _numbers(name: str, value: Any, more: str = "") -> np.ndarray:
    """A part as an array of numbers; also of the kinds of type `more`."""
    try:
        array = np.asarray(value)
        what = str(array.dtype)
    except (ValueError, TypeError, OverflowError):
        array, what = np.empty(0, dtype=object), "lists that are not all as long as each other"
    if array.dtype.kind not in f"fiu{more}":
        raise ValueError(f"{name} of a sequence are {what[:60]}, allowed: numbers{' or flags' if more else ''} (float32, "
                         f"float64, int{', bool' if more else ''})")
    return array


def _decoded(files: list[Any]) -> np.ndarray:
    """Frames from JPEG files in memory."""
    from PIL import Image

    if not files or not all(isinstance(each, (bytes, bytearray)) for each in files):
        raise ValueError("a video is neither an array of frames nor a list of JPEG files")
    frames = []
    for each in files:
        try:
            with Image.open(io.BytesIO(each), formats=["JPEG"]) as image:
                frames.append(np.asarray(image.convert("RGB")))
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"a frame of a video is no JPEG file, or it is damaged ({type(error).__name__})") from None
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("the frames of a video are not all of one size")
    return np.stack(frames)
