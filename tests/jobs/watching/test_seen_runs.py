"""Looking at many runs again and again: rows as those of `status`, what is read and asked anew, curves, plain lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from jobs import status, watch
from jobs.place.scheduler import commands
from jobs.standing.follow import Tail
from jobs.standing.runs import all_runs
from jobs.watching import plain
from jobs.watching.background import Looks, plain_text
from jobs.watching.curve import newest_line, sampled_losses, sparkline
from jobs.watching.lines import COLUMNS, SORTS, chosen_columns, lines_of, straggler_of, texts
from jobs.watching.seen_runs import Picture, Seen, Watcher
from tests.jobs.watching.made_runs import STEPS, Made, loss_at, make_array, make_pretraining, make_slurm, metrics_line, write
from tests.support.launching import write_program
from vidmae.ranks.health.stragglers import EXCHANGES, WAITS, Slow

ARRAY = "20261128T100000-fewshot-9000"


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Made]:
    """Four pretraining runs and an array of five cells, whose folders changed an hour ago, and a Slurm that knows their jobs."""
    monkeypatch.chdir(tmp_path)
    now = time.time()
    found = [make_pretraining(tmp_path / "runs", n, kind, now=now) for n, kind in enumerate(("running", "waiting", "failed", "done"))]
    cells = make_array(tmp_path / "runs", 9000, ["running", "waiting", "failed", "done", "done"], now=now)
    make_slurm(tmp_path / "bin", [*found, *cells], {m.name: ARRAY for m in cells})
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}/usr/bin{os.pathsep}/bin")
    for path in (tmp_path / "runs").iterdir():
        os.utime(path, (now - 3600, now - 3600))
    return [*found, *cells]


@pytest.fixture
def watcher(made: list[Made], tmp_path: Path) -> Watcher:
    return Watcher(lambda: all_runs(tmp_path / "runs"))


def asked(tmp_path: Path) -> list[str]:
    """What squeue was asked of the states of jobs since the last call."""
    path = tmp_path / "bin/squeue.calls"
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.partition("--jobs=")[2] for line in lines if "--jobs=" in line]


def by_name(picture: Picture) -> dict[str, Seen]:
    return {one.name: one for one in picture.seen}


def test_rows_are_those_of_status(made: list[Made], watcher: Watcher, capsys: pytest.CaptureFixture[str]) -> None:
    picture = watcher.look()
    assert status.main(["--json"]) == 0
    told = {record["run"]: record for record in map(json.loads, capsys.readouterr().out.splitlines())}
    assert status.main([]) == 0
    rows = {line.split()[1]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    lines = {line.key: line for line in lines_of(picture.seen, opened={ARRAY})}
    assert set(lines) == {*told, ARRAY} and set(told) == {m.name for m in made}
    for m in made:
        cells, record = dict(zip(COLUMNS, lines[m.name].cells, strict=True)), told[m.name]
        assert cells["JOBID"] == record["job_id"] == m.job_id and cells["ST"] == {"running": "R", "waiting": "PD", "failed": "F", "done": "CD"}[m.kind]
        assert cells["NAME"].strip() == m.name and cells["ST"] == rows[m.name][2]
        step = "-" if m.kind == "waiting" else f"{record['step']}/{record['total_steps']}"
        assert cells["STEP/TOTAL"] == step == rows[m.name][5] and step in ("-", f"400/{STEPS}", f"500/{STEPS}", f"{STEPS}/{STEPS}")
        assert cells["RESULT"] == ("-" if m.kind == "waiting" else f"{m.loss:.4f}")
    running = dict(zip(COLUMNS, lines[made[0].name].cells, strict=True))
    assert (running["CLIPS/S"], running["MFU"], running["GIB"], running["WAIT"], running["GOOD"]) == ("300", "41%", "61.5", "3%", "94%")
    array = dict(zip(COLUMNS, lines[ARRAY].cells, strict=True))
    assert array["NAME"] == f"▾ {ARRAY}, 5 cells, 1 failed" and array["STEP/TOTAL"] == "2/5 done" and array["RESULT"] == "33.5 %"
    assert [job.id for job in picture.queue] == ["5001", "9000_1"] and picture.queue[0].start == "2026-11-30T10:00:00"


def test_a_second_look_reads_and_asks_only_what_may_have_changed(made: list[Made], watcher: Watcher, tmp_path: Path) -> None:
    assert watcher.look().read == len(made) and asked(tmp_path) == ["5000,5001,5002,5003,9000"]
    again = watcher.look()
    assert again.read == 4 and asked(tmp_path) == ["5000,5001,9000"], "two runs and two cells are active"
    failed = tmp_path / "runs" / made[2].name
    os.utime(failed, (time.time() - 1800,) * 2)  # a record was written there
    write(failed / "failure.json", {"job_id": "5002", "rank": 1, "error": "OSError", "message": "another word"})
    assert watcher.look().read == 5 and asked(tmp_path) == ["5000,5001,5002,9000"]
    beat = tmp_path / "runs" / made[0].name / "heartbeat.json"
    write(beat, json.loads(beat.read_text()) | {"step": 777})
    assert by_name(watcher.look())[made[0].name].record["step"] == 777
    write(tmp_path / "runs" / made[1].name / "result.json", {"steps": STEPS, "last_loss": 0.125})
    os.utime(tmp_path / "runs" / made[1].name, (time.time() - 1800,) * 2)
    assert by_name(watcher.look())[made[1].name].row[6] == "0.1250"


def test_a_run_that_is_over_is_asked_about_once_a_minute(made: list[Made], watcher: Watcher, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    watcher.look()
    asked(tmp_path)
    monkeypatch.setattr("jobs.watching.seen_runs.REASK_S", 0.0)
    watcher.look()
    assert asked(tmp_path) == ["5000,5001,5002,9000"], "all but the one that has a result"


def test_a_run_that_was_only_looked_at_is_asked_about_at_once(made: list[Made], watcher: Watcher, tmp_path: Path) -> None:
    squeue = tmp_path / "bin/squeue.txt"
    running = next(line for line in squeue.read_text().splitlines() if line.startswith("5000"))
    squeue.write_text(squeue.read_text() + running.replace("5000", "5002").replace(made[0].name, made[2].name) + "\n")
    assert by_name(watcher.look(ask=False))[made[2].name].state.state == "FAILED"
    assert by_name(watcher.look())[made[2].name].state.state == "RUNNING", "its job was requeued"


def test_a_cluster_without_accounting_is_not_away(made: list[Made], watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  ) -> None:
    monkeypatch.setattr(commands, "PAUSES_S", ())
    write_program(tmp_path / "bin", "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    picture = watcher.look()
    assert not picture.away and [job.id for job in picture.queue] == ["5001", "9000_1"]
    assert "accounting storage is disabled" in picture.notes[0]


def test_a_log_that_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("one\ntwo\nhal")
    tail = Tail(path)
    assert tail.lines() == ["one", "two"]
    path.write_text("new\n")
    assert tail.lines() == ["new"] and tail.lines() == []


def test_plain_lines_ask_a_silent_slurm_ever_more_seldom(made: list[Made], watcher: Watcher, capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def look(*, ask: bool = True) -> Picture:
        if len(pauses) == 2:
            raise FileNotFoundError("a run was removed")
        return Picture(time_s=1.0, away=True)

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watcher, "look", look)
    with pytest.raises(KeyboardInterrupt):
        plain.show_plain(watcher, 5.0, pause=pause)
    assert pauses == [10.0, 20.0, 40.0] and "note: a run was removed" in capsys.readouterr().err


def test_runs_come_go_and_break(made: list[Made], watcher: Watcher, tmp_path: Path) -> None:
    assert len(watcher.look().seen) == 9
    (tmp_path / "runs" / made[2].name / "run.json").unlink()
    make_pretraining(tmp_path / "runs", 44, "waiting", now=time.time())
    (tmp_path / "runs" / made[0].name / "heartbeat.json").write_text("{")
    picture = watcher.look()
    assert len(picture.seen) == 9 and made[2].name not in by_name(picture) and "say-vith14-0000002c" in by_name(picture)
    assert by_name(picture)[made[0].name].record["step"] is None, "it is just being written"
    (tmp_path / "runs" / made[3].name / "result.json").write_text("[]")
    os.utime(tmp_path / "runs" / made[3].name)
    (tmp_path / "runs" / made[8].name / "run.json").write_text("{")
    os.utime(tmp_path / "runs" / made[8].name)
    picture = watcher.look()
    assert by_name(picture)[made[3].name].record["loss"] == 0.25 and f"{made[3].name} cannot be read" in picture.notes[1]
    assert f"{made[8].name}/run.json is damaged" in picture.notes[0] and by_name(picture)[made[8].name].row[2] == "CD"


def test_without_an_answer_the_folders_speak(made: list[Made], watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             ) -> None:
    monkeypatch.setattr(commands, "PAUSES_S", ())
    for name in ("squeue", "sacct"):
        write_program(tmp_path / "bin", name, "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1")
    pictures: list[Picture] = []
    looks = Looks(watcher, 5.0, pictures.append)
    pauses = [looks() for _ in range(5)]
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0] and len(pictures) == 6
    assert pictures[0].notes == ("Slurm was not asked yet",) and "Unable to contact slurm controller" in pictures[1].notes[0]
    for picture in pictures[:2]:
        states = [by_name(picture)[m.name].state.state for m in made[:4]]
        assert states == ["RUNNING", "UNKNOWN", "FAILED", "COMPLETED"]
    make_slurm(tmp_path / "bin", made, {m.name: ARRAY for m in made[4:]})
    assert looks() == 5.0 and by_name(pictures[-1])[made[1].name].state.state == "PENDING" and not pictures[-1].notes


def test_filters_orders_and_arrays(made: list[Made], watcher: Watcher) -> None:
    seen = watcher.look().seen
    keys: Callable[..., list[str]] = lambda **how: [line.key for line in lines_of(seen, **how)]  # noqa: E731
    assert keys() == [made[0].name, ARRAY, made[1].name, made[2].name, made[3].name]
    assert len(keys(opened={ARRAY})) == 10 and keys(filtered="FEWSHOT pending") == [made[5].name]
    assert keys(filtered="5002") == [made[2].name] and keys(filtered="nothing") == [] and keys(filtered="cn[1-8] run") == [made[0].name, made[4].name]
    assert keys(sort="name")[0] == made[0].name and keys(sort="loss")[:2] == [made[3].name, made[0].name]
    assert keys(sort="clips/s")[0] == made[3].name and {tuple(sorted(keys(sort=sort))) for sort in SORTS} == {tuple(sorted(keys()))}
    lines = lines_of(seen)
    for width in (60, 80, 120, 200):
        columns = chosen_columns(lines, width)
        assert (sum(w + 2 for _, w in columns) <= width or width == 60) and {COLUMNS[i] for i, _ in columns} >= {"NAME", "ST", "STEP/TOTAL", "RESULT"}
    assert len(chosen_columns(lines, 400)) == len(COLUMNS)


@pytest.mark.parametrize(("slow", "shown"), [
    ([], "-"), ([Slow("cn7", (3,), 41.7, WAITS), Slow("cn8", (4,), 20.0, WAITS)], "cn7 42 %"), ([Slow("", (), 30.0, EXCHANGES)], "slow exch…ranks 30 %")])
def test_who_holds_up_a_run_is_shown(watcher: Watcher, slow: list[Slow], shown: str) -> None:
    one = watcher.look().seen[0]
    one = replace(one, record={**one.record, "slow": [asdict(each) for each in slow]})
    assert straggler_of(one) == shown == texts(one)[COLUMNS.index("STRAGGLER")]


def test_a_curve_of_a_long_run_is_read_in_a_few_places(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert sampled_losses(path) == [] and newest_line(path) == {}
    lines = [json.dumps(metrics_line(step, 0)) for step in range(1, 6001)]
    path.write_text("\n".join(lines) + '\n{"step": 6001, "lo')
    size, before = path.stat().st_size, read_bytes()
    losses = sampled_losses(path, 30)
    assert read_bytes() - before < 30 * 4096 + 20_000 < size / 9
    assert len(losses) == 30 and losses[-1] == loss_at(6000, 0) == newest_line(path)["loss"]
    assert losses == sorted(losses, reverse=True) and losses[10] == pytest.approx(loss_at(2000, 0), rel=0.02)
    path.write_text("\n".join(lines[:10]) + "\n")
    assert sampled_losses(path, 30) == [loss_at(step, 0) for step in range(1, 11)]
    path.write_text("\n".join([lines[0], json.dumps(metrics_line(2, 0) | {"loss": float("nan")}), lines[2]]) + "\n")
    assert sampled_losses(path) == [loss_at(1, 0), loss_at(3, 0)]


def read_bytes() -> int:
    """Bytes that this process has asked the system for so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def test_a_sparkline_and_a_line_of_a_log() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█" and sparkline([3, 3], 8) == "▁▁" and sparkline([], 8) == ""
    assert sparkline(range(100, 0, -1), 4)[0] == "█" and len(sparkline(range(100), 4)) == 4 and sparkline([1, 2], 1) == "▁"
    assert plain_text("\x1b[31mred\x1b[0m 1 %\r 2 %\x07\r") == " 2 %" and plain_text("a\x1b[2Jb") == "ab"


def test_plain_lines_where_there_is_no_terminal(made: list[Made], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                                                ) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch, "show_plain", lambda watcher, every_s, *, once: plain.show_plain(watcher, every_s, once=once, pause=pause))
    assert watch.main(["--every", "3"]) == 130 and pauses == [3.0, 3.0]
    out, err = capsys.readouterr()
    assert err == "plain lines every 3 s until Ctrl-C (standard input and output are no terminal)\n"
    assert out.count("JOBID") == 2 and out.count("9 runs: 2 running, 2 waiting, 3 done, 2 over without a result") == 2
    assert status.main([]) == 0
    assert out.endswith(capsys.readouterr().out)
    assert watch.main(["say-vith14-0000*", "--once"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and len(out.splitlines()) == 6


def test_the_cells_of_an_array_are_looked_for_once(made: list[Made], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = watch.finder(watch.make_parser().parse_args(["9000", made[0].name]))
    monkeypatch.setattr("jobs.standing.shard_runs.submissions", lambda run: pytest.fail("run.json was read again"))
    assert {run.path.name for run in find()} == {m.name for m in [made[0], *made[4:]]}
    (tmp_path / "runs" / made[4].name / "run.json").unlink()
    assert {run.path.name for run in find()} == {m.name for m in [made[0], *made[5:]]}


def test_what_cannot_be_watched(made: list[Made], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for argv, said in ((["nope"], "no run 'nope'"), (["--runs-dir", "nope"], "--runs-dir nope is not a folder"),
                       (["--every", "0.5"], "--every is 0.5 s, allowed: 1 or more"), (["--every", "nan"], "--every is nan s")):
        assert watch.main([*argv, "--once"]) == 2 and said in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    assert plain.why_plain("") == "the terminal cannot move its cursor (TERM=dumb)"
    monkeypatch.setenv("TERM", "xterm-256color")
    assert plain.why_plain("") == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "the library textual is missing" in plain.why_plain("") and plain.why_plain("--once") == "--once"
