"""Is the arithmetic right: loss and gradients of the model on the device against a CPU, and against float64.

The judge is the textbook form in float64 on the CPU, whose loss is held against the plain numpy reference of the tests. TF32
is off for float32. In 16 bits gradients are compared as whole vectors per parameter: single numbers of them are noise.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.bench.peers.textbook import Textbook
from tests.gpu import steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale, at_width_of_base
from tests.support import reference_mae
from vidmae.model.mae import MaskedAutoencoder
from vidmae.settings.sizes import ModelShape

FP16_SCALE = 2.0**12
LIMITS = {"fp32": (1e-5, 1e-4), "bf16 autocast": (5e-3, 0.1), "bf16 weights": (1e-2, 0.15), "fp16 autocast": (2e-3, 0.05)}
"""Relative error of the loss, and of the gradient of each parameter (norm of the difference)."""


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases = {"small model": (scale.small.shape(), scale.small.mask_ratio, 2),
             "ViT-B blocks": (*at_width_of_base(scale), 0.9 if scale.name == "full" else 0.75)}
    for what, (shape, second, third) in cases.items():
        ratio, batch = (second, third) if isinstance(second, float) else (third, second)
        with report.part(what):
            _compare(report, what, shape, float(ratio), int(batch), device, numpy_too=what == "small model")
    return report.record()


def _compare(report: Report, what: str, shape: ModelShape, ratio: float, batch: int, device: torch.device, *,
             numpy_too: bool) -> None:
    torch.manual_seed(0)
    start = steps.randomised(MaskedAutoencoder(shape, attention="sdpa")).state_dict()
    cpu = torch.device("cpu")
    judge = Textbook(shape)
    judge.load_state_dict(start)
    judge.double()
    clips, mask = steps.clips_of(shape, batch, cpu), steps.mask_of(shape, ratio, batch, cpu)
    floats = steps.as_floats(clips, torch.float64)
    true = judge(floats, mask)
    true.backward()
    gradients = {name: p.grad for name, p in judge.named_parameters()}
    if numpy_too:
        value = reference_mae.loss({name: p.detach().numpy() for name, p in judge.named_parameters()}, floats[:1].numpy(),
                                   mask.mask[:1].numpy(), patch=shape.patch_size, tubelet=shape.t_patch_size,
                                   heads=shape.num_heads, decoder_heads=shape.decoder_num_heads, pred_t_dim=shape.pred_t_dim)
        one = steps.mask_of(shape, ratio, batch, cpu)
        with torch.no_grad():
            first = judge(floats[:1], replace(one, **{field.name: getattr(one, field.name)[:1] for field in fields(one)}))
        report.check(f"{what}: the judge against numpy, loss", float(abs(first.item() - value) / value), 1e-9)
    kinds = {"CPU fp32": ("fp32", cpu), **{kind: (kind, device) for kind in LIMITS}}
    on_cpu: dict[str, Tensor] = {}
    for kind, (precision, where) in kinds.items():
        with report.part(f"{what}: {kind}"):
            loss, found = _gradients(shape, start, clips.to(where), mask.to(where), precision)
            loss_limit, limit = LIMITS[precision]
            report.check(f"{what}: {kind}, loss", abs(loss - true.item()) / true.item(), loss_limit)
            worst = _worst(found, gradients)
            report.check(f"{what}: {kind}, gradient of {worst[1]}", worst[0], limit)
            if kind == "CPU fp32":
                on_cpu = found
            elif kind == "fp32":
                report.check(f"{what}: fp32 against CPU fp32, gradient of {_worst(found, on_cpu)[1]}", _worst(found, on_cpu)[0],
                             2 * limit)


def _gradients(shape: ModelShape, start: dict[str, Tensor], clips: Tensor, mask: Any, precision: str,
               ) -> tuple[float, dict[str, Tensor]]:
    model: nn.Module = MaskedAutoencoder(shape, attention="auto")
    model.load_state_dict(start)
    model.to(clips.device)
    scaled = FP16_SCALE if precision == "fp16 autocast" else 1.0
    kind = torch.float16 if precision == "fp16 autocast" else torch.bfloat16
    if precision == "bf16 weights":
        model.bfloat16()
    with torch.autocast(clips.device.type, kind, enabled="autocast" in precision):
        loss = model(clips, mask)
    (loss * scaled).backward()
    return loss.item(), {name: p.grad.double().cpu() / scaled for name, p in model.named_parameters() if p.grad is not None}


def _worst(found: dict[str, Tensor], true: dict[str, Tensor | None]) -> tuple[float, str]:
    """The largest relative error of a parameter's gradient, NaN first, and whose it is."""
    assert found.keys() == true.keys(), found.keys() ^ true.keys()
    errors = []
    for name, gradient in found.items():
        if name.endswith("attn.k.bias"):
            continue  # softmax ignores a shift: the true gradient is zero, what is left is rounding
        right = true[name].double()  # type: ignore[union-attr]
        error = float((gradient - right).norm() / right.norm())
        errors.append((error if not np.isnan(error) else float("inf"), name))
    return max(errors)
