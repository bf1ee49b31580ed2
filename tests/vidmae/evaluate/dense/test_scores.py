"""J, F and the scores of points against other ways to write them; means and intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from vidmae.evaluate.dense.dense_summary import JF, apart, summarise
from vidmae.evaluate.dense.mask_scores import kept, outline, outline_f, region_iou, score_masks
from vidmae.evaluate.dense.point_scores import score_points
from vidmae.evaluate.dense.point_tracking import QueryMode, make_queries

ALL = np.ones((60, 90), dtype=bool)


def blobs(seed: int, shape: tuple[int, int] = (60, 90)) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 5) > 0)


def outline_by_loops(mask: np.ndarray) -> np.ndarray:
    """A pixel between which and one of three neighbours there is an edge; there are none beyond the frame."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            near = [mask[v, u] for v, u in ((y, x + 1), (y + 1, x), (y + 1, x + 1)) if v < height and u < width]
            found[y, x] = any(each != mask[y, x] for each in near)
    return found


def f_by_dilation(said: np.ndarray, truth: np.ndarray, reach: int) -> float:
    """Outlines made thick with a disc, as the official code does it."""
    y, x = np.mgrid[-reach:reach + 1, -reach:reach + 1]
    ours, theirs = outline_by_loops(said), outline_by_loops(truth)
    thick = [ndimage.binary_dilation(each, structure=x**2 + y**2 <= reach**2) for each in (ours, theirs)]
    precision, recall = (ours & thick[1]).sum() / ours.sum(), (theirs & thick[0]).sum() / theirs.sum()
    return float(2 * precision * recall / (precision + recall))


def test_outlines_and_f() -> None:
    for seed in range(2):
        said, truth = blobs(seed), blobs(seed + 10)
        assert np.array_equal(outline(said), outline_by_loops(said))
        assert outline_f(said, truth, ALL) == pytest.approx(f_by_dilation(said, truth, math.ceil(0.008 * math.hypot(60, 90))))
        assert outline_f(said, truth, ALL, 0.05) == pytest.approx(f_by_dilation(said, truth, 6))
        assert outline_f(said, said, ALL) == 1.0
    none = np.zeros_like(ALL)
    assert (outline_f(none, none, ALL), outline_f(none, blobs(0), ALL), outline_f(blobs(0), none, ALL)) == (1, 0, 0)
    square = none.copy()
    square[20:40, 20:40] = True
    assert outline_f(square, np.roll(square, 1, 1), ALL) == 1.0, "a pixel is within the tolerance of one"
    assert outline_f(square, np.roll(square, 9, 1), ALL) < 0.7


def test_j_counts_pixels_that_are_asked_about() -> None:
    said, truth, asked = blobs(1), blobs(2), blobs(3)
    pairs = [(a, b) for a, b, c in zip(said.ravel().tolist(), truth.ravel().tolist(), asked.ravel().tolist(), strict=True) if c]
    assert region_iou(said, truth, asked) == pytest.approx(sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs))
    assert region_iou(said & False, truth & False, ALL) == 1.0


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 8, 33, 67, 100])
def test_decay_and_recall(length: int) -> None:
    values = np.random.default_rng(length).random(length)
    found = kept(values)
    assert found.mean == pytest.approx(sum(values) / length) and found.recall == pytest.approx(sum(v > 0.5 for v in values) / length)
    edges = [math.floor(1 + i * (length - 1) / 4 + 0.5 + 1e-10) for i in range(5)]  # a half is rounded up
    first, last = values[edges[0] - 1:edges[1]], values[edges[3] - 1:edges[4]]
    assert found.decay == pytest.approx(sum(first) / len(first) - sum(last) / len(last))


def test_objects_are_those_of_the_first_frame_and_its_ends_do_not_count() -> None:
    truth = np.zeros((5, 40, 40), np.uint8)
    truth[:, 5:20, 5:20], truth[:, 25:35, 25:35], truth[2:, 0:3, 0:3], truth[:, :, 39] = 1, 7, 9, 255
    said = truth.copy()
    said[0] = said[4] = 0
    said[:, 25:30, 25:35] = 0
    one, seven = score_masks(said, truth)
    assert (one.number, one.j.mean, one.f.mean, one.j.decay) == (1, 1, 1, 0) and seven.number == 7 and seven.j.mean == 0.5
    assert seven.j.recall == 0, "0.5 is not above 0.5"
    with pytest.raises(ValueError, match="3 frames or more"):
        score_masks(said[:2], truth[:2])


def points_by_loops(said: np.ndarray, said_occluded: np.ndarray, truth: np.ndarray, occluded: np.ndarray, frame: np.ndarray, mode: str,
                    ) -> tuple[list[float], list[float], float]:
    """The scores of TAP-Vid, point by point and frame by frame."""
    within, jaccard = [], []
    agree = asked = 0
    for distance in (1, 2, 4, 8, 16):
        close = visible = hits = misses = 0
        for q in range(len(frame)):
            for t in range(truth.shape[1]):
                if t == frame[q] or (mode == "first" and t < frame[q]):
                    continue
                if distance == 1:
                    asked += 1
                    agree += int(said_occluded[q, t] == occluded[q, t])
                dx, dy = 256 * (said[q, t] - truth[q, t])
                near = dx * dx + dy * dy < distance * distance
                if not occluded[q, t]:
                    visible += 1
                    close += int(near)
                if not said_occluded[q, t]:
                    if near and not occluded[q, t]:
                        hits += 1
                    else:
                        misses += 1
        within.append(close / visible)
        jaccard.append(hits / (visible + misses))
    return within, jaccard, agree / asked


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_points(mode: QueryMode) -> None:
    rng = np.random.default_rng(3)
    tracks, hidden = rng.random((9, 12, 2)), rng.random((9, 12)) < 0.4
    hidden[4] = True  # never seen
    queries = make_queries(hidden, mode)
    wanted = [(n, t) for n in range(9) for t in range(12) if not hidden[n, t] and (
        t % 5 == 0 if mode == "strided" else all(hidden[n, :t]))]
    assert sorted(zip(queries.track.tolist(), queries.frame.tolist(), strict=True)) == wanted
    truth, occluded = tracks[queries.track], hidden[queries.track]
    said = truth + rng.standard_normal(truth.shape) * np.array([0.5, 2, 8])[rng.integers(3, size=truth.shape[:2])][..., None] / 256
    said_occluded = rng.random(occluded.shape) < 0.3
    found = score_points(said, said_occluded, np.where(occluded[..., None], np.nan, truth), occluded, queries.frame, mode)
    within, jaccard, agree = points_by_loops(said, said_occluded, truth, occluded, queries.frame, mode)
    assert found is not None and found.within == pytest.approx(within) and 0.2 < found.delta < 0.9
    assert (found.delta, found.jaccard, found.occlusion) == pytest.approx((np.mean(within), np.mean(jaccard), agree))
    perfect = score_points(truth, occluded, truth, occluded, queries.frame, mode)
    assert perfect is not None and (perfect.delta, perfect.jaccard, perfect.occlusion) == (1, 1, 1)
    assert score_points(said[:1], said_occluded[:1], truth[:1], np.ones_like(occluded[:1]), queries.frame[:1], mode) is None


def record(j: list[float], delta: float | None) -> dict[str, object]:
    keep = [{"mean": value, "recall": value, "decay": 0.0} for value in j]
    return {"frames": 9, "objects": [{"number": i, "j": each, "f": {**each, "mean": 0.5}} for i, each in enumerate(keep)],
            "points": {} if delta is None else {"first": {"delta": delta, "jaccard": delta / 2, "occlusion": 1.0, "within": []}}}


def test_objects_count_alike_and_sequences_are_drawn_again() -> None:
    records = [record([0.2], 0.5), record([0.4, 0.6, 0.8], None)]
    found = summarise(records)
    assert found["j_mean_pct"].pct == pytest.approx(50) and found[JF].pct == pytest.approx(50) and found["j_mean_pct"].low is None
    assert (found["first_delta_pct"].pct, found["first_delta_pct"].sequences) == (50, 1) and "strided_delta_pct" not in found
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(20):  # of intervals of ten sequences most hold the truth
        many = [record([float(v)], float(v)) for v in rng.normal(0.5, 0.1, 10)]
        one = summarise(many)["j_mean_pct"]
        assert one.low is not None and one.high is not None
        hits += one.low < 50 < one.high
    assert hits >= 16
    better = [record([each["objects"][0]["j"]["mean"] + 0.1], 1.0) for each in many]  # type: ignore[index]
    ahead = apart(better, many, "j_mean_pct")
    assert ahead is not None and (ahead.pct, ahead.low, ahead.high) == pytest.approx((10, 10, 10))
    assert apart(records, many[:2], "j_mean_pct") is None
