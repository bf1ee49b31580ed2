"""Some classes beside all others: the difference by hand, and intervals that hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.curves.classwise.subset_gap import gap_between

CHOSEN, CLIPS = (56, 118), 40


def drawn(rng: np.random.Generator, spread: float, sizes: tuple[int, int] = CHOSEN, means: tuple[float, float] = (0.35, 0.45),
          ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether clips are right, their classes, and which classes are chosen; classes differ by `spread`, and in their clips."""
    chosen = np.arange(sum(sizes)) < sizes[0]
    pct = np.clip(np.where(chosen, *means) + spread * rng.uniform(-1, 1, len(chosen)), 0, 1)
    label = np.repeat(np.arange(len(chosen)), rng.integers(CLIPS // 2, CLIPS * 3 // 2, len(chosen)))
    return (rng.random(len(label)) < pct[label]).astype(float), label, chosen


def test_the_difference_is_that_of_clips_and_the_intervals_those_of_normal_theory() -> None:
    right, label, chosen = drawn(np.random.default_rng(0), 0.0)
    gap = gap_between(right, label, chosen)
    one, other = right[chosen[label]], right[~chosen[label]]
    value = 100 * (one.mean() - other.mean())
    width = 196 * np.sqrt(one.var() / len(one) + other.var() / len(other))
    assert gap.over_clips.value == pytest.approx(value) and (gap.chosen_pct, gap.rest_pct) == pytest.approx((100 * one.mean(), 100 * other.mean()))
    assert (gap.over_clips.low, gap.over_clips.high) == pytest.approx((value - width, value + width), abs=0.3)
    assert gap.over_classes == pytest.approx((value - width, value + width), abs=0.8), "classes that do not differ add nothing"
    assert gap.classes == CHOSEN and gap.clips == (len(one), len(other))


def test_classes_that_differ_make_a_claim_about_a_kind_harder() -> None:
    right, label, chosen = drawn(np.random.default_rng(1), 0.3)
    gap = gap_between(right, label, chosen)
    over_clips, over_classes = gap.over_clips.high - gap.over_clips.low, gap.over_classes[1] - gap.over_classes[0]
    assert over_classes > 2 * over_clips
    few = gap_between(right, label, np.arange(len(chosen)) < 5)
    assert np.isnan(few.over_classes[0]) and np.isfinite(few.over_clips.low)
    with pytest.raises(ValueError, match="no clip is of any other class"):
        gap_between(right, label, np.ones_like(chosen))


def held_of(draws: int, sizes: tuple[int, int], spread: float) -> tuple[float, float]:
    """Share of draws in which the intervals over clips and over classes hold the truth."""
    held = np.zeros(2)
    for draw in range(draws):
        rng = np.random.default_rng([draw, *sizes])
        right, label, chosen = drawn(rng, 0.0, sizes)
        gap = gap_between(right, label, chosen, seed=draw)
        held[0] += gap.over_clips.low <= -10 <= gap.over_clips.high
        gap = gap_between(*drawn(rng, spread, sizes), seed=draw)
        held[1] += gap.over_classes[0] <= -10 <= gap.over_classes[1]
    return tuple(held / draws)  # type: ignore[return-value]


def test_intervals_hold_the_truth() -> None:
    assert all(0.88 <= held <= 1 for held in held_of(100, (8, 20), 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [CHOSEN, (8, 20), (30, 10)])
def test_intervals_hold_the_truth_in_95_of_100_draws(sizes: tuple[int, int]) -> None:
    assert all(0.93 <= held <= 0.97 for held in held_of(1000, sizes, 0.3))
