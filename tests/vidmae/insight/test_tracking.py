"""The tracking probe: what is rendered is what is said, and a known failure and a known success are told apart."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.support.footage import real_clip
from vidmae.insight.interpolation.baselines import fade, hold
from vidmae.insight.interpolation.scenes import PATHS, SIDE_SHARE, Scene, make_scene
from vidmae.insight.interpolation.tracking import likeness, locate, measure
from vidmae.insight.interpolation.tracking_probe import (
    hidden_by,
    masks,
    scene_of,
    scene_rows,
    scenes_of,
    summary,
    whole_hidden,
)
from vidmae.model.masking import box_mask, center_mask, removed_pixels
from vidmae.settings.sizes import encoder_shape

SIZE, SIDE = 96, 14
SHAPE = encoder_shape("vit_nano_patch16", img_size=SIZE, num_frames=16)
HIDDEN = removed_pixels(center_mask(SHAPE.num_tokens, 0.25, 1), SHAPE)[0].numpy()
FRAMES = [6, 7, 8, 9]
SEEDS = range(4)


@cache
def scene(path: str, seed: int = 0) -> Scene:
    pictures = [real_clip(name, num_frames=1, img_size=SIZE)[0] for name in ("bikes", "carphone", "bigbuck")]
    return scene_of(seed, path, pictures, 16, FRAMES)


def shown(scene: Scene) -> np.ndarray:
    return scene.clip / 255.0


def test_scenes_are_the_same_every_time_and_differ_by_seed():
    assert round(SIZE * SIDE_SHARE) == len(scene("linear").sprites[0].alpha) == SIDE
    assert np.array_equal(scene("crossing").clip, scene.__wrapped__("crossing").clip)
    assert not np.array_equal(scene("linear", 0).centres, scene("linear", 1).centres)


@pytest.mark.parametrize("path", ["linear", "turning"])
def test_what_moves_is_where_it_is_said_to_be(path):
    """The weight of the pixels that differ from the background, over a background of one colour."""
    colour = np.full((SIZE, SIZE, 3), 128, dtype=np.uint8)
    white = np.full_like(colour, 255)
    rendered = make_scene(path, colour, [white, white], num_frames=16, first_hidden=6, seed=(2,))
    weight = (rendered.clip[..., 0].astype(float) - 128) / 127
    rows, columns = np.indices((SIZE, SIZE))
    for t in range(16):
        place = (weight[t] * columns).sum() / weight[t].sum(), (weight[t] * rows).sum() / weight[t].sum()
        assert np.allclose(place, rendered.centres[0, t], atol=0.05)


def test_paths_are_what_they_are_called():
    steps = np.diff(scene("linear").centres[0], axis=0)
    assert np.allclose(steps, steps[0]) and np.linalg.norm(steps[0]) == pytest.approx(0.55 * SIZE / 15)
    turn = np.diff(scene("turning").centres[0], axis=0)
    assert turn[0] @ turn[-1] == pytest.approx(0, abs=1e-9) and np.allclose(turn[0], turn[6]) and np.allclose(turn[8], turn[-1])
    first, second = scene("crossing").centres
    assert np.linalg.norm(first - second, axis=1).min() > SIDE  # neither covers the other
    assert np.linalg.norm(first[:, None] - second[None], axis=-1).min() < 0.55 * SIZE / 15  # but their paths meet
    for path in PATHS:
        for seed in SEEDS:
            assert scene(path, seed).centres.min() > SIDE / 2 - 1 and scene(path, seed).centres.max() < SIZE - SIDE / 2


def test_the_bar_covers_the_object_before_it_is_hidden():
    for seed in SEEDS:
        visible = scene("occluded", seed).visible[0]
        assert visible[5] < 0.4 and visible[5] == visible.min()
        assert visible[[0, 15]] == pytest.approx(1, abs=0.01) and visible[6] < visible[9] and visible[9] > 0.6
    assert (scene("linear").visible == pytest.approx(1, abs=0.01))


def test_likeness_against_counting_pixels():
    made = scene("occluded", 1)
    sprite, frame = made.sprites[0], fade(made.clip, HIDDEN)[8].astype(float)
    values = likeness(frame, made, sprite)
    weight, checked = sprite.alpha[..., None].astype(float), 0
    for y, x in np.random.default_rng(0).integers(0, SIZE - SIDE + 1, (200, 2)).tolist():
        here = np.s_[y:y + SIDE, x:x + SIDE]
        seen = made.open[here][..., None]
        would = (sprite.pixels - made.background[here]) * seen
        does = (frame[here] - made.background[here]) * seen
        product, mine, theirs = (float((weight * a * b).sum()) for a, b in ((would, does), (would, would), (does, does)))
        share = max(product / mine, 0) if mine > 0 else 0
        expected = min(share, 1 / max(share, 1)) * max(product / np.sqrt(max(mine, 1e-9) * max(theirs, 1e-9)), 0)
        if (seen[..., 0] * sprite.alpha).sum() <= 0.5 * sprite.alpha.sum():
            expected = 0
        assert values[y, x] == pytest.approx(expected, abs=2e-3)
        checked += expected > 0.05
    assert checked > 3


@pytest.mark.parametrize("path", PATHS)
def test_a_copy_of_the_truth_tracks(path):
    tracks = [track for seed in SEEDS for track in measure(scene(path, seed), shown(scene(path, seed)), FRAMES)]
    assert len(tracks) == len(SEEDS) * (2 if path == "crossing" else 1)
    assert np.mean([track.error_px for track in tracks]) < (1 if path == "occluded" else 0.3)
    assert all(track.one_object for track in tracks)


@pytest.mark.parametrize("path", PATHS)
def test_a_cross_fade_does_not_track(path):
    for seed in SEEDS:
        for track in measure(scene(path, seed), fade(scene(path, seed).clip, HIDDEN), FRAMES):
            assert not track.one_object and track.error_px > 2


def test_a_cross_fade_shows_two_ghosts_where_the_object_was_and_will_be():
    for seed in SEEDS:
        made = scene("linear", seed)
        faded = fade(made.clip, HIDDEN)
        for t, nearer in ((7, 5), (8, 10)):
            first, second = locate(likeness(faded[t], made, made.sprites[0]), SIDE, (0, 0, SIZE, SIZE))[:2]
            assert np.hypot(*(np.array([first.x, first.y]) - made.centres[0, nearer])) < 0.5
            assert np.hypot(*(np.array([second.x, second.y]) - made.centres[0, 15 - nearer])) < 0.5
            assert 0.45 < first.likeness < 0.65 and 0.25 < second.likeness < 0.45
        assert measure(made, faded, [7, 8])[0].objects == 2


def test_an_object_that_is_elsewhere_or_gone_is_noticed():
    made = scene("linear")
    moved = np.roll(shown(made), 3, axis=2)
    away = np.where(np.abs(moved - np.roll(made.background, 3, axis=1)).sum(-1, keepdims=True) > 0.05, moved, made.background)
    assert measure(made, away, FRAMES)[0].error_px == pytest.approx(3, abs=0.6)
    gone = np.broadcast_to(made.background, made.clip.shape)
    assert measure(made, gone, FRAMES)[0].objects == 0 and not measure(made, gone, FRAMES)[0].one_object
    late = measure(made, hold(made.clip, HIDDEN), FRAMES)[0]
    step = 0.55 * SIZE / 15
    assert late.error_px == pytest.approx(2.5 * step, rel=0.05) and late.objects == 1 and not late.one_object


def test_the_box_mask_hides_the_objects_in_the_hidden_frames_alone():
    for path in ("turning", "crossing"):
        made = scene(path)
        names = dict(masks(made, "center", 0.25, SHAPE))
        assert list(names) == ["center", "box"] and np.array_equal(names["center"], HIDDEN)
        box = names["box"]
        assert whole_hidden(names["center"]) == FRAMES and not box[[t for t in range(16) if t not in FRAMES]].any()
        adds = np.abs(shown(made) - made.background).max(axis=-1) > 0.02
        assert not (adds[FRAMES] & ~box[FRAMES]).any() and box[FRAMES].mean() < 0.5
    with pytest.raises(ValueError, match="hides 0 of 288 tokens"):
        box_mask(made.boxes([], 2), SHAPE)


def test_rows_and_their_summary():
    rows = []
    for number, path in [s for s in scenes_of(6) if s[1] == "linear" or (s[1] == "crossing" and s[0] < 3)]:
        made = scene(path, number)
        for _, _, found in scene_rows(made, number, "center", HIDDEN, FRAMES, {}):
            rows += found
    table = {(r["path"], r["method"]): r for r in summary(rows)}
    assert {method for _, method in table} == {"truth", "hold", "fade", "flow", "mean"}
    assert table["linear", "truth"]["one_object_pct"] == 100 and table["linear", "fade"]["one_object_pct"] == 0
    assert table["linear", "truth"]["ci_high"] < 0.5 < 2 < table["linear", "fade"]["ci_low"]
    chosen = [r["error_px"] for r in rows if (r["path"], r["method"]) == ("crossing", "hold")]
    assert len(chosen) == 6 and table["crossing", "hold"]["scenes"] == 3 and np.isnan(table["crossing", "hold"]["ci_low"])
    assert table["crossing", "hold"]["error_px"] == pytest.approx(np.mean(chosen))


def test_what_the_probe_cannot_do_is_said():
    with pytest.raises(ValueError, match=r"--mask tube --ratio 0\.5 hides none: use --mask center or temporal"):
        hidden_by("tube", 0.5, SHAPE)
    with pytest.raises(ValueError, match=r"hides none: .* with --ratio 0\.25 or more"):
        hidden_by("center", 0.1, SHAPE)
    assert whole_hidden(hidden_by("center", 0.25, SHAPE)) == FRAMES
    with pytest.raises(ValueError, match="'zigzag' is unknown; known: linear"):
        make_scene("zigzag", scene("linear").clip[0], [], num_frames=16, first_hidden=6, seed=(0,))
    tiny = np.zeros((24, 24, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="24 px are too small"):
        make_scene("linear", tiny, [tiny, tiny], num_frames=16, first_hidden=6, seed=(0,))
    with pytest.raises(ValueError, match="could be followed in the truth itself"):
        scene_of(0, "linear", [np.zeros((SIZE, SIZE, 3), dtype=np.uint8)], 16, FRAMES)
