"""The paper's three commands on a real Slurm with nothing replaced: a small model, real clips, real training."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.launching import cli
from tests.support.runs import make_labelled

ASKED = ["--partition", "gpu", "--cpus-per-task", "1", "--mem", "1G", "--time", "10", "--set", "data.workers=0"]
SMALL = ["model.img_size=32", "model.num_frames=4", "data.sampling_rate=2", "train.device=cpu", "train.precision=fp32",
         "train.phases=[{duration: 4 steps, lr: 1.0e-3}]"]


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
