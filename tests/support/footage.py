"""Clips of real footage: as they are, and small for tests that train, which would spend most of their time on decoding."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from tests.support.facilities import demo_clips, need, own_folder
from tests.support.videos import X264, ffmpeg
from vidmae.clips.windows import WindowReader, WindowSpec
from vidmae.footage.open_video import open_video

SHORT_SIDE_PX = 144
"""Of the small clips; that of the smallest of the demo clips, and enough for models of 32 px."""


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


@cache
def small_clips() -> list[Path]:
    """The demo clips with all of their frames at SHORT_SIDE_PX, under their names; made once in each process, and removed."""
    need("clips")
    need("ffmpeg")
    folder = own_folder("clips")
    for clip in demo_clips():
        ffmpeg("-i", clip, "-an", "-vf", f"scale=-2:{SHORT_SIDE_PX}", "-fps_mode", "passthrough", *X264, "-preset", "veryfast",
               "-g", "24", folder / clip.name)
    return sorted(folder.iterdir())
