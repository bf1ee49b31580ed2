"""Evaluates a small classifier on every rank and prints the predictions as JSON; see test_evaluate.py.

    python -m tests.support.programs.evaluate MANIFEST views      in all kinds of views, and with a file that is gone
    python -m tests.support.programs.evaluate MANIFEST sharded    with ZeRO-3, before and after a step of training
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidmae.clips.views import ViewSpec
from vidmae.evaluate.predict import evaluate
from vidmae.footage.manifest import Manifest
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.ranks import dist
from vidmae.ranks.dist import Ranks
from vidmae.runs.predictions import Predictions
from vidmae.settings.config import DataConfig, TrainConfig
from vidmae.settings.finetune_config import EvaluateConfig

CLASSES = ["a", "b c", "[d]", "e", "f", "g"]
SPEC = ViewSpec(num_frames=4, sampling_rate=4, target_fps=30.0, img_size=32)
DATA = DataConfig(workers=0, read_limit_s=0.0)
VIEWS = ("center", "random", "2x3")


def classifier() -> VideoClassifier:
    """A small model whose every parameter is random; in training it drops much."""
    torch.manual_seed(0)
    model = build_classifier("vit_nano_patch8", num_classes=len(CLASSES), img_size=32, num_frames=4, drop_path=0.3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def look(model: nn.Module, manifest: Manifest, ranks: Ranks, views: str, *, data: DataConfig = DATA, rows: Any = None,
         precision: str = "fp32", spec: ViewSpec = SPEC, batch: int = 2, **options: Any) -> Predictions:
    some = np.arange(len(manifest)) if rows is None else np.array(rows, dtype=np.int64)
    return evaluate(model, manifest, some, CLASSES, EvaluateConfig(views=views, seed=1, batch=batch), spec, ranks,
                    precision=precision, data=data, **options)


def plain(predictions: Predictions) -> dict[str, Any]:
    """As JSON, to the last bit: probabilities as the integers that their bits are."""
    return {"content": predictions.content.tolist(), "label": predictions.label.tolist(), "top5": predictions.top5.tolist(),
            "rank": predictions.rank.tolist(), "prob": predictions.prob.view(np.int32).tolist()}


class _Loss(nn.Module):
    """What an engine trains: clips and labels to a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model = classifier()

    def forward(self, clips: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.model(clips), labels)


def sharded(manifest: Manifest, ranks: Ranks) -> list[dict[str, Any]]:
    """Predictions with ZeRO-3 before and after a step of training."""
    from vidmae.ranks.engine import Engine

    loss = _Loss().train()
    engine = Engine(loss, [{"params": list(loss.parameters()), "weight_decay": 0.0}],
                    replace(TrainConfig(), zero_stage=3, precision="fp32"), ranks, micro_batch=2, grad_accum=1)
    inner = engine.module.model
    found = [plain(look(inner, manifest, ranks, "center"))]
    engine.set_lr(0.01)
    engine.backward(torch.zeros(2, *SPEC.shape, dtype=torch.uint8), torch.tensor([0, 1]))
    engine.update(extra=[])
    assert inner.training
    return [*found, plain(look(inner, manifest, ranks, "center"))]


def in_all_views(manifest: Manifest, ranks: Ranks) -> dict[str, Any]:
    """Predictions of each kind of view, and the error where a file is gone."""
    model = classifier()
    results: dict[str, Any] = {views: plain(look(model, manifest, ranks, views)) for views in VIEWS}
    path = Path(manifest.path(len(manifest) - 2))
    away = path.with_suffix(".away")
    ranks.barrier()
    if ranks.is_main:
        path.rename(away)
    ranks.barrier()
    try:
        look(model, manifest, ranks, "center")
    except ValueError as error:
        results["error"] = str(error)
    ranks.barrier()
    if ranks.is_main:
        away.rename(path)
    return results


def main(path: str, what: str) -> None:
    ranks = dist.init("cpu")
    torch.set_num_threads(1)
    manifest = Manifest.read(Path(path))
    print(json.dumps({"views": in_all_views, "sharded": sharded}[what](manifest, ranks)))
    dist.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
