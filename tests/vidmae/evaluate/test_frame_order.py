"""What a clip shows of time: which frames come when, by hand, and the same as data.clip shows them in training."""

from __future__ import annotations

import numpy as np
import pytest

from vidmae.evaluate.condition_loader import views_under
from vidmae.evaluate.corruptions.conditions import Condition, apply, parse_conditions
from vidmae.footage.frame_numbers import arranged, held


def clip(frames: int = 16) -> np.ndarray:
    """Frame t has the value 10 t: uint8 [T, 2, 2, 3]."""
    return np.broadcast_to(10 * np.arange(frames, dtype=np.uint8)[:, None, None, None], (frames, 2, 2, 3)).copy()


def shown(name: str, frames: int = 16, seed: int = 0) -> list[int]:
    """The numbers of the frames that are shown."""
    return (apply(clip(frames), Condition(name, 1), seed)[:, 0, 0, 0] // 10).tolist()


def test_the_frames_that_are_shown() -> None:
    assert shown("reversed") == list(range(15, -1, -1)) and shown("frozen") == [8] * 16
    assert shown("static-pair") == [0] * 8 + [15] * 8
    assert shown("frames-2") == [4] * 8 + [12] * 8 and shown("frames-4") == [2] * 4 + [6] * 4 + [10] * 4 + [14] * 4
    assert shown("frames-8") == [1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15]
    drawn = [shown("shuffled-frames", seed=seed) for seed in range(20)]
    assert all(sorted(order) == list(range(16)) for order in drawn) and len(set(map(tuple, drawn))) == 20
    assert drawn[0] == shown("shuffled-frames", seed=0), "the same each time for a clip"


@pytest.mark.parametrize(("frames", "kept"), [(5, 2), (7, 4), (16, 5), (3, 8), (1, 2), (16, 16)])
def test_any_number_of_frames_is_held_in_order_and_for_about_as_long(frames: int, kept: int) -> None:
    found = held(np.arange(frames), kept)
    values, counts = np.unique(found, return_counts=True)
    assert len(found) == frames and len(values) == min(frames, kept) and found.tolist() == sorted(found.tolist())
    assert counts.max() - counts.min() <= 1
    assert np.abs(found - np.arange(frames)).max() <= -(-frames // min(frames, kept)) // 2


def test_one_frame_that_is_held_is_the_frozen_clip_of_training() -> None:
    for frames in (1, 2, 7, 16):
        assert np.array_equal(held(np.arange(frames), 1), arranged(np.arange(frames), "frozen", np.random.default_rng()))
        assert shown("frozen", frames) == [frames // 2] * frames


def test_a_model_of_one_frame_sees_other_frames_and_no_order() -> None:
    """Views framesN: the frames of a clip are views of one frame each."""
    views = clip(8).reshape(8, 1, 2, 2, 3)
    frames = {c.name: views_under(c, views, 5, one_clip=True)[:, 0, 0, 0, 0] // 10 for c in parse_conditions("time")}
    assert sorted(frames["shuffled-frames"]) == sorted(frames["reversed"]) == list(range(8)) == frames["frames-8"].tolist()
    assert set(frames["frozen"]) == {4} and set(frames["frames-2"]) == {2, 6}
    for name in frames:
        alone = views_under(Condition(name, 1), views[:1], 5, one_clip=False)
        assert np.array_equal(alone, views[:1]), "one view of one frame stays as it is"
