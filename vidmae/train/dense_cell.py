"""A cell of the dense probes, in a run folder of its own: features of each frame, then masks and points. On every rank.

    sequences/00007.json        scores of one sequence, which is not looked at again after a stop
    sequences/threshold.json    how far a way back may miss its point before the point is called hidden
    result.json                 scores of the set; exists exactly when all is done
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import Tensor

from vidmae.evaluate.dense.dense_sequence import DenseSequence
from vidmae.evaluate.dense.dense_sets import content_of, sequences_of, tuning_scenes
from vidmae.evaluate.dense.dense_study import choose_threshold, study, ways_back
from vidmae.evaluate.dense.dense_summary import summarise
from vidmae.evaluate.dense.frame_features import (
    StoppedError,
    encoder_features,
    mean_features,
    pixel_features,
    surface_features,
)
from vidmae.model.classifier import VideoClassifier
from vidmae.ranks.dist import Ranks
from vidmae.ranks.program import say
from vidmae.ranks.pulse import Pulse
from vidmae.runs.record import (
    SCHEMA,
    RunFolder,
    job_id,
    make_private_folder,
    read_json,
    touch_heartbeat,
    write_json,
)
from vidmae.settings.layers import ConfigError
from vidmae.settings.programs.dense_config import DenseConfig
from vidmae.train.probe_cell import frozen_encoder

KIND = "dense"
FOLDER, THRESHOLD = "sequences", "threshold.json"
ORACLE_PX, JOINED = 2, 2  # side of a cell whose truth is known, for points; for masks so many are joined along each axis
Looks = Callable[[DenseSequence, Callable[[int, int], bool]], Tensor | None]


def run_dense(run: RunFolder, config: DenseConfig, ranks: Ranks, started: float) -> bool:
    """Probe one encoder, or a control, on one set. Collective.

    Returns:
        True once result.json is written; False where a signal asked to stop: the sequences that are done are kept.
    Raises:
        ValueError: The set is not what the sweep saw, has not its layout, or the weights do not fit.
    """
    how, began = config.dense, time.monotonic()
    if content_of(how.kind, Path(how.path) if how.path else None) != how.content:
        raise ValueError(f"the set {how.set_name} has changed since the sweep was submitted; give the same command again")
    pulse, folder = Pulse(run, config, ranks), make_private_folder(run.path / FOLDER)
    looks, stopped = make_looks(config, ranks), False
    try:
        hidden_px = _threshold(folder / THRESHOLD, config, looks, pulse)
        for number, make in enumerate(sequences_of(how)):
            path = folder / f"{number:05d}.json"
            if number % ranks.world_size == ranks.rank and not path.exists():
                sequence = make()
                features = looks(sequence, partial(pulse, f"frames of sequence {number + 1}"))
                joined = JOINED if how.features == "oracle" else 1
                write_json(path, study(sequence, features, how, hidden_px, joined), durable=False)
            if pulse("sequences", number + 1, 0):
                raise StoppedError
    except StoppedError:
        stopped = True
    if any(ranks.gather(stopped)):
        return False
    if ranks.is_main:
        _write_result(run, config, folder, {"world_size": ranks.world_size, "eval_s": time.monotonic() - began,
                                            "start_s": time.time() - started})
        say(ranks, "all sequences are done")
    ranks.barrier()
    return True


def make_looks(config: DenseConfig, ranks: Ranks) -> Looks:
    """What gives the features of a sequence; None of them where nothing is looked at."""
    how, size = config.dense, config.model.img_size
    patch = config.model.shape().patch_size
    if how.features == "encoder":
        model = frozen_encoder(config, ranks).eval()
        if not isinstance(model, VideoClassifier):
            raise ConfigError("a convolutional net has no features of patches; dense probes take transformers")
        return lambda sequence, tick: encoder_features(
            model, sequence.frames, step=how.window_step, still=how.clip == "still", batch=config.evaluate.batch,
            precision=config.train.precision, tick=tick)
    if how.features == "pixels":
        return lambda sequence, _: pixel_features(sequence.frames, size, patch)
    if how.features == "mean":
        return lambda sequence, _: mean_features(sequence.frames, size, patch)
    if how.features == "ceiling":
        return lambda sequence, _: surface_features(sequence, size // patch, size // patch)
    if how.features == "oracle":
        return lambda sequence, _: surface_features(sequence, sequence.frames.shape[1] // ORACLE_PX,
                                                    sequence.frames.shape[2] // ORACLE_PX)
    return lambda *_: None


def _threshold(path: Path, config: DenseConfig, looks: Looks, pulse: Pulse) -> float:
    """Chosen on rendered scenes that are in no set, once."""
    if config.dense.kind == "davis":
        return 0.0  # it has no points
    there = read_json(path)
    if there is None:
        seen = []
        for number, scene in enumerate(tuning_scenes(config.dense), 1):
            if pulse("scenes that set the threshold", number, config.dense.tuning_scenes):
                raise StoppedError
            seen.append(ways_back(scene, looks(scene, partial(pulse, "frames of a scene")), config.dense))
        there = {"hidden_px": choose_threshold(seen)}
        write_json(path, there)
    return float(there["hidden_px"])


def _write_result(run: RunFolder, config: DenseConfig, folder: Path, how: dict[str, float]) -> None:
    records = [record for path in sorted(folder.glob("[0-9]*.json")) if (record := read_json(path))]
    scores, identity = summarise(records), read_json(run.record) or {}
    if not scores:
        raise ValueError(f"the set {config.dense.set_name} has neither an object nor a point that could be scored")
    write_json(run.result, {
        "schema": SCHEMA, "kind": KIND, "name": config.name, "cell": identity.get("cell") or {},
        "set": config.dense.set_name, "features": config.dense.features,
        "scores": {name: asdict(score) for name, score in scores.items()}, "sequences": len(records),
        "frames": sum(record["frames"] for record in records),
        "objects": sum(len(record["objects"]) for record in records), **(read_json(folder / THRESHOLD) or {}),
        "num_frames": config.model.num_frames, "precision": config.train.precision,
        "commit": identity.get("commit"), "dirty": identity.get("dirty"), "job_id": job_id(), "finished": time.time(),
        **how})
    touch_heartbeat(run, state="done", step=1, total_steps=1)
