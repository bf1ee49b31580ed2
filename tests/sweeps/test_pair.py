"""The matched pair: its arithmetic by hand, what the two have in common, one graph of jobs, and what a second call does."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import pretrain
from jobs.place.experiment import choose_place
from jobs.standing.runs import all_runs
from sweeps import fewshot, pair
from sweeps.pretraining.matching import Shown, matched_phases
from sweeps.pretraining.pairs import read_pair, rows
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT, Told, caller, cli, write_cell_profile, write_manifest
from tests.support.runs import CELL, TINY, make_labelled, make_manifest
from tests.sweeps.test_fewshot import script_flags, slurm_env
from tests.sweeps.test_scaling import answer
from tests.vidmae.footage.test_fractions import saycam_names, write
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder, read_json, write_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, build, load, parse_set, to_dict, to_yaml
from vidmae.settings.recipe import read_recipe
from vidmae.settings.schedule import Duration, Phase, Schedule

FLAGS = ("-h --help --video --match --image --data --set --image-set --name --cluster --profile -N --nodes -p --partition -A --account "
         "-q --qos -t --time --gpus-per-node --tasks-per-node --ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude "
         "-w --nodelist -d --dependency -J --job-name --signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --retry --wait --runs-dir --json")
DEMO = ["--video", "demo", "--image", "demo_image"]


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with a data set and a labelled one."""
    write_manifest(own_folder / "manifests/demo.csv")
    write_labelled(own_folder / "manifests")
    return own_folder


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Call the command in this process; exit code, standard output, standard error."""
    return caller(pair.main, capsys)


def plan(told: Told, *args: str) -> dict[str, Any]:
    code, out, err = told(*args, "--dry-run", "--json", "--cluster", "local")
    assert code == 0, err
    return json.loads(out)


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(pair.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/pair\.py(.*)$", pair.__doc__ or "", re.M)
    assert len(commands) == 3
    for command in commands:
        pair.make_parser().parse_args(shlex.split(command))


PHASES = (Phase(Duration(10, "epochs"), warmup=Duration(2, "steps")), Phase(Duration(3, "steps"), lr=1e-5, reset_optimizer=True))
VIDEO = Shown(13, 8, 4, 100.0)  # 13 steps of 8 clips of 4 frames


# by hand: 104 clips, 416 frames, 10,400 FLOPs; the first phase ends at 10 of 13 steps, and warms up for 2
@pytest.mark.parametrize(("match", "image", "lengths", "warmup"), [
    ("frames", Shown(1, 8, 1, 20.0), (40, 12), 8),     # 52 steps of 8 frames
    ("frames", Shown(1, 16, 1, 20.0), (20, 6), 4),     # 26 steps of 16
    ("frames", Shown(1, 48, 1, 20.0), (7, 2), 1),      # 6.67 and 8.67 steps are 7 and 9; 1.33 are 1
    ("clips", Shown(1, 4, 1, 20.0), (20, 6), 4),
    ("steps", Shown(1, 16, 1, 20.0), (10, 3), 2),
    ("flops", Shown(1, 8, 1, 20.0), (50, 15), 10),     # 160 FLOPs a step: 65 steps
    ("flops", Shown(1, 8, 1, 30.0), (33, 10), 7),      # 240 a step: 33.3 and 43.3 are 33 and 43; 6.67 are 7
])
def test_matching_by_hand(match: Any, image: Shown, lengths: tuple[int, int], warmup: int) -> None:
    schedule = Schedule.plan(PHASES, clips_per_epoch=8, global_batch=8)
    phases = matched_phases(PHASES, match, VIDEO, image, schedule)
    assert [str(phase.duration) for phase in phases] == [f"{n} steps" for n in lengths] and str(phases[0].warmup) == f"{warmup} steps"
    assert [(phase.lr, phase.reset_optimizer) for phase in phases] == [(1e-4, False), (1e-5, True)]
    made = Shown(sum(lengths), image.global_batch, 1, image.clip_flops)
    assert abs(made.amounts[match] - VIDEO.amounts[match]) <= image.amounts[match] / 2, "to the nearest step"


def test_equal_batches_keep_the_phases_and_a_phase_has_a_step() -> None:
    schedule = Schedule.plan(PHASES, clips_per_epoch=8, global_batch=8)
    for match in ("clips", "steps"):
        assert matched_phases(PHASES, match, VIDEO, Shown(1, 8, 1, 20.0), schedule) == PHASES
    with pytest.raises(ConfigError, match="phase 1 of the image model would have 0 steps"):
        matched_phases(PHASES, "clips", VIDEO, Shown(1, 150, 1, 20.0), schedule)


def block(tokens: int, width: int) -> float:
    """FLOPs of a transformer block: 12 products with width x width, and attention's two."""
    return 2 * tokens * 12 * width**2 + 4 * tokens**2 * width


def vit_h(tokens: int, kept: int, values: int, layers: int) -> float:
    """FLOPs of training on a clip: forward once, backward twice, but for the patches, whose pixels learn nothing."""
    patches = 2 * kept * values * 1280
    hidden = tokens - kept
    rest = 32 * block(kept + 1, 1280) + 2 * kept * 1280 * 512 + layers * block(tokens + 1, 512) + 2 * hidden * 512 * values
    return 3 * rest + 2 * patches


# by hand: 10,496 videos x 16 clips / 256 are 656 steps an epoch, 339 and 15 epochs 222,384 and 9,840 steps, 59,449,344 clips
@pytest.mark.parametrize(("match", "more", "steps"), [
    ("clips", [], 232_224), ("steps", [], 232_224), ("frames", [], 3_715_584),
    ("frames", ["--image-set", "train.global_batch=4096"], 232_224), ("clips", ["--image-set", "train.global_batch=1024"], 58_056)])
def test_the_pair_of_the_paper(folder: Path, told: Told, match: str, more: list[str], steps: int) -> None:
    write_manifest(folder / "manifests/s.csv", videos=10_496)
    found = plan(told, "--video", "pretrain_s_vith14", "--match", match, *more)
    video, image = found["video"], found["image"]
    assert (video["steps"], video["clips"], video["frames"]) == (232_224, 59_449_344, 951_189_504)
    assert image["steps"] == steps and image["clips"] == image["frames"] == steps * image["global_batch"]
    assert image[match] == video[match]
    assert video["flops"] / video["clips"] == pytest.approx(vit_h(2048, 204, 2 * 14 * 14 * 3, 4))
    assert image["flops"] / image["clips"] == pytest.approx(vit_h(256, 51, 14 * 14 * 3, 8))


def test_equal_flops_are_equal_to_a_step(folder: Path, told: Told) -> None:
    write_manifest(folder / "manifests/s.csv", videos=10_496)
    found = plan(told, "--video", "pretrain_s_vith14", "--match", "flops")
    video, image = found["video"]["flops"], found["image"]["flops"]
    assert abs(video - image) <= image / found["image"]["steps"] / 2 and found["image"]["steps"] > 4 * 232_224


def test_the_image_model_of_the_recipe_is_the_recipe_of_the_image_model(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    write_manifest(folder / "manifests/s.csv", videos=10_496)
    assert told("--video", "pretrain_s_vith14", "--match", "clips")[0] == 0
    (run,) = (run for run in all_runs(folder / "runs") if "-image-" in run.path.name)
    ours, theirs = load(PretrainConfig, run.config), build(PretrainConfig, [read_recipe("pretrain_s_image_vith14", PretrainConfig)])[0]
    assert ours.model == theirs.model and ours.train == theirs.train and ours.seed == theirs.seed
    windows = {"window_frames": 16, "window_clips": 59_449_344, "manifest": ours.data.manifest}
    assert to_dict(ours.data) == {**to_dict(theirs.data), **windows} and ours.name == "s-vith14-image-clips"


def test_a_dry_run_says_what_is_equal_and_writes_nothing(folder: Path, told: Told) -> None:
    before = sorted(folder.rglob("*"))
    code, out, err = told(*DEMO, "--match", "frames", "--dry-run", "--cluster", "local")
    assert code == 0 and out.count("#!/bin/bash") == 2, err
    lines = {line.split("  ")[1].strip(): re.split(r" {2,}", line.strip()) for line in err.splitlines() if line.startswith("  ")}
    assert lines["frames"][1:] == ["56,320", "56,320", "yes, by --match"] and lines["steps"][1:] == ["220", "3,520", "no: image 16 times video"]
    assert lines["clips"][1:] == ["3,520", "56,320", "no: image 16 times video"] and lines["frames a clip"][1:3] == ["16", "1"]
    assert lines["encoder"][1:] == ["vit_nano_patch16, 112 px", "vit_nano_patch16, 112 px", "yes"] and "no: image" in lines["flops"][3]
    assert "each of the 16 frames of each of the 3,520 clips" in err and sorted(folder.rglob("*")) == before
    code, _, err = told(*DEMO, "--match", "flops", "--dry-run", "--cluster", "local")
    assert re.search(r"flops .* yes, by --match, but for rounding", err) and "of the 16 frames of each of the 3,520 clips" in err
    assert "one frame of each of the 3,520 clips of the video model; cut out as the clip is" in told(*DEMO, "--match", "clips", "--dry-run", "--cluster", "local")[2]


@pytest.mark.parametrize(("video", "video_says", "own"), [
    ("pretrain_s_features_vith14", [], []), ("pretrain_s_vith14", ["model.norm_pix_loss=true"], []),
    ("pretrain_s_features_vith14", ["model.teacher_momentum=[0.9,1]", "model.feature_loss=smooth"], ["model.target=features"])])
def test_what_is_predicted_is_the_image_recipes_affair(folder: Path, video: str, video_says: list[str], own: list[str]) -> None:
    write_manifest(folder / "manifests/s.csv")
    more = [word for flag, items in (("--set", video_says), ("--image-set", own)) for item in items for word in (flag, item)]
    args = pair.make_parser().parse_args(["--video", video, "--match", "clips", "--cluster", "local", *more])
    found, _ = read_pair(args, choose_place(args))
    usual = build(PretrainConfig, [read_recipe("pretrain_s_image_vith14", PretrainConfig), *parse_set(own)])[0].model
    assert found.image.experiment.config.model == usual
    says = {row[0]: row[1:] for row in rows(found, str)}
    differs = ("features", "pixels", "no (model.target)") if "features" in video and not own else None
    assert says.get("predicts") == differs


def pair_record(run: RunFolder) -> dict[str, Any]:
    return (read_json(run.record) or {})["pair"]


def test_one_command_is_two_jobs_and_the_second_submits_what_is_missing(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    full = "[ $n = 102 ] && [ ! -e full ] && { touch full; echo 'Job violates accounting/QOS policy' >&2; exit 1; }"
    monkeypatch.setenv("PATH", slurm_env(folder, sbatch=full)["PATH"])
    args = [*DEMO, "--match", "frames", "--nodes", "2", "--gpus-per-node", "4", "--set", "train.device=auto", "--set", "train.micro_batch=2"]
    code, out, err = told(*args)
    assert (code, out) == (4, "101\n") and "QOS" in err
    slurm_env(folder)
    answer(folder)
    code, out, err = told(*args)
    assert (code, out) == (0, "103\n"), err
    video, image = all_runs(folder / "runs")
    assert [flags["--job-name"] for flags in script_flags(folder)] == [video.path.name, image.path.name, image.path.name]
    assert {(f["--nodes"], f["--gpus-per-node"]) for f in script_flags(folder)} == {("2", "4")}
    assert pair_record(image) == {
        "video": video.path.name, "match": "frames", "of_video": {"frames": 56320, "clips": 3520, "steps": 220, "global_batch": 16,
                                                                   "flops": pair_record(image)["of_video"]["flops"]},
        "of_image": {"frames": 56320, "clips": 56320, "steps": 3520, "global_batch": 16, "flops": pair_record(image)["of_image"]["flops"]}}
    assert f"--after {video.path.name},{image.path.name}" in err and "sweeps/fewshot.py" in err
    answer(folder)
    code, out, err = told(*args)
    assert (code, out) == (0, "") and "nothing to submit" in err
    answer(folder, "demo-image-frames")
    code, out, err = told(*args)
    assert (code, out) == (1, "") and "failed: demo-image-frames" in err and "--retry" in err
    assert told(*args, "--retry", "timeout")[1] == "", "it failed, and did not run out of time"
    code, out, err = told(*args, "--retry", "failed")
    assert (code, out) == (0, "104\n") and pair_record(image)["match"] == "frames", err
    assert (read_json(image.record) or {})["content_sha256"] == (read_json(video.record) or {})["content_sha256"]


def test_the_next_command_waits_for_both_and_tables_say_which_belong_together(
        folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    _, _, err = told(*DEMO, "--match", "clips", "--set", "train.device=auto")
    answer(folder)
    words = shlex.split(next(line for line in err.splitlines() if "sweeps/fewshot.py" in line))
    argv = [*words[2:], "--recipe", "finetune_demo", "--shots", "2", "--seeds", "0", "--method", "finetune,attentive", "--json"]
    assert fewshot.main(argv) == 0
    cells = json.loads(capsys.readouterr().out)["cells"]
    waits = " ".join(flags.get("--dependency", "") for flags in script_flags(folder)[2:])
    assert "afterok:101" in waits and "afterok:102" in waits
    video = next(run.path.name for run in all_runs(folder / "runs") if re.fullmatch("demo-[0-9a-f]{8}", run.path.name))
    assert {cell["checkpoint"]: cell.get("pair") for cell in cells} == {
        "demo": None, "demo-image-clips": f"clips of {video}", "scratch-vit_nano_patch16-16x2": None, "scratch-vit_nano_patch16-1x1": None}


def test_on_this_machine_one_is_trained_after_the_other(folder: Path, told: Told) -> None:
    profile = str(write_cell_profile(folder, pretrain="fail:0:3@-image-"))
    args = [*DEMO, "--match", "steps", "--cluster", "local", "--profile", profile, "--set", "data.workers=0"]
    code, out, err = told(*args)
    assert code == 1 and len(out.split()) == 2 and "failed: demo-image-steps" in err, err
    write_cell_profile(folder, pretrain="ok")
    code, out, err = told(*args, "--retry")
    assert code == 0 and len(out.split()) == 1, err
    video, image = all_runs(folder / "runs")
    assert image.result.exists() and video.result.stat().st_mtime < image.result.stat().st_mtime
    code, out, err = told(*args)
    assert (code, out) == (0, "") and "nothing to submit" in err
    assert f"--checkpoints {video.path.name},{image.path.name},scratch" in err and "--after" not in err


@pytest.fixture
def earlier(folder: Path) -> Path:
    """A run of earlier code, done, with a manifest of its own; and one of its cells."""
    shutil.copytree(ROOT / "tests/earlier_runs/runs", folder / "runs")
    for path in (folder / "runs").rglob("*"):
        if path.suffix in (".json", ".yaml"):
            path.write_text(path.read_text().replace("HERE", str(folder)))
    run = RunFolder(folder / "runs/done-edd1b7a1")
    write_manifest(folder / "manifests/clips.csv", videos=4)
    record = read_json(run.record) or {}
    record["content_sha256"] = json.loads((folder / "manifests/clips.json").read_text())["content_sha256"]
    write_json(run.record, record)
    return run.path


OF_RUN = ["--image-set", "model.decoder_depth=1", "--image-set", "model.mask_ratio=0.5", "--match", "frames"]


def test_a_finished_run_gets_its_image_model_alone(folder: Path, earlier: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    before = {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()}
    code, out, err = told("--video", "done-edd1", *OF_RUN)
    assert (code, out) == (0, "101\n"), err
    assert {path: path.read_bytes() for path in earlier.rglob("*") if path.is_file()} == before, "the video run is left alone"
    image = RunFolder(next((folder / "runs").glob("done-image-frames-*")))
    config, of_video = load(PretrainConfig, image.config), load(PretrainConfig, RunFolder(earlier).config)
    assert (config.data.window_frames, config.data.window_clips) == (4, 32) and pair_record(image)["video"] == earlier.name
    assert [str(phase.duration) for phase in config.train.phases] == ["16 steps"] and config.seed == of_video.seed
    same = {**to_dict(of_video.data), "window_frames": 4, "window_clips": 32}
    assert to_dict(config.data) == same and config.model.name == of_video.model.name


@pytest.mark.parametrize(("args", "said"), [
    (["--video", "demo", "--match", "pixels"], "invalid choice: 'pixels'"),
    (["--video", "demo_image", "--match", "frames"], "demo_image is an image model (model.num_frames 1)"),
    (["--video", "nothing", "--match", "frames"], "no run 'nothing'"),
    (["--video", "finetune_demo", "--match", "frames"], "is for another command"),
    (["--video", "done-motion-2shot-seed0", "--match", "frames"], "is a run of kind 'fewshot'"),
    (["--video", "done-edd", "--match", "frames", "--set", "seed=1"], "--set changes a recipe"),
    (["--video", "done-edd", "--match", "frames", "--data", "demo"], "--data changes a recipe"),
    (["--video", "demo", "--match", "frames", "--image", "demo"], "--image demo has model.num_frames 16"),
    (["--video", "demo", "--match", "frames", "--image-set", "model.img_size=224"], "--image-set model.img_size is not allowed"),
    (["--video", "demo", "--match", "frames", "--set", "model.img_size=32"], "keeps none or all of 4 tokens"),
    (["--video", "demo", "--match", "frames", "--image-set", "seed=1"], "--image-set seed is not allowed"),
    (["--video", "demo", "--match", "frames", "--image-set", "train.phases=[]"], "--image-set train.phases is not allowed"),
    (["--video", "demo", "--match", "frames", "--image-set", "data.repeat_aug=2"], "--image-set data.repeat_aug is not allowed"),
    (["--video", "demo", "--match", "frames", "--image-set", "train.globl=1"], "did you mean train.global_batch"),
    (["--video", "demo", "--match", "clips", "--image-set", "train.global_batch=8192"], "would have 0 steps"),
    (["--video", "demo", "--match", "frames", "--set", "train.init=w.pth"], "starts from weights (train.init)"),
    (["--video", "demo", "--match", "frames", "--data", "none"], "none"),
])
def test_what_cannot_be_a_pair_is_refused(folder: Path, earlier: Path, told: Told, args: list[str], said: str) -> None:
    before = sorted(folder.rglob("*"))
    code, out, err = told(*args, "--cluster", "local")
    assert (code, out) == (2, "") and said in err, err
    assert [path for path in sorted(folder.rglob("*")) if path not in before and path.name != "arrays"] == []


def test_a_run_that_lost_its_data_is_refused(folder: Path, earlier: Path, told: Told) -> None:
    args = ["--video", "done-edd1", *OF_RUN, "--cluster", "local"]
    write_manifest(folder / "manifests/clips.csv", videos=4, content="others")
    code, out, err = told(*args)
    assert (code, out) == (2, "") and "was trained on other videos than" in err
    (folder / "manifests/clips.csv").unlink()
    code, out, err = told(*args)
    assert (code, out) == (2, "") and "which is not there any more" in err, err
    record = read_json(earlier / "run.json") or {}
    write_json(earlier / "run.json", {key: value for key, value in record.items() if key != "plan"})
    assert "does not say how long it was trained" in told(*args)[2]


def test_the_objective_of_the_image_model_is_that_of_its_recipe(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    more = ["--set", "model.decoder_mask_ratio=0.5", "--set", "data.clip=frozen", "--set", "batch=8", "--image-set", "batch=32"]
    code, _, err = told(*DEMO, "--match", "frames", "--set", "train.device=auto", *more)
    assert code == 0 and "frames are as data.clip frozen arranges them, and may be equal" in err, err
    image, video = sorted((load(PretrainConfig, run.config) for run in all_runs(folder / "runs")), key=lambda config: config.model.num_frames)
    assert (video.model.decoder_mask_ratio, image.model.decoder_mask_ratio) == (0.5, 0.0)
    assert (video.train.global_batch, image.train.global_batch) == (8, 32), "short names of settings"


def test_an_order_that_shows_footage_once_is_not_shown_again(folder: Path, told: Told) -> None:
    write(folder / "manifests", saycam_names(300, parts=7))
    once = ["--video", "demo", "--image", "demo_image", "--data", "s", "--set", "data.order=windows"]
    code, _, err = told(*once, "--match", "frames", "--cluster", "local", "--dry-run")
    assert code == 2 and "data.order windows shows footage once" in err
    assert plan(told, *once, "--match", "clips")["image"]["steps"] == 220


def test_the_rates_of_the_image_model_are_its_own(folder: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", slurm_env(folder)["PATH"])
    code, _, err = told(*DEMO, "--match", "frames", "--set", "train.device=auto", "--image-set", "train.phases.0.lr=1.0e-3")
    assert code == 0, err
    rates = {run.path.name[:10]: load(PretrainConfig, run.config).train.phases[0] for run in all_runs(folder / "runs")}
    assert sorted(phase.lr for phase in rates.values()) == [8e-4, 1e-3]


def test_a_video_model_has_no_windows_of_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = ["--recipe", "demo", "--cluster", "local", "--dry-run"]
    assert pretrain.main([*local, "--set", "data.window_frames=16"]) == 2
    assert "it is for image models" in capsys.readouterr().err
    assert pretrain.main([*local, "--set", "data.window_clips=16"]) == 2
    assert "data.window_clips is 16, allowed: 0, or with data.window_frames" in capsys.readouterr().err


@pytest.mark.slow
def test_a_pair_on_real_clips_is_trained_tested_and_tabulated(folder: Path) -> None:
    manifest = make_manifest(folder)
    labelled, _ = make_labelled(folder / "labelled", train=3, val=3)
    (folder / "cell.yaml").write_text(to_yaml(build(FinetuneConfig, parse_set(CELL))[0]))
    recipe = [word for item in [*TINY, "model.img_size=64", "train.threads=1"] for word in ("--set", item)]
    args = ["--video", "demo", "--image", "demo_image", "--data", str(manifest), "--match", "frames", "--cluster", "local", *recipe]
    done = cli("sweeps/pair.py", *args, cwd=folder, timeout_s=1200)
    assert done.returncode == 0, done.stderr
    video, image = all_runs(folder / "runs")
    assert [(read_json(run.result) or {})["clips"] for run in (video, image)] == [32, 128] and len(read_metrics(image)) == 16
    words = shlex.split(next(line for line in done.stderr.splitlines() if "sweeps/fewshot.py" in line))
    few = cli("sweeps/fewshot.py", *words[2:], "--recipe", "cell.yaml", "--shots", "2", "--seeds", "0", "--data", str(labelled),
              "--method", "finetune,knn", "--cluster", "local", "--wait", cwd=folder, timeout_s=1200)
    assert few.returncode == 0 and "8 of 8 cells are done" in few.stderr, few.stderr
    tables = cli("analysis/collect.py", cwd=folder)
    assert tables.returncode == 0 and "demo-image-frames is matched to demo by frames" in (folder / "tables/fewshot.md").read_text()
    with (folder / "tables/results.csv").open() as lines:
        pairs = {row["checkpoint"]: row["pair"] for row in csv.DictReader(lines)}
    assert pairs["demo-image-frames"] == f"frames of {video.path.name}" and pairs["demo"] == "--"


@pytest.mark.slow
def test_a_released_image_mae_is_a_row_of_every_method(folder: Path) -> None:
    """As a file of facebookresearch/mae with random weights: every cell learns from it, as an image model."""
    state = {"cls_token": torch.zeros(1, 1, 96), "pos_embed": torch.randn(1, 5, 96), "patch_embed.proj.weight": torch.randn(96, 3, 16, 16),
             "patch_embed.proj.bias": torch.zeros(96), "norm.weight": torch.ones(96), "norm.bias": torch.zeros(96)}
    for name, shape in {"norm1": 96, "attn.qkv": (288, 96), "attn.proj": (96, 96), "norm2": 96, "mlp.fc1": (384, 96), "mlp.fc2": (96, 384)}.items():
        for i in range(3):
            out = shape if isinstance(shape, int) else shape[0]
            weight = torch.ones(shape) if isinstance(shape, int) else 0.05 * torch.randn(shape)
            state |= {f"blocks.{i}.{name}.weight": weight, f"blocks.{i}.{name}.bias": torch.zeros(out)}
    torch.save({"model": state}, folder / "mae.pth")
    labelled, _ = make_labelled(folder / "labelled", train=3, val=3)
    (folder / "cell.yaml").write_text(to_yaml(build(FinetuneConfig, parse_set(CELL))[0]))
    few = cli("sweeps/fewshot.py", "--checkpoints", "mae.pth,scratch", "--method", "finetune,linear,knn,attentive", "--recipe", "cell.yaml",
              "--shots", "2", "--seeds", "0", "--data", str(labelled), "--cluster", "local", "--set", "probe.token_grid=[1,2,2]",
              "--set", "keep_weights=true", "--wait", cwd=folder, timeout_s=500)
    assert few.returncode == 0 and "8 of 8 cells are done" in few.stderr, few.stderr
    assert {load(FinetuneConfig, run.config).model.num_frames for run in all_runs(folder / "runs")} == {1}
    tested = cli("sweeps/robustness.py", "mae-*", "scratch-*", "--conditions", "contrast:5", "--cluster", "local", "--wait", cwd=folder,
                 timeout_s=500)
    assert tested.returncode == 0 and "8 of 8 cells are done" in tested.stderr, tested.stderr
    shown = cli("analysis/collect.py", cwd=folder)
    assert shown.returncode == 0, shown.stderr
    with (folder / "tables/robustness.csv").open() as lines:
        rows = [row["model"] for row in csv.DictReader(lines)]
    assert len(rows) == 9 and {name.rpartition("-")[2] for name in rows} == {"finetune", "linear", "knn", "attentive", "chance"}
