"""Whole videos at the rate of a model, and the windows that slide over them.

    video      |----------------------------------------|     frames of the file
    read       ^   ^   ^   ^   ^   ^   ^   ^   ^   ^   ^      as far apart as in a clip of training
    window 0   |===context===|---------predicted--------|     T of the frames that were read
    window 1           |===context===|---------predicted--------|

The whole picture is squeezed into the model's square: what breaks a law may happen at its edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.clips.windows import WindowSpec
from vidmae.footage.killable import Outcome, map_killable
from vidmae.footage.open_video import PILLOW, DecodeError, open_video
from vidmae.insight.surprise.pair_list import Place, files_of

CHUNK = 16  # frames that are decoded before they are made small


@dataclass(frozen=True)
class WholeReader:
    """Reads whole videos; picklable, so that a process which can be killed may do it.

    Attributes:
        spec: What a clip of the model is.
        decoder: Of videos; a folder of frames needs none.
    """

    spec: WindowSpec
    decoder: str

    def __call__(self, place: Place) -> np.ndarray:
        """Read one video.

        Args:
            place: Where it is.
        Returns:
            uint8 [F, S, S, 3].
        Raises:
            DecodeError: It cannot be read, or is shorter than a clip; the message has no name.
        """
        try:
            return self._read(place)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(type(error).__name__) from None  # its text may hold the file's name

    def _read(self, place: Place) -> np.ndarray:
        if place.fps:
            files = files_of(place)
            return np.concatenate([self._small(_picture(str(files[i]))) for i in self._frames(place, place.fps, len(files))])
        with open_video(place.path, self.decoder) as video:
            frames = self._frames(place, video.fps, video.num_frames)
            parts = [frames[i:i + CHUNK] for i in range(0, len(frames), CHUNK)]
            return np.concatenate([self._small(video.read(part)) for part in parts])

    def _frames(self, place: Place, fps: float, total: int) -> np.ndarray:
        """The numbers of the frames that are read."""
        first = place.start_frame + place.start_s * fps
        step = (self.spec.span(fps) - 1) / (self.spec.num_frames - 1)  # as vidmae.footage.frame_numbers.clip_indices
        if step <= 0:
            raise DecodeError(f"{fps:g} frames a second are fewer than a clip shows")
        frames: np.ndarray = np.floor(np.arange(first, total, step).round(6)).astype(np.int64)
        frames = frames[frames < total]
        if len(frames) < self.spec.num_frames:
            raise DecodeError(f"shorter than a clip of {self.spec.seconds:.2f} s (a smaller --sampling-rate takes shorter "
                              "ones)")
        return frames

    def _small(self, frames: np.ndarray) -> np.ndarray:
        from vidmae.clips.transforms import crop_resize

        box = (0, 0, *frames.shape[1:3])
        return np.asarray(crop_resize(frames, np.arange(len(frames)), box, self.spec.img_size, flip=False))


def read_whole(reader: WholeReader, places: Sequence[Place], *, workers: int, limit_s: float,
               ) -> Iterator[Outcome[np.ndarray]]:
    """Read videos, in any order.

    Args:
        reader: What reads.
        places: Where they are.
        workers: Processes that read.
        limit_s: Seconds for one video, then its process is killed; 0 sets no limit and reads in this process.
    Yields:
        One outcome for every video: its frames, or why it cannot be read, without its name.
    """
    if limit_s:
        yield from map_killable(reader, places, workers=workers, time_limit_s=limit_s)
        return
    for index, place in enumerate(places):
        try:
            yield Outcome(index, reader(place), None)
        except DecodeError as error:
            yield Outcome(index, None, str(error))


def starts(frames: int, num_frames: int, step: int) -> list[int]:
    """First frames of the windows of T frames over a video of F frames, `step` apart."""
    return list(range(0, frames - num_frames + 1, step))


def _picture(path: str) -> np.ndarray:
    with open_video(path, PILLOW) as picture:
        return picture.read([0])
