"""The probes fail and succeed where they must, before any model is judged; carrying and following against plain loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.dense_sets import sequences_of, tuning_scenes
from vidmae.evaluate.dense.dense_study import carried, choose_threshold, study, ways_back
from vidmae.evaluate.dense.frame_features import (
    clip_frames,
    encoder_features,
    mean_features,
    middle_slot,
    pixel_features,
    squares,
    surface_features,
)
from vidmae.evaluate.dense.mask_scores import score_masks
from vidmae.evaluate.dense.point_tracking import follow
from vidmae.evaluate.dense.propagation import Carrying, carry_labels, labels_of_cells, masks_of
from vidmae.evaluate.dense.rendered_scenes import render_scene
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.settings.programs.dense_config import DenseProbeConfig

HOW = DenseProbeConfig(scenes=2, scene_frames=6, scene_px=48, tuning_scenes=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small products are quicker so, and threads would wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes() -> list[DenseSequence]:
    return [make() for make in sequences_of(HOW)]


def unit(x: np.ndarray) -> np.ndarray:
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))


def test_points_lie_on_what_the_pictures_show(scenes: list[DenseSequence]) -> None:
    """The colour at a point stays the same, and points are seen where the mask has their thing; both are found otherwise than
    points are."""
    for scene in scenes:
        assert scene.points is not None and scene.occluded is not None and scene.masks is not None
        size = scene.frames.shape[1]
        assert 0.02 < scene.occluded.mean() < 0.8
        same, spread, others = [], [], []
        for track, hidden in zip(scene.points * size, scene.occluded, strict=True):
            seen = np.flatnonzero(~hidden)
            colours, things = [], []
            for t in seen:
                at = (track[t][::-1] - 0.5)[:, None]
                colours.append([ndimage.map_coordinates(scene.frames[t, :, :, c].astype(float), at, order=1, mode="nearest")[0]
                                for c in range(3)])
                x, y = track[t].astype(int)
                things.append(scene.masks[t, y, x])
            same.append((np.array(things) == things[0]).mean())
            spread.append(np.median(np.abs(np.array(colours) - colours[0])))
            others.append(np.abs(np.array(colours[0]) - scene.frames[seen[0]].reshape(-1, 3).mean(axis=0)).mean())
        assert np.mean(same) > 0.93 and np.median(spread) < 12 < np.mean(others)
    again = render_scene((0, 0, 1), num_frames=6, size=48)
    assert np.array_equal(again.frames, scenes[1].frames) and not np.array_equal(scenes[0].frames, scenes[1].frames)
    assert not any(np.array_equal(each.frames, scene.frames) for each in tuning_scenes(HOW) for scene in scenes)


def test_the_truth_gets_it_right_and_what_says_nothing_does_not(scenes: list[DenseSequence]) -> None:
    def scores(name: str) -> tuple[float, float, float, float]:
        made = {"oracle": lambda s: surface_features(s, 48, 48), "mean": lambda s: mean_features(s.frames, 48, 6),
                "pixels": lambda s: pixel_features(s.frames, 48, 6), "static": lambda _: None}[name]
        hidden_px = choose_threshold([ways_back(scene, made(scene), HOW) for scene in tuning_scenes(HOW)])
        found = [study(scene, made(scene), HOW, hidden_px, joined=2 if name == "oracle" else 1) for scene in scenes]
        objects = [each for record in found for each in record["objects"]]
        return (float(np.mean([each["j"]["mean"] for each in objects])), float(np.mean([each["f"]["mean"] for each in objects])),
                float(np.mean([record["points"]["first"]["delta"] for record in found])),
                float(np.mean([record["points"]["first"]["jaccard"] for record in found])))

    oracle, mean, pixels, static = map(scores, ("oracle", "mean", "pixels", "static"))
    assert oracle[0] > 0.88 and oracle[1] > 0.97 and oracle[2] > 0.92 and oracle[3] > 0.83, "what is lost are the edges of cells"
    assert max(static) < 0.6 and all(abs(a - b) < 0.1 for a, b in zip(mean[:2], static[:2], strict=True)) and mean[2] < static[2] + 0.05
    assert all(a > b + 0.1 for a, b in zip(oracle, pixels, strict=True))


def test_in_cells_of_a_pixel_the_truth_carries_masks_without_a_fault() -> None:
    scene = render_scene((0, 0, 1), num_frames=5, size=40)
    assert scene.masks is not None
    said = carried(scene.masks, surface_features(scene, 40, 40), HOW)
    assert min(min(each.j.mean, each.f.mean) for each in score_masks(said, scene.masks)) > 0.99


def test_with_masks_alone_the_truth_keeps_objects_apart(scenes: list[DenseSequence]) -> None:
    scene = replace(scenes[0], surface=None)
    assert scene.masks is not None
    said = carried(scene.masks, surface_features(scene, 24, 24), HOW)
    assert (said == scene.masks).mean() > 0.95
    with pytest.raises(ValueError, match="allowed: a set with masks"):
        surface_features(DenseSequence(scene.frames), 4, 4)


def test_labels_are_carried_as_plain_loops_carry_them() -> None:
    rng = np.random.default_rng(0)
    features, first = unit(rng.standard_normal((5, 4, 6, 8))), rng.dirichlet(np.ones(3), (4, 6))
    how = Carrying(last_frames=2, radius=2, neighbours=4, temperature=0.2)
    labels = [first]
    for t in range(1, 5):
        carried_here = np.empty((4, 6, 3))
        for y in range(4):
            for x in range(6):
                candidates = []
                for source in sorted({0, *[s for s in range(t - 2, t) if s >= 0]}):
                    for v in range(max(0, y - 2), min(4, y + 3)):
                        for u in range(max(0, x - 2), min(6, x + 3)):
                            candidates.append((features[t, y, x] @ features[source, v, u], labels[source][v, u]))
                best = sorted(candidates, key=lambda pair: -pair[0])[:4]
                weights = np.exp(np.array([value for value, _ in best]) / 0.2)
                carried_here[y, x] = sum(w * label for w, (_, label) in zip(weights / weights.sum(), best, strict=True))
        labels.append(carried_here)
    found = carry_labels(torch.from_numpy(features), torch.from_numpy(first), how).numpy()
    assert np.abs(found - np.stack(labels)).max() < 1e-3
    flat = torch.from_numpy(unit(np.ones((5, 4, 6, 8))))
    still = carry_labels(flat, torch.from_numpy(first), replace(how, neighbours=1))
    assert np.allclose(still.numpy(), np.broadcast_to(first, still.shape)), "a feature that says nothing leaves labels where they are"


def test_cells_and_pixels() -> None:
    mask = torch.zeros(6, 8, dtype=torch.int64)
    mask[:3, :3], mask[4:, 6:] = 1, 2
    cells = labels_of_cells(mask, 2, 3, 4)
    by_hand = np.stack([[[(mask[2 * y:2 * y + 2, 2 * x:2 * x + 2] == label).float().mean() for label in range(3)] for x in range(4)]
                        for y in range(3)])
    assert np.allclose(cells.numpy(), by_hand)
    back = masks_of(cells[None], 6, 8)[0]
    assert (back == mask).float().mean() > 0.85 and back.dtype == torch.uint8
    gone = cells.clone()
    gone[..., 2] *= 0.04
    assert 2 not in masks_of(gone[None], 6, 8) and 1 in masks_of(gone[None], 6, 8)


def test_points_are_followed_as_plain_loops_follow_them() -> None:
    rng = np.random.default_rng(1)
    features, place, frame = unit(rng.standard_normal((3, 4, 5, 6))), rng.random((4, 2)), np.array([0, 1, 1, 2])

    def at(t: int, x: float, y: float) -> np.ndarray:
        x, y = np.clip(x * 5 - 0.5, 0, 4), np.clip(y * 4 - 0.5, 0, 3)
        left, top = int(x), int(y)
        right, below, a, b = min(left + 1, 4), min(top + 1, 3), x - int(x), y - int(y)
        grid = features[t]
        return unit((1 - b) * ((1 - a) * grid[top, left] + a * grid[top, right]) + b * ((1 - a) * grid[below, left] + a * grid[below, right]))

    def nearest(wanted: np.ndarray, t: int) -> tuple[float, float]:
        alike = {(v, u): float(wanted @ features[t, v, u]) for v in range(4) for u in range(5)}
        y, x = max(alike, key=lambda cell: alike[cell])
        around = {(v, u): np.exp(value / 0.3) for (v, u), value in alike.items() if abs(v - y) <= 1 and abs(u - x) <= 1}
        total = sum(around.values())
        return (sum(w * (u + 0.5) for (_, u), w in around.items()) / total / 5, sum(w * (v + 0.5) for (v, _), w in around.items()) / total / 4)

    found = follow(torch.from_numpy(features), frame, place, temperature=0.3, radius=1)
    for q in range(4):
        for t in range(3):
            there = nearest(at(frame[q], *place[q]), t)
            back = nearest(at(t, *there), frame[q])
            assert found.places[q, t] == pytest.approx(there, abs=1e-3)
            assert found.back_px[q, t] == pytest.approx(256 * np.hypot(back[0] - place[q, 0], back[1] - place[q, 1]), abs=0.3)


def test_the_threshold_is_the_one_that_tells_best() -> None:
    back, hidden = np.array([1.0, 3, 5, 20, 40, 90]), np.array([False, False, False, True, True, True])
    assert choose_threshold([(back[:3], hidden[:3]), (back[3:], hidden[3:])]) == 16
    assert choose_threshold([(back, np.zeros(6, bool))]) == 512, "nothing is hidden without a reason"


def test_the_clip_of_a_frame() -> None:
    def of(frame: int, **how: int) -> list[int]:
        return clip_frames(frame, 40, **{"num_frames": 16, "t_patch_size": 2, "step": 1, "still": False, **how}).tolist()  # type: ignore[arg-type]

    assert of(20) == list(range(12, 28)) and middle_slot(16, 2) == 4, "as the page of the module shows"
    assert of(1) == [0] * 8 + list(range(1, 9)) and of(39) == [*range(31, 39), *[39] * 8] and of(20, step=3)[8:10] == [20, 23]
    assert of(20, still=True) == [20] * 16 and of(20, num_frames=1, t_patch_size=1) == [20] and of(20, num_frames=2) == [20, 21]
    assert middle_slot(2, 2) == 0 and clip_frames(9, 40, num_frames=6, t_patch_size=2, step=1, still=False)[2] == 9


@pytest.fixture(scope="module")
def model() -> VideoClassifier:
    torch.manual_seed(0)
    return build_classifier("vit_pico_patch8", num_classes=None, img_size=32, num_frames=4).eval()


def test_features_are_those_of_the_token_that_holds_the_frame(model: VideoClassifier) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    found = encoder_features(model, frames, step=1, still=False, batch=2, precision="fp32")
    assert found.shape == (5, 4, 4, model.shape.embed_dim)
    small = squares(frames, 32)
    for t, which in ((0, [0, 0, 0, 1]), (3, [1, 2, 3, 4]), (4, [2, 3, 4, 4])):
        with torch.no_grad():
            tokens = model.tokens(small[which][None])[0].reshape(2, 4, 4, -1)[1]
        assert torch.allclose(found[t], tokens / tokens.norm(dim=-1, keepdim=True), atol=1e-5)
    still = encoder_features(model, frames, step=1, still=True, batch=5, precision="fp32")
    with torch.no_grad():
        alone = model.tokens(small[[2] * 4][None])[0].reshape(2, 4, 4, -1)[1]
    assert torch.allclose(still[2], alone / alone.norm(dim=-1, keepdim=True), atol=1e-5) and not torch.allclose(still, found, atol=1e-3)
    told: list[tuple[int, int]] = []
    encoder_features(model, frames, step=1, still=False, batch=2, precision="fp32", tick=lambda *at: bool(told.append(at)))
    assert told == [(0, 5), (2, 5), (4, 5)]


def test_colours_of_cells() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    found = pixel_features(frames, 16, 8).numpy()
    wanted = ((frames[1, 8:, :8] / 255 - 0.45) / 0.225).ravel()
    assert found.shape == (2, 2, 2, 192) and np.allclose(found[1, 1, 0], unit(wanted), atol=1e-5)
    mean = mean_features(frames, 16, 8).numpy()
    assert np.allclose(mean, unit((frames.mean(axis=(1, 2)) / 255 - 0.45) / 0.225)[:, None, None], atol=1e-5)
