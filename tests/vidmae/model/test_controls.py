"""Controls of pretraining: what is hidden (tube, causal), no table of time, one frame per token."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import ceil

import numpy as np
import pytest
import torch

import vidmae
from tests.support import reference_mae
from tests.support.runs import export_model
from tests.vidmae.model.test_decoder_masking import expected_choice
from tests.vidmae.model.test_mae import TOY, assert_same_grads, clips_and_mask, loss_and_grads, normalised, toy
from vidmae.model.classifier import build_classifier
from vidmae.model.formats.file_model import init_problem, model_in
from vidmae.model.mae import build_mae
from vidmae.model.masking import mask_from_noise, running_cell, training_mask
from vidmae.model.trained import load_trained
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import load_encoder, load_into, save_safetensors
from vidmae.runs import cost
from vidmae.settings.config import ModelConfig, PretrainConfig
from vidmae.settings.finetune_config import ClassifierConfig
from vidmae.settings.layers import ConfigError, build, parse_set, to_dict
from vidmae.settings.sizes import model_shape
from vidmae.weights.converting import convert
from vidmae.weights.finding import find

NO_TABLE = {"temporal_positions": False}
KINDS = ("tube", "causal")


def expected_visible(noise, kind, grid, ratio):
    """The tokens of one clip that stay visible, place after place."""
    slots, cells = grid[0], grid[1] * grid[2]
    places = sorted(range(cells), key=lambda place: (noise[place], place))
    if kind == "tube":
        return {slot * cells + place for place in places[:int(cells * (1 - ratio))] for slot in range(slots)}
    kept, past, found = int(slots * cells * (1 - ratio)), ceil(slots / 2), []
    while past * cells < kept:
        past += 1
    for place in places:
        found += [slot * cells + place for slot in range(past)]
    return set(found[:kept])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("options", "ratio"), [({}, 0.75), ({}, 0.9), ({}, 0.3), ({"num_frames": 6, "pred_t_dim": 6}, 0.7),
                                                ({"num_frames": 4, "pred_t_dim": 4, "t_patch_size": 1}, 0.55)])
def test_what_is_visible_is_what_a_plain_loop_says(kind, options, ratio):
    s = model_shape("mae_vit_nano_patch8", **{**TOY, **options, "mask_ratio": ratio}, mask=kind)
    slots, cells = s.grid[0], s.grid[1] * s.grid[2]
    noise = torch.rand(5, s.num_tokens, generator=torch.Generator().manual_seed(3))
    noise[1] = noise[1].round(decimals=1)  # many are equal: the lower index comes first
    mask = training_mask(noise, s)
    assert mask.ids_keep.shape == (5, s.num_kept) and mask.ids_removed.shape == (5, s.num_tokens - s.num_kept)
    assert s.num_kept == (slots * int(cells * (1 - ratio)) if kind == "tube" else int(s.num_tokens * (1 - ratio)))
    for clip in range(5):
        assert set(mask.ids_keep[clip].tolist()) == expected_visible(noise[clip].tolist(), kind, s.grid, ratio)
        for ids in (mask.ids_keep[clip], mask.ids_removed[clip]):
            assert ids.tolist() == sorted(ids.tolist(), key=lambda token: (noise[clip][token], token)), "in the order of noise"
        alone = training_mask(noise[clip:clip + 1], s)
        assert torch.equal(alone.ids_restore[0], mask.ids_restore[clip]), "a function of the clip's own noise"
    columns = mask.mask.reshape(5, slots, cells)
    assert not (columns[:, :-1] & ~columns[:, 1:]).any(), "nothing is visible after a hidden token of its place"
    if kind == "tube":
        assert (columns == columns[:, :1]).all()
    elif ratio > 0.5:
        assert columns[:, ceil(slots / 2):].all(), "the future is hidden"
    assert torch.equal(torch.argsort(torch.cat([mask.ids_keep, mask.ids_removed], 1), 1), mask.ids_restore)


def test_the_paper_model_and_the_drawings():
    kept = {kind: model_shape("mae_vit_huge_patch14", mask=kind).num_kept for kind in ("random", *KINDS)}
    assert kept == {"random": 204, "tube": 200, "causal": 204}
    s = model_shape("mae_vit_huge_patch14", mask="causal")
    hidden = training_mask(torch.rand(1, 2048, generator=torch.Generator().manual_seed(0)), s).mask.reshape(8, 256)
    assert (hidden.sum(1) == torch.tensor([205] * 4 + [256] * 4)).all() and int(hidden.sum()) == 1844
    drawn = {"tube": ["010010"] * 4, "causal": ["010011", "010010", "000000", "000000"]}
    for kind, picture in drawn.items():  # of the docstring: 6 places, of which 1 and 4 come first and 5 next; K = 5 of 24
        noise = torch.tensor([[0.9, 0.1, 0.8, 0.7, 0.2, 0.5] + [0.3] * 18])
        shown = ~training_mask(noise, SixPlaces(kind)).mask.reshape(4, 6)
        assert ["".join(str(int(x)) for x in row) for row in shown] == picture, kind


class SixPlaces:
    """Of a shape what a mask asks for; its pictures are not square."""

    grid, num_tokens = (4, 2, 3), 24

    def __init__(self, kind):
        self.mask, self.num_kept = kind, {"tube": 8, "causal": 5}[kind]


def test_random_is_as_before_and_noise_of_another_size_is_refused():
    s = model_shape("mae_vit_nano_patch8", **TOY)
    noise = torch.rand(3, s.num_tokens, generator=torch.Generator().manual_seed(0))
    assert torch.equal(training_mask(noise, s).ids_restore, mask_from_noise(noise, s.mask_ratio).ids_restore)
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"noise has shape \(3, 9\); mae_vit_nano_patch8 takes \[clips, 64\]"):
            training_mask(noise[:, :9], model_shape("mae_vit_nano_patch8", **TOY, mask=kind))


def reference(model, clips, mask, params=None, **more):
    params = params or {name: p.double().numpy() for name, p in model.state_dict().items()}
    s = model.shape
    return reference_mae.loss(params, normalised(clips).numpy(), mask.mask.numpy(), patch=8, tubelet=s.t_patch_size, heads=3,
                              decoder_heads=4, pred_t_dim=8, **more)


@pytest.mark.parametrize("options", [{"mask": "tube"}, {"mask": "causal", "decoder_mask_ratio": 0.5}, NO_TABLE,
                                     {**NO_TABLE, "mask": "causal"}, {"t_patch_size": 1}])
def test_loss_and_gradients_equal_the_numpy_reference(options):
    model, more = toy(**options), {}
    clips, _ = clips_and_mask(model)
    s = model.shape
    mask = training_mask(torch.rand(2, s.num_tokens, generator=torch.Generator().manual_seed(5)), s)
    if s.decoder_mask_ratio:
        rebuilt = np.zeros((2, s.num_tokens), bool)
        for clip, order in enumerate(torch.argsort(mask.ids_restore, dim=1).tolist()):
            rebuilt[clip, expected_choice(order, s.num_kept, s.grid, s.decoder_mask_ratio)] = True
        assert running_cell(mask, s).shape == (2, s.num_rebuilt)
        more["rebuilt"] = rebuilt
    loss, grads = loss_and_grads(model, clips, mask)
    assert loss == pytest.approx(reference(model, clips, mask, **more), rel=1e-5)
    params, rng, h = {name: p.double().numpy() for name, p in model.state_dict().items()}, np.random.default_rng(0), 1e-4
    for name in ("pos_embed_spatial", "decoder_pos_embed_spatial"):
        way = rng.standard_normal(params[name].shape)
        up, down = (reference(model, clips, mask, {**params, name: params[name] + sign * h * way}, **more) for sign in (1, -1))
        slope, scale = float((grads[name].double().numpy() * way).sum()), float(np.linalg.norm(grads[name].double().numpy()))
        assert slope == pytest.approx((up - down) / (2 * h), abs=1e-4 * scale), name
    assert_same_grads(grads, loss_and_grads(toy(**options, activation_checkpointing=True), clips, mask)[1], 1e-6)


def test_without_a_table_of_time_the_order_of_the_slots_says_nothing():
    """A classifier sees a set of pictures then; with the table it does not."""
    clips = torch.randint(0, 256, (2, 8, 16, 16, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    moved = clips.unflatten(1, (4, 2))[:, [2, 0, 3, 1]].flatten(1, 2)
    for table in (True, False):
        torch.manual_seed(0)
        model = build_classifier("vit_nano_patch8", num_classes=None, img_size=16, num_frames=8, temporal_positions=table).eval()
        with torch.no_grad():
            assert torch.allclose(model.features(clips), model.features(moved), atol=1e-5) is not table
            assert torch.allclose(model.features(clips), model.features(clips.flip(1)), atol=1e-5) is False, "within a token"


def test_tensors_and_counts():
    for options in (NO_TABLE, {"t_patch_size": 1}, {"mask": "tube"}):
        shape = model_shape("mae_vit_nano_patch14", **options)
        with torch.device("meta"):
            state, usual = build_mae("mae_vit_nano_patch14", **options).state_dict(), build_mae("mae_vit_nano_patch14").state_dict()
        assert cost.parameters(shape) == sum(t.numel() for t in state.values())
        left_out = {"pos_embed_temporal", "decoder_pos_embed_temporal"} if options is NO_TABLE else set()
        assert usual.keys() - state.keys() == left_out and not state.keys() - usual.keys()
    with torch.device("meta"):
        state = build_mae("mae_vit_huge_patch14", t_patch_size=1).state_dict()
    assert tuple(state["patch_embed.proj.weight"].shape) == (1280, 3, 1, 14, 14) and tuple(state["pos_embed_temporal"].shape) == (1, 16, 1280)


def test_weights_without_a_table_fit_a_model_without_one_alone():
    with_table, without = toy(), toy(**NO_TABLE)
    with pytest.raises(ValueError, match=r"pos_embed_temporal: 1 tensor missing"):
        load_into(with_table, without.state_dict())
    with pytest.raises(ValueError, match=r"pos_embed_temporal: 1 tensor unexpected"):
        load_into(without, with_table.state_dict())


def test_an_export_says_that_it_has_no_table_and_everything_takes_it_so(tmp_path):
    sizes = {"img_size": 32, "num_frames": 8, "pred_t_dim": 8, "decoder_embed_dim": 48, "decoder_depth": 2, "decoder_num_heads": 4}
    config = ModelConfig(name="mae_vit_nano_patch8", **sizes, **NO_TABLE)
    path, usual = export_model(tmp_path / "w.safetensors", config), tmp_path / "usual.safetensors"
    found = model_in(path)
    assert found.settings == {"name": "vit_nano_patch8", "img_size": 32, "num_frames": 8, "t_patch_size": 2, **NO_TABLE}
    assert load_trained(path).config == config and not load_trained_encoder(path).model.shape.temporal_positions
    export_model(usual, ModelConfig(name="mae_vit_nano_patch8", **sizes))
    assert init_problem(path, config.shape(), resize=False) is None
    assert init_problem(usual, config.shape(), resize=False) == "it has model.temporal_positions True (the run has False)"
    longer = vidmae.load(path, num_frames=16, img_size=64)
    assert longer.shape.grid == (8, 8, 8) and not longer.shape.temporal_positions
    assert longer(torch.zeros(1, 16, 64, 64, 3, dtype=torch.uint8)).shape == (1, 96)
    assert vidmae.load(usual, num_frames=16).shape.grid == (8, 4, 4)
    convert(find(path), tmp_path / "again.safetensors")
    assert model_in(tmp_path / "again.safetensors") == found and load_trained(tmp_path / "again.safetensors").config == config
    cell = ClassifierConfig(name="vit_nano_patch8", img_size=32, num_frames=8, **NO_TABLE)
    classifier = build_classifier("vit_nano_patch8", num_classes=3, img_size=32, num_frames=8, **NO_TABLE)
    assert "pos_embed" not in str(load_encoder(classifier, path, new_head=True).missing)
    save_safetensors(classifier.state_dict(), tmp_path / "cell.safetensors", {"config": json.dumps(cell.unsaid)})
    assert model_in(tmp_path / "cell.safetensors").settings == found.settings and model_in(tmp_path / "cell.safetensors").head == 3
    save_safetensors(classifier.state_dict(), tmp_path / "bare.safetensors", {})
    with pytest.raises(ValueError, match="no pos_embed_temporal, so what clips its model takes is not known"):
        model_in(tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="disagree: temporal_positions False"):
        save_safetensors(toy().state_dict(), tmp_path / "lie.safetensors", {"config": json.dumps(asdict(config))})
        model_in(tmp_path / "lie.safetensors")


def test_one_frame_per_token_comes_back_as_such(tmp_path):
    config = ModelConfig(name="mae_vit_nano_patch8", img_size=32, num_frames=4, pred_t_dim=4, t_patch_size=1, decoder_embed_dim=48,
                         decoder_depth=1, decoder_num_heads=4)
    path = export_model(tmp_path / "w.safetensors", config)
    assert model_in(path).settings == {"name": "vit_nano_patch8", "img_size": 32, "num_frames": 4, "t_patch_size": 1}
    assert load_trained(path).config == config and load_trained_encoder(path).model.shape.grid == (4, 4, 4)
    assert vidmae.load(path, num_frames=8).shape.grid == (8, 4, 4)


def test_signatures_change_where_a_control_is_set_alone():
    base = to_dict(PretrainConfig(), signed_only=True)["model"]
    assert not {"mask", "temporal_positions"} & base.keys()
    for item, more in (("mask=tube", {"mask": "tube"}), ("temporal_positions=false", NO_TABLE)):
        changed = build(PretrainConfig, parse_set([f"model.{item}"]))[0]
        assert to_dict(changed, signed_only=True)["model"] == {**base, **more}
    tags = build(PretrainConfig, parse_set(["model.mask=causal", "model.temporal_positions=false", "model.decoder_mask_ratio=0.5"]))[0].model.tags
    assert tags == ("decoder50", "causal", "no-time-table")


@pytest.mark.parametrize(("items", "said"), [
    (["model.mask=tubes"], r"model\.mask.*tubes.*random, tube, causal"),
    (["model.mask=causal", "model.num_frames=1", "model.t_patch_size=1", "model.pred_t_dim=1"],
     r"model\.mask is 'causal', allowed: random with model\.num_frames 1 .*--set model\.mask="),
    (["model.temporal_positions=maybe"], r"model\.temporal_positions"),
    (["model.t_patch_size=3"], r"model\.num_frames is 16, allowed: a positive multiple of model\.t_patch_size 3")])
def test_values_that_cannot_be_are_refused(items, said):
    with pytest.raises(ConfigError, match=said):
        build(PretrainConfig, parse_set(items))


def test_a_ratio_that_leaves_no_tube_is_refused():
    with pytest.raises(ValueError, match=r"model\.mask tube: model\.mask_ratio 0\.99 keeps none or all of 16 tokens"):
        model_shape("mae_vit_nano_patch8", **{**TOY, "mask_ratio": 0.99}, mask="tube")
    with pytest.raises(ValueError, match=r"temporal_positions False needs learned positions, and these are fixed"):
        build_classifier("vit_nano_patch8", num_classes=None, positions="fixed", pool="mean", **NO_TABLE)
