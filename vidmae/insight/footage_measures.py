"""What a moment of a recording looks like, in a few numbers: how much moves, how sharp and how bright it is, and a hash.

A moment is a frame and the one PAIR_S later, as far apart as two frames of a clip that the paper's models see. Both are made
small first, so that recordings of different sizes can be compared: short side SIDE_PX.

    motion_pct_per_s   mean length of the optical flow, in percent of the short side per second
    camera_pct_per_s   the part of it that a moving camera explains (shift, turn, zoom): mean length, in the same unit
    moving_pct_per_s   mean length of what remains: what moves by itself, and parallax
    change             mean difference of the two frames in grey levels
    sharpness          variance of the Laplacian, in grey levels squared: small is blurred (Pech-Pacheco et al. 2000)
    brightness         mean luma, 0 to 255
    contrast           standard deviation of the luma
    hash               64 bits of a perceptual hash (`perceptual_hash`)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.insight.vision import camera_flow, dense_flow, grey, laplacian, shrunk

SIDE_PX = 128
PAIR_S = 8 / 30
HASH_PX, HASH_WAVES = 32, 8


@dataclass(frozen=True)
class Moment:
    """A moment of a recording.

    Attributes:
        row: Of the recording in its manifest.
        content: Hash of the recording.
        second: When it is.
        motion_pct_per_s, camera_pct_per_s, moving_pct_per_s, change, sharpness, brightness, contrast: See above.
        hash: 16 hex digits.
    """

    row: int
    content: str
    second: float
    motion_pct_per_s: float
    camera_pct_per_s: float
    moving_pct_per_s: float
    change: float
    sharpness: float
    brightness: float
    contrast: float
    hash: str


NUMBERS = ("motion_pct_per_s", "camera_pct_per_s", "moving_pct_per_s", "change", "sharpness", "brightness", "contrast")
"""What is measured of a moment, and is a number."""


def measure(first: np.ndarray, second: np.ndarray, seconds: float) -> dict[str, float | str]:
    """The numbers of a moment.

    Args:
        first, second: uint8 [H, W, 3].
        seconds: From one to the other.
    Returns:
        NUMBERS and `hash`, rounded so that they are the same when they are read again.
    """
    here, there = (small_grey(frame) for frame in (first, second))
    flow = dense_flow(here, there)
    camera = camera_flow(flow)
    luma = here.astype(np.float64)
    found = {**{f"{name}_pct_per_s": float(np.linalg.norm(part, axis=-1).mean()) / min(here.shape) / seconds * 100
                for name, part in (("motion", flow), ("camera", camera), ("moving", flow - camera))},
             "change": float(np.abs(luma - there).mean()), "sharpness": float(laplacian(here).var()),
             "brightness": float(luma.mean()), "contrast": float(luma.std())}
    return {**{name: float(f"{value:.6g}") for name, value in found.items()}, "hash": f"{perceptual_hash(here):016x}"}


def small_grey(frame: np.ndarray) -> np.ndarray:
    """Luma of a frame with a short side of SIDE_PX: uint8 [h, w]; smaller frames keep their size."""
    height, width = frame.shape[:2]
    scale = min(1.0, SIDE_PX / min(height, width))
    small = shrunk(frame, max(1, round(height * scale)), max(1, round(width * scale)))
    return grey(small.astype(np.float32) / 255)


def perceptual_hash(luma: np.ndarray) -> int:
    """64 bits that stay about the same when a picture is compressed, resized or made brighter.

    The picture is shrunk to HASH_PX x HASH_PX. Of its cosine transform the HASH_WAVES x HASH_WAVES longest waves are kept,
    and a bit says whether one is above their median. The first, the mean brightness, does not count and is 0.

    Args:
        luma: uint8 [H, W].
    Source: Zauner 2010, Implementation and benchmarking of perceptual image hash functions, sec. 3.2.1.
    """
    waves = _COSINES @ shrunk(luma, HASH_PX, HASH_PX).astype(np.float64) @ _COSINES.T
    waves = waves.round(6).ravel()
    bits = waves > np.median(waves[1:])
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def moments_of(seconds: float, most: int) -> np.ndarray:
    """When to look at a recording: float64 [n], the middles of n equal parts, at most one a second and at least one.

    Args:
        seconds: Its length.
        most: n at most.
    """
    n = max(1, min(most, int(seconds)))
    return (np.arange(n) + 0.5) * (seconds / n)


def frame_pairs(moments_s: Sequence[float] | np.ndarray, fps: float, frames: int) -> np.ndarray:
    """Frame numbers of moments and of PAIR_S later: int64 [n, 2], within the video; different ones where it has two."""
    step = max(1, round(PAIR_S * fps))
    first = np.minimum(np.floor(np.asarray(moments_s) * fps).astype(np.int64), max(frames - 1 - step, 0))
    return np.stack([first, np.minimum(first + step, frames - 1)], axis=1)


def _cosines() -> np.ndarray:
    """float64 [HASH_WAVES, HASH_PX]: the longest waves of the cosine transform (type II)."""
    place = np.arange(HASH_PX) + 0.5
    return np.cos(np.pi / HASH_PX * np.arange(HASH_WAVES)[:, None] * place[None, :])


_COSINES = _cosines()
