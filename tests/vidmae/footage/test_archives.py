"""Prepared footage: right frames by time, the same bytes whatever happened on the way, and damage that costs its clips alone."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support import videos
from tests.support.facilities import demo_clips, need
from tests.support.launching import ROOT, cli
from tests.vidmae.clips.test_loader import SPEC, batches, joined
from vidmae.clips.loader import make_loader
from vidmae.footage.archives import archive_reader
from vidmae.footage.archives.archive_layout import ENTRY, index_path, split_row_path
from vidmae.footage.killable import KillableProcess
from vidmae.footage.known.unreadable import unreadable_path
from vidmae.footage.manifest import Check, Manifest, find_sources, read_all, read_summary
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import DecodeError, frames_in_order, open_video, scan_packets, some_in_order
from vidmae.preparing import prepare_shard
from vidmae.preparing.preparation import Preparation, PrepareError
from vidmae.preparing.prepare_archives import prepare
from vidmae.preparing.prepare_chunks import prepare_chunks
from vidmae.preparing.prepared_folder import Order
from vidmae.preparing.take_out import take_out
from vidmae.settings.layers import to_yaml
from vidmae.settings.programs.prepare_config import PrepareConfig

HOW = Preparation(fps=3.75, short_side_px=64, quality=90)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The manifest of six labelled videos of other rates and sizes: one upright, one of fewer frames a second than are kept."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("secret")
    for name, make in {"a": videos.h264, "b": videos.short_gop, "c": videos.rotated, "e": videos.open_gop}.items():
        make(folder / f"secret-{name}.mp4")
    videos.vp9(folder / "secret-d.webm")
    videos.h264(folder / "secret-f.mp4", fps=3, seconds=5)
    (folder / "list.txt").write_text("".join(f"{path.name} {path.stem[-1]}-class\n" for path in sorted(folder.glob("s*"))))
    out = folder / "out" / "s.csv"
    build(find_sources(folder / "list.txt"), out, Check("pyav", False), workers=2, time_limit_s=60, progress=lambda *_: None)
    assert read_summary(out).videos == 6
    return out


def prepared(source: Path, folder: Path, how: Preparation = HOW, *, archive_mib: float = 0.05, workers: int = 1, **options):
    """Prepare into `folder`: the manifest and the report."""
    manifest = folder / "manifests" / "s-64.csv"
    _, report = prepare(Order(source, how, folder / "data", manifest, archive_mib), workers=workers, time_limit_s=60,
                        tell=lambda *_: None, **options)
    return manifest, report


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    return prepared(source, tmp_path_factory.mktemp("whole"), workers=2)


def files_of(folder: Path) -> dict[str, bytes]:
    """What must not depend on how it came about: all but what was asked for, and when."""
    files = sorted(path for path in (folder / "data").iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files if path.name not in ("config.yaml", "result.json")}


def frames_of(manifest: Manifest, row: int) -> np.ndarray:
    with open_video(manifest.path(row), manifest.decoder(row)) as video:
        return video.read(range(video.num_frames))


def test_rows_are_those_of_the_source_in_its_order(source, whole):
    (summary, old), (new_summary, new) = read_all(source), read_all(whole[0])
    assert [row.label for row in new] == [row.label for row in old] and new_summary.classes == 6
    for before, after in zip(old, new, strict=True):
        assert (after.decoder, after.codec) == ("archive", "mjpeg")
        assert after.fps == min(before.fps, 3.75) and abs(after.seconds - before.seconds) < 1 / after.fps
        assert min(after.height, after.width) == min(64, before.height, before.width)
        assert after.content != before.content and "secret" not in after.path
    assert len({row.content for row in new}) == 6
    assert new_summary.prepared["of_content_sha256"] == summary.content_sha256
    assert new_summary.prepared["fps"] == 3.75 and new_summary.prepared["short_side_px"] == 64
    assert len(list(whole[0].parents[1].glob("data/*.tar"))) > 1
    assert whole[1].recordings == 6 and not whole[1].lost and whole[1].psnr_db > 20  # a test picture of single bright pixels


def test_the_tar_files_are_plain_and_hold_no_name(whole):
    """Python's tarfile and Pillow see the very pixels that the reader gives, and nobody's name."""
    manifest = Manifest.read(whole[0])
    for row in range(len(manifest)):
        archive, key = split_row_path(manifest.path(row))
        mine = frames_of(manifest, row)
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if member.name.startswith(f"{key:016x}/")]
            assert [member.name for member in members] == [f"{key:016x}/{i:06d}.jpg" for i in range(len(mine))]
            assert all((m.uid, m.gid, m.uname, m.gname, m.mtime) == (0, 0, "", "", 0) for m in members)
            theirs = [np.asarray(Image.open(io.BytesIO(tar.extractfile(member).read()))) for member in members]
        assert np.array_equal(mine, np.stack(theirs))
    assert not any(b"secret" in data for data in files_of(whole[0].parents[1]).values())


def test_frames_are_those_that_are_shown_at_their_time(source, whole):
    """Against ffmpeg's own decode: frame k is shown at (phase + k) / fps; one phase for each recording."""
    (_, old), manifest = read_all(source), Manifest.read(whole[0])
    phases = []
    for row, before in enumerate(old):
        reference = videos.reference_frames(Path(before.path), before.width, before.height)
        archive, key = split_row_path(manifest.path(row))
        entries = np.load(index_path(archive))
        assert entries.dtype == ENTRY
        numbers = entries[entries["key"] == key]["source"].astype(int)
        if before.fps <= 3.75:
            assert numbers.tolist() == list(range(before.frames))
        else:
            times = (numbers - numbers[0]) / before.fps
            assert np.abs(times - np.arange(len(numbers)) / 3.75).max() < 1 / before.fps + 1e-6
            assert numbers[0] < before.fps / 3.75 and numbers[-1] >= before.frames - before.fps / 3.75 - 1
            phases.append(numbers[0])
        for mine, number in zip(frames_of(manifest, row), numbers, strict=True):
            height, width = mine.shape[:2]
            right = np.asarray(Image.fromarray(reference[number]).resize((width, height), Image.Resampling.BOX))
            assert np.abs(mine.astype(int) - right).mean() < 15, (before.path, number)
            others = [near for near in (number - 1, number + 1) if 0 <= near < len(reference)]
            worse = [np.abs(mine.astype(int) - np.asarray(Image.fromarray(reference[near]).resize(
                (width, height), Image.Resampling.BOX))).mean() for near in others]
            assert min(worse) > np.abs(mine.astype(int) - right).mean(), (before.path, number)
    assert len(set(phases)) > 1


@pytest.mark.parametrize("make", [videos.h264, videos.open_gop, videos.hevc, videos.vfr, videos.b_frames_avi, videos.vp9])
def test_what_nobody_needs_may_be_left_out(make, tmp_path):
    """Frames that come with others skipped are those that come when everything is decoded."""
    need("ffmpeg")
    path = make(tmp_path / f"x.{'avi' if 'avi' in make.__name__ else 'webm' if make is videos.vp9 else 'mp4'}")
    packets, _ = scan_packets(path)
    everything = [shown() for shown in frames_in_order(path)]
    wanted = np.arange(3, len(everything), 7)
    some = {number: shown() for number, shown in some_in_order(path, packets, wanted)}
    assert list(some) == wanted.tolist()
    assert all(np.array_equal(picture, everything[number]) for number, picture in some.items())


def test_the_same_call_again_does_nothing_and_another_gives_the_same_bytes(source, whole, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in whole[0].parents[1].glob("data/*")}
    manifest, report = prepared(source, whole[0].parents[1])
    assert report.done_before == 6 and not report.cpu_s
    assert {path: path.stat().st_mtime_ns for path in manifest.parents[1].glob("data/*")} == before
    prepared(source, tmp_path, workers=1)
    assert files_of(tmp_path) == files_of(whole[0].parents[1])


def test_shards_do_their_archives_and_the_last_one_writes_the_manifest(source, whole, tmp_path):
    """As jobs of an array do: the program itself."""
    manifest, out = tmp_path / "s-64.csv", tmp_path / "data"
    config = PrepareConfig(str(source), "", str(manifest), short_side_px=64, archive_mib=0.05, workers=1)
    out.mkdir()
    (out / "config.yaml").write_text(to_yaml(config))
    for shard in (1, 0):
        assert prepare_shard.main([str(out), "--shard", f"{shard}/2"]) == 0
        assert manifest.exists() == (out / "result.json").exists() == (shard == 0)
    assert files_of(tmp_path) == files_of(whole[0].parents[1])
    assert json.loads((out / "result.json").read_text())["recordings"] == 6


def test_other_settings_or_footage_are_refused(source, whole):
    with pytest.raises(PrepareError, match=r"short_side_px 64, now 48.*--out"):
        prepared(source, whole[0].parents[1], Preparation(short_side_px=48))


@pytest.mark.parametrize("wrong, said", [
    ({"fps": 0}, "--fps 0"), ({"fps": float("nan")}, "--fps nan"), ({"short_side_px": 8}, "--short-side 8"),
    ({"quality": 0}, "--quality 0"), ({"seed": -1}, "--seed -1")])
def test_settings_out_of_range_are_refused(wrong, said):
    with pytest.raises(PrepareError, match=said):
        Preparation(**wrong)


def test_a_call_that_is_killed_goes_on_and_gives_the_same_bytes(source, whole, tmp_path):
    manifests = tmp_path / "manifests"
    command = [sys.executable, str(ROOT / "jobs/prepare.py"), "footage", str(source), "--short-side", "64", "--archive-mib", "0.05",
               "--workers", "1", "--quality", "90", "--out", str(tmp_path / "data")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("data/**/*.json"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not manifests.exists()
    (tmp_path / "data/parts").mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{manifests / 's-64.csv'}\n" and "secret" not in done.stderr
    assert "were there" in done.stderr and "PSNR" in done.stderr
    assert files_of(tmp_path) == files_of(whole[0].parents[1])


def test_a_recording_that_cannot_be_decoded_costs_itself(source, tmp_path):
    _, rows = read_all(source)
    broken = Path(rows[0].path)
    data = broken.read_bytes()
    try:
        broken.write_bytes(data[:len(data) // 2])
        manifest, report = prepared(source, tmp_path)
    finally:
        broken.write_bytes(data)
    assert len(Manifest.read(manifest)) == 5 and sum(report.lost.values()) == 1
    assert report.lost_s == rows[0].seconds and "secret" not in str(report.lost)
    assert str(broken) in unreadable_path(manifest).read_text()


def test_training_reads_archives_in_the_loader_itself(whole, monkeypatch):
    """No process beside the loader's; the same clips as by Pillow; and those of the raw file, nearly."""
    monkeypatch.setattr(KillableProcess, "__call__", lambda *_: pytest.fail("a process was asked"))
    manifest = Manifest.read(whole[0])
    batch = joined(batches(manifest))
    assert batch.clips.shape == (12, 16, 32, 32, 3) and not batch.substituted
    rechecked = [found for b in make_loader(manifest, SPEC, seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0, world_size=1,
                                            start_step=0, stop_step=3, workers=0, read_limit_s=60, read_retries=1, recheck_pct=100)
                 for found in b.rechecked]
    assert len(rechecked) == 12 and all(found.problem is None for found in rechecked)


def test_clips_are_nearly_those_of_the_raw_footage(source, tmp_path):
    """All frames kept at their size: the same windows and crops, so the same pixels but for JPEG."""
    manifest, _ = prepared(source, tmp_path, Preparation(fps=60, short_side_px=256, quality=95))
    raw, kept = (joined(batches(Manifest.read(path))) for path in (source, manifest))
    assert torch.equal(raw.rows, kept.rows) and torch.equal(raw.noise, kept.noise)
    assert (raw.clips.int() - kept.clips.int()).abs().float().mean() < 3


def _damage(archive: Path, damage: str) -> None:
    if damage == "missing":
        archive.unlink()
    elif damage == "cut":
        os.truncate(archive, 1000)
    elif damage == "bits":
        archive.write_bytes(bytes(byte ^ 4 for byte in archive.read_bytes()))
    elif damage == "no index":
        index_path(archive).unlink()
    else:
        index_path(archive).write_text("hello")


@pytest.mark.parametrize("damage", ["missing", "cut", "bits", "no index", "text for an index"])
def test_damage_costs_the_clips_of_its_recordings(whole, damage, monkeypatch):
    manifest = Manifest.read(whole[0])
    archive, _ = split_row_path(manifest.path(0))
    monkeypatch.setattr(archive_reader, "_open", OrderedDict())  # as a process that begins now
    there = archive.read_bytes(), index_path(archive).read_bytes()
    try:
        _damage(archive, damage)
        found = batches(manifest, stop=6)
    finally:
        archive.write_bytes(there[0])
        index_path(archive).write_bytes(there[1])
    rows = {row for row in range(6) if split_row_path(manifest.path(row))[0] == archive}
    gone = [substitution for batch in found for substitution in batch.substituted]
    assert {s.row for s in gone} == rows and all("archive" in s.reason and str(archive.parent) not in s.reason for s in gone)
    assert not {int(row) for b in found for row in b.rows} & rows


def test_frames_out_of_range_and_other_keys_are_errors(whole):
    manifest = Manifest.read(whole[0])
    with open_video(manifest.path(0), "archive") as video, pytest.raises(DecodeError, match="asked"):
        video.read([video.num_frames])
    for path in (manifest.path(0)[:-16] + "0" * 16, "nothing.tar", manifest.path(0) + "x"):
        with pytest.raises(DecodeError):
            open_video(path, "archive")


def test_what_is_withdrawn_is_in_no_archive_any_more(source, tmp_path):
    path, _ = prepared(source, tmp_path, archive_mib=1000)
    manifest, (summary, rows) = Manifest.read(path), read_all(path)
    before = {row.content: frames_of(manifest, i) for i, row in enumerate(rows)}
    gone = read_all(source)[1][2]
    key = HOW.key_of(gone.content)
    archive = split_row_path(rows[0].path)[0]
    assert take_out(path, {gone.content, "0" * 16}) == (1, 1) and take_out(path, {gone.content}) == (0, 0)
    archive_reader._open.clear()
    after, (new_summary, left) = Manifest.read(path), read_all(path)
    assert len(after) == len(rows) - 1 and new_summary.prepared == summary.prepared
    for i, row in enumerate(left):
        assert np.array_equal(frames_of(after, i), before[row.content])
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert names and not [name for name in names if name.startswith(f"{key:016x}")]
        assert all(Image.open(tar.extractfile(name)).size for name in names)
    assert json.loads(archive.with_suffix(".json").read_text())["lost"] == {f"{key:016x}": "withdrawn"}
    with pytest.raises(DecodeError, match="does not hold it"):
        open_video(f"{archive}#{key:016x}", "archive")
    contents = [row.content for row in read_all(source)[1]]
    with pytest.raises(PrepareError, match=r"all 5 recordings of .* would be taken out"):
        take_out(path, contents)


def test_an_archive_of_which_nothing_is_left_goes(source, tmp_path):
    path, _ = prepared(source, tmp_path, archive_mib=0.0001)  # one recording each
    gone = read_all(source)[1][0]
    archive = split_row_path(read_all(path)[1][0].path)[0]
    take_out(path, {gone.content})
    assert not archive.exists() and not index_path(archive).exists() and len(Manifest.read(path)) == 5


def test_withdrawing_by_command_reaches_prepared_footage(source, tmp_path):
    folder = tmp_path / "manifests"
    shutil.copytree(source.parent, folder)
    prepare(Order(folder / "s.csv", HOW, tmp_path / "data", folder / "s-64.csv", 1000), workers=1, time_limit_s=60, tell=lambda *_: None)
    (tmp_path / "list.txt").write_text("secret-a.mp4\n")
    first = cli("prepare.py", "withdraw", "s", "--files", "list.txt", cwd=tmp_path)
    assert "s-64.csv; take them out of it: python jobs/prepare.py withdraw s --archives" in first.stderr, first.stderr
    assert len(Manifest.read(folder / "s-64.csv")) == 6
    second = cli("prepare.py", "withdraw", "s", "--archives", cwd=tmp_path)
    assert second.returncode == 0 and "prepared footage s-64: 1 rows and 1 recordings taken out" in second.stderr, second.stderr
    assert len(Manifest.read(folder / "s-64.csv")) == 5 and "secret" not in first.stderr + second.stderr


def test_copies_are_prepared_once(source, tmp_path):
    """Rows with the same content share their frames and keep their labels."""
    _, rows = read_all(source)
    folder = tmp_path / "double"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.mp4").write_bytes(Path(rows[0].path).read_bytes())
    out = tmp_path / "double.csv"
    build(find_sources(folder), out, Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    manifest, report = prepared(out, tmp_path)
    assert report.recordings == 1 and [row.path for row in read_all(manifest)[1]] == [Manifest.read(manifest).path(0)] * 2


def test_real_clips_keep_their_quality(tmp_path):
    need("clips")
    out = tmp_path / "clips.csv"
    build(find_sources(demo_clips()[1]), out, Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    manifest, report = prepared(out, tmp_path, Preparation())
    assert report.psnr_db > 38 and report.ssim > 0.95
    assert json.loads(manifest.with_suffix(".json").read_text())["prepared"]["quality"] == 90


def test_chunks_are_an_ordinary_manifest_with_the_labels(source, tmp_path):
    """Small files with close key frames, read by PyAV; the frames are those of the archives but for the codec."""
    manifest = tmp_path / "s-64-chunks.csv"
    how = Preparation(fps=3.75, short_side_px=64, form="chunks")
    order = Order(source, how, tmp_path / "chunks", manifest)
    summary, report = prepare_chunks(order, workers=1, time_limit_s=60, tell=lambda *_: None)
    (_, old), (_, new) = read_all(source), read_all(manifest)
    assert sorted(row.label for row in new) == sorted(row.label for row in old) and not report.lost
    assert {row.decoder for row in new} == {"pyav"} and summary.prepared["form"] == "chunks"
    expected = {row.label: len(how.frames_of(scan_packets(row.path)[0], row.frames, row.content)) for row in old}
    for row in new:
        packets, _ = scan_packets(row.path)
        assert row.frames == expected[row.label] and np.diff([*packets.key_numbers, row.frames]).max() <= 16
        assert "secret" not in row.path and row.fps == pytest.approx(min(3.75, 3 if row.label == "f-class" else 9), rel=0.01)
    again, report = prepare_chunks(order, workers=1, time_limit_s=60, tell=lambda *_: None)
    assert report.done_before == 6 and again == summary
