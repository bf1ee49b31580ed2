"""The tracking probe: scenes out of the footage at hand, filled in by every method, and where their objects are then.

Two masks: the one that is asked for (center or temporal), and `box`, which hides in the same time slots only what boxes
around the objects touch. The box shows where something is missing; what is asked there is whether the object comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from vidmae.insight.csv_rows import Row
from vidmae.insight.interpolation.baselines import Filler, applicable
from vidmae.insight.interpolation.scenes import PATHS, Scene, make_scene
from vidmae.insight.interpolation.tracking import measure
from vidmae.insight.paired import paired_difference
from vidmae.model.masking import box_mask, make_mask, removed_pixels
from vidmae.settings.sizes import EncoderShape

TRUTH = "truth"  # the clip itself as its completion: what the measurement is worth
COLUMNS = ("mask", "path", "scene", "object", "method", "frames", "error_px", "objects", "one_object")
SUMMARY_COLUMNS = ("mask", "path", "method", "scenes", "error_px", "ci_low", "ci_high", "objects", "one_object_pct")
DRAWS = 50
WHOLE = ("center", "temporal")  # masks that hide frames as a whole


def scene_of(number: int, path: str, pictures: Sequence[np.ndarray], num_frames: int, frames: Sequence[int]) -> Scene:
    """Scene `number`: its background and its objects from three pictures, different ones where there are as many.

    A scene in which even a copy of the truth cannot be followed (an object that looks like its background) says nothing of
    a completion and is drawn anew.

    Args:
        number: Of the scene.
        path: One of `scenes.PATHS`.
        pictures: uint8 [S, S, 3] each.
        num_frames: T.
        frames: Frames that will be hidden.
    Raises:
        ValueError: None of many draws can be followed: the pictures are all but empty.
    """
    background, *sources = (pictures[(number + i) % len(pictures)] for i in range(3))
    for draw in range(DRAWS):
        scene = make_scene(path, background, sources, num_frames=num_frames, first_hidden=frames[0], seed=(number, draw))
        tracks = measure(scene, scene.clip.astype(np.float32) / 255, frames)
        if len(tracks) == len(scene.sprites) and all(track.one_object for track in tracks):
            return scene
    raise ValueError(f"in {DRAWS} draws no object of scene {number} ({path}) could be followed in the truth itself: the "
                     "pictures are too empty, or the hidden frames too few (--track)")


def masks(scene: Scene, name: str, ratio: float, shape: EncoderShape) -> Iterator[tuple[str, np.ndarray]]:
    """The masks of a scene and their hidden pixels, bool [T, H, W].

    Raises:
        ValueError: The mask hides no frame as a whole, or nothing, or everything.
    """
    asked = hidden_by(name, ratio, shape)
    yield name, asked
    slots = sorted({t // shape.t_patch_size for t in whole_hidden(asked)})
    yield "box", removed_pixels(box_mask(scene.boxes(slots, shape.t_patch_size), shape), shape)[0].numpy()


def hidden_by(name: str, ratio: float, shape: EncoderShape) -> np.ndarray:
    """Hidden pixels of a mask that hides whole frames: bool [T, H, W].

    Raises:
        ValueError: It does not.
    """
    hidden = removed_pixels(make_mask(name, shape, ratio, 1, generator=torch.Generator().manual_seed(0)), shape)[0].numpy()
    if name not in WHOLE or not whole_hidden(hidden):
        raise ValueError(f"--track needs frames that are hidden as a whole; --mask {name} --ratio {ratio:g} hides none: use "
                         f"--mask {' or '.join(WHOLE)} with --ratio {2 / shape.grid[0]:g} or more")
    return hidden


def whole_hidden(hidden: np.ndarray) -> list[int]:
    """Frames of which everything is hidden."""
    return np.flatnonzero(hidden.all(axis=(1, 2))).tolist()


def scene_rows(scene: Scene, number: int, name: str, hidden: np.ndarray, frames: Sequence[int],
               models: Mapping[str, Filler]) -> Iterator[tuple[str, np.ndarray, list[Row]]]:
    """Fill in a scene by every method: the method, its completion, and a row per object that can be seen."""
    fillers = {TRUTH: lambda clip, _: clip.astype(np.float32) / 255, **models, **applicable(hidden)}
    for method, fill in fillers.items():
        filled = fill(scene.clip, hidden)
        yield method, filled, [
            {"mask": name, "path": scene.path, "scene": number, "object": track.number, "method": method,
             "frames": track.frames, "error_px": track.error_px, "objects": track.objects,
             "one_object": int(track.one_object)}
            for track in measure(scene, filled, frames)]


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means over scenes with 95 % intervals of the position error; `one_object_pct` counts objects of scenes."""
    table = []
    for mask, path, method in dict.fromkeys((r["mask"], r["path"], r["method"]) for r in rows):
        chosen = [r for r in rows if (r["mask"], r["path"], r["method"]) == (mask, path, method)]
        errors = np.array([float(r["error_px"]) for r in chosen])
        found = paired_difference(errors, np.zeros(len(errors)), np.array([int(r["scene"]) for r in chosen]))
        table.append({"mask": mask, "path": path, "method": method, "scenes": found.recordings, "error_px": found.mean,
                      "ci_low": found.low, "ci_high": found.high,
                      "objects": float(np.mean([float(r["objects"]) for r in chosen])),
                      "one_object_pct": 100 * float(np.mean([int(r["one_object"]) for r in chosen]))})
    return table


def scenes_of(count: int) -> list[tuple[int, str]]:
    """Number and path of every scene: `count` of each path."""
    return [(number, path) for number in range(count) for path in PATHS]
