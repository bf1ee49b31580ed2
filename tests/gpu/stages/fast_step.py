"""How fast is a pretraining step with its optimizer: micro-batches from 8 to the largest that fits, eager and compiled.

The data are in the device's memory already. MFU counts the FLOPs of the model (vidmae/runs/cost.py) against the data sheet's
dense bf16 peak; the peak of memory stands beside what cost.py estimates. Eagerly every micro-batch; compiled the fastest one and
its double, and the smaller ones at the end as long as there is time: torch.compile takes long for each size. Then decoder masking
at the fastest micro-batch against the plain step; and CUDA graphs at the smallest, against the compiled step without them.
Graphs have not run on a card yet: their row may say why they cannot.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from tests.gpu import steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.ranks import dist
from vidmae.runs import cost
from vidmae.settings.config import ModelConfig
from vidmae.train.fitting import is_full

START_S = 20.0  # that an engine and a compilation take at most, on a GPU
MASKED, TARGETS = 0.5, {"vit_base_patch16": 1.45, "vit_huge_patch14": 1.12}  # times over the plain step, as in make bench
KINDS = 2  # of blocks: the encoder's and the decoder's
GRAPH_STEPS = 3
LOSSES_APART = 0.02  # relative; the same rounding, another order


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report, ranks = Report(), steps.join(device)
    steps.set_up_compile(scale)
    peak = steps.peak_of(device)
    report.figure("peak of dense bf16 products", tflops=peak / 1e12)
    with report.part("products that reach the peak"):
        _products(report, device, scale, peak)
    cases = [(name, config, mode) for name, config in scale.models().items() for mode in steps.MODES]
    best: dict[tuple[str, str], int] = {}
    for name, config, mode in cases:
        with report.part(f"{name}, {mode}, eager"):
            best[name, mode] = _doubled(report, name, config, mode, ranks, scale, peak)
        if not steps.HAS_COMPILE:
            report.skip(f"{name}, {mode}, compiled", "there is no train.compile yet")
        elif (name, mode) in best:
            for batch in (best[name, mode], 2 * best[name, mode]):
                _compiled(report, name, config, mode, batch, ranks, scale, peak)
    main = next(iter(steps.MODES))
    for name, config in scale.models().items():
        with report.part(f"{name}, decoder masking {MASKED}"):
            _decoder_masking(report, name, config, main, best.get((name, main), scale.first_batch), ranks, scale, peak)
    for name, config in scale.models().items() if steps.HAS_COMPILE else []:
        _graphs(report, name, config, main, ranks, scale, peak)
    for name, config, mode in cases if steps.HAS_COMPILE else []:
        batch = best.get((name, mode), 0) // 2
        while batch >= scale.first_batch:
            _compiled(report, name, config, mode, batch, ranks, scale, peak)
            batch //= 2
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
            except RuntimeError as error:
                if not is_full(error):
                    raise
                report.figure(what, fits=False)
                break
            report.figure(what, **found)
            best, batch = max(best, (found["clips_per_s"], batch)), 2 * batch
            if batch > 2 * scale.most_batch:
                break
    return best[1]


def _decoder_masking(report: Report, name: str, config: ModelConfig, mode: str, batch: int, ranks: dist.Ranks, scale: Scale,
                     peak: float) -> None:
    """A decoder that rebuilds a part of the hidden tokens, beside the plain step; one after the other, as memory allows."""
    what, found = f"{name}, decoder masking {MASKED}, {mode}, eager, micro-batch {batch}", {}
    if not steps.in_time(START_S / 2):
        report.skip(what, "no time is left")
        return
    for ratio in (0.0, MASKED):
        with steps.trainee("ours", replace(config, decoder_mask_ratio=ratio), ranks, **steps.MODES[mode]) as one:
            found[ratio] = steps.step_figures(one, batch, ranks.device, scale, peak)
    shapes = [replace(config, decoder_mask_ratio=ratio).shape() for ratio in (0.0, MASKED)]
    less = cost.train_flops_per_clip(shapes[0]) / cost.train_flops_per_clip(shapes[1])
    report.figure(what, times_over_plain=found[MASKED]["clips_per_s"] / found[0.0]["clips_per_s"], target=TARGETS.get(name),
                  times_fewer_flops=less, **found[MASKED])


def _graphs(report: Report, name: str, config: ModelConfig, mode: str, ranks: dist.Ranks, scale: Scale, peak: float) -> None:
    """CUDA graphs for the smallest micro-batch: times over the compiled step, and how far apart the losses of some steps are."""
    batch = scale.first_batch
    what = f"{name}, CUDA graphs, {mode}, micro-batch {batch}"
    if not steps.in_time(2 * START_S):
        report.skip(what, "no time is left")
        return
    found, losses = {}, {}
    try:
        for graphs in (False, True):
            with steps.trainee("ours", config, ranks, compiled=True, graphs=graphs, **steps.MODES[mode]) as one:
                losses[graphs] = [one.step(batch) for _ in range(GRAPH_STEPS)]
                found[graphs] = steps.step_figures(one, batch, ranks.device, scale, peak)
    except Exception as error:
        report.skip(what, f"{type(error).__name__}: {error}"[:300])
        return
    apart = max(abs(a - b) / abs(b) for a, b in zip(losses[True], losses[False], strict=True))
    times = found[True]["clips_per_s"] / found[False]["clips_per_s"]
    report.check(f"{what}: losses apart", apart, LOSSES_APART)
    report.figure(what, times_over_compiled=times, **found[True])


def _compiled(report: Report, name: str, config: ModelConfig, mode: str, batch: int, ranks: dist.Ranks, scale: Scale, peak: float,
              ) -> None:
    what = f"{name}, {mode}, compiled, micro-batch {batch}"
    if not steps.in_time(START_S):
        report.skip(what, "no time is left")
        return
    with report.part(what), steps.trainee("ours", config, ranks, compiled=True, **steps.MODES[mode]) as one:
        before = steps.graphs_and_breaks()
        try:
            report.figure(what, **steps.step_figures(one, batch, ranks.device, scale, peak))
        except RuntimeError as error:
            if not is_full(error):
                raise
            report.figure(what, fits=False)
            return
        graphs, breaks = (after - first for after, first in zip(steps.graphs_and_breaks(), before, strict=True))
        report.check(f"{what}: graphs of all steps, one for each width", graphs, KINDS)
        report.check(f"{what}: breaks in them", breaks, 0)
