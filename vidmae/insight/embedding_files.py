"""Features of clips on disk, for people and programs to look at: some files of some hundred clips each.

    OUT/files/00000-of-00049.npz   content [n]  label [n]  cls [n, D]  mean [n, D]  unreadable [u]
                                   with --layers also layer_cls [n, K, D]  layer_mean [n, K, D]
                                   with --window-s also row [n]  start_s [n]
    OUT/tokens/                    with --tokens (token_files.py)
    OUT/result.json                exists exactly when all files do; has the names of the classes

A file is the same whoever made it, one task or a hundred. Clips are named by the hash of their content, never by a path.
Numpy only, so that pictures are made where torch is not installed. Letters: N clips, n of them in a file, K layers, D width.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.runs.record import make_private_folder, read_json, write_atomic

KIND = "embed"
NO_LABEL = -1
FEATURES = ("cls", "mean")
_COLUMNS = {"content": np.uint64, "label": np.int32, "cls": np.float32, "mean": np.float32}
_IF_ASKED = {"layer_cls": np.float32, "layer_mean": np.float32, "row": np.int64, "start_s": np.float64}


@dataclass(frozen=True)
class Embeddings:
    """One row per clip, in the order of the manifest.

    Attributes:
        content: uint64 [N], content hash of the clip.
        label: int32 [N], its class index; -1 where it has no label.
        cls: float32 [N, D], the class token of the last block, normed.
        mean: float32 [N, D], the mean of the patch tokens of the last block, normed.
        layer_cls: float32 [N, K, D], the class token of other blocks; None where none were asked for.
        layer_mean: The same of the mean.
        row: int64 [N], row of the manifest, from 0, that a window is of; None where no windows slide. Windows of a recording
            have one content.
        start_s: float64 [N], where in it the window begins.
    """

    content: np.ndarray
    label: np.ndarray
    cls: np.ndarray
    mean: np.ndarray
    layer_cls: np.ndarray | None = None
    layer_mean: np.ndarray | None = None
    row: np.ndarray | None = None
    start_s: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.content)

    def write(self, path: Path, unreadable: Sequence[str] = ()) -> None:
        """Write one file, whole or not at all.

        Args:
            path: See `file_path`.
            unreadable: Why clips that belong into it are not: one reason for each.
        Raises:
            ValueError: Features are NaN or infinite.
        """
        finite = np.isfinite(self.cls + self.mean).all(axis=1)
        if self.layer_cls is not None and self.layer_mean is not None:
            finite &= np.isfinite(self.layer_cls + self.layer_mean).all(axis=(1, 2))
        if bad := int((~finite).sum()):
            raise ValueError(f"the features of {bad} of {len(self)} clips are NaN or infinite; are the weights whole? With "
                             "--precision fp32 they may be finite")
        data = io.BytesIO()
        columns: dict[str, Any] = {name: getattr(self, name).astype(dtype) for name, dtype in (_COLUMNS | _IF_ASKED).items()
                                   if getattr(self, name) is not None}
        np.savez(data, unreadable=np.array(unreadable, dtype=np.str_), **columns)
        write_atomic(path, data.getvalue())


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Features of several lots of clips, one after the other; all have the same columns."""
    return Embeddings(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in (*_COLUMNS, *_IF_ASKED)
                         if getattr(parts[0], name) is not None})


def file_path(out: Path, number: int, files: int) -> Path:
    """Where the features of some clips are: file `number` of `files`, from 0."""
    return out / "files" / f"{number:05d}-of-{files:05d}.npz"


def rows_of_files(clips: int, per_file: int) -> list[range]:
    """Rows of the manifest that each file holds: the last one may hold fewer than `per_file`."""
    return [range(first, min(first + per_file, clips)) for first in range(0, clips, per_file)]


def make_folder(out: Path) -> Path:
    """The folder of the files."""
    return make_private_folder(out / "files")


def read_file(path: Path) -> tuple[Embeddings, list[str]]:
    """One file, and why clips are missing in it.

    Raises:
        ValueError: It is missing, damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            columns = {name: data[name] for name in (*_COLUMNS, *(name for name in _IF_ASKED if name in data.files))}
            unreadable = [str(reason) for reason in data["unreadable"]]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is missing or damaged ({type(error).__name__}); remove it and {path.parent.parent}/"
                         "result.json, and run jobs/embed.py again: it makes what is missing") from error
    rows = len(columns["content"])
    types = _COLUMNS | _IF_ASKED
    if any(len(column) != rows or column.dtype != types[name] for name, column in columns.items()):
        raise ValueError(f"{path} holds columns that do not fit each other; it is no file of jobs/embed.py")
    return Embeddings(**columns), unreadable


def read_embeddings(out: Path) -> tuple[Embeddings, dict[str, Any]]:
    """All clips of a folder, and its result.json.

    Raises:
        ValueError: The folder is not one of jobs/embed.py, is not complete, or a file is damaged.
    """
    record = read_json(out / "result.json")
    if record is None or record.get("kind") != KIND:
        raise ValueError(f"{out} holds no embeddings that are complete: " + (
            "there is no result.json; python jobs/embed.py makes it" if record is None else
            f"its result.json is of kind {record.get('kind')!r}, not {KIND!r}"))
    files = [read_file(file_path(out, number, record["files"]))[0] for number in range(record["files"])]
    found = joined(files)
    if len(found) != record["clips"]:
        raise ValueError(f"{out} holds {len(found)} clips, its result.json says {record['clips']}; files were exchanged: "
                         "remove result.json and run jobs/embed.py again")
    return found, record
