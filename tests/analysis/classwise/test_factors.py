"""What the accuracy of classes goes with: labels, factors from a manifest, a regression against its formula, and its intervals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import classes
from analysis.tables.curves.classwise.class_factors import train_clips
from analysis.tables.curves.classwise.factor_fit import fit_factors
from analysis.tables.curves.classwise.label_grammar import in_hand, object_in_hand
from analysis.tables.survey.looking import features_of
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT
from tests.support.tested import make_cell
from vidmae.footage.manifest import Check, Manifest, Row, write_manifest
from vidmae.insight.csv_rows import write_csv
from vidmae.labels.shots import draw_fractions, draw_shots, shots_path, write_shots
from vidmae.labels.splits import read_labelled
from vidmae.runs.predictions import from_probabilities

SSV2 = [line for line in (ROOT / "tests/vidmae/labels/ssv2_classes.txt").read_text().splitlines() if not line.startswith("#")]
NAMES = (*(f"Moving [something] {word}" for word in ("up", "down", "in", "out", "over", "under", "left", "right")),
         "[Something] falling", "[Something] rolling", "[Something] sinking", "Turning the camera left while filming [something]")


@pytest.mark.parametrize(("label", "held"), [
    ("Picking [something] up", True), ("Pretending to pour [something] out of [something] but [something] is empty", True),
    ("Poking a stack of [something] so the stack collapses", True), ("Touching (without moving) [part] of [something]", True),
    ("Failing to put [something] into [something] because [something] does not fit", True), ("Pulling two ends of [something]", True),
    ("[Something] falling like a rock", False), ("Letting [something] roll down a slanted surface", False),
    ("Showing that [something] is empty", False), ("Poking a hole into [something soft]", False),
    ("Turning the camera left while filming [something]", False), ("Approaching [something] with your camera", False),
    ("Moving away from [something] with your camera", False), ("Pretending to sprinkle air onto [something]", False), ("push", False)])
def test_the_grammar_of_labels(label: str, held: bool) -> None:
    assert object_in_hand(label) is held


def test_most_classes_of_ssv2_have_a_hand_at_a_thing() -> None:
    held = in_hand(SSV2)
    assert held is not None and 140 <= held.sum() <= 155 and in_hand(["push", "hug"]) is None
    assert not any(hand for hand, label in zip(held, SSV2, strict=True) if label.startswith("[") or ("camera" in label and "the camera" not in label))


def classes_drawn(rng: np.random.Generator, number: int) -> tuple[np.ndarray, pd.DataFrame]:
    """Accuracies and factors: 6 points for a deviation of motion, -4 of the camera, 8 for a hand; spread grows with motion."""
    motion = rng.gamma(4, 5, number)
    camera = 0.5 * motion + rng.gamma(2, 5, number)
    hand = (np.arange(number) % 3 == 0).astype(float)
    each = 40 + 6 * (motion - motion.mean()) / motion.std(ddof=1) - 4 * (camera - camera.mean()) / camera.std(ddof=1) + 8 * hand
    clips = rng.integers(20, 160, number)
    each = np.clip(each + rng.normal(0, 1, number) * (3 + motion / 5), 1, 99)
    return 100 * rng.binomial(clips, each / 100) / clips, pd.DataFrame({"moving_pct_per_s": motion, "camera_pct_per_s": camera, "in_hand": hand})


TRUE = {"moving_pct_per_s": 6, "camera_pct_per_s": -4, "in_hand": 8}


def test_coefficients_and_intervals_are_those_of_the_formula() -> None:
    accuracy, factors = classes_drawn(np.random.default_rng(0), 60)
    fit = fit_factors(accuracy, factors.assign(train_clips=10.0))
    x = factors.assign(**{name: (factors[name] - factors[name].mean()) / factors[name].std() for name in list(factors)[:2]})
    x = np.column_stack([np.ones(60), x])
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ accuracy
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    error = np.sqrt(np.diag(inverse @ (x.T * ((accuracy - x @ beta) / (1 - leverage)) ** 2) @ x @ inverse))
    width = stats.t.ppf(0.975, 60 - 4) * error
    for place, each in enumerate(fit.effects, 1):
        assert each.together.value == pytest.approx(beta[place]) and each.together.low == pytest.approx(beta[place] - width[place])
    motion = fit.effects[0]
    assert motion.alone.value == pytest.approx(stats.linregress(factors["moving_pct_per_s"], accuracy).slope * motion.step)
    assert motion.step == pytest.approx(factors["moving_pct_per_s"].std()) and fit.effects[2].step == 1
    assert motion.shared_pct == pytest.approx(100 * (1 - 1 / np.linalg.inv(np.corrcoef(factors.T))[0, 0]))
    assert fit.said == ["train_clips is the same for all classes (10) and can explain nothing"]
    assert motion.beta == pytest.approx(motion.together.value / accuracy.std(ddof=1))


def test_few_classes_claim_no_interval() -> None:
    accuracy, factors = classes_drawn(np.random.default_rng(1), 9)
    fit = fit_factors(accuracy, factors)
    assert "9 classes are too few for intervals of 3 factors together; it takes 10, and 8 for one alone" in fit.said
    assert np.isnan(fit.effects[0].together.value) and np.isfinite(fit.effects[0].alone.low)
    six = fit_factors(accuracy[:6], factors[:6])
    assert np.isnan(six.effects[0].alone.low) and np.isfinite(six.effects[0].alone.value)
    rare = fit_factors(accuracy, factors.assign(in_hand=[1.0] + [0.0] * 8))
    assert "in_hand has only 1 class of one kind and is left out" in rare.said


def test_what_differs_by_rounding_alone_is_the_same() -> None:
    accuracy, factors = classes_drawn(np.random.default_rng(3), 30)
    fit = fit_factors(accuracy, factors.assign(seconds=np.where(np.arange(30) % 2, 0.1 + 0.2, 0.3)))
    assert "seconds is the same for all classes (0.3) and can explain nothing" in fit.said and len(fit.effects) == 3


def test_factors_that_cannot_be_told_apart_are_not_fitted_together() -> None:
    accuracy, factors = classes_drawn(np.random.default_rng(2), 30)
    fit = fit_factors(accuracy, factors.assign(subset=1 - factors["in_hand"]))
    assert fit.said == ["in_hand, subset: over these classes each follows from the others, so they cannot be told apart and nothing is fitted together"]
    assert all(np.isnan(each.together.value) and np.isfinite(each.alone.low) for each in fit.effects) and np.isnan(fit.explained_pct)


def held_of(draws: int, number: int) -> dict[str, float]:
    """Share of draws in which each interval holds the truth."""
    held = dict.fromkeys(TRUE, 0.0)
    for draw in range(draws):
        for each in fit_factors(*classes_drawn(np.random.default_rng([draw, number]), number)).effects:
            held[each.factor] += (each.together.low <= TRUE[each.factor] <= each.together.high) / draws
    return held


def test_intervals_hold_the_truth() -> None:
    assert all(0.88 <= held <= 1 for held in held_of(80, 60).values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [30, 174])
def test_intervals_hold_the_truth_in_95_of_100_draws(number: int) -> None:
    held = held_of(1000, number)
    assert all(0.93 <= share <= 0.97 for share in held.values()), held


def test_clips_to_learn_from_are_those_of_the_subset_without_what_is_held_out(tmp_path: Path) -> None:
    """Five clips of a, of which two are one, and five of b."""
    rows = [Row(f"/secret/{i}.mp4", "ab"[i > 4], 1, 1.0, 1.0, 9, 8, 8, "h264", 0, 0, 0, f"{max(i, 1):016x}", 1, "decord") for i in range(10)]
    manifest, half = tmp_path / "toys.csv", tmp_path / "half.json"
    write_manifest(manifest, rows, [], Check("decord", True))
    write_shots(half, draw_fractions(read_labelled(manifest), [0.5], 0)[0])
    assert train_clips(str(manifest), "", 0.0, "ab") == [4, 5]
    assert train_clips(str(manifest), str(half), 0.0, "ab") == [2, 3]
    assert train_clips(str(manifest), str(half), 0.4, "ab") == [1, 2] and train_clips(str(manifest), "", 0.2, "ab") == [3, 4]


def test_the_command_reads_what_was_measured_and_fits_it(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "manifests", per_class=20, val_per_class=20, classes=NAMES)
    manifest, train = tmp_path / "manifests/toys-val.csv", tmp_path / "manifests/toys.csv"
    write_shots(shots := shots_path(train, 7, 0), draw_shots(read_labelled(train), [7], 0)[0])
    cell = make_cell(tmp_path / "runs", manifest, "data.shots=7", f"data.subset={shots}", weights=False)
    cell.config.write_text(cell.config.read_text().replace(f"  manifest: {manifest}", f"  manifest: {train}"))
    videos, rng = Manifest.read(manifest), np.random.default_rng(0)
    names = sorted(NAMES)
    prob = rng.dirichlet(np.ones(len(names)), len(videos))
    motion = videos.class_index.astype(float)
    sure = rng.random(len(videos)) < 0.2 + 0.06 * motion
    prob[sure, videos.class_index[sure]] += 2
    from_probabilities(prob / prob.sum(1, keepdims=True), videos.class_index, videos.source, names).write(cell.predictions)
    out = tmp_path / "tables/classes"
    features = features_of(manifest, out, 8)
    features.parent.mkdir(parents=True)
    write_csv(features, [{"row": row, "moving_pct_per_s": motion[row] + 0.1 * at, "camera_pct_per_s": float(rng.gamma(3))}
                         for row in range(len(videos)) for at in range(2) if row != 5], ("row", "moving_pct_per_s", "camera_pct_per_s"))
    (tmp_path / "some.yaml").write_text(f"name: some\ndata: toys\nwhy: a test\nclasses: {{'{NAMES[0]}': first, '{NAMES[8]}': second}}\n")
    assert classes.main([str(cell.path), "--factors", "--subset", "some.yaml", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert {str(out / name) for name in ("factors.csv", "factors.svg", "factors-classes.csv")} <= set(printed.out.split())
    with (out / "factors.csv").open() as f:
        rows = {row["factor"]: row for row in csv.DictReader(f)}
    assert set(rows) == {"moving_pct_per_s", "camera_pct_per_s", "in_hand", "subset"}, "length and clips to learn from do not differ"
    moving = rows["moving_pct_per_s"]
    assert float(moving["alone_points"]) == pytest.approx(6 * float(moving["step"]), rel=0.3) and float(moving["alone_low"]) > 0
    for said in ("1 of 240 tested clips could not be measured", "train_clips is the same for all classes (7)", "seconds is the same"):
        assert said in printed.err
    with (out / "factors-classes.csv").open() as f:
        listed = {row["class"]: row for row in csv.DictReader(f)}
    assert listed["[Something] falling"]["in_hand"] == "0.0" and listed["Moving [something] up"]["subset"] == "1.0"
    assert not any("/videos/" in path.read_text() for path in out.glob("*.csv"))
    assert classes.main([str(cell.path), "--subset", "some.yaml", "--out", str(out)]) == 2
    other = make_cell(tmp_path / "runs", manifest, "data.shots=7", "select.rule=holdout", f"data.subset={shots}", name="other", weights=False)
    other.predictions.write_bytes(cell.predictions.read_bytes())
    assert classes.main([str(cell.path), str(other.path), "--factors", "--out", str(out)]) == 0
    assert "clips to learn from: left out, since the cells learned from other numbers of clips than each other" in capsys.readouterr().err
    (tmp_path / "wrong.yaml").write_text(f"name: some\ndata: toys\nwhy: a test\nclasses: {{'{NAMES[0]}': first, '[Something] fallin': second}}\n")
    assert classes.main([str(cell.path), "--factors", "--subset", "wrong.yaml", "--out", str(out)]) == 2
    assert "1 of 2 classes are not among the 12 of the predictions: '[Something] fallin' (did you mean '[Something] falling'" in capsys.readouterr().err
    features.write_text("row,motion_pct_per_s\n0,1.0\n")
    assert classes.main([str(cell.path), "--factors", "--out", str(out)]) == 2
    assert "has no column moving_pct_per_s: earlier code made it" in capsys.readouterr().err
