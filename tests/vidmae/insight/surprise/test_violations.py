"""Generated scenes: possible and impossible videos have the same pixels, and an oracle can tell them apart all the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from vidmae.insight.surprise.pair_scores import PRIMARY, is_right, reduced
from vidmae.insight.surprise.plain_surprise import OF_FRAMES, hold, of_windows, oracle, plain_surprise
from vidmae.insight.surprise.violations import CONCEPTS, QUADRUPLE, VIDEOS, Violation, make_violation, timeline
from vidmae.insight.surprise.whole_video import starts

SIZE, SEEDS = 40, {8: (0, 1), 16: (0,)}
CONTEXTS = {8: (2, 4, 6), 16: (4, 8, 12)}


@pytest.fixture(scope="module")
def scenes() -> dict[tuple[str, int, int], Violation]:
    """Of each concept, length of clips and seed; those of 16 frames over pictures, the others over noise."""
    pictures = list(np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8))
    return {(concept, frames, seed): make_violation(concept, pictures if frames == 16 else [], num_frames=frames, size=SIZE, seed=(seed,))
            for concept in CONCEPTS for frames in CONTEXTS for seed in SEEDS[frames]}


def frames_of(scene: Violation, possible: bool, length: int = 1) -> Counter[bytes]:
    """How often each frame, or each run of some frames, comes in the two possible or the two impossible videos."""
    videos = [scene.video(pair[0 if possible else 1]) for pair in QUADRUPLE]
    return Counter(video[t:t + length].tobytes() for video in videos for t in range(len(video) - length + 1))


@pytest.mark.parametrize("concept", CONCEPTS)
def test_possible_and_impossible_videos_have_the_same_frames(scenes, concept):
    for (name, frames, _), scene in scenes.items():
        if name == concept:
            assert frames_of(scene, True) == frames_of(scene, False)
            assert frames_of(scene, True, 2) == frames_of(scene, False, 2), "also from one frame to the next"
            assert frames_of(scene, True, frames) != frames_of(scene, False, frames), "but not in what a model sees at once"
            if frames == 16:
                assert frames_of(scene, True, 3) == frames_of(scene, False, 3), "flow takes three frames"
            histograms = [np.bincount(np.concatenate([scene.video(pair[side]).ravel() for pair in QUADRUPLE]), minlength=256)
                          for side in (0, 1)]
            np.testing.assert_array_equal(*histograms)


@pytest.mark.parametrize("concept", CONCEPTS)
def test_worlds_differ_before_and_after_and_nowhere_else(scenes, concept):
    for (name, frames, _), scene in scenes.items():
        if name == concept:
            when = scene.when
            differs = (scene.worlds[0] != scene.worlds[1]).any(axis=(1, 2, 3))
            assert not differs[when.seam - when.hidden // 2:when.seam + when.hidden // 2].any()
            assert differs[:when.seam].any() and differs[when.seam:].any()
            assert np.diff(np.flatnonzero(differs[:when.seam])).max(initial=1) == 1
            seen = [[t for t in np.flatnonzero(differs) if s <= t < s + frames] for s in starts(when.frames, frames, 2)]
            assert any(min(each) < when.seam <= max(each) for each in seen), "one window sees both"


@pytest.fixture(scope="module")
def plain(scenes) -> dict[tuple[int, str], dict[str, np.ndarray]]:
    """The numbers of every frame of every video, and one of its pixels."""
    return {(id(scene), order): {**plain_surprise(scene.video(order)), "one pixel": scene.video(order)[:, 3, 5, 1].astype(float)}
            for scene in scenes.values() for order in VIDEOS}


def right_by(scene: Violation, frames: int, key: tuple[str, str], of_frames: dict[tuple[int, str], np.ndarray] | None) -> list[float]:
    """Which of the two pairs of a scene a number of frames, or the oracle, has right."""
    first = starts(scene.when.frames, frames, 2)

    def number(order: str) -> float:
        windows = {c: oracle(scene.truth(order), first, c, frames) if of_frames is None else
                   of_windows(of_frames[id(scene), order], first, c, frames) for c in CONTEXTS[frames]}
        return reduced(windows, len(first))[key]

    return [is_right(number(possible), number(impossible)) for possible, impossible in QUADRUPLE]


@pytest.mark.parametrize("feature", [*OF_FRAMES, "one pixel"])
def test_what_sees_no_further_than_a_few_frames_is_right_in_exactly_half(scenes, plain, feature):
    numbers = {video: found[feature] for video, found in plain.items()}
    for (_, frames, _), scene in scenes.items():
        if feature != "flow" or frames == 16:
            right = right_by(scene, frames, PRIMARY, numbers)
            assert sum(right) == 1, (scene.concept, frames)


def test_a_copy_of_the_last_frame_remembers_only_what_it_shows(scenes):
    for (concept, frames, _), scene in scenes.items():
        first, (short, _, long) = starts(scene.when.frames, frames, 2), CONTEXTS[frames]
        right = {}
        for context in (short, long):
            numbers = {order: hold(scene.video(order), first, context, frames).mean() for order in VIDEOS}
            right[context] = sum(is_right(numbers[possible], numbers[impossible]) for possible, impossible in QUADRUPLE)
        assert right[long] == 1, "the screen is up, or all is over"
        if concept in ("continuity", "solidity"):  # in the others the object may move, and its copy is at the wrong place
            assert right[short] == {"continuity": 2, "solidity": 1}[concept]


def test_an_oracle_is_always_right(scenes):
    for (_, frames, _), scene in scenes.items():
        for reduction in ("mean", "max"):
            assert right_by(scene, frames, ("all", reduction), None) == [1, 1]


def test_a_feature_that_knows_which_video_it_is_can_also_be_wrong(scenes):
    """The oracle turned around: the measure can fail."""
    scene = scenes["shape", 16, 0]
    first = starts(24, 16, 2)
    numbers = {order: reduced({4: 1 - oracle(scene.truth(order), first, 4, 16)}, len(first))[PRIMARY] for order in VIDEOS}
    assert [is_right(numbers[possible], numbers[impossible]) for possible, impossible in QUADRUPLE] == [0, 0]


def test_a_scene_is_a_function_of_its_seed():
    made = [make_violation("colour", [], num_frames=8, size=32, seed=(seed, 4)).worlds for seed in (1, 1, 2)]
    assert np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])
    assert made[0].shape == (2, 12, 32, 32, 3) and made[0].dtype == np.uint8


def test_the_timeline_of_the_papers_clips():
    when = timeline(16)
    assert (when.frames, when.seam, when.hidden) == (24, 12, 4)
    assert np.flatnonzero(when.up == 1).tolist() == [10, 11, 12, 13] and np.flatnonzero(when.up == 0).tolist() == [*range(8), *range(16, 24)]
    assert (when.stays_up[6:] == 1).all() and (when.stays_up[:4] == 0).all()


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_frames": 4}, "need a model of clips of 8 frames or more.*has 4"), ({"num_frames": 10}, "a multiple of 4"),
    ({"size": 16}, "32 px or more; this model has 16"), ({"concept": "gravity"}, "known: permanence")])
def test_what_cannot_be_rendered_is_said(settings, message):
    asked = {"concept": "shape", "num_frames": 8, "size": 32, **settings}
    with pytest.raises(ValueError, match=message):
        make_violation(asked.pop("concept"), [], seed=(0,), **asked)
