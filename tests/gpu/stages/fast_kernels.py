"""What the device does in a step: the 20 kernels that take most of the time, launches per step, idle share; and attention.

On a CPU the same lines count torch's operators in place of kernels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from tests.gpu import steps
from tests.gpu.report import Report, earlier
from tests.gpu.scales import Scale
from vidmae.ranks import dist

MODE, SHOWN, STEPS = "bf16 weights, ZeRO 1", 20, 3


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report, ranks = Report(), steps.join(device)
    steps.set_up_compile(scale, smoke_backend="eager")
    name = next(iter(scale.models()))
    for compiled in (False, True):
        what = f"{name}, {MODE}, {'compiled' if compiled else 'eager'}"
        if compiled and not steps.HAS_COMPILE:
            report.skip(what, "there is no train.compile yet")
            continue
        with report.part(what):
            _kernels(report, what, ranks, scale, compiled)
    for which in ("encoder", "decoder"):
        for model, config in scale.models().items():
            with report.part(f"attention, {model} {which}"):
                _attention(report, f"attention, {model} {which}", config.shape(), which, device, scale)
    dist.close()
    return report.record()


def _batch(scale: Scale, name: str) -> int:
    """The fastest micro-batch that fast_step found, 64 at most: a trace of more says the same."""
    found = [line for line in earlier("fast_step") if line["what"].startswith(f"{name}, {MODE}, eager") and "clips_per_s" in line]
    fastest = max(found, key=lambda line: float(line["clips_per_s"]))["batch"] if found else 32
    return min(fastest, 64 if scale.name == "full" else 2)


def _kernels(report: Report, what: str, ranks: dist.Ranks, scale: Scale, compiled: bool) -> None:
    on_gpu = ranks.device.type == "cuda"
    batch = _batch(scale, what.partition(",")[0])
    with steps.trainee("ours", scale.main, ranks, compiled=compiled, **steps.MODES[MODE]) as one:
        for _ in range(2):
            one.step(batch)
        steps.synchronise(ranks.device)
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as seen:
            for _ in range(STEPS):
                one.step(batch)
            steps.synchronise(ranks.device)
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = [e for e in seen.events() or [] if not _is_range(e)]
    spans = sorted((e.time_range.start, e.time_range.end) for e in events if e.device_type == kind)
    whole = max(e.time_range.end for e in events) - min(e.time_range.start for e in events)
    launches = sum("LaunchKernel" in e.name for e in events) if on_gpu else len(spans)
    report.figure(f"{what}, micro-batch {batch}", launches_per_step=launches / STEPS, step_ms=whole / STEPS / 1e3,
                  idle_pct=100 * (1 - _covered(spans) / whole))
    spent: dict[str, list[float]] = {}
    for row in seen.key_averages():
        if row.device_type == kind and not _is_range(row):
            of = float(row.self_device_time_total if on_gpu else row.self_cpu_time_total)
            spent.setdefault(row.key, [0.0, 0.0])
            spent[row.key] = [spent[row.key][0] + of, spent[row.key][1] + row.count]
    total = sum(each[0] for each in spent.values())
    for place, (key, (of, count)) in enumerate(sorted(spent.items(), key=lambda item: -item[1][0])[:SHOWN], 1):
        report.figure(f"{what}, {place}. {key[:100]}", share_pct=100 * of / total, ms_per_step=of / STEPS / 1e3,
                      calls_per_step=count / STEPS)


def _is_range(event: Any) -> bool:
    """Whether it is no kernel but a range that somebody named, which covers idle time, too."""
    return bool(getattr(event, "is_user_annotation", False)) or "#" in str(getattr(event, "name", "") or event.key)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Microseconds in which at least one of them ran; sorted by their start."""
    covered, end = 0.0, float("-inf")
    for start, stop in spans:
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _attention(report: Report, what: str, shape: Any, which: str, device: torch.device, scale: Scale) -> None:
    """Forward and backward of each backend that takes this head size."""
    tokens, dim, heads = ((shape.num_kept + 1, shape.embed_dim, shape.num_heads) if which == "encoder" else
                          (shape.num_tokens + 1, shape.decoder_embed_dim, shape.decoder_num_heads))
    size = (32 if scale.name == "full" else 1, heads, tokens, dim // heads)
    q, k, v = (torch.randn(size, dtype=torch.bfloat16, device=device, requires_grad=True) for _ in range(3))
    flops = 3.5 * 4 * size[0] * heads * tokens * tokens * size[3]  # the backward pass of a fused kernel is 2.5 forward ones
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):

        def call(backend: SDPBackend = backend) -> None:
            with sdpa_kernel(backend):
                F.scaled_dot_product_attention(q, k, v).sum().backward()

        if not steps.in_time(2.0):
            report.skip(f"{what}, {backend.name}", "no time is left")
            continue
        try:
            found = steps.timed(call, device, scale)
        except RuntimeError as error:  # also where memory does not suffice
            report.skip(f"{what}, {backend.name}", f"head size {size[3]}: {str(error).splitlines()[0][:120]}")
            continue
        report.figure(f"{what}, {backend.name}, head size {size[3]}, {tokens} tokens", ms=1e3 * found["seconds"],
                      tflops=flops / found["seconds"] / 1e12)
