"""What happens when something goes wrong on the device: an overflow of fp16, a loss that is not finite, a step that hangs."""

from __future__ import annotations

import time
from typing import Any

import torch

from tests.gpu import runs, steps
from tests.gpu.report import Report, seconds_left
from tests.gpu.scales import Scale
from vidmae.model.groups import param_groups
from vidmae.model.mae import MaskedAutoencoder
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine, NonFiniteError
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder
from vidmae.settings.config import TrainConfig

BAD_STEP, LIMIT_S, SLACK_S = 2, 5.0, 10.0


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    clips = runs.manifest("faults", "chunks", copies=2)
    common = ["train.global_batch=4", "train.micro_batch=4", "data.repeat_aug=2", "data.workers=1", "checkpoint.every_steps=2",
              "train.phases=[{duration: 6 steps, lr: 1.0e-3}]", f"train.precision={'bf16' if device.type == 'cuda' else 'fp32'}"]
    poisoned = runs.make_run("poisoned", clips, scale.small, device.type, *common)
    hung = runs.make_run("hung", clips, scale.small, device.type, *common, f"recovery.step_limit_s={LIMIT_S}",
                         "checkpoint.background=false")  # else the save of step 2 may not be done when step 4 hangs
    threads = 1 if device.type == "cpu" else 0
    process = runs.start(poisoned, program="tests.support.programs.poison", args=("3",), threads=threads)
    ranks = steps.join(device)
    for stage in (1, 2, 3):
        with report.part(f"overflow, ZeRO {stage}"):
            _overflow(report, scale, ranks, stage)
    dist.close()
    with report.part("a loss that is not finite"):
        out = runs.finish(process, poisoned, code=0, timeout_s=seconds_left())
        report.check("a loss that is not finite: back to the checkpoint, without its clips, to the end",
                     "leaving its clips out" in out and read_metrics(poisoned)[-1]["step"] == 6, True)
    with report.part("a step that hangs"):
        _hangs(report, hung, threads)
    return report.record()


def _overflow(report: Report, scale: Scale, ranks: dist.Ranks, stage: int) -> None:
    """One infinite gradient: fp16 skips that update and halves its scale; bf16, which a CPU has, refuses the step."""
    precision = "fp16" if ranks.device.type == "cuda" else "bf16"
    torch.manual_seed(0)
    model = MaskedAutoencoder(scale.small.shape())
    engine = Engine(model, param_groups(model, 0.05), TrainConfig(precision=precision, zero_stage=stage), ranks,
                    micro_batch=2, grad_accum=1)
    inputs = (steps.clips_of(scale.small.shape(), 2, ranks.device),
              steps.mask_of(scale.small.shape(), scale.small.mask_ratio, 2, ranks.device))
    now = [False]
    model.decoder_norm.register_full_backward_hook(
        lambda module, gradients, _: tuple(g * float("inf") if g is not None and now[0] else g for g in gradients))
    losses, skipped, refused = [], [], False
    for step in range(5):
        now[0] = step == BAD_STEP
        engine.set_lr(1e-3)
        engine.backward(*inputs)
        try:
            losses.append(engine.update(extra=[])[0])
        except NonFiniteError:
            refused = True
            break
        skipped.append(engine.skipped_steps)
    if precision == "fp16":
        begun = skipped[BAD_STEP - 1]  # the scale begins too high and may be halved once or twice
        report.check(f"overflow, fp16, ZeRO {stage}: updates skipped for it", skipped[BAD_STEP] - begun, 1, at_first=begun,
                     ok=skipped[BAD_STEP] == begun + 1)
        report.check(f"overflow, fp16, ZeRO {stage}: it learns on", losses[-1], losses[0], ok=losses[-1] <= losses[0])
    else:
        report.check(f"overflow, bf16, ZeRO {stage}: the step is refused", refused, True)
    engine._engine.destroy()
    steps.free()


def _hangs(report: Report, run: RunFolder, threads: int) -> None:
    process = runs.start(run, program="tests.gpu.programs.hang", args=("3",), threads=threads)
    runs.wait_for(run, process, 3, timeout_s=seconds_left())
    began = time.monotonic()
    out = runs.finish(process, run, code=1, timeout_s=seconds_left())
    report.check("a step that hangs: the watchdog ends the program, s", time.monotonic() - began, LIMIT_S + SLACK_S)
    report.check("a step that hangs: it says where", "Timeout (0:00:05)!" in out and "pretrain.py" in out, True)
    process = runs.start(run, threads=threads)
    out = runs.finish(process, run, code=0, timeout_s=seconds_left())
    report.check("after a step that hung: it goes on from the newest checkpoint to the end", "continuing from step_00000002" in out,
                 True)
