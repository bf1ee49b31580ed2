"""What is shared by programs that deal clips out to shards: the words of a shard, and what a launcher says of the last try."""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.launch import Shard
from jobs.runs import SUBMITTED
from jobs.shards import errors_before
from jobs.shards_here import Work, command_of
from tests.launching import ROOT
from vidmae.record import RunFolder, write_json
from vidmae.shards import Say, parse_shard


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "1/0", "a/b", "1/2/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not I/N with I from 0 to N - 1"):
        parse_shard(text)


def test_the_command_of_a_shard_is_one_that_the_program_takes(tmp_path):
    words = command_of(Work("vidmae.embed", tmp_path, 3, "auto", 1), 2)
    assert words[1:] == ["-m", "vidmae.embed", str(tmp_path), "--shard", "2/3"] and parse_shard(words[-1]) == (2, 3)


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


def test_a_shard_whose_work_is_done_ends_before_torch_is_loaded(tmp_path: Path):
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "shard.pkl").write_bytes(pickle.dumps(Shard("vidmae.embed", str(tmp_path), 0, 2)))
    program = "import pickle, sys; pickle.load(open('shard.pkl', 'rb'))(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True,
                          text=True, timeout=60)
    assert done.stdout.splitlines() == [f"done before: {tmp_path}", "False"], done.stderr
