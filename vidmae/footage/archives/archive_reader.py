"""Reads recordings out of archives, in the process that asks: there is no decoder here that could hang.

A process keeps the archives that it read last open, with their indexes mapped: memory that all processes of a node share.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np

from vidmae.footage.archives import staging
from vidmae.footage.archives.archive_layout import BLOCK, END, ENTRY, checksum, index_path, member_name, split_row_path
from vidmae.footage.archives.jpeg import decode_into, decode_with_pillow, load_coder, size_of
from vidmae.footage.decoders.reader import DecodeError, Frames, VideoReader

KEPT_OPEN = 64  # archives of a process
READ_OVER_BYTES = 2**17  # a gap this small between two frames is read over: cheaper than another read


def _opened(path: Path) -> tuple[FileIO, Path | None]:
    """The copy of an archive that is open, and its path; or the archive itself."""
    if copy := staging.copy_of(path):
        try:
            return FileIO(copy), copy
        except FileNotFoundError:
            pass  # another run has made room meanwhile
    return FileIO(path), None


class _Archive:
    """One archive that is open, and its index."""

    def __init__(self, path: Path) -> None:
        try:
            self.file, self.copy = _opened(path)
            self.entries = np.load(index_path(path), mmap_mode="r", allow_pickle=False)
            self.bytes = os.fstat(self.file.fileno()).st_size
        except FileNotFoundError as error:
            gone = str(error.filename) == str(path)
            raise DecodeError("no such archive" if gone else "its archive has no index") from None
        except OSError as error:
            raise DecodeError(f"its archive cannot be opened: {error.strerror}") from None
        except (ValueError, EOFError):
            raise DecodeError("the index of its archive is damaged") from None
        if self.entries.dtype != ENTRY or self.entries.ndim != 1 or not len(self.entries):
            raise DecodeError("the index of its archive is damaged")
        if int(self.entries["offset"][-1]) + int(self.entries["size"][-1]) + len(END) > self.bytes:
            raise DecodeError(f"its archive is cut: it has {self.bytes} bytes")
        self._keys, self._firsts = np.unique(self.entries["key"], return_index=True)

    def of(self, key: int) -> np.ndarray:
        """The entries of a recording."""
        place = int(np.searchsorted(self._keys, np.uint64(key)))
        if place == len(self._keys) or int(self._keys[place]) != key:
            raise DecodeError("its archive does not hold it")
        last = int(self._firsts[place + 1]) if place + 1 < len(self._firsts) else len(self.entries)
        return np.asarray(self.entries[int(self._firsts[place]):last])


_open: OrderedDict[Path, _Archive] = OrderedDict()


def _archive(path: Path) -> _Archive:
    archive = _open.pop(path, None)
    if archive is None or (archive.copy is None and staging.copy_of(path)):
        archive = _Archive(path)
    _open[path] = archive
    if len(_open) > KEPT_OPEN:
        _open.popitem(last=False)
    return archive


class ArchiveReader(VideoReader):
    """A recording in an archive: `ARCHIVE.tar#KEY`. Every frame is held to its checksum."""

    decode = staticmethod(decode_into)

    @staticmethod
    def load_library() -> None:
        """Import the JPEG coder."""
        load_coder()

    def __init__(self, path: Path) -> None:
        try:
            self._path, self._key = split_row_path(str(path))
        except ValueError as error:
            raise DecodeError(f"its path is {error}") from None
        self._archive = _archive(self._path)
        self._entries = self._archive.of(self._key)
        self.num_frames, self.fps = len(self._entries), float(self._entries["fps"][0])

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        out: Frames | None = None
        for place, jpeg in enumerate(self.jpegs(indices)):
            if out is None:
                out = np.empty((len(indices), *size_of(jpeg), 3), dtype=np.uint8)
            self.decode(jpeg, out[place])
        assert out is not None
        return out

    def each(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """See `VideoReader.each`. All frames take one place in memory, which stays in the processor's cache."""
        frame: np.ndarray | None = None
        for jpeg in self.jpegs(self._checked(indices)):
            if frame is None:
                frame = np.empty((*size_of(jpeg), 3), dtype=np.uint8)
            self.decode(jpeg, frame)
            yield frame

    def jpegs(self, indices: np.ndarray) -> Iterator[memoryview]:
        """The frames of a sorted list of different numbers as they are stored, neighbours by one read.

        Raises:
            DecodeError: The archive is damaged there.
        """
        chosen = self._entries[indices]
        starts, sizes = chosen["offset"].astype(np.int64), chosen["size"].astype(np.int64)
        ends = starts + sizes
        cuts = np.flatnonzero(starts[1:] - ends[:-1] > READ_OVER_BYTES) + 1
        for first, last in zip([0, *cuts.tolist()], [*cuts.tolist(), len(chosen)], strict=True):
            begin = int(starts[first]) - BLOCK
            data = self._bytes(begin, int(ends[last - 1]))
            for i in range(first, last):
                at = int(starts[i]) - begin
                jpeg = data[at:at + int(sizes[i])]
                if checksum(jpeg) != int(chosen["crc32"][i]):
                    self._give_up()
                    raise DecodeError(f"frame {indices[i]} is damaged in its archive (checksum)")
                self._look_at(int(indices[i]), data[at - BLOCK:at])
                yield jpeg

    def _bytes(self, begin: int, end: int) -> memoryview:
        """Bytes of the archive; a file that cannot be read any more is opened anew the next time."""
        try:
            data = os.pread(self._archive.file.fileno(), end - begin, begin)
        except OSError as error:
            self._give_up()
            raise DecodeError(f"its archive cannot be read: {error.strerror}") from None
        if len(data) != end - begin:
            self._give_up()
            raise DecodeError("its archive is cut")
        staging.count(len(data), staged=self._archive.copy is not None)
        return memoryview(data)

    def _give_up(self) -> None:
        """Open the archive anew the next time, and not a copy of it."""
        _open.pop(self._path, None)
        if self._archive.copy is not None:
            staging.distrust(self._path)

    def _look_at(self, number: int, head: memoryview) -> None:
        """What stands before a frame; of interest to the reader that checks."""

    def close(self) -> None:
        """Nothing to do: archives stay open for the next recording."""


class ArchivePillowReader(ArchiveReader):
    """The same by Pillow, which must give the same pixels; and the tar file itself must say that it is that frame."""

    decode = staticmethod(decode_with_pillow)

    @staticmethod
    def load_library() -> None:
        """Import Pillow, too."""
        load_coder()
        import PIL.Image  # noqa: F401

    def _look_at(self, number: int, head: memoryview) -> None:
        name = bytes(head[:100]).rstrip(b"\0").decode("ascii", "replace")
        if name != member_name(self._key, number):
            raise DecodeError(f"frame {number} is another one in the tar file than in its index")
