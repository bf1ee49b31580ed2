"""Videos that follow a law of physics and videos that break it, rendered so that their pixels are the same.

    permanence   an object behind a screen is there afterwards, or is gone; nothing becomes something
    shape        a disc stays a disc, or is a square afterwards
    colour       an object keeps its colour, or has another one afterwards
    continuity   an object stays behind the left of two screens, or is behind the right one, though nothing crossed the gap
    solidity     an object stops at a wall behind a screen and passes where there is none, or comes out through the wall, or
                 does not come out though nothing is in its way

Each concept has two worlds, A and B, both of them possible: an object and none, a disc and a square. They differ only in
what is seen before and after a screen hides it, and are alike, pixel by pixel, around the seam in the middle:

    frames    0 ........ | hidden | ........ F
    A, A      disc       |        |     disc         possible
    B, B      square     |        |   square         possible
    A, B      disc       |        |   square         impossible, with the beginning of A, A
    B, A      square     |        |     disc         impossible, with the beginning of B, B

So the two possible videos consist of the same frames as the two impossible ones, and of the same pairs of neighbouring
frames. Whatever looks at single frames, or at changes from frame to frame, is right on one of the two pairs and wrong on the
other: 50 %. Only what carries what it saw across the hidden frames can be right more often. This is the design of
Riochet et al. 2018 (IntPhys, arXiv 1803.07616); that of solidity is the one of Weihs et al. 2022 (InfLevel).

Rendered over real pictures; a pure function of the seed. Letters: T frames of a model's clip, F = 3 T / 2 of a video, S px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.insight.interpolation.scenes import Sprite, cut_sprite
from vidmae.insight.vision import shifted

CONCEPTS = ("permanence", "shape", "colour", "continuity", "solidity")
QUADRUPLE = (("AA", "AB"), ("BB", "BA"))
"""Worlds before and after the seam of each possible video, and of the impossible one with the same beginning."""
VIDEOS = tuple(order for pair in QUADRUPLE for order in pair)
LEAST_FRAMES, LEAST_PX = 8, 32
SIDE = 0.2  # of an object, of S
TINT = 0.6  # share of an object's pixels that is its colour; the rest is texture
COLOURS = ((0.9, 0.15, 0.1), (0.1, 0.3, 0.9), (0.95, 0.8, 0.1), (0.1, 0.65, 0.2))
WALL = (0.45, 0.1, 0.35)
NOISE_CELLS = 8


@dataclass(frozen=True)
class Timeline:
    """When what happens.

    Attributes:
        frames: F, of a video.
        seam: First frame of the second part.
        hidden: Frames around the seam in which all that differs is hidden.
        raising: Frames that a screen needs to go up or down.
    """

    frames: int
    seam: int
    hidden: int
    raising: int

    @property
    def up(self) -> np.ndarray:
        """How far the screens are up: float [F], 0 to 1, symmetric around the seam."""
        return self._from(self.seam - self.hidden // 2, self.seam + self.hidden // 2)

    @property
    def stays_up(self) -> np.ndarray:
        """The same of a screen that comes earlier and stays."""
        return self._from(self.seam - 3 * self.hidden // 2, self.frames)

    def _from(self, first: int, end: int) -> np.ndarray:
        t = np.arange(self.frames)
        return np.clip(np.minimum(t - first, end - 1 - t) / (self.raising + 1) + 1, 0, 1)


def timeline(num_frames: int) -> Timeline:
    """The timeline for a model of clips of T frames; T = 16: 24 frames, hidden in 10 to 13.

    Raises:
        ValueError: The clips are too short to see what is before and what is after.
    """
    if num_frames < LEAST_FRAMES or num_frames % 4:
        raise ValueError(f"generated scenes need a model of clips of {LEAST_FRAMES} frames or more, a multiple of 4; this "
                         f"one has {num_frames} (--scenes)")
    frames = num_frames * 3 // 2
    return Timeline(frames, frames // 2, max(2, num_frames // 8 * 2), max(1, num_frames // 8))


@dataclass(frozen=True)
class Violation:
    """The two worlds of a scene.

    Attributes:
        concept: One of CONCEPTS.
        when: Its timeline.
        worlds: uint8 [2, F, S, S, 3], A and B, each a possible video.
    """

    concept: str
    when: Timeline
    worlds: np.ndarray

    def video(self, order: str) -> np.ndarray:
        """One of VIDEOS: uint8 [F, S, S, 3]."""
        first, last = ("AB".index(world) for world in order)
        return np.concatenate([self.worlds[first, :self.when.seam], self.worlds[last, self.when.seam:]])

    def truth(self, order: str) -> np.ndarray:
        """Which world each frame of a video is of: int [F], what an oracle knows."""
        return np.repeat(["AB".index(world) for world in order], [self.when.seam, self.when.frames - self.when.seam])


def make_violation(concept: str, pictures: Sequence[np.ndarray], *, num_frames: int, size: int, seed: Sequence[int],
                   ) -> Violation:
    """Render both worlds of a scene.

    Args:
        concept: One of CONCEPTS.
        pictures: uint8 [S, S, 3] each, of footage: background, texture of the object, texture of the screens; noise takes
            the place of those that are missing.
        num_frames: T.
        size: S.
        seed: Of everything that is drawn.
    Raises:
        ValueError: There is no such concept, or clips are too short or too small.
    """
    if concept not in CONCEPTS:
        raise ValueError(f"concept {concept!r} is unknown; known: {', '.join(CONCEPTS)}")
    if size < LEAST_PX:
        raise ValueError(f"generated scenes need clips of {LEAST_PX} px or more; this model has {size} (--scenes)")
    when, rng = timeline(num_frames), np.random.default_rng([*seed, CONCEPTS.index(concept)])
    textures = [p.astype(np.float32) / 255 for p in pictures[:3]]
    background, texture, cloth = (textures + [noise(size, rng) for _ in range(3 - len(textures))])[:3]
    stage = _Stage(background, cloth[::-1] * 0.5 + rng.uniform(0.1, 0.4, 3).astype(np.float32), size)
    objects = _objects(texture, round(SIDE * size), rng)
    play = {"solidity": _solidity, "continuity": _continuity}.get(concept, _behind_one_screen)
    worlds = play(concept, stage, when, objects, rng)
    return Violation(concept, when, np.stack([[_bytes(frame) for frame in world] for world in worlds]))


def noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """A picture of nothing: coarse and fine noise, float32 [S, S, 3] in 0..1."""
    cell = -(-size // NOISE_CELLS)
    coarse = np.kron(rng.uniform(0.2, 0.8, (NOISE_CELLS, NOISE_CELLS, 3)), np.ones((cell, cell, 1)))[:size, :size]
    return np.asarray((coarse + rng.uniform(-0.1, 0.1, coarse.shape)).clip(0, 1), dtype=np.float32)


@dataclass(frozen=True)
class _Stage:
    """Where scenes are played: what is behind all, what screens are made of, S."""

    background: np.ndarray
    cloth: np.ndarray
    size: int

    def frame(self, things: Sequence[tuple[Sprite, float, float]], wall: float | None,
              screens: Sequence[tuple[float, float]], up: float, floor: float) -> np.ndarray:
        """One frame: float32 [S, S, 3].

        Args:
            things: Objects and the places of their centres, as shares of S.
            wall: Where a wall stands, as a share of S; None: there is none.
            screens: Left and right end of each, as shares of S.
            up: How far they are up.
            floor: Height of the objects' centres, as a share of S; a screen that is up reaches above them.
        """
        s, picture = self.size, self.background
        if wall is not None:
            picture = picture.copy()
            top, bottom = (round((floor + sign * SIDE / 2) * s) for sign in (-1, 1))
            picture[top:bottom, round((wall - 0.02) * s):round((wall + 0.02) * s) + 1] = WALL
        for sprite, x, y in things:
            corner = x * s - (len(sprite.alpha) - 1) / 2, y * s - (len(sprite.alpha) - 1) / 2
            alpha = shifted(sprite.alpha, (s, s), *corner)[..., None]
            picture = picture * (1 - alpha) + shifted(sprite.pixels * sprite.alpha[..., None], (s, s), *corner)
        height = round((1 - (floor - SIDE * 0.75)) * s * up)
        if height:
            picture = picture.copy()
            for left, right in screens:
                part = slice(s - height, s), slice(round(left * s), round(right * s))
                picture[part] = self.cloth[part]
        return picture


@dataclass(frozen=True)
class _Objects:
    """The same texture as two shapes and in two colours."""

    disc: Sprite
    square: Sprite
    recoloured: Sprite


def _objects(texture: np.ndarray, side: int, rng: np.random.Generator) -> _Objects:
    cut = cut_sprite((texture * 255).astype(np.uint8), side, rng)
    grey = cut.pixels.mean(axis=-1, keepdims=True)
    one, other = (TINT * np.array(COLOURS[i], dtype=np.float32) + (1 - TINT) * grey
                  for i in rng.permutation(len(COLOURS))[:2])
    inner = round(side * np.sqrt(np.pi) / 2)  # of equal area
    square, edge = np.zeros_like(cut.alpha), (side - inner) // 2
    square[edge:edge + inner, edge:edge + inner] = 1
    return _Objects(Sprite(one, cut.alpha), Sprite(one, square), Sprite(other, cut.alpha))


def _behind_one_screen(concept: str, stage: _Stage, when: Timeline, objects: _Objects, rng: np.random.Generator,
                       ) -> list[list[np.ndarray]]:
    """An object rests or moves a little while a screen goes up and down in front of it."""
    floor, middle, far = rng.uniform(0.5, 0.7), rng.uniform(0.4, 0.6), rng.choice([0, 0.2]) * rng.choice([-1, 1])
    x = middle + far * (np.arange(when.frames) / (when.frames - 1) - 0.5)
    half = SIDE / 2 + abs(far) / 2 + 0.05
    other = {"permanence": None, "shape": objects.square, "colour": objects.recoloured}[concept]
    screens = [(max(middle - half, 0.0), min(middle + half, 1.0))]
    return [[stage.frame([(sprite, x[t], floor)] if sprite else [], None, screens, up, floor)
             for t, up in enumerate(when.up)] for sprite in (objects.disc, other)]


def _continuity(_: str, stage: _Stage, when: Timeline, objects: _Objects, rng: np.random.Generator,
                ) -> list[list[np.ndarray]]:
    """An object rests on the left or on the right; between the two screens is a gap."""
    floor, places = rng.uniform(0.5, 0.7), (rng.uniform(0.2, 0.28), rng.uniform(0.72, 0.8))
    sprite, half = objects.recoloured if rng.random() < 0.5 else objects.disc, SIDE / 2 + 0.04
    screens = [(x - half, x + half) for x in places]
    return [[stage.frame([(sprite, x, floor)], None, screens, up, floor) for up in when.up] for x in places]


def _solidity(_: str, stage: _Stage, when: Timeline, objects: _Objects, rng: np.random.Generator) -> list[list[np.ndarray]]:
    """A: nothing is behind the screen, and the object passes. B: a wall is, and the object stops at it. The screen stays."""
    floor, t = rng.uniform(0.5, 0.7), np.arange(when.frames)
    x = 0.45 + SIDE / when.hidden * (t - when.seam + 0.5)
    worlds = [(x, None), (np.minimum(x, 0.5 - 0.02 - SIDE / 2), 0.5)]
    turned = bool(rng.random() < 0.5)
    made = [[stage.frame([(objects.disc, place[i], floor)], wall, [(0.25, 0.65)], up, floor)
             for i, up in enumerate(when.stays_up)] for place, wall in worlds]
    return [[frame[:, ::-1] for frame in world] for world in made] if turned else made


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.asarray((picture.clip(0, 1) * 255).round(), dtype=np.uint8)
