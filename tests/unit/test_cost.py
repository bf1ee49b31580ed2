"""Costs against the real model and published figures."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from vidmae import cost
from vidmae.masking import random_mask
from vidmae.model import build_mae
from vidmae.sizes import ENCODER_SIZES, model_shape

HUGE = model_shape("mae_vit_huge_patch14")


def test_the_launcher_can_import_it_without_torch():
    code = "import sys; sys.modules['torch'] = None; import vidmae.cost; vidmae.cost.model_shape('mae_vit_tiny_patch16')"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("size", ENCODER_SIZES)
@pytest.mark.parametrize("options", [{}, {"pred_t_dim": 8, "decoder_depth": 8, "decoder_embed_dim": 256, "img_size": 448}])
def test_parameter_count_is_the_real_one(size, options):
    name = f"mae_vit_{size}_patch14"
    with torch.device("meta"):
        model = build_mae(name, **options)
    assert cost.param_count(model_shape(name, **options)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("name", "forward_gf", "train_gf"), [
    ("mae_vit_base_patch16", 93.5, 276.9), ("mae_vit_large_patch16", 164.5, 488.5), ("mae_vit_huge_patch14", 359.7, 1072.9)])
def test_flops_of_the_released_code(name, forward_gf, train_gf):
    """Counted on the reference by torch's FLOP counter; see the golden notes of the method: 2 * MAC, matrices only."""
    shape = model_shape(name)
    assert cost.forward_flops_per_clip(shape, textbook=True) / 1e9 == pytest.approx(forward_gf, abs=0.05)
    assert cost.train_flops_per_clip(shape, textbook=True) / 1e9 == pytest.approx(train_gf, abs=0.05)
    assert cost.forward_flops_per_clip(shape) < cost.forward_flops_per_clip(shape, textbook=True)


def toy_step():
    model = build_mae("mae_vit_nano_patch8", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=64,
                      decoder_depth=2, decoder_num_heads=2, attention="naive")
    s = model.shape
    clips = torch.randint(0, 256, (1, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8)
    return model, clips, random_mask(s.num_tokens, 0.9, 1, generator=torch.Generator().manual_seed(0))


def test_flops_are_what_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode
    model, clips, mask = toy_step()
    with FlopCounterMode(display=False) as counter:
        loss = model(clips, mask)
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == cost.forward_flops_per_clip(model.shape)
    assert counter.get_total_flops() == cost.train_flops_per_clip(model.shape)


@pytest.mark.parametrize("recompute", [False, True])
def test_activation_estimate_is_near_the_saved_tensors(recompute):
    model, clips, mask = toy_step()
    model = build_mae("mae_vit_nano_patch8", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=64,
                      decoder_depth=2, decoder_num_heads=2, attention="sdpa", activation_checkpointing=recompute)
    own = {p.data_ptr() for p in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = (storage.nbytes(), storage)  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(clips, mask).backward()
    measured = sum(size for size, _ in saved.values())
    estimate = cost.activation_bytes_per_clip(model.shape, precision="fp32", activation_checkpointing=False)
    if recompute:  # the hook also sees what checkpointing recomputes block by block, so only an upper bound holds
        assert cost.activation_bytes_per_clip(model.shape, precision="fp32", activation_checkpointing=True) < measured
    else:
        assert measured == pytest.approx(estimate, rel=0.1)


def test_memory_by_stage():
    p = 645_534_104 / cost.GIB
    stages = [cost.memory_per_gpu(HUGE, micro_batch=1, world_size=4, zero_stage=s) for s in range(4)]
    states = [m.total_gib - m.activations_gib for m in stages]
    assert states == pytest.approx([16 * p, 4 * p + 3 * p, 2 * p + 3.5 * p, 4 * p])
    fp32 = cost.memory_per_gpu(HUGE, micro_batch=1, world_size=4, zero_stage=2, precision="fp32")
    assert fp32.total_gib - fp32.activations_gib == pytest.approx(4 * p + 3 * p)
    assert stages[0].activations_gib * cost.GIB / 1e9 == pytest.approx(0.4, rel=0.1)
    one, two = (cost.memory_per_gpu(HUGE, micro_batch=n, world_size=4, zero_stage=2).activations_gib for n in (1, 2))
    assert two == pytest.approx(2 * one)
    with pytest.raises(ValueError, match="zero_stage 4 is unknown; valid: 0, 1, 2, 3"):
        cost.memory_per_gpu(HUGE, micro_batch=1, world_size=4, zero_stage=4)


def test_recomputation_saves_memory():
    assert cost.activation_bytes_per_clip(HUGE, activation_checkpointing=True) < \
        0.25 * cost.activation_bytes_per_clip(HUGE)


def test_gpu_hours():
    """160 epochs of 536,000 clips on H100s at 40 % of the peak."""
    hours = cost.gpu_hours(HUGE, 160 * 536_000, peak_tflops=989.4, mfu=0.4)
    assert hours == pytest.approx(160 * 536_000 * 1.061e12 / (989.4e12 * 0.4) / 3600, rel=1e-3)
    with pytest.raises(ValueError, match="mfu 40 must be"):
        cost.gpu_hours(HUGE, 1, peak_tflops=1, mfu=40)


@pytest.mark.parametrize(("device", "bf16", "fp16"), [
    ("NVIDIA H100 80GB HBM3", 989.4, 989.4), ("NVIDIA H100 PCIe", 756.5, 756.5), ("h100", 989.4, 989.4),
    ("NVIDIA A100-SXM4-80GB", 312.0, 312.0), ("nvidia_a100_80gb_pcie", 312.0, 312.0), ("NVIDIA A40", 149.7, 149.7),
    ("Tesla V100-SXM2-16GB", None, 125.0), ("NVIDIA L40S", 362.05, 362.05), ("NVIDIA L40", 181.05, 181.05),
    ("NVIDIA L4", 121.0, 121.0), ("NVIDIA H200", 989.4, 989.4), ("NVIDIA B200", 2250.0, 2250.0),
    ("NVIDIA GeForce RTX 4090", 165.2, 165.2), ("rtx4090", 165.2, 165.2), ("Tesla T4", None, 65.0),
    ("NVIDIA RTX 6000 Ada Generation", 364.2, 364.2), ("NVIDIA RTX A1000", None, None), ("Imaginary 9000", None, None)])
def test_peaks(device, bf16, fp16):
    assert cost.gpu_peak_tflops(device) == bf16
    assert cost.gpu_peak_tflops(device, "fp16") == fp16
    assert cost.gpu_peak_tflops(device, "fp32") is None


def test_shape_of_a_configuration():
    options = SimpleNamespace(name="mae_vit_huge_patch14", img_size=224, num_frames=16, t_patch_size=2, mask_ratio=0.9,
                              decoder_embed_dim=512, decoder_depth=4, decoder_num_heads=16, pred_t_dim=16, other=1)
    assert cost.shape_of(options) == HUGE
    assert (HUGE.grid, HUGE.num_tokens, HUGE.num_kept, HUGE.pred_dim) == ((8, 16, 16), 2048, 204, 1176)
