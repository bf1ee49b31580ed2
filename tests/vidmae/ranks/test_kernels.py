"""Which kernels a rank takes."""

import pytest
import torch

from vidmae.ranks import kernels

GPU = torch.device("cuda")  # only its name is looked at
SHAPES = [(16, 205, 80), (16, 2049, 32)]
TIMES = {("flash", 80): 1.0, ("flash", 32): 5.0, ("cudnn", 80): 2.0, ("cudnn", 32): 3.0, ("efficient", 80): 0.5}


def seconds(kernel, shape, batch, dtype, device):
    assert (batch, dtype, device) == (8, torch.bfloat16, GPU)
    return TIMES.get((kernel, shape[2]))


def choose(**settings):
    return kernels.fastest_attention(SHAPES, 8, torch.bfloat16, GPU, seconds=seconds, **settings)


def test_the_kernel_with_the_least_time_for_all_shapes_is_taken_and_said():
    kernel, said = choose(deterministic=False)
    assert kernel == "cudnn" and "head widths 80, 32" in said and "cudnn 2000.00 ms, 3000.00 ms" in said
    assert "efficient 500.00 ms, not possible" in said


def test_a_deterministic_run_leaves_out_what_adds_up_in_any_order():
    assert choose(deterministic=True)[0] == "flash"


def test_the_plain_form_where_no_kernel_takes_all_shapes():
    assert kernels.fastest_attention([(1, 2, 300)], 8, torch.bfloat16, GPU, deterministic=False, seconds=seconds)[0] == "math"


@pytest.mark.parametrize("kernel", [*kernels.ATTENTION, "math"])
def test_one_kernel_beside_the_plain_form(kernel):
    before = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in ("flash", "cudnn", "mem_efficient", "math")}
    try:
        kernels.use_attention(kernel)
        on = {name.removeprefix("mem_") for name in before if getattr(torch.backends.cuda, f"{name}_sdp_enabled")()}
        assert on == {kernel, "math"}
    finally:
        for name, value in before.items():
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)


def test_numerics_are_set_and_said():
    assert kernels.set_numerics(torch.device("cpu"), deterministic=False) == []
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        assert kernels.set_numerics(GPU, deterministic=True) == ["float32 products without TF32", "deterministic kernels"]
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
