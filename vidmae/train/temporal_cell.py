"""Temporal probes of a frozen encoder, in a run folder of its own. Runs on every rank.

First, every probe is shown to be able to succeed: a feature that holds the time of each frame must be right on recordings
that the probe has not seen. Then clips are decoded, and mean pixels must be at chance wherever both labels show the same
frames. Only then the encoder is judged, beside controls that cannot see time.

    result.json    accuracies with intervals over recordings, and the model minus each control; exists when all is done
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.evaluate.feature_cache import FeatureSpec, FeatureStore, feature_spec
from vidmae.evaluate.temporal.drawn_windows import SELECT, TEST, TRAIN, Windows, draw_windows
from vidmae.evaluate.temporal.shown_features import (
    Seen,
    ShownClips,
    extract_shown,
    pixel_spec,
    seen_pixels,
    seen_still,
    seen_whole,
    shown_clips,
)
from vidmae.evaluate.temporal.time_answers import (
    COMPARED,
    MODEL,
    ORACLE,
    PIXELS,
    RANDOM,
    STILL,
    Answers,
    answer,
    check_fails,
    check_succeeds,
    kinds_of,
)
from vidmae.evaluate.temporal.time_tasks import TimeTask, make_task
from vidmae.footage.manifest import Manifest, Row, read_all
from vidmae.insight.paired import paired_difference
from vidmae.ranks.dist import Ranks
from vidmae.ranks.program import say
from vidmae.ranks.pulse import Pulse
from vidmae.ranks.waiting import on_main
from vidmae.runs.record import SCHEMA, RunFolder, job_id, read_json, touch_heartbeat, write_json
from vidmae.settings.programs.temporal_config import TemporalConfig
from vidmae.train.probe_cell import frozen_encoder

KIND = "temporal"
VIEW = "shown"  # of the features: of clips that are given frame by frame


def run_temporal(run: RunFolder, config: TemporalConfig, ranks: Ranks, started: float) -> bool:
    """Ask a frozen encoder what it knows of time. Collective.

    Returns:
        True once result.json is written; False where a signal asked to stop: features so far are saved.
    Raises:
        ValueError: The recordings are others than when the cell was made, a probe cannot succeed or cannot fail, or videos
            cannot be read.
    """
    pulse, began = Pulse(run, config, ranks), time.monotonic()
    manifest = Manifest.read(Path(config.temporal.manifest), decoder=config.data.decoder)
    windows, tasks = asked(config, read_all(Path(config.temporal.manifest))[1])
    say(ranks, f"{len(windows)} windows of {len(windows.part)} recordings: {', '.join(map(_size, tasks))}")
    done, oracle = on_main(lambda: [check_succeeds(task, windows.part) for task in tasks], ranks,
                           partial(pulse, "oracle", 0, 0))
    if not done:
        return False
    clips = shown_clips(tasks, manifest)
    ways = ways_to_look(config, clips, ranks)
    if not extract_shown(clips, list(ways.values()), manifest, config, ranks, pulse):
        return False
    done, probes = on_main(lambda: [judged(task, windows, clips, ways, config, first)
                                    for task, first in zip(tasks, oracle or (), strict=True)],
                           ranks, partial(pulse, "fitting", 0, 0))
    if not done:
        return False
    if probes is not None:
        write_found(run, config, windows, probes, {"world_size": ranks.world_size, "eval_s": time.monotonic() - began,
                                                   "start_s": time.time() - started})
    ranks.barrier()
    return True


def asked(config: TemporalConfig, rows: Sequence[Row]) -> tuple[Windows, list[TimeTask]]:
    """The windows of a cell, and what each probe shows of them.

    Args:
        config: Of the cell.
        rows: All of its manifest.
    Raises:
        ValueError: They are not those of the cell's signature.
    """
    t, data = config.temporal, config.data
    windows = draw_windows(rows, t, num_frames=config.clip_frames, sampling_rate=data.sampling_rate,
                           target_fps=data.target_fps, seed=config.seed)
    if t.drawn and windows.digest([row.content for row in rows]) != t.drawn:
        raise ValueError(f"{t.manifest} lists other recordings than when this cell was made; give the same command again")
    return windows, [make_task(name, windows, config.clip_frames, t.gap_s, config.seed) for name in t.probes]


def ways_to_look(config: TemporalConfig, clips: ShownClips, ranks: Ranks) -> dict[str, Seen]:
    """How clips are looked at: pixels, the encoder and random weights. Collective; rank 0 first: it writes what they are."""
    untrained = replace(config, train=replace(config.train, init="", init_content="", init_name="scratch", inflated="no"))
    models = {name: cache(partial(frozen_encoder, of, ranks)) for name, of in ((MODEL, config), (RANDOM, untrained))}
    spec, random = (replace(feature_spec(of), view=VIEW) for of in (config, untrained))
    frames = config.model.num_frames
    store = _store(config, spec, ranks)
    ways = {PIXELS: seen_pixels(_store(config, pixel_spec(spec, config.clip_frames), ranks), clips),
            STILL: seen_still(store, clips, models[MODEL], frames)}
    if frames > 1:
        ways[MODEL] = seen_whole(store, clips, models[MODEL])
    if config.train.init:  # else these are random weights already
        blank = _store(config, random, ranks)
        ways[RANDOM] = (seen_whole(blank, clips, models[RANDOM]) if frames > 1
                        else seen_still(blank, clips, models[RANDOM], frames))
    return ways


def _store(config: TemporalConfig, spec: FeatureSpec, ranks: Ranks) -> FeatureStore:
    if not config.probe.features:
        raise ValueError("probe.features is empty; it is the folder for frozen features (--set probe.features=FOLDER)")
    make = partial(FeatureStore, Path(config.probe.features), spec, partial(say, ranks))
    store = make() if ranks.is_main else None
    ranks.barrier()
    return make() if store is None else store


def judged(task: TimeTask, windows: Windows, clips: ShownClips, ways: Mapping[str, Seen], config: TemporalConfig,
           oracle: Answers) -> dict[str, Any]:
    """A probe as result.json has it: what each kind of feature reaches, and the model minus each control."""
    kinds = kinds_of(task, clips, ways, config.model.num_frames)
    said = {ORACLE: oracle, PIXELS: answer(task, kinds[PIXELS](), windows.part)}
    check_fails(task, said[PIXELS])  # before any model is judged
    said |= {kind: answer(task, read(), windows.part) for kind, read in kinds.items() if kind not in said}
    part = windows.part[task.recording]
    recording = task.recording[part == TEST]
    model = said[MODEL].right.astype(float)
    return {
        "probe": task.name, "classes": list(task.classes), "chance_pct": task.chance_pct,
        "recordings": [len(np.unique(task.recording[part == each])) for each in (TRAIN, SELECT, TEST)],
        "clips": [int((part == each).sum()) for each in (TRAIN, SELECT, TEST)],
        "features": {kind: {**_interval(found.right.astype(float), np.zeros(len(model)), recording, "pct"),
                            "penalty": found.penalty} for kind, found in said.items()},
        "apart": {kind: _interval(model, said[kind].right.astype(float), recording, "points") for kind in COMPARED
                  if kind in said}}


def _interval(one: np.ndarray, other: np.ndarray, recording: np.ndarray, name: str) -> dict[str, float | None]:
    """Mean over recordings in percent, and its 95 % interval; None where recordings are too few for one."""
    found = paired_difference(100 * one, 100 * other, recording)
    low, high = (None if math.isnan(end) else end for end in (found.low, found.high))
    return {name: found.mean, "low": low, "high": high}


def write_found(run: RunFolder, config: TemporalConfig, windows: Windows, probes: Sequence[Mapping[str, Any]],
                how: Mapping[str, Any]) -> None:
    """Write result.json; rank 0 alone."""
    identity = read_json(run.record) or {}
    write_json(run.result, {
        "schema": SCHEMA, "kind": KIND, "name": config.name, "cell": identity.get("cell") or {},
        "set": config.temporal.set_name, "probes": list(probes), "windows": len(windows),
        "recordings": len(windows.part), "left_out": dict(windows.left_out), "num_frames": config.model.num_frames,
        "clip_frames": config.clip_frames, "sampling_rate": config.data.sampling_rate, "target_fps": config.data.target_fps,
        "pool": config.model.pool, "precision": config.train.precision, "commit": identity.get("commit"),
        "dirty": identity.get("dirty"), "job_id": job_id(), "finished": time.time(), **how})
    touch_heartbeat(run, state="done", step=1, total_steps=1)


def _size(task: TimeTask) -> str:
    return f"{task.name} {len(task.label)} clips"
