"""Temporal probes as a sweep: flags, cells, what is refused; nothing is computed."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps import probes
from tests.support.launching import write_cell_profile
from vidmae.evaluate.temporal.drawn_windows import draw_windows
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.settings.programs.temporal_config import TimeProbesConfig

LOCAL = ["--cluster", "local", "--runs-dir", "runs", "--gpus-per-node", "0", "--cpus-per-task", "1"]
SMALL = ["--set", "model.name=vit_nano_patch16", "--set", "model.img_size=32", "--set", "model.num_frames=8"]
FLAGS = ("-h --help --videos --probes --seeds --set --after "
         "--cluster --profile -N --nodes -p --partition -A --account -q --qos -t --time --gpus-per-node --tasks-per-node "
         "--ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude -w --nodelist -d --dependency -J --job-name "
         "--signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --max-parallel --retry --wait --watch --runs-dir --json")


def row(number: int) -> Row:
    """A recording of 40 s."""
    return Row(f"/v/{number}.mp4", "", 1200, 30.0, 40.0, 9, 8, 8, "h264", 0, 0, 0, f"{number + 1:016x}", 1, "decord")


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with a manifest of ten recordings and one of four."""
    write("many", [row(i) for i in range(10)])
    write("few", [row(i) for i in range(4)])
    return own_folder


def write(name: str, rows: list[Row]) -> Path:
    Path("manifests").mkdir(exist_ok=True)
    write_manifest(Path(f"manifests/{name}.csv"), rows, [], Check("decord", True))
    return Path(f"manifests/{name}.csv")


def sweep(*args: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is in the folder of the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = probes.main(list(args))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def cells(*args: str) -> list[dict]:
    done = sweep(*LOCAL, "scratch", "--videos", "many", *SMALL, *args, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict] = json.loads(done.stdout)["cells"]
    return found


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(probes.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/probes\.py(.*)$", probes.__doc__ or "", re.M)
    assert 2 <= len(commands) <= 3
    for command in commands:
        probes.make_parser().parse_args(shlex.split(command))
    asked = probes.make_parser().parse_args(["--videos", "s", "--probes", "first,arrow"])
    assert asked.probes == ["arrow", "first"] and asked.seeds == [0]


def test_a_dry_run_shows_cells_and_cost_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = sweep(*LOCAL, "scratch", "--videos", "many", "--seeds", "0,1", *SMALL, "--dry-run")
    assert done.returncode == 0 and done.stdout.startswith("#!/bin/bash") and sorted(folder.rglob("*")) == before, done.stderr
    line = next(line for line in done.stderr.splitlines() if "scratch" in line)
    assert line.split()[:3] == ["scratch", "many", "5"] and line.split()[4] == "2", "five probes, two cells"
    one, other = cells("--seeds", "0,1")
    assert one["run"].startswith("time-scratch-on-many-seed0-") and other["run"].startswith("time-scratch-on-many-seed1-")
    assert one["flops"] > 0 and one["probes"] == ["halves", "halves-apart", "arrow", "speed", "first"]
    assert cells("--probes", "arrow")[0]["flops"] < one["flops"]


def test_what_changes_results_makes_another_cell(folder: Path) -> None:
    (base,) = cells("--probes", "arrow,speed")
    assert cells("--probes", "speed,arrow", "--set", "evaluate.batch=4", "--set", "workers=2")[0]["run"] == base["run"]
    for more in (["--set", "model.pool=mean"], ["--set", "temporal.windows=50"], ["--set", "data.sampling_rate=4"], ["--seeds", "3"]):
        assert cells("--probes", "arrow,speed", *more)[0]["run"] != base["run"], more
    write("many", [replace(row(i), content=f"{i + 100:016x}") for i in range(10)])
    assert cells("--probes", "arrow,speed")[0]["run"] != base["run"], "other recordings under the same names"


def test_controls_of_random_weights_are_not_the_same() -> None:
    made = [cells("--probes", "arrow", *more)[0] for more in ([], ["--set", "model.temporal_positions=false"],
                                                             ["--set", "model.net=conv", "--set", "model.pool=mean"])]
    of = "vit_nano_patch16-32px-8x2"
    assert [cell["checkpoint_content"] for cell in made] == [f"scratch:{of}", f"scratch:{of}-no-time-table", f"conv:{of}"]
    assert made[0]["flops"] == made[1]["flops"] != made[2]["flops"], "as its own network takes"


@pytest.mark.parametrize(("args", "said"), [
    (["scratch", "--videos", "few"], "scratch on few: 4 recordings have room for a window, allowed: 5 or more"),
    (["scratch", "--videos", "many", "--set", "data.sampling_rate=1200"], "10 of 10 videos: too short"),
    (["scratch", "--videos", "nothing"], "data set 'nothing' is not known"),
    (["scratch", "--videos", "many,manifests/many.csv"], "two sets of recordings are called 'many'"),
    (["scratch", "--videos", "many", "--probes", "arow"], "'arow' is no probe; allowed: halves, halves-apart, arrow, speed, first"),
    (["scratch", "--videos", "many", "--set", "temporal.probes=[arrow]"], "temporal.probes cannot be set for a sweep: --probes decides it"),
    (["scratch", "--videos", "many", "--set", "temporal.window=9"], "temporal.windows"),
    (["scratch", "--videos", "many", "--set", "temporal.gap_s=[500,600]"], "of first there are 0, 0, 0 pairs of clips"),
    (["no-run", "--videos", "many"], "no-run")])
def test_what_cannot_be_asked_is_refused(args: list[str], said: str) -> None:
    done = sweep(*LOCAL, *args, *SMALL, "--dry-run")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_windows_do_not_depend_on_the_checkpoint() -> None:
    rows = [row(i) for i in range(10)]
    drawn = [draw_windows(rows, TimeProbesConfig(), num_frames=16, sampling_rate=8, target_fps=30.0, seed=s) for s in (0, 0, 1)]
    digests = [each.digest([r.content for r in rows]) for each in drawn]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
def test_a_sweep_here_runs_every_cell_and_the_same_command_submits_nothing(folder: Path) -> None:
    args = ["--cluster", "local", "scratch", "--videos", "many", "--seeds", "0,1", *SMALL, "--profile", str(write_cell_profile(folder))]
    done = sweep(*args, "--wait", "--max-parallel", "2")
    assert done.returncode == 0 and done.stdout.strip().isdecimal(), done.stderr
    again = sweep(*args)
    assert again.returncode == 0 and again.stdout == "" and "nothing to submit: 2 done" in again.stderr
    assert "python analysis/time.py runs" in again.stderr
