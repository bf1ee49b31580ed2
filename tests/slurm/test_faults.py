"""A selection of the fault matrix (`make faults` runs all of it), and that its rows can go red."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm import daemons, faults
from tests.slurm.cluster import Cluster
from tests.support.runs import make_manifest
from vidmae.runs.record import RunFolder, read_json


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(cluster: Cluster, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], RunFolder]:
    """The uninterrupted run of a ZeRO stage, made when first asked for."""
    made: dict[int, RunFolder] = {}

    def of_stage(stage: int) -> RunFolder:
        if stage not in made:
            made[stage] = faults.uninterrupted(cluster, manifest, tmp_path_factory.mktemp("whole"), stage)
        return made[stage]

    return of_stage


@pytest.mark.parametrize(("name", "stage"), [("preempt", 3), pytest.param("slurmd", 2, marks=pytest.mark.slow),
                                             pytest.param("lost_node", 2, marks=pytest.mark.slow)])
def test_a_broken_run_ends_like_an_unbroken_one(
    cluster: Cluster, manifest: Path, whole: Callable[[int], RunFolder], tmp_path: Path, name: str, stage: int
) -> None:
    row = faults.run_row(cluster, manifest, tmp_path, name, whole(stage), stage)
    assert row.ok, row


@pytest.mark.slow
def test_without_a_protection_the_row_goes_red(
    cluster: Cluster, manifest: Path, whole: Callable[[int], RunFolder], tmp_path: Path
) -> None:
    """The run's snapshot no longer compares sizes and hashes with COMPLETE: the truncated checkpoint is loaded.

    That the same fault leaves a run with its protection unharmed is in tests/vidmae/train/test_pretrain.py and in `make faults`.
    """
    profile = tmp_path / "sabotage.yaml"
    profile.write_text("setup:\n  - sed -i 's/^    if size != .*/    if False:/; s/^    if hash_file.*/    if False:/' "
                       "vidmae/ranks/saving/checkpoint.py\n")
    red = faults.run_row(cluster, manifest, tmp_path / "red", "truncated", whole(2), 2, "--profile", str(profile))
    assert not red.ok and not red.survived, red
    assert "| NO | - |" in faults.table([red])


def test_a_child_never_starts_on_a_half_trained_model(cluster: Cluster, manifest: Path, tmp_path: Path) -> None:
    """Stopped by a signal and not requeued, the job saves and exits 75, and what waits for its success is given up."""
    job = faults.submit(faults.command(manifest, tmp_path, 2, "--time", "20", "--max-requeues", "0"))
    child = cluster.run("sbatch", "--parsable", f"--dependency=afterok:{job}", "--kill-on-invalid-dep=yes", "--output=/dev/null",
                        "--wrap=true").stdout.strip()
    run = faults.the_run(tmp_path)
    faults.wait_for_step(run, 3)
    cluster.run("scancel", "--signal=TERM", job)
    assert cluster.wait_job(job) == "FAILED"
    assert cluster.run("sacct", "-X", "-n", "-P", "-o", "ExitCode", "-j", job).stdout.strip() == "75:0"
    assert cluster.wait_job(child) == "CANCELLED"
    shown = subprocess.run([sys.executable, "jobs/status.py", "--runs-dir", str(tmp_path)], cwd=faults.ROOT,
                           capture_output=True, text=True, timeout=60)
    assert "requeued 0 times, which is all that --max-requeues allows" in shown.stderr, shown.stderr
    assert not run.result.exists() and not run.lock.exists()


def test_one_writer(cluster: Cluster, manifest: Path, tmp_path: Path) -> None:
    """A second job on the run folder leaves with 2 and names the first; the lock of a dead job is taken over."""
    arguments = faults.command(manifest, tmp_path, 2, "--time", "20", "--set",
                               "train.phases=[{duration: 100000 steps, lr: 1.0e-3}]")
    job = faults.submit(arguments)
    run = faults.the_run(tmp_path)
    faults.wait_for_step(run, 2)
    second = subprocess.run(["srun", "--nodes=1", "--ntasks=1", "--mem=1G", sys.executable, "-m", "vidmae.train.pretrain", str(run.path)],
                            capture_output=True, text=True, timeout=120)
    assert second.returncode == 2 and f"is being written by job {job}" in second.stderr, second.stderr
    assert (read_json(run.lock) or {})["job_id"] == job
    left = run.lock.read_bytes()
    cluster.run("scancel", job)
    cluster.wait_job(job, "CANCELLED")
    daemons.wait(lambda: not cluster.run("squeue", "-h", "-j", job, check=False).stdout, 60, "the end of its ranks",
                 cluster.folder, "slurmctld")  # one that still ends would remove the lock
    run.lock.write_bytes(left)  # as a job leaves it that is killed
    done = subprocess.run([sys.executable, "jobs/pretrain.py", *arguments, "--retry"], cwd=faults.ROOT, capture_output=True,
                          text=True, timeout=180)
    assert done.returncode == 0 and f"job {job} has ended: its lock" in done.stderr, done.stderr
    cluster.run("scancel", done.stdout.strip())
