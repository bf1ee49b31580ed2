"""Clips of real footage for tests of what a model fills in."""

from __future__ import annotations

from functools import cache

import numpy as np

from tests.support.facilities import demo_clips, need
from vidmae.clips.windows import WindowReader, WindowSpec
from vidmae.footage.open_video import open_video


@cache
def real_clip(name: str = "bikes", *, num_frames: int = 8, sampling_rate: int = 4, img_size: int = 64) -> np.ndarray:
    """The beginning of a demo clip: uint8 [T, S, S, 3]. Do not change it."""
    need("clips")
    path = next(p for p in demo_clips() if p.stem.startswith(name))
    with open_video(path, "pyav") as video:
        fps = video.fps
    clip = WindowReader(WindowSpec(num_frames, sampling_rate, 30.0, img_size))((str(path), "pyav", 0.0, fps))
    clip.flags.writeable = False
    return clip
