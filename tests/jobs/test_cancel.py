"""Cancelling what runs on this machine: it saves first, loses no step, and says that it was cancelled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analysis.page.dossier import Dossier
from jobs import cancel
from jobs.place.snapshot import CodeState, take_snapshot
from jobs.standing import arrays
from jobs.standing.runs import all_runs, process_birth, state_of, submissions
from tests.support.launching import CELL_STAND_IN, ROOT, cli, write_manifest, write_stand_in_profile
from tests.support.runs import TINY, make_cell, make_labelled, make_manifest
from vidmae.runs.attempts import read_attempts
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json

LOCAL = ["--cluster", "local", "--recipe", "demo", "--gpus-per-node", "0"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own folder; jobs that a test leaves behind are killed."""
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path
    for run in all_runs(tmp_path / "runs"):
        for submission in submissions(run):
            if process_birth(int(submission["job_id"])) == submission["process_birth"]:
                os.killpg(int(submission["job_id"]), signal.SIGKILL)


def until(true: Callable[[], bool], within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def steps_of(run: RunFolder) -> list[int]:
    return [m["step"] for m in read_metrics(run)] if run.metrics.exists() else []


def test_a_cancelled_run_loses_no_step_and_is_no_preempted_one(folder: Path) -> None:
    sets = [*TINY[:-1], "train.phases=[{duration: 100000 steps, lr: 1.0e-3}]", "checkpoint.every_steps=90000", "train.device=cpu"]
    command = [*LOCAL, "--data", str(make_manifest(folder)), "--tasks-per-node", "2", *(word for s in sets for word in ("--set", s))]
    assert (done := cli("pretrain.py", *command, cwd=folder)).returncode == 0, done.stderr
    (run,) = all_runs(folder / "runs")
    for attempt in (1, 2):
        reached = max(steps_of(run), default=0)
        until(lambda: len(steps_of(run)) >= reached + 7)  # noqa: B023
        state = state_of(run)
        stopped = cli("cancel.py", run.path.name, cwd=folder)
        assert stopped.returncode == 0 and f"cancelled local job {state.job_id}" in stopped.stderr, stopped.stderr
        assert "is to save and leave, in 300 s at most" in stopped.stderr
        log = state.log.read_text()
        assert "stopping after step" in log and "Traceback" not in log and "ompleted successfully" not in log
        steps = steps_of(run)
        assert steps == list(range(1, steps[-1] + 1)) and (run.checkpoints / f"step_{steps[-1]:08d}/COMPLETE").exists()
        attempts = read_attempts(run)
        assert [a.repeated_steps for a in attempts] == [0] * attempt and attempts[-1].first_step == reached
        assert (state_of(run).state, state_of(run).active) == ("CANCELLED", False) and Dossier(run).state == "cancelled"
        assert process_birth(int(state.job_id)) is None
        if attempt == 1:
            assert cli("pretrain.py", *command, cwd=folder).returncode == 2
            assert cli("pretrain.py", *command, "--retry", cwd=folder).returncode == 0


def test_a_second_cancel_kills_what_does_not_answer(folder: Path) -> None:
    write_manifest(folder / "manifests/demo.csv")
    profile = write_stand_in_profile(folder, "sleep")
    sets = ["--set", "data.workers=0", "--set", "train.global_batch=16"]
    assert cli("pretrain.py", *LOCAL, *sets, "--profile", str(profile), cwd=folder).returncode == 0
    (run,) = all_runs(folder / "runs")
    state = state_of(run)
    until(lambda: state.log.exists() and "stand-in rank 0" in state.log.read_text())
    first = subprocess.Popen([sys.executable, str(ROOT / "jobs/cancel.py"), run.path.name], stderr=subprocess.PIPE, text=True)
    assert first.stderr and "kills it at once" in first.stderr.readline()
    time.sleep(1)
    assert state_of(run).state == "RUNNING" and first.poll() is None, "it is given time to save"
    second = cli("cancel.py", run.path.name, cwd=folder)
    assert second.returncode == 0 and f"killed local job {state.job_id}" in second.stderr
    assert process_birth(int(state.job_id)) is None and state_of(run).state == "CANCELLED"
    assert "Traceback" not in state.log.read_text() and first.wait(timeout=30) == 0


def control(array: RunFolder, *more: str, **env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "jobs.submit.local_array", str(array.path), *more], cwd=array.code,
                            env={**os.environ, "PYTHONPATH": str(array.code), **env})


def exit_code_of(folder: Path) -> int | None:
    return (read_json(folder / "exit.json") or {}).get("exit_code")


def test_a_cancelled_cell_of_a_local_array_loses_no_step(folder: Path) -> None:
    run = make_cell(folder / "runs/cell-aaaaaaaa", make_labelled(folder / "clips", train=4, val=2), "checkpoint.every_steps=90000",
                    "train.phases=[{duration: 100000 steps, lr: 1.0e-3}]")
    array = arrays.make_array(folder / "runs/arrays/a", [run])
    take_snapshot(array, CodeState(None, False))
    controller = control(array, "--fork", "--signal-delay-s", "60")
    submit = make_private_folder(array.submit / f"{controller.pid}_0")
    until(lambda: len(steps_of(run)) >= 3)
    (submit / "cancelled").touch()
    assert controller.wait(timeout=60) == 0 and exit_code_of(submit) == 130
    steps, log = steps_of(run), (submit / f"{controller.pid}_0_0_log.out").read_text()
    assert (run.checkpoints / f"step_{steps[-1]:08d}/COMPLETE").exists() and "Traceback" not in log, log


def test_a_cell_that_does_not_answer_is_killed_after_its_time_or_when_asked_again(folder: Path) -> None:
    runs = [RunFolder(make_private_folder(folder / f"runs/cell{i}-0000000{i}")) for i in range(2)]
    for run in runs:
        write_json(run.record, {"name": run.path.name, "cell": {}, "commit": None, "dirty": False, "submissions": []})
    array = arrays.make_array(folder / "runs/arrays/a", runs)
    take_snapshot(array, CodeState(None, False))
    (array.code / "vidmae/train/cell.py").write_text(CELL_STAND_IN)
    for delay_s, again in ((2, False), (300, True)):
        controller = control(array, "--fork", "--signal-delay-s", str(delay_s), SLEEPS="cell0")
        submit = make_private_folder(array.submit / f"{controller.pid}_0")
        until((submit / f"{controller.pid}_0_0_log.out").exists)
        time.sleep(0.5)
        (submit / "cancelled").touch()
        time.sleep(0.6)
        assert exit_code_of(submit) is None, "it is given time to save"
        if again:
            (submit / "cancelled").write_text("at once\n")
        assert controller.wait(timeout=60) == 0 and exit_code_of(submit) == 130
        assert exit_code_of(array.submit / f"{controller.pid}_1") == 0, "the other cell had its turn"


def test_a_job_of_another_machine_is_not_touched(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(make_private_folder(folder / "runs/a-12345678"))
    beat = {"schema": 1, "job_id": "7", "host": "elsewhere", "time": time.time()}
    write_json(run.record, {"submissions": [{"job_id": "7", "cluster": "local", "host": "elsewhere", "process_birth": 1}]})
    run.heartbeat.write_text(json.dumps(beat))
    assert cancel.main(["a-12345678"]) == 2
    assert "runs on elsewhere: cancel it there" in capsys.readouterr().err and not run.submit.exists()
