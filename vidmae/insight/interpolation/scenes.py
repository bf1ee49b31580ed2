"""Clips in which it is known where things are: real textures that move over real pictures along known paths.

    linear     straight on, at an even speed
    turning    a right angle in the middle of the clip
    occluded   straight on, behind a bar just before the hidden frames begin, out of it while they last
    crossing   two objects whose straight paths cross; one after the other, so that neither covers the other

Rendered from frames of any footage, to fractions of a pixel, and a pure function of the seed. Letters: T frames, S px side
of the clip, s px side of an object, N objects. Places are (x, y) in px, the centre of a pixel being a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.insight.vision import shifted

PATHS = ("linear", "turning", "occluded", "crossing")
SIDE_SHARE = 1 / 7  # s / S: 32 of 224 px
LENGTH_SHARE = 0.55  # of a path, of S: 8 px a frame at 224 px and 16 frames
BAR_SHARE = 0.75  # width of the bar, of s
LEAD_SHARE = 0.2  # of a path: in the middle of the clip the first of two objects is ahead by it, and the second behind
SOFT_EDGE_PX = 1.5
CANDIDATES = 40  # places that an object is chosen from


@dataclass(frozen=True)
class Sprite:
    """A disc cut out of a picture.

    Attributes:
        pixels: float32 [s, s, 3] in 0..1.
        alpha: float32 [s, s], 1 inside, 0 outside, soft at the edge.
    """

    pixels: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A rendered clip and the truth about it.

    Attributes:
        path: One of PATHS.
        clip: uint8 [T, S, S, 3].
        background: float32 [S, S, 3] in 0..1, what the clip would show without the objects.
        open: float32 [S, S], 0 where a bar is in front of the objects.
        sprites: N objects.
        centres: float64 [N, T, 2].
        visible: float64 [N, T], share of each object that nothing covers.
    """

    path: str
    clip: np.ndarray
    background: np.ndarray
    open: np.ndarray
    sprites: tuple[Sprite, ...]
    centres: np.ndarray
    visible: np.ndarray

    def boxes(self, slots: Sequence[int], t_patch_size: int) -> np.ndarray:
        """Boxes around the objects in some time slots, for `masking.box_mask`: float64 [slots, N, 4], NaN elsewhere."""
        half = len(self.sprites[0].alpha) / 2 + 1  # bilinear pasting spreads by a pixel at most
        time = self.clip.shape[0] // t_patch_size
        centres = self.centres.reshape(len(self.centres), time, t_patch_size, 2)[..., ::-1]
        # a pixel's edges are half a pixel from its centre
        edges = centres.min(axis=2) + 0.5 - half, centres.max(axis=2) + 0.5 + half
        boxes = np.concatenate(edges, axis=-1).swapaxes(0, 1)
        boxes[[t for t in range(time) if t not in slots]] = np.nan
        return boxes


def cut_sprite(picture: np.ndarray, side: int, rng: np.random.Generator, unlike: Sprite | None = None) -> Sprite:
    """Cut a disc out of a picture where its contrast is high, so that it can be found again.

    Args:
        picture: uint8 [H, W, 3].
        side: s.
        rng: Chooses the places that are looked at.
        unlike: Another object, from which it must be told apart: of the half of the places with higher contrast the one that
            differs most from it.
    """
    height, width = picture.shape[:2]
    corners = [(int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))) for _ in range(CANDIDATES)]
    parts = [picture[y:y + side, x:x + side].astype(np.float32) / 255 for y, x in corners]
    parts.sort(key=lambda part: float(part.std(axis=(0, 1)).mean()))
    pixels = parts[-1]
    if unlike is not None:
        pixels = max(parts[CANDIDATES // 2:], key=lambda part: float(((part - unlike.pixels) ** 2).mean()))
    away = np.hypot(*(np.indices((side, side)) - (side - 1) / 2))
    alpha = np.clip((side / 2 - 0.5 - away) / SOFT_EDGE_PX + 0.5, 0, 1).astype(np.float32)
    return Sprite(pixels, alpha)


def make_scene(path: str, background: np.ndarray, sources: Sequence[np.ndarray], *, num_frames: int, first_hidden: int,
               seed: Sequence[int]) -> Scene:
    """Render a scene.

    Args:
        path: One of PATHS.
        background: uint8 [S, S, 3].
        sources: Two pictures, uint8 [S, S, 3]: the objects are cut out of them, and the bar out of the first.
        num_frames: T.
        first_hidden: First frame that will be hidden; the bar covers the object just before it.
        seed: Of direction, place and objects.
    Raises:
        ValueError: There is no such path, or the picture is too small for an object of 5 px.
    """
    if path not in PATHS:
        raise ValueError(f"path {path!r} is unknown; known: {', '.join(PATHS)}")
    size = len(background)
    side = round(size * SIDE_SHARE)
    if side < 5:
        raise ValueError(f"clips of {size} px are too small to follow an object of {side} px; the probe needs 32 px or more")
    rng = np.random.default_rng([*seed, PATHS.index(path)])
    centres = _centres(path, num_frames, size, rng)
    empty = background.astype(np.float32) / 255
    first = cut_sprite(sources[0], side, rng)
    sprites = (first, cut_sprite(sources[1], side, rng, unlike=first))[:len(centres)]
    open_to_view = np.ones((size, size), dtype=np.float32)
    if path == "occluded":
        open_to_view = 1 - _bar(centres[0], max(first_hidden - 1, 1), size, side)
        empty = np.where(open_to_view[..., None] > 0, empty, sources[0][::-1].astype(np.float32) / 255)
    drawn = [_frame(empty, open_to_view, sprites, centres[:, t]) for t in range(num_frames)]
    return Scene(path, np.stack([frame for frame, _ in drawn]), empty, open_to_view, sprites, centres,
                 np.stack([visible for _, visible in drawn], axis=1))


def _centres(path: str, num_frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Where the objects are: [N, T, 2]."""
    angle, spread = rng.uniform(0, 2 * np.pi), size * 0.03
    ahead = np.array([np.cos(angle), np.sin(angle)])
    aside = np.array([-ahead[1], ahead[0]]) * rng.choice([-1, 1])
    middle = (size - 1) / 2 + rng.uniform(-spread, spread, 2)
    step = LENGTH_SHARE * size / (num_frames - 1)
    along = (np.arange(num_frames) - (num_frames - 1) / 2)[:, None] * step
    if path == "turning":
        legs = np.minimum(along, 0) * ahead + np.maximum(along, 0) * aside
        return np.stack([middle + legs - legs.mean(axis=0)])
    if path == "crossing":
        lead = LEAD_SHARE * LENGTH_SHARE * size
        return np.stack([middle + (along + lead) * ahead, middle + (along - lead) * aside])
    return np.stack([middle + along * ahead])


def _bar(centres: np.ndarray, frame: int, size: int, side: int) -> np.ndarray:
    """1 where the bar is: upright or lying, across the path, where the object is in a frame."""
    axis = int(np.argmax(np.abs(centres[-1] - centres[0])))
    covered = np.abs(np.arange(size) - centres[frame, axis]) <= BAR_SHARE * side / 2
    return np.broadcast_to(covered if axis == 0 else covered[:, None], (size, size)).astype(np.float32)


def _frame(empty: np.ndarray, open_to_view: np.ndarray, sprites: Sequence[Sprite], centres: np.ndarray,
           ) -> tuple[np.ndarray, np.ndarray]:
    """One frame, uint8 [S, S, 3], later objects before earlier ones; and what share of each object shows."""
    frame, layers = empty, []
    for sprite, (x, y) in zip(sprites, centres, strict=True):
        corner = x - (len(sprite.alpha) - 1) / 2, y - (len(sprite.alpha) - 1) / 2
        alpha = shifted(sprite.alpha, open_to_view.shape, *corner)[..., None] * open_to_view[..., None]
        pixels = shifted(sprite.pixels * sprite.alpha[..., None], open_to_view.shape, *corner) * open_to_view[..., None]
        frame = frame * (1 - alpha) + pixels
        layers.append(alpha)
    shares, through = [], np.ones_like(open_to_view)[..., None]
    for alpha, sprite in zip(layers[::-1], sprites[::-1], strict=True):
        shares.append(float((alpha * through).sum() / sprite.alpha.sum()))
        through = through * (1 - alpha)
    return (frame.clip(0, 1) * 255).round().astype(np.uint8), np.array(shares[::-1])
