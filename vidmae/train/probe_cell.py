"""A cell that learns on frozen features: extract what is missing, fit, test. Runs on every rank.

The labelled clips and the validation set come out of one encoder, and all methods, shots and seeds of one pretrained model
share its features on disk. Fitting is rank 0's alone: it takes seconds to minutes.
"""

from __future__ import annotations

import time
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from vidmae.evaluate import probes
from vidmae.evaluate.attentive import AttentiveProbe, fit_attentive
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


def probe(run: RunFolder, config: FinetuneConfig, ranks: Ranks, started: float) -> bool:  # noqa: ARG001
    """Learn and test one cell of method linear, knn or attentive. Collective.

    Returns:
        True once result.json is written; False where a signal asked to stop: features so far are saved.
    Raises:
        ValueError: Settings, manifests or weights cannot be used, or videos cannot be read.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    data, pulse, store = read_cell_data(config), Pulse(run, config, ranks), open_store(config, ranks)
    model = cache(partial(frozen_encoder, config, ranks))
    seconds = []
    for manifest in (data.train, data.val):
        began = time.perf_counter()
        if not extract(model, manifest, np.arange(len(manifest)), store, config, ranks, pulse):
            return False
        seconds.append(time.perf_counter() - began)
    model.cache_clear()  # its memory is the probe's now
    began = time.perf_counter()
    done, fitted = on_main(partial(fit, config, store, data, ranks), ranks, partial(pulse, "fitting", 0, 0))
    if not done:
        return False
    if fitted is not None:
        probabilities, steps = fitted
        predictions = from_probabilities(probabilities, data.val.class_index, data.val.source, data.classes)
        write_cell_result(run, config, predictions, Learned(
            train_clips=len(data.train), steps=steps, selected_step=steps, world_size=ranks.world_size,
            train_s=seconds[0] + time.perf_counter() - began, eval_s=seconds[1]))
    ranks.barrier()
    return True


def frozen_encoder(config: FinetuneConfig, ranks: Ranks) -> Classifier:
    """The encoder of a cell without a head, on the rank's device: its weights, or random ones from the seed.

    Raises:
        ValueError: The weights do not fit, or are not those that the cell was made for.
    """
    model = build_classifier_for(config, None, say=partial(say, ranks))
    return model.to(ranks.device).requires_grad_(False)


def fit(config: FinetuneConfig, store: FeatureStore, data: CellData, ranks: Ranks) -> tuple[np.ndarray, int | None]:
    """Learn from the labelled clips' features.

    Returns:
        Probabilities of the validation clips [N, C], and the optimizer steps, None where there are none.
    """
    fitted = fit_probe(config, store, data, ranks)
    if isinstance(fitted, AttentiveProbe):
        return fitted(store.rows(data.val.footage)), fitted.steps
    return fitted(store.read(data.val.footage)), None


def fit_probe(config: FinetuneConfig, store: FeatureStore, data: CellData, ranks: Ranks,
              ) -> AttentiveProbe | probes.Voters | probes.Regression:
    """Learn from the labelled clips' features: what gives probabilities [N, C] of features."""
    settings, log, num_classes, labels = config.probe, partial(say, ranks), len(data.classes), data.train.class_index
    if config.method == "attentive":
        return fit_attentive(store.rows(data.train.footage), labels, num_classes=num_classes, probe=settings,
                             seed=config.seed, device=ranks.device, say=log)
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
