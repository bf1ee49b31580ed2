"""A finished cell for robustness tests: an untrained classifier with its weights kept, and real clips to test it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.support.runs import CELL
from vidmae.footage.manifest import Manifest, read_summary
from vidmae.labels.cell_data import class_names
from vidmae.labels.splits import read_labelled
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder, make_private_folder, write_json
from vidmae.settings.evaluation_config import RobustnessConfig, TestedConfig
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, to_yaml

SIGNATURE = "0123abcd"


def make_cell(runs: Path, manifest: Path, *settings: str, name: str = "tiny-toys-2shot-seed0-finetune", weights: bool = True,
              signature: str = SIGNATURE) -> RunFolder:
    """A finished cell whose model was drawn and not trained; it learned from, and was tested on, the same manifest."""
    run = RunFolder(make_private_folder(runs / f"{name}-{signature}"))
    config = build(FinetuneConfig, parse_set([*CELL, f"name={name}", f"data.manifest={manifest}", f"data.val_manifest={manifest}",
                                              "data.name=toys", "evaluate.batch=4", *settings]))[0]
    run.config.write_text(to_yaml(config))
    labelled = read_labelled(manifest)
    classes = class_names(labelled.classes)
    if weights:
        import torch

        from vidmae.model.weights import save_safetensors
        from vidmae.train.build import build_classifier_for

        model = build_classifier_for(config, len(classes), start=False)
        with torch.no_grad():
            model.head.weight.mul_(30)
        save_safetensors(model.state_dict(), run.weights, {})
    rows = Manifest.read(manifest)
    prob = np.random.default_rng(0).dirichlet(np.ones(len(classes)), len(rows))
    from_probabilities(prob, rows.class_index, rows.content, classes).write(run.predictions)
    cell = {"checkpoint": "tiny", "checkpoint_content": "ab", "data": "toys", "shots": 2, "seed": config.seed, "method": config.method,
            "overrides": {}, "sweep": ""}
    content = read_summary(manifest).content_sha256
    write_json(run.record, {"schema": 1, "kind": "fewshot", "name": name, "signature": signature, "cell": cell,
                            "val_content_sha256": content, "submissions": []})
    write_json(run.result, {"schema": 1, "kind": "fewshot", "cell": cell, "top1_pct": 50.0})
    return run


def make_test(cell: RunFolder, path: Path, manifest: Path, conditions: Sequence[str], **tested: object) -> RunFolder:
    """A robustness cell that has not run yet."""
    from dataclasses import fields

    from vidmae.settings.layers import load

    config = load(FinetuneConfig, cell.config)
    of_cell = {each.name: getattr(config, each.name) for each in fields(FinetuneConfig)}
    what = TestedConfig(**{"run": str(cell.path), "signature": SIGNATURE, "set_name": "toys", "manifest": str(manifest),
                           "conditions": tuple(conditions), "group": "some", **tested})  # type: ignore[arg-type]
    run = RunFolder(make_private_folder(path))
    run.config.write_text(to_yaml(RobustnessConfig(**{**of_cell, "name": "robust", "tested": what})))
    write_json(run.record, {"schema": 1, "kind": "robustness", "name": "robust", "signature": "89ab0000",
                            "content_sha256": read_summary(manifest).content_sha256, "manifest": str(manifest), "submissions": [],
                            "cell": {"tested": cell.path.name, "tested_signature": SIGNATURE, "seed": 0}})
    return run


def changed(run: RunFolder, **sections: dict[str, object]) -> None:
    """Change settings of a robustness cell."""
    from vidmae.settings.layers import load

    config = load(RobustnessConfig, run.config)
    run.config.write_text(to_yaml(replace(config, **{name: replace(getattr(config, name), **values)
                                                     for name, values in sections.items()})))
