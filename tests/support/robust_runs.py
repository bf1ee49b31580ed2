"""Robustness cells as sweeps/robustness.py leaves them, with answers that a test chooses."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vidmae.runs.accuracy import topk_ci_pct, topk_pct
from vidmae.runs.predictions import Predictions, from_probabilities
from vidmae.runs.record import RunFolder, make_private_folder, write_json


def answers(said: np.ndarray, label: np.ndarray, classes: tuple[str, ...], first: int = 0) -> Predictions:
    """Predictions of a model that says one class of each image, all the others being equally likely."""
    prob = np.full((len(said), len(classes)), 0.1 / (len(classes) - 1))
    prob[np.arange(len(said)), said] = 0.9
    return from_probabilities(prob, label, np.arange(first, first + len(said)).astype(np.uint64), classes)


def write_tested(runs: Path, model: str, seed: int, said: Mapping[str, Predictions], *, test_set: str = "toys-val", num_frames: int = 16,
                 group: str = "some", own_set: bool = True, cell_top1_pct: float = 50.0, textures: np.ndarray | None = None,
                 generated: tuple[str, ...] = (), imagenet_c: tuple[str, ...] = (), manifest: str = "") -> RunFolder:
    """A finished robustness cell.

    Args:
        runs: Folder of the runs.
        model: Name of the cell that was tested, with `{}` where the seed stands.
        seed: Of it.
        said: By condition.
        textures: Of each image, for a set of cue conflicts.
        generated: Names of conditions that are marked so.
        imagenet_c: Names of corruptions that count for mCE.
        test_set, num_frames, group, own_set, cell_top1_pct, manifest: As in result.json and run.json.
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
                            "num_frames": num_frames, "left_out": 0, "clips": len(first)})
    return run
