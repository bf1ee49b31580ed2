"""Does a map look at what moves? The share of it on moving pixels against the share of the picture that they are.

    share of attention   sum over the moving pixels of the map, each token's weight spread evenly over its pixels
    share of area        moving pixels / all pixels
    ratio                1: the map does not care for motion; 2: twice as much on what moves as an even map has there

Where little moves the ratio is a quotient of two small numbers: clips with less than MIN_AREA_SHARE do not count in means.
A map that always prefers the same places (the middle, say) gets a ratio beside 1 as well where motion prefers them; what the
mean map of all other recordings gets on a clip is the measure of that.

Letters: T H W frames and px of a clip; t h w token grid; N clips.
"""

from __future__ import annotations

import numpy as np

from vidmae.insight.vision import dense_flow, grey

MIN_AREA_SHARE = 0.01


def moving_pixels(clip: np.ndarray, threshold_px: float, *, relative: bool = False) -> np.ndarray:
    """Which pixels move by more than a threshold from a frame to the next; of the last frame, from the one before.

    Args:
        clip: uint8 [T, H, W, 3].
        threshold_px: Length of the optical flow in px per frame of the clip, which must be exceeded.
        relative: Motion against the picture as a whole: each frame's median flow is taken off first, so that a camera that
            pans moves nothing by itself. Turns, zooms and parallax remain.
    Returns:
        bool [T, H, W].
    Raises:
        ValueError: A clip of one frame, in which nothing can be seen to move.
    """
    if len(clip) < 2:
        raise ValueError(f"a clip of {len(clip)} frame shows no motion; at least 2 are needed (model.num_frames)")
    frames = [grey(frame / np.float32(255)) for frame in clip]
    after = [*frames[1:], frames[-2]]
    flows = np.stack([dense_flow(here, there) for here, there in zip(frames, after, strict=True)])
    if relative:
        flows = flows - np.median(flows, axis=(1, 2), keepdims=True)
    return np.asarray(np.linalg.norm(flows, axis=-1) > threshold_px)


def moving_share(moving: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """The share of each token's pixels that move: float64 [t, h, w], from bool [T, H, W]."""
    (t, h, w), (frames, height, width) = grid, moving.shape
    return np.asarray(moving.reshape(t, frames // t, h, height // h, w, width // w).mean(axis=(1, 3, 5)))


def attention_share(attention: np.ndarray, moving: np.ndarray) -> float:
    """The share of a map on moving pixels.

    Args:
        attention: [t, h, w], sums to 1.
        moving: [t, h, w], from `moving_share`.
    """
    return float((attention.astype(np.float64) * moving).sum())


def ratio(attention: float, area: float) -> float:
    """Share of attention by share of area; NaN where nothing moves."""
    return attention / area if area else float("nan")


def others(maps: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """For each clip the mean map of the clips of all other recordings.

    Args:
        maps: [N, t, h, w].
        recordings: [N], which recording a clip is from.
    Returns:
        float64 [N, t, h, w]; NaN where all clips are of one recording.
    """
    maps = maps.astype(np.float64)
    _, which, count = np.unique(recordings, return_inverse=True, return_counts=True)
    if len(count) < 2:
        return np.full_like(maps, np.nan)
    own = np.zeros((len(count), *maps.shape[1:]))
    np.add.at(own, which, maps)
    return np.asarray((maps.sum(axis=0) - own[which]) / (len(maps) - count)[which][:, None, None, None])
