"""The launcher's mechanics on a real Slurm, with a stand-in for training that needs no torch and so takes a second."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support.launching import ROOT, cli, hear_ctrl_c, write_manifest, write_stand_in_profile
from vidmae.runs.record import RunFolder, read_json, write_json

ARGS = ["--recipe", "demo", "--partition", "gpu", "--nodes", "2", "--time", "5", "--cpus-per-task", "1", "--mem", "512M",
        "--set", "train.device=cpu", "--set", "data.workers=0", "--set", "train.global_batch=16",
        "--set", "train.phases=[{duration: 10 steps, lr: 1.0e-3}]"]
RANKS = range(4)


@pytest.fixture
def folder(cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """An own folder with a manifest; jobs that a test leaves behind are cancelled."""
    write_manifest(tmp_path / "manifests/demo.csv")
    yield tmp_path
    for record in (tmp_path / "runs").glob("*/run.json"):
        for submission in json.loads(record.read_text())["submissions"]:
            cluster.run("scancel", str(submission["job_id"]), check=False)


def launch(folder: Path, what: str, *more: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return cli("pretrain.py", *ARGS, "--profile", str(write_stand_in_profile(folder, what)), *more, cwd=folder,
               timeout_s=timeout_s)


def the_run(folder: Path) -> RunFolder:
    (path,) = (folder / "runs").iterdir()
    return RunFolder(path)


def state(folder: Path) -> dict[str, object]:
    return dict(json.loads(cli("status.py", "--json", cwd=folder).stdout))


def wait_for_ranks(folder: Path, job: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while len(list(the_run(folder).path.glob(f"seen.{job}.*.json"))) < len(RANKS):
        assert time.monotonic() < deadline, "the ranks do not start"
        time.sleep(0.2)


def test_two_nodes_of_two_tasks_run_the_snapshot(cluster: Cluster, folder: Path) -> None:
    dry = launch(folder, "ok", "--dry-run")
    assert dry.returncode == 0 and "to start at" in dry.stderr and not (folder / "runs").exists()
    done = launch(folder, "ok", "--wait")
    assert done.returncode == 0, done.stderr
    job, run = done.stdout.strip(), the_run(folder)
    assert (run.submit / job / f"{job}_submission.sh").read_text().rstrip() == dry.stdout.rstrip()
    seen = [json.loads((run.path / f"seen.{job}.{rank}.json").read_text()) for rank in RANKS]
    assert {s["file"] for s in seen} == {str(run.code / "vidmae/train/pretrain.py")}
    assert [s["LOCAL_RANK"] for s in seen] == ["0", "1", "0", "1"] and {s["WORLD_SIZE"] for s in seen} == {"4"}
    assert len({s["MASTER_ADDR"] for s in seen}) == 1 and seen[0]["MASTER_ADDR"] == seen[0]["SLURMD_NODENAME"]
    assert len({s["SLURMD_NODENAME"] for s in seen}) == 2 and {s["VIDMAE_JOB_ID"] for s in seen} == {job}
    assert {s["LOCAL_SIZE"] for s in seen} == {None} and {s["SITE_NOTE"] for s in seen} == {'it\'s "quoted" $HOME'}
    assert {s["MALLOC_TRIM_THRESHOLD_"] for s in seen} == {"8589934592"} and {s["DS_ACCELERATOR"] for s in seen} == {"cpu"}
    assert {s["CUDA_VISIBLE_DEVICES"] for s in seen} == {"0,1"}, "two pretend GPUs on each node"
    assert cluster.wait_job(job) == "COMPLETED"
    logs = cli("logs.py", "demo", "--rank", "3", cwd=folder)
    assert "stand-in rank 3: ok" in logs.stdout
    assert "its ranks: 0 to 3" in cli("logs.py", "demo", "--rank", "4", cwd=folder).stderr


def test_slurm_sees_the_exit_code_of_the_rank_that_failed(cluster: Cluster, folder: Path) -> None:
    began = time.monotonic()
    failed = launch(folder, "fail:2:3", "--follow", "--notify", "mail", "--notify", f"command:tee -a {folder}/told")
    assert failed.returncode == 1 and "rank 2: ValueError: asked to" in failed.stderr, failed.stderr
    assert "stand-in rank 0" in failed.stderr and time.monotonic() - began < 100, "the others sleep for minutes"
    job = failed.stdout.strip()
    assert cluster.wait_job(job) == "FAILED"
    assert (folder / "told").read_text() == f"{the_run(folder).path.name}: failed (rank 2, ValueError), 3 of 10 steps\n"
    assert cluster.run("sacct", "-X", "-n", "-P", "-o", "ExitCode", "-j", job).stdout.strip() == "3:0"
    refused = launch(folder, "ok")
    assert refused.returncode == 2 and refused.stdout == "" and f"job {job} is FAILED" in refused.stderr
    retried = launch(folder, "ok", "--retry", "--wait")
    assert retried.returncode == 0 and retried.stdout.strip() != job, retried.stderr
    assert (folder / "told").read_text().count("\n") == 1, "the second job was to tell nobody"


def test_a_running_job_is_shown_attached_to_and_cancelled(cluster: Cluster, folder: Path) -> None:
    job = launch(folder, "sleep").stdout.strip()
    wait_for_ranks(folder, job)
    row = state(folder)
    assert (row["state"], row["active"], row["source"], row["nodes"]) == ("RUNNING", True, "squeue", "2")
    assert (row["step"], row["total_steps"], row["loss"]) == (3, 10, 0.5) and 0 < float(str(row["eta_s"])) <= 70
    again = launch(folder, "sleep")
    assert again.stdout.strip() == job and "already active" in again.stderr
    assert f"job {job}" in cli("cancel.py", job, cwd=folder).stderr
    assert cluster.wait_job(job) == "CANCELLED"
    refused = launch(folder, "sleep")  # its ranks may still be ending: that is waited for
    assert refused.returncode == 2 and f"job {job} is CANCELLED" in refused.stderr, refused.stderr
    assert state(folder)["state"] == "CANCELLED"
    assert "nothing to cancel" in cli("cancel.py", job, cwd=folder).stderr


def test_ctrl_c_leaves_the_job_alone(cluster: Cluster, folder: Path) -> None:
    profile = write_stand_in_profile(folder, "sleep")
    launcher = subprocess.Popen([sys.executable, str(ROOT / "jobs/pretrain.py"), *ARGS, "--profile", str(profile), "--follow"],
                                cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=hear_ctrl_c)
    assert launcher.stdout and launcher.stderr
    job = launcher.stdout.readline().strip()
    wait_for_ranks(folder, job)
    launcher.send_signal(signal.SIGINT)
    _, err = launcher.communicate(timeout=30)
    assert launcher.returncode == 130 and "goes on" in err and "Traceback" not in err
    assert state(folder)["state"] == "RUNNING"


def test_a_submission_that_was_not_noted_is_found_again(cluster: Cluster, folder: Path) -> None:
    job = launch(folder, "sleep").stdout.strip()
    run = the_run(folder)
    record = read_json(run.record) or {}
    record["submissions"][0].update(state="submitting", job_id=None)  # the launcher died after sbatch
    write_json(run.record, record)
    again = launch(folder, "sleep")
    assert again.stdout.strip() == job and "already active" in again.stderr
    assert (read_json(run.record) or {})["submissions"][0]["job_id"] == job


def test_what_slurm_refuses_leaves_no_job(cluster: Cluster, folder: Path) -> None:
    refused = launch(folder, "ok", "--nodelist", "cn99")
    assert refused.returncode == 4 and "`sbatch` refused the job" in refused.stderr and refused.stdout == ""
    assert [s["state"] for s in (read_json(the_run(folder).record) or {})["submissions"]] == ["refused"]
    assert state(folder)["state"] == "REFUSED"
    accepted = launch(folder, "ok", "--wait")
    assert accepted.returncode == 0, accepted.stderr


def test_without_accounting_the_end_of_a_job_is_known(cluster: Cluster, folder: Path) -> None:
    cluster.stop_slurmdbd()
    try:
        assert launch(folder, "fail:0:2", "--wait").returncode == 1
        assert state(folder)["state"] == "FAILED"
        done = launch(folder, "ok", "--retry", "--wait")
        assert done.returncode == 0, done.stderr
    finally:
        cluster.start_slurmdbd()


@pytest.mark.slow  # it waits half a minute; tests/jobs/scheduler/test_away.py has the same with stand-ins
def test_a_controller_that_does_not_answer_is_said_soon(cluster: Cluster, folder: Path) -> None:
    job = launch(folder, "sleep").stdout.strip()
    wait_for_ranks(folder, job)
    cluster.stop_controller()
    cluster.stop_slurmdbd()  # else the accounting, which is asked before the heartbeat, may know the job by now
    try:
        began = time.monotonic()
        refused = launch(folder, "sleep")
        assert refused.returncode == 4 and "`sinfo" in refused.stderr and time.monotonic() - began < 20
        shown = cli("status.py", "--json", cwd=folder)
        row = json.loads(shown.stdout)
        assert (row["state"], row["source"]) == ("RUNNING", "heartbeat.json") and "`squeue" in shown.stderr
    finally:
        cluster.start_slurmdbd()
        cluster.start_controller()
