"""Cells that learned from a share of pictures: in a table of their own, beside what was published of the same share."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_collect_runs import make_cell, run, write_run
from tests.support.tested import answers, write_tested
from vidmae.runs.record import write_json


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture_cell(checkpoint: str, share: float, seed: int = 0, data: str = "imagenet") -> dict[str, object]:
    return make_cell(checkpoint, data, 0, seed) | {"pictures": True} | ({"fraction": share} if share else {})


def write_share(checkpoint: str, share: float, seed: int, top1: float, data: str = "imagenet") -> None:
    write_run(picture_cell(checkpoint, share, seed, data), top1, top1 + 20, classes=1000, sign=f"{round(share * 1e6):08d}")


def test_shares_stand_beside_what_was_published(capsys: pytest.CaptureFixture[str]) -> None:
    for share, top1 in ((0.02, 40.0), (0.1, 60.0), (0.05, 50.0), (0, 70.0)):
        for seed in (0, 1):
            write_share("s-vith14", share, seed, top1 + seed)
    write_share("s-image-vith14", 0.02, 0, 30.0)
    write_run(picture_cell("s-vith14", 0.01), None, sign="1" * 8)
    write_run(make_cell("s-vith14", "ssv2", 10), 15.0, 30.0)
    code, out, _ = run(capsys)
    assert code == 3, "a cell is missing"
    assert [line for line in out.splitlines() if line.endswith(".csv")] == [
        "tables/fewshot.csv", "tables/imagenet.csv", "tables/results.csv", "tables/tidy.csv"]
    with Path("tables/imagenet.csv").open(newline="") as lines:
        rows = {(row["model"], row["source"]): row for row in csv.DictReader(lines)}
    columns = [name.partition(" ")[0] for name in next(iter(rows.values())) if name.endswith("top1_pct")]
    assert columns == ["imagenet_0.01", "imagenet_0.02", "imagenet_0.05", "imagenet_0.1", "imagenet-all"]
    ours = rows["s-vith14", "runs"]
    assert [ours[f"{column} top1_pct"] for column in columns] == ["--", "40.500", "50.500", "60.500", "70.500"]
    assert rows["s", "published v3"]["imagenet_0.02 top1_pct"] == "43.428"
    assert rows["s_vith14", "published image"]["imagenet_0.02 top1_pct"] == "31.662"
    assert rows["s_vith14", "published image"]["imagenet_0.01 top1_pct"] == "21.772", "13 of about 1,300 pictures of a class are 1 %, too"
    assert rows["chance", "1/classes"]["imagenet-all top1_pct"] == "0.100"
    text = Path("tables/imagenet.md").read_text()
    assert "Object recognition" in text and "7.76 %" in text and "7.76 %" not in Path("tables/fewshot.md").read_text()
    assert "beside imagenet_0.01 is of 1.0147 %" in text
    again = run(capsys)
    assert again[1] == out, "also from what was kept of the records"


def test_robustness_cells_have_a_table_beside_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    write_share("demo", 0.02, 0, 20.0, "cifar")
    label = np.arange(8) % 2
    for seed in (0, 1):
        said = {"clean": answers(label, label, ("a", "b")), "fog:1": answers(label * (np.arange(8) < 4 + 2 * seed), label, ("a", "b"))}
        write_tested(Path("runs"), "demo-cifar-2pct-{}-finetune", seed, said, group="weather")
    code, out, _ = run(capsys)
    assert code == 0 and "tables/robustness.csv" in out.splitlines()
    with Path("tables/robustness.csv").open(newline="") as lines:
        row = next(csv.DictReader(lines))
    assert (row["model"], row["toys-val: weather top1_pct"], row["toys-val: weather top1_n"]) == ("demo-cifar-2pct-finetune", "81.250", "2")
    assert run(capsys)[1] == out
    Path("runs/robust-late-00000000").mkdir()
    write_json(Path("runs/robust-late-00000000/run.json"), {"schema": 1, "kind": "robustness", "cell": {}})
    code, out, err = run(capsys)
    assert code == 3 and "missing: robust-late-00000000: no result yet" in err and "missing 1" in err


def test_other_pictures_are_objects_too(capsys: pytest.CaptureFixture[str]) -> None:
    write_share("demo", 0.02, 0, 20.0, "cifar")
    write_run(make_cell("demo", "cifar", 10) | {"pictures": True}, 30.0, 60.0, classes=1000)
    code, _, err = run(capsys)
    assert code == 0 and "7.76" not in err
    header = Path("tables/imagenet.csv").read_text().splitlines()[0]
    assert "cifar_0.02 top1_pct" in header and "cifar-10shot top1_pct" in header and not Path("tables/full.csv").exists()
    damaged = picture_cell("demo", 0.02, 3) | {"fraction": 3}
    write_run(damaged, 20.0, 40.0)
    code, _, err = run(capsys)
    assert code == 3 and "fraction is 3" in err
