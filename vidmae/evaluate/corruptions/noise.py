"""Noise of single pixels: Gaussian, shot, impulse. It is drawn per px and does not grow with the size of a picture."""

from __future__ import annotations

from functools import cache

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import whole

SOURCE = "Hendrycks and Dietterich 2019"
GUIDES = 1024  # steps of the table that says where in a cumulative distribution a search begins


def gaussian_noise(frames: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Add normal noise.

    Args:
        frames: uint8 [T, H, W, 3].
        sigma: Standard deviation, in 0..1 of the range of a pixel.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    noise = rng.standard_normal(frames.shape[1:], dtype=np.float32)
    noise *= np.float32(255 * sigma)
    return whole(frames + noise)


def shot_noise(frames: np.ndarray, photons: int, rng: np.random.Generator) -> np.ndarray:
    """Count photons: a Poisson number whose mean follows the brightness.

    The numbers are quantiles of the distribution at a uniform draw, so that the same draws serve every frame of a clip.

    Args:
        frames: uint8 [T, H, W, 3].
        photons: Mean number at full brightness, which is also the largest that shows.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    cumulative, guide = _poisson(photons)
    draw = rng.random(frames.shape[1:], dtype=np.float32)
    steps = (draw * GUIDES).astype(np.int32)
    levels = (np.arange(photons + 1) * 255 // photons).astype(np.uint8)
    out = np.empty_like(frames)
    for frame, shown in zip(frames, out, strict=True):
        rows = frame.astype(np.int32)
        count = guide.ravel()[rows * GUIDES + steps].ravel()
        rows = rows.ravel() * (photons + 1)
        open_at = np.flatnonzero(draw.ravel() > cumulative.ravel()[rows + count])
        while len(open_at):  # few: those whose step of the table holds a boundary
            count[open_at] += 1
            open_at = open_at[draw.ravel()[open_at] > cumulative.ravel()[rows[open_at] + count[open_at]]]
        shown[...] = levels[count].reshape(frame.shape)
    return out


@cache
def _poisson(photons: int) -> tuple[np.ndarray, np.ndarray]:
    """For each value of a pixel: the cumulative distribution of counts [256, photons + 1], the last of which is 1 since more
    photons do not show; and the count at the beginning of each of GUIDES steps of a draw, int32 [256, GUIDES]."""
    from scipy.stats import poisson

    means = np.arange(256)[:, None] / 255 * photons
    cumulative = poisson.cdf(np.arange(photons + 1), means).astype(np.float32)
    cumulative[:, -1] = 1
    begins = (np.arange(GUIDES) / GUIDES).astype(np.float32)
    guide = np.stack([np.searchsorted(row, begins) for row in cumulative]).astype(np.int32)
    return cumulative, guide


def impulse_noise(frames: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Set a share of all values, each colour of a pixel by itself, to black or white, half of them each.

    Args:
        frames: uint8 [T, H, W, 3].
        share: Of the values, 0 to 1.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    draw = rng.random(frames.shape[1:], dtype=np.float32)
    kept = (draw >= share).astype(np.uint8)
    white = (draw < share / 2).astype(np.uint8) * np.uint8(255)
    return frames * kept + white


KINDS = {
    "gaussian_noise": Kind("noise", gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "standard deviation, of 1",
                           "normal noise is added", SOURCE),
    "shot_noise": Kind("noise", shot_noise, (60, 25, 12, 5, 3), "photons at full brightness", "photons are counted", SOURCE),
    "impulse_noise": Kind("noise", impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), "share of values",
                          "values become black or white", SOURCE),
}
