"""For robustness tests: a finished cell with an untrained classifier, and robustness cells before and after they have run."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.support.runs import CELL
from vidmae.footage.manifest import Manifest, read_summary
from vidmae.labels.cell_data import class_names
from vidmae.labels.splits import read_labelled
from vidmae.runs.accuracy import topk_ci_pct, topk_pct
from vidmae.runs.predictions import Predictions, from_probabilities
from vidmae.runs.record import RunFolder, make_private_folder, write_json
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, to_yaml
from vidmae.settings.programs.evaluation_config import RobustnessConfig, TestedConfig

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


def answers(said: np.ndarray, label: np.ndarray, classes: tuple[str, ...], first: int = 0) -> Predictions:
    """Predictions of a model that says one class of each image, all the others being equally likely."""
    prob = np.full((len(said), len(classes)), 0.1 / (len(classes) - 1))
    prob[np.arange(len(said)), said] = 0.9
    return from_probabilities(prob, label, np.arange(first, first + len(said)).astype(np.uint64), classes)


def write_tested(runs: Path, model: str, seed: int, said: Mapping[str, Predictions], *, test_set: str = "toys-val", num_frames: int = 16,
                 group: str = "some", own_set: bool = True, cell_top1_pct: float | None = 50.0, textures: np.ndarray | None = None,
                 generated: tuple[str, ...] = (), imagenet_c: tuple[str, ...] = (), manifest: str = "", views: str = "center") -> RunFolder:
    """A finished robustness cell.

    Args:
        runs: Folder of the runs.
        model: Name of the cell that was tested, with `{}` where the seed stands.
        seed: Of it.
        said: By condition.
        textures: Of each image, for a set of cue conflicts.
        generated: Names of conditions that are marked so.
        imagenet_c: Names of corruptions that count for mCE.
        test_set, num_frames, group, own_set, cell_top1_pct, manifest, views: As in result.json and run.json.
    """
    tested = model.format(f"seed{seed}")
    signature = f"{zlib.crc32(tested.encode()):08x}"
    run = RunFolder(make_private_folder(runs / f"robust-{tested}-on-{test_set}-{group}-{seed:08x}"))
    make_private_folder(run.conditions)
    records = []
    for text, predictions in said.items():
        name, _, level = text.partition(":")
        file = f"{text.replace(':', '-')}.npz"
        predictions.write(run.conditions / file)
        records.append({"text": text, "name": name, "level": int(level or 0), "group": "clean" if text == "clean" else group,
                        "generated": name in generated, "imagenet_c": name in imagenet_c, "file": file, "clips": len(predictions),
                        "top1_pct": topk_pct(predictions, 1), "top5_pct": topk_pct(predictions, 5),
                        "top1_ci_pct": topk_ci_pct(predictions, 1)})
    first = next(iter(said.values()))
    if textures is not None:
        np.savez(run.cues, content=first.content, texture=textures.astype(np.int32))
    cell = {"checkpoint": "s", "checkpoint_content": "run:edd1b7a1", "data": "toys", "shots": 2, "seed": seed, "method": "finetune",
            "tested": f"{tested}-{signature}", "tested_signature": signature, "set": test_set, "group": group}
    write_json(run.record, {"schema": 1, "kind": "robustness", "name": run.path.name[:-9], "signature": f"{seed:08x}", "cell": cell,
                            "manifest": manifest, "submissions": []})
    write_json(run.result, {"schema": 1, "kind": "robustness", "cell": cell, "set": test_set, "cues": textures is not None,
                            "conditions": records, "answers": len(first.classes), "own_set": own_set, "cell_top1_pct": cell_top1_pct,
                            "num_frames": num_frames, "views": views, "left_out": 0, "clips": len(first)})
    return run
