"""A real Slurm whose controller or accounting is away for a while, and a job that moves itself off a bad node."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.place.scheduler import slurm
from tests.slurm import daemons
from tests.slurm.cluster import Cluster
from tests.support.launching import ROOT, cli
from vidmae.runs.record import RunFolder, write_json

# what a batch script may do about its own node; it ignores the SIGTERM that the requeue brings
MOVE = """
import os
from jobs.place.scheduler import slurm
job = os.environ["SLURM_JOB_ID"]
bad = slurm.bad_nodes(os.environ["SLURM_JOB_NODELIST"])
slurm.requeue(job)
slurm.exclude_nodes(job, bad)
"""


def sbatch(cluster: Cluster, *args: str) -> str:
    return cluster.run("sbatch", "--parsable", "-o", "/dev/null", *args).stdout.strip()


@pytest.fixture
def job(cluster: Cluster) -> Iterator[str]:
    number = sbatch(cluster, "-J", "a-1", "--wrap", "sleep 614")
    daemons.wait(lambda: slurm.job_state(number) == "RUNNING", 30, "the job", cluster.folder, "slurmctld")
    yield number
    cluster.run("scancel", number, check=False)


@pytest.fixture
def folder(job: str, tmp_path: Path) -> Path:
    """A folder with a run whose job is the sleeping one."""
    run = RunFolder(tmp_path / "runs/a-1")
    run.path.mkdir(parents=True)
    write_json(run.record, {"submissions": [{"job_id": job, "cluster": "slurm", "job_name": "a-1"}]})
    return tmp_path


@contextmanager
def controller_away(cluster: Cluster, seconds: float) -> Iterator[None]:
    """Stop the controller, and start it again after so many seconds, whatever the block does meanwhile."""
    cluster.stop_controller()
    back = threading.Timer(seconds, cluster.start_controller)
    back.start()
    try:
        yield
    finally:
        back.join()


def status(folder: Path) -> tuple[dict[str, object], str]:
    done = cli("status.py", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow  # it waits; tests/jobs/scheduler/test_away.py has the same with stand-ins
def test_status_waits_for_a_controller_that_restarts(cluster: Cluster, folder: Path) -> None:
    assert status(folder)[0]["state"] == "RUNNING"  # and what forks commands has begun
    with controller_away(cluster, 11):  # longer than one try of squeue
        row, said = status(folder)
    assert (row["state"], row["source"]) == ("RUNNING", "squeue") and "trying again in 0.5 s" in said and "note:" not in said


def test_without_accounting_squeue_and_the_records_tell(cluster: Cluster, folder: Path, job: str) -> None:
    cluster.stop_slurmdbd()
    try:
        assert status(folder)[0]["source"] == "squeue"
        lost = RunFolder(folder / "runs/b-1")  # squeue forgets a job minutes after its end; this one never was
        lost.path.mkdir()
        write_json(lost.record, {"submissions": [{"job_id": "99999999", "cluster": "slurm", "job_name": "b-1"}]})
        write_json(lost.failure, {"job_id": "99999999", "rank": 1, "error": "ValueError", "message": "m"})
        done = cli("status.py", "b-1", "--json", cwd=folder)
        row = json.loads(done.stdout)
        assert (row["state"], row["source"]) == ("FAILED", "failure.json"), done.stderr
        assert "note: `sacct" in done.stderr and "Connection refused (tried 4 times" in done.stderr
    finally:
        cluster.start_slurmdbd()


def test_a_job_leaves_its_drained_node(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "move.py").write_text(MOVE)
    wrap = (f"echo $SLURMD_NODENAME >> {tmp_path}/nodes; test -n \"$SLURM_RESTART_COUNT\" && exec sleep 615; "
            f"trap '' TERM; until [ -e {tmp_path}/go ]; do sleep 0.1; done; "
            f"PYTHONPATH={ROOT} {sys.executable} {tmp_path}/move.py > {tmp_path}/said 2>&1")
    job = sbatch(cluster, "--requeue", "-x", "cn1,cn2", "--wrap", wrap)
    nodes = tmp_path / "nodes"
    daemons.wait(nodes.exists, 30, "the first run", cluster.folder, "slurmctld")
    first = nodes.read_text().strip()
    (other,) = {"cn3", "cn4"} - {first}
    assert slurm.job_state(job) == "RUNNING" and slurm.bad_nodes("cn[1-4]") == []
    with pytest.raises(slurm.SlurmError, match="no longer pending"):
        slurm.exclude_nodes(job, [first])
    cluster.drain(first)
    try:
        assert slurm.bad_nodes("cn[1-4]") == [first] and slurm.bad_nodes(f"{other},cn1") == []
        (tmp_path / "go").touch()
        daemons.wait(lambda: len(nodes.read_text().split()) == 2, 60, "the second run", cluster.folder, "slurmctld")
        assert (tmp_path / "said").read_text() == "" and nodes.read_text().split() == [first, other]
        excluded = cluster.run("squeue", "-h", "-j", job, "-o", "%x").stdout.strip()
        assert cluster.run("scontrol", "show", "hostnames", excluded).stdout.split() == ["cn1", "cn2", first]
        cluster.run("scancel", job)
        assert cluster.wait_job(job) == "CANCELLED" and slurm.job_state("99999999") is None
        with pytest.raises(slurm.SlurmError, match=r"scontrol requeue 99999999.*Invalid job id"):
            slurm.requeue("99999999")
    finally:
        cluster.run("scancel", job, check=False)
        cluster.resume(first)
