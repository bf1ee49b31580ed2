"""The scaling sweep: what is equal between fractions, which seed means what, the graph of jobs, and what a second call does."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from jobs import prepare, pretrain
from jobs.standing.runs import all_runs
from sweeps import scaling
from sweeps.pretraining.scaling_points import pair_list
from tests.support.labelled import write_labelled
from tests.support.launching import Told, caller, cli, write_cell_profile, write_program
from tests.sweeps.test_fewshot import script_flags, slurm_env
from tests.vidmae.footage.test_fractions import saycam_names, write
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import load

FLAGS = ("-h --help --fractions --hours --repeats --subset --match --data --recipe --set --name --pattern --names --born --shots --labelled "
         "--seeds --method --select --fewshot --cluster --profile -N --nodes -p --partition -A --account -q --qos -t --time "
         "--gpus-per-node --tasks-per-node --ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude -w --nodelist "
         "-d --dependency -J --job-name --signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --max-parallel --retry --wait "
         "--runs-dir --manifests --out --json")
CELLS = ["--shots", "2", "--seeds", "0,1", "--labelled", "toys", "--fewshot", "--recipe finetune_demo"]
SMALL = ["--recipe", "demo", "--data", "s", "--fractions", "0.1,0.5,1", *CELLS]  # of 300 videos


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with a small recording history and a labelled data set."""
    write(own_folder / "manifests", saycam_names(300, parts=7))
    write_labelled(own_folder / "manifests")
    return own_folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Call the sweep in this process; exit code, standard output, standard error."""
    return caller(scaling.main, capsys)


def plan(told: Told, *args: str) -> list[dict[str, Any]]:
    """The pretraining runs of a dry run."""
    code, out, err = told(*args, "--dry-run", "--json", "--cluster", "local")
    assert code == 0, err
    return json.loads(out)["pretraining"]


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(scaling.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/scaling\.py(.*)$", scaling.__doc__ or "", re.M)
    assert len(commands) == 4
    for command in commands:
        scaling.make_parser().parse_args(shlex.split(command))


# by hand: 10,496 videos x 16 clips / 256 are 656 steps an epoch, 339 and 15 of which are 222,384 and 9,840 steps;
# 11, 105 and 1,050 videos are 0.6875, 6.5625 and 65.625 steps an epoch
@pytest.mark.parametrize(("match", "steps"), [
    ("steps", [[222_384, 9_840]] * 4), ("epochs", [[234, 11], [2_225, 99], [22_247, 985], [222_384, 9_840]]),
    ("paper", [[11_364, 14], [49_803, 132], [116_419, 1_313], [222_384, 9_840]])])
def test_what_is_equal_on_fractions_of_child_s(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch, match: str,
                                               steps: list[list[int]]) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])  # of A100s
    write(folder / "manifests", saycam_names(10_496))
    before = sorted(folder.rglob("*"))
    code, out, err = told("--match", match, "--repeats", "1", *CELLS, "--dry-run", "--json")
    assert code == 0, err
    runs = json.loads(out)["pretraining"]
    assert [run["videos"] for run in runs] == [11, 105, 1_050, 10_496] and [run["phase_steps"] for run in runs] == steps
    assert runs[3]["epochs"] == 354
    assert runs[3]["gpu_hours"] == pytest.approx(59.45e6 * 1.06e12 / (0.4 * 312e12) / 3600, rel=0.01), "clips and FLOPs of the recipe"
    assert [run["gpu_hours"] / runs[3]["gpu_hours"] for run in runs] == pytest.approx([sum(s) / 232_224 for s in steps])
    assert [run["cells"] for run in runs] == [2] * 4 and " 4 runs " in err and ("64 clips per step" in err) == (match == "paper")
    assert sorted(folder.rglob("*")) == before


def test_the_cool_down_and_the_warm_up_survive_every_match(told: Told, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    for match in ("steps", "epochs", "paper"):
        code, _, err = told("--data", "s", "--fractions", "0.1", "--match", match, "--repeats", "1", *CELLS, "--runs-dir", match)
        assert code == 0, err
        (run,) = [run for run in all_runs(folder / match) if "shot" not in run.path.name]
        phases = load(PretrainConfig, run.config).train.phases
        assert [(phase.lr, phase.reset_optimizer) for phase in phases] == [(1e-4, False), (1e-5, True)]
    steps = plan(told, *SMALL, "--match", "epochs", "--repeats", "1")
    assert [run["steps"] for run in steps] == [22, 110, 220], "the demo's 220 steps, by the share of the videos"


def test_a_repeat_is_a_seed_and_random_recordings_are_drawn_with_it(folder: Path, told: Told) -> None:
    runs = plan(told, *SMALL, "--subset", "contiguous,random", "--repeats", "2", "--name", "study")
    assert [(run["fraction"], run["subset"], run["seed"]) for run in runs] == [
        *((share, subset, seed) for share in (0.1, 0.5) for subset in ("contiguous", "random") for seed in (0, 1)),
        (1, None, 0), (1, None, 1)], "the whole is one point of both"
    assert [run["run"].rpartition("-")[0] for run in runs[:4]] == [
        "study-0.1-contiguous-seed0", "study-0.1-contiguous-seed1", "study-0.1-random-seed0", "study-0.1-random-seed1"]
    assert [Path(run["manifest"]).name for run in runs] == [
        *(f"s-{share}-{name}.csv" for share in ("0.1", "0.5") for name in ("contiguous", "contiguous", "random-seed0", "random-seed1")),
        "s.csv", "s.csv"]
    assert len({run["run"][-8:] for run in runs}) == 10


def test_fractions_are_those_of_prepare_and_are_written_once(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    assert prepare.main(["fraction", "s", "--fractions", "0.1,0.5", "--subset", "random", "--seed", "1", "--out", "mine"]) == 0
    args = [*SMALL, "--subset", "random", "--repeats", "2", "--manifests", "ours"]
    assert told(*args)[0] == 0
    for theirs in Path("mine").iterdir():
        assert (Path("ours") / theirs.name).read_bytes() == theirs.read_bytes()
    old = {path: path.stat().st_mtime_ns for path in Path("ours").iterdir()}
    assert len(old) == 12 and told(*args, "--retry", "missing")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in Path("ours").iterdir()} == old
    for path in Path("mine").glob("s-0.1-*"):
        path.rename(Path("ours") / path.name.replace("seed1", "seed0"))
    code, _, err = told(*args)
    assert code == 2 and "holds other videos" in err


TWO = ["--recipe", "demo", "--data", "s,say", "--hours", "0.5,1", *CELLS]  # minutes of one child, 90 s of three


@pytest.fixture
def say(folder: Path) -> Path:
    """A second data set, of three children."""
    return write(folder / "manifests", [name for child in "ASY" for name in saycam_names(120, child, parts=7)], 90.0, "say")


def test_equal_hours_of_two_data_sets_are_trained_for_equal_steps(say: Path, told: Told) -> None:
    runs = plan(told, *TWO, "--subset", "contiguous,random", "--repeats", "2")
    assert [(run["data"], run["hours_asked"], run["subset"], run["seed"]) for run in runs] == [
        (data, hours, subset, seed) for data in ("s", "say") for hours in (0.5, 1) for subset in ("contiguous", "random")
        for seed in (0, 1)]
    assert [run["videos"] for run in runs] == [30] * 4 + [60] * 4 + [20] * 4 + [40] * 4, "of 60 s and of 90 s"
    assert {run["steps"] for run in runs} == {220} and {run["fraction"] for run in runs} == {None}
    assert [run["run"].rpartition("-")[0] for run in runs[6:9]] == [
        "demo-s-1h-random-seed0", "demo-s-1h-random-seed1", "demo-say-0.5h-contiguous-seed0"]
    assert [Path(run["manifest"]).name for run in runs[6:9]] == ["s-1h-random-seed0.csv", "s-1h-random-seed1.csv", "say-0.5h-contiguous.csv"]
    steps = plan(told, *TWO, "--match", "epochs", "--repeats", "1")
    assert [run["steps"] for run in steps] == [22, 44, 15, 30], "the demo's 220 steps on 300 videos, by the number of videos"


def test_hours_are_those_of_prepare_and_what_is_compared_is_said(say: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(say.parents[1])["PATH"])
    assert prepare.main(["fraction", "say", "--hours", "1", "--subset", "random", "--out", "mine"]) == 0
    args = [*TWO, "--hours", "1", "--manifests", "ours", "--subset", "contiguous,random", "--repeats", "1", "--set", "train.device=auto"]
    code, _, err = told(*args)
    assert code == 0, err
    for theirs in Path("mine").iterdir():
        assert (Path("ours") / theirs.name).read_bytes() == theirs.read_bytes()
    assert "say-1h-contiguous has videos of 1 of 3 children only: contiguous" in err and " s-1h" not in err
    assert "as many steps as the recipe gives for s" in err
    (program,) = (say.parents[1] / "runs/arrays").glob("scaling-*/submit/**/*submitted.pkl")
    pairs = ["s contiguous,s random", "say contiguous,say random", "s contiguous,say contiguous", "s random,say random"]
    assert pair_list(["s", "say"], ["contiguous", "random"], by_hours=True) == pairs
    assert all(pair.encode() in program.read_bytes() for pair in pairs)
    assert pair_list(["s", "say"], ["random"], by_hours=True) == ["s random,say random"]
    assert pair_list(["s", "say"], ["random"], by_hours=False) == [] and pair_list(["s"], ["random", "spread"], by_hours=True) == ["random,spread"]


def test_shares_of_two_data_sets_are_said_to_be_different_amounts(say: Path, told: Told) -> None:
    code, out, err = told(*SMALL, "--data", "s,say", "--repeats", "1", "--dry-run", "--json", "--cluster", "local")
    assert code == 0 and "1 is 5.00 h of s, 9.00 h of say" in err and "--hours" in err, err
    assert [(run["data"], run["hours"], run["steps"]) for run in json.loads(out)["pretraining"]] == [
        ("s", 0.5, 220), ("s", 2.5, 220), ("s", 5, 220), ("say", 0.9, 220), ("say", 4.5, 220), ("say", 9, 220)]
    four = [*SMALL, "--data", "s,say", "--fractions", "0.1,1", "--repeats", "1", "--set", "train.phases=[{duration: 4 epochs}]"]
    assert [run["steps"] for run in plan(told, *four)] == [300] * 4, "4 epochs of 300 videos x 4 clips / 16, on say's 360, too"
    assert [run["steps"] for run in plan(told, *four, "--match", "epochs")] == [30, 300, 36, 360]


def test_all_the_hours_are_the_whole_and_a_run_on_it_is_used_under_its_name(say: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(say.parents[1])["PATH"])
    assert pretrain.main(["--recipe", "demo", "--data", "s"]) == 0
    (mine,) = all_runs(say.parents[1] / "runs")
    args = ["--recipe", "demo", "--data", "s,say", "--hours", "1,5", "--repeats", "1", *CELLS]
    runs = plan(told, *args)
    assert [(run["fraction"], run["hours_asked"], Path(run["manifest"]).name) for run in runs] == [
        (None, 1, "s-1h-contiguous.csv"), (1, None, "s.csv"), (None, 1, "say-1h-contiguous.csv"), (None, 5, "say-5h-contiguous.csv")]
    assert [run["path"] == str(mine.path) for run in runs] == [False, True, False, False]
    assert told(*args, "--data", "say", "--hours", "5")[0] == 0
    assert [run["run"].rpartition("-")[0] for run in plan(told, *args)][2:] == ["demo-say-1h-contiguous-seed0", "demo-5h-contiguous-seed0"]
    code, _, err = told(*args, "--data", "say", "--set", "model.mask_ratio=0.8", "--dry-run")
    assert code == 2 and "demo-5h-contiguous-seed0" in err and "--runs-dir" in err


@pytest.mark.parametrize(("args", "said"), [
    (["--fractions", "1"], "not allowed with"), (["--match", "paper"], "--match paper is not allowed with --hours"),
    (["--hours", "6"], "s: --hours 6 is more than the 5.00 h"), (["--hours", "1,1.0"], "1h stands twice"), (["--hours", "0"], "more than 0"),
    (["--hours", "1,0.995"], "s: 0.995h and 1h are the same 60 of 300 videos"), (["--data", "s,s"], "are the same videos"),
    (["--data", "s,other/s.csv"], "have one name"), (["--data", "s,none"], "none")])
def test_hours_that_cannot_be_are_refused(say: Path, told: Told, args: list[str], said: str) -> None:
    other = say.parents[1] / "other"
    other.mkdir()
    write(other, saycam_names(20))
    code, out, err = told(*TWO, "--cluster", "local", *args)
    assert code == 2 and said in err and out == "", err


@pytest.mark.parametrize(("args", "said"), [
    (["--fractions", "0"], "more than 0"), (["--fractions", "0.1,1.5"], "up to 1"), (["--fractions", "x"], "not a number"),
    (["--fractions", "0.1,0.10"], "0.1 stands twice"), (["--fractions", "0.001,0.002"], "the same 1 of 300 videos"),
    (["--fractions", "0.999,1"], "the same 300 of 300 videos"), (["--repeats", "0"], "1 or more"),
    (["--subset", "first"], "no subset"), (["--subset", "random,random"], "twice"), (["--set", "seed=3"], "--repeats"),
    (["--set", "data.manifest=x.csv"], "--data"), (["--match", "paper"], "no fraction of the released runs"),
    (["--match", "paper", "--fractions", "0.1", "--set", "train.phases=[{lr: 1}]"], "a recipe of two phases"), (["--fewshot", "--after x"], "decides itself"),
    (["--fewshot", "--nonsense 1"], "--nonsense"), (["--fewshot", "--set 'x"], "cannot be read"), (["--shots", "13"], "fewer than 13"),
    (["--subset", "random", "--pattern", "(?P<recording>no)"], "--subset random"), (["--max-parallel", "0"], "not 1 or more")])
def test_what_cannot_run_is_refused_before_anything_starts(folder: Path, told: Told, args: list[str], said: str) -> None:
    two_phases = "train.phases=[{duration: 9 steps}, {duration: 1 steps}]"
    code, out, err = told(*SMALL, "--cluster", "local", "--set", two_phases, *args)
    assert code == 2 and said in err and out == "" and not all_runs(folder / "runs"), err
    assert not list((folder / "manifests").glob("s-*")), "no fraction was written"


def test_a_run_that_is_there_under_another_name_is_used_and_one_with_other_settings_refused(
        folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    assert pretrain.main(["--recipe", "demo", "--data", "s"]) == 0
    (mine,) = all_runs(folder / "runs")
    runs = plan(told, *SMALL, "--repeats", "2")
    assert [run["path"] == str(mine.path) for run in runs] == [False] * 4 + [True, False]
    code, _, err = told(*SMALL, "--repeats", "2", "--set", "model.mask_ratio=0.8", "--dry-run")
    assert code == 2 and mine.path.name in err and "--runs-dir" in err


def answer(folder: Path, failed: str = " ") -> None:
    """Let squeue know every job as waiting, and sacct the pretraining run `failed` and what waited for it as ended."""
    queued, ended = [], []
    for run in [*all_runs(folder / "runs"), *(RunFolder(path) for name in ("scaling", "pretraining")
                                               for path in (folder / "runs/arrays").glob(f"{name}-*"))]:
        last = ((read_json(run.record) or {})["submissions"] or [{}])[-1]
        if not last:
            continue
        if not run.path.name.startswith(failed):
            queued.append(f"{last['job_id']}|PENDING|0:00|1|{last['job_name']}|(Dependency)|x")
        else:
            state = "CANCELLED by 0" if "shot" in run.path.name else "FAILED"
            ended.append(f"{last['job_id']}|{state}|00:00:01|1|{int('shot' not in run.path.name)}:0|cn1|{last['job_name']}")
    for name, rows in (("squeue", queued), ("sacct", ended)):
        write_program(folder / "bin", name, "\n".join(f"echo {shlex.quote(row)}" for row in rows) or "exit 0")


def test_one_command_is_one_graph_and_the_second_submits_what_is_missing(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch,
                                                                        ) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    args = [*SMALL, "--repeats", "2", "--max-parallel", "4", "--nodes", "2", "--gpus-per-node", "4", "--set", "train.device=auto"]
    code, out, err = told(*args)
    assert code == 0 and out.split() == [str(i) for i in range(101, 114)], err
    flags = script_flags(folder)
    runs, cells, last = flags[:6], flags[6:12], flags[12]
    assert {(f["--nodes"], f["--gpus-per-node"]) for f in runs} == {("2", "4")} and {f["--nodes"] for f in cells} == {"1"}
    assert [f.get("--dependency") for f in runs] == [None] * 4 + ["afterany:101", "afterany:102"]
    assert [f["--dependency"] for f in cells] == [f"afterok:{i}" for i in range(101, 107)]
    assert {f["--array"] for f in cells} == {"0-1%2"} and {f["--kill-on-invalid-dep"] for f in cells} == {"yes"}
    assert last["--dependency"] == "afterany:" + ":".join(str(i) for i in range(101, 113)) and "--gpus-per-node" not in last

    answer(folder)
    code, out, err = told(*args)
    assert (code, out) == (0, "") and "nothing to submit" in err and len(script_flags(folder)) == 13
    answer(folder, "demo-0.5-contiguous-seed1")
    code, out, err = told(*args)
    assert (code, out) == (1, "") and "failed: demo-0.5-contiguous-seed1" in err and "--retry failed" in err
    code, out, err = told(*args, "--retry", "failed", "--dry-run", "--json")
    assert [run["run"][:25] for run in json.loads(out)["pretraining"] if run["submit"]] == ["demo-0.5-contiguous-seed1"]
    write_program(folder / "bin", "scancel", f"echo \"$*\" >> '{folder}/cancelled'")
    code, out, err = told(*args, "--retry", "failed")
    assert code == 0 and out.split() == ["114", "115", "116"], err
    again, cells_again, last_again = script_flags(folder)[13:]
    assert again["--job-name"].startswith("demo-0.5-contiguous-seed1") and cells_again["--dependency"] == "afterok:114"
    assert cells_again["--array"] == "0-1%2", "cells that never began, since what they waited for had failed, need no --retry"
    assert {"114", "115"} < set(last_again["--dependency"].split(":")) and (folder / "cancelled").read_text() == "113\n"


def test_what_slurm_refuses_half_way_is_submitted_by_the_next_call(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    full = "[ $n = 102 ] && { echo 'Job violates accounting/QOS policy' >&2; exit 1; }"
    monkeypatch.setenv("PATH", slurm_env(folder, sbatch=full)["PATH"])
    args = [*SMALL, "--repeats", "1", "--set", "train.device=auto"]
    code, out, err = told(*args)
    assert (code, out) == (4, "101\n") and "QOS" in err
    slurm_env(folder)
    answer(folder)
    code, out, err = told(*args, "--json")
    said = json.loads(out)
    assert code == 0 and said["jobs"] == [str(i) for i in range(103, 109)] and said["last"] == "108", err
    assert [run["job_id"] for run in said["pretraining"]] == ["101", "103", "104"]
    assert [cell["job_id"] for cell in said["cells"]] == [f"{i}_{task}" for i in (105, 106, 107) for task in (0, 1)]
    assert [flags["--dependency"] for flags in script_flags(folder)[4:7]] == ["afterok:101", "afterok:103", "afterok:104"]


@pytest.mark.slow  # on a real Slurm it runs in tests/slurm/test_studies.py
def test_on_this_machine_one_thing_runs_after_the_other_up_to_the_figure(folder: Path) -> None:
    profile = str(write_cell_profile(folder, pretrain="ok", GROWS="7.5"))
    args = [*SMALL, "--seeds", "0", "--repeats", "1", "--cluster", "local", "--profile", profile, "--set", "data.workers=0"]
    done = cli("sweeps/scaling.py", *args, cwd=folder, timeout_s=120)
    assert done.returncode == 0 and len(done.stdout.split()) == 4, done.stderr
    assert "3 of 3 pretraining runs and 3 of 3 cells are done" in done.stderr
    with (folder / "tables/scaling.csv").open() as f:
        (line,) = [row for row in csv.DictReader(f) if row["metric"] == "top-1" and row["fit"] == "log-linear"]
    assert float(line["slope_per_decade"]) == pytest.approx(7.5) and float(line["x1_pct"]) == pytest.approx(25)
    assert (folder / "tables/scaling-toys-2shot.png").stat().st_size > 10_000 and (folder / "tables/fewshot.tex").exists()
    (folder / "tables/scaling-toys-2shot.png").unlink()
    again = cli("sweeps/scaling.py", *args, cwd=folder, timeout_s=120)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
