"""Patch tokens of clips on disk: large, so they lie in files that are memory-mapped and never read whole.

    OUT/tokens/00000-of-00049.npy    [n, K, L, D]: clips, layers, tokens, width; rows as in OUT/files/00000-of-00049.npz

Tokens are in grid order: token (t, h, w) has index (t * H + h) * W + w. Numpy only. Letters: N clips, n of them in a file,
K layers, L tokens of a clip, D width, T H W token grid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidmae.runs.record import draft_of, fsync_folder, make_private_folder

FOLDER = "tokens"


def token_path(out: Path, number: int, files: int) -> Path:
    """Where the tokens of some clips are: file `number` of `files`, from 0."""
    return out / FOLDER / f"{number:05d}-of-{files:05d}.npy"


def tokens_beside(features: Path) -> Path:
    """Where the tokens of the clips of a file of features are."""
    return features.parent.parent / FOLDER / f"{features.stem}.npy"


def token_bytes(clips: int, layers: int, tokens: int, width: int, dtype: str) -> int:
    """Bytes of the tokens of so many clips, layers, tokens and numbers of each."""
    return clips * layers * tokens * width * np.dtype(dtype).itemsize


def write_token_file(path: Path, parts: Sequence[np.ndarray]) -> None:
    """Write one file, whole or not at all, part by part: no second copy of it is made in memory.

    Args:
        path: See `token_path`.
        parts: Tokens [n, K, L, D] of some clips each.
    Raises:
        ValueError: Tokens are NaN or infinite, as float16 is above 65,504.
    """
    if bad := sum(int((~np.isfinite(part).all(axis=(1, 2, 3))).sum()) for part in parts):
        raise ValueError(f"the tokens of {bad} clips are NaN or too large for {parts[0].dtype}; are the weights whole? "
                         "--token-type float32 holds larger numbers")
    make_private_folder(path.parent)
    tmp = draft_of(path)
    header = {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False,
              "shape": (sum(map(len, parts)), *parts[0].shape[1:])}
    try:
        with os.fdopen(os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part).data)
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)
    fsync_folder(path.parent)


def open_tokens(out: Path, files: int) -> list[np.ndarray]:
    """The tokens of a folder, memory-mapped: an array [n, K, L, D] for each file.

    Args:
        out: The folder.
        files: How many, as result.json says.
    Raises:
        ValueError: A file is missing or damaged.
    """
    found = []
    for number in range(files):
        path = token_path(out, number, files)
        try:
            found.append(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is missing or damaged ({type(error).__name__}); remove it, the .npz of its number and "
                             f"{out}/result.json, and run jobs/embed.py again: it makes what is missing") from error
    return found
