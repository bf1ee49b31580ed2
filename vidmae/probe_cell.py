"""A cell of a sweep that learns on frozen features: extract what is missing, fit, test. Runs on every rank.

The labelled clips and the validation set come out of one encoder, and all methods, shots and seeds of one pretrained model
share its features on disk. Fitting is rank 0's alone: it takes seconds to minutes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from vidmae import probes, watchdog
from vidmae.attentive import attentive
from vidmae.classifier import VideoClassifier, build_classifier
from vidmae.dist import Ranks
from vidmae.extract import extract
from vidmae.features import FeatureStore, feature_spec
from vidmae.finetune_config import FinetuneConfig
from vidmae.manifest import Manifest, content_hash
from vidmae.predictions import Predictions, from_probabilities
from vidmae.program import say
from vidmae.record import RunFolder, touch_heartbeat
from vidmae.shots import read_shots, rows_by_class, rows_of
from vidmae.splits import Labelled, check_apart, read_labelled
from vidmae.waiting import on_main
from vidmae.weights import load_encoder

HEARTBEAT_S = 10.0


@dataclass(frozen=True)
class ProbeOutcome:
    """What a probe came to.

    Attributes:
        predictions: Of all validation clips; on rank 0 alone.
        train_clips: Labelled clips.
        steps: Optimizer steps of the attentive probe; None where there are none.
        train_s: Seconds for features of the labelled clips, and for fitting and applying the probe.
        eval_s: Seconds for features of the validation clips.
    """

    predictions: Predictions | None
    train_clips: int
    steps: int | None
    train_s: float
    eval_s: float


@dataclass(frozen=True)
class Split:
    """Some rows of a manifest and their classes.

    Attributes:
        manifest: The csv.
        rows: int64 [N].
        labels: int64 [N], class index.
        contents: uint64 [N].
    """

    manifest: Path
    rows: np.ndarray
    labels: np.ndarray
    contents: np.ndarray


def run_probe(run: RunFolder, config: FinetuneConfig, ranks: Ranks) -> ProbeOutcome | None:
    """Learn and test one cell, and write its predictions. Collective.

    Args:
        run: The run folder; predictions.npz is written there.
        config: Of the cell, with method linear, knn or attentive.
        ranks: All ranks.
    Returns:
        What result.json needs, or None where a signal asked to stop: features so far are saved, another attempt goes on.
    Raises:
        ValueError: Settings, manifests or weights cannot be used, or videos cannot be read.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    life = SignsOfLife(run, config, ranks)
    train, val, classes = splits(config)
    store = _open_store(config, ranks)
    model = cache(partial(frozen_encoder, config, ranks))
    seconds = []
    for split in (train, val):
        began = time.perf_counter()
        if not extract(model, Manifest.read(split.manifest), split.rows, store, config, ranks, life):
            return None
        seconds.append(time.perf_counter() - began)
    model.cache_clear()  # its memory is the probe's now
    began = time.perf_counter()
    work = partial(fit, config, store, train, val, len(classes), ranks)
    done, fitted = on_main(work, ranks, partial(life, "fitting", 0, 0))
    if not done:
        return None
    predictions, steps = None, None
    if fitted is not None:
        probabilities, steps = fitted
        predictions = from_probabilities(probabilities, val.labels, val.contents, classes)
        predictions.write(run.path / "predictions.npz")
    return ProbeOutcome(predictions, len(train.rows), steps, seconds[0] + time.perf_counter() - began, seconds[1])


def splits(config: FinetuneConfig) -> tuple[Split, Split, tuple[str, ...]]:
    """Labelled clips of the subset, all validation clips, and the names of the classes in index order.

    Raises:
        ManifestError: A manifest cannot be read, or the two do not fit each other.
        ShotsError: The subset is not of this manifest.
    """
    labelled, val = read_labelled(Path(config.data.manifest)), read_labelled(Path(config.data.val_manifest))
    check_apart(labelled, val)
    if config.data.subset:
        rows = rows_of(read_shots(Path(config.data.subset)), labelled)
    else:
        rows = np.sort(np.concatenate(list(rows_by_class(labelled).values())))
    index = {label: i for i, label in enumerate(labelled.classes)}
    return (_split(labelled, rows, index), _split(val, np.arange(len(val)), index), labelled.classes)


def _split(labelled: Labelled, rows: np.ndarray, index: dict[str, int]) -> Split:
    classes = np.array([index[label] for label in labelled.classes])
    return Split(labelled.path, rows, classes[labelled.class_of[rows]], labelled.contents[rows])


def frozen_encoder(config: FinetuneConfig, ranks: Ranks) -> VideoClassifier:
    """The encoder of a cell without a head, on the rank's device: its weights, or random ones from the seed.

    Raises:
        ValueError: The weights do not fit, or are not those that the cell was made for.
    """
    m, train = config.model, config.train
    torch.manual_seed(config.seed)
    model = build_classifier(m.name, num_classes=None, img_size=m.img_size, num_frames=m.num_frames,
                             t_patch_size=m.t_patch_size, pool=m.pool, attention=m.attention)
    if train.init:
        found = content_hash(Path(train.init))
        if not train.init_content.startswith("run:") and found != train.init_content:
            raise ValueError(f"{train.init} has content {found}, the cell was made for {train.init_content or 'none'}: the "
                             "file was replaced; start the sweep again")
        report = load_encoder(model, train.init, resize_positions=train.resize_positions)
        say(ranks, f"{train.init_name}: {report}")
    return model.to(ranks.device).requires_grad_(False)


def fit(config: FinetuneConfig, store: FeatureStore, train: Split, val: Split, num_classes: int,
        ranks: Ranks) -> tuple[np.ndarray, int | None]:
    """Learn from the labelled clips' features.

    Returns:
        Probabilities of the validation clips [N, C], and the optimizer steps, None where there are none.
    """
    probe, log = config.probe, partial(say, ranks)
    if config.method == "attentive":
        return attentive(store.rows(train.contents), train.labels, store.rows(val.contents), num_classes=num_classes,
                         probe=probe, seed=config.seed, device=ranks.device, say=log)
    x, val_x = store.read(train.contents), store.read(val.contents)
    if config.method == "knn":
        return probes.knn(x, train.labels, val_x, num_classes=num_classes, neighbors=probe.neighbors,
                          temperature=probe.temperature), None
    assert config.method == "linear", config.method
    return probes.linear(x, train.labels, val_x, num_classes=num_classes, folds=probe.folds, seed=config.seed, say=log), None


class SignsOfLife:
    """Keeps the run's heartbeat, its clock and its log going; call it often."""

    def __init__(self, run: RunFolder, config: FinetuneConfig, ranks: Ranks) -> None:
        self._run, self._config, self._ranks = run, config, ranks
        self._touched = self._logged = -float("inf")

    def __call__(self, state: str, done: int, total: int) -> None:
        """Take a sign of life: what is done, clips done and clips in all (0 where clips do not count)."""
        watchdog.expect_within(self._config.recovery.start_limit_s)
        now = time.monotonic()
        if self._ranks.is_main and now - self._touched >= HEARTBEAT_S:
            self._touched = now
            touch_heartbeat(self._run, state=state, clips=done, total_clips=total)
        if done and now - self._logged >= self._config.log.every_s:
            self._logged = now
            say(self._ranks, f"{state}: {done} of {total} clips")


def _open_store(config: FinetuneConfig, ranks: Ranks) -> FeatureStore:
    """Rank 0 first: it writes what the features are."""
    if not config.probe.features:
        raise ValueError("probe.features is empty; it is the folder for frozen features (--set probe.features=FOLDER)")
    make = partial(FeatureStore, Path(config.probe.features), feature_spec(config), partial(say, ranks))
    store = make() if ranks.is_main else None
    ranks.barrier()
    return make() if store is None else store
