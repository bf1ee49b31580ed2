"""Is distributed training right: ZeRO 0 to 3 with one rank over NCCL (gloo on a CPU) against plain torch on the device."""

from __future__ import annotations

from typing import Any

import torch

from tests.gpu import steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.model.groups import param_groups
from vidmae.model.mae import MaskedAutoencoder
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.settings.config import TrainConfig

STEPS, CLIPS, MICRO, CLIP_GRAD, RATE = 4, 4, 2, 0.05, 1e-3
Found = tuple[list[float], list[float], dict[str, torch.Tensor]]


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    ranks = steps.join(device)
    start = _model(scale, device).state_dict()
    plain = _plain(scale, device, start)
    of_16_bits: dict[int, Found] = {}
    for stage in (0, 1, 2, 3):
        with report.part(f"ZeRO {stage}, fp32"):
            found = _engine(scale, ranks, start, precision="fp32", zero_stage=stage)
            _check(report, f"ZeRO {stage}, fp32 against plain torch", found, plain, loss=1e-5, weights=1e-5)
        with report.part(f"ZeRO {stage}, bf16"):
            found = of_16_bits[stage] = _engine(scale, ranks, start, precision="bf16", zero_stage=stage)
            _check(report, f"ZeRO {stage}, bf16 against fp32 plain torch", found, plain, loss=1e-2, weights=RATE / 2)
            if stage > 1:
                _check(report, f"ZeRO {stage}, bf16 against ZeRO 1", found, of_16_bits[1], loss=2e-3, weights=RATE / 2)
    dist.close()
    return report.record()


def _model(scale: Scale, device: torch.device) -> MaskedAutoencoder:
    torch.manual_seed(3)
    return MaskedAutoencoder(scale.small.shape()).to(device)


def _micro_batches(scale: Scale, device: torch.device, step: int) -> list[tuple[Any, Any]]:
    shape = scale.small.shape()
    return [(steps.clips_of(shape, MICRO, device, seed=10 * step + i),
             steps.mask_of(shape, scale.small.mask_ratio, MICRO, device, seed=10 * step + i)) for i in range(CLIPS // MICRO)]


def _plain(scale: Scale, device: torch.device, start: dict[str, torch.Tensor]) -> Found:
    """The same training written out with torch alone."""
    model = _model(scale, device)
    model.load_state_dict(start)
    optimizer = torch.optim.AdamW(param_groups(model, 0.05), lr=RATE, betas=(0.9, 0.95))
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        found = []
        for clips, mask in _micro_batches(scale, device, step):
            loss = model(clips, mask)
            (loss * MICRO / CLIPS).backward()
            found.append(loss.item())
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_GRAD)))
        optimizer.step()
        losses.append(sum(found) / len(found))
    return losses, norms, {name: p.detach().float().cpu() for name, p in model.named_parameters()}


def _engine(scale: Scale, ranks: dist.Ranks, start: dict[str, torch.Tensor], **settings: Any) -> Found:
    model = _model(scale, ranks.device)
    model.load_state_dict(start)
    engine = Engine(model, param_groups(model, 0.05), TrainConfig(clip_grad=CLIP_GRAD, **settings), ranks,
                    micro_batch=MICRO, grad_accum=CLIPS // MICRO)
    losses, norms = [], []
    for step in range(STEPS):
        engine.set_lr(RATE)
        for micro_batch in _micro_batches(scale, ranks.device, step):
            engine.backward(*micro_batch)
        loss, norm, _ = engine.update(extra=[])
        losses.append(loss)
        norms.append(norm)
    weights = dict(engine.full_parameters())
    engine._engine.destroy()
    steps.free()
    return losses, norms, weights


def _check(report: Report, what: str, found: Found, right: Found, *, loss: float, weights: float) -> None:
    """`weights` is the largest difference of single numbers; Adam's first steps move each by the learning rate."""
    worst = max(abs(a - b) / b for a, b in zip(found[0], right[0], strict=True))
    report.check(f"{what}: loss of {STEPS} steps", worst, loss)
    norm = max(abs(a - b) / b for a, b in zip(found[1], right[1], strict=True))
    report.check(f"{what}: norm of the gradients", norm, max(10 * loss, 1e-4))
    apart = {name: float((found[2][name] - value).abs().mean()) for name, value in right[2].items()
             if not name.endswith("attn.k.bias")}  # its gradient is rounding alone, and Adam makes whole steps of it
    name = max(apart, key=lambda each: apart[each])
    report.check(f"{what}: mean difference of {name}", apart[name], weights)
