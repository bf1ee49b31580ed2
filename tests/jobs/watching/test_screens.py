"""The interface, with keys pressed and lines of the screen read (textual's pilot): what it shows, and what it does not do unasked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from textual.pilot import Pilot

from jobs.place.launch_flags import masked_argv
from jobs.standing.runs import all_runs
from jobs.watching.acting import cancel_listed, retry_of, run_in_terminal, to_cancel
from jobs.watching.screens import watch_app
from jobs.watching.screens.watch_app import WatchApp
from jobs.watching.seen_runs import Seen, Watcher
from tests.jobs.watching.made_runs import Made, make_array, make_pretraining, make_slurm, write, write_log
from tests.support.launching import write_program
from vidmae.runs.record import RunFolder

ARRAY = "20261128T100000-fewshot-9000"
Script = Callable[[WatchApp, Pilot[int]], Awaitable[None]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Four pretraining runs and an array of five cells, and a Slurm that knows their jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(watch_app, "TOLD_S", 600.0)  # a busy machine may draw seldom
    now = time.time()
    found = [make_pretraining(tmp_path / "runs", n, kind, now=now) for n, kind in enumerate(("running", "waiting", "failed", "done"))]
    cells = make_array(tmp_path / "runs", 9000, ["running", "waiting", "failed", "done", "failed"], now=now)
    make_slurm(tmp_path / "bin", [*found, *cells], {m.name: ARRAY for m in cells})
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    return [*found, *cells]


def watched(tmp_path: Path) -> Watcher:
    return Watcher(lambda: all_runs(tmp_path / "runs"))


def seen_of(tmp_path: Path) -> dict[str, Seen]:
    return {one.name: one for one in watched(tmp_path).look().seen}


def text_of(app: WatchApp) -> str:
    """What stands on the screen."""
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in app.screen._compositor.render_strips())


async def shown(app: WatchApp, pilot: Pilot[int], *words: str, gone: str = "") -> str:
    """The screen, once all words stand on it and another one no more."""
    deadline = time.monotonic() + 120
    while True:
        await pilot.pause()
        text = text_of(app)
        if all(word in text for word in words) and not (gone and gone in text):
            return text
        assert time.monotonic() < deadline, f"{words} do not stand there:\n{text}"
        await asyncio.sleep(0.02)


def play(tmp_path: Path, script: Script, *, size: tuple[int, int] = (170, 40), every_s: float = 60.0,
         run: Callable[[Sequence[str], Path], int] = run_in_terminal) -> WatchApp:
    """Run the interface without a terminal, and press keys."""
    app = WatchApp(watched(tmp_path), "vidmae watch  runs", every_s, run=run)

    async def main() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await shown(app, pilot, "9 runs: ", "5001  11-30 10:00")
            await script(app, pilot)

    asyncio.run(main())
    return app


def cancelled(tmp_path: Path) -> list[str]:
    path = tmp_path / "bin/scancel.calls"
    return path.read_text().splitlines() if path.exists() else []


def test_what_it_shows(made: list[Made], tmp_path: Path) -> None:
    log = tmp_path / "runs" / made[0].name / "submit/5000/5000_0_log.out"

    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        text = await shown(app, pilot, "step 400/1000  loss 0.5582")
        assert "9 runs: 2 running, 2 waiting, 2 done, 3 over without a result  [active first]" in text
        row = next(line for line in text.splitlines() if line.startswith(made[0].name))
        assert row.split()[1:4] == ["R", "400/1000", "0.5582"] and "█▇" in row and "5000" in row
        assert "clips/s 300, waiting 3%, MFU 41%, GiB 61.5, goodput 94%, last sign of life" in text
        assert f"▸ {ARRAY}, 5 cells, 2 failed" in text and "job 5000  RUNNING (squeue)  2:13:20  cn[1-8]" in text
        assert made[4].name not in text, "it is folded away"
        await pilot.press("down", "enter")
        text = await shown(app, pilot, f"▾ {ARRAY}", f"  {made[4].name[:20]}", "5 cells: 1 running, 1 waiting")
        await pilot.press("enter", "end")
        await shown(app, pilot, f"─ {made[3].name} ─", "loss 0.9833", gone=made[4].name[:20])
        await pilot.press("slash", *"5002")
        text = await shown(app, pilot, "only: 5002", f"─ {made[2].name} ─", "rank 3: ValueError: asked to", gone=made[0].name)
        await pilot.press("enter", "s")
        await shown(app, pilot, "[newest]")
        await pilot.press("escape", "question_mark")
        await shown(app, pilot, "the next order", gone="only:")
        await pilot.press("escape", "home", "l")
        await shown(app, pilot, f"{made[0].name}, job 5000, rank 0", "step 400/1000  loss 0.5582", gone="9 runs")
        with log.open("a") as f:
            f.write("a \x1b[31mnew\x1b[0m line\n")
        await shown(app, pilot, "a new line")
        await pilot.press("q")
        await shown(app, pilot, "9 runs: ")
        await pilot.press("q")

    assert play(tmp_path, script).return_value == 0


def test_small_terminals(made: list[Made], tmp_path: Path) -> None:
    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        await pilot.resize_terminal(80, 24)
        text = await shown(app, pilot, "job 5000", gone="queue: job")
        head = next(line for line in text.splitlines() if line.startswith("NAME"))
        assert head.split()[1:4] == ["ST", "STEP/TOTAL", "RESULT"] and "GIB" not in head
        await pilot.resize_terminal(80, 12)
        await shown(app, pilot, made[0].name, gone="job 5000")
        await pilot.press("ctrl+c")

    assert play(tmp_path, script).return_value == 130


def test_nothing_is_cancelled_before_it_was_listed_and_confirmed(made: list[Made], tmp_path: Path) -> None:
    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        for no in ("n", "escape", "q", "enter"):
            await pilot.press("c")
            await shown(app, pilot, "Cancel 1 job?", f"{made[0].name}  job 5000  RUNNING cn[1-8]")
            await pilot.press(no)
            await shown(app, pilot, gone="Cancel 1 job?")
        assert cancelled(tmp_path) == []
        await pilot.press("end", "c")  # a run that is done
        await shown(app, pilot, "there is nothing to cancel")
        assert cancelled(tmp_path) == []
        await pilot.press("home", "c")
        await shown(app, pilot, "Cancel 1 job?")
        await pilot.press("y")
        await shown(app, pilot, "cancelled Slurm job 5000")
        assert cancelled(tmp_path) == ["5000"] and (tmp_path / "runs" / made[0].name / "submit/5000/cancelled").exists()
        await pilot.press("down", "c")
        text = await shown(app, pilot, "Cancel these 2 jobs?", f"{made[4].name}  job 9000_0", f"{made[5].name}  job 9000_1")
        assert not any(f"job {m.job_id} " in text for m in made[6:])
        await pilot.press("y")
        await shown(app, pilot, "cancelled 2 of 2 tasks of array 9000")
        assert cancelled(tmp_path) == ["5000", "9000"]

    assert play(tmp_path, script).busy == 0


def test_only_what_a_filter_shows_is_cancelled(made: list[Made], tmp_path: Path) -> None:
    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        await pilot.press("slash", *"shot pd", "enter")
        await shown(app, pilot, "only: shot pd", f"─ {made[5].name} ─")
        await pilot.press("c")
        await shown(app, pilot, "Cancel 1 job?", f"{made[5].name}  job 9000_1  PENDING")
        await pilot.press("y")
        await shown(app, pilot, "cancelled Slurm job 9000_1")

    play(tmp_path, script)
    assert cancelled(tmp_path) == ["9000_1"]


def test_a_job_that_changed_since_it_was_listed_is_left_alone(made: list[Made], tmp_path: Path) -> None:
    listed = to_cancel(list(seen_of(tmp_path).values()))
    assert sorted(state.job_id for state in listed) == ["5000", "5001", "9000_0", "9000_1"]
    record = tmp_path / "runs" / made[0].name / "run.json"
    run = json.loads(record.read_text())
    run["submissions"].append({**run["submissions"][0], "job_id": "5001", "job_name": made[1].name})  # another job, which is active
    write(record, run)
    write(tmp_path / "runs" / made[1].name / "result.json", {"steps": 1000, "last_loss": 0.5})
    said = cancel_listed([state for state in listed if state.job_id in ("5000", "5001")], whole_array=False)
    assert said == ([f"{made[0].name}: left alone, job 5001 is PENDING", f"{made[1].name}: left alone, job 5001 is COMPLETED"], True)
    assert cancelled(tmp_path) == []
    cells = [state for state in listed if state.job_id.startswith("9000")]
    write_program(tmp_path / "bin", "scancel", "case $1 in 9000_1) echo 'error: Access denied' >&2; exit 1;; esac")
    said, done = cancel_listed(cells, whole_array=False)
    assert not done and said[0].startswith(f"{made[4].name}: cancelled Slurm job 9000_0") and "Access denied" in said[1]


def test_a_command_is_shown_and_runs_only_when_confirmed(made: list[Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, Path]] = []

    def run(words: Sequence[str], folder: Path) -> int:
        ran.append((" ".join(words), folder))
        return 3

    monkeypatch.setattr(WatchApp, "suspend", lambda self: contextlib.nullcontext())
    monkeypatch.setenv("PAGER", "cat -v")
    wanted = "python jobs/pretrain.py --nodes 8 --partition gpu --set seed=2 --retry"

    async def script(app: WatchApp, pilot: Pilot[int]) -> None:
        await pilot.press("r")
        await shown(app, pilot, "Not from here: job 5000 is RUNNING; there is nothing to retry.")
        await pilot.press("y", "escape", "end", "up", "r")
        await shown(app, pilot, "Run this command?", wanted)
        await pilot.press("n", "r")
        await shown(app, pilot, wanted)
        assert ran == []
        await pilot.press("y")
        await shown(app, pilot, gone="Run this command?")
        assert ran == [(wanted, tmp_path)]
        await pilot.press("p")
        await pilot.pause()
        assert ran[1:] == [(f"cat -v {tmp_path}/runs/{made[2].name}/submit/5002/5002_0_log.out", tmp_path)]

    play(tmp_path, script, run=run)


def test_the_command_that_continues_a_run(made: list[Made], tmp_path: Path) -> None:
    seen = seen_of(tmp_path)
    failed, cell = seen[made[2].name], seen[made[6].name]

    def typed(one: Seen, *command: str, **more: object) -> str:
        changed = replace(one, submission={**one.submission, "command": ["python", *command], **more})
        retry = retry_of(changed, [*seen.values(), changed], tmp_path)
        return retry.problem or retry.text

    assert typed(failed, "jobs/pretrain.py", "--wait", "--retry", "--follow", "--set", "lr=1") == "python jobs/pretrain.py --set lr=1 --retry"
    assert typed(cell, "sweeps/fewshot.py", "--retry", "failed", "--watch", "--shots", "10") == "python sweeps/fewshot.py --shots 10 --retry all"
    assert typed(cell, "sweeps/fewshot.py", "--retry=oom", "--retry") == "python sweeps/fewshot.py --retry all"
    assert typed(failed, "jobs/pretrain.py", "--sbatch", "token=***").startswith("its record leaves secrets out")
    told = masked_argv(["--notify", "webhook:https://hooks.example/x", "--fewshot", "--notify mail --time 1"])
    assert all(typed(failed, "jobs/pretrain.py", *words).startswith("its record leaves secrets out") for words in (told[:1], told[1:]))
    assert typed(failed, "jobs/gone.py").startswith("/") and "has no python jobs/gone.py" in typed(failed, "jobs/gone.py")
    assert "finds another folder of runs than" in typed(failed, "jobs/pretrain.py", "--runs-dir", "elsewhere")
    assert typed(failed, "jobs/pretrain.py", f"--runs-dir={tmp_path}/runs").startswith("python")
    assert "its job ran on elsewhere" in typed(replace(failed, state=replace(failed.state, cluster="local")), "jobs/pretrain.py", host="elsewhere")
    assert retry_of(replace(failed, submission={}), [], tmp_path).problem.startswith("its record has no command")
    assert retry_of(seen[made[3].name], [], tmp_path).problem == "the run is done; there is nothing to retry"
    also = retry_of(cell, list(seen.values()), tmp_path)
    assert also.also == (made[8].name,) and also.problem == "" and retry_of(failed, list(seen.values()), tmp_path).also == ()


def test_a_command_in_the_foreground(tmp_path: Path) -> None:
    assert run_in_terminal(["sh", "-c", "pwd > here; kill -INT $$; exit 7"], tmp_path) != 7, "Ctrl-C reaches the command"
    assert (tmp_path / "here").read_text().strip() == str(tmp_path)
    assert run_in_terminal(["sh", "-c", "exit 7"], tmp_path) == 7


def test_a_local_job_is_told_apart(made: list[Made], tmp_path: Path) -> None:
    """A job on this machine whose process is gone, in one list with those of Slurm; its run has no log yet."""
    run = make_pretraining(tmp_path / "runs", 77, "waiting", now=time.time(), cluster="local")
    record = tmp_path / "runs" / run.name / "run.json"
    said = json.loads(record.read_text())
    said["submissions"][0] |= {"host": socket.gethostname(), "process_birth": -1}
    write(record, said)
    one = seen_of(tmp_path)[run.name]
    assert (one.state.state, one.state.source, one.state.active) == ("ENDED", "process: gone", False)
    write_log(RunFolder(tmp_path / "runs" / run.name).path, run.job_id, ["x"])
    assert one.state.log.read_text() == "x\n"
