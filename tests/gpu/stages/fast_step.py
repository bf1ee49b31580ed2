"""How fast is a pretraining step with its optimizer: micro-batches from 8 to the largest that fits, eager and compiled.

The data are in the device's memory already. MFU counts the FLOPs of the model (vidmae/runs/cost.py) against the data sheet's
dense bf16 peak; the peak of memory stands beside what cost.py estimates. First every micro-batch eagerly, then compiled the
fastest one, its double, and the smaller ones as long as there is time: torch.compile takes long for each size.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.gpu import steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.ranks import dist
from vidmae.settings.config import ModelConfig

START_S = 25.0  # that an engine and a compilation take at most, on a GPU


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report, ranks = Report(), steps.join(device)
    steps.set_up_compile(scale)
    peak = steps.peak_of(device)
    report.figure("peak of dense bf16 products", tflops=peak / 1e12)
    with report.part("products that reach the peak"):
        _products(report, device, scale, peak)
    best: dict[tuple[str, str], int] = {}
    cases = [(name, config, mode) for name, config in scale.models().items() for mode in steps.MODES]
    for name, config, mode in cases:
        with report.part(f"{name}, {mode}, eager"):
            best[name, mode] = _doubled(report, name, config, mode, ranks, scale, peak)
    for name, config, mode in cases:
        what = f"{name}, {mode}, compiled"
        if not steps.HAS_COMPILE:
            report.skip(what, "there is no train.compile yet")
        elif (name, mode) in best:
            with report.part(what):
                _compiled(report, name, config, mode, best[name, mode], ranks, scale, peak)
    dist.close()
    return report.record()


def _products(report: Report, device: torch.device, scale: Scale, peak: float) -> None:
    """The rate of a large product on this card: more than that no model reaches."""
    n = 8192 if scale.name == "full" else 128
    a, b = (torch.randn(n, n, dtype=torch.bfloat16, device=device) for _ in range(2))
    seconds = steps.timed(lambda: a @ b, device, scale)["seconds"]
    report.figure(f"product of {n} x {n} in bf16", tflops=2 * n**3 / seconds / 1e12, of_peak_pct=200 * n**3 / seconds / peak)


def _doubled(report: Report, name: str, config: ModelConfig, mode: str, ranks: dist.Ranks, scale: Scale, peak: float) -> int:
    """Double the micro-batch until it does not fit; the fastest."""
    best, batch = (0.0, scale.first_batch), scale.first_batch
    with steps.trainee("ours", config, ranks, **steps.MODES[mode]) as one:
        report.figure(f"{name}, {mode}, attention kernel", value=one.attention)
        while True:
            what = f"{name}, {mode}, eager, micro-batch {batch}"
            if not steps.in_time(5.0):
                report.skip(what, "no time is left")
                break
            try:
                found = steps.step_figures(one, batch, ranks.device, scale, peak)
            except torch.OutOfMemoryError:
                report.figure(what, fits=False)
                break
            report.figure(what, **found)
            best, batch = max(best, (found["clips_per_s"], batch)), 2 * batch
            if batch > 2 * scale.most_batch:
                break
    return best[1]


def _compiled(report: Report, name: str, config: ModelConfig, mode: str, best: int, ranks: dist.Ranks, scale: Scale, peak: float,
              ) -> None:
    smaller = [best // 2**i for i in range(1, 12) if best // 2**i >= scale.first_batch]
    for batch in [best, 2 * best, *smaller]:
        what = f"{name}, {mode}, compiled, micro-batch {batch}"
        if not steps.in_time(START_S):
            report.skip(what, "no time is left")
            continue
        with steps.trainee("ours", config, ranks, compiled=True, **steps.MODES[mode]) as one:
            try:
                report.figure(what, **steps.step_figures(one, batch, ranks.device, scale, peak))
            except torch.OutOfMemoryError:
                report.figure(what, fits=False)
