"""From one video to some of its clips: which frames, which part of the picture, which mask noise."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidmae.clips.filling import fill_clips
from vidmae.clips.order import CLIP, FRAMES, WINDOW, Place, rng
from vidmae.clips.transforms import Box, sample_crop
from vidmae.footage.frame_numbers import arranged, clip_indices, near_start, random_start, span_frames
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import open_video
from vidmae.settings.config import DataConfig, NetConfig

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
    repeat_near_s: float = 10.0
    resize: str = "antialias"

    @staticmethod
    def of(model: NetConfig, data: DataConfig, num_tokens: int, **more: Any) -> ClipSpec:
        """What a clip of these settings is; `num_tokens` numbers are drawn with each, `more` is for other fields."""
        return ClipSpec(
            num_frames=model.num_frames, sampling_rate=data.sampling_rate, target_fps=data.target_fps,
            img_size=model.img_size, crop_area=data.crop_area, crop_aspect=data.crop_aspect, flip_prob=data.flip_prob,
            repeat_aug=data.repeat_aug, repeat_window=data.repeat_window, repeat_near_s=data.repeat_near_s,
            num_tokens=num_tokens, **more)

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
        fps = float(self.manifest.fps[row])
        span = spec.span(row, fps)
        rngs = [rng(CLIP, self.seed, p.epoch, p.slot, p.repeat) for p in places]
        with open_video(self.manifest.path(row), self.manifest.decoder(row)) as video:
            starts = [self._start(place, own, span, video.num_frames, fps) for place, own in zip(places, rngs, strict=True)]
            indices = np.stack([self._shown(clip_indices(start, span, spec.in_window, video.num_frames), place)
                                for start, place in zip(starts, places, strict=True)])
            rngs = [self._again(place, own) for place, own in zip(places, rngs, strict=True)]
            fill_clips(video, indices, clips, lambda i, height, width: self._look(rngs[i], height, width),
                       frame_bytes=self.manifest.frame_bytes(row), linear=spec.resize == "linear")
        for mask, own in zip(noise, rngs, strict=True):
            own.random(out=mask, dtype=np.float32)

    def _start(self, place: Place, own: np.random.Generator, span: float, total_frames: int, fps: float) -> float:
        if place.stretch is not None:
            return min(place.stretch * span, max(total_frames - span, 0.0))  # a substitute may be shorter
        if self.spec.repeat_window == "own":
            return random_start(own, span, total_frames)
        visit = rng(WINDOW, self.seed, place.epoch, place.slot)
        if self.spec.repeat_window == "shared":
            return random_start(visit, span, total_frames)
        return near_start(visit, own, span, total_frames, self.spec.repeat_near_s * fps)

    def _shown(self, indices: np.ndarray, place: Place) -> np.ndarray:
        """Of the frame numbers of a window those that the clip shows, in its order."""
        if self.spec.clip != "normal":  # almost never: else no generator is made for it
            indices = arranged(indices, self.spec.clip, rng(FRAMES, self.seed, place.epoch, place.slot, place.repeat))
        return indices if place.frame is None else indices[[place.frame]]

    def _again(self, place: Place, own: np.random.Generator) -> np.random.Generator:
        """What draws crop, flip and mask: a window that comes again has its own draws each time."""
        return rng(CLIP, self.seed, place.epoch, place.slot, place.repeat, place.turn) if place.turn else own

    def _look(self, own: np.random.Generator, height: int, width: int) -> tuple[Box, bool]:
        """Which part of the picture a clip shows, and whether it is mirrored."""
        box = sample_crop(own, height, width, self.spec.crop_area, self.spec.crop_aspect)
        return box, bool(own.random() < self.spec.flip_prob)


