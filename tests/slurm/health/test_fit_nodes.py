"""Nodes that are not fit, on a real Slurm: each is named and left out at the requeue, and the run ends with the same bits."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.slurm import faults
from tests.slurm.cluster import Cluster
from tests.support import launching
from tests.support.facilities import full_file_system, need
from tests.support.interruptions import differences
from tests.support.runs import TINY, make_manifest, make_run, train
from vidmae.runs.nodes.check_log import checks_in_short
from vidmae.runs.nodes.left_out import nodes_left_out
from vidmae.runs.record import RunFolder, read_json

SETTINGS = ["train.device=cpu", "train.zero_stage=1", "train.global_batch=6", "train.micro_batch=1"]
BAD_ON_CN1 = '''
import json, os, time
from pathlib import Path

from vidmae.runs.nodes.left_out import leave_out_node, node_name
from vidmae.runs.record import RunFolder

def main(run_path):
    if node_name() == "cn1":
        leave_out_node(RunFolder(Path(run_path)), "cn1", "its disk is full")
        return 75
    time.sleep(2)
    if os.environ["RANK"] == "0":
        Path(run_path, "result.json").write_text(json.dumps({"schema": 1, "kind": "pretrain", "steps": 1, "node": node_name()}))
    return 0
'''


def words(manifest: Path, runs: Path, nodes: int, *more: str) -> list[str]:
    """A launcher's command line."""
    return ["--recipe", "demo", "--data", str(manifest), "--partition", "gpu", "--nodes", str(nodes), "--gpus-per-node", "0",
            "--tasks-per-node", "1", "--cpus-per-task", "2", "--mem", "2G", "--time", "20", "--runs-dir", str(runs),
            *(word for setting in [*TINY, *SETTINGS] for word in ("--set", setting)), *more]


def submitted(cluster: Cluster, arguments: list[str], runs: Path) -> faults.Job:
    done = launching.cli("pretrain.py", *arguments, cwd=faults.ROOT)
    assert done.returncode == 0, done.stderr
    return faults.Job(cluster, faults.the_run(runs), done.stdout.strip(), arguments)


def nodes_of(job: faults.Job) -> str:
    return job.cluster.run("squeue", "-h", "--states=all", "-o", "%N", "-j", job.id).stdout.strip()


def test_a_job_is_requeued_without_a_node_that_it_left_out(cluster: Cluster, tmp_path: Path) -> None:
    """A stand-in for training finds its node bad: what follows is Slurm's part and that of the batch script."""
    manifest = launching.write_manifest(tmp_path / "manifests/a.csv")
    (tmp_path / "stand_in.py").write_text(BAD_ON_CN1)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"setup:\n  - cp '{tmp_path}/stand_in.py' vidmae/train/pretrain.py\n")
    job = submitted(cluster, words(manifest, tmp_path / "runs", 2, "--profile", str(profile)), tmp_path / "runs")
    faults.wait_done(job)
    assert nodes_left_out(job.run, job.id) == {"cn1": "its disk is full"}, "it began on cn1"
    assert "cn1" not in nodes_of(job) and (read_json(job.run.result) or {})["node"] == "cn2"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """The same run without Slurm, undisturbed and unchecked, on so many ranks."""
    made: dict[tuple[object, ...], RunFolder] = {}

    def on(ranks: int, *more: str) -> RunFolder:
        if (ranks, *more) not in made:
            made[(ranks, *more)] = run = make_run(tmp_path_factory.mktemp("whole") / "run", manifest, *SETTINGS, *more,
                                                  "recovery.checks=off")
            codes, said = train(run, world_size=ranks)
            assert set(codes) == {0}, said
        return made[(ranks, *more)]

    return on


def ended_without(job: faults.Job, node: str, said: str, whole: RunFolder) -> None:
    """The node was named and left out, and the run is that which nothing disturbed."""
    faults.wait_done(job)
    left = nodes_left_out(job.run, job.id)
    assert set(left) == {node} and said in left[node], left
    assert node not in nodes_of(job), nodes_of(job)
    found = checks_in_short(job.run)
    assert found is not None and found["left_out"] == []
    assert differences(job.run, whole) == []


@pytest.mark.slow
def test_a_node_whose_disk_is_full_is_left_out(cluster: Cluster, manifest: Path, tmp_path: Path, whole: Callable[..., RunFolder]) -> None:
    need("tmpfs")
    scratch = tmp_path / "scratch"
    with full_file_system(scratch / "cn1"):
        more = ["--checks", "enforce", "--stage", f"{scratch}/$SLURMD_NODENAME"]
        job = submitted(cluster, words(manifest, tmp_path / "runs", 2, *more), tmp_path / "runs")
        ended_without(job, "cn1", "data.stage cannot be written: No space left on device", whole(2, f"data.stage={scratch}/other"))


@pytest.mark.slow
def test_a_node_with_other_code_is_left_out(cluster: Cluster, manifest: Path, tmp_path: Path, whole: Callable[..., RunFolder]) -> None:
    """Of three nodes the first one runs a copy that differs by a comment, as after an update that one node has missed."""
    for package in ("jobs", "vidmae"):
        shutil.copytree(faults.ROOT / package, tmp_path / "old" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "old/vidmae/train/build.py").open("a") as file:
        file.write("# another version\n")
    python = tmp_path / "python.sh"
    python.write_text(f"#!/bin/bash\n[ $SLURMD_NODENAME = cn1 ] && cd {tmp_path}/old && export PYTHONPATH={tmp_path}/old\n"
                      f"exec {sys.executable} \"$@\"\n")
    python.chmod(0o700)
    profile = tmp_path / "profile.yaml"
    profile.write_text(f"python: {python}\n")
    arguments = words(manifest, tmp_path / "runs", 3, "--checks", "enforce", "--profile", str(profile))
    job = submitted(cluster, arguments, tmp_path / "runs")
    ended_without(job, "cn1", "most nodes have", whole(3))


@pytest.mark.slow
def test_a_node_that_gets_a_tenth_of_its_core_is_left_out(
    cluster: Cluster, manifest: Path, tmp_path: Path, whole: Callable[..., RunFolder]
) -> None:
    runs = tmp_path / "runs"
    job = submitted(cluster, words(manifest, runs, 2, "--checks", "enforce"), runs)
    with _a_tenth_for(job, rank=1) as node:
        faults.wait_done(job)
    ended_without(job, node[0], "of the others'", whole(2))


@contextlib.contextmanager
def _a_tenth_for(job: faults.Job, rank: int) -> Iterator[list[str]]:
    """From its start on a rank computes 5 ms of every 50, as under a quota; its node."""
    over, node = threading.Event(), list[str]()

    def hold() -> None:
        pid = 0
        while not pid:
            with contextlib.suppress(LookupError):
                pid = job.pid(rank)
                node.append(job.node(rank))
            if over.wait(0.2):
                return
        with contextlib.suppress(ProcessLookupError):
            while not over.is_set():
                os.kill(pid, signal.SIGSTOP)
                time.sleep(0.045)
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.005)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield node
    finally:
        over.set()
        thread.join()
