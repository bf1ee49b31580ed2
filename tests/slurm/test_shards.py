"""What is done in shards on a real Slurm: features by two tasks, with status, logs and cancel; manifests, prepared footage and the
clips of a sweep."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.support import videos
from tests.support.facilities import need
from tests.support.launching import cli, write_cell_profile
from tests.support.runs import make_labelled
from tests.vidmae.insight.test_embed import NANO
from vidmae.footage.manifest import Manifest, read_summary
from vidmae.insight.embedding_files import file_path, read_embeddings
from vidmae.model.trained import untrained
from vidmae.model.weights import save_safetensors
from vidmae.runs.record import read_json

ASKED = ["--cluster", "slurm", "--partition", "gpu", "--gpus-per-node", "0", "--cpus-per-task", "1", "--mem", "1G", "--time", "5"]
FOR_DATA = ["--cluster", "slurm", "--partition", "gpu", "--cpus-per-task", "1", "--mem", "1G", "--time", "5"]
MORE = ["--sampling-rate", "2", "--device", "cpu", "--workers", "0", "--batch", "2", "--clips-per-file", "2"]

# Takes the place of vidmae/insight/embed.py in a snapshot: shard 0 works for ever, shard 1 fails
STAND_IN = """
import sys, time

def main(argv):
    print("1/2 clips", flush=True)
    if argv[-1] == "1/2":
        print("error: asked to", file=sys.stderr, flush=True)
        return 2
    time.sleep(300)
"""


def show(out: str, cwd: Path) -> dict[str, dict]:
    """What status.py says of each shard."""
    done = cli("status.py", out, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {row["job_id"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_two_shards_embed_clips_from_one_command(cluster: Cluster, tmp_path: Path) -> None:
    manifest, _ = make_labelled(tmp_path / "set", train=2, val=1)
    save_safetensors(untrained(NANO).state_dict(), tmp_path / "say.safetensors", {})
    args = ["embed.py", "--weights", "say.safetensors", "--data", str(manifest), "--out", "out", *ASKED, *MORE]
    dry = cli(*args, "--shards", "2", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0 and "#SBATCH --array=0-1%2" in dry.stdout and not (tmp_path / "out").exists(), dry.stderr
    first = cli(*args, "--shards", "2", "--sbatch", "begin=now+3", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    array = first.stdout.strip()
    again = cli(*args, "--shards", "2", "--json", cwd=tmp_path)
    assert json.loads(again.stdout) == {"job_id": array, "out": str(tmp_path / "out")}, "attached"
    waiting = show("out", tmp_path)
    assert list(waiting) == [f"{array}_0", f"{array}_1"] and {row["active"] for row in waiting.values()} == {True}
    ends = [cluster.wait_job(f"{array}_{task}", timeout_s=90) for task in (0, 1)]
    logs = [(tmp_path / f"out/submit/{array}_{task}/{array}_{task}_0_log.out").read_text() for task in (0, 1)]
    assert ends == ["COMPLETED", "COMPLETED"], logs
    assert "2 of this shard's 2 files are missing" in logs[0] and "1 of this shard's 1 files are missing" in logs[1]
    found, record = read_embeddings(tmp_path / "out")
    assert len(found) == 6 and record["job_id"].startswith(f"{array}_")

    table = cli("status.py", "out", cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0:3] + line.split()[5:6] for line in table[1:]] == [
        [f"{array}_0", "out", "CD", "4/4"], [f"{array}_1", "out", "CD", "2/2"]]
    assert cli("logs.py", "out", cwd=tmp_path).stdout == logs[0]
    assert "nothing to cancel, 2 COMPLETED" in cli("cancel.py", "out", cwd=tmp_path).stderr
    shown = cli(*args, cwd=tmp_path)
    assert shown.returncode == 0 and shown.stdout.strip() == str(tmp_path / "out") and "6 clips in 3 files" in shown.stderr

    (tmp_path / "out/result.json").unlink()
    lost = file_path(tmp_path / "out", 1, 3)
    before = lost.read_bytes()
    lost.unlink()
    stopped = stop_one_of_two(cluster, args, tmp_path)
    other = cli(*args, cwd=tmp_path)
    assert other.stdout.strip() not in ("", array, stopped), other.stderr
    assert f"array {stopped} ended before with: error: asked to" in other.stderr
    assert cluster.wait_job(f"{other.stdout.strip()}_0", timeout_s=90) == "COMPLETED"
    deadline = time.monotonic() + 10
    while not (tmp_path / "out/result.json").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert lost.read_bytes() == before, "the array goes on with what is missing"
    assert cluster.job_state(f"{stopped}_0") == "CANCELLED" and cluster.job_state(f"{array}_0") == "COMPLETED"
    assert "Bypassing signal SIGTERM" not in (tmp_path / f"out/submit/{stopped}_0/{stopped}_0_0_log.out").read_text()
    assert cli("logs.py", "out", "--job", f"{array}_0", cwd=tmp_path).stdout == logs[0], "of an older array"


def stop_one_of_two(cluster: Cluster, args: list[str], folder: Path) -> str:
    """Submit an array of which one shard fails and one works for ever, look at it and cancel it; its id."""
    (folder / "stand_in.py").write_text(STAND_IN)
    (folder / "site.yaml").write_text(f"setup:\n  - cp '{folder}/stand_in.py' vidmae/insight/embed.py\n")
    submitted = cli(*args, "--shards", "2", "--profile", "site.yaml", cwd=folder)
    array = submitted.stdout.strip()
    for verb in ("status", "logs", "cancel"):
        assert f"python jobs/{verb}.py {folder}/out" in submitted.stderr
    assert cluster.wait_job(f"{array}_1", timeout_s=60) == "FAILED"
    deadline = time.monotonic() + 30
    while (rows := show("out", folder))[f"{array}_0"]["step"] != 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    works, failed = rows.values()
    assert (works["state"], works["step"], works["total_steps"], failed["state"]) == ("RUNNING", 1, 2, "FAILED")
    said = cli("status.py", "out", cwd=folder).stderr
    assert f"job {array}_1 is FAILED" in said and "error: asked to" in said and f"{array}_0" not in said
    cancelled = cli("cancel.py", "out", cwd=folder)
    assert (cancelled.returncode, cancelled.stderr) == (0, f"out: cancelled 1 of 2 tasks of array {array}\n")
    return array


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
    done = cli(*args, *FOR_DATA, "--shards", str(tasks), cwd=folder)
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
    shown = cli(*asked["toys"], *FOR_DATA, "--shards", "2", cwd=tmp_path)
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
             "--prepare", "--profile", profile, *FOR_DATA, "--wait"]
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
