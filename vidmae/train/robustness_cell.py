"""Test a finished cell under conditions, in a run folder of its own. Runs on every rank.

    conditions/clean.npz                    what the model says of every clip, by content hash
    conditions/gaussian_noise-3.npz         the same under a condition
    cues.npz                                with tested.cues: the texture of each image
    result.json                             accuracies by condition; exists exactly when all is done
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidmae.evaluate.attentive import AttentiveProbe
from vidmae.evaluate.condition_loader import FRAMES
from vidmae.evaluate.condition_pass import Says, evaluate_under
from vidmae.evaluate.corruptions.conditions import Condition, parse_conditions
from vidmae.evaluate.extract import extract, frozen_features
from vidmae.evaluate.predict import StoppedError, arithmetic_of_test, testing, view_spec
from vidmae.footage.manifest import Manifest, content_hash
from vidmae.labels.cell_data import class_names, read_cell_data
from vidmae.labels.label_map import NO_ANSWER, LabelMap, make_label_map
from vidmae.labels.set_layout import NO_TEXTURE, conditions_of, textures_of
from vidmae.labels.splits import read_labelled
from vidmae.model.weights import load_encoder, load_weights
from vidmae.ranks.dist import Ranks
from vidmae.ranks.program import say
from vidmae.ranks.pulse import Pulse
from vidmae.ranks.waiting import on_main
from vidmae.runs.accuracy import topk_ci_pct, topk_pct
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import (
    SCHEMA,
    RunFolder,
    job_id,
    make_private_folder,
    read_json,
    touch_heartbeat,
    write_atomic,
    write_json,
)
from vidmae.settings.programs.evaluation_config import RobustnessConfig
from vidmae.train.build import build_classifier_for
from vidmae.train.probe_cell import fit_probe, frozen_encoder, open_store

KIND = "robustness"
CLEAN, IMAGENET_C = "clean", "imagenet-c"
PARTIAL = "partial.npz"  # what was said before a signal


@dataclass(frozen=True)
class Tested:
    """What a cell is tested on.

    Attributes:
        manifest: The clips, all of them.
        rows: Those for whose label the model has an answer.
        labels: How it answers.
        conditions: What is done to each.
        folders: Condition that the folders of `rows` name; empty where they name none.
        textures: int64 [rows], index among the answers; empty without cues.
    """

    manifest: Manifest
    rows: np.ndarray
    labels: LabelMap
    conditions: tuple[Condition, ...]
    folders: tuple[str, ...]
    textures: np.ndarray


def run_robustness(run: RunFolder, config: RobustnessConfig, ranks: Ranks, started: float) -> bool:
    """Test a finished cell. Collective.

    Returns:
        True once result.json is written; False where a signal asked to stop: what was said so far is kept.
    Raises:
        ValueError: The cell did not keep what is needed, its classes do not fit the clips, or clips cannot be read.
    """
    pulse = Pulse(run, config, ranks)
    tested, began = read_tested(config), time.monotonic()
    say(ranks, f"{len(tested.rows)} clips, {len(tested.conditions)} conditions; {tested.labels.said}")
    says = finetuned(config, ranks) if config.method == "finetune" else probed(config, ranks, pulse)
    if says is None:
        return False
    try:
        found = evaluate_under(says, tested.manifest, tested.rows, tested.labels, tested.conditions, view_spec(config),
                               ranks, batch=config.evaluate.batch, data=config.data, partial=run.path / PARTIAL,
                               progress=partial(pulse, "testing"))
    except StoppedError:
        return False
    if ranks.is_main:
        write_found(run, config, tested, found, {"world_size": ranks.world_size, "eval_s": time.monotonic() - began,
                                                 "start_s": time.time() - started})
    ranks.barrier()
    return True


def read_tested(config: RobustnessConfig) -> Tested:
    """The clips, the conditions, and how the cell's model answers.

    Raises:
        ValueError: They do not fit each other.
    """
    t, classes = config.tested, classes_of(config)
    labelled = read_labelled(Path(t.manifest), paths=True)
    labels = make_label_map(class_names(labelled.classes), classes, own=t.own_classes,
                            listed=Path(t.label_map) if t.label_map else None)
    manifest = Manifest.read(Path(t.manifest), decoder=config.data.decoder)
    right = labels.of_label[manifest.class_index]
    textures = np.full(len(manifest), NO_TEXTURE)
    if t.cues:
        names = class_names(labelled.classes)
        textures = labels.of_label[textures_of(labelled.paths, names)]
        right = np.where(textures == NO_ANSWER, NO_ANSWER, right)
    rows = np.flatnonzero(right != NO_ANSWER)
    conditions = parse_conditions(",".join(t.conditions))
    as_they_are = t.by_folder and not t.cues and [each.text for each in conditions] == [CLEAN]
    folders = (conditions_of(labelled.paths) if as_they_are else None) or []
    of_rows = tuple(folders[row] for row in rows) if folders else ()
    _check_files(of_rows or [each.text for each in conditions])
    return Tested(manifest, rows, labels, conditions, of_rows, textures[rows] if t.cues else textures[:0])


def classes_of(config: RobustnessConfig) -> Sequence[str]:
    """Names of the classes of the cell, or of the file, that is tested, by index."""
    if config.tested.weights:
        return class_names(read_labelled(Path(config.tested.classes_of)).classes)
    found: list[str] = Predictions.read(RunFolder(Path(config.tested.run)).predictions).classes.tolist()
    return found


def _check_files(texts: Sequence[str]) -> None:
    known: dict[str, str] = {}
    for text in dict.fromkeys(texts):
        other = known.setdefault(file_of(text), text)
        if other != text:
            raise ValueError(f"the conditions {other!r} and {text!r} would both be kept in {file_of(text)}; rename the "
                             "folders of one of them")


def file_of(condition: str) -> str:
    """Name of the file with what is said under a condition."""
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', condition)}.npz"


def finetuned(config: RobustnessConfig, ranks: Ranks) -> Says:
    """The finetuned model of a cell, or of a file.

    Raises:
        ValueError: The cell did not keep its weights, the file is not what the sweep saw, or they are of another model.
    """
    t, cell = config.tested, RunFolder(Path(config.tested.run))
    if not t.weights and not cell.weights.is_file():
        raise ValueError(f"{cell.path} has no weights.safetensors: it did not keep them; run the cell again with "
                         "--set keep_weights=true")
    model = build_classifier_for(config, len(classes_of(config)), start=False)
    if t.weights:
        if content_hash(Path(t.weights)) != t.signature:
            raise ValueError(f"{t.weights} has changed since the sweep was submitted; give the same command again")
        load_encoder(model, t.weights)  # with its head: the sweep has seen one of as many classes
    else:
        load_weights(model, cell.weights)
    model = model.to(ranks.device)

    of_scores = config.evaluate.views.startswith(FRAMES)

    def says(clips: Tensor) -> np.ndarray:
        with testing(model), arithmetic_of_test(model, config.train.precision, ranks.device):
            scores = model(clips).cpu().double()
        found: np.ndarray = (scores if of_scores else scores.softmax(1)).numpy()
        return found

    return says


def probed(config: RobustnessConfig, ranks: Ranks, pulse: Pulse) -> Says | None:
    """The probe of a cell, fitted again on the features of its training clips; None where a signal asked to stop."""
    data, store = read_cell_data(config), open_store(config, ranks)
    model = frozen_encoder(config, ranks).eval()
    if not extract(lambda: model, data.train, np.arange(len(data.train)), store, config, ranks, pulse):
        return None
    done, fitted = on_main(partial(fit_probe, config, store, data, ranks), ranks, partial(pulse, "fitting", 0, 0))
    if not done:
        return None
    if isinstance(fitted, AttentiveProbe):
        fitted = fitted.on(torch.device("cpu"))  # it travels to the other ranks
    fitted = ranks.from_main(fitted)
    head: Callable[..., np.ndarray] = fitted.on(ranks.device) if isinstance(fitted, AttentiveProbe) else fitted
    grid = store.spec.token_grid
    return lambda clips: head(frozen_features(model, clips, grid, config.train.precision))


def write_found(run: RunFolder, config: RobustnessConfig, tested: Tested, found: Sequence[Predictions],
                how: Mapping[str, Any]) -> None:
    """Write predictions, textures and result.json; rank 0 alone."""
    make_private_folder(run.conditions)
    records = []
    for condition, said in by_condition(tested, found):
        file = file_of(condition["text"])
        said.write(run.conditions / file)
        records.append({**condition, "file": file, "clips": len(said), "top1_pct": topk_pct(said, 1),
                        "top5_pct": topk_pct(said, 5), "top1_ci_pct": topk_ci_pct(said, 1)})
    if config.tested.cues:
        data = io.BytesIO()
        np.savez_compressed(data, content=tested.manifest.source[tested.rows], texture=tested.textures.astype(np.int32))
        write_atomic(run.cues, data.getvalue())
    identity, of_cell, learned_on = read_json(run.record) or {}, {}, {"val_content_sha256": config.tested.classes_content}
    if not config.tested.weights:
        cell = RunFolder(Path(config.tested.run))
        of_cell, learned_on = (read_json(path) or {} for path in (cell.result, cell.record))
    write_json(run.result, {
        "schema": SCHEMA, "kind": KIND, "name": config.name, "cell": identity.get("cell") or {},
        "set": config.tested.set_name, "cues": config.tested.cues, "conditions": records,
        "own_set": identity.get("content_sha256", 0) == learned_on.get("val_content_sha256"),
        "cell_top1_pct": of_cell.get("top1_pct"), "answers": len(tested.labels.answers), "how_answered": tested.labels.said,
        "clips": len(tested.rows), "left_out": len(tested.manifest) - len(tested.rows),
        "num_frames": config.model.num_frames, "views": config.evaluate.views, "precision": config.train.precision,
        "commit": identity.get("commit"), "dirty": identity.get("dirty"), "job_id": job_id(), "finished": time.time(),
        **how})
    (run.path / PARTIAL).unlink(missing_ok=True)
    touch_heartbeat(run, state="done", step=1, total_steps=1)


def by_condition(tested: Tested, found: Sequence[Predictions]) -> list[tuple[dict[str, Any], Predictions]]:
    """What is said under each condition, those that folders name included."""
    if not tested.folders:
        return [(record_of(condition), said) for condition, said in zip(tested.conditions, found, strict=True)]
    (said,), names = found, np.array(tested.folders)
    return [(record_of_text(text), said.take(names == text)) for text in dict.fromkeys(tested.folders)]


def record_of(condition: Condition) -> dict[str, Any]:
    """A condition as result.json has it."""
    return {"text": condition.text, "name": condition.name, "level": condition.level, "group": condition.group,
            "generated": condition.generated, "imagenet_c": condition in parse_conditions(IMAGENET_C)}


def record_of_text(text: str) -> dict[str, Any]:
    """A condition that folders name; one that this suite does not know belongs to a group `folders`. Files are not generated
    here, whatever made them."""
    try:
        (known,) = parse_conditions(text)
    except ValueError:
        name, colon, level = text.rpartition(":")  # a folder may be called a:b
        name, number = (name, int(level)) if colon and level.isdecimal() else (text, 0)
        return {"name": name, "level": number, "group": "folders", "generated": False,
                "text": text, "imagenet_c": False}
    return {**record_of(known), "generated": False}
