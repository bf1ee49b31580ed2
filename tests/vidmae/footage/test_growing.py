"""Prepared footage that grows with its manifest: what is there stays, what is new is added, and recordings are known again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jobs import prepare as prepare_command
from tests.support import videos
from tests.support.facilities import need
from tests.support.labelled import in_this_process
from tests.vidmae.footage.test_archives import frames_of
from vidmae.footage.known.withdrawn import read_versions
from vidmae.footage.manifest import Check, Manifest, find_sources, read_all, read_summary
from vidmae.footage.manifest_build import build
from vidmae.labels.splits import check_apart, read_labelled
from vidmae.preparing import prepare_shard
from vidmae.preparing.archive_parts import record_path
from vidmae.preparing.preparation import Preparation, PrepareError
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepared_folder import Order, reopen
from vidmae.settings.layers import to_yaml
from vidmae.settings.programs.prepare_config import PrepareConfig

HOW = Preparation(fps=3.75, short_side_px=48)


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with in_this_process():
        yield


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Five recordings of two classes."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("recordings")
    for name, fps in (("a", 30), ("b", 15), ("c", 12), ("d", 10), ("e", 9)):
        videos.h264(folder / f"{name}.mp4", size="96x64", fps=fps, seconds=2)
    return folder


def manifest_of(recordings: Path, names: str, out: Path) -> Path:
    (out.parent / "list.txt").write_text("".join(f"{recordings / name}.mp4 {'one' if name in 'ace' else 'two'}\n" for name in names))
    build(find_sources(out.parent / "list.txt"), out, Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    return out


def fill(source: Path, folder: Path, how: Preparation = HOW, **options):
    order = Order(source, how, folder / "data", folder / "s-48.csv", 0.0001)  # an archive for each recording
    return prepare(order, workers=1, time_limit_s=60, tell=lambda *_: None, **options)


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("data/frames-*")}


def test_new_recordings_get_archives_of_their_own(recordings, tmp_path):
    source, now = tmp_path / "s.csv", tmp_path / "s-48.csv"
    fill(manifest_of(recordings, "bd", source), tmp_path)
    before, first = state_of(tmp_path), read_summary(now)
    summary, report = fill(manifest_of(recordings, "abcd", source), tmp_path)
    assert summary.videos == 4 and (report.recordings, report.done_before) == (4, 2)
    after = state_of(tmp_path)
    assert {name: after[name] for name in before} == before and len(after) == 2 * len(before)
    (version,) = read_versions(now)
    assert (version.before_content_sha256, version.after_content_sha256) == (first.content_sha256, summary.content_sha256)
    assert version.withdrawn == 0 and "2 new recordings" in version.reason
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    fill(source, fresh)
    grown, alone = Manifest.read(now), Manifest.read(fresh / "s-48.csv")
    assert grown.summary.content_sha256 == alone.summary.content_sha256, "the same rows in the same order"
    assert all(np.array_equal(frames_of(grown, row), frames_of(alone, row)) for row in range(4))
    _, again = fill(source, tmp_path)
    assert again.done_before == 4 and state_of(tmp_path) == after and len(read_versions(now)) == 1
    back, _ = fill(manifest_of(recordings, "bd", source), tmp_path)
    assert back.content_sha256 == first.content_sha256 and state_of(tmp_path) == after, "an earlier manifest needs no new archive"


def test_shards_agree_about_what_is_new(recordings, tmp_path):
    """As jobs of an array do: the program itself, the later shard first."""
    source, out = tmp_path / "s.csv", tmp_path / "data"
    fill(manifest_of(recordings, "b", source), tmp_path)
    manifest_of(recordings, "abcd", source)
    config = PrepareConfig(str(source), read_summary(source).content_sha256, str(tmp_path / "s-48.csv"), short_side_px=48, archive_mib=0.0001, workers=1)
    (out / "config.yaml").write_text(to_yaml(config))
    for shard in (1, 0):
        assert prepare_shard.main([str(out), "--shard", f"{shard}/2"]) == 0
    assert len(Manifest.read(tmp_path / "s-48.csv")) == 4 and (out / "result.json").exists()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert fill(source, fresh)[0].content_sha256 == read_summary(tmp_path / "s-48.csv").content_sha256


@pytest.mark.parametrize(("known", "stays"), [("the same", True), ("another", False), (None, False)])
def test_the_result_of_an_earlier_array_stays_for_the_same_manifest_alone(recordings, tmp_path, known, stays):
    """One of an earlier version does not say of which manifest it is."""
    source = manifest_of(recordings, "b", tmp_path / "s.csv")
    fill(source, tmp_path)
    content = read_summary(source).content_sha256 if known == "the same" else known
    result = tmp_path / "data/result.json"
    result.write_text(json.dumps({} if content is None else {"of_content_sha256": content}))
    reopen(Order(source, HOW, tmp_path / "data", tmp_path / "s-48.csv", 0.0001))
    assert result.exists() == stays


def test_other_footage_does_not_grow_into_a_folder(recordings, tmp_path):
    source = tmp_path / "s.csv"
    fill(manifest_of(recordings, "ab", source), tmp_path)
    with pytest.raises(PrepareError, match=r"of_content_sha256 .*--out"):
        fill(manifest_of(recordings, "cd", source), tmp_path)
    with pytest.raises(PrepareError, match=r"short_side_px 48, now 32.*--out"):
        fill(manifest_of(recordings, "abc", source), tmp_path, Preparation(short_side_px=32))


def test_a_record_that_somebody_removed_is_made_anew(recordings, tmp_path):
    source = tmp_path / "s.csv"
    fill(manifest_of(recordings, "ab", source), tmp_path)
    fill(manifest_of(recordings, "abc", source), tmp_path)
    gone = tmp_path / "data/frames-00000.tar"
    record_path(gone).unlink()
    summary, report = fill(source, tmp_path)
    assert summary.videos == 3 and report.done_before == 2
    manifest = Manifest.read(tmp_path / "s-48.csv")
    assert all(len(frames_of(manifest, row)) for row in range(3))


def test_prepared_and_raw_footage_of_one_recording_are_known_as_one(recordings, tmp_path, monkeypatch, capsys):
    """By name on the command line; footage that was prepared in two ways, too."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "manifests"
    folder.mkdir()
    manifest_of(recordings, "abde", folder / "raw.csv")
    manifest_of(recordings, "bc", folder / "val.csv")
    for name, how in (("small", HOW), ("large", Preparation(short_side_px=64))):
        (tmp_path / name).mkdir()
        for of in ("raw", "val"):
            order = Order(folder / f"{of}.csv", how, tmp_path / f"{of}-{name}", folder / f"{of}-{name}.csv")
            prepare(order, workers=1, time_limit_s=60, tell=lambda *_: None)
    rows = read_all(folder / "raw-small.csv")[1]
    assert [row.source for row in rows] == [row.content for row in read_all(folder / "raw.csv")[1]]
    for train, val in (("raw-small", "val"), ("raw", "val-small"), ("raw-small", "val-large")):
        assert prepare_command.main(["check", train, val]) == 2
        said = capsys.readouterr().err
        assert "1 of 2 recordings" in said and "rows 1 of the first" in said
    manifest_of(recordings, "c", folder / "apart.csv")
    shutil.copy(folder / "apart.csv", folder / "x.csv")
    with pytest.raises(ValueError, match="classes"):
        check_apart(read_labelled(folder / "raw-small.csv"), read_labelled(folder / "apart.csv"))
    assert json.loads((folder / "raw-small.json").read_text())["prepared"]["of"] == "raw"


@pytest.mark.parametrize(("first", "quality"), [((), 80), (("--quality", "90"), 90)])
def test_archives_keep_their_quality(recordings, tmp_path, monkeypatch, first, quality):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "manifests").mkdir()
    manifest_of(recordings, "a", tmp_path / "manifests/s.csv")
    monkeypatch.setattr("jobs.submit.prepare_footage.record_clip_cost", lambda path, summary, known: summary)
    for flags in (first, ()):
        assert prepare_command.main(["footage", "s", "--short-side", "48", "--cluster", "local", "--workers", "1", *flags]) == 0
        assert json.loads((tmp_path / "prepared/s-48/prepared.json").read_text())["quality"] == quality
