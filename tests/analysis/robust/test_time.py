"""What models use of time: numbers by hand, models that can fail and succeed, and intervals that hold the truth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from analysis import time
from analysis.page.dossier import Dossier
from analysis.page.time_page import use_of_time
from analysis.results.paired_clips import Points, apart, lost, share_right
from analysis.tables.curves.robust.robust_runs import read_tests
from analysis.tables.curves.robust.time_figures import _classes, draw
from analysis.tables.curves.robust.time_sheets import classes_sheet
from analysis.tables.curves.robust.time_study import (
    FRAMES,
    NOT_SHOWN,
    ORDER,
    class_drops,
    drops,
    lives_on,
    seen_by,
)
from tests.support.tested import answers, write_tested
from vidmae.evaluate.corruptions.conditions import apply, parse_conditions
from vidmae.runs.predictions import Predictions, from_probabilities
from vidmae.runs.record import RunFolder, write_json

CONDITIONS = parse_conditions("clean,time")
CLASSES = ("up", "down", "hill", "valley")
VIDEO, IMAGE = "video-toys-2shot-{}-finetune", "image-toys-2shot-{}-finetune"
PATHS = np.array([np.linspace(-1, 1, 16), np.linspace(1, -1, 16), 1 - 2 * np.abs(np.linspace(-1, 1, 16)),
                  2 * np.abs(np.linspace(-1, 1, 16)) - 1])
"""Brightness over time of each class; hill and valley look the same backwards."""


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as f:
        return list(csv.DictReader(f))


def clips(label: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clips whose class is in the order of their frames, and in their mean: uint8 [N, 16, 2, 2, 3]."""
    values = 60 + 45 * label[:, None] + 14 * PATHS[label] + rng.normal(0, 2, (len(label), 16))
    return np.broadcast_to(values.round().astype(np.uint8)[:, :, None, None, None], (len(label), 16, 2, 2, 3))


def by_order(seen: np.ndarray) -> np.ndarray:
    """An oracle of order: which path over time a clip follows, whatever its brightness. A clip that stands still says nothing, and
    its rounded values decide: class probabilities [N, 4]."""
    values = seen[:, :, 0, 0, 0].astype(float)
    score = (values - values.mean(axis=1, keepdims=True)) @ (PATHS - PATHS.mean(axis=1, keepdims=True)).T
    score += np.random.default_rng(int(values.sum())).normal(0, 1e-6, score.shape)  # who knows nothing guesses
    return np.exp(score / 50) / np.exp(score / 50).sum(axis=1, keepdims=True)


def by_mean(seen: np.ndarray) -> np.ndarray:
    """A model of mean pixels: which brightness is nearest. It has no order to lose."""
    off = np.abs(seen.mean(axis=(1, 2, 3, 4))[:, None] - (60 + 45 * np.arange(4)))
    return np.exp(-off) / np.exp(-off).sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models, tested on 240 clips under all conditions of time."""
    runs, label = tmp_path_factory.mktemp("time") / "runs", np.arange(240) % 4
    seen = clips(label, np.random.default_rng(0))
    for name, model in (("order-toys-2shot-{}-finetune", by_order), ("mean-toys-2shot-{}-finetune", by_mean)):
        said = {c.text: from_probabilities(model(np.stack([apply(one, c, i) for i, one in enumerate(seen)])), label, np.arange(240), CLASSES)
                for c in CONDITIONS}
        write_tested(runs, name, 0, said, group="time")
    return runs


def test_a_model_of_order_falls_to_chance_and_one_of_mean_pixels_does_not_move(models: Path) -> None:
    seen, why = seen_by(read_tests([models]))
    found = drops(seen).set_index(["model", "condition"])
    assert why == [] and set(found.index.unique("condition")) == {c.name for c in CONDITIONS}
    order, mean = found.loc["order-toys-2shot-finetune"], found.loc["mean-toys-2shot-finetune"]
    assert order.loc["clean", "pct"] == mean.loc["clean", "pct"] == 100
    for condition in ("shuffled-frames", "frozen"):
        assert abs(order.loc[condition, "pct"] - 25) < 10 and order.loc[condition, "low"] > 60
    assert order.loc["reversed", "pct"] == 50 and order.loc["frames-8", "pct"] == 100, "hill and valley are the same backwards"
    assert (mean["lost_points"] == 0).all() and (mean["low"].dropna() < 0).all() and (mean["high"].dropna() > 0).all()
    assert mean["high"].max() < 3, "and that is known well"
    classes = class_drops(seen)
    assert ("order-toys-2shot-finetune on toys-val: of 4 classes 4 live on order, 0 on several frames; each interval lies above 0 by chance alone "
            "1 time in 40: 0.2 classes for order, 0.1 for several frames.") in classes_sheet(classes).footer
    assert (classes[classes["model"] == "order-toys-2shot-finetune"]["lives_on"] == ORDER).all()
    assert (classes[classes["model"] == "mean-toys-2shot-finetune"]["lives_on"] == NOT_SHOWN).all()
    taken = classes[classes["model"] == "order-toys-2shot-finetune"].set_index("class")["reversed_taken_for"].dropna().to_dict()
    assert taken == {"up": "down", "down": "up"}


def test_what_a_class_lives_on() -> None:
    more, none = Points(20.0, 5.0, 35.0), Points(3.0, -4.0, 10.0)
    assert lives_on({"shuffled-frames": more, "reversed": none, "frozen": none}) == ORDER
    assert lives_on({"shuffled-frames": none, "reversed": more, "frozen": more}) == ORDER
    assert lives_on({"shuffled-frames": none, "frozen": more}) == FRAMES
    assert lives_on({"shuffled-frames": none, "frozen": none}) == lives_on({"frozen": Points(40.0, np.nan, np.nan)}) == NOT_SHOWN


def right(count: int) -> np.ndarray:
    """What a model says that is right on the first `count` of 40 clips."""
    label = np.arange(40) % 4
    return np.where(np.arange(40) < count, label, (label + 1) % 4)


def test_the_command_writes_what_is_worked_out_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs, out, label = tmp_path / "runs", tmp_path / "tables", np.arange(40) % 4
    for model, frozen, frames, views in ((VIDEO, 12, 16, "center"), (IMAGE, 28, 1, "frames16")):
        for seed in (0, 1):
            said = {"clean": answers(right(36 - 4 * seed), label, CLASSES), "shuffled-frames:1": answers(right(20), label, CLASSES),
                    "frozen:1": answers(right(frozen), label, CLASSES)}
            write_tested(runs, model, seed, said, num_frames=frames, views=views, group="time")
    write_tested(runs, "blind-toys-2shot-{}-finetune", 0, {"clean": answers(right(4), label, CLASSES), "frozen:1": answers(right(4), label, CLASSES)},
                 num_frames=1, group="time")
    assert time.main([str(runs), "--out", str(out), "--json", "--no-figures"]) == 0
    printed = capsys.readouterr()
    rows = {(row["model"], row["condition"]): row for row in json.loads(printed.out)["rows"]}
    video = rows["video-toys-2shot-finetune", "frozen"]
    # clean (36 + 32) / 2 of 40, frozen 12; above chance of 25 %: 5 of 60 points are kept
    assert (video["pct"], video["lost_points"]) == pytest.approx((30, 55)) and (video["clips"], video["seeds"]) == (40, 2)
    assert video["kept_above_chance_pct"] == pytest.approx(100 * 5 / 60) and 35 < video["low"] < 55 < video["high"] < 75
    pairs = {(row["video"], row["image"], row["condition"]): row for row in table(out, "time-paired")}
    assert {key[1] for key in pairs} == {"image-toys-2shot-finetune"}, "a model of one frame and one view cannot lose anything"
    pair = pairs["video-toys-2shot-finetune", "image-toys-2shot-finetune", "frozen"]
    assert [float(pair[name]) for name in ("video_lost_points", "image_lost_points", "apart_points")] == pytest.approx([55, 15, 40])
    assert float(pairs["video-toys-2shot-finetune", "image-toys-2shot-finetune", "shuffled-frames"]["apart_points"]) == pytest.approx(0)
    assert rows["blind-toys-2shot-finetune", "frozen"]["kept_above_chance_pct"] is None, "10 % of four classes is guessing"
    text = (out / "time.md").read_text()
    assert "blind-toys-2shot-finetune: sees one frame of a clip" in text and "image-toys-2shot-finetune: sees clips frame by frame" in text
    seen, _ = seen_by(read_tests([runs]))
    drawn = draw(drops(seen), class_drops([each for each in seen if each.frames > 1]), out)
    assert [path.name for path in drawn] == ["time-toys-val.png", "time-toys-val.svg", "time-classes-video-toys-2shot-finetune-toys-val.png",
                                             "time-classes-video-toys-2shot-finetune-toys-val.svg"]
    assert all(path.stat().st_size > 1000 for path in drawn) and (out / "time.tex").exists()
    assert "of 4 classes" in (out / "time-classes.md").read_text()


def test_without_frozen_clips_the_classes_are_sorted_by_another_condition_and_that_is_said(tmp_path: Path) -> None:
    classes, label = tuple(f"c{place:02d}" for place in range(32)), np.arange(32)
    mixed = np.where(label < 16, label, (label + 1) % 32)  # the last 16 lose all
    write_tested(tmp_path, VIDEO, 0, {"clean": answers(label, label, classes), "shuffled-frames:1": answers(mixed, label, classes)}, group="time")
    found = class_drops(seen_by(read_tests([tmp_path]))[0])
    assert found["shuffled-frames_points"].tolist() == [100.0] * 16 + [0.0] * 16
    _classes(figure := Figure(), found, "toys")
    assert figure.axes[0].get_title() == "toys; the 15 that lose most and the 15 that lose least of 32, by: shuffled"


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = np.arange(40) % 4
    write_tested(tmp_path / "a", VIDEO, 0, {"clean": answers(right(20), label, CLASSES), "fog:1": answers(right(20), label, CLASSES)})
    assert time.main([str(tmp_path / "a"), "--out", str(tmp_path / "out")]) == 2
    assert "no cell was tested under conditions of time yet" in capsys.readouterr().err
    write_tested(tmp_path / "a", IMAGE, 0, {"frozen:1": answers(right(20), label, CLASSES)}, group="time")
    write_tested(tmp_path / "a", VIDEO, 0, {"clean": answers(right(20), label, CLASSES), "frozen:1": answers(right(20), label, CLASSES)},
                 group="time", test_set="other")
    assert time.main([str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "missing: image-toys-2shot-finetune on toys-val: not tested clean" in capsys.readouterr().err
    damaged = write_tested(tmp_path / "a", IMAGE, 0, {text: answers(right(20), label, CLASSES) for text in ("clean", "frozen:1")}, group="time",
                           test_set="other")
    (damaged.conditions / "frozen-1.npz").write_bytes(b"PK")
    assert time.main([str(tmp_path / "a"), "--out", str(tmp_path / "out"), "--no-figures"]) == 3
    assert "missing: image-toys-2shot-finetune on other: " in (err := capsys.readouterr().err) and "is no file of predictions, or damaged" in err
    assert [row["model"] for row in table(tmp_path / "out", "time")] == ["video-toys-2shot-finetune"] * 2


def test_the_page_of_a_cell_has_it(tmp_path: Path) -> None:
    label = np.arange(40) % 4
    tested = write_tested(tmp_path, VIDEO, 0, {"clean": answers(right(36), label, CLASSES), "frozen:1": answers(right(12), label, CLASSES)},
                          group="time")
    record = json.loads(tested.record.read_text())["cell"]
    cell = RunFolder(tmp_path / record["tested"])
    cell.path.mkdir()
    write_json(cell.record, {"schema": 1, "kind": "fewshot", "signature": record["tested_signature"], "submissions": []})
    section, = use_of_time(Dossier(cell))
    row, = section.tables[0].cells.to_numpy().tolist()
    assert row[:5] == ["toys-val", "center", "frozen", "30.0", "60.0"] and row[6] == "40" and len(section.words) == 1
    write_json(cell.record, {"schema": 1, "kind": "fewshot", "signature": "another0", "submissions": []})
    assert use_of_time(Dossier(cell)) == []


def test_the_page_says_what_time_says_of_models_that_guess_or_see_one_frame(tmp_path: Path) -> None:
    label = np.arange(5) % 4
    for number, views in enumerate(("center", "frames16")):
        said = answers((label + 1) % 4, label, CLASSES)
        tested = write_tested(tmp_path, IMAGE, 0, {"clean": said, "frozen:1": said}, group=("time", "more")[number], num_frames=1, views=views)
        result = json.loads(tested.result.read_text())
        write_json(tested.result, {**result, "conditions": [{**each, "group": each["group"].replace("more", "time")} for each in result["conditions"]]})
    record = json.loads(tested.record.read_text())["cell"]
    cell = RunFolder(tmp_path / record["tested"])
    cell.path.mkdir()
    write_json(cell.record, {"schema": 1, "kind": "fewshot", "signature": record["tested_signature"], "submissions": []})
    section, = use_of_time(Dossier(cell))
    assert sorted(row[1:6] for row in section.tables[0].cells.to_numpy().tolist()) == [
        [views, "frozen", "0.0", "0.0", "--"] for views in ("center", "frames16")], "five clips have no interval"
    words = " ".join(section.words)
    assert words.count("sees one frame of a clip") == 1 and "toys-val, views center: sees one frame" in words
    assert words.count("clean accuracy is not above guessing (95 %). A model that guesses can lose nothing") == 2


def test_seeds_are_averaged_clip_by_clip() -> None:
    label, order = np.arange(40) % 4, np.random.default_rng(0).permutation(40)
    one, other = answers(right(30), label, CLASSES), answers(right(10), label, CLASSES)
    content, labels, shares = share_right([one, other.take(order)])
    assert content.tolist() == list(range(40)) and labels.tolist() == label.tolist()
    assert shares.tolist() == [1.0] * 10 + [0.5] * 20 + [0.0] * 10
    with pytest.raises(ValueError, match="other clips or classes"):
        share_right([one, other.take(np.arange(39))])
    with pytest.raises(ValueError, match="other clips or classes"):
        share_right([one, Predictions(**{**vars(other), "label": np.roll(other.label, 1)})])


def test_too_few_clips_have_no_interval_and_clips_that_all_agree_have_one() -> None:
    assert np.isnan(lost(np.ones(5), np.zeros(5)).low) and lost(np.ones(5), np.zeros(5)).value == 100
    assert np.isnan(lost(np.ones(0), np.ones(0)).value) and np.isnan(apart(np.ones(9), np.ones(0)).value)
    none = lost(np.ones(10), np.ones(10))
    assert none.value == 0 and -40 < none.low < 0 < none.high < 40
    assert lost(np.ones(1000), np.ones(1000)).high < 0.5


def held_of(draws: int, clips: int, gained: float, gone: float, seeds: int) -> float:
    """Share of draws in which the interval of `lost` holds the truth, on clips that a model loses or gains each by itself."""
    rng, held = np.random.default_rng(clips), 0
    for number in range(draws):
        kind = rng.choice(3, size=(clips, 1), p=[gone, gained, 1 - gone - gained])
        kind = np.where(rng.random((clips, seeds)) < 0.7, kind, rng.choice(3, size=(clips, seeds), p=[gone, gained, 1 - gone - gained]))
        before, after = (kind == 0).mean(axis=1), (kind == 1).mean(axis=1)
        found = lost(before, after, seed=number)
        held += found.low <= 100 * (gone - gained) <= found.high
    return held / draws


CASES = [(12, 0.1, 0.3, 1), (30, 0.05, 0.2, 1), (150, 0.02, 0.1, 1), (60, 0.1, 0.4, 3), (2000, 0.05, 0.12, 1)]


def test_intervals_hold_the_truth() -> None:
    assert 0.9 <= held_of(150, *CASES[1]) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("clips", "gained", "gone", "seeds"), CASES)
def test_intervals_hold_the_truth_in_95_of_100_draws(clips: int, gained: float, gone: float, seeds: int) -> None:
    assert 0.93 <= held_of(1000, clips, gained, gone, seeds) <= 0.97
