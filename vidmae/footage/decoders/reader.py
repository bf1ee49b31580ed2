"""What every decoder is to the rest: a file and frame numbers in, pictures out. Errors hold no file name.

Shape letters: T frames asked for, N frames in the file, H W height and width in pixels as shown, 3 = red green blue.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vidmae.footage.decoders.packets import PacketScan

Frames = np.ndarray  # uint8 [T, H, W, 3]


class DecodeError(ValueError):
    """A video cannot be read, or would be read wrongly. The message holds the reason, not the file's name."""


class VideoReader(ABC):
    """One open video. Use it as a context manager, in the process that opened it (a forked copy hangs or aborts)."""

    num_frames: int
    fps: float

    @staticmethod
    @abstractmethod
    def load_library() -> None:
        """Import the decoder: seconds on a cold file system, that the first video would have to wait for."""

    @classmethod
    def refuses(cls, packets: PacketScan) -> str | None:  # noqa: ARG003
        """Why this decoder must never read a kind of file, however often it was right; None where it may."""
        return None

    @abstractmethod
    def __init__(self, path: Path) -> None:
        """Open a file; a DecodeError says why it cannot be."""

    @abstractmethod
    def _read_sorted(self, indices: np.ndarray) -> Frames:
        """Give the frames of a sorted list of different numbers."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""

    def read(self, indices: Sequence[int] | np.ndarray) -> Frames:
        """Decode frames by number.

        Args:
            indices: Frame numbers in [0, num_frames), in any order; a number may come more than once.
        Returns:
            uint8 [T, H, W, 3], one picture per entry of `indices`, in that order.
        Raises:
            DecodeError: a number is out of range, or the file is damaged there.
        """
        asked = self._checked(indices)
        wanted, place = np.unique(asked, return_inverse=True)
        frames = self._read_sorted(wanted)
        return frames if np.array_equal(wanted, asked) else frames[place]

    def each(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Decode frames by number, for use one after the other.

        Args:
            indices: A sorted list of different frame numbers in [0, num_frames).
        Yields:
            uint8 [H, W, 3]; the next one may take the place of the last in memory.
        Raises:
            DecodeError: a number is out of range, or the file is damaged there.
        """
        yield from self._read_sorted(self._checked(indices))

    def _checked(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """The frame numbers that are asked for, if the video has them."""
        asked = np.asarray(indices, dtype=np.int64)
        if asked.ndim != 1 or asked.size == 0:
            raise DecodeError(f"frame numbers must be a list of at least one, got shape {asked.shape}")
        if asked.min() < 0 or asked.max() >= self.num_frames:
            raise DecodeError(f"frames {asked.min()} to {asked.max()} are asked, the video has [0, {self.num_frames})")
        return asked

    @property
    def width(self) -> int:
        """Width in pixels of the picture as shown."""
        return self._size()[1]

    @property
    def height(self) -> int:
        """Height in pixels of the picture as shown."""
        return self._size()[0]

    def _size(self) -> tuple[int, int]:
        if not hasattr(self, "_shown_size"):
            frame = self.read([0])
            self._shown_size = (int(frame.shape[1]), int(frame.shape[2]))
        return self._shown_size

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def regular_file(path: str | Path) -> Path:
    """Make the path absolute; refuse what is no file with bytes in it (opening a pipe would wait for ever)."""
    path = Path(path).absolute()
    try:
        if not path.is_file():
            raise DecodeError("no regular file" if path.exists() else "no such file")
        if not path.stat().st_size:
            raise DecodeError("the file is empty (0 bytes)")
        with path.open("rb"):
            return path
    except OSError as error:
        raise DecodeError(f"the file cannot be opened: {error.strerror}") from None


class Translate:
    """Turns a library's exceptions into DecodeError without the file's name."""

    def __init__(
        self, path: Path, kinds: tuple[type[BaseException], ...], who: str, where: Callable[[], str] | None = None
    ) -> None:
        self._path, self._kinds, self._who, self._where = path, kinds, who, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None or isinstance(error, DecodeError) or not isinstance(error, self._kinds):
            return
        said = getattr(error, "strerror", None) or str(error) or "the video ends too early"
        # decord's lines: "[time] source.cc:151: Check failed: ... ERROR cannot find video stream"
        said = re.sub(rf"\[\d\d:\d\d:\d\d\] \S+: |\[?\S*({re.escape(self._path.name)}|/proc/self/fd/)\S*\]?", "", said)
        where = f" {self._where()}" if self._where else ""
        raise DecodeError(f"{self._who} cannot read it{where}: {' '.join(said.split())[:160]}") from None
