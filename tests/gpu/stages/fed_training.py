"""A real pretraining run from prepared footage, end to end: waiting for data, MFU with it, seconds lost per save.

The program is the one that jobs start, in a run folder as the launcher makes it. After its time a signal asks it to save and
leave. Steps before the fifth are left out: the queues are filled and kernels are chosen in them.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.gpu import runs
from tests.gpu.report import Report, earlier, seconds_left
from tests.gpu.scales import Scale
from vidmae.runs.attempts import read_attempts
from vidmae.runs.metrics import read_metrics
from vidmae.settings.config import ModelConfig

LEAVES_S = 15.0  # that the last save may take
MODE = "bf16 weights, ZeRO 1"


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    clips = runs.manifest("training", "prepared", copies=scale.copies)
    models = list(zip(scale.models().items(), scale.save_every, strict=False))
    for place, ((name, config), every) in enumerate(models):
        with report.part(name):
            _train(report, name, config, every, clips, device, scale, seconds_left() / (len(models) - place))
    return report.record()


def _train(report: Report, name: str, config: ModelConfig, every: int, clips: Path, device: torch.device, scale: Scale,
           limit_s: float) -> None:
    """One run of `limit_s` seconds at most, its start and its last save included."""
    micro, whole, end = _micro_batch(name, scale), scale.name == "full", time.monotonic() + limit_s
    given = [f"train.global_batch={scale.global_batch}", f"train.micro_batch={micro}", "train.zero_stage=1",
             f"data.repeat_aug={16 if whole else 2}", f"data.workers={os.cpu_count() if whole else 1}",
             f"checkpoint.every_steps={every}", "checkpoint.keep_last=1",
             f"train.precision={'bf16' if device.type == 'cuda' else 'fp32'}",
             "train.phases=[{duration: 100000 steps, lr: 1.5e-4, warmup: 100 steps, schedule: cosine}]"]
    run_folder = runs.make_run(f"training-{name}", clips, config, device.type, *given, compiled=True)
    began = time.monotonic()
    process = runs.start(run_folder, threads=1 if device.type == "cpu" else 0, anew=True)
    try:
        runs.wait_for(run_folder, process, 1 if whole else every + 1, timeout_s=limit_s)
        started_s = time.monotonic() - began
        time.sleep(max(0.0, min(scale.train_s, end - time.monotonic() - LEAVES_S)))
        process.send_signal(signal.SIGUSR2)
        runs.finish(process, run_folder, code=75, timeout_s=max(LEAVES_S, seconds_left()))
    finally:
        process.kill()
        process.wait()
    _tell(report, f"{name}, micro-batch {micro}", run_folder, started_s)
    shutil.rmtree(run_folder.checkpoints)  # 10 GB for a ViT-H


def _micro_batch(name: str, scale: Scale) -> int:
    """The fastest that fast_step found, as far as the global batch allows."""
    found = [line for line in earlier("fast_step") if line["what"].startswith(f"{name}, {MODE}") and "clips_per_s" in line]
    fastest = max(found, key=lambda line: float(line["clips_per_s"]))["batch"] if found else 64
    return int(min(fastest, scale.global_batch // 2))


def _tell(report: Report, what: str, run_folder: Any, started_s: float) -> None:
    metrics = read_metrics(run_folder)
    steady = metrics[5:] if len(metrics) > 8 else metrics[-1:]
    seconds = sum(m["step_s"] + m["save_s"] for m in steady)
    saves = [m["save_s"] for m in metrics if m["save_s"] > 0]
    attempt = read_attempts(run_folder)[-1]
    mfu = [m["mfu"] for m in steady if m["mfu"] is not None]
    report.figure(what, steps=len(metrics), clips_per_s=len(steady) * metrics[0]["clips_per_s"] * metrics[0]["step_s"] / seconds,
                  data_wait_pct=100 * sum(m["data_wait"] * m["step_s"] for m in steady) / sum(m["step_s"] for m in steady),
                  mfu_pct=100 * sum(m * s["step_s"] for m, s in zip(mfu, steady, strict=False)) / seconds if mfu else None,
                  peak_gib=metrics[-1]["peak_gib"], start_to_first_step_s=started_s, saves=len(saves),
                  lost_per_save_s=float(np.mean(saves)) if saves else None, slowest_save_s=attempt.slowest_save_s,
                  saved_at_the_end_s=attempt.saving_s - sum(saves))
    report.check(f"{what}: the loss is finite and fell", metrics[-1]["loss"], metrics[0]["loss"],
                 ok=len(metrics) < 20 or metrics[-1]["loss"] < metrics[0]["loss"])
