"""A sweep with --prepare: each clip is decoded once, before the cells; cells read the same clips, and say so."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs import prepare
from jobs.standing.runs import all_runs
from sweeps import fewshot
from tests.support import videos
from tests.support.facilities import need
from tests.support.labelled import in_this_process
from tests.support.launching import write_cell_profile
from tests.sweeps.test_fewshot import GRID
from tests.vidmae.footage.test_archives import frames_of
from vidmae.clips.view_cutting import ViewCutter
from vidmae.clips.views import ViewSpec
from vidmae.footage.archives import archive_reader
from vidmae.footage.manifest import Check, Manifest, ManifestError, find_sources, read_all
from vidmae.footage.manifest_build import build
from vidmae.labels.cell_data import check_files, read_cell_data
from vidmae.preparing.preparation import Preparation
from vidmae.runs.record import read_json
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import load


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """Two classes of four clips, and two for validation, of 9 frames a second: all of them are kept."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "manifests").mkdir()
    for name, seeds in (("toys", range(4)), ("toys-val", range(4, 6))):
        lines = []
        for label in ("up", "down"):
            for seed in seeds:
                clip = folder / f"{label}-{seed}.mp4"
                extra = ("-vf", f"rotate={seed / 10},{'vflip' if label == 'down' else 'null'}")
                videos.h264(clip, size="96x72", fps=9, seconds=2, extra=extra)
                lines.append(f"{clip} {label}\n")
        (folder / f"{name}.txt").write_text("".join(lines))
        with in_this_process():
            build(find_sources(folder / f"{name}.txt"), folder / f"manifests/{name}.csv", Check("pyav", False), workers=1, time_limit_s=60,
                  progress=lambda *_: None)
    return folder


@pytest.fixture(autouse=True)
def here(labelled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In that folder; clips are prepared in this process, which has no archive open."""
    monkeypatch.chdir(labelled)
    monkeypatch.setattr(archive_reader, "_open", OrderedDict())
    for name in ("VIDMAE_PROFILE", "VIDMAE_DATA"):
        monkeypatch.delenv(name, raising=False)
    with in_this_process():
        yield


def sweep(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> str:
    """As a user would, in this process; what it says."""
    found = fewshot.main([*GRID, "--seeds", "0", "--cluster", "local", "--profile", "cells.yaml", *args])
    said = capsys.readouterr().err
    assert found == code, said
    return said


def configs(folder: Path, part: str) -> dict[str, FinetuneConfig]:
    return {run.path.name: load(FinetuneConfig, run.config) for run in all_runs(folder / "runs") if part in run.path.name}


def test_each_clip_is_decoded_once_for_all_sweeps(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cell_profile(labelled)
    before = {path.name for path in labelled.iterdir()}
    assert "are prepared first" in sweep(capsys, "--shots", "1", "--prepare", "--dry-run")
    assert {path.name for path in labelled.iterdir()} == before
    first = sweep(capsys, "--shots", "1", "--prepare", "--wait")
    pool = labelled / "runs/clips/74px-15fps-q90"
    assert "6 clips are prepared there" in first and len(Manifest.read(pool / "clips.csv")) == 6, "2 of 8, and 4"
    archives = {path: path.read_bytes() for path in pool.glob("frames-*.tar")}
    second = sweep(capsys, "--shots", "1,2", "--prepare", "--wait")
    assert "8 clips are prepared there" in second and "6 were there before" in second
    assert {path: path.read_bytes() for path in archives} == archives, "a larger subset adds archives"
    again = sweep(capsys, "--shots", "2", "--prepare", "--method", "knn", "--wait")
    assert "are prepared already" in again
    raw = sweep(capsys, "--shots", "1", "--wait")
    assert "--prepare" not in raw, "so few clips are not worth a word"
    (name, of_pool), (raw_name, _) = sorted(configs(labelled, "1shot-").items(), key=lambda item: item[1].data.prepared == "")
    assert name != raw_name and (of_pool.data.prepared, of_pool.data.archives) == ("74px-15fps-q90", str(pool))
    records = [read_json(labelled / "runs" / each / "result.json")["cell"]["overrides"] for each in (name, raw_name)]
    assert records == [{"data.prepared": "74px-15fps-q90"}, {}], "tables tell them apart"


def test_cells_read_the_same_clips(labelled: Path) -> None:
    """Rows, labels and windows are those of the files, the pixels but for JPEG and the size."""
    configured = configs(labelled, "2shot-")
    config = next(each for each in configured.values() if each.data.prepared and each.method == "finetune")
    data = read_cell_data(config)
    check_files(config, data)
    files = read_cell_data(FinetuneConfig(data=type(config.data)(**{**config.data.__dict__, "archives": "", "prepared": ""}), seed=config.seed))
    for mine, theirs in zip((data.train, data.val), (files.train, files.val), strict=True):
        assert np.array_equal(mine.source, theirs.content) and np.array_equal(mine.class_index, theirs.class_index)
        assert mine.decoders == ("archive",) and np.array_equal(mine.frames, theirs.frames)
        spec = ViewSpec(8, 2, 9.0, 64, views="random", seed=3)
        for row in range(len(mine)):
            clips = np.empty((2, 1, *spec.shape), np.uint8)
            for clip, manifest in zip(clips, (mine, theirs), strict=True):
                ViewCutter(manifest, spec).cut(row, [0], clip)
            assert np.abs(clips[0].astype(int) - clips[1]).mean() < 12, "the same window and square of a test picture"
            assert len(frames_of(mine, row)) == theirs.frames[row]
    archive_reader._open.clear()
    gone = next(Path(config.data.archives).glob("frames-*.npy"))
    gone.rename(gone.with_suffix(".away"))
    try:
        with pytest.raises(ManifestError, match="not in the archives"):
            check_files(config, data)
    finally:
        gone.with_suffix(".away").rename(gone)


def test_clips_that_nobody_prepared_are_an_error(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = next(each for each in configs(labelled, "1shot-").values() if each.data.prepared)
    whole = type(config.data)(**{**config.data.__dict__, "subset": ""})
    with pytest.raises(ManifestError, match=r"4 of 8 clips are not in .*74px"):
        read_cell_data(FinetuneConfig(data=whole, seed=0))
    assert "--prepare decides it" in sweep(capsys, "--shots", "1", "--set", "data.prepared=x", code=2)


def test_clusters_read_the_clips_that_they_are_tested_on_alone(labelled: Path) -> None:
    """Those to learn from are not prepared for them."""
    config = next(each for each in configs(labelled, "1shot-").values() if each.data.prepared)
    whole = type(config.data)(**{**config.data.__dict__, "subset": "", "shots": 0})
    data = read_cell_data(FinetuneConfig(method="cluster", data=whole, seed=0))
    assert (len(data.train), len(data.held_out), len(data.val), len(data.classes)) == (0, 0, 4, 2)
    check_files(FinetuneConfig(method="cluster", data=whole, seed=0), data)


def test_windows_may_begin_at_four_places_and_the_crop_has_room() -> None:
    assert Preparation.for_clips(224, 3.75) == Preparation(15.0, 256, 90)
    assert Preparation.for_clips(448, 3.75).short_side_px == 512 and Preparation.for_clips(224, 7.5, 480).name == "480px-30fps-q90"


def test_footage_that_is_prepared_needs_it_not(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = labelled / "manifests/toys-val-74-15fps.csv"
    earlier.touch()
    for name in ("toys", "toys-val"):
        assert prepare.main(["footage", name, "--fps", "15", "--short-side", "74"]) == 0
        assert ("--name toys-val-74-15fps goes on with it" in capsys.readouterr().err) == (name == "toys-val")
    earlier.unlink()
    assert (labelled / "manifests/toys-74-15fps-val.csv").exists(), "a sweep finds NAME-val"
    said = sweep(capsys, "--shots", "1", "--data", "toys-74-15fps", "--prepare", "--dry-run", code=2)
    assert "prepared footage already" in said
    sweep(capsys, "--shots", "1", "--data", "toys-74-15fps", "--wait")
    drawn, other = ({content for clips in read_json(labelled / f"manifests/{name}.shots1-seed0.json")["contents"].values() for content in clips}
                    for name in ("toys", "toys-74-15fps"))
    assert drawn == other, "the same clips are drawn of footage that is prepared"
    config = next(each for each in configs(labelled, "toys-74").values())
    check_files(config, read_cell_data(config))
    assert {row.decoder for row in read_all(labelled / "manifests/toys-74-15fps.csv")[1]} == {"archive"}


def test_what_is_withdrawn_leaves_the_clips_of_sweeps(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = labelled / "runs/clips/74px-15fps-q90/clips.csv"
    prepared = set(Manifest.read(pool).source.tolist())
    gone = next(row for row in read_all(labelled / "manifests/toys.csv")[1] if int(row.content, 16) in prepared)
    (labelled / "gone.txt").write_text(f"{Path(gone.path).name}\n")
    assert prepare.main(["withdraw", "toys", "--files", "gone.txt", "--archives"]) == 0
    said = capsys.readouterr().err
    assert "prepared footage clips: 1 rows and 1 recordings taken out" in said and "(data.stage) still hold them" in said, said
    assert set(Manifest.read(pool).source.tolist()) == prepared - {int(gone.content, 16)}
