"""Paired differences and their intervals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vidmae.insight.paired import difference_of_differences, motion_thirds, paired_difference


def test_mean_and_interval_of_independent_clips_are_those_of_the_t_test():
    rng = np.random.default_rng(0)
    model, baseline = rng.normal(21, 3, 200), rng.normal(20, 3, 200)
    found = paired_difference(model, baseline, np.arange(200))
    expected = stats.ttest_rel(model, baseline).confidence_interval(0.95)
    assert found.mean == pytest.approx((model - baseline).mean(), rel=1e-12)
    assert found.low == pytest.approx(expected.low, abs=0.06) and found.high == pytest.approx(expected.high, abs=0.06)
    assert (found.clips, found.recordings) == (200, 200)


def test_clips_of_one_recording_count_once():
    rng = np.random.default_rng(1)
    each = rng.normal(0, 1, 40)
    clips = np.repeat(each, 25)
    alone = paired_difference(each, np.zeros(40), np.arange(40))
    many = paired_difference(clips, np.zeros(1000), np.repeat(np.arange(40), 25))
    assert (many.mean, many.low, many.high) == pytest.approx((alone.mean, alone.low, alone.high))
    assert (many.clips, many.recordings) == (1000, 40)


@pytest.mark.parametrize("recordings", [8, 40])
def test_intervals_hold_the_truth_as_often_as_they_say(recordings):
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(400):
        found = paired_difference(rng.normal(0.3, 1, recordings), np.zeros(recordings), np.arange(recordings), seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 366 <= held <= 392  # 95 % of 400 are 380, two thirds of the draws lie within 4


def test_few_recordings_claim_no_interval():
    one = paired_difference(np.array([2.0, 4.0]), np.zeros(2), np.array(["a", "a"]))
    assert one.mean == 3 and np.isnan(one.low) and np.isnan(one.high)
    assert stats.binomtest(5, 5).pvalue > 0.05 > stats.binomtest(6, 6).pvalue
    five, six = (paired_difference(np.arange(n), np.zeros(n), np.arange(n)) for n in (5, 6))
    assert np.isnan(five.low) and six.low < six.mean < six.high
    same = paired_difference(np.full(6, 2.0), np.zeros(6), np.arange(6))
    assert (same.low, same.high) == (2, 2)
    with pytest.raises(ValueError, match="1 of them not finite"):
        paired_difference(np.array([1.0, np.inf]), np.zeros(2), np.arange(2))
    with pytest.raises(ValueError, match="0 differences"):
        paired_difference(np.zeros(0), np.zeros(0), np.zeros(0))


def test_thirds_by_motion():
    thirds = motion_thirds(np.arange(9.0)[::-1])
    assert thirds.tolist() == ["moving"] * 3 + ["middle"] * 3 + ["still"] * 3
    assert set(motion_thirds(np.zeros(5)).tolist()) == {"still"}


def two_sets(rng: np.random.Generator, recordings: tuple[int, int], shift: float) -> list[np.ndarray]:
    """Differences of the clips of two sets of recordings, with the recordings: unequal spreads, unequal numbers of clips."""
    found = []
    for place, (number, mean, spread) in enumerate(zip(recordings, (shift, 0.0), (1.0, 2.0), strict=True)):
        which = np.repeat(np.arange(number), rng.integers(1, 9, number))
        found += [mean + spread * rng.normal(size=number)[which] + rng.normal(0, 0.5, len(which)), which + 100 * place]
    return found


def test_the_difference_of_differences_is_welchs_test_on_recordings():
    one, of_one, other, of_other = two_sets(np.random.default_rng(3), (40, 60), 0.5)
    found = difference_of_differences(one, of_one, other, of_other)
    means = [np.array([apart[which == name].mean() for name in np.unique(which)]) for apart, which in ((one, of_one), (other, of_other))]
    expected = stats.ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    assert (found.one, found.other) == pytest.approx((means[0].mean(), means[1].mean()), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.08)
    assert found.recordings == (40, 60) and found.clips == (len(one), len(other))


def test_the_same_gain_on_both_sets_is_no_difference_and_few_recordings_claim_none():
    one, of_one, other, of_other = two_sets(np.random.default_rng(4), (30, 30), 0.0)
    found = difference_of_differences(one + 5, of_one, other + 5, of_other)
    assert found.low < 0 < found.high and min(found.one, found.other) > 4
    apart = difference_of_differences(one + 5, of_one, other, of_other)
    assert apart.low > 3
    few = of_other < np.unique(of_other)[5]
    found = difference_of_differences(one, of_one, other[few], of_other[few])
    assert found.recordings == (30, 5) and np.isnan(found.low) and np.isfinite(found.one - found.other)
    same = difference_of_differences(np.full(6, 2.0), np.arange(6), np.full(7, 1.5), np.arange(7))
    assert (same.low, same.high) == (0.5, 0.5)
    with pytest.raises(ValueError, match="0 differences"):
        difference_of_differences(one, of_one, np.zeros(0), np.zeros(0))


def held_of(draws, recordings):
    held = 0
    for seed in range(draws):
        found = difference_of_differences(*two_sets(np.random.default_rng([seed, *recordings]), recordings, 0.5), seed=seed)
        held += found.low <= 0.5 <= found.high
    return held / draws


def test_intervals_of_differences_of_differences_hold_the_truth():
    assert 0.9 <= held_of(100, (8, 20)) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("recordings", [(6, 6), (8, 20), (25, 7), (60, 40)])
def test_intervals_of_differences_of_differences_hold_the_truth_in_95_of_100_draws(recordings):
    assert 0.93 <= held_of(1000, recordings) <= 0.97
