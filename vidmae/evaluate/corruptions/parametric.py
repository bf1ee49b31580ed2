"""Distortions of one parameter on grey pictures, which human observers were tested with.

Left out: power equalisation (needs the mean spectrum of a data set), false colours (needs the response of a monitor),
eidolons (no kept library). Lengths grow with the short side of a picture.
"""

from __future__ import annotations

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import gaussian, grey, scale_of, whole

SOURCE = "Geirhos et al. 2018"
MEAN_GREY = 0.4423  # of all pictures of the study, of 1
NOISE_CONTRAST = 0.3  # what pictures have under uniform noise


def _shown(values: np.ndarray) -> np.ndarray:
    """Grey frames, float [T, H, W] in 0..1, as uint8 [T, H, W, 3]; rounded."""
    return np.repeat(whole(values * np.float32(255) + np.float32(0.5))[..., None], 3, axis=-1)


def greyscale(frames: np.ndarray, _constant: int, _rng: np.random.Generator) -> np.ndarray:
    """Take the colours away; uint8 [T, H, W, 3] to the same."""
    return _shown(grey(frames))


def low_contrast(frames: np.ndarray, share: float, _rng: np.random.Generator) -> np.ndarray:
    """Grey, and all values nearer to the middle of the range.

    Args:
        frames: uint8 [T, H, W, 3].
        share: Contrast that is left, of 1.
    Returns:
        uint8 [T, H, W, 3].
    """
    return _shown(grey(frames) * np.float32(share) + np.float32((1 - share) / 2))


def low_pass(frames: np.ndarray, sigma: float, _rng: np.random.Generator) -> np.ndarray:
    """Grey, and blurred with a Gaussian; beyond the border lies the mean grey of the study.

    Args:
        frames: uint8 [T, H, W, 3].
        sigma: Standard deviation in px of 224.
    Returns:
        uint8 [T, H, W, 3].
    """
    return _shown(gaussian(grey(frames), sigma * scale_of(frames), outside=MEAN_GREY))


def high_pass(frames: np.ndarray, sigma: float, _rng: np.random.Generator) -> np.ndarray:
    """Grey, less what `low_pass` leaves, plus what makes the mean of a frame the mean grey of the study.

    Args:
        frames: uint8 [T, H, W, 3].
        sigma: Standard deviation in px of 224.
    Returns:
        uint8 [T, H, W, 3].
    """
    pixels = grey(frames)
    fine = pixels - gaussian(pixels, sigma * scale_of(frames), outside=MEAN_GREY)
    return _shown(fine + (MEAN_GREY - fine.mean(axis=(1, 2), keepdims=True)))


def phase_noise(frames: np.ndarray, width_deg: float, rng: np.random.Generator) -> np.ndarray:
    """Grey, and the phase of each frequency turned by a drawn angle; amplitudes stay until values are cut to the range.

    A frequency and its negative turn by opposite angles, so that the picture stays real. The mean stays, and so do the
    frequencies of half a cycle per px of even sides.

    Args:
        frames: uint8 [T, H, W, 3].
        width_deg: Angles are drawn from -width to width.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    from scipy import fft

    height, width = frames.shape[1:3]
    rows, columns = height - (height % 2 == 0), width - (width % 2 == 0)
    half = np.deg2rad(rng.uniform(-width_deg, width_deg, size=rows * columns // 2))
    turns = np.zeros((height, width))
    turns[height - rows:, width - columns:] = np.concatenate([half, [0], -half[::-1]]).reshape(rows, columns)
    factors = np.exp(1j * fft.ifftshift(turns)).astype(np.complex64)
    return _shown(fft.ifft2(fft.fft2(grey(frames)) * factors).real)


def uniform_noise(frames: np.ndarray, width: float, rng: np.random.Generator) -> np.ndarray:
    """Grey at 30 % contrast, plus noise of equal probability between two bounds.

    Args:
        frames: uint8 [T, H, W, 3].
        width: Noise is drawn from -width to width, of 1.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    noise = (rng.random(frames.shape[1:3], dtype=np.float32) * 2 - 1) * np.float32(width)
    return _shown(grey(frames) * np.float32(NOISE_CONTRAST) + np.float32((1 - NOISE_CONTRAST) / 2) + noise)


def rotation(frames: np.ndarray, angle_deg: int, _rng: np.random.Generator) -> np.ndarray:
    """Grey, and turned against the clock.

    Args:
        frames: uint8 [T, H, W, 3].
        angle_deg: 90, 180 or 270.
    Returns:
        uint8 [T, H, W, 3].
    Raises:
        ValueError: A picture that is not square would lie on its side.
    """
    height, width = frames.shape[1:3]
    if height != width and angle_deg % 180:
        raise ValueError(f"frames of {height} x {width} px cannot turn by {angle_deg} degrees and keep their shape; "
                         "cut squares")
    return np.rot90(_shown(grey(frames)), k=angle_deg // 90, axes=(1, 2))


KINDS = {
    "greyscale": Kind("parametric", greyscale, (1,), "one level", "without colours", SOURCE, drawn=False),
    "low_contrast": Kind("parametric", low_contrast, (0.5, 0.3, 0.15, 0.1, 0.05, 0.03, 0.01), "contrast, of 1",
                         "grey, low contrast", SOURCE, drawn=False),
    "low_pass": Kind("parametric", low_pass, (1, 3, 5, 7, 10, 15, 40), "deviation px", "grey, fine detail gone", SOURCE,
                     drawn=False),
    "high_pass": Kind("parametric", high_pass, (3, 1.5, 1, 0.7, 0.55, 0.45, 0.4), "deviation px", "grey, only fine detail",
                      SOURCE, drawn=False),
    "phase_noise": Kind("parametric", phase_noise, (30, 60, 90, 120, 150, 180), "width, degrees", "grey, phases turned",
                        SOURCE),
    "uniform_noise": Kind("parametric", uniform_noise, (0.03, 0.05, 0.1, 0.2, 0.35, 0.6, 0.9), "width, of 1",
                          "grey at 30 % contrast with noise; width 0 is low_contrast:2", SOURCE),
    "rotation": Kind("parametric", rotation, (90, 180, 270), "degrees against the clock", "grey, turned", SOURCE,
                     drawn=False),
}
