"""Shares of right pairs: against other libraries, and whether their intervals hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from statsmodels.stats.proportion import proportion_confint

from vidmae.insight.surprise.pair_scores import auc, is_right, reduced, share_of
from vidmae.insight.surprise.surprise_table import (
    Comparison,
    by_video,
    concepts_table,
    curves,
    markdown,
    pairs_table,
    primary,
)

DRAWS = 1000


@pytest.mark.parametrize(("right", "pairs"), [(0, 10), (13, 30), (30, 30), (250, 400)])
def test_independent_pairs_have_the_interval_of_wilson(right, pairs):
    found = share_of([1.0] * right + [0.0] * (pairs - right), [str(i) for i in range(pairs)])
    low, high = proportion_confint(right, pairs, method="wilson")
    assert (found.pct, found.pairs, found.scenes) == (100 * right / pairs, pairs, pairs)
    np.testing.assert_allclose([found.low, found.high], [100 * low, 100 * high], atol=1e-9)


def test_pairs_of_a_scene_count_less_the_more_they_are_alike():
    alike = share_of([1, 1, 0, 0] * 10, [str(i // 2) for i in range(40)])
    apart = share_of([1, 0] * 20, [str(i // 2) for i in range(40)])
    alone = share_of([1, 0] * 20, [str(i) for i in range(40)])
    assert alike.pct == apart.pct == alone.pct == 50 and (alike.scenes, alone.scenes) == (20, 40)
    widths = [each.high - each.low for each in (alone, apart, alike)]
    assert widths[0] < widths[1] < 0.8 * widths[2]
    assert share_of([1] * 40, [str(i // 2) for i in range(40)]).low == pytest.approx(100 * proportion_confint(20, 20, method="wilson")[0])
    few = share_of([1, 0] * 4, [str(i // 2) for i in range(8)])
    assert np.isnan(few.low) and np.isnan(few.high) and few.pct == 50
    with pytest.raises(ValueError, match="no pair"):
        share_of([], [])


def held(truth: float, scenes: int, per_scene: int, spread: float) -> float:
    """How often in percent the interval holds the truth, where scenes differ in how easy they are (beta distribution)."""
    rng, names = np.random.default_rng([scenes, per_scene, round(100 * truth)]), np.repeat(np.arange(scenes).astype(str), per_scene)
    hits = 0
    for _ in range(DRAWS):
        size = (1 - spread) / spread if spread else 0
        easy = rng.beta(truth * size, (1 - truth) * size, scenes) if spread else np.full(scenes, truth)
        found = share_of((rng.random(len(names)) < np.repeat(easy, per_scene)).astype(float), names)
        hits += found.low <= 100 * truth <= found.high
    return 100 * hits / DRAWS


@pytest.mark.parametrize(("truth", "scenes", "per_scene", "spread"), [(0.6, 75, 1, 0.0), (0.5, 30, 2, 0.0), (0.7, 40, 2, 0.4)])
def test_intervals_hold_the_truth_in_95_of_100_draws(truth, scenes, per_scene, spread):
    assert 93 <= held(truth, scenes, per_scene, spread) <= 97


@pytest.mark.slow
@pytest.mark.parametrize("truth", [0.5, 0.65, 0.8, 0.9])
@pytest.mark.parametrize(("scenes", "per_scene", "spread"), [(60, 1, 0.0), (200, 1, 0.0), (20, 2, 0.0), (20, 2, 0.3), (60, 2, 0.3),
                                                             (60, 2, 0.8), (30, 4, 0.3), (200, 2, 0.3)])
def test_intervals_hold_the_truth_under_many_conditions(truth, scenes, per_scene, spread):
    """20 scenes of two independent pairs are held in up to 98: the spread of so few scenes is not known well."""
    assert 93 <= held(truth, scenes, per_scene, spread) <= 98.5


def test_the_area_is_that_of_sklearn_with_ties():
    rng = np.random.default_rng(0)
    possible, impossible = rng.integers(0, 5, 40).astype(float), rng.integers(1, 6, 25).astype(float)
    labels = [0] * 40 + [1] * 25
    assert auc(possible, impossible) == pytest.approx(roc_auc_score(labels, [*possible, *impossible]))


def test_reductions_and_ties():
    found = reduced({4: np.array([1.0, 3.0, 100.0]), 8: np.array([2.0, 2.0, 100.0])}, 2)
    assert found == {("4", "mean"): 2, ("8", "mean"): 2, ("all", "mean"): 2, ("4", "max"): 3, ("8", "max"): 2, ("all", "max"): 2.5}
    assert [is_right(1, 2), is_right(2, 1), is_right(1, 1)] == [1, 0, 0.5]


def rows_of(surprise: dict[int, list[float]]) -> list[dict]:
    """Rows of surprise.csv in which the model's number is given, and the others follow from it."""
    return [{"video": str(video), "context": context, "window": str(i), "start_frame": str(2 * i), "model": value, "model_pixel": -value,
             "untrained": 1.0, "untrained_pixel": value} for video, values in surprise.items() for context in ("4", "8")
            for i, value in reversed(list(enumerate(values)))]


METHODS = ("model", "model_pixel", "untrained", "untrained_pixel")


def test_tables_against_counting():
    surprise = {1: [1, 5], 2: [2, 5], 3: [4, 4, 99], 4: [1, 1], 5: [0, 0], 6: [9, 9]}
    pairs = [Comparison(1, 2, "s", "shape", 1), Comparison(3, 4, "s", "colour", 2), Comparison(5, 6, "s", "colour", 3),
             Comparison(1, 7, "s", "shape", 4)]
    videos = by_video(rows_of(surprise), METHODS)
    table = pairs_table(videos, pairs)
    assert {row["pair"] for row in table} == {1, 2, 3}, "video 7 could not be read"
    chosen = {(row["pair"], row["method"], row["reduction"]): row for row in table if row["context"] == "all"}
    assert [chosen[i, "model", "mean"]["right"] for i in (1, 2, 3)] == [1, 0, 1]
    assert chosen[2, "model", "max"]["possible"] == 4, "the third window has no counterpart"
    assert chosen[1, "model", "max"]["right"] == 0.5 and chosen[1, "untrained", "mean"]["right"] == 0.5
    concepts = {(row["concept"], row["method"]): row for row in primary(concepts_table(table))}
    assert [concepts[c, "model"]["accuracy_pct"] for c in ("all", "shape", "colour")] == pytest.approx([200 / 3, 100, 50])
    assert concepts["all", "model"]["above_untrained_pct"] == pytest.approx(100 * (2 / 3 - 1 / 2))
    assert concepts["all", "model_pixel"]["above_untrained_pct"] == pytest.approx(100 * (1 / 3 - 2 / 3))
    assert np.isnan(concepts["all", "untrained"]["above_untrained_pct"])
    text = markdown(concepts_table(table)).splitlines()
    assert len(text) == 5 and text[0].startswith("| set | concept | pairs | model |") and text[2].startswith("| all | all | 3 | 66.7 [")
    shape, colour = curves(videos, pairs)
    assert shape.title == "s shape" and shape.possible.tolist() == [1, 5] and shape.impossible.tolist() == [2, 5]
    assert colour.possible.tolist() == [2, 2] and colour.impossible.tolist() == [5, 5]
