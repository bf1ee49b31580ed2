"""Robustness in numbers, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.results.resampling import interval, resampled_means
from analysis.tables.curves.robust.robust_numbers import (
    effective_robustness,
    error_consistency,
    kept_pct,
    mean_corruption_error,
    paired_difference,
    relative_corruption_error,
    shape_bias,
    shape_texture_index,
)

MODEL = {"fog": {1: 80.0, 2: 60.0}, "snow": {1: 50.0, 2: 30.0}}
REFERENCE = {"fog": {1: 70.0, 2: 50.0}, "snow": {1: 40.0, 2: 20.0}}


def test_mean_corruption_error() -> None:
    mce, each = mean_corruption_error(MODEL, REFERENCE)
    # fog: (20 + 40) / (30 + 50); snow: (50 + 70) / (60 + 80)
    assert each == pytest.approx({"fog": 75.0, "snow": 600 / 7}) and mce == pytest.approx((75 + 600 / 7) / 2)
    assert mean_corruption_error(REFERENCE, REFERENCE)[0] == 100
    # clean 90 and 80: fog (60 - 2 x 10) / (80 - 2 x 20); snow (120 - 20) / (140 - 40)
    relative, each = relative_corruption_error(MODEL, REFERENCE, 90.0, 80.0)
    assert each == pytest.approx({"fog": 100.0, "snow": 100.0}) and relative == pytest.approx(100)


def test_errors_that_nothing_can_be_divided_by_are_refused() -> None:
    with pytest.raises(ValueError, match="the reference was not tested under snow:2"):
        mean_corruption_error(MODEL, {"fog": REFERENCE["fog"], "snow": {1: 40.0}})
    with pytest.raises(ValueError, match="the reference makes no error under fog"):
        mean_corruption_error({"fog": {1: 50.0}}, {"fog": {1: 100.0}})
    with pytest.raises(ValueError, match="makes no more errors than on clean images under fog"):
        relative_corruption_error({"fog": {1: 50.0}}, {"fog": {1: 60.0}}, 60.0, 60.0)


def test_accuracy_kept() -> None:
    assert kept_pct(30, 60) == 50 and kept_pct(30, 60, 10) == 40 and math.isnan(kept_pct(5, 10, 10))


def test_effective_robustness_is_the_distance_from_the_line_through_all_models() -> None:
    def logit(p: float) -> float:
        return math.log(p / (1 - p))

    clean = np.array([40.0, 60.0, 80.0])
    on_line = 100 / (1 + np.exp(-(-1 + 0.5 * np.array([logit(p / 100) for p in clean]))))
    found = effective_robustness(clean, on_line, 1000)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1.0)) and found.effective_pct == pytest.approx(np.zeros(3), abs=1e-9)
    # least squares by hand for points off the line: x = -1, 0, 1 and y = -1, 0.5, 0 give slope 0.5 and intercept -1/6
    clean, shifted = (100 / (1 + np.exp(-np.array(v))) for v in ([-1.0, 0.0, 1.0], [-1.0, 0.5, 0.0]))
    found = effective_robustness(clean, shifted, 1000)
    assert (found.slope, found.intercept) == pytest.approx((0.5, -1 / 6))
    foretold = [100 / (1 + math.exp(-(-1 / 6 + 0.5 * x))) for x in (-1, 0, 1)]
    assert found.effective_pct == pytest.approx(shifted - foretold) and found.at(clean) == pytest.approx(foretold)
    with pytest.raises(ValueError, match=r"needs a line .* of 3 models or more; here are 2"):
        effective_robustness(clean[:2], shifted[:2], 1000)
    with pytest.raises(ValueError, match="all 3 models have about the clean accuracy 50"):
        effective_robustness(np.full(3, 50.0), shifted, 1000)
    with pytest.raises(ValueError, match="all 3 models have about the clean accuracy 99"):
        effective_robustness(np.array([99.8, 99.9, 100.0]), shifted, 100)  # half an image of 100 is 0.5
    assert np.isfinite(effective_robustness(np.array([0.0, 50, 100]), np.array([0.0, 10, 50]), 100).effective_pct).all()


def test_shape_bias_counts_decisions_for_either_cue_alone() -> None:
    shape, texture = np.repeat([1, 0, 0], [6, 2, 12]), np.repeat([0, 1, 0], [6, 2, 12])
    found = shape_bias(shape, texture)
    assert found.value == pytest.approx(0.75) and 0.3 < found.low < 0.75 < found.high <= 1
    # of the 8 decisions about 0.75 x 8 are for the shape: the spread is that of a share of 8
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.sqrt(0.75 * 0.25 / 8), rel=0.25)
    assert math.isnan(shape_bias(np.zeros(5), np.zeros(5)).value) and shape_bias(np.zeros(5), np.zeros(5)).text() == "--"


def test_shape_texture_index() -> None:
    found = shape_texture_index(np.repeat([1.0, 0.0], [5, 5]), np.repeat([0.5, 0.0], [6, 4]), 0.1)  # S 0.4, T 0.2 above chance
    assert found.value == pytest.approx(1 / 3) and -1 <= found.low < found.value < found.high <= 1
    assert shape_texture_index(np.ones(4), np.zeros(4), 0.1).value == 1, "below chance counts as nothing"
    assert math.isnan(shape_texture_index(np.zeros(4), np.zeros(4), 0.1).value)


def test_a_paired_difference_has_the_interval_of_the_images_that_differ() -> None:
    first, second = np.repeat([1, 1, 0, 0], [50, 20, 10, 20]), np.repeat([1, 0, 1, 0], [50, 20, 10, 20])
    found = paired_difference(first, second)
    assert found.value == pytest.approx(10)
    spread = math.sqrt((0.2 + 0.1 - 0.1**2) / 100) * 100  # of McNemar's table
    assert (found.low, found.high) == pytest.approx((10 - 1.96 * spread, 10 + 1.96 * spread), abs=1.0)
    assert paired_difference(first, first).high == 0
    apart = paired_difference(first, np.random.default_rng(0).permutation(second))
    assert apart.high - apart.low > 1.15 * (found.high - found.low), "unpaired answers say less"


def test_error_consistency_is_cohens_kappa() -> None:
    first, second = np.repeat([1, 1, 0, 0], [40, 20, 10, 30]), np.repeat([1, 0, 1, 0], [40, 20, 10, 30])
    # observed 0.7; expected 0.6 x 0.5 + 0.4 x 0.5 = 0.5
    assert error_consistency(first == 1, second == 1).value == pytest.approx(0.4)
    assert error_consistency(first == 1, first == 1).value == 1 == error_consistency(np.ones(5, bool), np.ones(5, bool)).value
    assert error_consistency(np.array([1, 0], bool), np.array([0, 1], bool)).value == -1


def test_resampling_is_that_of_images_drawn_one_by_one() -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 3, (60, 2)).astype(float)
    fast = resampled_means(values, resamples=4000)
    slow = np.array([values[rng.integers(0, 60, 60)].mean(axis=0) for _ in range(4000)])
    assert fast.mean(axis=0) == pytest.approx(values.mean(axis=0), abs=0.01)
    assert np.cov(fast.T) == pytest.approx(np.cov(slow.T), rel=0.12, abs=3e-4)
    assert np.array_equal(resampled_means(values), resampled_means(values)), "the same every time"
    assert np.isnan(interval(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="0 images"):
        resampled_means(np.empty((0, 2)))
