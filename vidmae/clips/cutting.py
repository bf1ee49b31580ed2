"""From one video to some of its clips: which frames, which part of the picture, which mask noise."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidmae.clips.order import CLIP, FRAMES, WINDOW, Place, rng
from vidmae.clips.transforms import crop_resize, sample_crop
from vidmae.footage.frame_numbers import clip_indices, random_start, span_frames
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import VideoReader, open_video
from vidmae.settings.config import DataConfig, NetConfig

READ_BYTES = 2**28  # of decoded frames that are held at a time; a clip is read whole however large

Output = tuple[tuple[int, ...], type[np.generic]]
"""shape and type of one of the things that a clip consists of"""


@dataclass(frozen=True)
class ClipSpec:
    """What a clip is and how it is cut; the meaning of each value stands in config.FootageConfig and ModelConfig.

    `sampling` has the sources of a mixture, each with its first row, its sampling_rate and its target_fps.
    `window_frames` is data.window_frames: of a window of so many frames one is shown; 0: all of a window are shown.
    """

    num_frames: int
    sampling_rate: int
    target_fps: float
    img_size: int
    crop_area: tuple[float, float]
    crop_aspect: tuple[float, float]
    flip_prob: float
    repeat_aug: int
    repeat_window: str
    num_tokens: int
    clip: str = "normal"
    sampling: tuple[tuple[int, int, float], ...] = ()
    window_frames: int = 0

    @staticmethod
    def of(model: NetConfig, data: DataConfig, num_tokens: int, **more: Any) -> ClipSpec:
        """What a clip of these settings is; `num_tokens` numbers are drawn with each, `more` is for other fields."""
        return ClipSpec(
            num_frames=model.num_frames, sampling_rate=data.sampling_rate, target_fps=data.target_fps,
            img_size=model.img_size, crop_area=data.crop_area, crop_aspect=data.crop_aspect, flip_prob=data.flip_prob,
            repeat_aug=data.repeat_aug, repeat_window=data.repeat_window, num_tokens=num_tokens, **more)

    def span(self, row: int, fps: float) -> float:
        """Frames that a clip of a row covers in a file of so many frames a second."""
        rate, target_fps = self.sampling_rate, self.target_fps
        if self.sampling:
            _, rate, target_fps = self.sampling[bisect_right(self.sampling, row, key=lambda source: source[0]) - 1]
        return span_frames(num_frames=self.in_window, sampling_rate=rate, target_fps=target_fps, fps=fps)

    @property
    def in_window(self) -> int:
        """Frames of a time window."""
        return self.window_frames or self.num_frames

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of a clip: T, S, S, 3."""
        return self.num_frames, self.img_size, self.img_size, 3


@dataclass(frozen=True)
class Cutter:
    """Cuts clips out of the videos of a manifest; everything random follows from the seed and a clip's place."""

    manifest: Manifest
    spec: ClipSpec
    seed: int

    @property
    def decoders(self) -> tuple[str, ...]:
        """Those that read the videos."""
        return self.manifest.decoders

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `cut` fills for each clip."""
        return (self.spec.shape, np.uint8), ((self.spec.num_tokens,), np.float32)

    def cut(self, row: int, places: Sequence[Place], clips: np.ndarray, noise: np.ndarray) -> None:
        """Cut some repeats out of one video, which is opened once.

        Args:
            row: The video: that of the places, or one in its stead.
            places: Repeats, n of them, with the same epoch and slot.
            clips: Filled: uint8 [n, T, S, S, 3].
            noise: Filled: float32 [n, L], uniform.
        Raises:
            DecodeError: The video cannot be read.
        """
        spec = self.spec
        span = spec.span(row, float(self.manifest.fps[row]))
        rngs = [rng(CLIP, self.seed, p.epoch, p.slot, p.repeat) for p in places]
        with open_video(self.manifest.path(row), self.manifest.decoder(row)) as video:
            starts = [self._start(place, own, span, video.num_frames) for place, own in zip(places, rngs, strict=True)]
            indices = np.stack([self._shown(clip_indices(start, span, spec.in_window, video.num_frames), place)
                                for start, place in zip(starts, places, strict=True)])
            rngs = [self._again(place, own) for place, own in zip(places, rngs, strict=True)]
            for i, frames, which in read_clips(video, indices, frame_bytes=self.manifest.frame_bytes(row)):
                self._cut_one(frames, which, rngs[i], clips[i])
                noise[i] = rngs[i].random(spec.num_tokens, dtype=np.float32)

    def _start(self, place: Place, own: np.random.Generator, span: float, total_frames: int) -> float:
        if place.stretch is None:
            return random_start(self._window_rng(place, own), span, total_frames)
        return min(place.stretch * span, max(total_frames - span, 0.0))  # a substitute may be shorter

    def _shown(self, indices: np.ndarray, place: Place) -> np.ndarray:
        """Of the frame numbers of a window those that the clip shows, in its order."""
        if self.spec.clip != "normal":  # almost never: else no generator is made for it
            indices = arranged(indices, self.spec.clip, rng(FRAMES, self.seed, place.epoch, place.slot, place.repeat))
        return indices if place.frame is None else indices[[place.frame]]

    def _again(self, place: Place, own: np.random.Generator) -> np.random.Generator:
        """What draws crop, flip and mask: a window that comes again has its own draws each time."""
        return rng(CLIP, self.seed, place.epoch, place.slot, place.repeat, place.turn) if place.turn else own

    def _window_rng(self, place: Place, own: np.random.Generator) -> np.random.Generator:
        if self.spec.repeat_window == "shared":
            return rng(WINDOW, self.seed, place.epoch, place.slot)
        return own

    def _cut_one(self, frames: np.ndarray, which: np.ndarray, own: np.random.Generator, clip: np.ndarray) -> None:
        spec = self.spec
        box = sample_crop(own, frames.shape[1], frames.shape[2], spec.crop_area, spec.crop_aspect)
        flip = bool(own.random() < spec.flip_prob)
        clip[:] = crop_resize(frames, which, box, spec.img_size, flip=flip).numpy()


def arranged(indices: np.ndarray, clip: str, own: np.random.Generator) -> np.ndarray:
    """The frame numbers of a clip in the order in which the clip shows them: data.clip.

    Window, crop, flip and mask of a clip are the same whatever this says, so conditions can be compared clip by clip.

    Args:
        indices: int64 [T], ascending.
        clip: normal: as they are. reversed: the last first. shuffled-frames: in a drawn order. frozen: T times the one at
            T // 2. static-pair: T // 2 times the first, then the last.
        own: Draws the order of shuffled-frames, and nothing else.
    Returns:
        int64 [T].
    """
    half = len(indices) // 2
    if clip == "reversed":
        return indices[::-1]
    if clip == "shuffled-frames":
        return own.permutation(indices)
    if clip == "frozen":
        return np.repeat(indices[half], len(indices))
    if clip == "static-pair":
        return np.repeat(indices[[0, -1]], [half, len(indices) - half])
    assert clip == "normal"
    return indices


def read_clips(video: VideoReader, indices: np.ndarray, *, frame_bytes: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Read several clips of a video in order of time, as many at once as fit READ_BYTES: frames they share are decoded once.

    Args:
        video: Open.
        indices: int64 [n, T], the frame numbers of each clip.
        frame_bytes: Size of a decoded frame.
    Yields:
        Place of the clip in `indices`, frames uint8 [N, H, W, 3], and which of them are its: int64 [T].
    Raises:
        DecodeError: The video cannot be read.
    """
    by_time = np.argsort(indices[:, 0], kind="stable").tolist()
    at_once = max(1, READ_BYTES // (indices.shape[1] * frame_bytes))
    for some in (by_time[i:i + at_once] for i in range(0, len(by_time), at_once)):
        needed, where = np.unique(indices[some], return_inverse=True)
        frames = video.read(needed)
        yield from ((i, frames, which) for i, which in zip(some, where.reshape(len(some), -1), strict=True))
