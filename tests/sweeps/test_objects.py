"""The objects sweep: the few-shot sweep with other defaults; shares, pictures, and image models beside video models."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from jobs.place.catalogue import Catalogue
from sweeps import fewshot, objects
from sweeps.grid.estimate import estimate
from sweeps.grid.grid import Init, Settings, make_grid
from sweeps.grid.labelled import find_sets, find_subsets
from tests.support.labelled import write_labelled
from vidmae.labels.shots import ShotsError, read_shots
from vidmae.settings.config import find_recipe
from vidmae.settings.layers import ConfigError, read_yaml

VIDEO = Init("s", "/w/s.safetensors", "run:1a2b3c4d", {"model": {"name": "vit_nano_patch16", "img_size": 64}})
IMAGE = Init("s-image", "/w/i.safetensors", "run:5e6f7a8b",
             {"model": {"name": "vit_nano_patch16", "img_size": 64, "num_frames": 1, "t_patch_size": 1}})
LOCAL = ["--recipe", "finetune_demo", "--checkpoints", "scratch", "--cluster", "local", "--dry-run"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    write_labelled(tmp_path / "manifests", "imagenet", per_class=200, pictures=True)
    return tmp_path


def settings(**changes: object) -> Settings:
    base = Settings([read_yaml(find_recipe("finetune_demo"))], (), [()], ["finetune"], None, None, "/runs/features")
    return replace(base, **changes)  # type: ignore[arg-type]


def test_the_flags_are_those_of_the_few_shot_sweep() -> None:
    ours, theirs = (command.make_parser()._option_string_actions for command in (objects, fewshot))
    assert set(ours) == set(theirs)
    commands = re.findall(r"^    python sweeps/objects\.py(.*)$", objects.__doc__ or "", re.M)
    assert len(commands) == 3
    for command in commands:
        args = objects.make_parser().parse_args(shlex.split(command))
        assert args.recipe == "finetune_imagenet" and args.data == ["imagenet"]
    assert objects.make_parser().parse_args([]).fractions == [0.01, 0.02]


def test_pictures_need_not_be_prepared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert objects.main([*LOCAL, "--prepare"]) == 2
    assert "imagenet: pictures are read as they are, and nothing need be prepared; leave out --prepare" in capsys.readouterr().err
    write_labelled(folder / "manifests", "toys", per_class=200)
    assert fewshot.main([*LOCAL, "--shots", "1", "--prepare", "--json"]) == 0
    told = capsys.readouterr()
    assert "left out, since pictures are read as they are: imagenet" in told.err
    assert {cell["data"] for cell in json.loads(told.out)["cells"]} == {"toys"}


def test_a_grid_of_shares(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(folder.rglob("*"))
    assert objects.main([*LOCAL, "--fractions", "0.02,0.1,1", "--seeds", "0,1", "--json"]) == 0
    told = capsys.readouterr()
    cells = json.loads(told.out)["cells"]
    assert [(c.get("fraction", 0), c["shots"], c["pictures"], c["seed"]) for c in cells] == [
        (share, 0, True, seed) for seed in (0, 1) for share in (0, 0.02, 0.1)]
    assert {c["run"].rpartition("-")[0] for c in cells if c["seed"] == 0} == {
        f"scratch-imagenet-{amount}-seed0-finetune" for amount in ("all", "2pct", "10pct")}
    assert len({c["run"][-8:] for c in cells}) == 6 and [line.split()[3] for line in told.err.splitlines() if " imagenet " in line] == [
        "all", "2%", "10%"]
    assert sorted(folder.rglob("*")) == before, "a dry run writes nothing"


def test_shares_are_drawn_once_and_kept(folder: Path) -> None:
    (data,) = find_sets(["imagenet"], Catalogue())
    assert data.pictures
    ask = {"listing": None, "allow_fewer": False}
    first, second = find_subsets([data], [0.02, 1.0], [0], write=True, **ask)
    kept = read_shots(folder / "manifests/imagenet.shots2pct-seed0.json")
    assert (second.clips, second.content, second.amount) == (12, kept.content_sha256, "2%") and (first.clips, first.path) == (600, "")
    assert find_subsets([data], [0.02], [0], write=False, **ask) == [second]
    kept_path = folder / "manifests/imagenet.shots2pct-seed0.json"
    kept_path.rename(kept_path.with_name("imagenet.shots10pct-seed0.json"))
    with pytest.raises(ShotsError, match="holds 2 % of seed 0; delete it"):
        find_subsets([data], [0.1], [0], write=True, **ask)
    write_labelled(folder / "manifests", "imagenet", per_class=300, pictures=True)
    kept_path.with_name("imagenet.shots10pct-seed0.json").rename(kept_path)
    (data,) = find_sets(["imagenet"], Catalogue())
    with pytest.raises(ShotsError, match="other clips would be drawn now"):
        find_subsets([data], [0.02], [0], write=True, **ask)


def test_frame_by_frame_is_for_image_models(capsys: pytest.CaptureFixture[str]) -> None:
    (data,) = find_sets(["imagenet"], Catalogue())
    subsets = find_subsets([data], [0.02], [0], listing=None, allow_fewer=False, write=True)
    by_name = {cell.init.name: cell for cell in make_grid([VIDEO, IMAGE], subsets, settings(views="frames16"))}
    assert {name: cell.config.evaluate.views for name, cell in by_name.items()} == {"s": "center", "s-image": "frames16"}
    plain = {cell.init.name: cell for cell in make_grid([VIDEO, IMAGE], subsets, settings())}
    assert plain["s"].signature == by_name["s"].signature and plain["s-image"].signature != by_name["s-image"].signature
    one, many = (estimate([each["s-image"]])[0].flops for each in (plain, by_name))
    tested = many - one
    assert tested > 0 and estimate([by_name["s"]]) == estimate([plain["s"]])
    (record,) = (cell.record("x") for cell in [by_name["s"]])
    assert (record["fraction"], record["pictures"], record["shots"]) == (0.02, True, 0)
    assert objects.main([*LOCAL, "--views", "frames16"]) == 0
    said = "is for models of single frames; scratch sees the frames of a clip at once"
    assert f"--views frames16 {said}" in capsys.readouterr().err
    recipe = yaml.safe_load(find_recipe("finetune_demo").read_text())
    Path("frames.yaml").write_text(yaml.safe_dump({**recipe, "evaluate": {**recipe.get("evaluate", {}), "views": "frames16"}}))
    assert objects.main(["--recipe", "frames.yaml", *LOCAL[2:]]) == 0
    assert f"evaluate.views framesN {said}" in capsys.readouterr().err


def test_every_method_is_for_image_models_too() -> None:
    (data,) = find_sets(["imagenet"], Catalogue())
    subsets = find_subsets([data], [0.02], [0], listing=None, allow_fewer=False, write=False)
    cells = make_grid([VIDEO, IMAGE], subsets, settings(methods=["finetune", "linear", "knn", "attentive"]))
    assert len(cells) == 8
    assert {(c.init.name, c.method): c.config.probe.token_grid for c in cells if c.method in ("attentive", "knn")} == {
        ("s", "attentive"): (8, 4, 4), ("s", "knn"): (8, 4, 4), ("s-image", "attentive"): (1, 4, 4), ("s-image", "knn"): (8, 4, 4)}


@pytest.mark.parametrize(("args", "said"), [
    (["--fractions", "0"], "above 0 and at most 1"), (["--fractions", "2"], "above 0 and at most 1"), (["--fractions", "x"], "not a share"),
    (["--fractions", "0.1", "--shots", "2"], "not allowed with"), (["--set", "data.fraction=0.5"], "--fractions"),
    (["--data", "nowhere"], "nowhere"), (["--set", "data.decoder=decord"], "was checked with others: 600 with pillow")])
def test_what_cannot_be_is_refused(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = objects.main([*LOCAL, *args])
    except SystemExit as left:
        code = int(str(left.code))
    told = capsys.readouterr()
    assert code == 2 and said in told.err and told.out == "", told.err


def test_a_setting_of_the_sweep_cannot_be_set() -> None:
    (data,) = find_sets(["imagenet"], Catalogue())
    subsets = find_subsets([data], [0.02], [0], listing=None, allow_fewer=False, write=False)
    with pytest.raises(ConfigError, match="--fractions"):
        make_grid([VIDEO], subsets, settings(overrides=("data.fraction=0.1",)))
