"""What a sweep can start from: finished runs, files, random weights, a convolutional net."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sweeps.grid.checkpoints import find_inits
from sweeps.grid.estimate import conv_said, estimate
from sweeps.grid.grid import Init
from tests.sweeps.test_grid import SCRATCH, grid
from vidmae.footage.manifest import content_hash
from vidmae.runs.record import RunFolder, make_private_folder, write_json
from vidmae.settings.config import PretrainConfig, find_recipe
from vidmae.settings.layers import ConfigError, build, parse_set, read_yaml, to_dict, to_yaml


def make_pretrained(runs: Path, name: str, *sets: str, done: bool = True) -> RunFolder:
    """A finished pretraining run, as far as a sweep looks at it."""
    config, _ = build(PretrainConfig, [read_yaml(find_recipe("demo")), *parse_set([f"name={name}", *sets])])
    sign = hashlib.sha256(repr((name, sets)).encode()).hexdigest()[:8]
    run = RunFolder(make_private_folder(runs / f"{name}-{sign}"))
    run.config.write_text(to_yaml(config))
    write_json(run.record, {"kind": "pretrain", "signature": sign, "submissions": []})
    if done:
        write_json(run.result, {"kind": "pretrain"})
        run.weights.write_bytes(b"weights")
    return run


def test_checkpoints_are_the_finished_runs_and_scratch(tmp_path: Path) -> None:
    a, b = make_pretrained(tmp_path, "a"), make_pretrained(tmp_path, "b", "data.sampling_rate=2")
    make_pretrained(tmp_path, "unfinished", done=False)
    cell = RunFolder(make_private_folder(tmp_path / "a-toys-2shot-seed0-knn-00000000"))
    write_json(cell.record, {"kind": "fewshot", "submissions": []})
    found = {init.name: init for init in find_inits([], [], tmp_path)}
    assert set(found) == {"a", "b", "scratch"}
    assert found["a"].weights == str(a.weights) and found["a"].content == f"run:{a.path.name[-8:]}"
    assert found["b"].settings == {"model": {"name": "vit_nano_patch16", "img_size": 112, "num_frames": 16, "t_patch_size": 2},
                                   "data": {"sampling_rate": 2, "target_fps": 30.0}}
    assert found["scratch"].content == found["scratch"].weights == "" and found["scratch"].settings == found["a"].settings
    assert find_inits(["a"], [], tmp_path)[0].content == found["a"].content, "cells that begin with the name are no runs"
    twin = make_pretrained(tmp_path, "a", "seed=1")
    assert {init.name for init in find_inits([], [], tmp_path)} == {a.path.name, twin.path.name, "b", "scratch"}
    with pytest.raises(ConfigError, match=r"unfinished-.* is not done and nothing works on it"):
        find_inits(["unfinished"], [], tmp_path)
    b.weights.unlink()
    with pytest.raises(ConfigError, match="its weights are gone"):
        find_inits(["b"], [], tmp_path)
    assert find_inits(["scratch"], [], tmp_path)[0] == SCRATCH


def test_scratch_once_for_every_shape(tmp_path: Path) -> None:
    for name, size in (("a", 112), ("b", 224), ("c", 112)):
        make_pretrained(tmp_path, name, f"model.img_size={size}")
    make_pretrained(tmp_path, "d", "model.name=mae_vit_small_patch16")
    names = [init.name for init in find_inits([], [], tmp_path)]
    assert names == ["a", "b", "c", "d", "scratch-vit_nano_patch16-112px", "scratch-vit_nano_patch16-224px",
                     "scratch-vit_small_patch16"]


def test_a_convolutional_net_of_equal_flops_is_a_checkpoint(tmp_path: Path) -> None:
    make_pretrained(tmp_path, "a", "data.sampling_rate=2")
    make_pretrained(tmp_path, "b", "model.img_size=224")
    make_pretrained(tmp_path, "c", "model.temporal_positions=false")
    inits = {init.name: init for init in find_inits(["a", "c", "scratch", "conv"], [], tmp_path)}
    assert list(inits) == ["a", "c", "scratch-vit_nano_patch16", "scratch-vit_nano_patch16-no-time-table", "conv"]
    size = {"name": "vit_nano_patch16", "img_size": 112, "num_frames": 16, "t_patch_size": 2}
    assert inits["c"].settings["model"] == inits["scratch-vit_nano_patch16-no-time-table"].settings["model"] == {
        **size, "temporal_positions": False}
    assert inits["conv"].settings == {"model": {**size, "net": "conv", "pool": "mean"}, "train": {"layer_decay": 1.0},
                                      "data": {"sampling_rate": 2, "target_fps": 30.0}}
    names = [init.name for init in find_inits(["a", "b", "conv"], [], tmp_path)]
    assert names == ["a", "b", "conv-vit_nano_patch16-112px", "conv-vit_nano_patch16-224px"]
    (alone,) = find_inits(["conv"], [], tmp_path)
    assert alone.name == "conv" and "name" not in alone.settings["model"], "the recipe's"
    pair = grid([inits["a"], inits["c"], inits["conv"], Init("scratch", settings=inits["a"].settings)], methods=["finetune", "linear"])
    assert len({cell.signature for cell in pair}) == 8
    contents = {cell.init.name: cell.record("")["checkpoint_content"] for cell in pair}
    assert contents["conv"] == "conv:vit_nano_patch16-112px-16x2" and contents["scratch"] == "scratch:vit_nano_patch16-112px-16x2"
    no_table = grid([inits["scratch-vit_nano_patch16-no-time-table"]])[0].record("")
    assert no_table["checkpoint_content"] == "scratch:vit_nano_patch16-112px-16x2-no-time-table"
    same = {**to_dict(pair[6].config, signed_only=True), "name": ""}  # from scratch: clips, epochs and rates are those of conv
    conv = {**to_dict(pair[4].config, signed_only=True), "name": ""}
    assert conv.pop("model") == {**same.pop("model"), "net": "conv", "pool": "mean"}
    assert {**conv.pop("train"), "layer_decay": 0.0} == {**same.pop("train"), "layer_decay": 0.0} and conv == same
    costs = estimate([pair[4], pair[6]])
    assert costs[0].flops == pytest.approx(costs[1].flops, rel=0.15), "the gradient of pixels, which nobody computes"
    said = conv_said(pair[4])
    assert said.startswith("conv: an R(2+1)D of width 5, 0.2 M parameters, 1.5") and ", as vit_nano_patch16 takes (-0." in said
    assert conv_said(pair[6]) == ""
    with pytest.raises(ConfigError, match=r"conv: method is attentive, .*allowed: finetune, linear, knn"):
        grid([inits["conv"]], methods=["attentive"])
    with pytest.raises(ConfigError, match=r"conv: no convolutional net takes"):
        grid([inits["conv"]], overrides=("model.name=vit_pico_patch16", "model.img_size=32"))


def test_files_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, released, other = tmp_path / "my weights.safetensors", tmp_path / "say.pth", tmp_path / "bare.safetensors"
    config = {"name": "mae_vit_nano_patch16", "img_size": 448, "num_frames": 8, "t_patch_size": 2, "mask_ratio": 0.9}
    shapes = {"patch_embed.proj.weight": (96, 3, 2, 16, 16), "pos_embed_spatial": (1, 784, 96), "pos_embed_temporal": (1, 4, 96)}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in (shapes | {f"blocks.{i}.norm1.bias": (96,) for i in range(3)}).items()}
    save_file(tensors, ours, metadata={"model": config["name"], "config": json.dumps(config)})
    save_file(tensors, other)
    released.write_bytes(b"zip")
    first, second, third = find_inits([str(ours), str(released), str(other)], [], tmp_path)
    assert first.settings == third.settings == {"model": {"name": "vit_nano_patch16", "img_size": 448, "num_frames": 8, "t_patch_size": 2}}
    assert (first.name, first.content) == ("my weights", content_hash(ours)) and second.settings is None
    assert grid([first])[0].run_id.startswith("my_weights-toys-2shot-seed0-finetune-")
    save_file(tensors, ours, metadata={"config": json.dumps({**config, "img_size": 224})})
    with pytest.raises(ConfigError, match=r"disagree: img_size 224 \(the tensors: 448\) \(--checkpoints\)"):
        find_inits([str(ours)], [], tmp_path)
    save_file({"a": np.zeros(3, np.float32)}, other)
    with pytest.raises(ConfigError, match=r"bare\.safetensors: it holds no video encoder of this suite"):
        find_inits([str(other)], [], tmp_path)
    ours.write_bytes(ours.read_bytes()[:20])
    with pytest.raises(ConfigError, match="cut off"):
        find_inits([str(ours)], [], tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/config.json").write_text('{"model_type": "vidmae"}')
    save_file(tensors, tmp_path / "hub/model.safetensors")
    assert [init.name for init in find_inits(["~/say.pth", "~/hub"], [], tmp_path)] == ["say", "hub"]
    with pytest.raises(ConfigError, match="no file"):
        find_inits([str(tmp_path / "none.pth")], [], tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/say.pth").write_bytes(b"other")
    with pytest.raises(ConfigError, match="two checkpoints are called 'say'"):
        find_inits([str(released), str(tmp_path / "x/say.pth")], [], tmp_path)
