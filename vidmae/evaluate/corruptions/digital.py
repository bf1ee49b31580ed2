"""What happens to a picture in the camera's computer: low contrast, elastic distortion, large pixels, JPEG."""

from __future__ import annotations

import io
from functools import cache

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import fitted, moved, opencv, product, published_size, sampled, scale_of, whole

SOURCE = "Hendrycks and Dietterich 2019"
ELASTIC_PX = 244  # sic: the published constants are parts of this


def contrast(frames: np.ndarray, share: float, _rng: np.random.Generator) -> np.ndarray:
    """Bring all values nearer to the mean of their colour over the clip.

    Args:
        frames: uint8 [T, H, W, 3].
        share: What is left of their distance from the mean.
    Returns:
        uint8 [T, H, W, 3].
    """
    means = frames.mean(axis=(0, 1, 2))
    return whole(frames * np.float32(share) + (means * (1 - share)).astype(np.float32))


def elastic_transform(frames: np.ndarray, constants: tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Move three points of the picture, and everything with them; then move each pixel along a smooth drawn field.

    Args:
        frames: uint8 [T, H, W, 3].
        constants: Strength of the field, its smoothness and the largest move of a point, in parts of 244 px of 224.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    strength, smoothness, jump = (ELASTIC_PX * part for part in constants)
    height, width = frames.shape[1:3]
    scale = scale_of(frames)
    middle, side = np.array([width // 2, height // 2], dtype=np.float32), min(height, width) // 3
    points = np.array([middle + side, [middle[0] + side, middle[1] - side], middle - side], dtype=np.float32)
    goals = points + rng.uniform(-jump * scale, jump * scale, size=(3, 2)).astype(np.float32)
    matrix = opencv().getAffineTransform(points, goals)
    size = published_size(height, width)
    right, down = (fitted(product(_smooth(size[0], smoothness), rng.uniform(-1, 1, size=size).astype(np.float32),
                                  _smooth(size[1], smoothness).T.copy()), height, width) * (strength * scale)
                   for _ in range(2))
    rows, columns = np.arange(height)[:, None] + down, np.arange(width) + right
    return np.stack([whole(sampled(moved(frame.astype(np.float32), matrix), rows, columns)) for frame in frames])


@cache
def _smooth(size: int, sigma_px: float) -> np.ndarray:
    """A Gaussian blur along an axis as a matrix, float32 [size, size]: to 3 sigma, in a mirror beyond the border.

    For the smoothest fields the kernel has 1,025 taps, five times the picture; the matrix has folded them.
    """
    reach = int(3 * sigma_px + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / sigma_px) ** 2)
    weights /= weights.sum()
    places = (np.arange(size)[:, None] + steps) % (2 * size)
    places = np.minimum(places, 2 * size - 1 - places)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], places), weights)
    return matrix.astype(np.float32)


def pixelate(frames: np.ndarray, share: float, _rng: np.random.Generator) -> np.ndarray:
    """Shrink a picture to a share of its side, and enlarge it again; both with a box filter.

    Args:
        frames: uint8 [T, H, W, 3].
        share: Of the side.
    Returns:
        uint8 [T, H, W, 3].
    """
    from PIL import Image

    height, width = frames.shape[1:3]
    small = (max(1, int(width * share)), max(1, int(height * share)))
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(frame).resize(small, box).resize((width, height), box)) for frame in frames])


def jpeg_compression(frames: np.ndarray, quality: int, _rng: np.random.Generator) -> np.ndarray:
    """Compress each frame as JPEG, with colours at half the resolution.

    Args:
        frames: uint8 [T, H, W, 3].
        quality: On the scale of libjpeg, 1 to 100.
    Returns:
        uint8 [T, H, W, 3].
    """
    from PIL import Image

    out = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(buffer)))
    return np.stack(out)


KINDS = {
    "contrast": Kind("digital", contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "share that is left", "low contrast", SOURCE,
                     drawn=False),
    "elastic_transform": Kind("digital", elastic_transform,
                              ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02)),
                              "strength, smoothness, jump, of 244 px", "stretched and shrunk", SOURCE),
    "pixelate": Kind("digital", pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), "share of the side", "large pixels", SOURCE,
                     drawn=False),
    "jpeg_compression": Kind("digital", jpeg_compression, (25, 18, 15, 10, 7), "quality", "JPEG", SOURCE, drawn=False),
}
