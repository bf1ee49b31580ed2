"""The clips on which a trained model is looked at: evenly spread over each video, the centre of the picture, nothing random.

The released code takes a random start, the middle 224 of 256 px and every 4th frame (7.5 fps); here a start follows from the
video alone, the part of the picture is the same, and the frame stride is the one that the model was trained with unless
another is asked for.

    video    |------------------------------------------------------|   frames
    clips         |===========|               |===========|             2 of them: starts at 1/4 and 3/4 of frames - span
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.footage.frame_numbers import clip_indices, span_frames
from vidmae.footage.killable import Outcome, map_killable
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import DecodeError, open_video

Where = tuple[str, str, float, float]
"""Of a clip: path, decoder, first frame, frames per second of the file."""
CENTRE_SHARE = 224 / 256
"""Side of the square that is cut out of the middle, as a share of the shorter side of the picture."""


@dataclass(frozen=True)
class WindowSpec:
    """What a clip is; the meaning of each value stands in config.DataConfig and ModelConfig."""

    num_frames: int
    sampling_rate: int
    target_fps: float
    img_size: int

    def span(self, fps: float) -> float:
        """Frames of a file that a clip covers."""
        return span_frames(num_frames=self.num_frames, sampling_rate=self.sampling_rate, target_fps=self.target_fps, fps=fps)

    @property
    def seconds(self) -> float:
        """How long a clip is."""
        return self.num_frames * self.sampling_rate / self.target_fps


@dataclass(frozen=True)
class Window:
    """One clip of a video.

    Attributes:
        row: Of the manifest, from 0.
        number: Which of the video's clips.
        start: First frame of the time window; need not be whole.
    """

    row: int
    number: int
    start: float


def spread_windows(manifest: Manifest, spec: WindowSpec, per_video: int) -> tuple[list[Window], int]:
    """The clips of every video that is long enough.

    Args:
        manifest: The videos.
        spec: What a clip is.
        per_video: Clips of each video, evenly spread.
    Returns:
        The clips in the order of rows, and how many videos are shorter than one.
    Raises:
        ValueError: No video is as long as a clip; the message gives the largest sampling rate that works.
    """
    spare = manifest.frames - np.array([spec.span(fps) for fps in manifest.fps.tolist()])
    long_enough = np.flatnonzero(spare >= 0).tolist()
    if not long_enough:
        longest_s = float((manifest.frames / manifest.fps).max())
        rate = int(longest_s * spec.target_fps / spec.num_frames)
        raise ValueError(
            f"no video is as long as a clip: {spec.num_frames} frames at sampling rate {spec.sampling_rate} of "
            f"{spec.target_fps:g} fps are {spec.seconds:.2f} s, the longest video has {longest_s:.2f} s; "
            + (f"use at most --sampling-rate {rate}" if rate else "use longer videos"))
    windows = [Window(row, i, (i + 0.5) / per_video * float(spare[row])) for row in long_enough for i in range(per_video)]
    return windows, len(manifest) - len(long_enough)


def evenly_spread(count: int, wanted: int) -> set[int]:
    """`wanted` of `count` numbers from 0, evenly spread; all where there are no more."""
    return {(2 * i + 1) * count // (2 * wanted) for i in range(wanted)} if wanted < count else set(range(count))


@dataclass(frozen=True)
class WindowReader:
    """Reads clips by path, start and rate of the file; picklable, so that a process which can be killed may do it."""

    spec: WindowSpec

    def __call__(self, place: Where) -> np.ndarray:
        """Read one clip.

        Args:
            place: Path, decoder, first frame, frames per second of the file.
        Returns:
            uint8 [T, S, S, 3].
        Raises:
            DecodeError: The video cannot be read.
        """
        try:
            return self._read(*place)
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(type(error).__name__) from None  # its text may hold the file's name

    def _read(self, path: str, decoder: str, start: float, fps: float) -> np.ndarray:
        from vidmae.clips.transforms import crop_resize

        with open_video(path, decoder) as video:
            indices = clip_indices(start, self.spec.span(fps), self.spec.num_frames, video.num_frames)
            needed, which = np.unique(indices, return_inverse=True)
            frames = video.read(needed)
        side = round(min(frames.shape[1:3]) * CENTRE_SHARE)
        top, left = (frames.shape[1] - side) // 2, (frames.shape[2] - side) // 2
        return crop_resize(frames, which, (top, left, side, side), self.spec.img_size, flip=False).numpy()


def places(manifest: Manifest, windows: Sequence[Window]) -> list[Where]:
    """Arguments of a `WindowReader` for clips of a manifest."""
    return [(manifest.path(w.row), manifest.decoder(w.row), w.start, float(manifest.fps[w.row])) for w in windows]


def read_windows(spec: WindowSpec, where: Sequence[Where], *, workers: int, limit_s: float,
                 ) -> Iterator[Outcome[np.ndarray]]:
    """Read clips, in any order.

    Args:
        spec: What a clip is.
        where: See `places`.
        workers: Processes that read.
        limit_s: Seconds for one clip, then its process is killed; 0 sets no limit and reads in this process.
    Yields:
        One outcome for every clip: its pixels, uint8 [T, S, S, 3], or why it cannot be read, without its name.
    """
    reader = WindowReader(spec)
    if limit_s:
        yield from map_killable(reader, where, workers=workers, time_limit_s=limit_s)
        return
    for index, place in enumerate(where):
        try:
            yield Outcome(index, reader(place), None)
        except DecodeError as error:
            yield Outcome(index, None, str(error))
