"""Tables of image models that are matched to video models: which belong together stands under the table and in results.csv."""

from __future__ import annotations

import csv
from pathlib import Path

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
