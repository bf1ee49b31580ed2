"""The pretraining grid: what its runs are called, what is equal between them, what is refused, and one graph of jobs."""

from __future__ import annotations

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import pretrain
from jobs.place.experiment import choose_place
from jobs.standing.runs import all_runs
from sweeps import pretrain as grid
from sweeps.grid.axes import split_values
from sweeps.pretraining.grid_points import design
from sweeps.pretraining.matching import Shown, as_long, steps_each, stretched
from sweeps.pretraining.points import Point
from sweeps.pretraining.variants import make_variants, value_words
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT, Told, caller, cli, write_program
from tests.support.runs import CELL, TINY, make_labelled, make_manifest
from tests.sweeps.test_fewshot import script_flags, slurm_env
from tests.sweeps.test_scaling import FLAGS as SCALING_FLAGS
from tests.sweeps.test_scaling import answer
from tests.vidmae.footage.test_fractions import saycam_names, write
from vidmae.footage.known.facts import Facts
from vidmae.footage.manifest import Check, read_all, write_manifest
from vidmae.runs.cost import train_flops_per_clip
from vidmae.runs.record import read_json
from vidmae.settings.config import ModelConfig, PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, build, load, parse_set, to_yaml
from vidmae.settings.schedule import Duration, Phase, Schedule

FLAGS = set(SCALING_FLAGS.split()) - {"--fractions"} | {"--vary", "--leave-out-children", "--max-runs"}
CELLS = ["--shots", "2", "--seeds", "0", "--labelled", "toys", "--method", "finetune", "--fewshot", "--recipe finetune_demo"]
SMALL = ["--recipe", "demo", "--data", "s", *CELLS]  # 300 videos of a minute; 220 steps of 16 clips
ORDERS, CLIPS = ["--vary", "data.order=shuffled,age"], ["--vary", "data.clip=normal,frozen"]


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with recordings of one child and of three, and a labelled data set."""
    write(own_folder / "manifests", saycam_names(300, parts=7))
    write(own_folder / "manifests", [name for child in "ASY" for name in saycam_names(40, child, parts=7)], 90.0, "say")
    write_labelled(own_folder / "manifests")
    return own_folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Call the grid in this process; exit code, standard output, standard error."""
    return caller(grid.main, capsys)


def plan(told: Told, *args: str) -> tuple[list[dict[str, Any]], str]:
    """The pretraining runs of a dry run, and what it says."""
    code, out, err = told(*args, "--dry-run", "--json", "--cluster", "local")
    assert code == 0, err
    return json.loads(out)["pretraining"], err


def names(runs: list[dict[str, Any]]) -> list[str]:
    return [run["run"].rpartition("-")[0] for run in runs]


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(grid.make_parser()._option_string_actions) == FLAGS
    commands = re.findall(r"^    python sweeps/pretrain\.py(.*)$", grid.__doc__ or "", re.M)
    assert len(commands) == 4
    for command in commands:
        grid.make_parser().parse_args(shlex.split(command))


def test_names_say_what_varies_in_any_order_of_the_flags(told: Told) -> None:
    runs, err = plan(told, *SMALL, *CLIPS, *ORDERS, "--repeats", "2", "--set", "data.weight=seconds")
    assert names(runs) == [f"demo-order.{order}-clip.{clip}-r{repeat}" for order in ("shuffled", "age")
                           for clip in ("normal", "frozen") for repeat in (0, 1)], "no tag again at the end"
    assert [run["seed"] for run in runs] == [0, 1] * 4 and len({run["run"][-8:] for run in runs}) == 8
    assert runs[3]["settings"] == {"data.order": "shuffled", "data.clip": "frozen"}
    assert re.search(r"DATA +ORDER +CLIP +SEED", err) and "random weights" in err
    assert [run["run"] for run in plan(told, *SMALL, *ORDERS, *CLIPS, "--repeats", "2", "--set", "data.weight=seconds")[0]] == [
        run["run"] for run in runs]
    held, _ = plan(told, *SMALL, *ORDERS, "--repeats", "1", "--set", "data.clip=frozen", "--name", "study")
    assert names(held) == ["study-frozen-order.shuffled-r0", "study-frozen-order.age-r0"], "what all have stands in NAME"


def test_a_run_that_is_there_under_another_name_is_used(told: Told, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    assert pretrain.main(["--recipe", "demo", "--data", "s", "--set", "data.order=age"]) == 0
    (mine,) = all_runs(folder / "runs")
    runs, _ = plan(told, *SMALL, *ORDERS, "--repeats", "2")
    assert names(runs) == ["demo-order.shuffled-r0", "demo-order.shuffled-r1", "demo-age", "demo-order.age-r1"]
    assert [run["path"] == str(mine.path) for run in runs] == [False, False, True, False]


@pytest.mark.parametrize(("text", "values"), [
    ("a,b", ["a", "b"]), ("[6, 14],[14, 22]", ["[6, 14]", "[14, 22]"]), ("[{name: s, hours: 1}, {name: k}],[]", ["[{name: s, hours: 1}, {name: k}]", "[]"]),
    ("'a,b',c", ["'a,b'", "c"]), ("null,O'Hara,b", ["null", "O'Hara", "b"])])
def test_commas_in_brackets_and_quotes_do_not_separate(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_what_values_and_keys_are_called() -> None:
    assert value_words([None, True, 0.5, "age", [6, 14], [{"name": "s", "hours": 10}, {"name": "k-200h"}], "00220001", "a b/c"]) == [
        "none", "true", "0.5", "age", "6_14", "s_hours10_k-200h", "00220001", "a_b_c"]
    long, *alike = value_words(["x" * 60, "a b", "a/b"])
    assert re.fullmatch(r"x{40}_[0-9a-f]{4}", long) and len(set(alike)) == 2 and all(word.startswith("a_b_") for word in alike)
    axes = {"train.phases.0.lr": ["1e-4", "1e-3"], "train.phases.1.lr": ["1e-5", "1e-6"], "model.mask_ratio": ["0.9", "0.8"]}
    first, *_, last = make_variants(axes, lengths=False)
    assert first.words == ("mask_ratio.0.9", "train.phases.0.lr.1e-4", "train.phases.1.lr.1e-5"), "in the order of the schema"
    assert last.items == ["model.mask_ratio=0.8", "train.phases.0.lr=1e-3", "train.phases.1.lr=1e-6"]


PHASES = (Phase(Duration(10, "epochs"), warmup=Duration(2, "epochs")), Phase(Duration(5, "steps"), lr=1e-5))
BASE = Schedule.plan(PHASES, clips_per_epoch=16, global_batch=8)  # 20 and 5 steps, 4 of warm-up


# by hand: 25 steps of 8 clips of 4 frames, 100 FLOPs a clip: 200 clips, 800 frames, 20,000 FLOPs
@pytest.mark.parametrize(("match", "one", "lengths"), [
    ("steps", Shown(1, 16, 4, 100.0), [20, 5]), ("clips", Shown(1, 16, 4, 100.0), [10, 3]), ("clips", Shown(1, 4, 4, 100.0), [40, 10]),
    ("frames", Shown(1, 8, 2, 100.0), [40, 10]), ("flops", Shown(1, 8, 4, 250.0), [8, 2]), ("flops", Shown(1, 8, 4, 40.0), [50, 13])])
def test_lengths_by_hand(match: Any, one: Shown, lengths: list[int]) -> None:
    found = stretched(BASE, steps_each(match, Shown(25, 8, 4, 100.0), one))
    assert found == lengths
    phases = as_long(PHASES, BASE, BASE, found)
    if found == [20, 5]:
        assert phases == PHASES, "as the recipe has them, so that its run is the same"
    else:
        assert [phase.duration for phase in phases] == [Duration(n, "steps") for n in lengths]
        assert str(phases[0].warmup) == f"{round(lengths[0] / 5)} steps" and phases[1].lr == 1e-5, "a fifth of the phase, and its rate"


def points(*args: str) -> list[Point]:
    """The runs of a command with their settings."""
    given = grid.make_parser().parse_args([*args, "--cluster", "local", "--dry-run"])
    return list(design(given, choose_place(given)).points)


def test_what_varies_is_checked_as_it_is_trained_and_never_as_usual() -> None:
    """A clip of 16 frames at the usual rate of 8 takes 4.3 s."""
    near = ["--set", "data.repeat_window=near", "--set", "data.repeat_near_s=3", "--set", "data.clip=frozen", "--repeats", "1"]
    for more in ([], ["--set", "data.sampling_rate=2"]):
        made = points(*SMALL, *near, *more, "--vary", "data.sampling_rate=2,4")
        assert [point.experiment.config.name for point in made] == [f"demo-frozen-sampling_rate.{rate}-r0" for rate in (2, 4)]
    with pytest.raises(ConfigError, match=r"data\.repeat_near_s is 3.*allowed: more than"):
        points(*SMALL, *near, "--vary", "data.sampling_rate=2,8")


PARTS = ["--recipe", "demo", "--data", "s,say", "--hours", "1", *CELLS]  # 60 and 40 videos of 4 clips: 15 and 10 steps of 16


@pytest.mark.parametrize(("duration", "warmup", "steps", "rise"), [
    ("7 epochs", "20 steps", 525, 20), ("7 epochs", "1 epochs", 525, 75), ("150 steps", "1 epochs", 150, 75), ("8000 clips", "3 epochs", 500, 225)])
def test_warm_ups_are_those_of_the_first_data_set_on_any_part(duration: str, warmup: str, steps: int, rise: int) -> None:
    """By hand: the whole of s has 300 videos of 4 clips, 75 steps an epoch. A warm-up of three epochs is 45 steps of a part."""
    made = points(*PARTS, "--repeats", "2", "--set", f"train.phases.0.duration={duration}", "--set", f"train.phases.0.warmup={warmup}")
    phases = [point.experiment.config.train.phases[0] for point in made]
    assert [(str(phase.duration), str(phase.warmup)) for phase in phases] == [(f"{steps} steps", f"{rise} steps")] * 4
    assert len({point.experiment.grid["of"] for point in made}) == 2, "of repeats of a data set it is one"


def test_a_single_pass_makes_all_runs_as_long_as_it_can_be(told: Told) -> None:
    runs, err = plan(told, "--recipe", "demo", "--data", "say", *CELLS, "--vary", "data.order=shuffled,single-pass", *CLIPS, "--repeats", "1")
    # 120 recordings of 90 s have 21 clips of 4.27 s each, 2,520 in all: 157 whole steps of 16
    assert [run["steps"] for run in runs] == [157] * 4 and "as a single pass, which is 0.714 times" in err
    short, err = plan(told, *SMALL, "--vary", "data.order=shuffled,single-pass", "--repeats", "1")
    assert [run["steps"] for run in short] == [220, 220] and "as the recipe gives" in err, "300 x 14 clips are enough"
    code, _, err = told("--recipe", "demo", "--data", "say", *CELLS, "--vary", "data.order=shuffled,single-pass", "--match", "none",
                        "--cluster", "local", "--dry-run")
    assert code == 2 and "allowed: up to 157, 1 epoch" in err


def test_flops_are_equal_where_the_model_varies(told: Told) -> None:
    runs, _ = plan(told, *SMALL, "--vary", "model.t_patch_size=2,4", "--match", "flops", "--repeats", "1")
    two, four = runs
    costs = [train_flops_per_clip(ModelConfig(name="mae_vit_nano_patch16", img_size=112, decoder_embed_dim=192, decoder_depth=2,
                                              decoder_num_heads=6, t_patch_size=size).shape()) for size in (2, 4)]
    assert two["steps"] == 220 and four["steps"] == round(220 * costs[0] / costs[1]) > 400
    assert four["flops"] == pytest.approx(two["flops"], rel=0.002)
    batches, _ = plan(told, *SMALL, "--vary", "train.global_batch=16,32", "--match", "clips", "--repeats", "1")
    assert [run["steps"] for run in batches] == [220, 110]


def test_named_recipes_are_rows(told: Told, folder: Path) -> None:
    text = (ROOT / "vidmae/recipes/demo.yaml").read_text()
    (folder / "control.yaml").write_text(text.replace("name: demo\n", "name: control\n", 1).replace("decoder_depth: 2", "decoder_depth: 1"))
    runs, _ = plan(told, *SMALL, "--vary", "recipe=demo,control.yaml", *CLIPS, "--repeats", "1", "--match", "flops")
    assert names(runs) == [f"demo-recipe.{recipe}-clip.{clip}-r0" for recipe in ("demo", "control.yaml") for clip in ("normal", "frozen")]
    assert {run["seed"] for run in runs} == {0} and runs[0]["steps"] == 220 < runs[2]["steps"]
    code, _, err = told("--recipe", "pretrain_s_vith14", *CELLS, "--vary", "recipe=pretrain_s_vith14,demo", "--cluster", "local")
    assert code == 2 and "demo has data.name demo, allowed: s as --recipe" in err and "--data compares data sets" in err, err


def test_each_child_is_left_out_once(told: Told) -> None:
    say = ["--recipe", "demo", "--data", "say", *CELLS, "--repeats", "1"]
    runs, _ = plan(told, *say, "--leave-out-children")
    assert names(runs) == [f"demo-without_child.{child}-r0" for child in ("none", "A", "S", "Y")]
    assert [run["videos"] for run in runs] == [120, 80, 80, 80] and {run["steps"] for run in runs} == {220}
    same, _ = plan(told, *say, "--vary", "data.without_child=null,A,S,Y")
    assert [run["run"] for run in same] == [run["run"] for run in runs]
    assert names(plan(told, *say, "--leave-out-children", "Y")[0]) == ["demo-without_child.none-r0", "demo-without_child.Y-r0"]


def test_hours_of_other_footage_are_trained_as_long(told: Told, folder: Path) -> None:
    runs, _ = plan(told, "--recipe", "demo", "--data", "s,say", "--hours", "1", *CELLS, "--repeats", "2")
    assert names(runs) == [f"demo-{data}-1h-random-r{repeat}" for data in ("s", "say") for repeat in (0, 1)]
    assert [run["videos"] for run in runs] == [60, 60, 40, 40] and {run["steps"] for run in runs} == {220}
    mixed, _ = plan(told, *SMALL, "--vary", "data.sources=[{name: s, hours: 1}],[{name: say, hours: 1}],[{name: s, hours: 0.5},{name: say, hours: 0.5}]",
                    "--repeats", "1")
    assert names(mixed) == ["demo-sources.s_hours1-r0", "demo-sources.say_hours1-r0", "demo-sources.s_hours0.5_say_hours0.5-r0"]
    assert [run["hours"] for run in mixed] == pytest.approx([1, 1, 1], abs=0.03) and {run["steps"] for run in mixed} == {220}


@pytest.mark.parametrize(("args", "said"), [
    (["--vary", "data.ordr=age,shuffled"], "no such setting, did you mean data.order"),
    (["--vary", "data.order=age,youngest"], "data.order is 'youngest', allowed: shuffled, age"),
    (["--vary", "data.order=age"], "has one value, allowed: two or more (--set data.order=age"),
    (["--vary", "data.order=age,age"], "stands twice"), (["--vary", "data.order"], "not of the form"), (["--vary", "seed=1,2"], "--repeats decides it"),
    (["--vary", "data.name=s,say"], "--data decides it"), (["--vary", "data.workers=1,2"], "does not change what is learned"),
    (["--vary", "duration=1 epochs,2 epochs"], "allowed with --match none"), ([], "nothing varies"),
    (["--vary", "train.weight_decay=" + ",".join(f"0.0{i}" for i in range(1, 80)), "--repeats", "3"], "79 x 3 = 237 pretraining runs, allowed: up to 100"),
    (["--vary", "train.phases.0.lr=1e-4,0.0001"], "would be the same run under two names"), (["--repeats", "0"], "1 or more"),
    (["--vary", "data.age_months=[1, 2],[2, 3]"], "needs ages since birth"), (["--vary", "data.without_child=A,Y"], "data.without_child is 'A', allowed: S, or null"),
    (["--leave-out-children"], "of 1 known children, allowed: 2 or more"), (["--leave-out-children", "Q", "--data", "say"], "'Q' is not in say, allowed: A, S, Y"),
    (["--leave-out-children", "--vary", "data.without_child=null,S"], "say the same"), ([*ORDERS, "--hours", "1"], "allowed: one of them"),
    (["--vary", "data.sources=[{name: s}],[{name: say}]", "--data", "s,say"], "allowed: one of them"), ([*ORDERS, "--data", "s,none"], "none"),
    ([*ORDERS, "--fewshot", "--after x"], "decides itself"),
    ([*ORDERS, "--fewshot", "--notify mail"], "decides itself"), ([*ORDERS, "--shots", "13"], "fewer than 13"),
    (["--vary", "model.num_frames=16,15"], "a positive multiple of model.t_patch_size")])
def test_what_cannot_run_is_said_before_anything_starts(folder: Path, told: Told, args: list[str], said: str) -> None:
    code, out, err = told(*SMALL, "--repeats", "1", *args, "--cluster", "local")
    assert code == 2 and said in err and out == "" and not all_runs(folder / "runs"), err
    assert not list((folder / "manifests").glob("*-random-*")), "no part was written"


def test_one_command_is_one_graph_and_retry_mends_it(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    args = [*SMALL, *ORDERS, "--repeats", "2", "--set", "train.device=auto", "--nodes", "2"]
    code, out, err = told(*args)
    assert code == 0 and out.split() == [str(i) for i in range(101, 111)], err
    runs, cells, last = script_flags(folder)[:4], script_flags(folder)[4:9], script_flags(folder)[9]
    assert {flags["--nodes"] for flags in runs} == {"2"} and {flags["--nodes"] for flags in cells} == {"1"}
    assert [flags.get("--dependency") for flags in cells] == [*(f"afterok:{i}" for i in range(101, 105)), None], "random weights wait for nothing"
    assert last["--dependency"] == "afterany:" + ":".join(str(i) for i in range(101, 110)) and last["--job-name"].startswith("pretraining-")
    record = read_json(next((folder / "runs").glob("demo-order.age-r1-????????")) / "run.json")
    assert {key: record["grid"][key] for key in ("name", "settings", "repeat")} == {"name": "demo", "settings": {"data.order": "age"}, "repeat": 1}
    cell = read_json(next((folder / "runs").glob("demo-order.age-r1-toys-*")) / "run.json")["cell"]
    assert cell["checkpoint"] == "demo-order.age-r1" and cell["grid"] == record["grid"]
    of = {read_json(path / "run.json")["grid"]["of"] for path in (folder / "runs").glob("demo-order.*-r?-????????")}
    assert len(of) == 2, "one for each order, whatever the seed"

    answer(folder, "demo-order.age-r1")
    code, out, err = told(*args)
    assert (code, out) == (1, "") and "failed: demo-order.age-r1" in err and "--retry failed" in err
    write_program(folder / "bin", "scancel", "exit 0")
    code, out, err = told(*args, "--retry", "failed")
    assert code == 0 and out.split() == ["111", "112", "113"], err
    again, cell_again, _ = script_flags(folder)[10:]
    assert again["--job-name"].startswith("demo-order.age-r1") and cell_again["--dependency"] == "afterok:111"
    assert load(PretrainConfig, folder / "runs" / again["--job-name"] / "config.yaml").seed == 1


@pytest.mark.slow
def test_children_of_real_clips_are_left_out_trained_tested_and_tabulated(folder: Path) -> None:
    rows = read_all(make_manifest(folder))[1]
    rows = [replace(row, facts=Facts(child="AB"[i % 2])) for i, row in enumerate(rows)]
    write_manifest(folder / "kids.csv", rows, [], Check("auto", True))
    labelled, _ = make_labelled(folder / "labelled", train=3, val=3)
    (folder / "cell.yaml").write_text(to_yaml(build(FinetuneConfig, parse_set(CELL))[0]))
    recipe = [word for item in TINY for word in ("--set", item)]
    args = ["--recipe", "demo", "--data", "kids.csv", "--leave-out-children", "--vary", "model.t_patch_size=2,4", "--match", "flops",
            "--repeats", "1", *recipe, "--labelled", str(labelled), "--shots", "2", "--seeds", "0", "--method", "linear,knn",
            "--fewshot", "--recipe cell.yaml", "--cluster", "local"]
    done = cli("sweeps/pretrain.py", *args, cwd=folder, timeout_s=1200)
    assert done.returncode == 0 and "6 of 6 pretraining runs and 16 of 16 cells are done" in done.stderr, done.stderr
    runs = {run.path.name.rpartition("-")[0]: run for run in all_runs(folder / "runs") if read_json(run.record)["kind"] == "pretrain"}
    clips = {name: read_json(run.result)["clips"] for name, run in runs.items()}
    assert all(clips[name] == clips[name.replace("none", "A")] for name in clips if "none" in name)
    assert clips["demo-t_patch_size.4-without_child.A-r0"] > clips["demo-t_patch_size.2-without_child.A-r0"] == 32
    with (folder / "tables/pretraining.csv").open() as lines:
        names = [row["model"] for row in csv.DictReader(lines)]
    assert "demo model.t_patch_size=4 data.without_child=B knn" in names and len(names) == 12 + 4 + 1
    again = cli("sweeps/pretrain.py", *args, cwd=folder, timeout_s=300)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
