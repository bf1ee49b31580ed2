"""How many clips a second the loader gives on all cores: from the whole recording, from pieces of it, from prepared footage."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from tests.gpu import runs
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import make_loader
from vidmae.footage.manifest import Manifest
from vidmae.settings.config import DataConfig


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report = Report()
    for what, kind, copies in (("from the recording", "recording", scale.copies), ("from pieces of it", "chunks", scale.copies // 2),
                               ("from prepared footage", "prepared", scale.copies)):
        with report.part(what):
            _measure(report, what, runs.manifest(f"loader-{kind}", kind, copies=copies), device, scale)
    return report.record()


def _measure(report: Report, what: str, csv: Path, device: torch.device, scale: Scale) -> None:
    model = scale.main
    workers = os.cpu_count() or 1
    for repeats in (16, 1) if scale.name == "full" else (2,):
        batch = 16 if scale.name == "full" else 2
        spec = ClipSpec.of(model, DataConfig(repeat_aug=repeats), model.shape().num_tokens)
        loader = iter(make_loader(Manifest.read(csv), spec, seed=0, global_batch=batch, micro_batch=batch, grad_accum=1, rank=0,
                                  world_size=1, start_step=0, stop_step=100_000, workers=workers, read_limit_s=60,
                                  read_retries=1, pin_memory=device.type == "cuda"))
        warm = 2 * workers if scale.name == "full" else 1
        for _ in range(warm):  # the queues are filled meanwhile, and must not count as work of the time that is measured
            batch_read = next(loader)
        began, clips = time.perf_counter(), 0
        while time.perf_counter() - began < scale.loader_s:
            batch_read = next(loader)
            clips += len(batch_read.clips)
        seconds = time.perf_counter() - began
        report.figure(f"{what}, {repeats} clips from each opened video", workers=workers, clips_per_s=clips / seconds,
                      core_s_per_clip=workers * seconds / clips)
        report.check(f"{what}, {repeats} clips from each opened video: their size", str(tuple(batch_read.clips.shape[1:])),
                     str((model.num_frames, model.img_size, model.img_size, 3)))
        del loader
