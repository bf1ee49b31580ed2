"""Does a completion keep track of things? Where the objects of a scene are in it, against where they are in truth.

An object is looked for by template matching, in the part of the frame that its path crosses, to a fraction of a pixel. The
background is known, so what a completion adds to it is compared with what the object would add at each place:

    likeness = correlation of the two (normalised) x opacity (its share of the contrast; above 1, the inverse)

A cross-fade shows two ghosts of half the opacity, one where the object was and one where it will be; a completion that
tracks shows it once, between the two. Correlation alone would not do: to it any step in brightness is an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.insight.interpolation.scenes import Scene, Sprite
from vidmae.insight.vision import correlate, peak_at

LEAST_LIKENESS = 0.25  # below it there is no object
RIVAL_SHARE = 0.5  # a second place with this share of the best one's likeness is a second object
FLAT = 1e-4  # mean square: an object that differs by less from its background cannot be seen
SEEN_SHARE = 0.6  # an object that is covered by more is not looked for


@dataclass(frozen=True)
class Peak:
    """A place where an object seems to be: its centre in px, and its likeness, 0..1."""

    x: float
    y: float
    likeness: float


@dataclass(frozen=True)
class Track:
    """One object of a scene over the frames that were hidden.

    Attributes:
        number: Which object.
        frames: Frames that count: hidden, and the object mostly uncovered.
        error_px: Mean distance between the best place found and the true one.
        objects: Mean number of places found in a frame; 1 is right, 2 are ghosts, 0 is nothing.
        one_object: In every frame exactly one place is found, less than a quarter of the object's side from the true one.
    """

    number: int
    frames: int
    error_px: float
    objects: float
    one_object: bool


def likeness(frame: np.ndarray, scene: Scene, sprite: Sprite) -> np.ndarray:
    """How much of an object there is at each place of a frame.

    Args:
        frame: float [S, S, 3] in 0..1.
        scene: What the frame is a completion of.
        sprite: The object, s px.
    Returns:
        float32 [S - s + 1, S - s + 1] in 0..1, for the object's top left corner; 0 where a bar would hide most of it.
    """
    weight, seen = sprite.alpha[..., None] * np.ones(3, dtype=np.float32), scene.open[..., None]
    behind = scene.background * seen
    added = (frame - scene.background).astype(np.float32) * seen
    product = correlate(added, weight * sprite.pixels) - correlate(added * behind, weight)
    would_add = (correlate(seen * np.ones(3), weight * sprite.pixels**2) - 2 * correlate(behind, weight * sprite.pixels)
                 + correlate(behind**2, weight))
    does_add = correlate(added**2, weight)
    opacity = np.divide(product, would_add, out=np.zeros_like(product), where=would_add > FLAT * weight.sum())
    alike = product / np.sqrt(np.maximum(would_add, 1e-9) * np.maximum(does_add, 1e-9))
    uncovered = correlate(scene.open, sprite.alpha) > 0.5 * sprite.alpha.sum()
    opacity = np.minimum(opacity.clip(0), 1 / opacity.clip(1))
    return np.where(uncovered, opacity * alike.clip(0, 1), 0).astype(np.float32)


def locate(values: np.ndarray, side: int, region: tuple[float, float, float, float]) -> list[Peak]:
    """Places where an object seems to be, the likeliest first; at least the likeliest, however unlike.

    Args:
        values: See `likeness`.
        side: s, of the object.
        region: left, top, right, bottom in px: where its centre may be.
    """
    left, top, right, bottom = (int(np.clip(round(edge - (side - 1) / 2), 0, len(values) - 1)) for edge in region)
    rest = np.full_like(values, -np.inf)
    rest[top:bottom + 1, left:right + 1] = values[top:bottom + 1, left:right + 1]
    peaks: list[Peak] = []
    while True:
        y, x = (int(i) for i in np.unravel_index(np.argmax(rest), rest.shape))
        height = float(rest[y, x])
        if peaks and height < max(LEAST_LIKENESS, RIVAL_SHARE * peaks[0].likeness):
            return peaks
        fine_x, fine_y = peak_at(values, y, x)
        peaks.append(Peak(fine_x + (side - 1) / 2, fine_y + (side - 1) / 2, height))
        reach = side // 2  # what overlaps by half is the same object
        rest[max(y - reach, 0):y + reach + 1, max(x - reach, 0):x + reach + 1] = -np.inf


def measure(scene: Scene, filled: np.ndarray, frames: Sequence[int]) -> list[Track]:
    """Follow every object of a scene through a completion.

    Args:
        scene: The truth.
        filled: float [T, S, S, 3] in 0..1.
        frames: Frames that were hidden.
    Returns:
        A track of each object that is mostly uncovered in at least one of the frames.
    """
    tracks = []
    for number, (sprite, centres, visible) in enumerate(zip(scene.sprites, scene.centres, scene.visible, strict=True)):
        side = len(sprite.alpha)
        region = (*(centres.min(axis=0) - side / 2), *(centres.max(axis=0) + side / 2))
        seen = [t for t in frames if visible[t] >= SEEN_SHARE]
        found = [locate(likeness(filled[t], scene, sprite), side, region) for t in seen]
        if not seen:
            continue
        apart = [float(np.hypot(peaks[0].x - centres[t, 0], peaks[0].y - centres[t, 1]))
                 for t, peaks in zip(seen, found, strict=True)]
        others = np.delete(scene.centres, number, axis=0)
        counts = [_count(peaks, others[:, t], side) for t, peaks in zip(seen, found, strict=True)]
        tracks.append(Track(number, len(seen), float(np.mean(apart)), float(np.mean(counts)),
                            all(n == 1 and d < side / 4 for n, d in zip(counts, apart, strict=True))))
    return tracks


def _count(peaks: list[Peak], others: np.ndarray, side: int) -> int:
    """Places that count: the likeliest if it is likely at all, and every rival that no other object truly overlaps."""
    if peaks[0].likeness < LEAST_LIKENESS:
        return 0
    return 1 + sum(all(np.hypot(p.x - x, p.y - y) > side for x, y in others) for p in peaks[1:])
