"""Tables and figures of robustness from run folders: numbers as worked out by hand, what is generated, and what is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from analysis import report, robustness
from analysis.tables.curves.robust import robust_figures, robust_runs
from analysis.tables.curves.robust.robust_runs import of_common_seeds, read_tests
from analysis.tables.curves.robust.robust_sheets import shifts_sheet
from analysis.tables.curves.robust.robust_study import Fitted, Shift, chance_pct, clean_pct, fit_shift, shifts_of
from analysis.tables.curves.robust.robust_summary import read_summary
from analysis.tables.curves.robust.time_study import seen_by
from tests.support.tested import answers, write_tested
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.runs.record import read_json, write_json

CLASSES = tuple("abcd")
LABEL = np.arange(40) % 4
VIDEO, IMAGE, SCRATCH = "video-toys-2shot-{}-finetune", "image-toys-2shot-{}-finetune", "scratch-toys-2shot-{}-finetune"
CORRUPTIONS = ("fog", "snow")


def right(count: int) -> np.ndarray:
    """What a model says that is right on the first `count` images and wrong on the others."""
    return np.where(np.arange(40) < count, LABEL, (LABEL + 1) % 4)


def told(model: str) -> str:
    return model.replace("-{}", "")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models with two seeds; fog and snow at two severities, made shapes and textures, cue conflicts, another set."""
    folder = tmp_path_factory.mktemp("robust") / "runs"
    for model, clean, per_level, frames in ((VIDEO, 36, 8, 16), (IMAGE, 32, 10, 1), (SCRATCH, 20, 5, 16)):
        for seed in (0, 1):
            said = {"clean": answers(right(clean + 2 * seed), LABEL, CLASSES)}
            said |= {f"{name}:{level}": answers(right(clean - per_level * level), LABEL, CLASSES) for name in CORRUPTIONS for level in (1, 2)}
            write_tested(folder, model, seed, said, num_frames=frames, imagenet_c=CORRUPTIONS, group="weather")
            shapes = {"clean": said["clean"], "silhouette:1": answers(right(clean // 2), LABEL, CLASSES),
                      "patch_shuffle:1": answers(right(clean // 4), LABEL, CLASSES)}
            write_tested(folder, model, seed, shapes, num_frames=frames, group="shape", generated=("silhouette", "patch_shuffle"))
            texture = (LABEL + np.repeat([0, 1], [8, 32])) % 4  # eight images without a conflict
            decided = np.where(np.arange(40) < 24, LABEL, texture) if frames > 1 else texture
            write_tested(folder, model, seed, {"clean": answers(decided, LABEL, CLASSES, first=100)}, test_set="cues", num_frames=frames,
                         own_set=False, textures=texture)
            write_tested(folder, model, seed, {"clean": answers(right(clean // 3), LABEL, CLASSES, first=200)}, test_set="sketches",
                         num_frames=frames, own_set=False, cell_top1_pct=2.5 * clean)
    return folder


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open() as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def made(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    assert robustness.main([str(runs), "--reference", told(SCRATCH), "--out", str(out)]) == 0
    return out


def test_the_numbers_are_those_worked_out_by_hand(made: Path) -> None:
    rows = {(row["set"], row["shift"], row["model"]): row for row in table(made, "robustness-shifts")}
    video, image, scratch = (rows["toys-val", "imagenet-c", told(model)] for model in (VIDEO, IMAGE, SCRATCH))
    # video: clean (36 + 38) / 2 of 40; 28 and 20 of 40 at the severities. Scratch: 21 of 40; 15 and 10. Image: 33; 22 and 12
    assert [float(row["clean_pct"]) for row in (video, image, scratch)] == [92.5, 82.5, 52.5]
    assert [float(row["pct"]) for row in (video, image, scratch)] == [60.0, 42.5, 31.25]
    assert [float(row["mce_pct"]) for row in (video, image, scratch)] == pytest.approx([100 * 32 / 55, 100 * 46 / 55, 100])
    relative = [100 * (32 - 6) / (55 - 38), 100 * (46 - 14) / (55 - 38), 100]
    assert [float(row["relative_mce_pct"]) for row in (video, image, scratch)] == pytest.approx(relative)
    assert float(video["kept_pct"]) == pytest.approx(100 * 60 / 92.5) and float(video["kept_above_chance_pct"]) == pytest.approx(100 * 35 / 67.5)
    clean, shifted = np.array([92.5, 82.5, 52.5]) / 100, np.array([60.0, 42.5, 31.25]) / 100
    slope, intercept = np.polyfit(np.log(clean / (1 - clean)), np.log(shifted / (1 - shifted)), 1)
    above = 100 * (shifted - 1 / (1 + np.exp(-(intercept + slope * np.log(clean / (1 - clean))))))
    assert [float(row["effective_points"]) for row in (video, image, scratch)] == pytest.approx(above)
    sketches = rows["sketches", "sketches", told(VIDEO)]
    assert (float(sketches["clean_pct"]), float(sketches["pct"])) == (90.0, 30.0), "clean is the model's own validation set"
    assert "Clean accuracy is that on the model's own validation set for sketches." in (made / "robustness-shifts.md").read_text()
    assert {row["shift"] for row in rows.values()} == {"imagenet-c", "shape", "sketches"}
    assert [row["generated"] for row in rows.values() if row["shift"] == "shape"] == ["True"] * 3
    errors = {row["corruption"]: row for row in table(made, "robustness-corruption-error")}
    assert set(errors) == set(CORRUPTIONS) and float(errors["fog"][told(IMAGE)]) == pytest.approx(100 * 46 / 55)


def test_of_a_model_that_guesses_nothing_is_kept() -> None:
    shift = Shift("toys", "weather", ("fog:1",), False)
    clean, shifted = pd.Series({"good": 40.0, "guesses": 11.7}), pd.Series({"good": 25.0, "guesses": 11.0})
    fitted = Fitted(shift, clean, shifted, None, "", 120)
    chance = {"good": 10.0, "guesses": 10.0}
    assert fitted.kept(chance, above=False)["good"] == 62.5 and fitted.kept(chance, above=True)["good"] == 50
    assert fitted.kept(chance, above=False).isna()["guesses"] and fitted.kept(chance, above=True).isna()["guesses"]
    assert fitted.kept({**chance, "guesses": 1.0}, above=True)["guesses"] == pytest.approx(100 * 10 / 10.7), "of a hundred answers"


def test_shape_and_texture(made: Path) -> None:
    rows = {(row["measure"], row["model"]): row for row in table(made, "robustness-shape")}
    # of 32 images in conflict the video model decides 16 by the shape and 16 by the texture; the image model all by the texture
    assert float(rows["shape bias", told(VIDEO)]["value"]) == 0.5 and float(rows["shape bias", told(IMAGE)]["value"]) == 0
    assert {row["images"] for (measure, _), row in rows.items() if measure == "shape bias"} == {"32"}
    low, high = (float(rows["shape bias", told(VIDEO)][end]) for end in ("low", "high"))
    assert low == pytest.approx(0.5 - 1.96 / 8 / 2**0.5, abs=0.05) and high == pytest.approx(0.5 + 1.96 / 8 / 2**0.5, abs=0.05)
    index = rows["shape-texture index (generated)", told(VIDEO)]
    # 18 and 9 of 40, above chance of 10: 0.2 and nothing
    assert (float(index["value"]), float(index["shape_pct"]), float(index["texture_pct"])) == (1.0, 45.0, 22.5)
    index = rows["shape-texture index (generated)", told(SCRATCH)]
    assert index["value"] == "--", "10 and 5 of 40 are chance, and less"


def test_video_minus_image_on_the_same_images(made: Path) -> None:
    rows = {(row["first"], row["second"], row["set"], row["shift"]): row for row in table(made, "robustness-paired")}
    pair = rows[told(VIDEO), told(IMAGE), "toys-val", "imagenet-c"]
    assert float(pair["value"]) == 17.5 and 0 < float(pair["low"]) < 17.5 < float(pair["high"]) and pair["images"] == "40"
    assert {key[:2] for key in rows} == {(told(VIDEO), told(IMAGE)), (told(SCRATCH), told(IMAGE))}
    assert float(rows[told(VIDEO), told(IMAGE), "toys-val", "clean"]["value"]) == 10
    kappa = {(row["set"], *sorted((row["first"], row["second"]))): float(row["value"]) for row in table(made, "robustness-consistency")}
    p, q, observed = 36 / 40, 32 / 40, 36 / 40
    expected = p * q + (1 - p) * (1 - q)
    assert kappa["toys-val", told(IMAGE), told(VIDEO)] == pytest.approx((observed - expected) / (1 - expected))


def test_files_are_tables_in_three_forms_and_figures_in_two(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    for name in ("robustness-shifts", "robustness-conditions", "robustness-corruption-error", "robustness-shape", "robustness-paired",
                 "robustness-consistency"):
        assert {f"{name}.csv", f"{name}.md", f"{name}.tex"} <= names
    for name in ("robustness-severity-toys-val", "robustness-effective", "robustness-shape-bias", "robustness-paired"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    assert "2 corruptions at 2 severities (the definition has 15 and 5)" in (made / "robustness-shifts.md").read_text()
    text = (made / "robustness-conditions.md").read_text()
    assert "silhouette:1 (generated)" in text and "fog:1 (generated)" not in text
    assert "line through all models" in (made / "robustness-effective.svg").read_text()


def test_no_curve_is_cut_off(runs: Path) -> None:
    """All panels share an axis, and a corruption may leave more than the first one does."""
    rows = read_tests([runs]).rows
    tests = robust_runs.Tests(rows.assign(top1_pct=rows["top1_pct"].where(rows["condition"] != "snow:1", 99.0)), [])
    figure = Figure()
    robust_figures._severity(figure, tests, "toys-val", list(CORRUPTIONS))
    assert all(panel.get_ylim()[0] == 0 and panel.get_ylim()[1] > 99 for panel in figure.axes)


def test_two_models_have_no_line_and_a_missing_cell_is_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = tmp_path / "runs"
    few.mkdir()
    for run in runs.iterdir():
        if not run.name.startswith("robust-scratch"):
            (few / run.name).symlink_to(run)
    (few / "robust-late-00000000").mkdir()
    write_json(few / "robust-late-00000000/run.json", {"schema": 1, "kind": "robustness", "cell": {}})
    write_json(few / "robust-late-00000000/failure.json", {"error": "ValueError", "message": "asked to"})
    assert robustness.main([str(few), "--out", str(tmp_path / "out"), "--no-figures", "--json"]) == 3
    printed = capsys.readouterr()
    told_of = json.loads(printed.out)
    assert told_of["missing"] == ["robust-late-00000000: failed: ValueError: asked to"]
    assert all(row["effective_points"] is None and row["mce_pct"] is None for row in told_of["rows"])
    assert "needs a line through the clean and the shifted accuracies of 3 models or more; here are 2" in printed.err
    assert robustness.main([str(runs), "--reference", "nobody", "--out", str(tmp_path / "out")]) == 2
    assert "--reference 'nobody' is no model; there are: " in capsys.readouterr().err
    assert robustness.main([str(runs), "--compare", "a,b", "--out", str(tmp_path / "out")]) == 2
    (tmp_path / "empty").mkdir()
    assert robustness.main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no robustness cell in" in capsys.readouterr().err


def test_cells_that_were_not_tested_alike_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {"clean": answers(right(20), LABEL, CLASSES)}
    first, second = (write_tested(tmp_path / "runs", VIDEO, 0, said, group=group) for group in ("noise", "blur"))
    assert len(read_tests([tmp_path / "runs"]).rows) == 1
    for file, key, value in ((second.record, "content_sha256", "other"), (second.result, "views", "5x3")):
        before = read_json(file) or {}
        write_json(file, {**before, key: value})
        assert robustness.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert f"{told(VIDEO)}, seed 0, was tested on toys-val in 2 ways" in error and {first.path.name, second.path.name} <= set(
            error.replace(";", ",").replace(": ", ", ").split(", "))
        write_json(file, before)


def test_seeds_that_lack_a_condition_do_not_count_and_that_is_said(tmp_path: Path) -> None:
    clean, fog = answers(right(36), LABEL, CLASSES), answers(right(20), LABEL, CLASSES)
    write_tested(tmp_path / "a", VIDEO, 0, {"clean": clean, "fog:1": fog})
    write_tested(tmp_path / "a", VIDEO, 1, {"clean": answers(right(4), LABEL, CLASSES)})
    tests = of_common_seeds(read_tests([tmp_path / "a"]))
    assert tests.means("toys-val")[told(VIDEO)].to_dict() == {"clean": 90.0, "fog:1": 50.0}
    assert tests.lost == [f"{told(VIDEO)} on toys-val: of the seeds 0, 1 only 0 counts, since the others were not tested under every condition"]
    write_tested(tmp_path / "b", VIDEO, 0, {"clean": clean})
    write_tested(tmp_path / "b", VIDEO, 1, {"fog:1": fog})
    tests = of_common_seeds(read_tests([tmp_path / "b"]))
    assert len(tests.rows) == 2 and tests.lost[0].startswith(f"{told(VIDEO)} on toys-val: no seed of 0, 1 was tested under every condition")


def test_other_conditions_take_no_seed_from_a_table_that_does_not_show_them(tmp_path: Path) -> None:
    """Three seeds under conditions of time, one of them under a corruption, too; one lacks a severity."""
    clean, less = answers(right(36), LABEL, CLASSES), answers(right(20), LABEL, CLASSES)
    for seed in range(3):
        write_tested(tmp_path, VIDEO, seed, {"clean": clean, "frozen:1": less}, group="time")
    for seed, texts in ((0, ("fog:1", "fog:2")), (1, ("fog:1",))):
        write_tested(tmp_path, VIDEO, seed, dict.fromkeys(texts, less), group="weather", imagenet_c=("fog",))
    tests = read_tests([tmp_path])
    seen, why = seen_by(tests)
    assert [each.seeds for each in seen] == [3] and why == []
    (sheet,), lost = read_summary([tmp_path])
    row = sheet.records.set_index("model").loc[told(VIDEO)]
    assert [row[f"{task} top1_n"] for task in ("toys-val", "toys-val: time", "toys-val: imagenet-c")] == ["3", "3", "1"]
    assert lost == [f"{told(VIDEO)}: toys-val: imagenet-c: of the seeds 0, 1 only 0 counts, since the others were not tested under every condition"]


def test_each_model_has_its_own_chance_and_clean_is_a_mean_over_seeds(tmp_path: Path) -> None:
    eight = tuple("abcdefgh")
    write_tested(tmp_path, VIDEO, 0, {"fog:1": answers(right(20), LABEL, CLASSES), "frost:1": answers(right(20), LABEL, CLASSES)},
                 cell_top1_pct=90.0, generated=("frost",), imagenet_c=("fog", "frost"))
    write_tested(tmp_path, VIDEO, 1, {"fog:1": answers(right(20), LABEL, CLASSES)}, cell_top1_pct=60.0)
    write_tested(tmp_path, IMAGE, 0, {"fog:1": answers(right(20), LABEL, eight), "frost:1": answers(right(20), LABEL, eight)},
                 generated=("frost",), imagenet_c=("fog", "frost"))
    tests = read_tests([tmp_path])
    assert [chance_pct(tests, "toys-val", told(model)) for model in (VIDEO, IMAGE)] == [25.0, 12.5]
    (shift,) = shifts_of(tests)
    assert shift.name == "imagenet-c" and not shift.generated
    sheet = shifts_sheet(tests, [fit_shift(tests, shift)], {})
    assert dict(zip(sheet.records["model"], sheet.records["chance_pct"], strict=True)) == {told(VIDEO): 25.0, told(IMAGE): 12.5}
    assert "toys-val, imagenet-c: generated among its conditions: frost" in sheet.footer
    assert "Clean accuracy is that on the model's own validation set for toys-val." in sheet.footer, "no clean images were tested"
    rows = pd.DataFrame([(told(VIDEO), 0, 90.0), (told(VIDEO), 0, 90.0), (told(VIDEO), 1, 60.0)], columns=["model", "seed", "cell_top1_pct"])
    uneven = robust_runs.Tests(rows.assign(set="s", condition=["fog:1", "fog:2", "fog:1"], top1_pct=1.0), [])
    assert clean_pct(uneven, "s").to_dict() == {told(VIDEO): 75.0}, "not 80, over rows"


def test_a_file_has_the_clean_accuracy_of_its_own_set(tmp_path: Path) -> None:
    """It was no few-shot cell before, whose result would say it."""
    write_tested(tmp_path, "released", 0, {"clean": answers(right(30), LABEL, CLASSES), "fog:1": answers(right(20), LABEL, CLASSES)},
                 cell_top1_pct=None)
    write_tested(tmp_path, "released", 0, {"clean": answers(right(10), LABEL, CLASSES)}, test_set="sketches", own_set=False, cell_top1_pct=None)
    tests = read_tests([tmp_path])
    assert [clean_pct(tests, "sketches", shift).to_dict() for shift in shifts_of(tests) if shift.test_set == "sketches"] == [{"released": 75.0}]


def test_the_table_beside_the_other_results(runs: Path, tmp_path: Path) -> None:
    (sheet,), lost = read_summary([runs.parent])  # the folder of the runs is found
    assert sheet.name == "robustness" and lost == []
    rows = sheet.records.set_index("model")
    # video: 36 and 38 of 40 clean; 28 and 20 of 40 at the severities, with both seeds
    assert rows.loc[told(VIDEO), "toys-val top1_pct"] == "92.500" and rows.loc[told(VIDEO), "toys-val top1_n"] == "2"
    assert rows.loc[told(VIDEO), "toys-val: imagenet-c top1_pct"] == "60.000" and rows.loc["chance", "cues top1_pct"] == "25.000"
    shown = dict(zip(sheet.shown["", "model"], sheet.shown["toys-val", "top-1"], strict=True))
    assert shown[told(VIDEO)] == "92.50 [90.00, 95.00] (2)"
    assert {"toys-val: shape, generated top5_pct", "sketches top1_pct"} <= set(sheet.records)
    for run in runs.iterdir():  # scratch lacks a set, of which nothing is expected then, and a group of another
        if not (run.name.startswith("robust-scratch") and ("-on-sketches-" in run.name or "-toys-val-shape-" in run.name)):
            (tmp_path / run.name).symlink_to(run)
    (tmp_path / "robust-late-00000000").mkdir()
    write_json(tmp_path / "robust-late-00000000/run.json", {"schema": 1, "kind": "robustness", "cell": {}})
    (sheet,), lost = read_summary([tmp_path])
    assert lost == ["robust-late-00000000: no result yet", f"{told(SCRATCH)}: toys-val: shape, generated"]
    assert sheet.records.set_index("model").loc[told(SCRATCH), "sketches top1_pct"] in ("--", None) or pd.isna(
        sheet.records.set_index("model").loc[told(SCRATCH), "sketches top1_pct"])
    assert read_summary([tmp_path / "robust-late-00000000"]) == ([], ["robust-late-00000000: no result yet"])


def test_cells_are_found_where_other_runs_are_found(tmp_path: Path) -> None:
    """Beside runs of other kinds and below, not in them nor in arrays; links that go round in circles end nothing."""
    cells = [write_tested(tmp_path / place, VIDEO, 0, {"clean": answers(right(9), LABEL, CLASSES)}).path
             for place in ("runs/mine/kept", "runs", "runs/fewshot-00000000/code", "runs/array")]
    write_json(tmp_path / "runs/fewshot-00000000/run.json", {"schema": 1, "kind": "fewshot"})
    (tmp_path / "runs/array/cells.txt").touch()
    (tmp_path / "runs/robust-loop").symlink_to("robust-loop")
    (tmp_path / "runs/mine/up").symlink_to(tmp_path / "runs")
    assert [run.path for run in robust_runs.runs_below(tmp_path)] == cells[:2]
    assert [run.path for run in robust_runs.runs_below(cells[1])] == [cells[1]]


def test_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [Row(f"/secret/{'abcd'[i % 4]}/x{i:02d}-y.png", "abcd"[i % 4], 1, 1.0, 1.0, 9, 8, 8, "png", 0, 0, 0, f"{i:016x}", 1, "decord")
            for i in range(40)]
    write_manifest(tmp_path / "m.csv", rows, [], Check("decord", True))
    write_tested(tmp_path / "runs", VIDEO, 0, {"clean": answers(right(20), LABEL, CLASSES)}, manifest=str(tmp_path / "m.csv"))
    lines = [f"p{person},0001_x{i:02d}-y.png,{'abcd'[i % 4] if i < 20 + 10 * person else 'na'},{'abcd'[i % 4]}" for person in (0, 1) for i in range(40)]
    (tmp_path / "people.csv").write_text("\n".join(["subj,imagename,object_response,category", *lines]))
    assert robustness.main([str(tmp_path / "runs"), "--humans", str(tmp_path / "people.csv"), "--out", str(tmp_path / "out"),
                            "--no-figures"]) == 0
    (row,) = table(tmp_path / "out", "robustness-consistency")
    assert row["images"] == "40", "and not as many for each person"
    # the first person is right where the model is: 1; the second on 30 of 40: observed 0.75, expected 0.5
    assert row["second"] == "humans (2)" and [float(row[key]) for key in ("value", "low", "high")] == pytest.approx([0.75, 0.5, 1])
    # graded distortions as in model-vs-human: an image in one condition; names differ in what stands before the WordNet id
    rows = [Row(f"/s/session-1/{i:04d}_cop_dnn_c{i % 2}_{'abcd'[i % 4]}_10_n0304_{i}.png", "abcd"[i % 4], 1, 1.0, 1.0, 9, 8, 8, "png", 0, 0, 0,
                f"{i:016x}", 1, "decord") for i in range(40)]
    write_manifest(tmp_path / "graded.csv", rows, [], Check("decord", True))
    said = answers(right(20), LABEL, CLASSES)
    write_tested(tmp_path / "graded", VIDEO, 0, {f"c{part}": said.take(np.arange(part, 40, 2)) for part in (0, 1)}, own_set=False,
                 manifest=str(tmp_path / "graded.csv"), group="folders")
    lines = [f"p0,{99 - i:04d}_cop_s01_c{i % 2}_{'abcd'[i % 4]}_10_n0304_{i}.png,{'abcd'[i % 4] if i < (20 if i % 2 else 30) else 'na'},{'abcd'[i % 4]}"
             for i in range(40)]
    (tmp_path / "people.csv").write_text("\n".join(["subj,imagename,Object_response,category", *lines]))
    assert robustness.main([str(tmp_path / "graded"), "--humans", str(tmp_path / "people.csv"), "--out", str(tmp_path / "out"),
                            "--no-figures"]) == 0
    (row,) = table(tmp_path / "out", "robustness-consistency")
    # where i is odd they agree: 1; where it is even the model is right on 10, the person on 15 of 20: observed 0.75, expected 0.5
    assert float(row["value"]) == pytest.approx(0.75) and row["images"] == "40"
    (tmp_path / "people.csv").write_text("subj,imagename\n")
    assert robustness.main([str(tmp_path / "runs"), "--humans", str(tmp_path / "people.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "has no column response (or object_response)" in capsys.readouterr().err


def test_the_page_of_a_run_has_a_section_where_there_are_results(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in runs.iterdir():
        (tmp_path / run.name).symlink_to(run)
    trained = tmp_path / "s-edd1b7a1"
    trained.mkdir()
    write_json(trained / "run.json", {"schema": 1, "kind": "pretrain", "name": "s", "signature": "edd1b7a1"})
    (trained / "config.yaml").write_text("name: s\n")
    assert report.main([str(trained), "--json"]) == 0
    assert "Robustness" in json.loads(capsys.readouterr().out)["sections"]
    page = (trained / "report.html").read_text()
    assert "silhouette:1, generated" in page and "fog:2" in page
    other = tmp_path / "apart" / "t-00000000"
    other.mkdir(parents=True)
    write_json(other / "run.json", {"schema": 1, "kind": "pretrain", "name": "t", "signature": "00000000"})
    assert report.main([str(other), "--json"]) == 0
    assert "Robustness" not in json.loads(capsys.readouterr().out)["sections"]
