"""The arrays of a large manifest in one file that all processes of a node map into memory, so that they hold it once.

    manifests/.s.pages      a line of JSON (what it was made of, and where each array begins), then the arrays

It is made with the manifest and belongs to one csv, by size, time of change and hash. One that is missing, of another csv or
cut off is made again by whoever reads; where the folder cannot be written, the reader keeps the arrays to itself. The layout
is our own: numpy's npz cannot be mapped, and mapping Arrow's costs each process the 85 MiB of pyarrow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.runs.record import draft_of

Content = tuple[dict[str, list[str]], dict[str, np.ndarray]]
"""Lists of texts, and arrays, by name."""
SCHEMA = 1
SHARED_FROM_ROWS = 50_000
"""Smaller manifests are read from their csv: that takes less than a tenth of a second and a few MiB."""
ALIGNED_BYTES = 4096


def pages_path(manifest: Path) -> Path:
    """The file beside a manifest."""
    return manifest.with_name(f".{manifest.stem}.pages")


def shared(manifest: Path, csv_sha256: str, rows: int, read: Callable[[], Content]) -> Content:
    """Texts and arrays of a manifest, of a large one from the file, which is made where it is missing.

    Args:
        manifest: The csv.
        csv_sha256: Its hash, by its summary.
        rows: How many it has.
        read: Reads them from the csv.
    """
    if rows < SHARED_FROM_ROWS:
        return read()
    if (found := read_pages(manifest, csv_sha256)) is not None:
        return found
    found = read()
    if write_pages(manifest, csv_sha256, *found):
        found = read_pages(manifest, csv_sha256) or found  # so that what was read is freed
    return found


def read_pages(manifest: Path, csv_sha256: str) -> Content | None:
    """What was stored of a manifest.

    Args:
        manifest: The csv.
        csv_sha256: Its hash, by its summary.
    Returns:
        The texts and the arrays, which cannot be written to; None where there is nothing of this csv.
    """
    try:
        with pages_path(manifest).open("rb") as file:
            head = json.loads(line := file.readline())
            begin = _aligned(len(line))
            if head["of"] != _origin(manifest, csv_sha256) or os.fstat(file.fileno()).st_size != begin + head["bytes"]:
                return None
            mapped = np.memmap(file, dtype=np.uint8, mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return head["texts"], {name: np.frombuffer(mapped.data, np.dtype(kind), count, begin + start)
                            for name, (kind, count, start) in head["arrays"].items()}


def write_pages(manifest: Path, csv_sha256: str, texts: Mapping[str, list[str]], arrays: Mapping[str, np.ndarray]) -> bool:
    """Store texts and arrays (1-dimensional) of a manifest; whether the folder let it."""
    path = pages_path(manifest)
    draft = draft_of(path)
    layout, start = dict[str, tuple[str, int, int]](), 0
    for name, array in arrays.items():
        layout[name] = (array.dtype.str, len(array), start)
        start += _aligned(array.nbytes)
    head = json.dumps({"schema": SCHEMA, "of": _origin(manifest, csv_sha256), "bytes": start, "texts": dict(texts),
                       "arrays": layout}).encode() + b"\n"
    begin = _aligned(len(head))
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(head)
            for name, array in arrays.items():
                file.seek(begin + layout[name][2])
                file.write(np.ascontiguousarray(array).view(np.uint8).data)
            file.truncate(begin + start)
        draft.replace(path)
    except OSError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _origin(manifest: Path, csv_sha256: str) -> list[Any]:
    stat = manifest.stat()
    return [SCHEMA, csv_sha256, stat.st_size, stat.st_mtime_ns]


def _aligned(size: int) -> int:
    return -(-size // ALIGNED_BYTES) * ALIGNED_BYTES
