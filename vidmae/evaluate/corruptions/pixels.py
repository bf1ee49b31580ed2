"""Filters and moves of pixels that several corruptions share: the only import of OpenCV in this room.

Lengths of the published constants are px of pictures whose short side is 224 px. `scale_of` says how many px of these frames
one such px is. Letters: T frames, H W px, C colours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

PUBLISHED_PX = 224  # short side of the pictures that the published constants are meant for
ROUNDING = 0.002  # of 255; more than the error of float32, less than what a whole number may lack


def opencv() -> Any:
    """OpenCV with one thread: the same numbers on every machine, and ranks that do not fight for cores."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def scale_of(frames: np.ndarray) -> float:
    """Px of these frames, [T, H, W, C], per px of a picture whose short side is 224 px."""
    return float(min(frames.shape[1:3]) / PUBLISHED_PX)


def whole(values: np.ndarray) -> np.ndarray:
    """Values from 0 to 255 as uint8. Fractions are cut off, as in the published sets, and not rounded."""
    raised = np.add(values, ROUNDING, dtype=np.float32)
    np.clip(raised, 0, 255, out=raised)
    return np.asarray(raised.astype(np.uint8))


def published_size(height: int, width: int) -> tuple[int, int]:
    """H, W of the same picture with a short side of 224 px: layers such as snow are drawn at this size."""
    scale = PUBLISHED_PX / min(height, width)
    return round(height * scale), round(width * scale)


def fitted(layer: np.ndarray, height: int, width: int) -> np.ndarray:
    """A layer, float32 [h, w] or [h, w, C], at another size: means of areas where it shrinks, linear where it grows."""
    if layer.shape[:2] == (height, width):
        return layer
    cv2 = opencv()
    how = cv2.INTER_AREA if height < layer.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(layer, (width, height), interpolation=how))


def gaussian(frames: np.ndarray, sigma_px: float, *, outside: float | None = None) -> np.ndarray:
    """Gaussian blur; the kernel ends at 4 sigma.

    Args:
        frames: [T, H, W] or [T, H, W, C], any numbers.
        sigma_px: Standard deviation.
        outside: What stands beyond the border; by default its pixels go on.
    Returns:
        float32, the shape of `frames`.
    """
    cv2 = opencv()
    side = 2 * int(4 * sigma_px + 0.5) + 1
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT  # which is 0
    level = outside or 0.0
    return np.stack([np.asarray(cv2.GaussianBlur(frame.astype(np.float32) - np.float32(level), (side, side), sigma_px,
                                                 borderType=border)) + np.float32(level) for frame in frames])


def filtered(frames: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation of frames, [T, H, W, C], with a kernel, float32 [h, w]; the border is a mirror. Gives float32."""
    cv2 = opencv()
    return np.stack([np.asarray(cv2.filter2D(frame.astype(np.float32), -1, kernel)) for frame in frames])


def smeared(frames: np.ndarray, radius: int, sigma_px: float, angle_deg: float) -> np.ndarray:
    """Motion blur along a line to one side: the half of a Gaussian, as ImageMagick's.

    Args:
        frames: [T, H, W] or [T, H, W, C].
        radius: The line has 2 * radius + 1 steps of a px.
        sigma_px: Standard deviation of the weights along the line.
        angle_deg: Direction of the line.
    Returns:
        float32, the shape of `frames`; beyond the border its pixels go on.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-steps**2 / (2 * sigma_px**2))
    weights /= weights.sum()
    angle = np.deg2rad(angle_deg)
    moves = np.ceil(np.outer(steps, [np.sin(angle), np.cos(angle)]) - 0.5).astype(int)  # rows, columns
    height, width = frames.shape[1:3]
    low, high = np.maximum(-moves.min(axis=0), 0), np.maximum(moves.max(axis=0), 0)
    out = np.zeros(frames.shape, dtype=np.float32)
    part = np.empty(frames.shape[1:], dtype=np.float32)
    for frame, summed in zip(frames, out, strict=True):
        edges = [(low[0], high[0]), (low[1], high[1]), *[(0, 0)] * (frame.ndim - 2)]
        wide = np.pad(frame.astype(np.float32), edges, mode="edge")
        for (row, column), weight in zip((moves + low).tolist(), weights.astype(np.float32), strict=True):
            np.multiply(wide[row:row + height, column:column + width], weight, out=part)
            summed += part
    return out


@lru_cache(maxsize=256)
def _zoom_places(size: int, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Along one axis: the two places that a pixel of the enlarged middle is mixed from, and the share of the second."""
    inside = int(np.ceil(size / factor))
    first = (size - inside) // 2
    enlarged = round(inside * factor)
    cut = (enlarged - size) // 2
    places = np.arange(cut, cut + size) * ((inside - 1) / max(enlarged - 1, 1))
    low = np.minimum(places.astype(int), inside - 1)
    return first + low, first + np.minimum(low + 1, inside - 1), (places - low).astype(np.float32)


def enlarged_rows(frame: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a frame, float32 [H, ...], stretched over all rows: linear, ends on ends."""
    low, high, share = _zoom_places(frame.shape[0], factor)
    share = share.reshape(-1, *[1] * (frame.ndim - 1))
    return _mixed(frame[low], frame[high], share)


def enlarged(frame: np.ndarray, factor: float) -> np.ndarray:
    """The middle of a frame, float32 [H, W] or [H, W, C], enlarged to the size of the frame."""
    return enlarged_rows(enlarged_rows(frame, factor).swapaxes(0, 1), factor).swapaxes(0, 1)


def sampled(frame: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A frame at any places: bilinear, beyond the border in a mirror that stands on the edge of the last pixel.

    Args:
        frame: float32 [H, W, C].
        rows, columns: float [h, w], px; pixel centres have whole numbers.
    Returns:
        float32 [h, w, C].
    """
    height, width, colours = frame.shape
    flat = frame.reshape(-1, colours)

    def mirrored(places: np.ndarray, size: int) -> np.ndarray:
        places = places % (2 * size)
        return np.asarray(np.minimum(places, 2 * size - 1 - places))

    top, left = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - top).astype(np.float32)[..., None], (columns - left).astype(np.float32)[..., None]
    above, below = mirrored(top, height) * width, mirrored(top + 1, height) * width
    before, after = mirrored(left, width), mirrored(left + 1, width)
    return _mixed(_mixed(flat.take(above + before, axis=0), flat.take(above + after, axis=0), right),
                  _mixed(flat.take(below + before, axis=0), flat.take(below + after, axis=0), right), down)


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`first` where the share is 0, `second` where it is 1, a mixture between; both are used up."""
    second -= first
    second *= share
    first += second
    return first


def product(*matrices: np.ndarray) -> np.ndarray:
    """The product of matrices, float32, on one thread: BLAS would start one per core, which costs more than it saves."""
    cv2 = opencv()
    result = matrices[0]
    for matrix in matrices[1:]:
        result = cv2.gemm(result, matrix, 1, None, 0)
    return np.asarray(result)


def moved(frame: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A frame, uint8 or float32 [H, W, C], under an affine map of (x, y), float [2, 3]; a mirror beyond the border."""
    cv2 = opencv()
    return np.asarray(cv2.warpAffine(frame, matrix, frame.shape[1::-1], flags=cv2.INTER_LINEAR,
                                     borderMode=cv2.BORDER_REFLECT_101))


def grey(frames: np.ndarray) -> np.ndarray:
    """Luminance (Rec. 709) of frames, [..., 3] in 0..255; float32 [...] in 0..1."""
    return frames @ (np.array([0.2125, 0.7154, 0.0721], dtype=np.float32) / 255)


def luma(frames: np.ndarray) -> np.ndarray:
    """Luma (Rec. 601) of frames, [..., 3]; float32 [...] in the unit of `frames`."""
    return frames @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
