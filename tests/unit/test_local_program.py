"""A program that a command line starts on this machine."""

from __future__ import annotations

import io
import os

import pytest
from rich.console import Console

from vidmae.local_program import run_program


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
