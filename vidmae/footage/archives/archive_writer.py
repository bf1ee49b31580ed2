"""Writes archives: first each recording as an archive of its own (a part), then many parts as one.

    KEY.tar, KEY.npy            a part: complete from the moment its index is there
    frames-00003.tar, .npy      parts one after the other, in the order of their keys: the same bytes whoever made them, when

So a call that is stopped loses the recordings that it was at, and no byte of an archive depends on that.
"""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vidmae.footage.archives.archive_layout import END, ENTRY, checksum, index_path, member_head, padding
from vidmae.footage.decoders.reader import DecodeError
from vidmae.runs.record import fsync_folder, write_atomic

COPY_BYTES = 2**24


def draft_path(archive: Path) -> Path:
    """Where an archive is written before it gets its name."""
    return archive.with_name(f"{archive.name}.part")


class ArchiveWriter:
    """Writes the frames of recordings one after the other; use it in a `with` block, which leaves all or nothing.

    Args:
        archive: `NAME.tar`; its index goes beside it.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._file = io.FileIO(os.open(draft_path(archive), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "w+")
        self._buffer = io.BufferedWriter(self._file, 2**20)
        self._entries: list[tuple[int, int, float, int, int, int]] = []
        self._at = 0

    def add(self, key: int, number: int, jpeg: bytes, *, fps: float, source: int) -> None:
        """Append a frame.

        Args:
            key: Of its recording; recordings come in ascending order of their keys.
            number: Of the frame in the recording as prepared, from 0.
            jpeg: The frame.
            fps: Frames per second of the recording as prepared.
            source: Number of the frame in the recording that it is prepared from.
        """
        head = member_head(key, number, len(jpeg))
        self._buffer.write(head)
        self._buffer.write(jpeg)
        self._buffer.write(padding(len(jpeg)))
        self._entries.append((key, self._at + len(head), fps, len(jpeg), checksum(jpeg), source))
        self._at += len(head) + len(jpeg) + len(padding(len(jpeg)))

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                self._buffer.write(END)
                self._buffer.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()
        if error is None:
            draft_path(self._archive).replace(self._archive)
            write_index(self._archive, np.array(self._entries, dtype=ENTRY))
        else:
            draft_path(self._archive).unlink(missing_ok=True)


def write_index(archive: Path, entries: np.ndarray) -> None:
    """Write the index of an archive, ENTRY [N]."""
    data = io.BytesIO()
    np.save(data, entries, allow_pickle=False)
    write_atomic(index_path(archive), data.getvalue())


def join(parts: Sequence[Path], archive: Path) -> int:
    """Make one archive of parts, and read it back before it gets its name.

    Args:
        parts: Archives of one recording each, in ascending order of their keys.
        archive: The one to write.
    Returns:
        Its size in bytes.
    Raises:
        DecodeError: What was written is not what comes back.
    """
    indexes, at, draft = [], 0, draft_path(archive)
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w+b") as out:
        for part in parts:
            entries = np.load(index_path(part), allow_pickle=False)
            body = part.stat().st_size - len(END)
            with part.open("rb") as source:
                while body_left := body - source.tell():
                    out.write(source.read(min(body_left, COPY_BYTES)))
            entries["offset"] += np.uint64(at)
            at += body
            indexes.append(entries)
        out.write(END)
        out.flush()
        os.fsync(out.fileno())
        whole = np.concatenate(indexes)
        for entry in whole:
            out.seek(int(entry["offset"]))
            if checksum(out.read(int(entry["size"]))) != int(entry["crc32"]):
                raise DecodeError("what was written does not come back as it was (checksum): is the disk sound?")
    draft.replace(archive)
    fsync_folder(archive.parent)
    write_index(archive, whole)
    return at + len(END)


def without(archive: Path, keys: Collection[int]) -> int:
    """Write an archive anew without some of its recordings; where none is left, it goes, and its index with it.

    Args:
        archive: `NAME.tar`, complete.
        keys: Of the recordings that are taken out.
    Returns:
        Its size in bytes, 0 where it is gone.
    Raises:
        DecodeError: The archive is damaged.
        OSError: It cannot be read or written.
    """
    entries = np.load(index_path(archive), allow_pickle=False)
    kept = entries[~np.isin(entries["key"], np.array(sorted(keys), dtype=np.uint64))]
    if not len(kept):
        archive.unlink()
        index_path(archive).unlink()
        return 0
    with archive.open("rb") as file, ArchiveWriter(archive) as out:
        number, before = 0, None
        for entry in kept:
            key = int(entry["key"])
            number, before = (number + 1 if key == before else 0), key
            file.seek(int(entry["offset"]))
            jpeg = file.read(int(entry["size"]))
            if checksum(jpeg) != int(entry["crc32"]):
                raise DecodeError(f"frame {number} of a recording that stays is damaged in {archive} (checksum)")
            out.add(key, number, jpeg, fps=float(entry["fps"]), source=int(entry["source"]))
    return archive.stat().st_size
