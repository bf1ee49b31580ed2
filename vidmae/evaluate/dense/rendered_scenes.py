"""Videos whose truth is known, since they are rendered: shapes with textures move over a ground, seen by a moving camera.

    world      a ground with a texture, 2 to 4 shapes on it: discs, rectangles, stars. Each moves along a curve, turns and
               grows. Lower numbers lie below higher ones, so shapes hide the ground and each other
    camera     a homography for each frame: it shifts, turns, zooms and tilts a little
    truth      the shape of every pixel, points on shapes and ground in all frames, and whether they can be seen

All textures are drawn in the same way, so no colour says what is a shape. A scene is a function of its numbers alone.
Letters: T frames, S px side of a frame, N points. Places are (x, y) in px; the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vidmae.evaluate.dense.dense_sequence import DenseSequence, Surface

KINDS = ("disc", "rectangle", "star")
TEXTURE_PX = 128  # side of a texture; it goes on as a mirror
GRAINS = (4, 8, 16, 32)  # squares of noise along a texture, coarse to fine
GROUND_SHARE = 0.5  # of the points that are followed: on the ground where they start
LEAST_STEP = 0.15  # of S: how far a shape moves in a clip, at least


@dataclass(frozen=True)
class _Thing:
    """A shape, or the ground: its texture, and a matrix for each frame that takes a place on it to a place in the world."""

    kind: str
    radius: float
    texture: np.ndarray
    poses: np.ndarray

    def covers(self, place: np.ndarray) -> np.ndarray:
        """Whether places [..., 2] of its own lie on it."""
        x, y = place[..., 0] / self.radius, place[..., 1] / self.radius
        if self.kind == "disc":
            return np.asarray(x**2 + y**2 <= 1)
        if self.kind == "rectangle":
            return np.asarray((np.abs(x) <= 1) & (np.abs(y) <= 0.7))
        if self.kind == "star":
            return np.asarray(np.hypot(x, y) <= 0.8 + 0.2 * np.cos(5 * np.arctan2(y, x)))
        return np.ones(x.shape, dtype=bool)

    def colours(self, place: np.ndarray) -> np.ndarray:
        """What is seen at places [M, 2] of its own: float [M, 3] in 0..1."""
        at = place.T[::-1] + TEXTURE_PX / 2 - 0.5
        return np.stack([ndimage.map_coordinates(colour, at, order=1, mode="mirror") for colour in self.texture], axis=-1)


def render_scene(seed: Sequence[int], *, num_frames: int, size: int, points: int = 32) -> DenseSequence:
    """Render one scene.

    Args:
        seed: Of everything in it.
        num_frames: T, 3 or more.
        size: S, 32 px or more.
        points: N.
    Returns:
        Frames, masks, points and the surface that each pixel shows.
    Raises:
        ValueError: A number is out of range.
    """
    if num_frames < 3 or size < 32 or points < 1:
        raise ValueError(f"a scene of {num_frames} frames, {size} px and {points} points, allowed: 3 frames, 32 px and 1 "
                         "point, or more of each")
    rng = np.random.default_rng(list(seed))
    camera = _camera(rng, num_frames, size)
    things = [_Thing("ground", 1.0, _texture(rng), np.broadcast_to(np.eye(3), (num_frames, 3, 3)))]
    things += [_shape(rng, num_frames, size) for _ in range(int(rng.integers(2, 5)))]
    to_frame = np.stack([camera @ thing.poses for thing in things])  # [things, T, 3, 3]
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y], axis=-1)
    frames = np.empty((num_frames, size, size, 3), dtype=np.uint8)
    layer = np.zeros((num_frames, size, size), dtype=np.uint8)
    place = np.empty((num_frames, size, size, 2), dtype=np.float32)
    for t in range(num_frames):
        colours = np.empty((size, size, 3))
        for number, thing in enumerate(things):
            own = _moved(np.linalg.inv(to_frame[number, t]), pixels)
            there = thing.covers(own)
            layer[t][there], place[t][there] = number, own[there]
            colours[there] = thing.colours(own[there])
        frames[t] = (colours.clip(0, 1) * 255).round().astype(np.uint8)
    tracks, occluded = _tracks(rng, things, to_frame, layer, place, points)
    return DenseSequence(frames, layer, tracks / size, occluded, Surface(layer, place))


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Coloured noise of several grains: float [3, TEXTURE_PX, TEXTURE_PX] in 0..1."""
    total = np.zeros((3, TEXTURE_PX, TEXTURE_PX))
    for grain in GRAINS:
        squares = rng.standard_normal((3, grain, grain))
        total += ndimage.zoom(squares, (1, TEXTURE_PX / grain, TEXTURE_PX / grain), order=1, mode="mirror", grid_mode=False)
    total -= total.mean(axis=(1, 2), keepdims=True)
    total = 0.5 + 0.22 * total / total.std(axis=(1, 2), keepdims=True)
    return np.asarray(total.clip(0, 1))


def _shape(rng: np.random.Generator, num_frames: int, size: int) -> _Thing:
    """A shape and its way: a curve between two places, at least LEAST_STEP apart."""
    start = rng.uniform(0.2, 0.8, 2) * size
    angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(LEAST_STEP, 0.45) * size
    end = start + far * np.array([np.cos(angle), np.sin(angle)])
    bend = rng.uniform(-0.15, 0.15, 2) * size
    turn, grow = rng.uniform(-0.8, 0.8), np.log(rng.uniform(0.8, 1.25))
    poses = np.empty((num_frames, 3, 3))
    for t, when in enumerate(np.linspace(0, 1, num_frames)):
        middle = start + when * (end - start) + 4 * when * (1 - when) * bend
        poses[t] = _shift(*middle) @ _turned(turn * when, np.exp(grow * when))
    return _Thing(KINDS[int(rng.integers(len(KINDS)))], rng.uniform(0.14, 0.24) * size, _texture(rng), poses)


def _camera(rng: np.random.Generator, num_frames: int, size: int) -> np.ndarray:
    """World to frame, [T, 3, 3]; the identity in the first frame."""
    pan, tilt = rng.uniform(-0.12, 0.12, 2) * size, rng.uniform(-0.1, 0.1, 2) / size
    turn, zoom = rng.uniform(-0.15, 0.15), np.log(rng.uniform(0.9, 1.15))
    found = np.empty((num_frames, 3, 3))
    for t, when in enumerate(np.linspace(0, 1, num_frames)):
        lean = np.eye(3)
        lean[2, :2] = tilt * when
        found[t] = _shift(size / 2, size / 2) @ lean @ _turned(turn * when, np.exp(zoom * when)) @ _shift(
            -size / 2 + pan[0] * when, -size / 2 + pan[1] * when)
    return found


def _tracks(rng: np.random.Generator, things: Sequence[_Thing], to_frame: np.ndarray, layer: np.ndarray, place: np.ndarray,
            count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points that are seen in a frame that is drawn, followed through all of them: [N, T, 2] px, and bool [N, T]."""
    num_frames, size = layer.shape[:2]
    tracks, occluded = np.empty((count, num_frames, 2)), np.ones((count, num_frames), dtype=bool)
    for n in range(count):
        t = int(rng.integers(num_frames))
        wanted = (layer[t] == 0) == (n < GROUND_SHARE * count)
        rows, columns = np.nonzero(wanted if wanted.any() else np.ones_like(wanted))
        which = int(rng.integers(len(rows)))
        row, column = int(rows[which]), int(columns[which])
        number = int(layer[t, row, column])
        tracks[n] = _moved(to_frame[number], place[t, row, column].astype(np.float64)[None, None])[:, 0]
        for when, (x, y) in enumerate(tracks[n]):
            if 0 <= x < size and 0 <= y < size:
                occluded[n, when] = _top(things, to_frame[:, when], np.array([x, y])) != number
    return tracks, occluded


def _top(things: Sequence[_Thing], to_frame: np.ndarray, at: np.ndarray) -> int:
    """The thing that is seen at a place of a frame."""
    return max(number for number, thing in enumerate(things)
               if thing.covers(_moved(np.linalg.inv(to_frame[number]), at[None]))[0])


def _moved(matrix: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Places [..., 2] under a homography [3, 3], or [T, 3, 3] for places [1, M, 2]."""
    whole = np.concatenate([places, np.ones_like(places[..., :1])], axis=-1)
    moved = whole @ np.swapaxes(matrix, -1, -2)
    return np.asarray(moved[..., :2] / moved[..., 2:])


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def _turned(angle: float, scale: float) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
