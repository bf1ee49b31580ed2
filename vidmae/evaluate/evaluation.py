"""Test a finetuned file on labelled clips: `python -m vidmae.evaluate.evaluation OUT`, in one process or on every rank.

    OUT/                0700
      config.yaml       what is asked for (evaluation_config.py)
      predictions.npz   what the model says of every clip, by content hash
      result.json       accuracies; exists exactly when all is done
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from vidmae.clips.views import ViewSpec
from vidmae.evaluate.predict import evaluate
from vidmae.footage.manifest import Manifest
from vidmae.labels.cell_data import class_names
from vidmae.labels.splits import read_labelled
from vidmae.model.conv_net import Classifier
from vidmae.model.trained_encoder import encoder_for, file_model
from vidmae.model.weights import load_encoder
from vidmae.ranks import dist, watchdog
from vidmae.ranks.program import EXIT_OK, EXIT_USAGE
from vidmae.runs.accuracy import topk_ci_pct, topk_pct
from vidmae.runs.record import SCHEMA, RunFolder, write_json
from vidmae.settings.layers import load
from vidmae.settings.programs.evaluation_config import EvaluationConfig


def main(out: str) -> int:
    """Test, unless it is done; 0 done, 2 the file or the clips cannot be used."""
    folder = RunFolder(Path(out))
    if folder.result.exists():
        return EXIT_OK
    try:
        config = load(EvaluationConfig, folder.config)
        ranks = dist.init(config.device)
        try:
            run(folder, config, ranks)
        finally:
            dist.close()
    except (ValueError, dist.RankError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    return EXIT_OK


def run(folder: RunFolder, config: EvaluationConfig, ranks: dist.Ranks) -> None:
    """Look at every clip and write what was found. Collective.

    Raises:
        ValueError: The file holds no classifier, or one of other classes, or clips cannot be read.
    """
    path = Path(config.data.manifest)
    manifest, classes = Manifest.read(path, decoder=config.data.decoder), class_names(read_labelled(path).classes)
    model = load_classifier(Path(config.weights), len(classes)).to(ranks.device)
    shape, data, began = model.shape, config.data, time.monotonic()
    spec = ViewSpec(num_frames=shape.num_frames, sampling_rate=data.sampling_rate, target_fps=data.target_fps,
                    img_size=shape.img_size)
    found = evaluate(model, manifest, np.arange(len(manifest)), classes, config.evaluate, spec, ranks,
                     precision=config.precision, data=data, progress=_tell if ranks.is_main else lambda *_: False)
    if ranks.is_main:
        found.write(folder.predictions)
        write_json(folder.result, {
            "schema": SCHEMA, "kind": "evaluation", "views": config.evaluate.views, "clips": len(found),
            "classes": len(classes), "top1_pct": topk_pct(found, 1), "top5_pct": topk_pct(found, 5),
            "top1_ci_pct": topk_ci_pct(found, 1), "top5_ci_pct": topk_ci_pct(found, 5), "precision": config.precision,
            "eval_s": time.monotonic() - began, "world_size": ranks.world_size, "finished": time.time()})
    ranks.barrier()


def load_classifier(path: Path, num_classes: int) -> Classifier:
    """A finetuned classifier with its head; all sizes are read off its tensors and its header.

    Args:
        path: A `.safetensors` or `.pth` file.
        num_classes: Classes that the clips are labelled with.
    Raises:
        ValueError: The file holds no classifier of this suite, or one of another number of classes.
    """
    found = file_model(path)
    if not found.head:
        raise ValueError(f"{path} has no head: it is not finetuned, so there is nothing to test; finetune or probe it with "
                         "python sweeps/fewshot.py --checkpoints")
    if found.head != num_classes:
        raise ValueError(f"{path} tells {found.head} classes apart, the clips are labelled with {num_classes}; class "
                         "indexes are ranks of the names, so both must have the same classes")
    model = encoder_for(found, num_classes=num_classes)
    load_encoder(model, path)
    return model


def _tell(done: int, total: int) -> bool:
    print(f"{done}/{total} batches", flush=True)
    return False


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidmae.evaluate.evaluation OUT")
    watchdog.end_process(main(sys.argv[1]))
