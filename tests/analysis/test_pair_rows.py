"""Tables of models that were pretrained together: which image and video model belong together stands under the table; the
repeats of a pretraining grid are one row, a value is a run, and unlike runs never meet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.analysis.test_collect_runs import make_cell, run, write_run


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_table_says_which_image_model_belongs_to_which_video_model(capsys: pytest.CaptureFixture[str]) -> None:
    video, image, other = (make_cell(name) for name in ("s-vith14", "s-vith14-image-frames", "a-image-clips"))
    video["checkpoint_content"] = "run:1a2b3c4d"
    write_run(video, 20.0, 40.0)
    code, _, _ = run(capsys)
    assert code == 0 and "pair" not in Path("tables/results.csv").read_text().partition("\n")[0].split(",")
    assert "Pairs" not in Path("tables/fewshot.md").read_text()
    write_run({**image, "pair": "frames of s-vith14-1a2b3c4d"}, 10.0, 30.0)
    write_run({**other, "pair": "clips of a-vith14-5e6f7a8b"}, 9.0, 29.0)
    code, _, _ = run(capsys)
    with Path("tables/results.csv").open(newline="") as lines:
        assert {row["row"]: row["pair"] for row in csv.DictReader(lines)} == {
            "s-vith14": "--", "s-vith14-image-frames": "frames of s-vith14-1a2b3c4d", "a-image-clips": "clips of a-vith14-5e6f7a8b"}
    said = next(line for line in Path("tables/fewshot.md").read_text().splitlines() if "Pairs" in line)
    assert "s-vith14-image-frames is matched to s-vith14 by frames" in said, "by the name of its row"
    assert "a-image-clips is matched to a-vith14-5e6f7a8b by clips" in said, "which has no row here"


def cell(order: str, repeat: int, seed: int, of: str = "", **more: Any) -> dict[str, Any]:
    name = f"s-order.{order}-r{repeat}"
    grid = {"name": "s", "settings": {"data.order": order}, "repeat": repeat, "of": of or order}
    return {**make_cell(name), "checkpoint_content": f"run:{name}{of}", "seed": seed, "grid": grid, **more}


def rows() -> dict[str, dict[str, str]]:
    with Path("tables/pretraining.csv").open(newline="") as lines:
        return {row["model"]: row for row in csv.DictReader(lines)}


def test_repeats_are_a_row_and_the_seeds_of_a_repeat_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    for order, values in (("age", [[10.0, 20.0], [30.0, 50.0]]), ("shuffled", [[8.0, 8.0], [8.0, 8.0]])):
        for repeat, of_repeat in enumerate(values):
            for seed, top1 in enumerate(of_repeat):
                write_run(cell(order, repeat, seed), top1, 60.0)
    write_run({**make_cell("scratch"), "checkpoint_content": "scratch:tiny"}, 5.0, 50.0)
    write_run(make_cell("another"), 99.0, 99.0)
    code, out, _ = run(capsys)
    assert code == 0 and "tables/pretraining.csv" in out
    found = rows()
    assert list(found) == ["s data.order=age", "s data.order=shuffled", "scratch", "chance"], "and no run that is of no grid"
    pct = next(key for key in found["scratch"] if key.endswith("top1_pct"))
    assert float(found["s data.order=age"][pct]) == 27.5, "(15 + 40) / 2"
    assert found["s data.order=age"][pct.replace("_pct", "_n")] == "2", "runs, of four values"
    assert float(found["scratch"][pct]) == 5.0
    assert "s-order.age-r0" in Path("tables/fewshot.md").read_text(), "each run has a row there"
    with Path("tables/results.csv").open(newline="") as lines:
        assert {row["grid_settings"] for row in csv.DictReader(lines)} == {"data.order=age", "data.order=shuffled", "--"}


def test_unlike_runs_of_one_name_and_other_methods_have_rows_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(cell("age", 0, 0), 10.0, 60.0)
    write_run(cell("age", 0, 0, of="ffff"), 20.0, 60.0, sign="1" * 8)
    write_run(cell("age", 0, 0, method="linear"), 30.0, 60.0, sign="2" * 8)
    code, _, _ = run(capsys)
    assert code in (0, 3) and sorted(rows()) == ["chance", "s data.order=age age finetune", "s data.order=age age linear",
                                                 "s data.order=age ffff finetune"]


def test_a_combination_of_a_grid_that_was_extended_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    for repeat, top1 in enumerate((10.0, 20.0, 30.0)):
        extended = cell("age", repeat, 0)
        extended["grid"]["settings"] |= {"data.clip": "normal"} if repeat else {}
        write_run(extended, top1, 60.0)
    assert run(capsys)[0] == 0
    found = rows()
    assert list(found) == ["s data.order=age data.clip=normal", "chance"]
    row = found["s data.order=age data.clip=normal"]
    pct = next(key for key in row if key.endswith("top1_pct"))
    assert (float(row[pct]), row[pct.replace("_pct", "_n")]) == (20.0, "3")


def test_without_a_grid_there_is_no_such_table(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("s"), 20.0, 40.0)
    assert run(capsys)[0] == 0 and not Path("tables/pretraining.csv").exists()
    assert "grid" not in Path("tables/results.csv").read_text().partition("\n")[0]
