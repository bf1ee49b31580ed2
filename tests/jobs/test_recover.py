"""What becomes of a job whose ranks have left, and which nodes the run's next job avoids: decided from real run folders, asked
of programs that stand in for Slurm."""

import os
import subprocess
import sys
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest

from jobs.place.avoided import avoided
from jobs.place.profiles import ClusterProfile
from jobs.place.resources import Resources
from jobs.place.scheduler.slurm import NodeShape, Partition
from jobs.submit import watched
from jobs.submit.recover import judge
from jobs.submit.watched import is_worth_a_restart, run_watched
from tests.support.launching import ROOT
from vidmae.runs.attempts import Attempt
from vidmae.runs.nodes.left_out import leave_out_node
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json


@pytest.fixture
def run(tmp_path) -> RunFolder:
    found = RunFolder(make_private_folder(tmp_path / "runs" / "a-12345678"))
    make_private_folder(found.submit / "7")
    return found


def attempts(run, *steps, ended=""):
    made = [asdict(Attempt("7", i, 0.0, 1.0, first, last, ended=ended)) for i, (first, last) in enumerate(steps)]
    write_json(run.attempts, {"schema": 1, "attempts": made})


def failure(run, kind, job="7"):
    write_json(run.failure, {"schema": 1, "job_id": job, "rank": 1, "kind": kind, "error": "E", "message": "the reason"})


@pytest.mark.parametrize(("code", "restarts", "requeue", "exit_code"), [
    (75, 0, True, 0), (75, 19, True, 0), (75, 20, False, 75),  # saved and left
    (137, 0, True, 0), (1, 3, True, 0), (0, 0, True, 0),  # killed, hung, gone without a word
    (2, 0, False, 2),  # another job writes here
])
def test_what_the_exit_code_means(run, code, restarts, requeue, exit_code):
    verdict = judge(run, "7", code, restarts=restarts, max_requeues=20)
    assert (verdict.requeue, verdict.exit_code) == (requeue, exit_code), verdict


def test_a_run_that_is_done_ends_with_0_whatever_the_ranks_said(run):
    write_json(run.result, {})
    assert judge(run, "7", 1, restarts=0, max_requeues=20).exit_code == 0


def test_an_error_is_never_tried_again_and_a_lost_peer_is(run):
    failure(run, "error")
    verdict = judge(run, "7", 1, restarts=0, max_requeues=20)
    assert not verdict.requeue and verdict.exit_code == 1 and "rank 1 failed" in verdict.why and "the reason" in verdict.why
    failure(run, "lost")
    assert judge(run, "7", 1, restarts=0, max_requeues=20).requeue
    failure(run, "error", job="6")
    assert judge(run, "7", 1, restarts=0, max_requeues=20).requeue, "an older job's error is not this one's"


def test_a_cancelled_job_is_not_requeued(run):
    (run.submit / "7" / "cancelled").touch()
    verdict = judge(run, "7", 75, restarts=0, max_requeues=20)
    assert not verdict.requeue and verdict.exit_code == 75 and "cancelled" in verdict.why


def test_three_attempts_without_progress_are_enough(run):
    attempts(run, (10, 13), (10, 14), (10, 12))
    verdict = judge(run, "7", 137, restarts=3, max_requeues=20)
    assert not verdict.requeue and verdict.exit_code == 75 and "started at step 10" in verdict.why
    assert judge(run, "7", 75, restarts=3, max_requeues=20).requeue, "a stop by signal is no failure"
    attempts(run, (10, 13), (10, 14), (12, 13))
    assert judge(run, "7", 137, restarts=3, max_requeues=20).requeue
    attempts(run, (10, 13), (10, 14))
    assert judge(run, "7", 137, restarts=2, max_requeues=20).requeue


@pytest.mark.parametrize(("code", "again"), [(137, True), (1, True), (75, False), (2, False)])
def test_only_a_lost_rank_is_worth_a_restart_in_place(run, code, again):
    assert is_worth_a_restart(run, "7", code) == again


def test_what_a_requeue_would_not_help_is_not_restarted_in_place(run, monkeypatch):
    failure(run, "lost")
    assert is_worth_a_restart(run, "7", 1)
    failure(run, "error")
    assert not is_worth_a_restart(run, "7", 1), "its own error would come again"
    run.failure.unlink()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_out_node(run, "cn1", "matrix product at 40 % of the median")
    assert not is_worth_a_restart(run, "7", 137), "the job asks for other nodes"
    assert is_worth_a_restart(run, "7", 137, since=time.time() + 1), "this start of the job does without that node already"
    run.left_out.unlink()
    (run.submit / "7" / "cancelled").touch()
    assert not is_worth_a_restart(run, "7", 137)


@pytest.mark.parametrize("text", ["recovery: {restarts_in_place: -1}\n", "recovery: 3\n", "train: 3\n", "a: {b\n"])
def test_settings_that_are_wrong_are_left_to_the_program_which_records_them(run, monkeypatch, text):
    run.config.write_text(text)
    asked = []
    program = SimpleNamespace(main=lambda path: asked.append(path) or 2, load_before_fork=lambda _: pytest.fail("watched"))
    monkeypatch.setattr(watched, "importlib", SimpleNamespace(import_module=lambda _: program))
    assert run_watched("program", run, "7") == 2 and asked == [str(run.path)]


def test_three_attempts_in_place_without_progress_go_to_the_queue_and_count_as_one_there(run):
    def start(restart, *attempts_at):
        return [asdict(Attempt("7", restart, 0.0, 1.0, first)) for first in attempts_at]

    def ran(*starts):
        write_json(run.attempts, {"schema": 1, "attempts": [attempt for start in starts for attempt in start]})

    ran(start(0, 10, 10))
    assert is_worth_a_restart(run, "7", 137)
    ran(start(0, 10, 10, 10))
    assert not is_worth_a_restart(run, "7", 137) and judge(run, "7", 137, restarts=0, max_requeues=20).requeue
    ran(start(0, 10, 10, 10), start(1, 10))
    assert not is_worth_a_restart(run, "7", 137) and judge(run, "7", 137, restarts=1, max_requeues=20).requeue
    ran(start(0, 10, 10, 10), start(1, 10), start(2, 10))
    assert not judge(run, "7", 137, restarts=2, max_requeues=20).requeue
    ran(start(0, 10, 10, 10), start(1, 10), start(2, 10, 20))
    assert is_worth_a_restart(run, "7", 137) and judge(run, "7", 137, restarts=2, max_requeues=20).requeue


def recover(run, tmp_path, code, *, programs, restarts=0, **env):
    """Run the command as the batch script does, with these programs as Slurm."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run([sys.executable, "-m", "jobs.submit.recover", str(run.path), str(code), "--max-requeues", "20",
                           "--signal-delay-s", "300"], cwd=ROOT, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "PATH": path, "SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts),
                               "SLURM_JOB_NODELIST": "cn[1-2]", **env})


ANSWERS = {"squeue": "echo '7|RUNNING|1:00|2|a|cn[1-2]|x'", "sinfo": "echo 'cn1|idle'; echo 'cn2|down*'"}


def test_requeued_without_the_bad_node(run, tmp_path):
    calls = tmp_path / "calls"
    squeue = 'case "$*" in *%x*) echo "" ;; *) echo "7|RUNNING|1:00|2|a|cn[1-2]|x" ;; esac'
    done = recover(run, tmp_path, 137, programs={**ANSWERS, "squeue": squeue, "scontrol": f'echo "$*" >> {calls}'})
    assert done.returncode == 0 and "killed by signal 9" in done.stdout and "without cn2" in done.stdout, done.stdout
    assert calls.read_text().splitlines()[0] == "requeue 7" and "excnodelist=cn2" in calls.read_text()
    assert not run.failure.exists()


def test_requeued_without_the_nodes_that_the_job_left_out(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    leave_out_node(run, "cn9", "found by an earlier job")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_out_node(run, "cn1", "matrix product at 40 % of the median")
    calls = tmp_path / "calls"
    squeue = 'case "$*" in *%x*) echo "" ;; *) echo "7|RUNNING|1:00|2|a|cn[1-2]|x" ;; esac'
    done = recover(run, tmp_path, 75, programs={**ANSWERS, "squeue": squeue, "scontrol": f'echo "$*" >> {calls}'})
    assert "without cn2, cn1 (matrix product at 40 % of the median)" in done.stdout, done.stdout
    assert "excnodelist=cn2,cn1" in calls.read_text()


@pytest.mark.parametrize(("asked", "up", "said"), [
    ("", "cn1|idle\ncn2|idle\ncn3|alloc", ""),
    ("cn1", "cn1|idle\ncn2|idle\ncn3|alloc", "the job asks for cn1 by name (--nodelist)"),
    ("", "cn1|idle\ncn2|idle\ncn3|down*", "without cn1 partition gpu has 1 nodes that are up, and the job has 2")])
def test_a_node_is_kept_where_the_job_could_never_start_without_it(run, tmp_path, monkeypatch, asked, up, said):
    """A job that waits for ever is worse than one that starts on the node again, where the checks then refuse it."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_out_node(run, "cn1", "data.stage cannot be written")
    calls = tmp_path / "calls"
    squeue = f'case "$*" in *%x*) echo "" ;; *%n*) echo "{asked}" ;; *) echo "7|RUNNING|1:00|2|a|cn[1-2]|x" ;; esac'
    sinfo = f'case "$*" in *--partition=gpu*) printf "{up}" ;; *) echo "cn1|idle" ;; esac'
    scontrol = f'case "$*" in "show hostnames"*) echo "$3" ;; *) echo "$*" >> {calls} ;; esac'
    done = recover(run, tmp_path, 75, programs={"squeue": squeue, "sinfo": sinfo, "scontrol": scontrol}, SLURM_JOB_PARTITION="gpu",
                   SLURM_JOB_NUM_NODES="2")
    assert done.returncode == 0 and calls.read_text().splitlines()[0] == "requeue 7", done.stdout
    assert ("excnodelist=cn1" in calls.read_text()) == (not said)
    assert (f"warning: {said}; the job may start on cn1 again" if said else "without cn1 (data.stage cannot be written)") in done.stdout


def test_a_question_that_slurm_refuses_does_not_keep_a_job_from_its_requeue(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    leave_out_node(run, "cn1", "data.stage cannot be written")
    calls = tmp_path / "calls"
    squeue = ('case "$*" in *%x*) echo "" ;; *%n*) echo "Invalid format" >&2; exit 1 ;; '
              '*) echo "7|RUNNING|1:00|2|a|cn[1-2]|x" ;; esac')
    done = recover(run, tmp_path, 75, programs={**ANSWERS, "squeue": squeue, "scontrol": f'echo "$*" >> {calls}'})
    assert done.returncode == 0 and "requeue 7" in calls.read_text() and "excnodelist=cn1" not in calls.read_text(), done.stdout
    assert "warning: whether the job can do without cn2,cn1 is not known: " in done.stdout


def test_a_refused_requeue_ends_with_75_and_says_why(run, tmp_path):
    done = recover(run, tmp_path, 75, programs={**ANSWERS, "scontrol": "echo 'Requested operation is disabled' >&2; exit 1"})
    assert done.returncode == 75 and "--retry" in done.stdout, done.stdout
    assert read_json(run.failure)["kind"] == "stopped"


def test_a_controller_that_is_away_is_asked_again(run, tmp_path):
    flag = tmp_path / "asked"
    once = f"[ -e {flag} ] && exit 0; touch {flag}; echo 'Unable to contact slurm controller' >&2; exit 1"
    began = time.monotonic()
    done = recover(run, tmp_path, 75, programs={**ANSWERS, "sinfo": "true", "scontrol": once})
    assert done.returncode == 0 and "asking again in 1 s" in done.stdout and time.monotonic() - began < 30, done.stdout


def test_a_job_that_slurm_is_ending_is_left_to_it(run, tmp_path):
    done = recover(run, tmp_path, 75, programs={"squeue": "echo '7|COMPLETING|1:00|2|a|cn[1-2]|x'"})
    assert done.returncode == 0 and "by itself" in done.stdout and not run.failure.exists(), done.stdout


def test_a_delay_that_is_too_short_for_the_saves_is_said(run, tmp_path):
    write_json(run.attempts, {"schema": 1, "attempts": [asdict(Attempt("7", 0, 0.0, 1.0, slowest_save_s=260.0))]})
    done = recover(run, tmp_path, 2, programs={})
    assert done.returncode == 2 and "--signal-delay-s 300 is shorter than 60 s plus the slowest save, 260 s" in done.stdout


def test_a_start_that_left_a_checkpoint_is_no_start_without_progress(run):
    """A folder that somebody has renamed is no checkpoint, and disturbs nothing."""
    write_json(run.attempts, {"schema": 1, "attempts": [asdict(Attempt("7", restart, 0.0, 1.0, 10)) for restart in range(3)]})
    for name, requeue in (("step_00000010", False), ("step_00000020.old", False), ("step_00000020", True)):
        (run.checkpoints / name).mkdir(parents=True)
        (run.checkpoints / name / "COMPLETE").touch()
        assert judge(run, "7", 137, restarts=3, max_requeues=20).requeue is requeue, name


GPU = Partition("gpu", True, True, None, None, (NodeShape(8, 8, 64, 512000, 4),))


@pytest.fixture
def found_bad(run, monkeypatch):
    """A run that left cn1 out two days ago, and cn2 and cn3 an hour ago."""
    now = time.time()
    for node, hours in (("cn1", 48), ("cn2", 1), ("cn3", 1)):
        monkeypatch.setattr("time.time", lambda hours=hours: now - 3600 * hours)
        leave_out_node(run, node, f"{node} is slow")
    monkeypatch.setattr("time.time", lambda: now)
    return run


def asked(run, nodes=2, origins=None, partition=GPU, **profile):
    resources = Resources(partition="gpu", nodes=nodes, gpus_per_node=4, tasks_per_node=4, cpus_per_task=8, mem_mib=0, time_min=60,
                          signal_delay_s=300)
    return avoided([run], ClusterProfile(nodes=nodes, **profile), origins or {}, partition, resources)


def test_nodes_of_the_last_day_are_avoided_beside_those_of_exclude(found_bad):
    assert asked(found_bad).exclude == "cn2,cn3" and asked(found_bad, exclude="cn[7-8]").exclude == "cn[7-8],cn2,cn3"
    assert "cn2 (cn2 is slow), cn3 (cn3 is slow); the job avoids them" in asked(found_bad).said and "cn1" not in asked(found_bad).said


def test_an_empty_exclude_takes_them(found_bad):
    found = asked(found_bad, origins={"exclude": "--exclude"})
    assert found.exclude == "" and "--exclude '' takes them all the same" in found.said


def test_nodes_by_name_and_a_partition_without_others_come_first(found_bad):
    by_name = asked(found_bad, nodelist="cn[2-3]")
    assert by_name.exclude == "" and "--nodelist says which nodes it gets" in by_name.said
    assert asked(found_bad, nodes=6).exclude == "cn2,cn3"
    too_many = asked(found_bad, nodes=7)
    assert too_many.exclude == "" and "partition gpu has 6 others, and the job needs 7" in too_many.said


def test_nothing_is_said_of_a_run_that_left_out_nobody(found_bad, tmp_path):
    new = RunFolder(tmp_path / "new")
    assert (asked(new, exclude="cn9").exclude, asked(new).said) == ("cn9", "")
    assert asked(found_bad, partition=None, exclude="cn9") == asked(new, exclude="cn9")
