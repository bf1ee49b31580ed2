"""Temporal probes of a small encoder on real footage: by hand, twice the same, stopped and continued, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support import videos
from tests.support.facilities import demo_clips, need
from tests.support.ranks import run_ranks
from tests.support.runs import CELL
from vidmae.clips.transforms import crop_resize
from vidmae.clips.views import ViewSpec, view_box
from vidmae.evaluate.temporal import shown_features
from vidmae.evaluate.temporal.shown_features import chunks_of, measures, shown_clips
from vidmae.evaluate.temporal.time_answers import COMPARED, MODEL, PIXELS, RANDOM, STILL, kinds_of
from vidmae.footage.manifest import Check, Manifest, Source, content_hash, read_all, read_summary
from vidmae.footage.manifest_build import build as build_manifest
from vidmae.footage.open_video import open_video
from vidmae.model.weights import save_safetensors
from vidmae.ranks.dist import Ranks
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.layers import build, load, parse_set, to_yaml
from vidmae.settings.programs.temporal_config import TemporalConfig
from vidmae.train.build import build_classifier_for
from vidmae.train.cell import main
from vidmae.train.temporal_cell import asked, ways_to_look

PLAIN = ["temporal.probes=[halves-apart,speed,first]", "temporal.gap_s=[0,300]", "temporal.per_recording=4", "evaluate.batch=8", "method=linear"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six recordings of 2.4 s, and two that are too short."""
    need("clips")
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("recordings")
    for name in ("bigbuckbunny", "bikes"):
        source = next(p for p in demo_clips() if p.stem == name)
        videos.ffmpeg("-i", source, "-an", "-vf", "scale=-2:36", *videos.X264, "-preset", "ultrafast", "-force_key_frames",
                      "expr:gte(t,n_forced*2.4)", "-f", "segment", "-segment_time", "2.4", "-reset_timestamps", "1", folder / f"{name}-%d.mp4")
    build_manifest([Source(str(clip), "") for clip in sorted(folder.iterdir())], folder / "m.csv", Check("decord", False), workers=1,
                   time_limit_s=120, progress=lambda *_: None)
    return folder / "m.csv"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder that was drawn, from another seed than that of the control."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    config = build(TemporalConfig, parse_set([*CELL, *PLAIN, "seed=7"]))[0]
    save_safetensors(build_classifier_for(config, None, start=False).state_dict(), path, {})
    return path


def make(path: Path, manifest: Path, weights: Path | None, *settings: str) -> RunFolder:
    """A cell that has not run yet."""
    run = RunFolder(make_private_folder(path))
    init = [f"train.init={weights}", f"train.init_content={content_hash(weights)}", "train.init_name=tiny"] if weights else []
    config = build(TemporalConfig, parse_set([*CELL, *PLAIN, f"temporal.manifest={manifest}", "temporal.set_name=toys",
                                              f"probe.features={path.parent / 'features'}", *init, *settings]))[0]
    run.config.write_text(to_yaml(config))
    write_json(run.record, {"schema": 1, "kind": "temporal", "name": "time", "signature": "89ab0000", "submissions": [],
                            "content_sha256": read_summary(manifest).content_sha256, "cell": {"checkpoint": "tiny", "seed": 0}})
    return run


OPENED: list[int] = []
"""The video of each chunk of clips that `found` reads; it is stopped after three."""


@pytest.fixture(scope="module")
def found(manifest: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A cell that was stopped and continued."""
    run, read = make(tmp_path_factory.mktemp("found") / "time-89ab0000", manifest, weights), shown_features.Reader.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shown_features.Reader, "read", lambda self, row, *more: (OPENED.append(row), read(self, row, *more))[1])
        patch.setattr(shown_features, "asked_to_stop", lambda _: len(OPENED) == 3)
        assert main(str(run.path)) == 75 and not run.result.exists() and len(OPENED) == 3
        patch.setattr(shown_features, "asked_to_stop", lambda _: False)
        assert main(str(run.path)) == 0
    return run


def probes(run: RunFolder) -> list[dict]:
    return (read_json(run.result) or {})["probes"]


def test_every_probe_is_shown_to_succeed_and_to_fail_beside_the_model(found: RunFolder) -> None:
    result = read_json(found.result) or {}
    assert [each["probe"] for each in result["probes"]] == ["halves-apart", "speed", "first"]
    assert (result["kind"], result["set"], result["num_frames"], result["recordings"]) == ("temporal", "toys", 4, 6) and result["left_out"] == {"too short": 2}
    for each in result["probes"]:
        features, chance = each["features"], each["chance_pct"]
        assert features["oracle"]["pct"] >= 99 and set(each["apart"]) == set(COMPARED) and each["recordings"] == [3, 1, 2]
        if each["probe"] == "halves-apart":
            assert features["pixels"]["pct"] == features["frames"]["pct"] == chance == 50, "exactly"
        for control in COMPARED:
            apart = features["model"]["pct"] - features[control]["pct"]
            assert each["apart"][control]["points"] == pytest.approx(apart) and each["apart"][control]["low"] is None, "of 2 recordings"


def test_features_are_those_of_the_frames_that_are_shown(found: RunFolder, manifest: Path) -> None:
    """By hand: decoded in full, cut, put in order, encoded one by one."""
    config, rows = load(TemporalConfig, found.config), Manifest.read(manifest)
    _, tasks = asked(config, read_all(manifest)[1])
    ranks = _Alone()
    clips = shown_clips(tasks, rows)
    ways = ways_to_look(config, clips, ranks)
    spec = ViewSpec(4, 1, 30.0, 32)
    models = {MODEL: build_classifier_for(config, None).eval(),
              RANDOM: build_classifier_for(replace(config, train=replace(config.train, init="", init_content="")), None).eval()}

    def clip(row: int, numbers: np.ndarray) -> np.ndarray:
        with open_video(rows.path(row), "decord") as video:
            frames = video.read(np.arange(video.num_frames))
        box, flip = view_box(spec, 0, content=0, height=frames.shape[1], width=frames.shape[2])
        return crop_resize(frames, numbers, box, 32, flip=flip).numpy()

    def encoded(model: str, shown: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return models[model](torch.from_numpy(shown)[None])[0].numpy()

    for task in tasks:
        x = {kind: read() for kind, read in kinds_of(task, clips, ways, 4).items()}
        for example in (0, 1, len(task.label) - 1):
            whole = [clip(int(row), shown) for row, shown in zip(task.row[example], task.shown[example], strict=True)]
            wanted = {
                MODEL: [encoded(MODEL, each) for each in whole], RANDOM: [encoded(RANDOM, each) for each in whole],
                STILL: [encoded(MODEL, np.repeat(each[2:3], 4, axis=0)) for each in whole],
                "frames": [np.mean([encoded(MODEL, np.repeat(each[i:i + 1], 4, axis=0)) for i in range(4)], axis=0) for each in whole],
                PIXELS: [each.reshape(-1, 3).mean(axis=0) for each in whole], "change": [measures(each)[3:] for each in whole]}
            for kind, values in wanted.items():
                one = values[0] if len(values) == 1 else values[0] - values[1]
                assert x[kind][example] == pytest.approx(one, abs=2e-4 if kind == PIXELS else 2e-5), (task.name, kind)
    assert not np.allclose(x[MODEL], x[RANDOM]), "other weights"


class _Alone(Ranks):
    """One rank that joins nobody."""

    def __init__(self) -> None:
        super().__init__(0, 1, 0, torch.device("cpu"))

    def barrier(self) -> None:
        """Nobody is waited for."""


def test_a_cell_that_was_stopped_reads_nothing_twice(found: RunFolder, manifest: Path) -> None:
    clips = shown_clips(asked(load(TemporalConfig, found.config), read_all(manifest)[1])[1], Manifest.read(manifest))
    assert [int(clips.row[chunk[0]]) for chunk in chunks_of(clips.row, np.arange(len(clips)))] == OPENED


@pytest.mark.slow
def test_two_ranks_that_nobody_stopped_find_the_same_and_an_image_model_sees_no_order(found: RunFolder, manifest: Path, weights: Path,
                                                                                      tmp_path: Path) -> None:
    ranks = make(tmp_path / "ranks" / "time-89ab0000", manifest, weights, "data.workers=1", "data.read_limit_s=60")
    assert run_ranks("tests.support.programs.cell", str(ranks.path), world_size=2) == [0, 0]
    assert probes(ranks) == probes(found) and (read_json(ranks.result) or {})["world_size"] == 2
    image = make(tmp_path / "image" / "time-89ab0000", manifest, None, "model.num_frames=1", "model.t_patch_size=1", "temporal.num_frames=4")
    assert main(str(image.path)) == 0
    for each in probes(image):
        assert set(each["features"]) == {"oracle", "pixels", "still", "change", "model"}
        if each["probe"] == "halves-apart":
            assert each["features"]["model"]["pct"] == 50, "it sees no order"


def test_what_cannot_be_asked_is_refused(manifest: Path, weights: Path, tmp_path: Path) -> None:
    run = make(tmp_path / "other-89ab0000", manifest, weights, "temporal.drawn=0123")
    assert main(str(run.path)) == 2 and "lists other recordings than when this cell was made" in (read_json(run.failure) or {})["message"]
    run = make(tmp_path / "far-89ab0000", manifest, weights, "temporal.gap_s=[100,300]")
    assert main(str(run.path)) == 2 and "of first there are 0, 0, 0 pairs" in (read_json(run.failure) or {})["message"]
