"""How fast is what comes after pretraining: a finetuning step, the features of clips, testing a classifier on real clips."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from tests.gpu import runs, steps
from tests.gpu.report import Report
from tests.gpu.scales import Scale
from vidmae.clips.views import ViewSpec
from vidmae.evaluate.extract import pooled_features
from vidmae.evaluate.predict import evaluate
from vidmae.footage.manifest import Manifest
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.groups import layer_decay_groups
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.runs import cost
from vidmae.settings.config import DataConfig, ModelConfig, TrainConfig
from vidmae.settings.finetune_config import EvaluateConfig
from vidmae.train.finetune import Labelled
from vidmae.train.fitting import is_full

CLASSES = 174
BATCHES = {"full": {"finetune": 16, "features": 64}, "smoke": {"finetune": 2, "features": 2}}


def run(device: torch.device, scale: Scale) -> dict[str, Any]:
    report, ranks = Report(), steps.join(device)
    peak = steps.peak_of(device)
    for name, config in scale.models().items():
        if not steps.in_time(5.0):
            report.skip(name, "no time is left")
            continue
        with report.part(f"{name}, features"):
            _features(report, name, config, device, scale, peak)
        with report.part(f"{name}, finetuning"):
            _finetuning(report, name, config, ranks, scale, peak)
    with report.part("testing"):
        _testing(report, ranks, scale)
    dist.close()
    return report.record()


def _classifier(config: ModelConfig, device: torch.device) -> VideoClassifier:
    with device:
        torch.manual_seed(0)
        return build_classifier(config.name.removeprefix("mae_"), num_classes=CLASSES, img_size=config.img_size,
                                num_frames=config.num_frames)


def _features(report: Report, name: str, config: ModelConfig, device: torch.device, scale: Scale, peak: float) -> None:
    model, batch = _classifier(config, device).eval(), BATCHES[scale.name]["features"]
    clips = steps.clips_of(config.shape(), batch, device)
    found = steps.timed(lambda: pooled_features(model, clips, "bf16"), device, scale)
    rate = batch / found["seconds"]
    report.figure(f"{name}, features, bf16 autocast", batch=batch, clips_per_s=rate, peak_gib=found["peak_gib"],
                  mfu_pct=100 * rate * cost.encoder_flops_per_clip(model.shape) / peak)
    steps.free()


def _finetuning(report: Report, name: str, config: ModelConfig, ranks: dist.Ranks, scale: Scale, peak: float) -> None:
    model, batch = _classifier(config, ranks.device), BATCHES[scale.name]["finetune"]
    flops = cost.finetune_flops_per_clip(model.shape)
    groups = layer_decay_groups(model, weight_decay=0.05, layer_decay=0.8)
    train = TrainConfig(precision="bf16", zero_stage=1)
    engine = Engine(Labelled(model, 0.1), groups, train, ranks, micro_batch=batch, grad_accum=1)
    clips, targets = steps.clips_of(config.shape(), batch, ranks.device), torch.zeros(batch, dtype=torch.int64, device=ranks.device)

    def step() -> None:
        engine.set_lr(1e-5)
        engine.backward(clips, targets)
        engine.update(extra=[])

    try:
        found = steps.timed(step, ranks.device, scale)
        rate = batch / found["seconds"]
        report.figure(f"{name}, finetuning step, bf16 weights, ZeRO 1", batch=batch, clips_per_s=rate, peak_gib=found["peak_gib"],
                      mfu_pct=100 * rate * flops / peak)
    except RuntimeError as error:
        if not is_full(error):
            raise
        report.figure(f"{name}, finetuning step, bf16 weights, ZeRO 1", batch=batch, fits=False)
    engine._engine.destroy()
    engine.__dict__.clear()
    steps.free()


def _testing(report: Report, ranks: dist.Ranks, scale: Scale) -> None:
    """Real clips from the files to a top-1, as jobs/evaluate.py does."""
    whole = scale.name == "full"
    clips = Manifest.read(runs.manifest("testing", "chunks", copies=32 if whole else 1))
    config = scale.second
    model = _classifier(config, ranks.device).eval()
    spec = ViewSpec(num_frames=config.num_frames, sampling_rate=8, target_fps=30.0, img_size=config.img_size, views="center", seed=0)
    began = time.perf_counter()
    found = evaluate(model, clips, np.arange(len(clips)), [f"class {i}" for i in range(CLASSES)], EvaluateConfig(), spec, ranks,
                     precision="bf16", data=DataConfig(workers=16 if whole else 1))
    report.figure("testing a classifier from files, one view each", clips=len(clips),
                  clips_per_s=len(clips) / (time.perf_counter() - began))
    report.check("testing: a prediction for each clip", len(found), len(clips), ok=len(found) == len(clips))
