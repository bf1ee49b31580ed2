"""Encoders of other families: the numbers of another implementation at full depth, every name at the true sizes, every refusal."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from transformers.models.videomae import modeling_videomae

from tests.support.footage import real_clip
from tests.vidmae.weights.families import (
    FRAMES,
    PATCH,
    SIDE,
    SIZES,
    State,
    as_first_vjepa,
    as_hub_image_mae,
    as_image_mae,
    as_videomae,
    as_vjepa,
    image_mae,
    pixels,
    sines_of_places,
    videomae,
    vjepa2,
)
from vidmae.evaluate.extract import frozen_features, pooled_features
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.formats.file_model import FileModel, model_of
from vidmae.model.formats.keys import shapes_of
from vidmae.model.formats.layouts import layout_of
from vidmae.model.formats.tensor_shapes import clean_name
from vidmae.model.formats.translate import as_ours, inflate, translate
from vidmae.model.groups import layer_decay_groups
from vidmae.model.mae import build_mae
from vidmae.model.weights import LoadReport, load_encoder, load_into, save_safetensors
from vidmae.settings.sizes import EncoderShape, Positions

GRID = (FRAMES // 2, SIDE // PATCH, SIDE // PATCH)
CLIPS = np.stack([real_clip("bikes")[start:start + FRAMES, 8:8 + SIDE, 8:8 + SIDE] for start in (0, 3)])


def clean(state: State) -> State:
    return {clean_name(name): tensor for name, tensor in state.items()}


def first_vjepa() -> tuple[Any, State]:
    theirs = videomae("deep").videomae
    table = sines_of_places(*GRID[:2], 48)
    theirs.embeddings.position_embeddings = table
    return theirs, as_first_vjepa(as_videomae({f"videomae.{name}": t for name, t in theirs.state_dict().items()}), table)


def of_videomae(names: Callable[[State], State]) -> tuple[Any, State]:
    whole = videomae("deep")
    return whole.videomae, names(whole.state_dict())


def of_vjepa2(names: Callable[[State], State]) -> tuple[Any, State]:
    theirs = vjepa2("deep")
    return theirs, names(theirs.state_dict())


MADE: dict[str, tuple[Callable[[], tuple[Any, State]], Positions]] = {
    "videomae": (lambda: of_videomae(as_videomae), "fixed"),
    "hf-videomae": (lambda: of_videomae(dict), "fixed"),
    "vjepa": (first_vjepa, "fixed"),
    "vjepa2": (lambda: of_vjepa2(as_vjepa), "rotary"),
    "hf-vjepa2": (lambda: of_vjepa2(dict), "rotary"),
}


def deep(positions: Positions, *, num_frames: int = FRAMES) -> VideoClassifier:
    """32 blocks of a small width, which has no name."""
    width, depth, heads, _ = SIZES["deep"]
    shape = EncoderShape("vit_deep_patch8", SIDE, num_frames, 2, PATCH, width, depth, heads, positions=positions)
    return VideoClassifier(shape, num_classes=None, pool="cls" if positions == "learned" else "mean").eval()


@pytest.mark.parametrize("layout", MADE)
def test_tokens_are_those_of_another_implementation(layout: str) -> None:
    make, positions = MADE[layout]
    theirs, state = make()
    state = clean(state)
    assert layout_of(shapes_of(state)) == layout
    model = deep(positions)
    found = as_ours(state, FileModel(layout, model.shape), mean=model.mean, std=model.std)
    load_into(model, found.state)
    with torch.no_grad():
        named = {"skip_predictor": True} if "vjepa2" in layout else {}
        expected = theirs(pixels(CLIPS), **named).last_hidden_state
        before_norm = model.last_block(torch.from_numpy(CLIPS))
        tokens = model.tokens(torch.from_numpy(CLIPS))
    assert expected.std() > 0.1 and expected.shape == tokens.shape == (2, model.shape.num_tokens, 48)
    assert (tokens - expected).abs().max() < 1e-5
    cls, mean = pooled_features(model, torch.from_numpy(CLIPS), "fp32")
    assert np.array_equal(cls, mean) and np.allclose(mean, model.norm(before_norm.mean(1)).detach().numpy(), atol=1e-6)
    assert frozen_features(model, torch.from_numpy(CLIPS), (1, 2, 2), "fp32").shape == (2, 4, 48)
    assert (not set(found.state) - set(model.state_dict()) and {"blocks.0.attn.k.bias"} & set(found.reshaped)) or layout.startswith("hf-vj")


@pytest.mark.parametrize("how", ["mean", "centre"])
def test_an_inflated_image_model_is_the_image_model_on_all_tokens(how: str) -> None:
    theirs = image_mae("deep")
    model = deep("learned")
    state = as_hub_image_mae(theirs.state_dict())
    image = FileModel("hf-image-mae", EncoderShape("vit_deep_patch8", SIDE, 1, 1, PATCH, 48, 32, 4))
    found = as_ours(state, image, mean=model.mean, std=model.std)
    load_into(model, inflate(found.state, how, num_frames=FRAMES, t_patch_size=2))
    with torch.no_grad():
        slots = pixels(CLIPS).unflatten(1, (FRAMES // 2, 2))
        frames = slots.mean(2) if how == "mean" else slots[:, :, 1]
        patches = [theirs.embeddings.patch_embeddings(frame) + theirs.embeddings.position_embeddings[:, 1:] for frame in frames.unbind(1)]
        first = (theirs.embeddings.cls_token + theirs.embeddings.position_embeddings[:, :1]).expand(2, -1, -1)
        x = torch.cat([first, *patches], dim=1)
        for layer in theirs.layers:
            x = layer(x)
        expected = theirs.layernorm(x)
        assert (model.features(torch.from_numpy(CLIPS)) - expected[:, 0]).abs().max() < 1e-5
        assert (model.tokens(torch.from_numpy(CLIPS)) - expected[:, 1:]).abs().max() < 1e-5


def test_a_still_clip_of_one_slot_is_the_picture() -> None:
    state = as_image_mae(image_mae("nano").state_dict())
    picture, still = torch.from_numpy(CLIPS[:, :1]), torch.from_numpy(CLIPS[:, :1].repeat(2, axis=1))
    image, video = (build_classifier("vit_nano_patch8", num_classes=None, img_size=SIDE, num_frames=n, t_patch_size=n).eval() for n in (1, 2))
    made = translate(state, mean=0.45, std=0.225).state
    load_into(image, made)
    for how in ("mean", "centre"):
        load_into(video, inflate(made, how, num_frames=2, t_patch_size=2))
        assert torch.allclose(video.features(still), image.features(picture), atol=1e-5)


def meta(make: Callable[[], Any]) -> State:
    """Names and shapes, no numbers; the table of sines would take seconds, and is in no file."""
    with torch.device("meta"), mock.patch.object(modeling_videomae, "get_sinusoid_encoding_table", lambda *size: torch.empty(1, *size)):
        return make().state_dict()


def quick_or_slow(kind: str, *sizes: str) -> list[Any]:
    """The first size of each author at each change, all of them with `-m slow`."""
    return [pytest.param(kind, size, marks=[pytest.mark.slow] if at or kind.startswith("hf-") else []) for at, size in enumerate(sizes)]


def whole(kind: str, size: str) -> tuple[str, State, dict[str, int]]:
    """The names of a released file of a true size, without numbers; what layout it has, and what clips it takes."""
    if kind == "videomae":
        patch = 14 if size == "giant" else 16
        return kind, as_videomae(meta(lambda: videomae(size, frames=16, side=224, patch=patch))), {"img_size": 224, "num_frames": 16}
    if kind == "hf-videomae":
        return kind, meta(lambda: videomae(size, frames=16, side=224, patch=16)), {"img_size": 224, "num_frames": 16}
    if kind == "vjepa":
        side = 384 if size == "huge-384" else 224
        state = as_videomae(meta(lambda: videomae(size.partition("-")[0], frames=16, side=side, patch=16)))
        table = torch.empty(1, 8 * (side // 16) ** 2, SIZES[size.partition("-")[0]][0], device="meta")
        return kind, as_first_vjepa(state, table), {"img_size": side, "num_frames": 16}
    if kind in ("vjepa2", "hf-vjepa2"):
        state = meta(lambda: vjepa2(size, frames=64, side=256, patch=16))
        return kind, as_vjepa(state) if kind == "vjepa2" else state, {"img_size": 256, "num_frames": 64}
    patch = 14 if size == "huge" else 16
    state = meta(lambda: image_mae(size, side=224, patch=patch))
    return kind, as_image_mae(state) if kind == "image-mae" else as_hub_image_mae(state), {"img_size": 224, "num_frames": 1}


@pytest.mark.parametrize(("kind", "size"), [
    *quick_or_slow("videomae", "giant", "small", "base", "large", "huge"), *quick_or_slow("hf-videomae", "base", "small", "large", "huge"),
    *quick_or_slow("vjepa", "huge-384", "large", "huge"), *quick_or_slow("vjepa2", "giant", "large", "huge"),
    *quick_or_slow("hf-vjepa2", "large", "huge", "giant"), *quick_or_slow("image-mae", "huge", "base", "large"),
    *quick_or_slow("hf-image-mae", "base", "large", "huge")])
def test_every_name_at_the_true_size(kind: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, state, clips = whole(kind, size)
    state = clean(state)
    found = model_of(shapes_of(state))
    assert (found.layout, found.shape.img_size, found.shape.num_frames) == (layout, clips["img_size"], clips["num_frames"])
    assert f"vit_{size.partition('-')[0]}_" in found.shape.name
    with torch.device("meta"):
        model = build_classifier(found.shape.name, num_classes=None, img_size=found.shape.img_size, num_frames=found.shape.num_frames,
                                 t_patch_size=found.shape.t_patch_size, positions=found.shape.positions, pool="mean")
    monkeypatch.setattr(torch, "equal", lambda *_: True)  # of the table of places, which has no numbers here
    made = as_ours(state, found, mean=model.mean, std=model.std)
    assert shapes_of(made.state) == shapes_of(model.state_dict())
    assert len({*made.left_out, *state}) == len(state)


@pytest.mark.parametrize(("name", "sizes", "tensors"), [
    ("mae_vit_huge_patch14", {"img_size": 224}, 595), ("mae_vit_huge_patch14", {"img_size": 448}, 595),
    ("mae_vit_large_patch16", {"pred_t_dim": 8}, 467)])
def test_released_st_maes_say_their_sizes(name: str, sizes: dict[str, int], tensors: int) -> None:
    with torch.device("meta"):
        state = build_mae(name, **sizes).state_dict()
    found = model_of(shapes_of(state))
    assert len(state) == tensors and found.pretrained and found.shape.name == name.removeprefix("mae_")
    assert (found.shape.img_size, found.shape.num_frames) == (sizes.get("img_size", 224), 16)


def nano(positions: Positions = "fixed", **options: Any) -> VideoClassifier:
    sizes = {"img_size": SIDE, "num_frames": FRAMES, "num_classes": None, "pool": "cls" if positions == "learned" else "mean", **options}
    torch.manual_seed(3)
    return build_classifier("vit_nano_patch8", positions=positions, **sizes).eval()


@pytest.fixture(scope="module")
def state() -> State:
    return as_videomae(videomae("nano").state_dict())


def saved(path: Path, state: State) -> Path:
    torch.save({"module": state, "args": argparse.Namespace(lr=1e-4)}, path)
    return path


KNOWN = {"img_size": SIDE, "num_frames": FRAMES}


def test_a_report_says_what_became_of_every_tensor(state: State, tmp_path: Path) -> None:
    model = nano(num_classes=5)
    report = load_encoder(model, saved(tmp_path / "w.pth", state), known=KNOWN)
    assert isinstance(report, LoadReport) and report.missing == ("head.bias", "head.weight") and report.resized == ()
    assert str(report) == (
        "53 tensors loaded from the layout of VideoMAE; blocks.0-2.attn: 12 tensors of them cut or computed; patch_embed: 2 tensors of them "
        "cut or computed; pos_embed_fixed: 1 tensor of them cut or computed; head: 2 tensors missing, left as they were; "
        "mask_token: 1 tensor ignored; encoder_to_decoder: 1 tensor ignored; decoder: 16 tensors ignored")
    assert set(report.ignored) == {name for name in state if name.startswith(("decoder.", "encoder_to_decoder", "mask_token"))}
    groups = layer_decay_groups(model, 0.05, 0.8)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) == 52 + 2, "places do not learn"


def test_other_sizes_are_interpolated_where_asked(state: State, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", state)
    larger = nano(img_size=2 * SIDE, num_frames=2 * FRAMES)
    with pytest.raises(ValueError, match=r"pos_embed_fixed is \(2, 16, 96\), the model has \(4, 64, 96\) \(another image size"):
        load_encoder(larger, path, known=KNOWN)
    report = load_encoder(larger, path, known=KNOWN, resize_positions=True)
    assert report.resized == ("pos_embed_fixed 2 x 16 -> 4 x 64",)
    rotary = nano("rotary", img_size=2 * SIDE, num_frames=2 * FRAMES)
    torch.save({"target_encoder": as_vjepa(vjepa2("nano").state_dict()), "encoder": {"module.backbone.norm.weight": torch.ones(96)}},
               tmp_path / "v2.pt")
    assert load_encoder(rotary, tmp_path / "v2.pt").resized == (), "turning has no table"


def test_what_does_not_fit_is_refused_and_changes_nothing(state: State, tmp_path: Path) -> None:
    def refused(changed: State, said: str, model: VideoClassifier | None = None, **named: Any) -> None:
        model = model or nano()
        before = {name: t.clone() for name, t in model.state_dict().items()}
        with pytest.raises(ValueError, match=said):
            load_encoder(model, saved(tmp_path / "bad.pth", changed), **{"known": KNOWN, **named})
        assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())

    refused(state, r"fixed positions \(VideoMAE\), and this one has learned positions \(model.positions\)", nano("learned"))
    refused(state, "another image size", nano(img_size=2 * SIDE))
    refused(state, "another num_frames", nano(num_frames=2 * FRAMES))
    refused(state, "configuration and weights disagree: patch_size 16", known={**KNOWN, "patch_size": 16})
    refused(state, "configuration and weights disagree: heads 4", known={**KNOWN, "heads": 4})
    refused({name: t for name, t in state.items() if "blocks.2." not in name}, "VideoMAE of width 96 with 2 blocks, which is none")
    refused({name: t for name, t in state.items() if "blocks.1.norm1" not in name}, "blocks.1.norm1: 2 tensors missing")
    refused({**state, "encoder.blocks.0.gamma_1": torch.ones(96)}, "encoder: 1 tensor unexpected")
    refused({**state, "encoder.blocks.0.attn.qkv.weight": torch.ones(287, 96)}, "allowed: 3 equal parts")
    table = sines_of_places(2, 4, 96)
    first = as_first_vjepa(state, table[:, torch.randperm(32)])
    refused(first, "not one of 2 x 4 x 4 places", known={"num_frames": FRAMES})
    refused(first, "places, which 6 frames", known={"num_frames": 6})


def test_an_image_model_starts_a_video_model_only_where_asked(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.pth", as_image_mae(image_mae("nano").state_dict()))
    model = nano("learned")
    with pytest.raises(ValueError, match=r"clips of 4 frames .*--views frames16.*inflated: centre or mean"):
        load_encoder(model, path)
    report = load_encoder(model, path, inflated="mean")
    assert {"patch_embed.proj.weight", "pos_embed_temporal"} <= set(report.reshaped) and report.layout == "the original image MAE"


def test_an_export_of_another_family_says_what_it_is(state: State, tmp_path: Path) -> None:
    model = nano()
    load_encoder(model, saved(tmp_path / "w.pth", state), known=KNOWN)
    save_safetensors(model.state_dict(), tmp_path / "ours.safetensors", {})
    found = model_of(shapes_of(model.state_dict()))
    assert found.settings == {"name": "vit_nano_patch8", "img_size": SIDE, "num_frames": FRAMES, "t_patch_size": 2, "positions": "fixed",
                              "pool": "mean"}
    again = nano()
    load_encoder(again, tmp_path / "ours.safetensors")
    assert torch.equal(again.features(torch.from_numpy(CLIPS)), model.features(torch.from_numpy(CLIPS)))
