"""What prepares data as arrays on a real Slurm: a manifest, its footage, and the clips of a sweep before its cells."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support import videos
from tests.support.facilities import need
from tests.support.launching import cli, write_cell_profile
from vidmae.footage.manifest import Manifest, read_summary
from vidmae.runs.record import read_json

ASKED = ["--cluster", "slurm", "--partition", "gpu", "--cpus-per-task", "1", "--mem", "1G", "--time", "5"]


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four videos of two classes, and two to validate on."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    for part, numbers in (("train", range(2)), ("val", range(2, 3))):
        for label in ("up", "down"):
            (folder / part / label).mkdir(parents=True)
            for number in numbers:
                extra = ("-vf", f"rotate={number / 7},{'vflip' if label == 'down' else 'null'}")
                videos.h264(folder / part / label / f"{number}.mp4", size="64x48", fps=10, seconds=1, extra=extra)
    return folder


def array_of(cluster: Cluster, folder: Path, *args: str, tasks: int) -> str:
    """Submit, wait for all tasks; the array's id."""
    done = cli(*args, *ASKED, "--shards", str(tasks), cwd=folder)
    assert done.returncode == 0, done.stderr
    array = done.stdout.strip()
    ends = [cluster.wait_job(f"{array}_{task}", timeout_s=120) for task in range(tasks)]
    logs = [path.read_text() for path in folder.rglob(f"submit/{array}_*/*_log.*")]
    assert ends == ["COMPLETED"] * tasks, logs
    return array


def until(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.2)


@pytest.mark.slow
def test_manifest_footage_and_clips_are_made_by_arrays(cluster: Cluster, footage: Path, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    asked = {name: ["prepare.py", "manifest", str(footage / part), "--labels", "folders", "--name", name, "--decoder", "pyav"]
             for name, part in (("toys", "train"), ("toys-val", "val"))}
    array_of(cluster, tmp_path, *asked["toys"], tasks=2)
    until(manifests / ".toys.array/result.json")
    shown = cli(*asked["toys"], *ASKED, "--shards", "2", cwd=tmp_path)
    assert shown.returncode == 0 and "4 videos" in shown.stderr and len(Manifest.read(manifests / "toys.csv")) == 4
    done = cli(*asked["toys-val"], "--no-clip-cost", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    small = ["prepare.py", "footage", "toys", "--archive-mib", "0.0001"]
    array_of(cluster, tmp_path, *small, tasks=2)
    until(tmp_path / "prepared/toys-256/result.json")
    assert len(Manifest.read(manifests / "toys-256.csv")) == 4
    videos.h264(footage / "train/up/9.mp4", size="64x48", fps=10, seconds=2)
    grown = cli(*asked["toys"], "--no-clip-cost", cwd=tmp_path)
    assert grown.returncode == 0 and "4 unchanged" in grown.stderr, grown.stderr
    array_of(cluster, tmp_path, *small, tasks=2)
    until(tmp_path / "prepared/toys-256/result.json")
    assert len(Manifest.read(manifests / "toys-256.csv")) == 5 and read_json(tmp_path / "prepared/toys-256/prepared.json")["grown"]

    profile = str(write_cell_profile(tmp_path))
    sweep = ["sweeps/fewshot.py", "--recipe", "finetune_demo", "--checkpoints", "scratch", "--data", "toys", "--shots", "2", "--seeds", "0,1",
             "--prepare", "--profile", profile, *ASKED, "--wait"]
    cells = cli(*sweep, cwd=tmp_path, timeout_s=240)
    assert cells.returncode == 0 and "2 of 2 cells are done" in cells.stderr, cells.stderr
    pool = tmp_path / "runs/clips/74px-15fps-q90"
    assert len(Manifest.read(pool / "clips.csv")) == 6 and read_summary(pool / "asked.csv").videos == 6
    (preparing,) = [each["job_id"] for each in read_json(pool / "submitted.json")["submissions"]]
    cell = read_json(next((tmp_path / "runs").glob("scratch-toys-2shot-seed0-*/run.json")))
    job = cell["submissions"][-1]["job_id"]
    ends, starts = (cluster.run("sacct", "-X", "-n", "-P", "-j", each, "-o", what).stdout.split()[0]
                    for each, what in ((f"{preparing}_0", "End"), (job, "Start")))
    assert starts >= ends, "cells wait for their clips"
    again = cli(*sweep[:-1], "--retry", "--shots", "1", cwd=tmp_path, timeout_s=240)
    assert again.returncode == 0 and "clips are prepared already" in again.stderr, again.stderr
    cluster.run("scancel", "--me", check=False)
