"""Costs against the real model and published figures."""

import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from vidmae.model.classifier import build_classifier
from vidmae.model.feature_prediction import FeaturePredictor, features_of, make_teacher
from vidmae.model.mae import build_mae
from vidmae.model.masking import random_mask
from vidmae.runs import cost
from vidmae.settings.sizes import ENCODER_SIZES, encoder_shape, model_shape

HUGE = model_shape("mae_vit_huge_patch14")


def test_the_launcher_can_import_it_without_torch():
    code = "import sys; sys.modules['torch'] = None; import vidmae.runs.cost, vidmae.settings.sizes"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", ENCODER_SIZES)
@pytest.mark.parametrize("options", [{}, {"pred_t_dim": 8, "decoder_depth": 8, "decoder_embed_dim": 256, "img_size": 448}])
def test_parameter_count_is_the_real_one(size, options):
    name = f"mae_vit_{size}_patch14"
    with torch.device("meta"):
        model = build_mae(name, **options)
    assert cost.parameters(model_shape(name, **options)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "forward_gf", "train_gf"), [
    ("mae_vit_base_patch16", 93.5, 276.9), ("mae_vit_large_patch16", 164.5, 488.5), ("mae_vit_huge_patch14", 359.7, 1072.9)])
def test_flops_of_the_released_code(name, forward_gf, train_gf):
    """2 * multiply-adds of the matrix products that the released code runs for one clip."""
    shape = model_shape(name)
    assert cost.forward_flops_per_clip(shape, textbook=True) / 1e9 == pytest.approx(forward_gf, abs=0.05)
    assert cost.train_flops_per_clip(shape, textbook=True) / 1e9 == pytest.approx(train_gf, abs=0.05)
    assert cost.forward_flops_per_clip(shape) < cost.forward_flops_per_clip(shape, textbook=True)


def toy_step(attention, decoder_mask_ratio):
    model = build_mae("mae_vit_nano_patch8", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=64,
                      decoder_depth=2, decoder_num_heads=2, attention=attention, decoder_mask_ratio=decoder_mask_ratio)
    s = model.shape
    clips = torch.randint(0, 256, (1, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8)
    return model, clips, random_mask(s.num_tokens, 0.9, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("decoder_mask_ratio", [0.0, 0.5])
def test_flops_are_what_torch_counts(decoder_mask_ratio):
    from torch.utils.flop_counter import FlopCounterMode
    model, clips, mask = toy_step("naive", decoder_mask_ratio)
    with FlopCounterMode(display=False) as counter:
        loss = model(clips, mask)
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == cost.forward_flops_per_clip(model.shape)
    assert counter.get_total_flops() == cost.train_flops_per_clip(model.shape)


def test_flops_and_states_of_a_teacher():
    """Against torch's count of a whole step, and of ViT-H by hand: a teacher sees ten times the tokens and goes no way back."""
    from torch.utils.flop_counter import FlopCounterMode
    shape = model_shape("mae_vit_nano_patch8", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=64, decoder_depth=2,
                        decoder_num_heads=2, target="features")
    model = FeaturePredictor(shape, attention="naive")
    teacher = make_teacher(model, torch.device("cpu"), torch.float32)
    clips = torch.randint(0, 256, (1, 8, 64, 64, 3), dtype=torch.uint8)
    mask = random_mask(shape.num_tokens, 0.9, 1, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        model(clips, mask, features_of(teacher, clips)).backward()
    assert counter.get_total_flops() == cost.train_flops_per_clip(shape)
    assert cost.parameters(shape) == sum(p.numel() for p in model.parameters())
    huge = model_shape("mae_vit_huge_patch14", target="features")
    assert cost.train_flops_per_clip(huge) - 3.27e12 == pytest.approx(cost.train_flops_per_clip(HUGE), rel=0.01)
    count = cost.parameters(huge) / cost.GIB
    for stage, world_size, offload, more in [(0, 4, False, 4 + 4), (2, 4, False, 4 / 4 + 2), (3, 4, False, 4 / 4 + 2), (2, 4, True, 2)]:
        with_teacher, without = (cost.state_gib(replace(huge, target=target), zero_stage=stage, precision="bf16", world_size=world_size,
                                                offload=offload) / cost.parameters(replace(huge, target=target)) for target in ("features", "pixels"))
        assert (with_teacher - without) * cost.parameters(huge) == pytest.approx(more * count)
    on_host = [cost.host_gib(each, precision="bf16", world_size=4, grad_accum=1) / cost.parameters(each) for each in (huge, HUGE)]
    assert (on_host[0] - on_host[1]) * 2**30 == pytest.approx(1)


def counted(run):
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as counter:
        loss = run().float().mean()
        forward = counter.get_total_flops()
        loss.backward()
    return forward, counter.get_total_flops()


@pytest.fixture
def unreal(monkeypatch):
    """CPU tensors without numbers, so that models of real size take no time: nothing may look at numbers or addresses."""
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, **_: tensor)
    monkeypatch.setattr("vidmae.model.blocks.recomputed", lambda *_: nullcontext(), raising=False)
    with FakeTensorMode():
        yield


@pytest.mark.parametrize("name", ["mae_vit_base_patch16", "mae_vit_tiny_patch16", "mae_vit_huge_patch14"])
def test_flops_of_a_pretraining_step_of_real_size(name, unreal):
    """The naive kernel: of the fused one torch counts what its backward pass computes a second time, too."""
    model = build_mae(name, attention="naive")
    clips = torch.empty(1, 16, 224, 224, 3, dtype=torch.uint8)
    mask = random_mask(model.shape.num_tokens, 0.9, 1, generator=torch.Generator().manual_seed(0))
    forward, whole = counted(lambda: model(clips, mask))
    assert cost.forward_flops_per_clip(model.shape) == pytest.approx(forward, rel=0.01)
    assert cost.train_flops_per_clip(model.shape) == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("name", ["vit_base_patch16", "vit_tiny_patch16"])
def test_flops_of_a_finetuning_step_of_real_size(name, unreal):
    model = build_classifier(name, num_classes=174, attention="naive")
    clips = torch.empty(1, 16, 224, 224, 3, dtype=torch.uint8)
    forward, whole = counted(lambda: model(clips))
    assert cost.encoder_flops_per_clip(model.shape) == pytest.approx(forward, rel=0.01)
    assert cost.finetune_flops_per_clip(model.shape) == pytest.approx(whole, rel=0.01)


@pytest.mark.parametrize("decoder_mask_ratio", [0.0, 0.5])
def test_activation_estimate_is_near_the_saved_tensors(decoder_mask_ratio):
    model, clips, mask = toy_step("sdpa", decoder_mask_ratio)
    estimate = cost.activation_gib(model.shape, micro_batch=1, precision="fp32", checkpointing=False)
    assert saved_gib(model, clips, mask) == pytest.approx(estimate, rel=0.1)


def test_vit_h_fits_one_card_of_24_gb():
    """What vidmae/README.md says; 20 of 22.3 GiB are used, the rest is for buckets and fragments."""
    def gib(offload, clips, checkpointing=0):
        states = cost.state_gib(HUGE, zero_stage=1, precision="bf16", world_size=1, offload=offload)
        return states + cost.activation_gib(HUGE, micro_batch=clips, precision="bf16", checkpointing=checkpointing)

    assert gib(False, 32) < 20 < gib(False, 36) and gib(True, 56) < 20 < gib(True, 60) and gib(True, 200, checkpointing=1) < 20
    assert cost.host_gib(HUGE, precision="bf16", world_size=1, grad_accum=4) == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_flops_and_memory_of_blocks_that_are_computed_again(every):
    """Against torch's count, and against what autograd saves outside of them, their inputs with it."""
    from torch.utils.flop_counter import FlopCounterMode
    model, clips, mask = toy_step("naive", 0.5)
    model.activation_checkpointing = every
    with FlopCounterMode(display=False) as counter:
        model(clips, mask).backward()
    s, again = model.shape, cost.recomputed_flops_per_clip(model.shape, every)
    encoder, decoder = (s.num_kept + 1) * s.embed_dim, (1 + s.num_kept + s.num_rebuilt) * s.decoder_embed_dim
    count = [len([i for i in range(depth) if i % every == 0]) for depth in (s.depth, s.decoder_depth)]
    last_products = 2 * 4 * (count[0] * encoder * s.embed_dim + count[1] * decoder * s.decoder_embed_dim)
    assert counter.get_total_flops() == cost.train_flops_per_clip(s) + again - last_products and again > last_products > 0

    model, clips, mask = toy_step("sdpa", 0.5)
    model.activation_checkpointing = every
    one_whole = 15 * max(encoder, decoder)
    estimate = cost.activation_gib(s, micro_batch=1, precision="fp32", checkpointing=every)
    assert saved_gib(model, clips, mask) == pytest.approx(estimate - 4 * one_whole / cost.GIB, rel=0.12)


def saved_gib(model, clips, mask):
    """Of all that autograd keeps for the backward pass, parameters aside."""
    own, saved = {p.data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(clips, mask)
    return sum(storage.nbytes() for storage in saved.values()) / cost.GIB


def test_half_of_the_decoder_saves_what_the_readme_says():
    for name, saved in (("mae_vit_base_patch16", 1.58), ("mae_vit_huge_patch14", 1.16)):
        whole, half = (model_shape(name, decoder_mask_ratio=ratio) for ratio in (0.0, 0.5))
        assert cost.train_flops_per_clip(whole) / cost.train_flops_per_clip(half) == pytest.approx(saved, abs=0.005)
        assert cost.train_flops_per_clip(whole, textbook=True) == cost.train_flops_per_clip(half, textbook=True)
        assert cost.parameters(whole) == cost.parameters(half)


def test_states_by_stage():
    p = 645_534_104 / cost.GIB
    bf16, fp32 = ([cost.state_gib(HUGE, zero_stage=s, precision=kind, world_size=4) for s in range(4)]
                  for kind in ("bf16", "fp32"))
    assert bf16 == pytest.approx([16 * p, 4 * p + 3 * p, 2 * p + 3.5 * p, 4 * p])
    assert fp32 == pytest.approx([16 * p, 8 * p + 3 * p, 4 * p + 4 * p, 5 * p])


def test_states_in_the_host_s_memory():
    p = 645_534_104 / cost.GIB
    assert [cost.state_gib(HUGE, zero_stage=s, precision="bf16", world_size=4, offload=True) for s in (1, 2, 3)] == pytest.approx(
        [4 * p, 2.5 * p, p])
    on_host = [cost.host_gib(HUGE, precision=kind, world_size=4, grad_accum=n) for kind, n in (("bf16", 1), ("bf16", 2), ("fp32", 1))]
    assert on_host == pytest.approx([18 / 4 * p, 20 / 4 * p, 20 / 4 * p])


def test_activations():
    one, two = (cost.activation_gib(HUGE, micro_batch=n, precision="bf16", checkpointing=False) for n in (1, 2))
    in_blocks = 12 * (32 * 205 * 1280 + 4 * 2049 * 512) * 2  # numbers per token and channel, tokens, channels, bytes
    assert one * cost.GIB == pytest.approx(in_blocks + 23e6, abs=1e6)  # and the ends, the target and the prediction
    assert two == pytest.approx(2 * one)
    assert cost.activation_gib(HUGE, micro_batch=1, precision="bf16", checkpointing=True) < 0.25 * one
    half = cost.activation_gib(HUGE, micro_batch=1, precision="bf16", checkpointing=2)
    by_hand = (12 + 1) * (16 * 205 * 1280 + 2 * 2049 * 512) + 15 * 2049 * 512  # half whole, half their inputs, one again
    assert half * cost.GIB == pytest.approx(2 * by_hand + 23e6, abs=1e6)


def test_an_encoder_that_sees_all_tokens():
    """Every matrix product of a clip written out: 4 frames of 32 px in patches of 2 x 16 x 16, width 96, 3 blocks."""
    shape = encoder_shape("vit_nano_patch16", img_size=32, num_frames=4)
    products = [(8, 2 * 16 * 16 * 3, 96)]  # [tokens, pixels] x [pixels, width]
    products += 3 * [(9, 96, 3 * 96), (9, 96, 9), (9, 9, 96), (9, 96, 96), (9, 96, 4 * 96), (9, 4 * 96, 96)]  # with the class token
    forward = sum(2 * rows * inner * columns for rows, inner, columns in products)
    assert cost.encoder_flops_per_clip(shape) == forward and cost.finetune_flops_per_clip(shape) == 3 * forward
    assert cost.encoder_flops_per_clip(HUGE) == pytest.approx(3.272e12, rel=1e-3)


def test_gpu_hours():
    """160 epochs of 536,000 clips on H100s at 40 % of the peak."""
    hours = cost.gpu_hours(HUGE, clips=160 * 536_000, peak_tflops=989.4, mfu=0.4)
    assert hours == pytest.approx(160 * 536_000 * 1.061e12 / (989.4e12 * 0.4) / 3600, rel=1e-3)
    with pytest.raises(ValueError, match="mfu 40 must be"):
        cost.gpu_hours(HUGE, clips=1, peak_tflops=1, mfu=40)


@pytest.mark.parametrize(("device", "tflops"), [
    ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.5), ("h100", 989.4), ("NVIDIA A100-SXM4-80GB", 312.0),
    ("nvidia_a100_80gb_pcie", 312.0), ("NVIDIA A40", 149.7), ("Tesla V100-SXM2-16GB", 125.0), ("Tesla T4", 65.0),
    ("Tesla V100-PCIE-32GB", 112.0), ("NVIDIA L40S", 362.05), ("NVIDIA L40", 181.05), ("NVIDIA L4", 121.0),
    ("NVIDIA H200", 989.4), ("NVIDIA GH200 480GB", 989.4), ("NVIDIA B200", 2250.0), ("NVIDIA GeForce RTX 4090", 165.2),
    ("rtx4090", 165.2), ("NVIDIA RTX 6000 Ada Generation", 364.2), ("NVIDIA RTX A1000", None), ("", None)])
def test_peaks(device, tflops):
    assert cost.gpu_peak_tflops(device) == tflops


def test_token_arithmetic_of_the_paper():
    assert (HUGE.grid, HUGE.num_tokens, HUGE.num_kept, HUGE.pred_dim) == ((8, 16, 16), 2048, 204, 1176)
