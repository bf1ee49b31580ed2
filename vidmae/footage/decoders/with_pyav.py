"""PyAV by number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.footage.decoders.packets import av_open, picture, scan
from vidmae.footage.decoders.reader import DecodeError, Frames, Translate, VideoReader


class PyAvReader(VideoReader):
    """PyAV by number: seek to the key frame at or before the frame, decode on, recognise frames by their time stamp.

    Where time stamps are missing, double or made up (AVI with B-frames), it decodes from the first frame and counts:
    slow on long files, but right.
    """

    counts = False  # whether time stamps are left alone, always

    @staticmethod
    def load_library() -> None:
        """Import it."""
        import av  # noqa: F401

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: Iterator[Any] = iter(())
        self._next = 0  # number of the frame that `_frames` gives next
        self._open()
        with self._failure_as_decode_error():
            found = scan(self._container, self._stream)
            self.fps = found.fps
            self._timed = found.timed and not self.counts
            self._pts = np.sort(found.pts)
            self._keys = np.flatnonzero(np.isin(self._pts, found.pts[found.key])) if self._timed else np.zeros(1, int)
            self._key_dts = dict(zip(found.pts[found.key].tolist(), found.dts[found.key].tolist(), strict=True))
            self._restart()
            self.num_frames = len(found.pts) if self._timed else sum(1 for _ in self._frames)
        if self.num_frames < 1:
            raise DecodeError("it holds no frame")
        self._next = self.num_frames

    def _failure_as_decode_error(self) -> Translate:
        import av

        return Translate(self._path, (av.FFmpegError, StopIteration), "PyAV")

    def _open(self) -> None:
        self._container, self._stream = av_open(self._path)

    def _restart(self) -> None:
        self.close()
        self._open()
        self._frames, self._next = self._container.decode(self._stream), 0

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        out: Frames | None = None
        with self._failure_as_decode_error():
            for place, index in enumerate(indices.tolist()):
                pixels = picture(self._timed_frame(index) if self._timed else self._counted_frame(index))
                if out is None:
                    out = np.empty((len(indices), *pixels.shape), dtype=np.uint8)
                if pixels.shape != out.shape[1:]:
                    raise DecodeError(f"the picture size changes at frame {index}")
                out[place] = pixels
        assert out is not None
        return out

    def _counted_frame(self, index: int) -> Any:
        if index < self._next:
            self._restart()
        while True:
            frame = next(self._frames)
            self._next += 1
            if self._next > index:
                return frame

    def _timed_frame(self, index: int) -> Any:
        key = int(np.searchsorted(self._keys, index, side="right")) - 1
        ahead = self._next <= index and (key < 0 or self._keys[key] <= self._next)
        if ahead and (frame := self._decode_on(index)) is not None:
            return frame
        while key > 0:  # a container may land later than asked: then try the key frame before
            if self._seek(int(self._keys[key])) and (frame := self._decode_on(index)) is not None:
                return frame
            key -= 1
        self._restart()
        if (frame := self._decode_on(index)) is None:
            raise DecodeError(f"frame {index} of {self.num_frames} does not come out of the decoder")
        return frame

    def _decode_on(self, index: int) -> Any:
        target = int(self._pts[index])
        for frame in self._frames:
            if frame.pts is None or frame.pts > target:
                break
            if frame.pts == target:
                self._next = index + 1
                return frame
        self._next = self.num_frames  # the position is lost: the next read seeks
        return None

    def _seek(self, index: int) -> bool:
        pts = int(self._pts[index])
        # mov's index is in decode times, a little before the times of showing; others index by time of showing
        goal = self._key_dts.get(pts, pts) if "mov" in self._container.format.name else pts
        self._container.seek(goal, stream=self._stream, backward=True)
        packets = self._container.demux(self._stream)
        first = next(packets)
        if first.pts is None or first.pts > pts:
            return False  # beyond the key frame: frames shown before the next one would be built on nothing
        self._frames = (frame for packet in _chain(first, packets) for frame in packet.decode())
        self._next = index
        return True

    def close(self) -> None:
        """Let go of the file."""
        self._frames = iter(())
        self._container.close()


class PyAvCountingReader(PyAvReader):
    """Decodes from the first frame on and counts, whatever time stamps say: slow, and the one to check PyAV by."""

    counts = True


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
