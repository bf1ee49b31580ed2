"""Writes one file of each kind that the suite hashes or that people compare; started by test_equal_bytes.py, twice."""

import sys
from pathlib import Path

import numpy as np
import torch

from analysis import collect
from tests.support.facilities import demo_clips
from tests.support.labelled import write_labelled
from tests.support.programs.engine import batch, build, lr_at
from tests.support.programs.listed import list_videos
from vidmae.evaluate.feature_cache import FeatureStore, feature_spec
from vidmae.footage.manifest import Source
from vidmae.insight.embedding_files import Embeddings, file_path, make_folder
from vidmae.labels.shots import draw_shots, write_shots
from vidmae.labels.splits import read_labelled
from vidmae.model.weights import save_safetensors
from vidmae.ranks import dist
from vidmae.ranks.engine import Engine
from vidmae.ranks.saving.checkpoint import Saver
from vidmae.ranks.watchdog import end_process
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import TrainConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.keeping_config import CheckpointConfig
from vidmae.settings.layers import build as build_config
from vidmae.settings.layers import parse_set, to_yaml

random = np.random.default_rng(0)
CONTENT = random.integers(2**64, size=12, dtype=np.uint64)


def weights(out: Path) -> None:
    """Many keys in the header: an order by chance is never the same twice."""
    state = {f"blocks.{i}.{kind}": torch.full((i + 1,), float(i)) for i in range(8) for kind in ("weight", "bias")}
    save_safetensors(state, out / "weights.safetensors", {f"key {i}": '"é' * i for i in range(12)})


def arrays(out: Path) -> None:
    """Features, embeddings and predictions."""
    config = build_config(FinetuneConfig, parse_set(["method=knn", "model.name=vit_nano_patch16", "model.img_size=32"]))[0]
    vectors = random.standard_normal((12, 96)).astype(np.float32)
    FeatureStore(out / "features", feature_spec(config)).add(CONTENT, vectors)
    make_folder(out / "embeddings")
    Embeddings(CONTENT, np.arange(12), vectors, 2 * vectors).write(file_path(out / "embeddings", 0, 1), ["cut"])
    from_probabilities(random.dirichlet(np.ones(4), 12), np.arange(12) % 4, CONTENT, list("abcd")).write(out / "predictions.npz")
    (out / "config.yaml").write_text(to_yaml(config))


def lists(out: Path) -> None:
    """A manifest and a k-shot subset."""
    list_videos(out / "clips.csv", [Source(str(path), "") for path in demo_clips()])
    write_shots(out / "shots.json", draw_shots(read_labelled(write_labelled(out)), [2], seed=0)[0])


def tables(out: Path) -> None:
    """Tables of results in three forms."""
    logs = make_private_folder(Path("logs"))  # relative to `out`: the list of logs names them as they were given
    for model in ("s", "say", "scratch", "a_long_name"):
        for task, top1 in (("ssv2-10shot", 20.0), ("kinetics-50shot", 30.0), ("ucf101-5shot", 40.0)):
            (logs / f"{model}_{task}_log.txt").write_text(
                f'{{"test_acc1": {top1 + len(model)}, "test_acc5": {top1 + 20}, "train_loss": 1.0, "epoch": 0}}\n')
    assert collect.main(["--logs", str(logs), "--out", str(out / "tables")]) in (0, 3)


def checkpoint(out: Path) -> None:
    """Two steps and a save."""
    ranks, run, train = dist.init("cpu"), RunFolder(out / "run"), TrainConfig(zero_stage=2, precision="fp32", clip_grad=0.5)
    engine = Engine(*build(), train, ranks, micro_batch=8, grad_accum=1)
    saver = Saver(engine, run, train, ranks, keep=CheckpointConfig(every_steps=1), say=lambda text: None)
    make_private_folder(run.path)
    run.metrics.write_text('{"step": 1}\n')
    saver.prepare(0, 2)
    for step in range(2):
        engine.set_lr(lr_at(step))
        engine.backward(*batch(step))
        engine.update(extra=[])
    saver.save(2)


def main(out: Path) -> None:
    for write in (weights, arrays, lists, tables, checkpoint):
        write(out)
    dist.close()
    end_process(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
