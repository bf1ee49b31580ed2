"""decord: fast on short clips; scans the file at each open (11 ms a minute of video)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vidmae.footage.decoders.packets import PacketScan
from vidmae.footage.decoders.reader import DecodeError, Frames, Translate, VideoReader


class DecordReader(VideoReader):
    """Fast on short clips; scans the file at each open (11 ms a minute of video)."""

    @staticmethod
    def load_library() -> None:
        """Import it."""
        import decord  # noqa: F401

    @classmethod
    def refuses(cls, packets: PacketScan) -> str | None:
        """Files whose time stamps do not name their frames: which of them a thread of decord drops there is a race.

        Seen on H.264 with B-frames in AVI: the last frames were other pictures in 1 to 12 of 20 reads by fresh readers.
        """
        return None if packets.timed else "decord may read other frames than asked: time stamps do not name them"

    def __init__(self, path: Path) -> None:
        # DECORD_EOF_RETRY_MAX stays at decord's 10,240: the retries count time, not attempts, and at 256 ordinary mp4
        # files failed on a busy machine. What stalls all the same is found and killed when the manifest is made.
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        self._path = path
        # decord writes the name of a file that it cannot open to stderr: it gets one that says nothing
        self._file = path.open("rb")
        nameless = Path(f"/proc/self/fd/{self._file.fileno()}")
        with self._failure_as_decode_error(decord):
            # one thread: with its default of all cores decord fails on every real SSV2 webm that was tried
            self._reader: Any = decord.VideoReader(str(nameless if nameless.exists() else path), ctx=decord.cpu(0),
                                                   num_threads=1)
            self.num_frames = len(self._reader)
            self.fps = float(self._reader.get_avg_fps())
        if self.num_frames < 1:
            raise DecodeError("decord finds no frame")

    def _failure_as_decode_error(self, decord: Any) -> Translate:
        return Translate(self._path, (decord.DECORDError, RuntimeError, IndexError), "decord")

    def _read_sorted(self, indices: np.ndarray) -> Frames:
        import decord

        with self._failure_as_decode_error(decord):
            frames: Frames = self._reader.get_batch(indices.tolist()).asnumpy()
            self._reader.seek(0)  # else it decodes ahead and keeps the frames (dmlc/decord#197, #208)
        return frames

    def close(self) -> None:
        """Let go of the file."""
        self._reader = None
        self._file.close()
