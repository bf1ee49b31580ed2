"""The main job as a user types it, on a real Slurm: two nodes, two tasks each, ZeRO-2 on real clips."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support import launching
from tests.support.runs import TINY, make_manifest
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, read_json

ROOT = Path(__file__).parents[2]
SETTINGS = [arg for setting in [*TINY, "train.device=cpu", "train.zero_stage=2"] for arg in ("--set", setting)]


def cli(script: str, *args: str | Path, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """A script as a user starts it."""
    return subprocess.run(
        [sys.executable, f"jobs/{script}.py", *map(str, args)], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s
    )


def pretrain(manifest: Path) -> list[str | Path]:
    return ["pretrain", "--partition", "gpu", "--recipe", "demo", "--data", manifest, "--time", "20", "--cpus-per-task", "1",
            *SETTINGS]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("data"))


def test_two_nodes_train_and_every_command_tells_the_truth(cluster: Cluster, manifest: Path, tmp_path: Path) -> None:
    runs = ["--runs-dir", tmp_path / "runs"]
    command = [*pretrain(manifest), "--nodes", "2", *runs]

    dry = cli(*command, "--dry-run")
    assert dry.returncode == 0 and dry.stdout.startswith("#!/bin/bash"), dry.stderr
    assert "#SBATCH --nodes=2" in dry.stdout and "#SBATCH --partition=gpu" in dry.stdout
    assert not (tmp_path / "runs").exists(), "a dry run writes nothing"

    done = cli(*command, "--wait")
    assert done.returncode == 0, done.stderr
    job = done.stdout.strip()
    assert job.isdigit(), "standard output is the job id alone"
    (path,) = (tmp_path / "runs").iterdir()
    run = RunFolder(path)
    result = read_json(run.result)
    assert result is not None and result["world_size"] == 4 and result["zero_stage"] == 2 and result["job_id"] == job
    assert [m["step"] for m in read_metrics(run)] == [1, 2, 3, 4] and result["last_loss"] < result["first_loss"]
    assert cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "NNodes,NTasks,AllocNodes").stdout.startswith("2|")

    shown = json.loads(cli("status", "--json", *runs).stdout)
    assert (shown["state"], shown["step"], shown["total_steps"]) == ("COMPLETED", 4, 4)
    assert "step 4/4" in cli("logs", path.name, *runs).stdout
    (used,) = json.loads(cli("spent", "--json", *runs).stdout)["lines"]
    seconds = float(cluster.run("sacct", "-X", "-n", "-P", "-j", job, "-o", "ElapsedRaw").stdout)
    assert used["run"] == path.name and used["gpu_h"] == pytest.approx(4 * seconds / 3600, abs=4 * 5 / 3600), "two GPUs a node"

    again = cli(*command)
    assert again.returncode == 0 and "done before" in again.stderr, again.stderr
    record = read_json(run.record)
    assert record is not None and len(record["submissions"]) == 1, "nothing was submitted a second time"


def test_a_running_job_is_attached_to_and_cancelled(cluster: Cluster, manifest: Path, tmp_path: Path) -> None:
    runs = ["--runs-dir", tmp_path / "runs"]
    command = [*pretrain(manifest), "--set", "train.phases=[{duration: 100000 steps, lr: 1.0e-3}]", *runs]
    first = cli(*command)
    assert first.returncode == 0, first.stderr
    second = cli(*command)
    assert second.returncode == 0 and second.stdout == first.stdout, "the same job, not a second one"
    (path,) = (tmp_path / "runs").iterdir()
    cancelled = cli("cancel", path.name, *runs)
    assert cancelled.returncode == 0, cancelled.stderr
    deadline = time.monotonic() + 90
    while (
        json.loads(cli("status", "--json", path.name, *runs).stdout)["state"] != "CANCELLED" and time.monotonic() < deadline
    ):
        time.sleep(1)
    third = cli(*command)
    assert third.returncode == 2 and "--retry" in third.stderr, third.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--partition", "nope"], "no partition 'nope'; there are: gpu (default)"),
        (["--nodes", "0"], "nodes is 0, allowed: 1 or more"),
        (["--nodes", "9"], "nodes is 9, allowed: 1 to 4 in partition gpu (--nodes)"),
        (["--gpus-per-node", "5"], "gpus_per_node is 5, allowed: 0 to 2 in partition gpu"),
        (["--time", "2-00"], "time is 2-00:00:00, allowed: up to 1-00:00:00"),
        (["--nodez", "2"], "did you mean --nodes"),
        (["--set", "train.glbal_batch=8"], "did you mean train.global_batch"),
        (["--set", "train.global_batch=7"], "do not divide train.global_batch 7"),
        (["--data", "nowhere"], "jobs/prepare.py manifest"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_written(
    cluster: Cluster, manifest: Path, tmp_path: Path, args: list[str], said: str
) -> None:
    data = [] if "--data" in args else ["--data", str(manifest)]
    refused = launching.cli("pretrain.py", "--recipe", "demo", *data, *SETTINGS, *args, "--runs-dir", str(tmp_path / "runs"), cwd=ROOT)
    assert refused.returncode == 2 and refused.stdout == "" and said in refused.stderr, refused.stderr
    assert not (tmp_path / "runs").exists()
