"""The command that says where a step's time would go: its tables, its files, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from analysis import roofline
from tests.support.launching import write_manifest
from vidmae.runs.gpus import GPUS
from vidmae.settings.config import RECIPES


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def called(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    try:
        code = roofline.main(list(args))
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, *capsys.readouterr()


@pytest.mark.parametrize("nodes", ["1", "8"])
def test_a_table_of_80_columns_whose_parts_make_up_the_step(here: Path, nodes: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "--gpu", "h100", "--nodes", nodes, "--clip-cpu-ms", "147", "--set", "data.workers=16")
    assert code == 0 and out.split() == [f"tables/roofline/{name}.{kind}" for name in ("roofline", "nodes") for kind in ("csv", "md", "tex")]
    tables = [line for line in err.splitlines() if line.startswith((" ", "─"))]
    assert len(tables) > 10 and max(len(line.rstrip()) for line in tables) <= 80
    with Path("tables/roofline/roofline.csv").open() as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["arithmetic", "memory", "links", "data", "step"]
    adds = [float(rows[part]["adds_ms"]) for part in ("arithmetic", "memory", "links", "data")]
    assert sum(adds) == pytest.approx(float(rows["step"]["ms"]), abs=0.01)
    assert float(rows["data"]["clips_per_s_per_gpu"]) == pytest.approx(16 / 0.147, abs=0.01)
    assert "| arithmetic |" in Path("tables/roofline/roofline.md").read_text()


def test_what_explains_the_author_s_week(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """672 H100-hours lie between those of 376 and of 568 ms a clip, and the plan names data."""
    write_manifest(here / "manifests/kinetics.csv", videos=536_000)
    hours = []
    for clip_ms in ("376", "568"):
        code, out, err = called(capsys, "--recipe", "pretrain_kinetics_vith14", "--gpu", "h100", "--gpus", "4", "--clip-cpu-ms", clip_ms,
                                "--set", "data.workers=16", "--json")
        found = json.loads(out)
        assert code == 0 and found["slowest"] == "data" and found["clips"] == pytest.approx(162 * 536_000, rel=1e-4)
        assert 0.85 < found["data_wait"] < 0.95 and "python jobs/prepare.py footage kinetics" in err
        hours.append(found["gpu_hours"])
    assert 500 < hours[0] < 672 < hours[1] < 900


def test_other_numbers_of_nodes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "--gpu", "a100", "--nodes", "12", "--gpus", "4", "--set", "train.global_batch=192", "--json")
    found = json.loads(out)
    assert code == 0 and [row["nodes"] for row in found["other_nodes"]] == [1, 2, 4, 8, 12]
    assert found["clip_cpu_ms"] is None and found["data_s"] is None and "was not measured" in err
    assert found["other_nodes"][-1]["step_s"] == found["step_s"] and found["mfu"] == 0.4


def test_what_the_manifest_has_and_what_is_given(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(here / "manifests/mine.csv", videos=100)
    record = json.loads(Path("manifests/mine.json").read_text())
    cost = {"ms_per_clip": {"1": 300.0, "16": 100.0}, "videos": 8, "num_frames": 16, "img_size": 224, "sampling_rate": 8,
            "target_fps": 30.0, "cpu": "one"}
    Path("manifests/mine.json").write_text(json.dumps({**record, "clip_cost": cost}))
    args = ("--gpu", "h100", "--data", "mine", "--json")
    assert json.loads(called(capsys, *args)[1])["clip_cpu_ms"] == 100
    assert json.loads(called(capsys, *args, "--set", "data.repeat_aug=1")[1])["clip_cpu_ms"] == 300
    assert json.loads(called(capsys, *args, "--clip-cpu-ms", "7", "--mfu-pct", "50")[1])["clip_cpu_ms"] == 7
    assert json.loads(called(capsys, *args, "--mfu-pct", "50")[1])["mfu"] == 0.5
    assert "other" not in called(capsys, *args)[2].split("slowest")[0]
    assert "16 frames of 224 px" in called(capsys, *args, "--set", "model.img_size=448")[2]


def test_an_optimizer_on_the_cpu_has_a_row(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, "--gpu", "rtx4090", "--gpus", "1", "--set", "train.offload=optimizer", "--json")
    found = json.loads(out)
    with Path("tables/roofline/roofline.csv").open() as file:
        rows = {row["part"]: row for row in csv.DictReader(file)}
    adds = [float(rows[part]["adds_ms"]) for part in ("arithmetic", "memory", "links", "offload")]
    assert code == 0 and sum(adds) == pytest.approx(float(rows["step"]["ms"]), abs=0.01)
    assert float(rows["offload"]["adds_ms"]) == pytest.approx(1000 * found["offload_exposed_s"], abs=0.001) and adds[-1] > 0
    assert "offload: " in err and "on 8 cores (assumed)" in err and max(map(len, err.splitlines()[:8])) <= 80


@pytest.mark.parametrize(("args", "message"), [
    (["--gpu", "h10"], "'h10' is not known, did you mean H100"), (["--gpu", "quantum"], f"known: {', '.join(GPUS)}"),
    ([], "required: --gpu"), (["--gpu", "h100", "--nodes", "0"], "--nodes: 0 is not allowed: a whole number, 1 to"),
    (["--gpu", "h100", "--gpus", "x"], "--gpus: x is not allowed"), (["--gpu", "h100", "--cores", "0"], "--cores: 0 is not allowed"),
    (["--gpu", "h100", "--clip-cpu-ms", "nan"], "--clip-cpu-ms: nan is not allowed"),
    (["--gpu", "h100", "--link-gbit", "-1"], "--link-gbit"), (["--gpu", "h100", "--mfu-pct", "101"], "--mfu-pct: 101 is not allowed"),
    (["--gpu", "h100", "--nodes", "3"], "24 ranks (nodes x GPUs per node) do not divide train.global_batch 256"),
    (["--gpu", "h100", "--recipe", "dmeo"], "no recipe 'dmeo', did you mean demo?"),
    (["--gpu", "h100", "--set", "data.wrokers=3"], "did you mean data.workers"),
    (["--gpu", "h100", "--data", "gone"], "there is no manifest manifests/gone.csv"),
])
def test_what_cannot_be_is_one_line(here: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, *args)
    assert code == 2 and not out and message in err and len(err.splitlines()) == 1
    assert not Path("tables").exists()


@pytest.mark.parametrize("recipe", [path.stem for path in RECIPES.glob("pretrain_*.yaml")])
def test_every_recipe_has_a_step(here: Path, recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = called(capsys, "--recipe", recipe, "--gpu", "h100", "--json")
    assert code == 0 and json.loads(out)["step_s"] > 0
