"""The robustness sweep as a user types it: cells, what is refused, and a sweep on this machine with stand-ins for cells."""

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

from jobs.standing.runs import all_runs
from sweeps import robustness
from sweeps.grid.robustness_cells import find_models, make_cells, parts_of, read_set
from tests.support.labelled import write_labelled
from tests.support.launching import write_cell_profile
from tests.support.tested import make_cell
from vidmae.evaluate.corruptions.conditions import parse_conditions
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.settings.layers import to_dict

LOCAL = ["--cluster", "local"]
FLAGS = ("-h --help --data --conditions --part --sets --cues --label-map --own-classes --as-one --set "
         "--cluster --profile -N --nodes -p --partition -A --account -q --qos -t --time --gpus-per-node --tasks-per-node "
         "--ntasks-per-node -c --cpus-per-task --mem -C --constraint -x --exclude -w --nodelist -d --dependency -J --job-name "
         "--signal-delay-s --max-requeues --sbatch --notify --dry-run --over-budget --max-parallel --retry --wait --watch --runs-dir --json")


@pytest.fixture(autouse=True)
def folder(own_folder: Path) -> Path:
    """An own folder with a labelled data set and two finished cells of it, one of which kept no weights."""
    manifest = write_labelled(own_folder / "manifests")
    for seed in (0, 1):
        cell = make_cell(own_folder / "runs", manifest, f"seed={seed}", name=f"tiny-toys-2shot-seed{seed}-finetune", weights=False,
                         signature=f"0123abc{seed}")
        if not seed:
            cell.weights.write_bytes(b"weights")
    return own_folder


def sweep(*args: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which is in the folder of the test."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = robustness.main(list(args))
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())


def write_set(path: Path, files: dict[str, str]) -> Path:
    """A manifest of files by path and label."""
    write_manifest(path, [Row(name, label, 1, 1.0, 1.0, 9, 8, 8, "png", 0, 0, 0, f"{i:016x}", 1, "decord")
                          for i, (name, label) in enumerate(sorted(files.items()))], [], Check("decord", True))
    return path


def test_the_flags_are_frozen_and_the_commands_in_the_help_are_parsed() -> None:
    assert set(robustness.make_parser()._option_string_actions) == set(FLAGS.split())
    commands = re.findall(r"^    python sweeps/robustness\.py(.*)$", robustness.__doc__ or "", re.M)
    assert 2 <= len(commands) <= 3
    for command in commands:
        robustness.make_parser().parse_args(shlex.split(command))
    assert robustness.make_parser().parse_args(["--set", "workers=8"]).set == ["data.workers=8"]


def test_a_group_is_a_cell_and_clean_is_in_each() -> None:
    everything = parts_of("imagenet-c,gaussian_noise:3,contrast:1,video,clean,greyscale:1,rotation:1", None)
    names = [name for name, _ in everything]
    assert names[:2] == ["imagenet-c", "video"] and len(names) == 3, "single conditions that are new stand together"
    assert all(conditions[0] == "clean" and conditions.count("clean") == 1 for _, conditions in everything)
    texts = [text for _, conditions in everything for text in conditions[1:]]
    assert len(texts) == len(set(texts)) and texts[:75] == [c.text for c in parse_conditions("imagenet-c")] and len(everything[0][1]) == 76
    split = parts_of("imagenet-c", 20)
    assert [(name, len(conditions)) for name, conditions in split] == [(f"imagenet-c-{i}of4", n) for i, n in ((1, 21), (2, 21), (3, 21), (4, 16))]
    assert parts_of("clean", None) == [("clean", ("clean",))]
    assert [(name, len(conditions)) for name, conditions in parts_of("fog,contrast:1,snow,contrast:2", None)] == [("weather", 11), ("digital", 3)]


def test_a_dry_run_shows_the_cells_and_writes_nothing(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = sweep(*LOCAL, "tiny-toys-2shot-seed0", "--conditions", "imagenet-c,video", "--part", "25", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    parts = [cell["group"] for cell in told["cells"]]
    assert parts[:3] == [f"imagenet-c-{i}of3" for i in (1, 2, 3)] and all(cell["tested_signature"] == "0123abc0" for cell in told["cells"])
    assert len({cell["run"] for cell in told["cells"]}) == len(parts) and {cell["set"] for cell in told["cells"]} == {"toys"}
    line = next(line for line in done.stderr.splitlines() if "imagenet-c-1of3" in line)
    assert line.split()[:4] == ["tiny-toys-2shot-seed0-finetune", "toys", "imagenet-c-1of3", "26"]
    assert sorted(folder.rglob("*")) == before


def test_sets_cues_and_label_maps(folder: Path) -> None:
    paths = {f"/i/{label}/{label.split()[0].lower()}1-dropping{i}.png": label for i, label in enumerate(("Pouring [something]", "Dropping"))}
    write_set(folder / "sketches.csv", paths)
    (folder / "map.csv").write_text("label,class\nup,Covering\ndown,Dropping\n")
    write_set(folder / "other.csv", {"/o/1.png": "up", "/o/2.png": "down"})
    done = sweep(*LOCAL, "*seed0*", "--sets", "sketches=sketches.csv", "--sets", "other=other.csv", "--label-map",
                 "other=map.csv", "--own-classes", "sketches", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert [(cell["set"], cell["group"]) for cell in json.loads(done.stdout)["cells"]] == [("sketches", "clean"), ("other", "clean")]
    for args, said in ((["--sets", "other=other.csv"], "2 of 2 labels are no classes of the model, which has 3: 'down', 'up'"),
                       (["--sets", "a=sketches.csv", "--cues", "a=sketches.csv"], "two sets are called 'a'"),
                       (["--sets", "a=sketches.csv", "--label-map", "b=map.csv"], "--label-map 'b' is no set of this command, which has: a"),
                       (["--sets", "sketches"], "is not of the form NAME=FILE.csv"),
                       (["--sets", "a=none.csv"], "there is no manifest none.json"), ([], "nothing to test: give --conditions")):
        refused = sweep(*LOCAL, "*seed0*", *args, "--dry-run")
        assert refused.returncode == 2 and said in refused.stderr, (args, refused.stderr)


@pytest.mark.parametrize(("args", "said"), [
    (["*seed1*", "--conditions", "clean"], "did not keep its weights; run the cell again with --set keep_weights=true"),
    (["nothing-*", "--conditions", "clean"], "fits none of the 2 finished few-shot cells"),
    (["--conditions", "clean"], "no model is named"),
    (["*seed0*", "--conditions", "gausian_noise:3"], "gaussian_noise"),
    (["*seed0*", "--conditions", "fog:9"], "fog has the levels 1 to 5, got 9"),
    (["*seed0*", "--conditions", "clean", "--set", "model.num_frame=8"], "num_frames"),
    (["*seed0*", "--conditions", "clean", "--set", "model.num_frames=8"], "model.num_frames is 8 [from --set], allowed with tiny-toys"),
    (["*seed0*", "--conditions", "clean", "--set", "train.precision=fp16"], "train.precision is fp16, which needs a GPU"),
    (["*seed0*", "--conditions", "clean", "--set", "train.device=cuda"], "train.device is cuda, but cells have no GPU"),
    (["scratch", "--conditions", "clean"], "scratch tells no classes apart, so it must learn some"),
    (["*seed0*", "--conditions", "clean", "--data", "nowhere"], "nowhere")])
def test_what_cannot_be_tested_is_refused(folder: Path, args: list[str], said: str) -> None:
    done = sweep(*LOCAL, *args, "--dry-run")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_folders_that_are_taken_for_conditions_are_named(folder: Path) -> None:
    """Parts of a set may be called 1 to 5, too."""
    parts = {f"/i/{part}/{label}/{n}.png": label for part in ("fog/1", "fold/2") for n, label in enumerate(("Dropping", "Covering"))}
    write_set(folder / "parts.csv", parts)
    taken = sweep(*LOCAL, "*seed0*", "--sets", "parts=parts.csv", "--dry-run", "--json")
    assert "parts: its folders or names are taken for 2 conditions: 'fog:1', 'fold:2'" in taken.stderr
    one = sweep(*LOCAL, "*seed0*", "--sets", "parts=parts.csv", "--as-one", "parts", "--dry-run", "--json")
    assert one.returncode == 0 and "taken for" not in one.stderr
    assert json.loads(one.stdout)["cells"][0]["run"] != json.loads(taken.stdout)["cells"][0]["run"]
    write_set(folder / "mixed.csv", {**parts, "/i/x/y/cat/1.png": "Dropping"})
    mixed = sweep(*LOCAL, "*seed0*", "--sets", "mixed=mixed.csv", "--dry-run")
    assert mixed.returncode == 2 and "and 1 do not (rows 5)" in mixed.stderr and "--as-one mixed" in mixed.stderr
    assert "--as-one 'toys' is no set of this command" in sweep(*LOCAL, "*seed0*", "--conditions", "fog:1", "--data", "toys", "--as-one",
                                                                "toys", "--dry-run").stderr


def write_file(path: Path, classes: int, *, frames: int = 4) -> None:
    """The header of a classifier's weights, all that a launcher reads; without frames it has no positions."""
    tables = {"pos_embed_spatial": [1, 4, 96], "pos_embed_temporal": [1, frames // 2, 96]} if frames else {}
    shapes = {"patch_embed.proj.weight": [96, 3, 2, 16, 16], **tables,
              **{f"blocks.{i}.norm1.weight": [96] for i in range(3)}, **({"head.weight": [classes, 96]} if classes else {})}
    header = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def test_a_finetuned_file_is_a_model(folder: Path) -> None:
    write_file(folder / "released.safetensors", 3)
    args = [*LOCAL, "released.safetensors", "*seed0*", "--conditions", "fog:1"]
    done = sweep(*args, "--data", "toys-val", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    of_file, of_cell = sorted(json.loads(done.stdout)["cells"], key=lambda cell: len(cell["tested_signature"]), reverse=True)
    assert (of_file["checkpoint"], of_file["tested"].rpartition("-")[0], of_cell["tested_signature"]) == ("released", "released", "0123abc0")
    (model,) = find_models(["released.safetensors"], folder / "runs", read_set("toys-val", folder / "manifests/toys-val.csv"))
    assert (model.config.model.name, model.config.model.img_size, model.config.model.num_frames) == ("vit_nano_patch16", 32, 4)
    assert model.classes == ("Covering", "Dropping", "Pouring [something]")
    write_file(folder / "released.safetensors", 3, frames=8)
    again = json.loads(sweep(*args, "--data", "toys-val", "--dry-run", "--json").stdout)["cells"]
    assert of_file["run"] not in {cell["run"] for cell in again} and of_cell["run"] in {cell["run"] for cell in again}
    assert "tells 3 classes apart, and does not say their names" in sweep(*args, "--dry-run").stderr
    write_file(folder / "released.safetensors", 5)
    assert "tells 5 classes apart, and toys-val has 3" in sweep(*args, "--data", "toys-val", "--dry-run").stderr
    write_file(folder / "released.safetensors", 0)
    assert "python sweeps/fewshot.py --checkpoints" in sweep(*args, "--data", "toys-val", "--dry-run").stderr
    (folder / "released.safetensors").write_bytes(b"no weights")
    assert "is no safetensors file, or is cut off" in sweep(*args, "--data", "toys-val", "--dry-run").stderr


def test_a_published_name_is_a_model_and_what_its_file_does_not_say_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("VIDMAE_WEIGHTS", "put"), ("HF_HUB_CACHE", "hub"), ("HF_HUB_OFFLINE", "1")):
        monkeypatch.setenv(name, value)
    (folder / "put/me--tiny").mkdir(parents=True)
    write_file(folder / "put/me--tiny/jepa.safetensors", 3, frames=0)
    args = ["--data", "toys-val", "--conditions", "fog:1", "--dry-run", "--json"]
    done = sweep(*LOCAL, "hf://me/tiny/jepa.safetensors", *args)
    assert done.returncode == 0, done.stderr
    assert [cell["checkpoint"] for cell in json.loads(done.stdout)["cells"]] == ["jepa"]
    assert "jepa: 256 px, 64 frames: taken as in the released models, the file does not say" in done.stderr
    gone = sweep(*LOCAL, "hf://me/tiny/none.safetensors", *args)
    assert gone.returncode == 2 and "none.safetensors is not on this machine" in gone.stderr
    assert "say_ssv2-50shot.pth is not on this machine" in sweep(*LOCAL, "say_ssv2-50shot", *args).stderr


def test_settings_that_change_no_result_make_no_other_cell(folder: Path) -> None:
    def run_of(*args: str) -> str:
        done = sweep(*LOCAL, "*seed0*", "--conditions", "fog:1", "--dry-run", "--json", *args)
        return str(json.loads(done.stdout)["cells"][0]["run"])

    assert run_of() == run_of("--set", "evaluate.batch=64", "--set", "data.workers=9") != run_of("--set", "evaluate.views=10x3")


def test_folders_have_a_meaning_in_sets_that_are_tested_as_they_are(folder: Path) -> None:
    (model,) = find_models(["*seed0*"], folder / "runs")
    clips = read_set("toys", Path(model.config.data.val_manifest))
    parts = [("clean", ("clean",)), ("weather", ("clean", "fog:1"))]
    by_conditions, as_it_is = (make_cells([model], {model.signature: [(each, parts)]}, []) for each in (clips, replace(clips, by_folder=True)))
    assert [cell.config.tested.by_folder for cell in by_conditions] == [False, True], "True is the default, and not signed"
    assert by_conditions[0].signature != as_it_is[0].signature and by_conditions[1].signature == as_it_is[1].signature
    assert "by_folder" not in to_dict(as_it_is[0].config, signed_only=True)["tested"]


def test_a_sweep_here_runs_every_cell_and_the_same_command_submits_nothing(folder: Path) -> None:
    profile = write_cell_profile(folder, FAILS="part-never")
    args = [*LOCAL, "*seed0*", "--conditions", "noise,blur", "--part", "10", "--profile", str(profile)]
    done = sweep(*args, "--wait", "--max-parallel", "2")
    assert done.returncode == 0 and done.stdout.strip().isdecimal(), done.stderr
    found = [run for run in all_runs(folder / "runs") if json.loads(run.record.read_text()).get("kind") == "robustness"]
    assert len(found) == 4 and all(run.result.exists() for run in found)
    again = sweep(*args)
    assert again.returncode == 0 and again.stdout == "" and "nothing to submit: 4 done" in again.stderr
    assert "python analysis/robustness.py runs" in again.stderr
