"""How fast is our step beside others of the same mathematics, in the same process and with the same engine and optimizer.

fused: the textbook with `F.scaled_dot_product_attention`, which is what the author's code does today. textbook: with the score
matrices in memory. Each eagerly and with torch.compile, at a micro-batch that fits all, or at its own where it does not.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.gpu import steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.ranks import dist
from vidmae.settings.config import ModelConfig
from vidmae.train.fitting import is_full

MODE = "bf16 weights, ZeRO 1"
WHO = ("ours", "fused", "textbook")
BATCHES = {"full": (64, 32, 16, 8), "smoke": (2,)}  # the author trains with 64 clips per GPU
START_S = 12.0


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report, ranks = Report(), steps.join(device)
    steps.set_up_compile(scale, smoke_backend="eager")
    peak = steps.peak_of(device)
    for name, config in scale.models().items():
        with report.part(f"{name}, equal"):
            _equal(report, name, config, device)
    for name, config in scale.models().items():
        rates: dict[str, tuple[int, float]] = {}
        for compiled in (False, True):
            for who in WHO:
                how = f"{who} {'compiled' if compiled else 'eager'}"
                with report.part(f"{name}, {how}"):
                    found = _measure(report, f"{name}, {how}", who, config, compiled, ranks, scale, peak)
                    if found:
                        rates[how] = (int(found["batch"]), found["clips_per_s"])
        for ours in ("ours eager", "ours compiled"):
            for peer in ("fused eager", "fused compiled", "textbook eager", "textbook compiled"):
                if ours in rates and peer in rates:
                    report.figure(f"{name}, {ours} over {peer}", times=rates[ours][1] / rates[peer][1],
                                  batches=f"{rates[ours][0]} and {rates[peer][0]}")
    dist.close()
    return report.record()


def _measure(report: Report, what: str, who: str, config: ModelConfig, compiled: bool, ranks: dist.Ranks, scale: Scale,
             peak: float) -> dict[str, float]:
    if who == "ours" and compiled and not steps.HAS_COMPILE:
        report.skip(what, "there is no train.compile yet")
        return {}
    for batch in BATCHES[scale.name]:
        if not steps.in_time(START_S):
            report.skip(what, "no time is left")
            return {}
        with steps.trainee(who, config, ranks, compiled=compiled, **steps.MODES[MODE]) as one:
            try:
                found = steps.step_figures(one, batch, ranks.device, scale, peak)
            except RuntimeError as error:
                if not is_full(error):
                    raise
                report.figure(f"{what}, micro-batch {batch}", fits=False)
                continue
        report.figure(what, **found)
        return found
    return {}


def _equal(report: Report, name: str, config: ModelConfig, device: torch.device) -> None:
    """All of them compute the same loss, else comparing their times says nothing."""
    shape = config.shape()
    with device:
        torch.manual_seed(0)
        model = steps.WHO["ours"](shape)
    clips, mask = steps.clips_of(shape, 1, device), steps.mask_of(shape, config.mask_ratio, 1, device)
    with torch.no_grad():
        right = model(clips, mask).item()
        for who in WHO[1:]:
            with device:
                peer = steps.WHO[who](shape)
            peer.load_state_dict(model.state_dict())
            report.check(f"{name}, loss of {who} against ours, fp32", abs(peer(steps.as_floats(clips), mask).item() - right) / right,
                         1e-3 if device.type == "cuda" else 1e-5)  # TF32 may be on
            del peer
            steps.free()
