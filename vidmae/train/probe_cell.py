"""A cell that learns on frozen features: extract what is missing, fit, test. Runs on every rank.

The labelled clips and the validation set come out of one encoder, and all methods, shots and seeds of one pretrained model
share its features on disk. Fitting is rank 0's alone: it takes seconds to minutes. Method cluster learns from no labelled
clip: its clusters are of the validation clips, whose labels only score and name them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidmae.evaluate import clustering, probes
from vidmae.evaluate.attentive import AttentiveProbe
from vidmae.evaluate.attentive_grid import fit_best
from vidmae.evaluate.extract import extract
from vidmae.evaluate.feature_cache import FeatureStore, feature_spec
from vidmae.labels.cell_data import CellData, read_cell_data
from vidmae.model.conv_net import Classifier
from vidmae.ranks.dist import Ranks
from vidmae.ranks.program import say
from vidmae.ranks.pulse import Pulse
from vidmae.ranks.waiting import on_main
from vidmae.runs.cell_result import Learned, write_cell_result
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.train.build import build_classifier_for


@dataclass(frozen=True)
class Said:
    """What a method says of the validation clips.

    Attributes:
        probabilities: [N, C].
        steps: Optimizer steps; None where there are none.
        more: What result.json says besides.
    """

    probabilities: np.ndarray
    steps: int | None = None
    more: dict[str, Any] = field(default_factory=dict)


def probe(run: RunFolder, config: FinetuneConfig, ranks: Ranks, started: float) -> bool:  # noqa: ARG001
    """Learn and test one cell of method linear, knn, attentive or cluster. Collective.

    Returns:
        True once result.json is written; False where a signal asked to stop: features so far are saved.
    Raises:
        ValueError: Settings, manifests or weights cannot be used, or videos cannot be read.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    data, pulse, store = read_cell_data(config), Pulse(run, config, ranks), open_store(config, ranks)
    model = cache(partial(frozen_encoder, config, ranks))
    seconds, unlabelled = [], config.method == "cluster"
    for manifest in (None if unlabelled else data.train, data.val):
        began = time.perf_counter()
        if manifest is not None and not extract(model, manifest, np.arange(len(manifest)), store, config, ranks, pulse):
            return False
        seconds.append(time.perf_counter() - began)
    model.cache_clear()  # its memory is the probe's now
    began = time.perf_counter()
    done, said = on_main(partial(fit, config, store, data, ranks), ranks, partial(pulse, "fitting", 0, 0))
    if not done:
        return False
    if said is not None:
        predictions = from_probabilities(said.probabilities, data.val.class_index, data.val.source, data.classes)
        write_cell_result(run, config, predictions, Learned(
            train_clips=0 if unlabelled else len(data.train), steps=said.steps, selected_step=said.steps,
            world_size=ranks.world_size, train_s=seconds[0] + time.perf_counter() - began, eval_s=seconds[1]), said.more)
    ranks.barrier()
    return True


def frozen_encoder(config: FinetuneConfig, ranks: Ranks) -> Classifier:
    """The encoder of a cell without a head, on the rank's device: its weights, or random ones from the seed.

    Raises:
        ValueError: The weights do not fit, or are not those that the cell was made for.
    """
    model = build_classifier_for(config, None, say=partial(say, ranks))
    return model.to(ranks.device).requires_grad_(False)


def fit(config: FinetuneConfig, store: FeatureStore, data: CellData, ranks: Ranks) -> Said:
    """Learn from the labelled clips' features, or cluster those of the validation clips, and say what they are."""
    if config.method == "cluster":
        return cluster(config, store.read(data.val.footage), data.val.class_index, len(data.classes), partial(say, ranks))
    fitted = fit_probe(config, store, data, ranks)
    if isinstance(fitted, AttentiveProbe):
        found = fitted(store.rows(data.val.footage), store.spec.views)
        return Said(found, fitted.steps, {"chosen": fitted.chosen} if fitted.chosen else {})
    return Said(fitted(store.read(data.val.footage)))


def cluster(config: FinetuneConfig, x: np.ndarray, label: np.ndarray, num_classes: int, log: Callable[[str], object],
            ) -> Said:
    """Clusters of the validation clips' features [N, D], as many as these have classes, and how well they agree."""
    squared = clustering.distances(x, len(np.unique(label)), restarts=config.probe.restarts, seed=config.seed)
    found = clustering.scores(squared.argmin(axis=1), label, seed=config.seed)
    log(f"{found.clusters} clusters of {len(label)} clips, the tightest of {config.probe.restarts} starts: NMI "
        f"{found.nmi_pct:.2f} % (by chance {found.nmi_chance_pct:.2f}), purity {found.purity_pct:.2f} % (by chance "
        f"{found.purity_chance_pct:.2f}), adjusted Rand index {found.ari_pct:.2f} %")
    return Said(clustering.named(squared, label, num_classes), more={"clustering": found.record()})


def fit_probe(config: FinetuneConfig, store: FeatureStore, data: CellData, ranks: Ranks,
              ) -> AttentiveProbe | probes.Voters | probes.Regression:
    """Learn from the labelled clips' features: what gives probabilities [N, C] of features."""
    settings, log, num_classes, labels = config.probe, partial(say, ranks), len(data.classes), data.train.class_index
    if config.method == "attentive":
        return fit_best(store.rows(data.train.footage), labels, num_classes=num_classes, probe=settings,
                        holdout=config.select.holdout, seed=config.seed, device=ranks.device, say=log,
                        views=store.spec.views)
    x = store.read(data.train.footage)
    if config.method == "knn":
        return probes.fit_knn(x, labels, num_classes=num_classes, neighbors=settings.neighbors,
                              temperature=settings.temperature)
    assert config.method == "linear", config.method
    return probes.fit_linear(x, labels, num_classes=num_classes, folds=settings.folds, seed=config.seed, say=log)


def open_store(config: FinetuneConfig, ranks: Ranks) -> FeatureStore:
    """The features of a cell's model. Collective; rank 0 first: it writes what they are."""
    if not config.probe.features:
        raise ValueError("probe.features is empty; it is the folder for frozen features (--set probe.features=FOLDER)")
    make = partial(FeatureStore, Path(config.probe.features), feature_spec(config), partial(say, ranks))
    store = make() if ranks.is_main else None
    ranks.barrier()
    return make() if store is None else store
