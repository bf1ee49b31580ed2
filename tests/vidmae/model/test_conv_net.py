"""The convolutional net: as many FLOPs as a transformer, by torch's own count; what it computes; that it learns."""

from __future__ import annotations

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import vidmae
from vidmae.evaluate.evaluation import load_classifier
from vidmae.evaluate.extract import frozen_features
from vidmae.evaluate.feature_cache import feature_spec
from vidmae.model.classifier import build_classifier
from vidmae.model.conv_net import ConvClassifier, build_conv
from vidmae.model.formats.file_model import model_in
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import load_encoder, load_weights, save_safetensors
from vidmae.runs.cost import conv_like, step_flops, train_flops_of_vit, view_flops
from vidmae.settings.finetune_config import ClassifierConfig, FinetuneConfig
from vidmae.settings.layers import ConfigError, build, parse_set, to_dict
from vidmae.settings.sizes import encoder_shape

TOY = {"img_size": 32, "num_frames": 8}
CELL = ["model.name=vit_nano_patch8", "model.img_size=32", "model.num_frames=8", "model.net=conv", "model.pool=mean"]


def toy(seed=0, name="vit_nano_patch8", num_classes=3, **options):
    torch.manual_seed(seed)
    return build_conv(name, num_classes=num_classes, **{**TOY, **options})


def clips(count=2, seed=1, frames=8):
    return torch.randint(0, 256, (count, frames, 32, 32, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.fixture
def unreal(monkeypatch):
    """CPU tensors without numbers, so that models of real size take no time: nothing may look at numbers or addresses."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    monkeypatch.setattr("vidmae.model.blocks.recomputed", lambda *_: nullcontext(), raising=False)
    with FakeTensorMode():
        yield


def counted(make, name, options, **more):
    """FLOPs of one clip, forward and with backward, as torch counts them, head aside."""
    model = make(name, num_classes=None, drop_path=0.0, dropout=0.0, **options, **more)
    frames, side = model.shape.num_frames, model.shape.img_size
    with FlopCounterMode(display=False) as counter:
        out = model(torch.empty(1, frames, side, side, 3, dtype=torch.uint8))
        forward = counter.get_total_flops()
        out.sum().backward()
    return model, forward, counter.get_total_flops()


@pytest.mark.parametrize(("name", "options"), [
    ("vit_huge_patch14", {}), ("vit_tiny_patch16", {"num_frames": 1, "t_patch_size": 1}), ("vit_nano_patch16", {"img_size": 64})])
def test_flops_are_what_torch_counts_and_those_of_the_transformer(name, options):
    """Of the transformer they are what torch counts, too: next test, and tests/vidmae/runs/test_cost.py."""
    with torch.device("meta"):
        net, forward, whole = counted(build_conv, name, options)
    shape = encoder_shape(name, **options)
    sizes = conv_like(shape)
    assert (sizes.forward_flops, sizes.train_flops) == (forward, whole)
    assert whole == pytest.approx(train_flops_of_vit(shape), rel=0.02)
    assert sizes.parameters == sum(p.numel() for p in net.parameters())
    assert all(m.num_channels % m.num_groups == 0 for m in net.modules() if isinstance(m, torch.nn.GroupNorm))


def test_both_networks_by_torchs_count():
    _, _, of_vit = counted(build_classifier, "vit_nano_patch8", TOY, attention="naive")
    _, _, of_conv = counted(build_conv, "vit_nano_patch8", TOY)
    assert of_conv == pytest.approx(of_vit, rel=0.02) and of_vit == train_flops_of_vit(encoder_shape("vit_nano_patch8", **TOY))


@pytest.mark.slow
def test_both_networks_of_real_size_by_torchs_count(unreal):
    _, _, of_vit = counted(build_classifier, "vit_huge_patch14", {}, attention="naive")
    _, _, of_conv = counted(build_conv, "vit_huge_patch14", {})
    assert of_conv == pytest.approx(of_vit, rel=0.005)


def test_widths_are_pinned():
    """A kept file of a cell opens in a later version only if it chooses the same channels."""
    found = {}
    for name in ("vit_base_patch16", "vit_large_patch16", "vit_huge_patch14"):
        sizes = conv_like(encoder_shape(name))
        found[name] = sizes.width, sizes.groups, sizes.stem.middle, sizes.blocks[0][0].middle, sizes.blocks[-1][1].middle
        assert sizes.train_flops == pytest.approx(train_flops_of_vit(encoder_shape(name)), rel=0.005)
    assert found == PINNED


PINNED = {"vit_base_patch16": (72, 8, 72, 136, 1120), "vit_large_patch16": (128, 8, 96, 256, 2104),
          "vit_huge_patch14": (208, 8, 112, 440, 3528)}


def test_layers_are_those_of_the_paper():
    """18 layers as in Tran et al.: with their 64 channels the first stage has 144 in the middle, as the released net."""
    from vidmae.settings.conv_sizes import ConvShape

    shape = ConvShape(16, 112, 64, 1.0, 1)
    middles = [conv.middle for block in shape.blocks for conv in block]
    assert middles == [144, 144, 144, 144, 230, 288, 288, 288, 460, 576, 576, 576, 921, 1152, 1152, 1152]
    assert 1 + 2 * len(shape.blocks) + 1 == 18 and shape.features == 512
    assert shape.forward_flops / 2 == pytest.approx(40.7e9, rel=0.05), "multiply-adds of R(2+1)D-18 at 16 x 112 x 112"


def test_shapes_of_every_stage_and_of_odd_clips():
    net = toy().eval()
    x = torch.randn(1, 3, 7, 21, 21)
    seen = [tuple((x := net.stem(x)).shape[2:])]
    seen += [tuple((x := block(x)).shape[2:]) for block in net.blocks]
    assert seen == [(7, 11, 11)] * 3 + [(4, 6, 6)] * 2 + [(2, 3, 3)] * 2 + [(1, 2, 2)] * 2
    assert x.shape[1] == net.sizes.features == 8 * net.sizes.width
    assert net(clips()).shape == (2, 3) and net.features(clips()).shape == (2, net.sizes.features)
    assert toy(num_classes=None)(clips()).shape == (2, net.sizes.features)
    assert toy(name="vit_tiny_patch16", num_frames=1, t_patch_size=1)(clips(frames=1)).shape == (2, 3)
    with pytest.raises(ValueError, match=r"clips have shape \(2, 4, 32, 32, 3\); conv-vit_nano_patch8 takes"):
        net(clips(frames=4))


def test_uint8_and_normalised_clips_are_the_same_and_a_clip_does_not_see_the_others():
    net = toy().eval()
    floating = ((clips(4).float() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3)
    with torch.no_grad():
        whole = net(clips(4))
        assert torch.allclose(net(floating), whole, atol=1e-4)
        assert torch.allclose(torch.cat([net(each[None]) for each in clips(4)]), whole, atol=1e-4)
        net.train()
        net.dropout.p = 0.0
        for block in net.blocks:
            block.drop_path = 0.0
        assert torch.allclose(net(clips(4)), whole, atol=1e-4), "statistics are a clip's own, in training, too"
        assert not torch.allclose(net.eval()(clips(4).flip(1)), whole, atol=1e-3), "it knows the order of frames"


def test_a_factored_convolution_is_that_of_plain_sums():
    """One number of the output by hand, with strides, against float64 loops."""
    net = toy().eval()
    first = net.blocks[2].first
    x = torch.randn(1, first.spatial.in_channels, 5, 6, 6)
    w = first.spatial.weight.detach().double().numpy()[:, :, 0]
    padded = np.pad(x[0].double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    t, i, j = 3, 2, 1
    expected = np.einsum("mcab,cab->m", w, padded[:, t, 2 * i:2 * i + 3, 2 * j:2 * j + 3])
    with torch.no_grad():
        assert np.allclose(first.spatial(x)[0, :, t, i, j].double().numpy(), expected, atol=1e-4)
        y = torch.randn(1, first.temporal.in_channels, 5, 2, 2)
        v, rows = first.temporal.weight.detach().double().numpy()[..., 0, 0], np.pad(y[0].double().numpy(), ((0, 0), (1, 1), (0, 0), (0, 0)))
        assert first.temporal(y).shape[2:] == (3, 2, 2)
        assert np.allclose(first.temporal(y)[0, :, 1, 1, 0].double().numpy(), np.einsum("ocs,cs->o", v, rows[:, 2:5, 1, 0]), atol=1e-4)


def test_16_bit_numbers_and_checkpointing():
    net, labels = toy(drop_path=0.0, dropout=0.0), torch.tensor([0, 2])
    grads = {}
    for how in ("fp32", "again", "autocast", "weights"):
        one = toy(drop_path=0.0, dropout=0.0, activation_checkpointing=how == "again")
        one = one.bfloat16() if how == "weights" else one
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            out = one(clips())
        assert out.dtype == (torch.float32 if how in ("fp32", "again") else torch.bfloat16)
        F.cross_entropy(out.float(), labels).backward()
        grads[how] = {name: p.grad.float() for name, p in one.named_parameters()}
    assert all(torch.equal(grad, grads["again"][name]) for name, grad in grads["fp32"].items())
    for how in ("autocast", "weights"):
        for name in ("head.weight", "blocks.7.second.temporal.weight"):
            one, other = grads["fp32"][name].flatten(), grads[how][name].flatten()
            assert F.cosine_similarity(one, other, dim=0) > 0.97, (how, name)
    assert len(grads["fp32"]) == len(list(net.parameters()))


def test_it_learns_which_way_a_square_moves():
    """Eight clips, four each way, from other places: a still picture does not tell."""
    made, labels = torch.full((8, 8, 32, 32, 3), 40, dtype=torch.uint8), torch.tensor([0, 1] * 4)
    for i in range(8):
        for t in range(8):
            left = 2 + 2 * (t if labels[i] == 0 else 7 - t)
            made[i, t, 4 + 2 * i:12 + 2 * i, left:left + 8] = 220
    net = toy(num_classes=2, dropout=0.0, drop_path=0.0)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=2e-3), []
    for _ in range(25):
        loss = F.cross_entropy(net(made), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if losses[-1] < 0.05:
            break
    assert losses[-1] < 0.1 < 0.5 < losses[0], losses
    assert (net.eval()(made).argmax(1) == labels).all() and (net(made.flip(1)).argmax(1) != labels).all(), "backwards is the other way"


def test_a_file_says_that_it_is_one_and_everything_opens_it(tmp_path):
    path, config = tmp_path / "cell.safetensors", build(FinetuneConfig, parse_set(CELL))[0].model
    net = toy().eval()
    save_safetensors(net.state_dict(), path, {"config": json.dumps(config.unsaid)})
    found = model_in(path)
    assert found.settings == {"name": "vit_nano_patch8", "img_size": 32, "num_frames": 8, "t_patch_size": 2, "pool": "mean", "net": "conv"}
    assert str(found) == "a convolutional net of the FLOPs of vit_nano_patch8, 8 frames of 32 px" and found.head == 3
    with torch.no_grad():
        scores = net(clips())
        for opened in (load_classifier(path, 3).eval(), vidmae.load(path)):
            assert isinstance(opened, ConvClassifier) and torch.equal(opened(clips()), scores)
    other = toy(1).eval()
    report = load_encoder(other, path, new_head=True)
    assert report.loaded == len(net.state_dict()) - 2 and torch.equal(other.features(clips()), net.features(clips()))
    load_weights(other, path)
    assert frozen_features(other.eval(), clips(), None, "fp32") == pytest.approx(net.features(clips()).detach().numpy(), abs=1e-5)
    for opens, said in ((lambda: load_trained_encoder(path), "no tokens and no attention"),
                        (lambda: vidmae.load(path, num_frames=16), "cannot be changed"),
                        (lambda: load_encoder(build_classifier("vit_nano_patch8", num_classes=3, **TOY), path),
                         "the file looks like a convolutional net of this suite")):
        with pytest.raises(ValueError, match=said):
            opens()
    save_safetensors(net.state_dict(), path, {})
    with pytest.raises(ValueError, match="nothing says name, img_size, num_frames, t_patch_size"):
        model_in(path)


def test_settings():
    usual, conv = ClassifierConfig(), build(FinetuneConfig, parse_set(CELL))[0]
    assert "net" not in to_dict(usual, signed_only=True) and to_dict(conv, signed_only=True)["model"]["net"] == "conv"
    assert view_flops(conv.model) < step_flops(conv.model) == pytest.approx(step_flops(ClassifierConfig(name="vit_nano_patch8", **TOY)), rel=0.2)
    for items, said in (([], r"model\.pool is 'cls', allowed: mean with model\.net conv"),
                        (["model.pool=mean", "model.positions=fixed"], r"model\.net is 'conv', allowed: vit with model\.positions fixed"),
                        (["model.pool=mean", "model.net=cnn"], r"model\.net.*cnn")):
        with pytest.raises(ConfigError, match=said):
            build(FinetuneConfig, parse_set(["model.net=conv", *items]))
    with pytest.raises(ValueError, match=r"no convolutional net takes .*conv needs a larger transformer"):
        conv_like(encoder_shape("vit_pico_patch16", img_size=32))
    probe = build(FinetuneConfig, parse_set([*CELL, "method=linear", "probe.features=/f"]))[0]
    scratch = build(FinetuneConfig, parse_set([*CELL[:3], "model.pool=mean", "method=linear", "probe.features=/f"]))[0]
    assert feature_spec(probe).embed_dim == toy().sizes.features
    assert feature_spec(probe).folder_name != feature_spec(scratch).folder_name and "net" not in feature_spec(scratch).record
    with pytest.raises(ValueError, match=r"method is attentive, .*allowed: finetune, linear, knn"):
        feature_spec(build(FinetuneConfig, parse_set([*CELL, "method=attentive", "probe.features=/f"]))[0])
