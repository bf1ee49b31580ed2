"""Image MAEs in the layout of the original one as encoders of cells: features of another implementation, and every refusal."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import ViTMAEForPreTraining

from tests.support.footage import real_clip
from tests.vidmae.insight.test_image_mae import SIDE, another_image_mae, released_names
from vidmae.evaluate.extract import frozen_features
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.formats.file_model import model_in
from vidmae.model.formats.tensor_shapes import tensor_shapes
from vidmae.model.formats.translate import IMAGENET_MEAN, IMAGENET_STD
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import load_encoder
from vidmae.weights.converting import convert
from vidmae.weights.finding import find

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def theirs() -> ViTMAEForPreTraining:
    return another_image_mae(0.0)


@pytest.fixture(scope="module")
def state(theirs: ViTMAEForPreTraining) -> State:
    """Under the names of facebookresearch/mae: q, k and v in one matrix."""
    return released_names(theirs.state_dict())


def separate(state: State) -> State:
    """The same with a matrix each for q, k and v, as descendants have them."""
    made = {}
    for name, tensor in state.items():
        parts = {name.replace("qkv", part): t.clone() for part, t in zip("qkv", tensor.chunk(3), strict=True)} if "qkv" in name else {name: tensor}
        made |= parts
    return made


def without_decoder(state: State) -> State:
    return {name: t for name, t in state.items() if not name.startswith(("decoder_", "mask_token"))}


def saved(folder: Path, state: State, name: str = "image.pth") -> Path:
    if name.endswith(".safetensors"):
        save_file({name: t.contiguous() for name, t in state.items()}, folder / name)
    else:
        torch.save({"model": {f"module.{name}": t for name, t in state.items()}, "epoch": 799, "args": argparse.Namespace(lr=1e-4),
                    "optimizer": {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1.0}]}}, folder / name)
    return folder / name


def image_classifier(**options: object) -> VideoClassifier:
    torch.manual_seed(1)
    return build_classifier("vit_nano_patch8", num_classes=5, **{"img_size": SIDE, "num_frames": 1, "t_patch_size": 1, **options}).eval()


@pytest.mark.parametrize("form", ["fused", "separate", "encoder", "safetensors"])
def test_features_are_those_of_another_implementation(theirs: ViTMAEForPreTraining, state: State, tmp_path: Path, form: str) -> None:
    form_of = {"separate": separate, "encoder": without_decoder}.get(form, dict)
    path = saved(tmp_path, form_of(state), "image.safetensors" if form == "safetensors" else "image.pth")
    frames = real_clip("bikes")[:4].copy()
    mean, std = (np.array(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    with torch.no_grad():
        expected = theirs.vit(pixels, noise=torch.arange(64.0)[None].repeat(4, 1)).last_hidden_state.numpy()
    model, clips = image_classifier(), torch.from_numpy(frames)[:, None]
    head = model.head.weight.clone()
    report = load_encoder(model, path, new_head=True)
    assert report.loaded == 4 + 2 + 3 * 16 + 2 and torch.equal(model.head.weight, head)
    assert np.ptp(expected) > 1 and np.abs(frozen_features(model, clips, None, "fp32") - expected[:, 0]).max() < 1e-5
    tokens = frozen_features(model, clips, (1, 8, 8), "fp32")
    assert np.abs(tokens - expected[:, 1:]).max() < 1e-5
    alone = load_trained_encoder(path)
    assert alone.model.shape.num_frames == 1 and alone.pretrained == (form != "encoder")
    assert np.abs(frozen_features(alone.model, clips, None, "fp32") - expected[:, 0]).max() < 1e-5


def test_what_is_no_image_mae_for_the_model_is_refused(state: State, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"clips of 4 frames .*--views frames16"):
        load_encoder(image_classifier(num_frames=4), saved(tmp_path, state))
    ours = {name: t for name, t in image_classifier().state_dict().items() if not name.startswith("head")}
    with pytest.raises(ValueError, match=r"clips of 4 frames .*--views frames16"):
        load_encoder(image_classifier(num_frames=4), saved(tmp_path, ours))

    def refused(changed: State, said: str, **options: object) -> None:
        model = image_classifier(**options)
        before = {name: t.clone() for name, t in model.state_dict().items()}
        with pytest.raises(ValueError, match=said):
            load_encoder(model, saved(tmp_path, changed))
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items()), "untouched"

    refused({**state, "pos_embed": state["pos_embed"][:, 1:]}, "pos_embed has 64 positions")
    refused({**state, "blocks.0.attn.qkv.weight": state["blocks.0.attn.qkv.weight"][:-1]}, "allowed: 3 equal parts")
    refused({name: t for name, t in state.items() if name != "norm.bias"}, "norm: 1 tensor missing")
    refused({name: t for name, t in state.items() if name != "patch_embed.proj.bias"}, "proj.bias is missing")
    refused({name: t for name, t in state.items() if name != "cls_token"}, "cls_token")
    refused({**state, "fc_norm.weight": torch.ones(96)}, "fc_norm: 1 tensor")
    refused(state, "another image size", img_size=32)
    resized = image_classifier(img_size=32)
    assert load_encoder(resized, saved(tmp_path, state), resize_positions=True).resized == ("pos_embed_spatial 64 -> 16",)


@pytest.mark.parametrize("name", ["image.pth", "image.safetensors"])
def test_shapes_are_read_without_torch(state: State, tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, state, name)
    assert dict(tensor_shapes(path)) == {name: tuple(t.shape) for name, t in state.items()}
    assert model_in(path).settings == {"name": "vit_nano_patch8", "img_size": SIDE, "num_frames": 1, "t_patch_size": 1}
    short = saved(tmp_path, {name: t for name, t in state.items() if not name.startswith("blocks.2.")}, name)
    with pytest.raises(ValueError, match="width 96 with 2 blocks"):
        model_in(short)
    video = saved(tmp_path, image_classifier(num_frames=4).state_dict(), name)
    assert model_in(video).settings == {"name": "vit_nano_patch8", "img_size": SIDE, "num_frames": 4, "t_patch_size": 1}


def test_a_file_that_was_finetuned_on_the_mean_says_so(state: State, tmp_path: Path) -> None:
    tuned = {name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t for name, t in without_decoder(state).items()}
    path = saved(tmp_path, {**tuned, "head.weight": torch.ones(5, 96), "head.bias": torch.ones(5)})
    assert model_in(path).settings["pool"] == "mean"
    convert(find(path), tmp_path / "ours.safetensors")
    ours, theirs = (load_trained_encoder(each).model for each in (tmp_path / "ours.safetensors", path))
    clips = torch.from_numpy(real_clip("bikes")[:2].copy())[:, None]
    assert ours.pool == "mean" and torch.allclose(ours.features(clips), theirs.features(clips), atol=1e-6)


class Evil:
    """What a hostile file would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_a_file_runs_no_code_and_one_that_cannot_be_read_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"w": torch.ones(2, 3)}, "evil": Evil()}, "evil.pth")
    assert dict(tensor_shapes(Path("evil.pth"))) == {"w": (2, 3)} and not Path("ran").exists()
    torch.save({"w": torch.ones(2)}, "old.pth", _use_new_zipfile_serialization=False)
    Path("text.pth").write_text("no weights")
    Path("list.pth").write_bytes(pickle.dumps([1]))
    Path("text.safetensors").write_text("no weights")
    for name in ("old.pth", "text.pth", "list.pth"):
        assert tensor_shapes(Path(name)) == {} and model_in(Path(name)) is None
    with pytest.raises(ValueError, match="no safetensors file, or is cut off"):
        model_in(Path("text.safetensors"))
