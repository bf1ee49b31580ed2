"""The classifier against a plain numpy float64 reference, published counts, and probabilities worked out by hand."""

import pytest
import torch

from tests.support import reference_mae
from vidmae.model.blocks import Block, drop_path
from vidmae.model.classifier import build_classifier
from vidmae.model.groups import layer_decay_groups
from vidmae.model.patches import as_frames

TOY = {"num_classes": 5, "img_size": 32, "num_frames": 8}


def toy(seed=0, **options):
    """A small model whose every parameter, zero biases included, is random."""
    torch.manual_seed(seed)
    model = build_classifier("vit_nano_patch8", **{**TOY, **options})
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param) * 0.05)
    return model


def some_clips(model, batch=2):
    s, g = model.shape, torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, s.num_frames, s.img_size, s.img_size, 3), generator=g, dtype=torch.uint8)


def normalised(clips):
    """[B, C, T, H, W], as the released code feeds it."""
    return ((clips.double() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize(("num_classes", "keys", "parameters"), [
    (174, 522, 631_750_574), (700, 522, 632_424_380), (1000, 522, 632_808_680), (None, 520, 631_527_680)])
def test_paper_model_has_the_published_counts(num_classes, keys, parameters):
    with torch.device("meta"):
        state = build_classifier("vit_huge_patch14", num_classes=num_classes).state_dict()
    assert (len(state), sum(t.numel() for t in state.values())) == (keys, parameters)
    assert tuple(state["pos_embed_spatial"].shape) == (1, 256, 1280)
    if num_classes:
        assert tuple(state["head.weight"].shape) == (num_classes, 1280)


def test_paper_model_at_448_px():
    with torch.device("meta"):
        state = build_classifier("vit_huge_patch14", num_classes=174, img_size=448).state_dict()
    assert tuple(state["pos_embed_spatial"].shape) == (1, 1024, 1280)
    assert tuple(state["pos_embed_temporal"].shape) == (1, 8, 1280)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_logits_equal_the_numpy_reference(pool):
    model = toy(pool=pool).eval()
    clips = some_clips(model)
    params = {name: p.double().numpy() for name, p in model.state_dict().items()}
    expected = torch.from_numpy(reference_mae.logits(params, normalised(clips).numpy(), patch=8, tubelet=2, heads=3, pool=pool))
    with torch.no_grad():
        assert torch.allclose(model(clips).double(), expected, atol=1e-5)
        assert torch.allclose(model(normalised(clips).float()).double(), expected, atol=1e-5)
        assert torch.allclose(model.head(model.features(clips)).double(), expected, atol=1e-5)
    other = torch.from_numpy(reference_mae.logits(params, normalised(clips).numpy(), patch=8, tubelet=2, heads=3,
                                                  pool="mean" if pool == "cls" else "cls"))
    assert (other - expected).abs().max() > 1e-2  # else the test could not tell them apart


def test_all_tokens_are_the_given_tokens_in_grid_order():
    model = toy().eval()
    frames = as_frames(some_clips(model), model.shape)
    ids = torch.stack([torch.randperm(model.shape.num_tokens) for _ in frames])
    everything, shuffled = model.last_block(frames), model.last_block(frames, ids)
    assert torch.allclose(shuffled[:, 0], everything[:, 0], atol=1e-5)
    assert torch.allclose(shuffled[:, 1:], everything[:, 1:].gather(1, ids[..., None].expand(-1, -1, 96)), atol=1e-5)


def test_start_values_of_the_head():
    torch.manual_seed(0)
    head = build_classifier("vit_tiny_patch16", num_classes=100, img_size=32).head
    assert head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert head.bias.abs().max().item() == 0


def test_without_a_head_the_output_is_the_features():
    model = toy(num_classes=None).eval()
    clips = some_clips(model)
    assert torch.equal(model(clips), model.features(clips))
    assert model(clips).shape == (2, 96)


def test_drop_path_takes_whole_clips_and_keeps_the_mean():
    torch.manual_seed(0)
    out = drop_path(torch.ones(20_000, 3, 2), 0.2)
    per_clip = out.flatten(1)
    assert torch.equal(per_clip, per_clip[:, :1].expand_as(per_clip))
    assert set(out.unique().tolist()) == {0.0, 1.25}
    share = (out == 0).float().mean().item()
    assert share == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / 20_000) ** 0.5)
    x = torch.randn(2, 3, 4)
    assert drop_path(x, 0.0) is x


def test_a_block_skips_attention_and_mlp_apart():
    """In training each clip is one of four outcomes, as often as two independent draws say."""
    torch.manual_seed(0)
    rate, clips = 0.3, 4000
    block, x = Block(16, 2, drop_path=rate), torch.randn(1, 3, 16)

    def outcome(attention, mlp):
        y = x + attention * block.attn(block.norm1(x))
        return y + mlp * block.mlp(block.norm2(y))

    kept = 1 / (1 - rate)
    with torch.no_grad():
        outcomes = torch.cat([outcome(a, m) for a in (0, kept) for m in (0, kept)])
        found = block.train()(x.expand(clips, -1, -1))
        distance = (found[:, None] - outcomes).abs().amax((2, 3))
        assert distance.amin(1).max() < 1e-5
        assert torch.allclose(block.eval()(x), outcome(1, 1), atol=1e-6)
    counts = torch.bincount(distance.argmin(1), minlength=4) / clips
    expected = torch.tensor([rate * rate, rate * (1 - rate), (1 - rate) * rate, (1 - rate) ** 2])
    assert (counts - expected).abs().max() < 5 * (0.25 / clips) ** 0.5


def test_drop_path_grows_linearly_over_the_blocks():
    assert [block.drop_path for block in toy(drop_path=0.2).blocks] == pytest.approx([0, 0.1, 0.2])
    with torch.device("meta"):
        rates = [block.drop_path for block in build_classifier("vit_huge_patch14", num_classes=174).blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.1, 32).tolist())


def test_evaluation_drops_nothing():
    model, plain = toy(drop_path=0.9, dropout=0.9), toy(drop_path=0, dropout=0)
    clips = some_clips(model)
    assert not torch.allclose(model.train()(clips), plain(clips), atol=1e-3)
    assert torch.equal(model.eval()(clips), plain.eval()(clips))
    assert torch.equal(plain.train()(clips), plain.eval()(clips))


def test_dropout_stands_between_features_and_head():
    model = toy(drop_path=0, dropout=0.5).train()
    clips, seen = some_clips(model), []
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(clips)
    features = model.features(clips)
    dropped = seen[0] == 0
    assert 0.3 < dropped.float().mean() < 0.7
    assert torch.allclose(seen[0][~dropped], 2 * features[~dropped])


def test_activation_checkpointing_draws_the_same_drops():
    clips, grads = some_clips(toy()), []
    for on in (False, True):
        model = toy(activation_checkpointing=on, drop_path=0.5).train()
        torch.manual_seed(3)
        model(clips).square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    assert all(torch.equal(grad, grads[1][name]) for name, grad in grads[0].items())


def test_16_bit_numbers():
    model = toy().eval()
    clips = some_clips(model)
    with torch.no_grad():
        expected = model(clips)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.allclose(model(clips).float(), expected, atol=0.05)
        assert torch.allclose(model.bfloat16()(clips).float(), expected, atol=0.05)
        assert model.train()(clips).dtype == torch.bfloat16  # drop path and dropout widen nothing


LAYERS = {  # a model of three blocks, written out
    0: ["cls_token", "pos_embed_spatial", "pos_embed_temporal", "pos_embed_class", "patch_embed"],
    1: ["blocks.0"], 2: ["blocks.1"], 3: ["blocks.2"], 4: ["norm", "head"]}


@pytest.mark.parametrize("layer_decay", [0.8, 1.0])
def test_groups_are_those_of_the_table(layer_decay):
    model = toy()
    found = {}
    for group in torch.optim.AdamW(layer_decay_groups(model, 0.05, layer_decay), lr=1.0).param_groups:
        found |= {id(p): (group["lr_scale"], group["weight_decay"]) for p in group["params"]}
    names = dict(model.named_parameters())
    assert len(found) == len(names)
    for name, param in names.items():
        [layer] = [i for i, parts in LAYERS.items() if any(name == part or name.startswith(part + ".") for part in parts)]
        decays = param.ndim > 1
        assert found[id(param)] == pytest.approx((layer_decay ** (4 - layer), 0.05 if decays else 0.0)), name


def test_groups_of_the_paper_model():
    with torch.device("meta"):
        groups = layer_decay_groups(build_classifier("vit_huge_patch14", num_classes=174), 1e-4, 0.8)
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0] * 34
    assert [group["lr_scale"] for group in groups[::2]] == pytest.approx([0.8 ** (33 - i) for i in range(34)])


def test_a_frozen_encoder_leaves_the_head_to_the_optimizer():
    model = toy()
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    groups = layer_decay_groups(model, 0.05, 0.8)
    assert [[tuple(p.shape) for p in group["params"]] for group in groups] == [[(5, 96)], [(5,)]]
    assert [group["lr_scale"] for group in groups] == [1.0, 1.0]


@pytest.mark.parametrize(("name", "options", "message"), [
    ("vit_titan_patch14", {}, r"unknown model 'vit_titan_patch14'; valid: vit_\{pico,nano,tiny,small,base,large,huge,giant\}"),
    ("mae_vit_base_patch16", {}, "unknown model 'mae_vit_base_patch16'.* such as vit_huge_patch14"),
    ("vit_base_patch16", {"img_size": 230}, r"img_size 230 .* \(16\); nearest: 224, 240"),
    ("vit_base_patch16", {"num_frames": 15}, r"num_frames 15 .* t_patch_size \(2\); nearest: 14, 16"),
    ("vit_base_patch16", {"num_classes": 0}, "num_classes 0 must be at least 1, or None"),
    ("vit_base_patch16", {"pool": "max"}, "pool 'max' is unknown; valid: cls, mean"),
    ("vit_base_patch16", {"dropout": 1.0}, r"dropout 1\.0 must be at least 0 and below 1"),
    ("vit_base_patch16", {"drop_path": -0.1}, r"drop_path -0\.1 must be at least 0 and below 1"),
    ("vit_base_patch16", {"attention": "flash"}, "attention 'flash' is unknown; valid: auto, sdpa, naive"),
])
def test_wrong_options_say_what_would_do(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_classifier(name, **{"num_classes": 5, **options})


@pytest.mark.parametrize("layer_decay", [0.0, -0.8, 1.2])
def test_a_wrong_layer_decay_is_refused(layer_decay):
    with pytest.raises(ValueError, match=f"layer_decay {layer_decay} must be above 0 and at most 1"):
        layer_decay_groups(toy(), 0.05, layer_decay)


def test_clips_of_another_size_are_refused():
    model = toy()
    with pytest.raises(ValueError, match=r"vit_nano_patch8 takes uint8 \[B, T, H, W, C\] = \(B, 8, 32, 32, 3\)"):
        model(some_clips(toy(img_size=64)))
    with pytest.raises(ValueError, match=r"takes floating \[B, C, T, H, W\] = \(B, 3, 8, 32, 32\)"):
        model(some_clips(model).float())
