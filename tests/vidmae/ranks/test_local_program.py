"""A program that a command line starts on this machine."""

from __future__ import annotations

import io
import os
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from analysis import attention, collect
from jobs import evaluate
from tests.support.labelled import write_labelled
from vidmae.ranks.local_program import progress, refuse_other_folder, run_program
from vidmae.settings.layers import ConfigError


@pytest.mark.parametrize(("asked", "workers"), [("", 1), ("", 1000), ("7", 1)])
def test_torch_gets_the_cores_that_the_readers_leave_unless_the_user_says_otherwise(asked, workers, tmp_path, monkeypatch):
    (tmp_path / "say_threads.py").write_text("import os\nprint(os.environ['OMP_NUM_THREADS'], 'threads')\nraise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    shown = Console(file=io.StringIO())
    assert run_program("say_threads", [], shown, "clips", workers=workers) == 3
    cores = len(os.sched_getaffinity(0))
    assert shown.file.getvalue() == f"{asked or max(1, cores - workers)} threads\n"


def test_a_first_line_that_comes_late_is_shown_without_a_rate(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("vidmae.ranks.local_program.time", SimpleNamespace(monotonic=lambda: now[0]))
    with progress(Console(file=io.StringIO()), "clips") as show:
        for now[0], done in ((60.0, 1), (61.0, 2), (80.0, 11)):  # a model that loads for a minute
            show(done, 21)
    assert capsys.readouterr().err == "1/21 clips\n11/21 clips, 0.5 a second, about 0:00:20 left\n"


FOLDERS = {"runs": "runs/a-12345678/run.json", "runs/a-12345678": "runs/a-12345678/run.json",
           "manifests": "manifests/s.unreadable.csv", "copy": "copy/pyproject.toml"}


@pytest.mark.parametrize(("program", "out"), [
    *((program, out) for program in (attention, evaluate, collect) for out in FOLDERS),
    (attention, "photos"), (evaluate, "photos")])  # tables may lie beside other files
def test_results_go_into_no_folder_that_is_something_else(program, out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_labelled(tmp_path / "data")
    there = tmp_path / FOLDERS.get(out, "photos/me.png")
    there.parent.mkdir(parents=True)
    there.write_text("{}")
    (tmp_path / "say.pth").write_bytes(b"weights")
    before = sorted(tmp_path.rglob("*"))
    data = {attention: ["--weights", "say.pth", "--videos", "data/toys.csv"],
            evaluate: ["--weights", "say.pth", "--data", "data/toys.csv"], collect: ["runs"]}[program]
    try:
        code = program.main([*data, "--out", out])
    except SystemExit as error:
        code = error.code
    assert code == 2 and re.search(f"--out:? .*{out} (is|holds other files)", capsys.readouterr().err)
    assert sorted(tmp_path.rglob("*")) == before


def test_results_go_into_a_new_folder_an_empty_one_or_their_own(tmp_path):
    refuse_other_folder(tmp_path / "new")
    refuse_other_folder(tmp_path)
    (tmp_path / "videos.unreadable.csv").touch()  # what a call left that was stopped before its work
    (tmp_path / "runs").mkdir()
    with pytest.raises(ConfigError, match="holds other files"):
        refuse_other_folder(tmp_path)
    (tmp_path / "config.yaml").touch()
    refuse_other_folder(tmp_path)
