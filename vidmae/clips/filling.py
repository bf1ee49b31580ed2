"""Fills clips with the frames of a video: each frame is decoded once, cut for every clip that shows it, and let go.

    frames      f0        f1        f2     ...     in order of time; a reader of archives has one in memory at a time
    clip a      a[0]      a[1]
    clip b                b[0]      b[1]           each takes its part of the frame while that is in the processor's cache
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vidmae.clips.transforms import Box, CropResize
from vidmae.footage.open_video import VideoReader

READ_BYTES = 2**28  # of decoded frames that are held at a time; a clip is read whole however large

Look = Callable[[int, int, int], tuple[Box, bool]]
"""`look(clip, height, width)`: the part of the picture that a clip shows, and whether it is mirrored"""


def fill_clips(video: VideoReader, indices: np.ndarray, clips: np.ndarray, look: Look, *, frame_bytes: int,
               linear: bool = False) -> None:
    """Read several clips of a video in order of time, as many at once as fit READ_BYTES.

    Args:
        video: Open.
        indices: int64 [n, T], the frame numbers of each clip, in the order in which it shows them.
        clips: Filled: uint8 [n, T, S, S, 3].
        look: Called once for each clip.
        frame_bytes: Size of a decoded frame.
        linear: Resize without antialiasing.
    Raises:
        DecodeError: The video cannot be read.
    """
    by_time = np.argsort(indices[:, 0], kind="stable").tolist()
    at_once = max(1, READ_BYTES // (indices.shape[1] * frame_bytes))
    for some in (by_time[i:i + at_once] for i in range(0, len(by_time), at_once)):
        needed, where = np.unique(indices[some], return_inverse=True)
        shown = _shown(where.reshape(len(some), -1).tolist(), len(needed))
        cuts: list[CropResize] = []
        for place, frame in enumerate(video.each(needed)):
            cuts = cuts or [CropResize(*look(i, *frame.shape[:2]), clips[i], linear=linear) for i in some]
            for clip, times in shown[place]:
                cuts[clip](frame, times)


def _shown(where: list[list[int]], frames: int) -> list[list[tuple[int, list[int]]]]:
    """For each frame the clips that show it, and at which of their times."""
    shown: list[list[tuple[int, list[int]]]] = [[] for _ in range(frames)]
    for clip, places in enumerate(where):
        for time, place in enumerate(places):
            here = shown[place]
            if here and here[-1][0] == clip:
                here[-1][1].append(time)
            else:
                here.append((clip, [time]))
    return shown
