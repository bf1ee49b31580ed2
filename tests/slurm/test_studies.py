"""Studies of pretraining runs on a real Slurm, by one command each: a grid of six runs with a failure, their cells and the table;
and, slow, a scaling sweep of three fractions with real training up to the figure."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.labelled import write_labelled
from tests.support.launching import cli, write_cell_profile
from tests.support.runs import CELL, TINY, make_labelled, make_manifest
from tests.vidmae.footage.test_fractions import saycam_names, write
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, to_yaml

SCRIPT = "sweeps/scaling.py"
ASKED = ["--partition", "gpu", "--nodes", "1", "--gpus-per-node", "0", "--cpus-per-task", "1", "--mem", "512M", "--time", "5"]
OF_CELLS = "--cpus-per-task 1 --mem 512M --time 5"
FAILS = "-order.age-r1-"


def sweep(folder: Path, *args: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    return cli(SCRIPT, "--recipe", "demo", "--repeats", "2", "--seeds", "0", *ASKED, *args, cwd=folder, timeout_s=timeout_s)


def fits(folder: Path, metric: str = "top-1") -> dict[str, str]:
    """The line through the accuracies, as the last job has written it."""
    with (folder / "tables/scaling.csv").open() as f:
        (line,) = [row for row in csv.DictReader(f) if (row["metric"], row["fit"]) == (metric, "log-linear")]
    return line


def submissions(path: Path) -> list[dict[str, str]]:
    return json.loads((path / "run.json").read_text())["submissions"]


def grid(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return cli("sweeps/pretrain.py", "--recipe", "demo", "--data", "s", "--repeats", "2", "--seeds", "0", *ASKED, *args, cwd=folder, timeout_s=240)


def runs_of(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of the table that the last job has made, of random weights, too."""
    with (folder / "tables/pretraining.csv").open() as f:
        return {row["model"]: row for row in csv.DictReader(f)}


def test_a_grid_of_six_with_a_failure_that_retry_mends_through_to_its_table(cluster: Cluster, tmp_path: Path) -> None:
    write(tmp_path / "manifests", saycam_names(60, parts=7))
    write_labelled(tmp_path / "manifests")
    profile = write_cell_profile(tmp_path, pretrain=f"fail:0:3@{FAILS}")
    args = ["--vary", "data.order=shuffled,age,age-reversed", "--method", "finetune", "--shots", "2", "--fewshot",
            f"--recipe finetune_demo {OF_CELLS}", "--set", "data.workers=0", "--profile", str(profile), "--wait"]
    first = grid(tmp_path, *args)
    assert first.returncode == 1 and len(first.stdout.split()) == 14, first.stderr
    assert "5 of 6 pretraining runs and 6 of 7 cells are done" in first.stderr and "rank 0: ValueError: asked to" in first.stderr
    assert "--retry failed" in first.stderr
    rows = runs_of(tmp_path)
    assert list(rows) == ["demo data.order=age", "demo data.order=age-reversed", "demo data.order=shuffled", "scratch", "chance"]
    assert [row["toys-2shot top1_n"] for row in rows.values()] == ["1", "2", "2", "1", "--"]
    for cell in (tmp_path / "runs").glob("demo-*-toys-2shot-seed0-*/seen.*.json"):
        parent = next((tmp_path / "runs").glob(f"{cell.parent.name.partition('-toys')[0]}-????????"))
        assert json.loads(cell.read_text())["began"] > (parent / "result.json").stat().st_mtime

    write_cell_profile(tmp_path, pretrain="ok")
    second = grid(tmp_path, *args, "--retry", "failed")
    assert second.returncode == 0 and len(second.stdout.split()) == 3, second.stderr
    assert "6 of 6 pretraining runs and 7 of 7 cells are done" in second.stderr
    rows = runs_of(tmp_path)
    assert [row["toys-2shot top1_n"] for row in rows.values()] == ["2", "2", "2", "1", "--"]
    assert {float(row["toys-2shot top1_pct"]) for name, row in rows.items() if name != "chance"} == {25.0}
    counts = {path.name: len(submissions(path)) for path in (tmp_path / "runs").glob("demo-*")}
    assert {name for name, count in counts.items() if count == 2} == {name for name in counts if FAILS[:-1] in name}
    third = grid(tmp_path, *args)
    assert (third.returncode, third.stdout) == (0, "") and "nothing to submit" in third.stderr


@pytest.mark.slow
def test_with_real_clips_and_real_training(cluster: Cluster, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    labelled, _ = make_labelled(tmp_path / "labelled", train=3, val=3)
    recipe = [word for item in TINY for word in ("--set", item)]
    cell_recipe = tmp_path / "cell.yaml"
    cell_recipe.write_text(to_yaml(build(FinetuneConfig, parse_set(CELL))[0]))
    cells = f"--recipe {shlex.quote(str(cell_recipe))} {OF_CELLS}"
    done = sweep(tmp_path, "--data", str(manifest), "--fractions", "0.3,0.6,1", *recipe, "--labelled", str(labelled), "--shots", "2",
                 "--fewshot", cells, "--wait", timeout_s=900)
    assert done.returncode == 0, done.stderr
    assert "6 of 6 pretraining runs and 6 of 6 cells are done" in done.stderr
    line = fits(tmp_path)
    assert line["points"] == "6" and line["amounts"] == "3"
    assert (tmp_path / f"tables/scaling-{labelled.stem}-2shot.png").stat().st_size > 10_000
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/result.json")]
    assert len(results) == 12 and {r["steps"] for r in results if r["kind"] == "pretrain"} == {4}
    again = sweep(tmp_path, "--data", str(manifest), "--fractions", "0.3,0.6,1", *recipe, "--labelled", str(labelled), "--shots", "2",
                  "--fewshot", cells)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
