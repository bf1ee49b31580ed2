"""What is shared by programs that deal clips out to shards: the words of a shard, and what a launcher says of the last try."""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import cancel, logs, status
from jobs.place.resources import Resources
from jobs.place.scheduler.commands import SlurmError
from jobs.standing.runs import EXIT_RECORD, SUBMITTED
from jobs.standing.shard_runs import arrays_of
from jobs.submit.launch import Request, Shard
from jobs.submit.sharding import active_array, errors_before, submit_noted
from jobs.submit.shards_here import Work, command_of
from tests.support.launching import ROOT, write_program
from vidmae.ranks.shard_program import Say, parse_shard
from vidmae.runs.record import RunFolder, write_json


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "1/0", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not I/N with I from 0 to N - 1"):
        parse_shard(text)


def test_the_command_of_a_shard_is_one_that_the_program_takes(tmp_path):
    words = command_of(Work("vidmae.insight.embed", tmp_path, 3, "auto", 1), 2)
    assert words[1:] == ["-m", "vidmae.insight.embed", str(tmp_path), "--shard", "2/3"] and parse_shard(words[-1]) == (2, 3)


def test_progress_is_said_now_and_then_and_its_end_always(capsys):
    say = Say(60.0)
    for i in range(1, 10):
        say(f"{i}/9 clips")
    say("a line")
    say("more", now=True)
    assert capsys.readouterr().out.splitlines() == ["1/9 clips", "9/9 clips", "a line", "more"]
    Say(None)("nothing", now=True)
    assert capsys.readouterr().out == ""


def test_what_the_last_array_died_of_is_said_once(tmp_path):
    run = RunFolder(tmp_path)
    assert errors_before(tmp_path) == []
    write_json(tmp_path / SUBMITTED, {"submissions": [{"job_id": "12", "shards": 3}]})
    for number, text in enumerate(("3/9 clips\nerror: no such thing\n", "error: no such thing\nsrun: error: x\n")):
        (run.submit / f"12_{number}").mkdir(parents=True)
        (run.submit / f"12_{number}/12_{number}_0_log.out").write_text(text)
    assert errors_before(tmp_path) == ["array 12 ended before with: error: no such thing"]
    write_json(tmp_path / SUBMITTED, {"submissions": [{"job_id": None, "shards": 3}]})
    assert errors_before(tmp_path) == []


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output whose array 12 of three shards followed an array 7 of one; Slurm knows neither, until a test says more."""
    monkeypatch.chdir(tmp_path)
    for name in ("squeue", "sacct", "scancel"):
        write_program(tmp_path / "bin", name, "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    arrays = [{"job_id": "7", "shards": 1}, {"job_id": "12", "shards": 3}]
    write_json(tmp_path / SUBMITTED, {"submissions": [{**array, "cluster": "slurm", "job_name": "embed-out"} for array in arrays]})
    for job_id, text in {"7_0": "old\n", "12_0": "1/9 clips\n9/9 clips\nend\n", "12_1": "3/8 clips\nE\nvidmae.x.SomeError: y\n",
                         "12_2": ""}.items():
        (tmp_path / "submit" / job_id).mkdir(parents=True)
        (tmp_path / f"submit/{job_id}/{job_id}_0_log.out").write_text(text)
    return tmp_path


def test_shards_that_slurm_has_forgotten_are_told_by_what_they_left(out, capsys):
    for number, code in ((0, 0), (1, 1)):
        write_json(out / f"submit/12_{number}" / EXIT_RECORD, {"exit_code": code, "time": 1.0})
    assert status.main([str(out), "--json"]) == 0
    keys = ("job_id", "state", "source", "step", "total_steps")
    assert [tuple(json.loads(line)[key] for key in keys) for line in capsys.readouterr().out.splitlines()] == [
        ("12_0", "COMPLETED", EXIT_RECORD, 9, 9), ("12_1", "FAILED", EXIT_RECORD, 3, 8), ("12_2", "ENDED", "squeue: gone", None, None)]
    assert status.main(["."]) == 0
    table, said = capsys.readouterr()
    assert [line.split()[2] for line in table.splitlines()[1:]] == ["CD", "F", "END"] and "  9/9  " in table
    assert [line.partition(": ")[2] for line in said.splitlines()] == [
        "job 12_1 is FAILED (exit.json); vidmae.x.SomeError: y", "job 12_2 is ENDED (squeue: gone)"]


def test_the_result_of_all_shards_is_that_of_each(out, capsys):
    write_json(out / "result.json", {"clips": 17})
    assert status.main([str(out), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["state"], row["source"], row["step"]) for row in rows] == [("COMPLETED", "result.json", n) for n in (9, 3, None)]


@pytest.mark.parametrize(("given", "shown"), [([], "1/9 clips"), (["--job", "12_1"], "3/8 clips"), (["--job", "7_0"], "old")])
def test_the_log_of_the_first_shard_or_of_one_that_is_named(out, given, shown, capsys):
    assert logs.main([str(out), *given]) == 0
    assert capsys.readouterr().out.splitlines()[0] == shown


def test_a_log_of_no_shard(out, capsys):
    assert logs.main([str(out), "--job", "12_3"]) == 2
    assert "has no job 12_3; its jobs: 7_0, 12_0, 12_1, 12_2" in capsys.readouterr().err


def test_an_array_is_cancelled_by_its_output_and_what_cannot_be_known_is_no_cancel(out, capsys):
    assert cancel.main([str(out)]) == 0
    assert "nothing to cancel, 3 ENDED" in capsys.readouterr().err
    write_program(out / "bin", "scancel", f"echo \"$*\" >> '{out}/cancelled'")
    rows = "; ".join(f"echo '12_{i}|{state}|1:00|1|embed-out|cn1|{out}'"
                     for i, state in enumerate(("COMPLETED", "RUNNING", "PENDING")))
    write_program(out / "bin", "squeue", rows)
    assert cancel.main([str(out)]) == 0
    assert "cancelled 2 of 3 tasks of array 12" in capsys.readouterr().err
    assert (out / "cancelled").read_text().split() == ["12"]
    assert [(out / f"submit/12_{i}/cancelled").exists() for i in range(3)] == [False, True, True]
    for name in ("squeue", "sacct"):
        write_program(out / "bin", name, "echo no >&2; exit 1")
    assert cancel.main([str(out)]) == 4 and "is not known" in capsys.readouterr().err


def test_an_array_that_is_refused_is_not_noted_and_one_whose_id_was_lost_is_noted_later(out):
    before, entry = arrays_of(out), {"job_id": None, "cluster": "slurm", "job_name": "embed-out", "shards": 2}
    request = Request(RunFolder(out), "embed-out", Resources("", 1, 0, 1, 1, 100, 5), True, 0, tasks=2, recovers=False)
    write_program(out / "bin", "sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"refused the job: .*Invalid account"):
        submit_noted(Work("vidmae.insight.embed", out, 2, "cpu", 0), request, entry)
    assert arrays_of(out) == before and active_array(request) is None
    write_json(out / SUBMITTED, {"submissions": [*before, entry]})
    write_program(out / "bin", "squeue", "; ".join(
        f"echo '{job_id}|RUNNING|1:00|1|embed-out|cn1|{folder}'" for job_id, folder in (("13_0", "/other"), ("14_1", out))))
    assert active_array(request) == "14" and arrays_of(out) == [*before, {**entry, "job_id": "14"}]
    (out / "submit/14_1").mkdir()
    (out / "submit/14_1/cancelled").touch()
    assert active_array(request) is None, "it is just ending"


def test_a_folder_of_neither_a_run_nor_shards_is_refused(out, capsys):
    for verb in (status, logs, cancel):
        assert verb.main([str(out / "submit")]) == 2
        assert "submit has no run.json or submitted.json" in capsys.readouterr().err
    (out / SUBMITTED).write_text("{")
    assert status.main([str(out)]) == 2 and "submitted.json is damaged" in capsys.readouterr().err


def test_a_shard_whose_work_is_done_ends_before_torch_is_loaded(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "shard.pkl").write_bytes(pickle.dumps(Shard("vidmae.insight.embed", str(tmp_path), 0, 2)))
    program = "import pickle, sys; pickle.load(open('shard.pkl', 'rb'))(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=60)
    assert done.stdout.splitlines() == [f"done before: {tmp_path}", "False"], done.stderr
