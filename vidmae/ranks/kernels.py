"""How a rank computes: which kernels torch may take, set once before the first step and said in the log.

On a GPU:

    float32 products    in float32, not TF32: what train.precision calls fp32 is fp32
    attention           the kernel that is fastest for the sizes of the run, measured where it starts (choices.json keeps it)
    train.deterministic kernels that add up in a fixed order; attention then leaves out cuDNN's

On a CPU torch's kernels are deterministic, and there is one form of fused attention: nothing is chosen there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

ATTENTION = ("flash", "cudnn", "efficient")  # beside them torch's plain one, which stays on for what none of them takes
NOT_DETERMINISTIC = "does not have a deterministic implementation"  # in torch's message
AttentionShape = tuple[int, int, int]  # heads, tokens, head width
ROUNDS = 5
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of the precisions of 16 bits."""


def set_numerics(device: torch.device, *, deterministic: bool) -> list[str]:
    """Fix the arithmetic of this process, before its first product on the device; what was set, for the log."""
    said = []
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        said.append("float32 products without TF32")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a pass over new arrays
        torch.use_deterministic_algorithms(True)
        said.append("deterministic kernels")
    return said


def fastest_attention(shapes: Sequence[AttentionShape], batch: int, dtype: torch.dtype, device: torch.device, *,
                      deterministic: bool, seconds: Callable[..., float | None] | None = None) -> tuple[str, str]:
    """The fused attention kernel with the least time for one block of each shape, forward and backward.

    Args:
        shapes: Those of the model.
        batch: Clips.
        dtype: Of queries, keys and values.
        device: A GPU.
        deterministic: Leave out cuDNN's, whose backward pass adds up in any order.
        seconds: Times a kernel for a shape, None where it does not take it; a test gives its own.
    Returns:
        Its name and what was measured, for the log. `math`, torch's plain form, where none takes all the shapes.
    """
    kernels = [kernel for kernel in ATTENTION if not (deterministic and kernel == "cudnn")]
    measure = seconds or attention_s
    times = {kernel: [measure(kernel, shape, batch, dtype, device) for shape in shapes] for kernel in kernels}
    whole = {kernel: sum(filter(None, found)) for kernel, found in times.items() if None not in found}
    widths = [width for _, _, width in shapes]
    said = "; ".join(f"{kernel} {_times(found)}" for kernel, found in times.items())
    said = f"forward and backward at head widths {', '.join(map(str, widths))}: {said}"
    return (min(whole, key=whole.__getitem__) if whole else "math"), said


def _times(found: Sequence[float | None]) -> str:
    return ", ".join("not possible" if t is None else f"{t * 1e3:.2f} ms" for t in found)


def attention_s(kernel: str, shape: AttentionShape, batch: int, dtype: torch.dtype, device: torch.device) -> float | None:
    """Seconds for forward and backward, the best of a few; None where the kernel does not take the shape."""
    heads, tokens, width = shape
    q, k, v = (torch.randn(batch, heads, tokens, width, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    grad, best = torch.randn_like(q), float("inf")
    try:
        with torch.nn.attention.sdpa_kernel(_backend(kernel)):
            for _ in range(ROUNDS):
                torch.cuda.synchronize(device)
                began = time.perf_counter()
                F.scaled_dot_product_attention(q, k, v).backward(grad)
                torch.cuda.synchronize(device)
                best = min(best, time.perf_counter() - began)
    except RuntimeError:  # "no available kernel"
        return None
    return best


def use_attention(kernel: str) -> None:
    """Let fused attention on a GPU be this kernel alone, beside torch's plain form for what it does not take."""
    for name, switch in {"flash": torch.backends.cuda.enable_flash_sdp, "cudnn": torch.backends.cuda.enable_cudnn_sdp,
                         "efficient": torch.backends.cuda.enable_mem_efficient_sdp}.items():
        switch(name == kernel)
    torch.backends.cuda.enable_math_sdp(True)


def _backend(kernel: str) -> torch.nn.attention.SDPBackend:
    backends = torch.nn.attention.SDPBackend
    return {"flash": backends.FLASH_ATTENTION, "cudnn": backends.CUDNN_ATTENTION,
            "efficient": backends.EFFICIENT_ATTENTION}[kernel]
