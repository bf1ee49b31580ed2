"""What a clip shows of time: its frames in another order, one of them alone, or some of them, each held until the next.

Nothing is done to a picture, and a clip keeps its length. The orders are those of data.clip. A model of one frame that sees
a clip frame by frame (views framesN) sees the same frames in another order, and other frames where some are held.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from vidmae.evaluate.corruptions.kinds import Kind
from vidmae.footage.frame_numbers import arranged, held

SOURCE = "data.clip"
KEPT = (8, 4, 2)


def in_order(frames: np.ndarray, _constant: int, rng: np.random.Generator, *, clip: str) -> np.ndarray:
    """Show the frames of a clip in the order of data.clip; uint8 [T, H, W, 3] to the same."""
    shown: np.ndarray = frames[arranged(np.arange(len(frames)), clip, rng)]
    return shown


def few_frames(frames: np.ndarray, kept: int, _rng: np.random.Generator) -> np.ndarray:
    """Show some frames, evenly spread, each until the next; uint8 [T, H, W, 3] to the same."""
    shown: np.ndarray = frames[held(np.arange(len(frames)), kept)]
    return shown


def _order(clip: str, says: str, *, drawn: bool = False) -> Kind:
    return Kind("time", partial(in_order, clip=clip), (1,), "one level", says, SOURCE, drawn=drawn)


KINDS = {
    "shuffled-frames": _order("shuffled-frames", "the same frames in a drawn order", drawn=True),
    "reversed": _order("reversed", "the last frame first"),
    **{f"frames-{kept}": Kind("time", few_frames, (kept,), "frames", f"{kept} frames, evenly spread, each until the next",
                              "own", drawn=False) for kept in KEPT},
    "frozen": _order("frozen", "one frame, that in the middle, all the time"),
    "static-pair": _order("static-pair", "the first frame for half of the clip, then the last"),
}
