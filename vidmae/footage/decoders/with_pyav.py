"""PyAV by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.footage.decoders.packets import Pictures, Timeline, av_open, decoded, has_table, timeline, timeline_of_table
from vidmae.footage.decoders.reader import DecodeError, Frames, Translate, VideoReader


class PyAvReader(VideoReader):
    """PyAV by number: seek to the key frame at or before the frame, decode on, recognise frames by their time stamp.

    Frames that are not asked for and that no other is built on are not decoded. Of an mp4 with an even rate the table of
    samples is read in place of all packets. Where time stamps are missing, double or made up (AVI with B-frames), it decodes
    from the first frame and counts: slow on long files, but right.
    """

    keys_before = 0  # how many key frames before the one that would do it begins at
    skips = True  # what nobody needs

    @staticmethod
    def load_library() -> None:
        """Import it."""
        import av  # noqa: F401

    def __init__(self, path: Path) -> None:
        self._path = path
        self._picture = Pictures()
        self._frames: Iterator[Any] = iter(())
        self._wanted: set[int] | None = None  # time stamps that are asked for; None is all
        self._next = 0  # number of the frame that `_frames` gives next
        self._open()
        with self._failure_as_decode_error():
            found = self._timeline()
            self.fps, self._timed, self._pts = found.fps, found.timed, found.pts
            self._keys, self._key_dts = found.keys, found.key_dts
            if not self._timed:
                self._restart()
            self.num_frames = len(self._pts) if self._timed else sum(1 for _ in self._frames)
        if self.num_frames < 1:
            raise DecodeError("it holds no frame")
        self._next = self.num_frames

    def _failure_as_decode_error(self) -> Translate:
        import av

        return Translate(self._path, (av.FFmpegError, StopIteration), "PyAV")

    def _timeline(self) -> Timeline:
        if has_table(self._container):
            if found := timeline_of_table(self._container, self._stream):
                return found
            self._container.close()
            self._open()
        return timeline(self._container, self._stream)

    def _open(self) -> None:
        self._container, self._stream = av_open(self._path)

    def _restart(self) -> None:
        self.close()
        self._open()
        self._frames, self._next = self._decoded(self._container.demux(self._stream)), 0

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        out: Frames | None = None
        self._wanted = set(self._pts[indices].tolist()) if self._timed and self.skips else None
        with self._failure_as_decode_error():
            for place, index in enumerate(indices.tolist()):
                pixels = self._picture(self._timed_frame(index) if self._timed else self._counted_frame(index))
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
        key = max(key - self.keys_before, min(key, 0))
        if ahead and (frame := self._decode_on(index)) is not None:
            return frame
        while key >= 0:  # a container may land later than asked: then try the key frame before
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
        # some containers index by time of showing; where others land beyond the frame, its time of decoding comes before; of
        # MPEG-PS the middle of the key frame may come first
        for goal in dict.fromkeys((pts, self._key_dts.get(pts, pts))):
            self._container.seek(goal, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            first = next(packets)
            begins = first.is_keyframe or (first.dts is not None and first.dts < self._key_dts.get(pts, pts))
            if first.pts is not None and first.pts <= pts and begins:
                self._frames, self._next = self._decoded(chain([first], packets)), index
                return True
        return False  # beyond the key frame: frames shown before the next one would be built on nothing

    def _decoded(self, packets: Iterable[Any]) -> Iterator[Any]:
        return decoded(self._stream, packets, lambda: self._wanted)

    def close(self) -> None:
        """Let go of the file."""
        self._frames = iter(())
        self._container.close()


class PyAvEarlierReader(PyAvReader):
    """Reads all packets, begins at the key frame before the one that would do, and leaves out nothing: to check PyAV by."""

    keys_before = 1
    skips = False

    def _timeline(self) -> Timeline:
        return timeline(self._container, self._stream)
