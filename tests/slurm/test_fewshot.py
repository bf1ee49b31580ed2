"""A few-shot sweep on a real Slurm: an array on four nodes, cells that fail and run out of time, chains of jobs.

The cell that runs into its limit takes a minute and a half: it is submitted first, and the chains run meanwhile.
"""

from __future__ import annotations

import csv
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.place.scheduler import slurm
from tests.slurm.cluster import Cluster
from tests.support.labelled import write_labelled
from tests.support.launching import cli, write_cell_profile, write_manifest

ASKED = ["--partition", "gpu", "--cpus-per-task", "1", "--mem", "256M"]
ARGS = ["sweeps/fewshot.py", "--recipe", "finetune_demo", "--set", "data.workers=0", *ASKED]
GRID = ["--checkpoints", "scratch", "--shots", "2,10", "--seeds", "0,1,2,3,4,5", "--time", "1"]
FAILS, SLEEPS, LEAVES = "-2shot-seed1-", "-10shot-seed4-", "-2shot-seed3-"
PRETRAIN = ["pretrain.py", "--recipe", "demo", *ASKED, "--nodes", "1", "--time", "5", "--set", "train.device=cpu", "--set",
            "data.workers=0", "--set", "train.phases=[{duration: 10 steps, lr: 1.0e-3}]", "--sbatch", "begin=now+5"]


def wait_until(there: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def sweep(folder: Path, *more: str, profile: Path) -> subprocess.CompletedProcess[str]:
    return cli(*ARGS, *more, "--profile", str(profile), cwd=folder, timeout_s=180)


@pytest.fixture(scope="module")
def started(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The array of twelve cells, just submitted; one whole node for each task."""
    folder = tmp_path_factory.mktemp("sweep")
    write_labelled(folder / "manifests")
    profile = write_cell_profile(folder, FAILS=FAILS, SLEEPS=SLEEPS, LEAVES=LEAVES, PAUSE_S="1")
    done = sweep(folder, *GRID, "--sbatch", "exclusive=", profile=profile)
    assert done.returncode == 0, done.stderr
    yield folder, done.stdout.strip()
    cluster.run("scancel", "--me", check=False)


@pytest.fixture(params=["ok", "fail:0:3"])
def chain(request: pytest.FixtureRequest, started: tuple[Path, str], tmp_path: Path) -> tuple[str, Path, Path]:
    """What the pretraining job is to do, a folder, and a profile that puts stand-ins in place of what needs torch."""
    write_manifest(tmp_path / "manifests/demo.csv")
    write_labelled(tmp_path / "manifests")
    profile = write_cell_profile(tmp_path, pretrain=request.param)
    return request.param, tmp_path, profile


def test_a_chain_from_pretraining_to_tables(cluster: Cluster, chain: tuple[str, Path, Path]) -> None:
    what, folder, profile = chain
    pretrained = cli(*PRETRAIN, "--profile", str(profile), cwd=folder)
    assert pretrained.returncode == 0, pretrained.stderr
    grid = ["--shots", "2", "--seeds", "0", "--time", "2", "--set", "model.img_size=64"]
    refused = sweep(folder, *grid, "--checkpoints", "demo", profile=profile)
    assert refused.returncode == 2 and "--after demo-" in refused.stderr, refused.stderr
    done = sweep(folder, *grid, "--after", "demo", "--then-collect", "--notify", f"command:tee -a {folder}/told", profile=profile)
    assert done.returncode == 0, done.stderr
    chained, scratch, collect = done.stdout.split()
    assert cluster.job_state(f"{scratch}_0") in ("", "PENDING", "RUNNING", "COMPLETED")
    wait_until((folder / "tables/results.csv").exists, "the job that collects does not run")
    with (folder / "tables/results.csv").open() as f:
        found = {row["checkpoint"]: row["status"] for row in csv.DictReader(f)}
    cells = {path.name: path for path in (folder / "runs").glob("*-finetune-*")}
    of_run = next(path for name, path in cells.items() if name.startswith("demo-"))
    record = json.loads((of_run / "run.json").read_text())
    (pretraining,) = (path for path in (folder / "runs").glob("demo-????????"))
    assert record["cell"]["checkpoint_content"] == f"run:{pretraining.name[-8:]}" and record["cell"]["checkpoint"] == "demo"
    assert record["submissions"][-1]["job_id"] == f"{chained}_0"
    if what == "ok":
        assert found == {"demo": "found", "scratch": "found"}
        (seen,) = of_run.glob("seen.*.json")
        assert json.loads(seen.read_text())["began"] > (pretraining / "result.json").stat().st_mtime
        told = (folder / "told").read_text().splitlines()
        assert len(told) == 2 and all(line.endswith(": 1 done of 1 cells, top-1 25.00 to 25.00 %") for line in told), told
    else:
        assert found["scratch"] == "found" and found["demo"] != "found", "afterok: no cell starts on weights that never came"
        dry = json.loads(sweep(folder, *grid, "--checkpoints", "scratch", "--dry-run", "--json", profile=profile).stdout)
        assert [cell["state"] for cell in dry["cells"]] == ["done"]
        rows = [json.loads(line) for line in cli("status.py", "--json", cwd=folder).stdout.splitlines()]
        (row,) = [row for row in rows if row["run"] == of_run.name]
        assert (row["job_id"], row["state"], row["active"]) == (f"{chained}_0", "CANCELLED", False)
        wait_until(lambda: f"{chained}_0" in {job.id for job in slurm.accounted([f"{chained}_0"])}, "sacct does not know it")
    assert cluster.wait_job(collect) == ("COMPLETED" if what == "ok" else "FAILED"), "exit 3: the tables are incomplete"


def test_twelve_cells_one_fails_one_runs_out_of_time(cluster: Cluster, started: tuple[Path, str]) -> None:
    folder, array = started
    assert array.isdigit(), "one array"
    profile = write_cell_profile(folder)
    sleeping = json.loads(next((folder / "runs").glob(f"*{SLEEPS}*/run.json")).read_text())
    end_soon(cluster, sleeping["submissions"][-1]["job_id"])
    watched = sweep(folder, *GRID, "--watch", profile=profile)
    assert watched.returncode == 1 and watched.stdout == "", watched.stderr
    assert "10 of 12 cells are done" in watched.stderr
    states = cells_of(folder, profile)
    assert sorted(states.values()) == ["done"] * 10 + ["failed", "timeout"], states
    (failed,), (late,) = ([run for run, state in states.items() if state == kind] for kind in ("failed", "timeout"))
    assert FAILS in failed and SLEEPS in late
    assert f"failed: {failed}: " in watched.stderr and "ValueError: asked to" in watched.stderr
    assert f"timeout: {late}: job {array}_" in watched.stderr and "TIMEOUT" in watched.stderr
    seen = [json.loads(path.read_text()) for path in (folder / "runs").glob(f"*/seen.{array}_*.json")]
    (left,) = (folder / "runs").glob(f"*{LEAVES}*")
    assert states[left.name] == "done" and (left / "saved").exists(), "requeued by its own id, as a run is"
    assert len(seen) == 11 and len({s["SLURMD_NODENAME"] for s in seen}) >= 3, "with the one that sleeps on four nodes"
    assert {s["file"] for s in seen} == {str(next((folder / "runs/arrays").iterdir()) / "code/vidmae/train/cell.py")}
    rows = [json.loads(line) for line in cli("status.py", "--json", cwd=folder).stdout.splitlines()]
    assert {row["run"]: row["job_id"] for row in rows}[failed].startswith(f"{array}_")
    assert "submitit" in cli("logs.py", failed, cwd=folder).stdout and cli("logs.py", late, cwd=folder).returncode == 0

    collected = cli("analysis/collect.py", cwd=folder)
    with (folder / "tables/results.csv").open() as f:
        told = {row["run"].rpartition("/")[2]: row for row in csv.DictReader(f)}
    assert collected.returncode == 3 and {run for run, row in told.items() if row["status"] != "found"} == {failed, late}
    assert told[failed]["status"] == "failed" and "asked to" in str(told[failed].values()) and "1 failed" in collected.stderr

    again = sweep(folder, *GRID, profile=profile)
    assert again.returncode == 1 and again.stdout == "" and "nothing to submit" in again.stderr, "named, and left alone"
    retried = sweep(folder, *GRID, "--retry", "failed", "--wait", profile=profile)
    second = retried.stdout.strip()
    assert second.isdigit() and second != array, retried.stderr
    records = {run: json.loads((folder / "runs" / run / "run.json").read_text())["submissions"] for run in states}
    assert {run for run, submissions in records.items() if len(submissions) == 2} == {failed}
    assert records[failed][-1]["job_id"] == f"{second}_0"
    assert {run: state for run, state in cells_of(folder, profile).items() if state != "done"} == {late: "timeout"}


def end_soon(cluster: Cluster, job: str) -> None:
    """Bring the time limit of a job, which is a minute at least, near: Slurm ends it when it next looks, every 30 s."""
    wait_until(lambda: slurm.job_state(job) == "RUNNING", f"{job} does not start")
    cluster.run("scontrol", "update", f"jobid={job}", "endtime=now+1")


def cells_of(folder: Path, profile: Path) -> dict[str, str]:
    """Every cell's state, as a dry run tells it."""
    done = sweep(folder, *GRID, "--dry-run", "--json", profile=profile)
    assert done.returncode == 0, done.stderr
    return {cell["run"]: cell["state"] for cell in json.loads(done.stdout)["cells"]}
