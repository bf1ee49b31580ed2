"""The model against a plain numpy float64 reference, published counts, and itself in other modes."""

import copy
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from tests.support import reference_mae
from vidmae.model import blocks
from vidmae.model.groups import no_weight_decay, param_groups
from vidmae.model.mae import build_mae
from vidmae.model.masking import mask_from_noise, random_mask
from vidmae.model.patches import nearest_predicted, patchify, predicted_frames, unpatchify

TOY = {"img_size": 32, "num_frames": 8, "pred_t_dim": 8, "decoder_embed_dim": 48, "decoder_depth": 2,
       "decoder_num_heads": 4, "mask_ratio": 0.75}


def toy(**options):
    """A small model whose every parameter, zero biases included, is random."""
    torch.manual_seed(0)
    model = build_mae("mae_vit_nano_patch8", **{**TOY, **options})
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param) * 0.05)
    return model


def clips_and_mask(model, batch=2, seed=1):
    g = torch.Generator().manual_seed(seed)
    s = model.shape
    clips = torch.randint(0, 256, (batch, s.num_frames, s.img_size, s.img_size, 3), generator=g, dtype=torch.uint8)
    return clips, random_mask(s.num_tokens, s.mask_ratio, batch, generator=g)


def normalised(clips):
    """[B, C, T, H, W], as the released code feeds it."""
    return ((clips.double() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3)


def loss_and_grads(model, clips, mask):
    model.zero_grad()
    loss = model(clips, mask)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_grads(one, other, rtol):
    for name, grad in one.items():
        if not name.endswith("attn.k.bias"):  # softmax ignores a shift: this gradient is zero but for rounding
            assert (grad - other[name]).abs().max() <= rtol * grad.abs().max(), name


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("pred_t_dim", [8, 4])
def test_loss_equals_the_numpy_reference(norm_pix, pred_t_dim):
    model = toy(norm_pix_loss=norm_pix, pred_t_dim=pred_t_dim)
    clips, mask = clips_and_mask(model)
    params = {name: p.double().numpy() for name, p in model.state_dict().items()}
    expected = reference_mae.loss(params, normalised(clips).numpy(), mask.mask.numpy(), patch=8, tubelet=2, heads=3,
                                  decoder_heads=4, pred_t_dim=pred_t_dim, norm_pix=norm_pix)
    assert model(clips, mask).item() == pytest.approx(expected, rel=1e-5)
    assert model(normalised(clips).float(), mask).item() == pytest.approx(expected, rel=1e-5)
    assert model.double()(normalised(clips), mask).item() == pytest.approx(expected, rel=1e-6)  # loss itself is float32


def test_paper_model_has_the_published_counts():
    with torch.device("meta"):
        model = build_mae("mae_vit_huge_patch14")
    state = model.state_dict()
    assert len(state) == 595
    assert sum(t.numel() for t in state.values()) == 645_534_104
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    assert shapes["patch_embed.proj.weight"] == (1280, 3, 2, 14, 14)
    assert shapes["pos_embed_spatial"] == (1, 256, 1280)
    assert shapes["pos_embed_temporal"] == (1, 8, 1280)
    assert shapes["decoder_pos_embed_spatial"] == (1, 256, 512)
    assert shapes["blocks.31.attn.q.weight"] == (1280, 1280)
    assert shapes["blocks.0.mlp.fc1.weight"] == (5120, 1280)
    assert shapes["decoder_blocks.3.attn.v.bias"] == (512,)
    assert shapes["decoder_pred.weight"] == (1176, 512)
    assert shapes["mask_token"] == (1, 1, 512)


def test_start_values():
    torch.manual_seed(0)
    model = build_mae("mae_vit_nano_patch8", **TOY)
    assert model.pos_embed_spatial.std().item() == pytest.approx(0.02, rel=0.15)
    limit = (6 / (96 + 3 * 2 * 8 * 8)) ** 0.5  # Xavier over the flattened kernel
    assert limit * 0.99 < model.patch_embed.proj.weight.abs().max().item() <= limit
    assert model.blocks[0].mlp.fc1.bias.abs().max().item() == 0
    assert model.norm.weight.min().item() == 1


def test_a_seed_fixes_weights_and_loss():
    one, two = toy(), toy()
    clips, mask = clips_and_mask(one)
    assert one(clips, mask).item() == two(clips, mask).item()


def test_kernels_agree():
    clips, mask = clips_and_mask(toy())
    (a, grads), (b, others) = (loss_and_grads(toy(attention=kind), clips, mask) for kind in ("sdpa", "naive"))
    assert a == pytest.approx(b, rel=1e-6)
    assert_same_grads(grads, others, 1e-4)


@pytest.mark.parametrize("how", [True, 2])
def test_activation_checkpointing_changes_no_gradient(how):
    """Nor does recomputing the GELU alone, which the model without checkpointing does."""
    clips, mask = clips_and_mask(toy())
    (a, grads), (b, others) = (loss_and_grads(toy(activation_checkpointing=on), clips, mask) for on in (False, how))
    assert a == b
    assert all(torch.equal(grad, others[name]) for name, grad in grads.items())


@pytest.mark.parametrize("recompute", [True, False])
def test_the_output_of_the_gelu_is_not_kept(recompute, monkeypatch):
    kept, gelu = [], blocks.F.gelu

    def watched(hidden):
        activated = gelu(hidden)
        kept.append(weakref.ref(activated))
        return activated

    monkeypatch.setattr(blocks.F, "gelu", watched)
    mlp = blocks.Mlp(32, recompute_gelu=recompute)
    y = mlp(torch.randn(2, 5, 32))
    assert (kept[0]() is None) == recompute
    y.sum().backward()
    assert len(kept) == (2 if recompute else 1)


def test_autocast_keeps_no_copy_of_a_weight():
    """And its results are those of torch's own linear layer under autocast."""
    torch.manual_seed(0)
    ours, theirs = blocks.linear(32, 48), torch.nn.Linear(32, 48)
    theirs.load_state_dict(ours.state_dict())
    x, found = torch.randn(2, 5, 32), []
    for layer in (ours, theirs):
        saved = []
        inputs = x.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda t, into=saved: into.append(t) or t, lambda t: t), \
                torch.autocast("cpu", torch.bfloat16):
            y = layer(inputs)
        y.float().square().sum().backward()
        results = [y, inputs.grad, layer.weight.grad, layer.bias.grad]
        found.append((results, [t for t in saved if t.dtype == torch.bfloat16 and t.numel() == layer.weight.numel()]))
    (mine, copies), (torchs, torchs_copies) = found
    assert not copies
    assert torchs_copies  # else the test would see nothing
    assert all(torch.equal(a, b) for a, b in zip(mine[:3], torchs[:3], strict=True))
    assert torch.allclose(mine[3], torchs[3], rtol=0.02)  # ours is summed in float32


@pytest.mark.parametrize("ratio", [0.0, 0.5])
def test_masks_loss_and_gradients_ask_nothing_of_the_device(ratio, monkeypatch):
    """On the meta device, which has no numbers: a GPU would make the host wait for one."""
    monkeypatch.setattr(blocks, "recomputed", lambda *_: nullcontext())  # looks at addresses, which are not there either
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # knows no such device
    with torch.device("meta"):
        model = build_mae("mae_vit_nano_patch8", **TOY, decoder_mask_ratio=ratio)
        s = model.shape
        clips = torch.empty(2, s.num_frames, s.img_size, s.img_size, 3, dtype=torch.uint8)
        loss = model(clips, mask_from_noise(torch.empty(2, s.num_tokens), s.mask_ratio))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(RuntimeError, match="meta"):
        loss.item()


def test_order_of_the_kept_tokens_does_not_matter():
    model = toy()
    clips, mask = clips_and_mask(model)
    flipped = type(mask)(mask.ids_keep.flip(1), mask.ids_removed.flip(1), mask.ids_restore, mask.mask)
    assert model(clips, flipped).item() == pytest.approx(model(clips, mask).item(), rel=1e-6)


def test_the_encoder_sees_kept_patches_only():
    model = toy()
    clips, mask = clips_and_mask(model)
    removed = model.removed_pixels(mask).expand_as(clips)
    changed = torch.where(removed, 255 - clips, clips)
    assert torch.equal(model.encode(clips, mask), model.encode(changed, mask))
    assert model.encode(clips, mask).shape == (2, 1 + mask.ids_keep.shape[1], 96)
    assert model.encode(clips).shape == (2, 1 + model.shape.num_tokens, 96)


def test_bf16_parameters():
    model = toy()
    clips, mask = clips_and_mask(model)
    loss, grads = loss_and_grads(copy.deepcopy(model).bfloat16(), clips, mask)
    assert loss == pytest.approx(model(clips, mask).item(), rel=0.01)
    assert all(grad.dtype == torch.bfloat16 and grad.isfinite().all() for grad in grads.values())
    assert model.bfloat16()(normalised(clips).bfloat16(), mask).dtype == torch.float32


def test_fp16_parameters():
    model = toy()
    clips, mask = clips_and_mask(model)
    assert copy.deepcopy(model).half()(clips, mask).item() == pytest.approx(model(clips, mask).item(), rel=0.01)


@pytest.mark.parametrize("kind", ["auto", "sdpa", "naive"])
def test_bf16_autocast(kind):
    model = toy(attention=kind)
    clips, mask = clips_and_mask(model)
    expected = model(clips, mask).item()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(clips, mask)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=0.01)
    assert model.blocks[0].attn.q.weight.grad.isfinite().all()


@pytest.mark.parametrize(("norm_pix", "pred_t_dim"), [(False, 8), (False, 4), (True, 8)])
def test_reconstruction_keeps_visible_pixels(norm_pix, pred_t_dim):
    model = toy(norm_pix_loss=norm_pix, pred_t_dim=pred_t_dim)
    clips, mask = clips_and_mask(model)
    picture = model.reconstruct(clips, mask)
    visible = ~model.removed_pixels(mask).expand_as(clips)
    assert picture.shape == clips.shape
    assert 0 <= picture.min() <= picture.max() <= 1
    assert torch.allclose(picture[visible], clips[visible] / 255, atol=1e-6)
    assert not torch.allclose(picture[~visible], clips[~visible] / 255, atol=1e-2)


@pytest.mark.parametrize("pred_t_dim", [8, 4])
def test_reconstruction_shows_what_the_loss_scores(pred_t_dim):
    """The error of the picture's removed pixels, at predicted frames, is the loss in other units."""
    model = toy(pred_t_dim=pred_t_dim)
    with torch.no_grad():
        model.decoder_pred.weight.mul_(0.05)  # keep predictions inside 0..1, where the picture is not clamped
    clips, mask = clips_and_mask(model)
    frames = predicted_frames(8, pred_t_dim)
    removed = model.removed_pixels(mask)[:, frames].expand(-1, -1, -1, -1, 3)
    error = (model.reconstruct(clips, mask)[:, frames] - clips[:, frames] / 255)[removed]
    assert (error**2).mean().item() / 0.225**2 == pytest.approx(model(clips, mask).item(), rel=1e-5)


def test_predicted_frames():
    assert predicted_frames(16, 8) == [0, 2, 4, 6, 8, 10, 12, 15]
    assert predicted_frames(16, 16) == list(range(16))
    assert nearest_predicted(16, 8, 2) == [f // 2 for f in range(16)]
    assert nearest_predicted(16, 8, 4) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    for frames in (8, 16, 32, 64):
        for dim in (8, 16, 32, 64):
            if dim <= frames:  # numpy rounds no integer down here; the released code has the same list
                assert predicted_frames(frames, dim) == [int(f) for f in np.linspace(0, frames - 1, dim)]


def test_patchify_round_trip():
    clip = torch.arange(2 * 4 * 8 * 12 * 3).reshape(2, 4, 8, 12, 3)
    patches = patchify(clip, 2, 4)
    assert patches.shape == (2, 2 * 2 * 3, 2 * 4 * 4 * 3)
    assert torch.equal(patches[0, 4], clip[0, 0:2, 4:8, 4:8].flatten())  # time 0, row 1, column 1
    assert torch.equal(unpatchify(patches, 2, 4, (2, 2, 3)), clip)


def test_weight_decay_spares_biases_and_vectors_only():
    model = toy()
    decayed, spared = param_groups(model, 0.05)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0.0)
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))
    assert all(p.ndim == 1 for p in spared["params"])
    exempt = {name for name, p in model.named_parameters() if no_weight_decay(name, p)}
    assert {"norm.weight", "patch_embed.proj.bias", "blocks.0.attn.q.bias"} <= exempt
    assert not exempt & {"cls_token", "mask_token", "pos_embed_spatial", "decoder_pos_embed_temporal",
                         "pos_embed_class", "patch_embed.proj.weight"}


@pytest.mark.parametrize(("name", "options", "message"), [
    ("mae_vit_titan_patch14", {}, r"unknown model 'mae_vit_titan_patch14'.*\{pico,nano,tiny,small,base,large,huge,giant\}"),
    ("mae_vit_base_patch0", {}, "unknown model"),
    ("vit_base_patch16", {}, "unknown model"),
    ("mae_vit_base_patch16", {"img_size": 230}, r"img_size 230 .* \(16\); nearest: 224, 240 \(model\.img_size\)"),
    ("mae_vit_base_patch16", {"num_frames": 15}, r"num_frames 15 .* t_patch_size \(2\); nearest: 14, 16"),
    ("mae_vit_base_patch16", {"pred_t_dim": 4}, r"pred_t_dim 4 .* time slots \(8\); nearest: 8"),
    ("mae_vit_base_patch16", {"pred_t_dim": 32}, "pred_t_dim 32 is more than num_frames 16"),
    ("mae_vit_base_patch16", {"decoder_embed_dim": 100}, r"decoder_embed_dim 100 .* \(16\); nearest: 96, 112"),
    ("mae_vit_base_patch16", {"mask_ratio": 1.0}, "keeps none or all of 1568 tokens"),
    ("mae_vit_base_patch16", {"attention": "flash"}, "attention 'flash' is unknown; valid: auto, sdpa, naive"),
])
def test_wrong_options_say_what_would_do(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_mae(name, **options)


def test_wrong_clips_and_masks_are_refused():
    model = toy()
    clips, mask = clips_and_mask(model)
    with pytest.raises(ValueError, match=r"takes uint8 \[B, T, H, W, C\] = \(B, 8, 32, 32, 3\)"):
        model(clips.permute(0, 4, 1, 2, 3), mask)
    with pytest.raises(ValueError, match=r"takes floating \[B, C, T, H, W\] = \(B, 3, 8, 32, 32\)"):
        model(clips.float(), mask)
    with pytest.raises(ValueError, match=r"clips are torch\.int64"):
        model(clips.long(), mask)
    with pytest.raises(ValueError, match="mask is for 2 clips of 64 tokens, the clips need 1 of 64"):
        model(clips[:1], mask)
