"""Shape without texture, and texture without shape, made from any picture where no published set is at hand.

The published silhouettes were drawn by hand and the published edges come from photographs on white. These are what a rule
finds in a picture as it is, so they are named generated wherever they stand.
"""

from __future__ import annotations

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.evaluate.corruptions.pixels import gaussian, luma, opencv

SOURCE = "after Geirhos et al. 2019"
BORDER = 0.06  # of the short side: the frame of a picture whose colours count as background
NO_EDGE = 0.7  # share of the pixels that are no edge by the upper threshold
LOWER = 0.4  # the lower threshold, of the upper
SMOOTHING_PX = 2**0.5


def silhouette(frames: np.ndarray, _constant: int, _rng: np.random.Generator) -> np.ndarray:
    """Paint the largest thing whose colours are not those of the picture's border black, and all else white.

    A pixel's distance is that of Mahalanobis from the colours of the border; Otsu's threshold divides the distances; of the
    parts that are left, the largest remains, without holes.

    Args:
        frames: uint8 [T, H, W, 3].
    Returns:
        uint8 [T, H, W, 3], 0 and 255.
    """
    cv2 = opencv()
    height, width = frames.shape[1:3]
    rim = max(1, round(min(height, width) * BORDER))
    outside = np.ones((height, width), dtype=bool)
    outside[rim:-rim, rim:-rim] = False
    out = np.full_like(frames, 255)
    for pixels, shown in zip(gaussian(frames, SMOOTHING_PX), out, strict=True):
        ground = pixels[outside].astype(np.float64)
        spread = np.cov(ground, rowvar=False) + np.eye(3)
        away = pixels - ground.mean(axis=0)
        distance = np.sqrt(np.einsum("hwc,cd,hwd->hw", away, np.linalg.inv(spread), away, optimize=True))
        scaled = (distance * (255 / max(float(distance.max()), 1e-6))).astype(np.uint8)
        _, mask = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        if contours:
            cv2.drawContours(shown, [max(contours, key=cv2.contourArea)], -1, (0, 0, 0), thickness=cv2.FILLED)
    return out


def edges(frames: np.ndarray, _constant: int, _rng: np.random.Generator) -> np.ndarray:
    """Draw the edges that Canny's rule finds, black on white; 70 % of the pixels of a frame are below the upper threshold.

    Args:
        frames: uint8 [T, H, W, 3].
    Returns:
        uint8 [T, H, W, 3], 0 and 255.
    """
    cv2 = opencv()
    out = np.empty_like(frames)
    for pixels, shown in zip(gaussian(luma(frames), SMOOTHING_PX), out, strict=True):
        right, down = (cv2.Sobel(pixels, cv2.CV_32F, *axis) for axis in ((1, 0), (0, 1)))
        upper = float(np.quantile(np.hypot(right, down), NO_EDGE))
        slopes = (slope.round().astype(np.int16) for slope in (right, down))
        found = cv2.Canny(*slopes, LOWER * upper, upper, L2gradient=True)
        shown[...] = (255 - found)[..., None]
    return out


def patch_shuffle(frames: np.ndarray, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Cut the picture into squares and exchange them, so that none stays where it was: texture stays, shape goes.

    Args:
        frames: uint8 [T, H, W, 3]; what does not fill a whole cell stays at the border.
        cells: Per side.
        rng: Source of randomness.
    Returns:
        uint8 [T, H, W, 3].
    """
    count, height, width = frames.shape[:3]
    cells = min(cells, height, width)
    tall, wide = height // cells, width // cells
    top, left = (height - tall * cells) // 2, (width - wide * cells) // 2
    area = np.s_[:, top:top + tall * cells, left:left + wide * cells]
    pieces = frames[area].reshape(count, cells, tall, cells, wide, 3).swapaxes(2, 3).reshape(count, cells**2, tall, wide, 3)
    order = rng.permutation(cells**2)
    mixed = np.empty_like(pieces)
    mixed[:, order] = pieces[:, np.roll(order, 1)]
    out = frames.copy()
    out[area] = mixed.reshape(count, cells, cells, tall, wide, 3).swapaxes(2, 3).reshape(out[area].shape)
    return out


KINDS = {
    "silhouette": Kind("shape", silhouette, (1,), "one level", "generated: shape alone, black on white", SOURCE, drawn=False,
                       generated=True),
    "edges": Kind("shape", edges, (1,), "one level", "generated: lines alone, black on white", SOURCE, drawn=False,
                  generated=True),
    "patch_shuffle": Kind("shape", patch_shuffle, (2, 4, 8, 16), "cells per side",
                          "generated: texture alone, cells exchanged", "after Naseer et al. 2021", generated=True),
}
