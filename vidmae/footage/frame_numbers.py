"""Which frames of a file make a clip: pure numbers.

A clip of 16 frames at sampling rate 8 of 30 fps covers 8 * 16 / 30 = 4.27 s, whatever the file's own rate:

    file      |-----------------------------------------------------------|  total_frames at the file's fps
    span                 |===========================|                       sampling_rate * 16 / 30 * fps frames
                         start                        start + span
    frames               ^   ^   ^   ^  ...  ^   ^   ^                    floor(linspace(start, start + span - 1, 16))
"""

from __future__ import annotations

import numpy as np


def span_frames(*, num_frames: int, sampling_rate: int, target_fps: float, fps: float) -> float:
    """Frames of a file that a clip covers; need not be whole.

    Args:
        num_frames: T, frames of the clip.
        sampling_rate: Frame stride at target_fps.
        target_fps: Rate that the stride is counted in.
        fps: The file's own rate.
    """
    return sampling_rate * num_frames / target_fps * fps


def random_start(rng: np.random.Generator, span: float, total_frames: int) -> float:
    """First frame of a random time window: uniform over [0, total_frames - span], 0 where the file is shorter."""
    return float(rng.uniform(0, max(total_frames - span, 0)))


def near_start(visit: np.random.Generator, own: np.random.Generator, span: float, total_frames: int, near: float) -> float:
    """First frame of a window that lies near those of the other repeats of a visit: all of them within `near` frames.

        visit draws                  |                       a place in the file, the same for all repeats
        own draws                    |====|  |====|          how far behind it each of them begins
                                     |--- near ---|

    What goes beyond the last possible start comes round to the beginning of the file. So each window by itself is as likely
    to begin here as there, as with `random_start`; only how far repeats are apart is another.

    Args:
        visit: Source of randomness of the visit; the same state for each of its repeats.
        own: Of the repeat.
        span: Frames that a window covers.
        total_frames: Of the file.
        near: Frames within which the windows lie; no fewer than a window has.
    """
    room = max(total_frames - span, 0)
    behind = float(own.uniform(0, min(max(near - span, 0), room)))
    return (float(visit.uniform(0, room)) + behind) % room if room else 0.0


def clip_indices(start: float, span: float, num_frames: int, total_frames: int) -> np.ndarray:
    """Frame numbers of a clip.

    A file shorter than the span shows its last frame again and again: numbers beyond its end are clipped.

    Args:
        start: First frame of the window.
        span: Frames that the window covers.
        num_frames: T, frames to take.
        total_frames: Frames of the file.
    Returns:
        int64 [T], ascending, in [0, total_frames).
    Source: Orhan et al. 2024, released code: floor(linspace(start, start + span - 1, T)).
    """
    indices = np.floor(np.linspace(start, start + span - 1, num_frames)).astype(np.int64)
    return np.clip(indices, 0, total_frames - 1)


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
        return held(indices, 1)
    if clip == "static-pair":
        return np.repeat(indices[[0, -1]], [half, len(indices) - half])
    assert clip == "normal"
    return indices


def held(indices: np.ndarray, kept: int) -> np.ndarray:
    """Some frames of a clip, evenly spread, each held until the next one: fewer frames in a clip of the same length.

    The clip is cut into `kept` stretches of equal length, and the frame at the middle of each is shown for all of it:

        16 frames, 4 kept     2 2 2 2 6 6 6 6 10 10 10 10 14 14 14 14

    Args:
        indices: int64 [T], ascending.
        kept: How many of them are kept, 1 or more; T or more keep all. 1 is the frozen clip.
    Returns:
        int64 [T].
    """
    edges = np.arange(min(kept, len(indices)) + 1) * len(indices) // min(kept, len(indices))
    lengths = np.diff(edges)
    return np.repeat(indices[edges[:-1] + lengths // 2], lengths)
