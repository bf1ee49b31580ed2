"""Atomic records and the one-writer lock, with real processes."""

import json
import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from vidmae.runs import record
from vidmae.runs.record import (
    RunFolder,
    RunLockedError,
    locked,
    make_private_folder,
    port_of_job,
    read_json,
    signature,
    write_json,
)

HOLD = """
import sys, time
from pathlib import Path
from vidmae.runs.record import RunFolder, locked
with locked(RunFolder(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder(make_private_folder(tmp_path / "runs" / "x"))


def holder_process(run: RunFolder, job: str = "7") -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(run.path)], stdout=subprocess.PIPE, text=True,
                               env={**os.environ, "VIDMAE_JOB_ID": job})
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_folders_are_private_and_records_whole(run):
    assert stat.S_IMODE(run.path.stat().st_mode) == 0o700 and stat.S_IMODE(run.path.parent.stat().st_mode) == 0o700
    write_json(run.result, {"a": 1})
    write_json(run.result, {"a": 2})
    assert read_json(run.result) == {"a": 2} and stat.S_IMODE(run.result.stat().st_mode) == 0o600
    assert [p.name for p in run.path.iterdir()] == ["result.json"]
    with pytest.raises(ValueError, match="JSON"):
        write_json(run.result, {"a": float("nan")})
    assert read_json(run.result) == {"a": 2}, "a refused write must leave the old record"


def test_damaged_records_are_named(run):
    run.result.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        read_json(run.result)
    assert read_json(run.path / "none.json") is None


def test_signature_depends_on_kind_settings_and_data_alone():
    a = signature("pretrain", {"x": 1, "y": [2, 3]}, "d")
    assert a == signature("pretrain", {"y": [2, 3], "x": 1}, "d") and len(a) == 8
    assert len({a, signature("finetune", {"x": 1, "y": [2, 3]}, "d"), signature("pretrain", {"x": 2, "y": [2, 3]}, "d"),
                signature("pretrain", {"x": 1, "y": [2, 3]}, "e")}) == 4


def test_a_second_writer_is_refused_and_a_dead_one_replaced(run, monkeypatch):
    monkeypatch.setenv("VIDMAE_JOB_ID", "8")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    process = holder_process(run)
    try:
        said = rf"written by job 7 \(host {socket.gethostname()}.*cancel\.py"
        with pytest.raises(RunLockedError, match=said), locked(run):
            pytest.fail("two writers")
    finally:
        process.kill()
        process.wait()
    assert run.lock.exists(), "a killed holder leaves its lock"
    with locked(run):
        assert json.loads(run.lock.read_text())["job_id"] == "8"
    assert not run.lock.exists()


def test_a_killed_holder_that_nobody_has_waited_for_holds_nothing(run):
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still in the table of processes
    write_json(run.lock, {"schema": 1, "job_id": "9", "host": socket.gethostname(), "pid": process.pid, "time": time.time()})
    with locked(run):
        os.kill(process.pid, 0)
    process.wait()


def test_a_lock_of_another_host_counts_until_its_signs_of_life_end(run):
    other = {"schema": 1, "job_id": "9", "host": "elsewhere", "pid": 1, "time": time.time() - 30}
    write_json(run.lock, other)
    with pytest.raises(RunLockedError, match="job 9"), locked(run):
        pytest.fail("two writers")
    write_json(run.lock, {**other, "time": time.time() - record.STALE_LOCK_S - 1})
    write_json(run.heartbeat, {})
    with pytest.raises(RunLockedError, match="job 9"), locked(run):
        pytest.fail("its heart still beats")
    os.utime(run.heartbeat, (0, 0))
    with locked(run):
        pass


def test_a_requeued_job_takes_its_own_lock_back(run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    write_json(run.lock, {"schema": 1, "job_id": "9", "host": "elsewhere", "pid": 1, "time": time.time()})
    with locked(run):
        pass


def test_of_many_that_start_at_once_one_wins(run):
    code = HOLD.replace("time.sleep(60)", "time.sleep(6)")
    many = [subprocess.Popen([sys.executable, "-c", code, str(run.path)], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env={**os.environ, "VIDMAE_JOB_ID": str(i)}) for i in range(6)]
    outputs = [p.communicate(timeout=60) for p in many]
    assert sorted(out for out, _ in outputs) == [""] * 5 + ["held\n"]
    assert sum("RunLockedError" in err for _, err in outputs) == 5


def test_ports_differ_for_neighbouring_jobs_and_keep_off_the_kernels_range():
    ports = [port_of_job(str(job)) for job in range(81000, 101000)]
    assert len(set(ports)) == len(ports) and min(ports) >= 1024 and max(ports) < 32768
    assert port_of_job("123_4") != port_of_job("123_5")
