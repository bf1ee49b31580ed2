"""A node that gets 3 % of a processor, on a real Slurm: named while it runs, left out at the next start."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm import daemons, faults
from tests.slurm.cluster import Cluster
from tests.support.runs import make_manifest
from vidmae.runs.attempts import read_attempts
from vidmae.runs.metrics import read_metrics
from vidmae.runs.nodes.left_out import nodes_left_out

SETTINGS = ("train.phases=[{duration: 100000 steps, lr: 1.0e-3}]", "recovery.compare_steps=2", "recovery.slow_pct=30",
            "recovery.leave_out_pct=50", "recovery.leave_out_s=3", "model.img_size=64", "model.num_frames=8", "model.pred_t_dim=8",
            "model.mask_ratio=0.25")  # with a larger share of the step in its forward and backward pass than TINY has
PERIOD_US, QUOTA_US = 100_000, 3_000
CGROUPS = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def quota(pid: int) -> Iterator[None]:
    """Let a process have 3 % of one processor: by the kernel where it lets us, else stopped for most of the time."""
    for controller in (CGROUPS / "cpu", CGROUPS):
        group = controller / f"vidmae-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
            else:
                (group / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            group.rmdir()
            continue
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it has ended
                (controller / "cgroup.procs").write_text(str(pid))
            group.rmdir()
        return
    with stopped_mostly(pid):
        yield


@contextlib.contextmanager
def stopped_mostly(pid: int) -> Iterator[None]:
    over = threading.Event()

    def hold() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep((PERIOD_US - QUOTA_US) / 1e6)
            os.kill(pid, signal.SIGCONT)
            time.sleep(QUOTA_US / 1e6)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_a_slow_node_is_named_and_left_out_when_the_job_next_stops(cluster: Cluster, tmp_path: Path) -> None:
    arguments = faults.command(make_manifest(tmp_path), tmp_path / "runs", 2, "--time", "20",
                               *(word for setting in SETTINGS for word in ("--set", setting)))
    job = faults.Job(cluster, faults.RunFolder(tmp_path), faults.submit(arguments), arguments)
    job.run = faults.the_run(tmp_path / "runs")
    try:
        job.wait_step(10)
        slow = job.node(1)
        with quota(job.pid(1)):
            daemons.wait(lambda: bool(nodes_left_out(job.run, job.id)), 150, "the slow node to be found", cluster.folder, "slurmctld")
            shown = subprocess.run([sys.executable, "jobs/status.py", str(job.run.path)], cwd=faults.ROOT, capture_output=True,
                                   text=True, timeout=60)
        assert re.search(rf": node {slow} \(rank 1\) makes steps \d+ % longer: (slow computing|waiting for clips)$", shown.stderr, re.M), shown
        assert list(nodes_left_out(job.run, job.id)) == [slow]
        told = [m for m in read_metrics(job.run) if "straggle" in m]
        assert told[-1]["slowest_rank"] == 1 and told[-1]["straggle"] > 0.25, told[-3:]
        cluster.run("scancel", "--signal=USR2", job.id)
        daemons.wait(lambda: len(read_attempts(job.run)) == 2 and read_attempts(job.run)[1].last_step > 0, 150, "the requeued job",
                     cluster.folder, "slurmctld")
        assert slow not in {job.node(0), job.node(1)}
        logs = "".join(path.read_text() for path in (job.run.submit / job.id).glob("*_log.out"))
        assert f"stragglers: node {slow} is left out when the job next stops" in logs
        first, second = read_attempts(job.run)
        assert first.ended == "preempted" and second.first_step == first.last_step
    finally:
        cluster.run("scancel", job.id, check=False)
