"""Does a run that was stopped and continued end with the same bits: the real program, on real clips, on the device.

Four runs at the same time: one unbroken and one that a signal stops in the middle of a step and that then goes on, with
`train.deterministic` where there is such a setting; and two unbroken ones without it, which say how far apart runs may be.
"""

from __future__ import annotations

import signal
import time
from typing import Any

import numpy as np
import torch

from tests.gpu import runs
from tests.gpu.report import Report, seconds_left
from tests.gpu.scales import Scale
from tests.support.interruptions import differences, weights
from vidmae.runs.metrics import read_metrics
from vidmae.runs.record import RunFolder

STEPS, STOP_AT = 10, 3


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    clips = runs.manifest("resume", "chunks", copies=2)
    common = [f"train.phases=[{{duration: {STEPS} steps, lr: 1.0e-3}}]", "train.global_batch=8", "train.micro_batch=4",
              "data.repeat_aug=2", "data.workers=1", "checkpoint.every_steps=4",
              f"train.precision={'bf16' if device.type == 'cuda' else 'fp32'}"]
    if not runs.HAS_DETERMINISTIC:
        report.skip("train.deterministic", "there is no such setting yet: all four runs are without it")
    fixed = ["train.deterministic=true"] if runs.HAS_DETERMINISTIC else []
    made = {name: runs.make_run(f"resume-{name}", clips, scale.small, device.type, *common, *more)
            for name, more in (("whole", fixed), ("stopped", fixed), ("free-1", []), ("free-2", [])) if scale.name == "full" or name != "free-2"}
    started = {name: runs.start(each, threads=1 if device.type == "cpu" else 0) for name, each in made.items()}
    with report.part("a stop by signal in the middle of a step"):
        stopped, process = made["stopped"], started["stopped"]
        step_s = runs.wait_for(stopped, process, STOP_AT, timeout_s=seconds_left())[-1]["step_s"]
        time.sleep(0.5 * step_s)
        process.send_signal(signal.SIGUSR2)
        out = runs.finish(process, stopped, code=75, timeout_s=seconds_left())
        at = read_metrics(stopped)[-1]["step"]
        report.check("a stop by signal in the middle of a step: saved, and exit code 75", f"stopping after step {at}" in out, True,
                     step=at)
        out = runs.finish(runs.start(stopped, threads=1 if device.type == "cpu" else 0), stopped, code=0, timeout_s=seconds_left())
        report.check("it goes on where it was", f"continuing from step_{at:08d}" in out, True)
    with report.part("the same bits"):
        for name in started.keys() - {"stopped"}:
            runs.finish(started[name], made[name], code=0, timeout_s=seconds_left())
        found = differences(made["stopped"], made["whole"])
        if fixed or device.type == "cpu":
            report.check("stopped and continued against unbroken, differences in metrics, weights and checkpoint", len(found), 0,
                         first=found[:1])
        else:
            report.figure("stopped and continued against unbroken, without train.deterministic", differences=len(found),
                          **_apart(made["stopped"], made["whole"]))
    with report.part("without train.deterministic"):
        other = made.get("free-2", made["whole"])  # the smoke run has one less, to be quick
        report.figure("two unbroken runs without train.deterministic", differences=len(differences(made["free-1"], other)),
                      **_apart(made["free-1"], other))
        report.figure("with train.deterministic against without it", **_apart(made["whole"], made["free-1"]),
                      **{f"step_s_{name}": float(np.median([m["step_s"] for m in read_metrics(made[name])[2:]]))
                         for name in ("whole", "free-1")})
    return report.record()


def _apart(one: RunFolder, other: RunFolder) -> dict[str, float]:
    """How far apart two runs ended."""
    a, b = weights(one), weights(other)
    square = sum(float(((a[name] - b[name]).astype(np.float64) ** 2).sum()) for name in b)
    norm = sum(float((b[name].astype(np.float64) ** 2).sum()) for name in b)
    losses = [(x["loss"], y["loss"]) for x, y in zip(read_metrics(one), read_metrics(other), strict=True)]
    return {"weights_apart": (square / norm) ** 0.5, "loss_apart": max(abs(x - y) / y for x, y in losses)}
