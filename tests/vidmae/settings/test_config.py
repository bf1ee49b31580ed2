"""Recipes, layers and their errors."""

import dataclasses
import re
from pathlib import Path

import pytest

from vidmae.settings.config import RECIPES, PretrainConfig, find_recipe
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import (
    ConfigError,
    Layer,
    build,
    flatten,
    load,
    parse_set,
    read_yaml,
    replacements,
    to_dict,
    to_yaml,
)
from vidmae.settings.recipe import read_recipe
from vidmae.settings.schedule import Duration, Phase

RECIPE_NAMES = sorted(p.stem for p in RECIPES.glob("*.yaml"))


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_loads_and_survives_a_round_trip(name, tmp_path):
    schema = FinetuneConfig if name.startswith("finetune") else PretrainConfig
    config, _ = build(schema, [read_yaml(find_recipe(name))])
    assert load(schema, recipe(tmp_path, to_yaml(config))) == config and config.model.shape()


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_every_recipe_opens_with_command_cost_expected_and_source(name):
    head = "".join(line for line in find_recipe(name).read_text().splitlines(True) if line.startswith("#"))
    assert [m for m in ("Command:", "Cost:", "Expected:", "Source:") if m not in head] == []
    assert re.search(r"python jobs/pretrain.py|python sweeps/(fewshot|objects).py|make demo", head)


def test_image_recipes_differ_from_those_of_videos_in_what_is_seen_alone():
    for image, video in (("pretrain_s_image_vith14", "pretrain_s_vith14"), ("demo_image", "demo")):
        theirs, ours = (build(PretrainConfig, [read_yaml(find_recipe(name))])[0] for name in (image, video))
        assert (theirs.model.num_frames, theirs.model.t_patch_size, theirs.model.pred_t_dim) == (1, 1, 1)
        assert (theirs.model.name, theirs.model.img_size) == (ours.model.name, ours.model.img_size)
        assert theirs.train.global_batch == ours.train.global_batch
    assert build(PretrainConfig, [read_yaml(find_recipe("pretrain_s_image_vith14"))])[0].train == build(
        PretrainConfig, [read_yaml(find_recipe("pretrain_s_vith14"))])[0].train


def test_published_recipe_numbers():
    """Field facts of arXiv 2402.00300 v3: epochs per phase, rates, clips per step, repeats."""
    facts = {"pretrain_s_vith14": (339, 15, 16), "pretrain_say_vith14": (122, 15, 16),
             "pretrain_kinetics_vith14": (151, 11, 1), "pretrain_kinetics-200h_vith14": (222, 15, 1)}
    for name, (first, second, repeats) in facts.items():
        config, _ = build(PretrainConfig, [read_yaml(find_recipe(name))])
        phases = config.train.phases
        assert [(p.duration, p.lr, p.schedule) for p in phases] == [
            (Duration(first, "epochs"), 1e-4, "constant"), (Duration(second, "epochs"), 1e-5, "constant")]
        assert (config.train.global_batch, config.data.repeat_aug) == (256, repeats)
        assert (config.train.betas, config.train.weight_decay, config.train.clip_grad) == ((0.9, 0.95), 0.05, 0.1)
        assert (config.model.name, config.model.mask_ratio, config.model.norm_pix_loss) == (
            "mae_vit_huge_patch14", 0.9, False)


def test_later_layers_win_and_every_leaf_knows_its_origin(tmp_path):
    path = recipe(tmp_path, "seed: 1\ntrain:\n  global_batch: 64\n  phases:\n    - {duration: 2 epochs, lr: 1e-4}\n")
    profile = Layer("cluster.yaml", {"train": {"micro_batch": 8, "global_batch": 128}})
    config, origin = build(PretrainConfig, [read_yaml(path), profile, *parse_set(["train.phases.0.lr=3e-5", "seed=7"])])
    assert (config.seed, config.train.global_batch, config.train.micro_batch) == (7, 128, 8)
    assert config.train.phases == (Phase(Duration(2, "epochs"), 3e-5),)
    assert set(origin) == set(flatten(config))
    assert origin["seed"] == "--set" and origin["train.phases.0.lr"] == "--set"
    assert origin["train.global_batch"] == "cluster.yaml" and origin["model.name"] == "default"
    assert origin["train.phases.0.duration"] == f"{path}:5" and origin["train.phases.0.schedule"] == "default"


@pytest.mark.parametrize(("given", "item", "want", "gave_way"), [
    ("lr: null, blr: 1.2e-3", "lr=1e-3", (1e-3, None), "--set gives lr 1e-3, which takes the place of train.phases.0.blr 0.0012"),
    ("lr: 5.0e-4", "blr=2e-3", (None, 2e-3), "--set gives blr 2e-3, which takes the place of train.phases.0.lr 0.0005"),
    ("lr: 5.0e-4", "lr=1e-3", (1e-3, None), ""), ("lr: null, blr: 1.2e-3", "blr=2e-3", (None, 2e-3), "")])
def test_of_two_ways_to_say_a_learning_rate_the_later_counts_and_it_is_said(tmp_path, given, item, want, gave_way):
    base = read_yaml(recipe(tmp_path, f"train:\n  phases:\n    - {{duration: 2 epochs, {given}}}\n"), "recipe r.yaml")
    config, origins = build(PretrainConfig, [base, *parse_set([f"train.phases.0.{item}"])])
    assert (config.train.phases[0].lr, config.train.phases[0].blr) == want
    assert replacements(origins) == ([f"{gave_way} [recipe r.yaml:3]"] if gave_way else [])
    written = PretrainConfig(train=dataclasses.replace(config.train, phases=(Phase(Duration(2, "epochs"), *want),)))
    assert to_dict(config, signed_only=True) == to_dict(written, signed_only=True)


@pytest.mark.parametrize(("text", "expected"), [
    ("train:\n  glbal_batch: 3\n", r"r\.yaml:2: unknown key 'train\.glbal_batch', did you mean train\.global_batch"),
    ("seed: 1\nseed: 2\n", r"r\.yaml:2: seed stands twice, first in line 1"),
    ("train: 3\n", r"r\.yaml:1: train must hold `key: value` lines, not 3"),
    ("- 1\n", "must hold `key: value` lines"),
    ("a: [\n", "not valid YAML"),
    ("train:\n  zero_stage: 4\n", r"r\.yaml:2: train\.zero_stage is 4, allowed: 0, 1, 2, 3"),
    ("train:\n  zero_stage: true\n", "zero_stage is True"),
    ("train:\n  global_batch: 0\n", r"train\.global_batch is 0, allowed: 1 or more clips .*r\.yaml:2"),
    ("train:\n  global_batch: 2.5\n", "a whole number"),
    ("train:\n  phases: []\n", "at least one phase"),
    ("train:\n  phases:\n    - {duration: soon}\n", "'soon' is no duration; write for example 1000 steps"),
    ("train:\n  phases:\n    - {lr: 1e-4, blr: 1e-3}\n", "set exactly one"),
    ("train: {precision: fp16, zero_stage: 0}\n", "loss scaler"),
    ("train: {offload: optimizer, zero_stage: 0}\n", r"train\.offload is 'optimizer', allowed: none with train\.zero_stage 0"),
    ("train: {compile: true, zero_stage: 3}\n", r"train\.compile is True, allowed: auto or false with train\.zero_stage 3"),
    ("train: {compile: 1}\n", r"train\.compile is 1, allowed: auto, graphs, True, False"),
    ("train: {compile: graphs}\nmodel: {activation_checkpointing: 2}\n", r"train\.compile is 'graphs', allowed: auto, true or false with"),
    ("train: {micro_batch: most}\n", r"r\.yaml:1: train\.micro_batch is 'most', allowed: auto or a whole number"),
    ("train: {micro_batch: 0}\n", r"train\.micro_batch is 0, allowed: auto, or 1 or more clips"),
    ("model: {activation_checkpointing: 0}\n", r"model\.activation_checkpointing is 0, allowed: false, true"),
    ("model: {activation_checkpointing: some}\n", "allowed: true or false or a whole number"),
    ("log: {profile_steps: 101}\n", r"log\.profile_steps is 101, allowed: 0 \(off\) to 100 steps"),
    ("model:\n  norm_pix_loss: 1\n", "true or false"),
    ("model:\n  mask_ratio: 1\n", r"model\.mask_ratio is 1\.0, allowed: between 0 and 1"),
    ("model:\n  num_frames: 15\n", r"a positive multiple of model\.t_patch_size 2"),
    ("data:\n  crop_area: [0.5]\n", "a list of 2"),
    ("data:\n  crop_area: [0.9, 0.5]\n", "0 < lowest <= highest <= 1"),
    ("data:\n  read_limit_s: -1\n", r"data\.read_limit_s is -1\.0, allowed: 0 \(no limit\) or more seconds"),
    ("data:\n  read_retries: -1\n", r"data\.read_retries is -1, allowed: 0 or more tries"),
    ("data:\n  max_bad_pct: 101\n", r"data\.max_bad_pct is 101\.0, allowed: 0 to 100 percent"),
    ("checkpoint: {every_steps: 400, keep_every: 1000}\n", r"multiple of checkpoint\.every_steps 400"),
    ("seed: .nan\n", "a whole number"),
    ("name: ../x\n", "letters, digits"),
])
def test_bad_recipes_are_refused_with_place_and_range(tmp_path, text, expected):
    with pytest.raises(ConfigError, match=expected):
        build(PretrainConfig, [read_yaml(recipe(tmp_path, text))])


@pytest.mark.parametrize(("item", "expected"), [
    ("seed", "is not of the form"), ("=3", "is not of the form"), ("train.phases.5.lr=1", "'5' is no index of a list"),
    ("nme=3", "did you mean name"), ("lr=1", r"did you mean train\.phases\.0\.lr\?"), ("train.lr=1", r"did you mean train\.phases\.0\.lr\?"),
    ("flip_prob=0", r"did you mean data\.flip_prob\?"), ("data.flip_probb=0", r"did you mean data\.flip_prob\?"),
    ("train.phases.0.lrr=1", r"did you mean train\.phases\.0\.lr"), ("quark=1", r"'quark'; valid here"),
    ("seed=[", "not valid YAML")])
def test_bad_set_flags_are_refused(item, expected):
    base = Layer("recipe", {"train": {"phases": [{"lr": 1e-4}]}})
    with pytest.raises(ConfigError, match=expected):
        build(PretrainConfig, [base, *parse_set([item])])


def test_unknown_recipe_lists_those_there_are():
    with pytest.raises(ConfigError, match=r"did you mean pretrain_s_vith14.*demo"):
        find_recipe("pretrain_s_vit14")


@pytest.mark.parametrize(("name", "schema", "command"), [
    ("finetune_demo", PretrainConfig, "python sweeps/fewshot.py --recipe finetune_demo"),
    ("demo", FinetuneConfig, "python jobs/pretrain.py --recipe demo")])
def test_a_recipe_of_the_other_kind_names_the_command_that_takes_it(name, schema, command):
    with pytest.raises(ConfigError, match=command):
        read_recipe(name, schema)


def test_a_recipe_that_fits_no_schema_is_not_said_to_be_of_the_other_kind(tmp_path):
    path = recipe(tmp_path, "train: {glbal_batch: 3}\n")
    with pytest.raises(ConfigError, match="did you mean train"):
        build(PretrainConfig, [read_recipe(str(path), PretrainConfig)])


def test_only_what_changes_the_experiment_is_signed():
    base = PretrainConfig()
    same = dataclasses.replace(
        base, log=dataclasses.replace(base.log, every_s=1.0, profile_steps=5),
        data=dataclasses.replace(base.data, workers=1, manifest="x", read_limit_s=0, read_retries=3, max_bad_pct=5),
        train=dataclasses.replace(base.train, micro_batch="auto", zero_stage=2, compile=True, offload="optimizer",
                                  deterministic=True),
        model=dataclasses.replace(base.model, activation_checkpointing=4),
        checkpoint=dataclasses.replace(base.checkpoint, every_steps=7))
    other = dataclasses.replace(base, train=dataclasses.replace(base.train, weight_decay=0.1))
    assert to_dict(same, signed_only=True) == to_dict(base, signed_only=True)
    assert to_dict(other, signed_only=True) != to_dict(base, signed_only=True)


def test_a_setting_of_a_later_version_is_signed_where_it_is_not_at_its_default():
    """So the runs of before keep their signatures."""
    base, half = PretrainConfig(), build(PretrainConfig, parse_set(["model.decoder_mask_ratio=0.5"]))[0]
    key = "decoder_mask_ratio"
    assert key in to_dict(base)["model"] and key not in to_dict(base, signed_only=True)["model"]
    assert to_dict(half, signed_only=True)["model"] == {**to_dict(base, signed_only=True)["model"], key: 0.5}


@pytest.mark.parametrize("ratio", ["1", "-0.5"])
def test_a_decoder_must_rebuild_something(ratio):
    with pytest.raises(ConfigError, match=r"model\.decoder_mask_ratio is .*allowed: from 0 .* to below 1"):
        build(PretrainConfig, parse_set([f"model.decoder_mask_ratio={ratio}"]))


def test_features_are_another_experiment_with_another_name():
    def config(*settings):
        return build(PretrainConfig, parse_set(settings))[0]

    base, features = config(), config("model.target=features")
    assert to_dict(features, signed_only=True)["model"] == {**to_dict(base, signed_only=True)["model"], "target": "features"}
    assert not {"target", "feature_loss", "teacher_momentum"} & set(to_dict(base, signed_only=True)["model"])
    tags = ["-".join(config("model.target=features", *more).model.tags) for more in (
        (), ["model.feature_loss=smooth"], ["model.teacher_momentum=[0.99925,0.99925]"], ["model.teacher_momentum=[0.9,1]"],
        ["model.decoder_mask_ratio=0.5"])]
    assert tags == ["features", "features-smooth", "features-ema0.99925", "features-ema0.9to1", "features-decoder50"]
    assert base.model.tags == () and features.model.shape().pred_dim == 1280 != base.model.shape().pred_dim
    for frames in (6, 8, 32):  # 3, 4 and 16 time slots, of which 16 frames of pixels are no multiple or more than there are
        assert config("model.target=features", f"model.num_frames={frames}").model.shape().pred_dim == 1280, "pred_t_dim has no meaning"
    with pytest.raises(ConfigError, match=r"model\.pred_t_dim is 16, allowed: 1 to model\.num_frames 8"):
        config("model.num_frames=8")


@pytest.mark.parametrize(("settings", "said"), [
    (["model.target=features", "log.picture=true"], r"log\.picture is True, allowed: false with model\.target features.*--set log\.picture"),
    (["model.target=features", "model.norm_pix_loss=true"], r"model\.norm_pix_loss is True, allowed: false with model\.target features"),
    (["model.target=features", "model.teacher_momentum=[0.9,1.1]"], r"model\.teacher_momentum is \[0\.9, 1\.1\], allowed: 0 <= first <= last <= 1"),
    (["model.teacher_momentum=[0.9,1]"], r"model\.teacher_momentum is .*allowed: \[0\.998, 1\.0\] with model\.target pixels"),
    (["model.feature_loss=smooth"], r"model\.feature_loss is 'smooth', allowed: l1 with model\.target pixels")])
def test_what_does_not_go_with_features_or_with_pixels(settings, said):
    with pytest.raises(ConfigError, match=said):
        build(PretrainConfig, parse_set(settings))


def test_near_windows_are_longer_than_a_clip():
    """As short as a clip they would all be one window, which is another setting."""
    def config(*more):
        return build(PretrainConfig, parse_set(["data.repeat_window=near", *more]))[0]

    assert config("data.repeat_near_s=4.3").data.repeat_near_s == 4.3 and config("model.num_frames=32").spans_s == {"a clip": 256 / 30}
    with pytest.raises(ConfigError, match=r"data.repeat_near_s is 4.2, allowed: more than the 4.267 s that a clip covers.*--set data.repeat_near_s"):
        config("data.repeat_near_s=4.2")
    sources = "data.sources=[{name: s}, {name: slow, sampling_rate: 20}]"
    assert config("data.repeat_near_s=11", sources)
    with pytest.raises(ConfigError, match=r"is 10.0, allowed: more than the 10.67 s that a clip of slow covers"):
        config(sources)
    assert build(PretrainConfig, parse_set(["data.repeat_near_s=1"]))[0].data.repeat_window == "own", "not asked where windows are not near"
    with pytest.raises(ConfigError, match=r"more than the 4\.267 s"):
        build(FinetuneConfig, parse_set(["data.repeat_window=near", "data.repeat_near_s=2"]))
