"""A video and what is known of it: objects, points, or both. Letters: T frames, H W px, N points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOID = 255  # a pixel of masks that nobody is asked about


@dataclass(frozen=True)
class Surface:
    """Which thing each pixel shows, and which place of it: what only a rendered scene knows.

    Attributes:
        layer: uint8 [T, H, W], number of the thing.
        place: float32 [T, H, W, 2], (x, y) on it in px of its own.
    """

    layer: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class DenseSequence:
    """One video with its truth.

    Attributes:
        frames: uint8 [T, H, W, 3].
        masks: uint8 [T, H, W], the object of each pixel, 0 for none, VOID where nobody knows; None without masks.
        points: float64 [N, T, 2], (x, y) of points as shares of width and height; None without points.
        occluded: bool [N, T], where they cannot be seen.
        surface: Of a rendered scene.
    """

    frames: np.ndarray
    masks: np.ndarray | None = None
    points: np.ndarray | None = None
    occluded: np.ndarray | None = None
    surface: Surface | None = None

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[0] < 2:
            raise ValueError(f"frames are {self.frames.dtype} {list(shape)}, allowed: uint8 [T, H, W, 3] with 2 frames or "
                             "more")
        if self.masks is not None and self.masks.shape != shape[:3]:
            raise ValueError(f"masks are {list(self.masks.shape)}, allowed: {list(shape[:3])} as the frames")
        if self.points is not None:
            wanted = (len(self.points), shape[0], 2)
            if self.points.shape != wanted or self.occluded is None or self.occluded.shape != wanted[:2]:
                raise ValueError(f"points are {list(self.points.shape)} and occluded "
                                 f"{None if self.occluded is None else list(self.occluded.shape)}, allowed: "
                                 f"[N, {shape[0]}, 2] and [N, {shape[0]}] as the frames")
            if not np.isfinite(self.points[~self.occluded]).all():
                raise ValueError("some points that can be seen have places that are no numbers")
