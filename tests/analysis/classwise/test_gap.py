"""Some classes beside all others: the difference by hand, and intervals that hold the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.results.subset import Subset
from analysis.tables.curves.classwise.subset_gap import gap_between, gap_sheet
from vidmae.runs.predictions import from_probabilities

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


def test_the_table_has_seeds_clip_by_clip(tmp_path: Path) -> None:
    names, label, hits = [f"class {i}" for i in range(6)], np.arange(60) % 6, []
    for seed in (0, 1):
        prob = np.random.default_rng(seed).dirichlet(np.ones(6), 60)
        (tmp_path / str(seed)).mkdir()
        from_probabilities(prob, label, np.arange(60), names).write(tmp_path / f"{seed}/predictions.npz")
        hits.append(prob.argmax(axis=1) == label)
    (tmp_path / "gone").mkdir()
    runs = pd.DataFrame({"row": ["m", "m", "n", None], "task": "toys-10shot", "run": [str(tmp_path / name) for name in ("0", "1", "gone", "0")],
                         "top1_pct": [50.0, 50.0, 50.0, 50.0]})
    sheet, said = gap_sheet(runs, Subset("few", "toys", "a test", {"class 1": "seen", "class 4": "seen"}))
    assert sheet is not None and len(said) == 1 and said[0].startswith("n on toys-10shot: no complement of few: ")
    right, chosen = np.mean(hits, axis=0), np.isin(label, (1, 4))
    row, subset, rest = sheet.records.iloc[0], 100 * right[chosen].mean(), 100 * right[~chosen].mean()
    assert [row[name] for name in ("subset_pct", "rest_pct", "gap_points")] == pytest.approx([subset, rest, subset - rest])
    assert row["clips_low"] < subset - rest < row["clips_high"] and np.isnan(row["classes_low"]), "two classes are too few"
    assert [row[name] for name in ("seeds", "subset_classes", "rest_classes", "subset_clips", "rest_clips")] == [2, 2, 4, 20, 40]
    assert sheet.shown.iloc[0]["95 % over classes"] == "--" and sheet.name == "gap-few"


def held_of(draws: int, sizes: tuple[int, int], spread: float) -> tuple[float, float]:
    """Share of draws in which the intervals over clips and over classes hold the truth."""
    held = np.zeros(2)
    for draw in range(draws):
        rng = np.random.default_rng([draw, 7, *sizes])
        right, label, chosen = drawn(rng, 0.0, sizes)
        gap = gap_between(right, label, chosen, seed=draw)
        held[0] += gap.over_clips.low <= -10 <= gap.over_clips.high
        gap = gap_between(*drawn(rng, spread, sizes), seed=draw)
        held[1] += gap.over_classes[0] <= -10 <= gap.over_classes[1]
    return tuple(held / draws)  # type: ignore[return-value]


def test_intervals_hold_the_truth() -> None:
    assert all(0.85 <= held <= 1 for held in held_of(40, (8, 20), 0.3))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [CHOSEN, (8, 20), (30, 10)])
def test_intervals_hold_the_truth_in_95_of_100_draws(sizes: tuple[int, int]) -> None:
    assert all(0.93 <= held <= 0.97 for held in held_of(1000, sizes, 0.3))
