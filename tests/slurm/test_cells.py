"""Cells on a real Slurm: the paper's three commands with nothing replaced, and a robustness sweep of 24 cells.

Of those one fails and one runs out of time, --retry submits these alone, and the table is right.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.labelled import write_labelled
from tests.support.launching import cli, write_cell_profile
from tests.support.runs import make_labelled
from tests.support.tested import make_cell
from vidmae.evaluate.corruptions.conditions import parse_conditions

ASKED = ["--partition", "gpu", "--cpus-per-task", "1", "--mem", "1G", "--time", "10", "--set", "data.workers=0"]
SMALL = ["model.img_size=32", "model.num_frames=4", "data.sampling_rate=2", "train.device=cpu", "train.threads=1",
         "train.precision=fp32", "train.phases=[{duration: 4 steps, lr: 1.0e-3}]"]


def settings(*items: str) -> list[str]:
    return [word for item in (*SMALL, *items) for word in ("--set", item)]


def test_three_commands_from_recordings_to_tables(cluster: Cluster, tmp_path: Path) -> None:
    manifests = make_labelled(tmp_path / "clips", train=3, val=1)
    (tmp_path / "manifests").mkdir()
    for path in manifests:
        for suffix in (".csv", ".json"):
            shutil.copy(path.with_suffix(suffix), tmp_path / "manifests")
    pretrained = cli("pretrain.py", "--recipe", "demo", "--data", "set", *ASKED, *settings(
        "model.pred_t_dim=4", "model.mask_ratio=0.75", "train.global_batch=8", "log.picture=false", "log.tensorboard=false"),
        cwd=tmp_path)
    assert pretrained.returncode == 0, pretrained.stderr
    sweep = ["sweeps/fewshot.py", "--recipe", "finetune_demo", "--shots", "2", "--seeds", "0", "--method", "finetune,knn",
             "--nodes", "2", *ASKED, *settings("train.global_batch=6"), "--after", "demo"]
    swept = cli(*sweep, "--watch", cwd=tmp_path, timeout_s=300)
    logs = "\n".join(path.read_text() for path in tmp_path.glob("runs/*/submit/*/*_log.out"))
    assert swept.returncode == 0 and "4 of 4 cells are done" in swept.stderr, swept.stderr + logs
    assert "training on 2 x CPU, fp32, ZeRO 2" in logs and "demo: 56 tensors loaded" in logs, logs
    again = cli(*sweep, cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, "") and "nothing to submit: 4 done" in again.stderr, again.stderr
    tables = cli("analysis/collect.py", "--json", cwd=tmp_path)
    assert tables.returncode == 0, tables.stderr
    assert json.loads(tables.stdout)["found"] == 4
    rows = list(csv.DictReader((tmp_path / "tables/results.csv").open()))
    assert {(row["checkpoint"], row["method"]) for row in rows} == {
        (name, method) for name in ("demo", "scratch") for method in ("finetune", "knn")}
    for row in rows:
        assert float(row["top1_pct"]) in (pytest.approx(100 * n / 3, abs=1e-3) for n in range(4)), "three clips to be tested on"


GRID = ["sweeps/robustness.py", "tiny-*", "--conditions", "imagenet-c,elastic_transform:1,greyscale:1", "--part", "7",
        "--partition", "gpu", "--cpus-per-task", "1", "--mem", "256M", "--time", "1", "--set", "data.workers=0"]
FAILS, SLEEPS = "seed0-finetune-on-toys-imagenet-c-3of11", "seed1-finetune-on-toys-imagenet-c-9of11"

# Takes the place of vidmae/train/cell.py: answers that follow from the severity, without a model
ANSWERS = '''
import json, os, time
from pathlib import Path

import numpy as np
import yaml

from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder, write_json

def main(run_path):
    run = RunFolder(Path(run_path))
    part = lambda name: os.environ.get(name) and os.environ[name] in run.path.name
    if part("SLEEPS"):
        time.sleep(300)
    if part("FAILS"):
        write_json(run.failure, {"schema": 1, "job_id": os.environ["VIDMAE_JOB_ID"], "time": time.time(), "rank": 0, "kind": "error",
                                 "error": "ValueError", "message": "asked to"})
        return 1
    config, record = yaml.safe_load(run.config.read_text()), json.loads(run.record.read_text())
    run.conditions.mkdir(exist_ok=True)
    found = []
    for text in config["tested"]["conditions"]:
        name, _, level = text.partition(":")
        right = 10 - int(level or 0) - config["seed"]
        prob = np.full((12, 3), 0.1)
        label = np.arange(12) % 3
        prob[np.arange(12), np.where(np.arange(12) < right, label, (label + 1) % 3)] = 0.8
        file = text.replace(":", "-") + ".npz"
        from_probabilities(prob, label, np.arange(12).astype(np.uint64), ["a", "b", "c"]).write(run.conditions / file)
        found.append({"text": text, "name": name, "level": int(level or 0), "group": "some", "generated": False, "imagenet_c": name not in ("clean", "greyscale"),
                      "file": file, "clips": 12, "top1_pct": 100 * right / 12, "top5_pct": 100.0, "top1_ci_pct": [0.0, 100.0]})
    write_json(run.result, {"schema": 1, "kind": "robustness", "cell": record["cell"], "set": config["tested"]["set_name"], "cues": False,
                            "conditions": found, "answers": 3, "own_set": True, "cell_top1_pct": 80.0, "num_frames": 4, "clips": 12})
    return 0
'''


@pytest.mark.slow
def test_twenty_four_cells_one_fails_one_runs_out_of_time(cluster: Cluster, tmp_path: Path) -> None:
    manifest = write_labelled(tmp_path / "manifests")
    for seed in (0, 1):
        cell = make_cell(tmp_path / "runs", manifest, f"seed={seed}", name=f"tiny-toys-2shot-seed{seed}-finetune", weights=False,
                         signature=f"0123abc{seed}")
        cell.weights.write_bytes(b"weights")

    def sweep(*more: str, profile: Path) -> tuple[int, str, str]:
        done = cli(*GRID, *more, "--profile", str(profile), cwd=tmp_path, timeout_s=300)
        return done.returncode, done.stdout.strip(), done.stderr

    def with_answers(name: str, **env: str) -> Path:
        profile = write_cell_profile(tmp_path, name, **env)
        (tmp_path / "cell.py").write_text(ANSWERS)
        return profile

    broken, whole = with_answers("broken", FAILS=FAILS, SLEEPS=SLEEPS), with_answers("whole")
    code, array, said = sweep("--watch", profile=broken)
    assert code == 1 and array.isdigit() and "22 of 24 cells are done" in said, said

    def states() -> dict[str, str]:
        return {cell["run"]: cell["state"] for cell in json.loads(sweep("--dry-run", "--json", profile=whole)[1])["cells"]}

    before = states()
    assert sorted(before.values()) == ["done"] * 22 + ["failed", "timeout"], before
    (failed,), (late,) = ([run for run, state in before.items() if state == kind] for kind in ("failed", "timeout"))
    assert FAILS in failed and SLEEPS in late and f"timeout: {late}: job {array}_" in said and "ValueError: asked to" in said
    collected = cli("analysis/robustness.py", "--no-figures", cwd=tmp_path)
    assert collected.returncode == 3 and f"missing: {failed}: failed: ValueError: asked to" in collected.stderr
    assert f"missing: {late}: no result yet" in collected.stderr

    code, again, said = sweep("--retry", "--wait", profile=whole)
    assert code == 0 and again.isdigit() and again != array and set(states().values()) == {"done"}, said
    submitted = {run: len(json.loads((tmp_path / "runs" / run / "run.json").read_text())["submissions"]) for run in before}
    assert {run for run, count in submitted.items() if count == 2} == {failed, late} and max(submitted.values()) == 2
    collected = cli("analysis/robustness.py", "--reference", "tiny-toys-2shot-finetune", "--no-figures", cwd=tmp_path)
    assert collected.returncode == 0, collected.stderr
    with (tmp_path / "tables/robustness-conditions.csv").open() as f:
        rows = {row["condition"]: row for row in csv.DictReader(f)}
    assert set(rows) == {"clean", "greyscale:1", *(condition.text for condition in parse_conditions("imagenet-c"))}
    for text, row in rows.items():  # the mean of seeds 0 and 1
        level = int(text.partition(":")[2] or 0)
        assert float(row["tiny-toys-2shot-finetune"]) == pytest.approx(100 * (9.5 - level) / 12), text
    with (tmp_path / "tables/robustness-shifts.csv").open() as f:
        (row,) = (row for row in csv.DictReader(f) if row["shift"] == "imagenet-c")
    assert float(row["mce_pct"]) == 100 and int(row["conditions"]) == 75
