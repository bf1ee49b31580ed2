"""Who did not come: told from stacks, which real processes write while they hang."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from jobs.submit import recover
from vidmae.ranks.health.hang_report import read_stacks, report_hang, who_hangs
from vidmae.ranks.stack_file import StackFile
from vidmae.runs.record import RunFolder, read_json, write_json

WAITING = [("/home/x/vidmae/.venv/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", 2944, "all_reduce"),
           ("/runs/a/code/vidmae/ranks/dist.py", 64, "sum_tensor"), ("/runs/a/code/vidmae/ranks/engine.py", 187, "update")]
ON_A_GPU = [("/runs/a/code/vidmae/ranks/engine.py", 210, "_look"), ("/runs/a/code/vidmae/ranks/engine.py", 190, "update")]
READING = [("/usr/lib/python3.11/queue.py", 171, "get"), ("/runs/a/code/vidmae/clips/workers.py", 88, "read_ahead"),
           ("/runs/a/code/vidmae/train/trainer.py", 331, "train_step")]
BACKWARD = [("/env/lib/python3.11/site-packages/torch/autograd/graph.py", 865, "_engine_run_backward"),
            ("/runs/a/code/vidmae/ranks/engine.py", 168, "backward")]
READS = "vidmae/clips/workers.py line 88 in read_ahead (there queue.py line 171 in get)"
WAITS = "vidmae/ranks/dist.py line 64 in sum_tensor (there torch/distributed/distributed_c10d.py line 2944 in all_reduce)"


def thread(ident, frames, first="Thread"):
    lines = [f'  File "{path}", line {line} in {function}' for path, line, function in frames]
    return "\n".join([f"{first} 0x{ident:016x} (most recent call first):", *lines, "", ""])


@pytest.fixture
def run(tmp_path):
    found = RunFolder(tmp_path / "a-12345678")
    found.stacks.mkdir(parents=True)
    return found


def hang(run, *ranks, job="7", others=()):
    """Write each rank's main thread, or None for one that writes nothing; who hangs."""
    for rank, frames in enumerate(ranks):
        head = json.dumps({"rank": rank, "node": f"n{rank // 2}", "job_id": job, "pid": 1, "main_thread": 0x70 + rank})
        body = "" if frames is None else thread(0x99, others, "Current thread") + thread(0x70 + rank, frames)
        (run.stacks / f"rank_{rank:05d}.txt").write_text(f"{head}\n{body}")
    return who_hangs(read_stacks(run.stacks))


def test_the_rank_that_does_not_come_is_named_with_its_line(run):
    said, rank = hang(run, WAITING, WAITING, READING, WAITING, WAITING)
    assert said == f"rank 2 (node n1) did not come to where 4 ranks waited ({WAITS}), and stood at {READS}" and rank == 2


def test_a_rank_that_gives_no_sign_is_named(run):
    said, rank = hang(run, WAITING, None)
    why = "wrote nothing in time: stopped, its node is gone, or it was ended before its time"
    assert said == f"rank 1 (node n0) gave no sign any more ({why}), while rank 0 waited at {WAITS}"
    assert rank == 1
    assert hang(run, None, None) == ("", None), "they live, or were killed"
    assert hang(run, *[None] * 5, WAITING)[0].startswith("rank 0 (node n0), rank 1 (node n0), rank 2 (node n1) and 2 more gave")


def test_a_rank_that_was_stopped_and_woken_at_the_end_is_named(run):
    hang(run, WAITING, WAITING)
    late = run.stacks / "rank_00001.txt"
    os.utime(late, (late.stat().st_mtime + 2, late.stat().st_mtime + 2))
    said, rank = who_hangs(read_stacks(run.stacks))
    assert said.startswith("rank 1 (node n0) gave no sign any more") and said.endswith(f"while rank 0 waited at {WAITS}") and rank == 1


def test_the_host_that_waits_for_a_gpu_waits_for_the_ranks(run):
    said, rank = hang(run, ON_A_GPU, READING)
    assert said.startswith("rank 1 (node n0) did not come") and rank == 1
    said, rank = hang(run, ON_A_GPU, ON_A_GPU)
    assert said == "all ranks waited at vidmae/ranks/engine.py line 210 in _look: the exchange between them hangs, or a GPU does"
    assert rank is None


def test_hooks_of_the_backward_pass_wait_in_a_thread_of_their_own(run):
    hang(run, BACKWARD)
    assert [stack.waits for stack in read_stacks(run.stacks)] == [False]
    hang(run, BACKWARD, others=WAITING[:1])
    assert [stack.waits for stack in read_stacks(run.stacks)] == [True]
    hang(run, READING, others=WAITING[:1])
    assert [stack.waits for stack in read_stacks(run.stacks)] == [False], "what another thread does is its own affair"


def test_where_all_wait_the_odd_one_out_is_named(run):
    other = [WAITING[0], ("/runs/a/code/vidmae/ranks/dist.py", 55, "barrier")]
    said, rank = hang(run, WAITING, WAITING, WAITING, other)
    assert said.startswith("the ranks waited in different collectives: rank 3 (node n1) at vidmae/ranks/dist.py line 55") and rank == 3
    said, _ = hang(run, READING, READING, READING, READING)
    assert said == f"rank 0 (node n0), rank 1 (node n0), rank 2 (node n1) and 1 more hung, and no rank waited in a collective: {READS}"


def test_all_stacks_go_to_one_file_and_equal_ones_once(run):
    hang(run, WAITING, WAITING, READING, WAITING)
    said = report_hang(run, "7")
    text = run.hang.read_text()
    assert said in text.splitlines()[0] and text.count("in sum_tensor") == 1 + 1 and text.count("in read_ahead") == 1 + 1
    assert "=== rank 0 (node n0), 1 (node n0), 3 (node n1)\n" in text and "=== rank 2 (node n1)\n" in text
    assert not run.stacks.exists() and report_hang(run, "7") == ""
    failure = read_json(run.failure)
    assert (failure["kind"], failure["rank"], failure["error"]) == ("lost", 2, "Hang") and failure["message"].startswith(said)


def test_what_another_job_left_or_an_error_explains_is_not_overwritten(run):
    hang(run, WAITING, READING, job="6")
    assert report_hang(run, "7") == "" and not run.failure.exists()
    run.stacks.mkdir()
    hang(run, WAITING, READING)
    write_json(run.failure, {"job_id": "7", "kind": "error", "rank": 1, "error": "ValueError", "message": "the reason"})
    assert report_hang(run, "7") and read_json(run.failure)["message"] == "the reason"


@pytest.mark.parametrize(("code", "named"), [(1, True), (137, True), (75, False), (0, False)])
def test_the_end_of_a_job_names_it_and_is_requeued_all_the_same(run, monkeypatch, capsys, code, named):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    asked = []
    monkeypatch.setattr(recover, "requeue", lambda job, left_out: asked.append(job) or True)
    monkeypatch.setattr(recover.signal, "signal", lambda *_: None)
    hang(run, WAITING, READING)
    assert recover.main([str(run.path), str(code)]) == 0 and asked == ["7"]
    assert ("; rank 1 (node n0) did not come to" in capsys.readouterr().out) is named


def test_a_rank_that_goes_on_takes_back_what_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # no py-spy
    folder = tmp_path / "stacks"
    StackFile(folder, 0, 2).close()
    assert not folder.exists(), "no rank hung"
    folder.mkdir(mode=0o700)
    old = folder / "rank_00009.txt"
    old.write_text("of an attempt with more ranks")
    stacks = StackFile(folder, 0, 2)
    try:
        assert [p.name for p in folder.iterdir()] == ["rank_00000.txt"] and stat.S_IMODE(stacks.path.stat().st_mode) == 0o600
        stacks.expect_within(0.1)
        time.sleep(0.2)
        (stack,) = read_stacks(folder)
        assert stack.main[0].function == "test_a_rank_that_goes_on_takes_back_what_it_wrote"
        stacks.expect_within(60)
        assert read_stacks(folder)[0].text == ""
        assert 44 < signal.getitimer(signal.ITIMER_REAL)[0] <= 55, "five seconds before the limit"
    finally:
        stacks.close()
    assert not folder.exists() and signal.getitimer(signal.ITIMER_REAL)[0] == 0


HANGS = """
import sys
from pathlib import Path
from vidmae.ranks import watchdog
def holds_the_lock():
    sum(range(10**11))
watchdog.write_stacks_to(Path(sys.argv[1]), 1, 2)
watchdog.expect_within(1.0)
holds_the_lock()
"""
WAIT_SCRIPT = """
import sys, time
from pathlib import Path
sys.executable = sys.argv[2]
from vidmae.ranks.stack_file import StackFile
stacks = StackFile(Path(sys.argv[1]), 1, 2)
stacks.expect_within(0.1)
while "ncclAllReduce" not in stacks.path.read_text():
    time.sleep(0.05)
"""
SPY = """#!/bin/sh
[ "$*" = "dump --native --pid $PPID" ] && echo "Process $PPID: ncclAllReduce"
"""


def test_a_rank_that_holds_the_interpreter_lock_in_foreign_code_is_named_and_ended(tmp_path):
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", HANGS, str(tmp_path / "stacks")], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1 and "Timeout (0:00:01)!" in done.stderr and time.monotonic() - begun < 30
    (stack,) = read_stacks(tmp_path / "stacks")
    assert [frame.function for frame in stack.main] == ["holds_the_lock", "<module>"]


def test_py_spy_adds_what_it_sees_where_it_is_installed(tmp_path):
    (tmp_path / "py-spy").write_text(SPY)
    (tmp_path / "py-spy").chmod(0o700)
    command = [sys.executable, "-c", WAIT_SCRIPT, str(tmp_path / "stacks"), str(tmp_path / "python")]
    subprocess.run(command, check=True, timeout=50)
    (stack,) = read_stacks(tmp_path / "stacks")
    assert "\npy-spy:\nProcess " in stack.text and "ncclAllReduce" in stack.text and stack.main[0].function == "<module>"
