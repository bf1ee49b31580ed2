"""What runs have used by their records and by a stand-in for sacct, and a budget that a submission would pass."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from jobs import pretrain, spent
from jobs.place.profiles import ClusterProfile, read_site
from jobs.place.scheduler.sacct import parse_allocations, parse_tres
from jobs.submit import budget
from jobs.submit.budget import keep_to_budget
from sweeps import fewshot, scaling
from tests.support.labelled import write_labelled
from tests.support.launching import Told, caller, write_manifest, write_program
from tests.support.site import SLURM
from vidmae.runs.gpus import GPUS
from vidmae.runs.record import make_private_folder
from vidmae.settings.layers import ConfigError, build

HOUR = 3600
LENGTH = "train.phases=[{duration: 2000 steps, lr: 1.0e-4}]"
BEGAN = time.mktime((2026, 11, 20, 10, 0, 0, 0, 0, -1))
JOB = {"state": "submitted", "cluster": "slurm", "nodes": 2, "tasks_per_node": 4, "gpus_per_node": 4, "cpus_per_task": 8, "gpu_type": "a100"}
TRES = "billing=64,cpu=64,gres/gpu:a100=8,gres/gpu=8,mem=900G,node=2"


def at(hours: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(BEGAN + hours * HOUR))


SACCT = "\n".join([  # a job that was requeued after an hour, and failed at once before; a cell; one of another name and of a colleague
    f"7|FAILED|120|{at(0)}|{TRES}||anna|lab|s-1", f"7|COMPLETED|7200|{at(1)}|{TRES}||anna|lab|s-1",
    f"9_1|COMPLETED|1800|{at(5)}|cpu=8,gres/gpu=1,node=1,energy=900000|1800000|anna|lab|20261120T150000-fewshot",
    f"9_2|RUNNING|900|{at(5)}|cpu=8,node=1||anna|lab|20261120T150000-fewshot", "9_[3-5]|PENDING|0|Unknown||||lab|20261120T150000-fewshot",
    f"11|COMPLETED|3600|{at(6)}|{TRES}||anna|lab|another|job", f"12|COMPLETED|3600|{at(7)}|{TRES}||bob|lab|his"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a pretraining job, of two cells and of one that was submitted and has ended unseen; and a Slurm."""
    for name, text in {**SLURM, "sacct": f"cat '{tmp_path}/sacct.txt'"}.items():
        write_program(tmp_path / "bin", name, text.replace("SUBMITTED", str(tmp_path / "submitted")))
    (tmp_path / "sacct.txt").write_text(SACCT)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    attempt = {"job_id": "7", "restart": 1, "started": BEGAN + HOUR, "updated": BEGAN + 2 * HOUR, "ranks": 8, "gpu": "NVIDIA A100-SXM4-80GB",
               "energy_j": 9e6, "energy_s": HOUR}
    make_run(tmp_path, "s-1", {**JOB, "job_id": "7", "job_name": "s-1"}, attempts=[attempt])
    cell = {**JOB, "nodes": 1, "tasks_per_node": 1, "gpus_per_node": 1, "job_name": "20261120T150000-fewshot", "array": "/x/20261120T150000-fewshot"}
    for task in (1, 2):
        make_run(tmp_path, f"cell-{task}", {**cell, "job_id": f"9_{task}"})
    make_run(tmp_path, "s-2", {**JOB, "job_id": "11", "job_name": "s-2"}, command=["python", "sweeps/pretrain.py", "--vary", "seed=1,2"])
    return tmp_path


def make_run(folder: Path, name: str, *submissions: dict[str, Any], attempts: Any = (), **record: Any) -> Path:
    path = make_private_folder(folder / "runs" / name)
    (path / "run.json").write_text(json.dumps({"schema": 1, "kind": "pretrain", "submissions": submissions, **record}))
    (path / "attempts.json").write_text(json.dumps({"schema": 1, "attempts": list(attempts)}))
    return path


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return caller(spent.main, capsys)


def profile(folder: Path, *lines: str) -> str:
    path = folder / "site.yaml"
    path.write_text("\n".join([*lines, ""]))
    return str(path)


def test_lines_of_sacct_are_read() -> None:
    first, second, cell, running, other, his = parse_allocations(SACCT)
    assert (first.id, first.state, first.seconds, first.started, first.gpus, first.gpu, first.cpus) == ("7", "FAILED", 120, BEGAN, 8, "a100", 64)
    assert (second.user, second.account, cell.energy_j, running.energy_j, other.name, his.user) == ("anna", "lab", 1.8e6, 0, "another|job", "bob")
    no_counter = parse_allocations(f"7|COMPLETED|100|{at(1)}|cpu=4,energy=18446744073709551614,node=2|18446744073709551614|anna|lab|s-1")
    assert (no_counter[0].energy_j, no_counter[0].nodes) == (0.0, 2)
    assert parse_tres("cpu=4,gres/gpu:v100=1,gres/gpu:a100=2,energy=12") == (3, "v100+a100", 4, 12.0)
    assert parse_tres("") == (0, "", 0, 0.0)


def test_every_start_counts_with_what_the_run_measured(folder: Path, told: Told) -> None:
    code, out, err = told("--json", "--profile", profile(folder, "co2_g_per_kwh: 500", "pue: 1.2", "budget_gpu_hours: 100"))
    assert code == 0, err
    found = json.loads(out)
    lines = {line["run"]: line for line in found["lines"]}
    assert code == 0 and set(lines) == {"s-1", "cell-1", "cell-2"}, "the accounting knows job 11 by another name"
    seconds = 7200 + 120
    assert (lines["s-1"]["gpu_h"], lines["s-1"]["core_h"]) == (pytest.approx(8 * seconds / HOUR), pytest.approx(64 * seconds / HOUR))
    assert lines["s-1"]["kwh"] == pytest.approx(2.5 * seconds / HOUR) and lines["s-1"]["by"] == ["NVML"]
    assert lines["s-1"]["measured_pct"] == pytest.approx(100 * HOUR / seconds) and lines["s-1"]["co2_kg"] == pytest.approx(0.6 * 2.5 * seconds / HOUR)
    assert (lines["cell-1"]["kwh"], lines["cell-1"]["by"]) == (pytest.approx(GPUS["A100"].board_w / 2000), ["estimate"])
    assert any(note.startswith("of 1 tasks of arrays Slurm's energy is not taken") for note in found["notes"])
    assert (lines["cell-2"]["gpu_h"], lines["cell-2"]["kwh"]) == (0.25, pytest.approx(GPUS["A100"].board_w / 4000)), "gres/gpu is not tracked"
    total = 8 * seconds / HOUR + 0.75
    assert found["total"]["gpu_h"] == pytest.approx(total) and found["budget"]["left_gpu_h"] == pytest.approx(100 - total)


def test_by_sweep_by_user_and_since_a_day(folder: Path, told: Told) -> None:
    code, out, err = told("--by", "sweep", "--csv")
    rows = {row["sweep"]: row for row in csv.DictReader(io.StringIO(out))}
    assert code == 0 and set(rows) == {"single runs", "20261120T150000-fewshot"} and rows["20261120T150000-fewshot"]["gpu_h"] == "0.75"
    assert rows["single runs"]["co2_kg"] == "" and "the profile has no co2_g_per_kwh" in err
    code, out, _ = told("--account", "lab", "--since", "2026-11-01", "--by", "user", "--csv")
    rows = {row["user"]: row for row in csv.DictReader(io.StringIO(out))}
    assert rows["bob"]["gpu_h"] == "8.0" and float(rows["anna"]["gpu_h"]) == pytest.approx(8 * 7320 / HOUR + 0.75 + 8)
    code, out, _ = told("--since", "2026-11-21")
    assert code == 0 and [line.split()[:2] for line in out.splitlines()] == [["RUN", "JOBS"], ["all", "0"]]
    code, out, _ = told("cell-1")
    assert out.splitlines()[1].split() == ["cell-1", "1", "0.5", "4.0", "0.20", "estimate", "-"]
    (folder / "sacct.txt").write_text(SACCT.replace(f"12|COMPLETED|3600|{at(7)}", f"12|COMPLETED|3600|{at(-30)}"))
    assert "bob" not in told("--account", "lab", "--since", "2026-11-20", "--by", "user", "--csv")[1], "it began the day before"
    for flags, said in [(("--account", "lab"), "--account needs --since"), (("--since", "yesterday"), "a day such as 2026-01-31"),
                        (("nobody",), "no run 'nobody'"), (("--runs-dir", "none"), "is not a folder")]:
        code, _, err = told(*flags)
        assert code == 2 and said in err


def test_without_accounting_the_records_speak(folder: Path, told: Told) -> None:
    write_program(folder / "bin", "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    make_run(folder, "torn-3", {**JOB, "job_id": "13"}, attempts=[{"job": 1}])
    code, out, err = told()
    assert code == 0 and [line.split()[:3] for line in out.splitlines()[1:]] == [["s-1", "1", "8.0"], ["all", "1", "8.0"]]
    assert "starts that left no word are not counted" in err and "torn-3 is not counted" in err
    assert told("--account", "lab", "--since", "2026-11-01")[0] == 4


@pytest.mark.parametrize(("lines", "said"), [
    (["pue: 0.9"], "pue is 0.9, allowed: 1 or more"), (["gpu_power_pct: 0"], "gpu_power_pct is 0"), (["co2_g_per_kwh: -1"], "co2_g_per_kwh is -1"),
    (["budget_since: 2026-02-30"], "day is out of range for month"), (["budget_since: '2026'"], "budget_since is '2026', allowed: a day"), (["budget_gpu_hours: many"], "budget_gpu_hours")])
def test_a_profile_says_only_what_can_be(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        read_site(Path(profile(tmp_path, *lines)))
    read_site(Path(profile(tmp_path, "budget_since: 2026-02-28", "budget_gpu_hours: 5000", "pue: 1", "watts_per_core: 3.5")))


def submits(folder: Path, capsys: pytest.CaptureFixture[str], *flags: str, budget_h: float) -> tuple[int, str]:
    write_manifest(folder / "manifests/s.csv", videos=100)
    code = pretrain.main(["--profile", profile(folder, f"budget_gpu_hours: {budget_h}", "budget_since: 2026-01-01"), "--set", LENGTH, *flags])
    return code, capsys.readouterr().err


def test_a_submission_that_would_pass_the_budget_is_refused_without_a_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_program(folder / "bin", "squeue", "echo '21|PENDING|0:00|2|s-9|(Resources)|x'")
    make_run(folder, "s-9", {**JOB, "job_id": "21", "job_name": "s-9", "planned_gpu_h": 500.0})
    code, err = submits(folder, capsys, "--dry-run", budget_h=1e6)
    assert code == 0 and "budget: 17.0 GPU-hours are spent since 2026-01-01, 500.0 are under way, and this would use about" in err
    code, err = submits(folder, capsys, "--dry-run", budget_h=517.5)
    assert code == 0 and "warning: over the budget by" in err and "--over-budget does not ask" in err
    code, err = submits(folder, capsys, budget_h=517.5)
    assert code == 2 and "nothing was submitted. Submit it all the same: --over-budget" in err and not (folder / "submitted").exists()
    assert not list((folder / "runs").glob("s-vith14-*/run.json"))
    code, err = submits(folder, capsys, "--over-budget", budget_h=517.5)
    assert code == 4 and "warning: over the budget by" in err and (folder / "submitted").exists(), "sbatch was called, which refuses"
    entry = json.loads(next((folder / "runs").glob("*vith14-*/run.json")).read_text())["submissions"][-1]
    assert entry["planned_gpu_h"] > 1 and entry["gpu_type"] == "a100"


def test_a_sweep_asks_too_and_a_study_for_its_runs_and_cells(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labelled(folder / "manifests")
    given = ["--profile", profile(folder, "budget_gpu_hours: 22"), "--shots", "2"]
    cells = [*given, "--checkpoints", "scratch", "--data", "toys", "--set", LENGTH]
    assert fewshot.main([*cells, "--dry-run"]) == 0
    said = capsys.readouterr().err
    wanted = float(re.search(r"this would use about ([\d.,]+) of", said)[1])
    all_cells = float(re.search(r"^ *all .*?([\d.,]+) GPU-h", said, re.M)[1])
    assert wanted == pytest.approx(all_cells, abs=0.06) and wanted > 1 and "budget: 17.0 GPU-hours are spent" in said
    assert fewshot.main([*cells, "--seeds", "0,1,2,3,4,5,6,7,8,9"]) == 2
    assert "over the budget by" in capsys.readouterr().err and not (folder / "submitted").exists()
    write_manifest(folder / "manifests/s.csv", videos=100)
    study = [*given, "--fractions", "1", "--labelled", "toys", "--data", "s", "--set", LENGTH]
    assert scaling.main([*study, "--dry-run"]) == 0
    said = capsys.readouterr().err
    alone = float(re.search(r"to submit: \d+ pretraining runs \(([\d.,]+) GPU-h\)", said)[1])
    assert float(re.search(r"this would use about ([\d.,]+) of", said)[1]) >= alone > 1, "waiting for clips is planned, too"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "ready", "goes_on"), [("y\n", True, True), ("\n", True, False), ("no\n", True, False), ("y\n", False, False)])
def test_at_a_terminal_it_asks(answer: str, ready: bool, goes_on: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = read_site(Path(profile(folder, "budget_gpu_hours: 17.5")))
    typed, shown = Terminal(answer), Terminal()
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr(budget.select, "select", lambda *_: ([typed] if ready else [], [], []))
    given = build(ClusterProfile, site.layers)[0]
    keep_to_budget(given, folder / "runs", 0.4, over=False)  # 17.017 are spent
    keep_to_budget(given, folder / "runs", 0.0, over=False)
    try:
        keep_to_budget(given, folder / "runs", 0.6, over=False)
        passed = True
    except ConfigError:
        passed = False
    assert passed is goes_on and "submit it all the same? [y/N]" in shown.getvalue()
