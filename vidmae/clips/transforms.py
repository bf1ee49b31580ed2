"""From decoded frames to the pixels that a model takes: cut first, resize in uint8, convert last and on the device.

Letters: N frames that were read, T frames of the clip, H W px, S side of the square clip.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Box = tuple[int, int, int, int]
"""top, left, height, width in px"""


def sample_crop(rng: np.random.Generator, height: int, width: int, area: tuple[float, float],
                aspect: tuple[float, float]) -> Box:
    """Draw the box of a random resized crop.

    Area is uniform, aspect ratio (width / height) uniform in its logarithm; a box that does not fit is drawn again, ten
    times at most, then the largest centred box within the aspect limits is taken.

    Args:
        rng: Source of randomness.
        height: Of the frame, px.
        width: Of the frame, px.
        area: Lowest and highest share of the frame's area.
        aspect: Lowest and highest width / height.
    Returns:
        A box inside the frame.
    """
    for _ in range(10):
        target = height * width * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    ratio = min(max(width / height, aspect[0]), aspect[1])
    h, w = min(height, round(width / ratio)), min(width, round(height * ratio))
    return (height - h) // 2, (width - w) // 2, h, w


class CropResize:
    """Cuts a box out of the frames of a clip, one by one, and resizes it.

    With antialiasing the pixels are those of `crop_resize`, which gets all frames at once: with one call for each, threads
    of torch would wait for one another in each. Without antialiasing each pixel is the mean of the four nearest, as the
    released code has it: by OpenCV, in two thirds of the time.

    Args:
        box: top, left, height, width in px.
        flip: Mirror left and right.
        clip: Filled once all of its frames have come, uint8 [T, S, S, 3], contiguous.
        linear: Resize without antialiasing.
    """

    def __init__(self, box: Box, flip: bool, clip: np.ndarray, *, linear: bool = False) -> None:
        self._box, self._flip, self._clip, self._linear = box, flip, clip, linear
        self._which = np.zeros(len(clip), dtype=np.int64)
        self._frames, self._left = 0, len(clip)
        self._cuts = np.empty((0 if linear else len(clip), *box[2:], 3), dtype=np.uint8)

    def __call__(self, frame: np.ndarray, times: list[int]) -> None:
        """Fill the places of a clip that show a frame.

        Args:
            frame: uint8 [H, W, 3].
            times: Places in the clip, one or more.
        """
        top, left, height, width = self._box
        cut = frame[top:top + height, left:left + width]
        if self._linear:
            self._resize(cut, times)
            return
        self._cuts[self._frames] = cut
        self._which[times] = self._frames
        self._frames, self._left = self._frames + 1, self._left - len(times)
        if not self._left:
            whole, size = (0, 0, height, width), self._clip.shape[1]
            self._clip[:] = crop_resize(self._cuts[:self._frames], self._which, whole, size, flip=self._flip).numpy()
            self._cuts = self._cuts[:0]

    def _resize(self, cut: np.ndarray, times: list[int]) -> None:
        cv2 = _opencv()
        place = self._clip[times[0]]
        cv2.resize(np.ascontiguousarray(cut), place.shape[:2], dst=place, interpolation=cv2.INTER_LINEAR)
        if self._flip:
            cv2.flip(place, 1, dst=place)
        for time in times[1:]:
            self._clip[time] = place


@cache
def _opencv() -> Any:
    """OpenCV with one thread: loader processes have all cores already."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def crop_resize(frames: np.ndarray, which: np.ndarray, box: Box, size: int, *, flip: bool) -> Tensor:
    """Cut a box out of some frames, resize it to a square, mirror it if asked. A single frame is resized once.

    Resized in uint8 with antialiasing: 40 times the speed of floating point on a 640 x 480 frame, and a quarter of the
    bytes to move.

    Args:
        frames: uint8 [N, H, W, 3].
        which: int64 [T], the frames to take, in order.
        box: top, left, height, width in px.
        size: S, px.
        flip: Mirror left and right.
    Returns:
        uint8 [T, S, S, 3], contiguous.
    """
    top, left, height, width = box
    once = len(frames) == 1  # a picture, or a frozen clip
    cut = frames[:, top:top + height, left:left + width]
    if once or not np.array_equal(which, np.arange(len(frames))) or min(cut.strides) < 0:
        cut = cut[which[:1] if once else which]
    # a permuted [T, H, W, 3] is channels_last, the layout in which the uint8 kernel is fast
    small = F.interpolate(torch.from_numpy(cut).permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True)
    if flip:
        small = small.flip(-1)
    clip = small.permute(0, 2, 3, 1)
    return (clip.expand(len(which), -1, -1, -1) if once else clip).contiguous()
