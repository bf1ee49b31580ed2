"""Which decoder a file gets, what is left out after all have been tried, and a call that was stopped."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest

from jobs import prepare
from tests.support import videos
from tests.support.facilities import need
from tests.support.labelled import in_this_process
from tests.support.launching import ROOT, cli, hear_ctrl_c
from vidmae.clips.cutting import ClipSpec, Cutter
from vidmae.clips.order import Place
from vidmae.clips.reading import Reader
from vidmae.footage import manifest as m
from vidmae.footage import manifest_build
from vidmae.footage.decoders.with_decord import DecordReader
from vidmae.footage.manifest import Check, Manifest, ManifestError, find_sources, read_summary
from vidmae.footage.manifest_build import Judge, build, check_part
from vidmae.footage.open_video import DECODERS, DecodeError, candidates, open_video, probe, refuses, scan_packets
from vidmae.footage.verify import verify

need("ffmpeg")


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


def make(folder, out, decoder="auto", **changes):
    options = {"workers": 2, "time_limit_s": 60.0, "progress": quiet, **changes}
    return build(find_sources(folder), out, Check(decoder, True), **options)[0]


def left_out(out) -> dict[str, str]:
    with m.unreadable_path(out).open(newline="") as f:
        return {row["path"]: row["reason"] for row in csv.DictReader(f)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Kinds of files, one of them damaged."""
    folder = tmp_path_factory.mktemp("kinds")
    for name, make_video in {"plain.mp4": videos.h264, "open_gop.mp4": videos.open_gop, "hevc.mp4": videos.hevc,
                             "b_frames.avi": videos.b_frames_avi, "damaged.mp4": videos.damaged}.items():
        make_video(folder / name)
    return folder


def test_each_file_gets_the_first_decoder_that_reads_it_rightly(folder, tmp_path):
    out = tmp_path / "o/s.csv"
    summary, manifest = make(folder, out), Manifest.read(out)
    found = {manifest.path(i).rpartition("/")[2]: manifest.decoder(i) for i in range(len(manifest))}
    assert found == dict.fromkeys(("plain.mp4", "open_gop.mp4", "hevc.mp4", "b_frames.avi"), "pyav")
    assert summary.decoders == {"pyav": 4} and summary.decoder == "auto"
    assert left_out(out) == {str(folder / "damaged.mp4"): str(verify_error(folder / "damaged.mp4"))}, "one reason, not three"
    for row in range(len(manifest)):  # and what the row says reads what the ffmpeg program decodes
        info = probe(manifest.path(row))
        right = videos.reference_frames(manifest.path(row), info.width, info.height).astype(int)
        last = np.arange(len(right) - 6, len(right))
        with open_video(manifest.path(row), manifest.decoder(row)) as video:
            assert video.num_frames == len(right)
            assert np.abs(video.read(last) - right[last]).mean(axis=(1, 2, 3)).max() < 1


def verify_error(path):
    with pytest.raises(DecodeError) as error:
        verify(path, "pyav")
    return error.value


def test_one_decoder_that_is_asked_for_lists_what_it_reads_wrongly(folder, tmp_path):
    summary = make(folder, tmp_path / "o/s.csv", "decord")
    assert (summary.videos, summary.decoders) == (1, {"decord": 1})
    reasons = {path.rpartition("/")[2]: reason for path, reason in left_out(tmp_path / "o/s.csv").items()}
    assert "wrong frame" in reasons["open_gop.mp4"] and "time stamps do not name them" in reasons["b_frames.avi"]


def test_a_file_is_cut_where_less_is_there_than_its_header_promises(tmp_path):
    cut = videos.truncated_faststart(tmp_path / "cut.mp4")
    whole = videos.h264(tmp_path / "fragments.mp4", extra=("-movflags", "frag_keyframe", "-g", "10"))
    packets, promised = scan_packets(whole)
    assert 0 < promised < len(packets.pts), "its header counts the first fragment alone"
    for checked in (True, False):
        refused = Judge("pyav", checked)(m.Source(str(cut), "0"))
        assert isinstance(refused, manifest_build.Refused) and refused.final and "the file is cut" in refused.reason
        row = Judge("pyav", checked)(m.Source(str(whole), "0"))
        assert isinstance(row, m.Row) and row.frames == len(packets.pts), row


def test_decord_never_reads_what_it_races_at(folder, tmp_path):
    packets, _ = scan_packets(folder / "b_frames.avi")
    assert not packets.timed and refuses("decord", packets) and refuses("pyav", packets) is None
    assert refuses("decord", scan_packets(folder / "plain.mp4")[0]) is None
    unverified = Judge("decord", False)(m.Source(str(folder / "b_frames.avi"), ""))
    assert not unverified.final and "time stamps" in unverified.reason


class Unlucky(DecordReader):
    """Right in its first readers, and wrong at the end of the video in a later one: a race."""

    opened = 0

    def __init__(self, path):
        Unlucky.opened += 1
        super().__init__(path)

    def _read_sorted(self, indices):
        frames = super()._read_sorted(indices)
        if Unlucky.opened == 4 and indices[-1] == self.num_frames - 1:
            frames[-1] = frames[0]
        return frames


def test_a_decoder_that_is_wrong_once_in_several_reads_is_found(folder, monkeypatch):
    monkeypatch.setitem(sys.modules["vidmae.footage.open_video"]._READERS, "decord", Unlucky)
    assert "at the end" in verify(folder / "plain.mp4", "decord")
    assert verify(folder / "plain.mp4", "decord") is None, "it was unlucky once"


@pytest.mark.parametrize(("fault", "limit_s"), [("hang", 10.0), ("crash", 60.0)])
def test_a_decoder_that_hangs_or_crashes_gives_the_file_to_the_next(folder, tmp_path, fault, limit_s):
    """In a process of its own, as the real check does it: the stand-in is loaded by name."""
    (tmp_path / "v").mkdir()
    shutil.copy(folder / "plain.mp4", tmp_path / "v/a.mp4")
    (tmp_path / "stand_in.py").write_text(
        "import ctypes\nfrom vidmae.footage import open_video\nfrom vidmae.footage.decoders.with_pyav import PyAvReader\n"
        "class Faulty(PyAvReader):\n    def __init__(self, path):\n"
        f"        {'ctypes.PyDLL(None).sleep(600)' if fault == 'hang' else 'ctypes.string_at(0)'}\n"
        "open_video._READERS['pyav'] = Faulty\n")
    program = ("import stand_in, sys; from pathlib import Path; from vidmae.footage.manifest import *; from vidmae.footage.manifest_build import build\n"
               "if __name__ == '__main__':\n"
               f"    build(find_sources(Path('v')), Path('o/s.csv').absolute(), Check('auto', True), workers=1, time_limit_s={limit_s},"
               " progress=lambda *_: None)\n")
    (tmp_path / "program.py").write_text(program)  # map_killable starts fresh processes, which import the program again
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": os.defpath}, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_summary(tmp_path / "o/s.csv").decoders == {"decord": 1}


def test_decord_and_torchcodec_are_candidates_where_they_are_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert candidates("auto") == ("pyav",)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert candidates("auto") == DECODERS and candidates("pyav") == ("pyav",)
    with pytest.raises(ValueError, match=r"pyav, decord, torchcodec \(set data\.decoder\)"):
        candidates("opencv")


def test_without_decord_other_decoders_take_its_files(folder, tmp_path, monkeypatch):
    with_it, without = tmp_path / "with.csv", tmp_path / "without.csv"
    (tmp_path / "v").mkdir()
    shutil.copy(folder / "plain.mp4", tmp_path / "v/a.mp4")
    make(tmp_path / "v", with_it, "decord")
    assert Manifest.read(with_it).decoders == ("decord",)
    monkeypatch.setitem(sys.modules, "decord", None)
    with in_this_process():
        make(tmp_path / "v", without)
    found = Manifest.read(without)
    assert found.decoders == ("pyav",)
    spec = ClipSpec(16, 8, 30.0, 16, (0.5, 1.0), (0.75, 1.333), 0.0, 1, "own", 3)
    clips, masks = np.zeros((1, *spec.shape), np.uint8), np.zeros((1, 3), np.float32)
    settings = {"limit_s": 0.0, "retries": 0, "unreadable": {}, "most_clips": 1}
    assert Reader(Cutter(found, spec, 0), **settings).read(0, [Place(0, 0, 0, 0)], clips, masks) is None and clips.any()
    with pytest.raises(ValueError, match="gives files to decord, not installed here: pip install it, or make the manifest again"):
        Reader(Cutter(Manifest.read(with_it), spec, 0), **settings)


def test_another_decoder_than_that_of_the_check_is_refused(folder, tmp_path):
    out = tmp_path / "o/s.csv"
    make(folder, out)
    with pytest.raises(ManifestError, match=r"data\.decoder is decord, but .* was checked with others: 4 with pyav; allowed: auto"):
        Manifest.read(out, decoder="decord")
    assert len(Manifest.read(out, decoder="auto")) == len(Manifest.read(out)) == 4
    refused = cli("pretrain.py", "--recipe", "demo", "--data", str(out), "--cluster", "local", "--set", "data.decoder=decord",
                  "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2 and "was checked with others: 4 with pyav" in refused.stderr
    assert cli("pretrain.py", "--recipe", "demo", "--data", str(out), "--cluster", "local", "--dry-run", cwd=tmp_path).returncode == 0


def test_the_decoder_is_part_of_what_is_signed(folder, tmp_path):
    outs = [tmp_path / f"{name}/s.csv" for name in ("decord", "pyav")]
    (tmp_path / "v").mkdir()
    shutil.copy(folder / "plain.mp4", tmp_path / "v/a.mp4")
    summaries = [make(tmp_path / "v", out, out.parent.name) for out in outs]
    assert summaries[0].content_sha256 != summaries[1].content_sha256
    by_decord, by_pyav = (Manifest.read(out) for out in outs)
    assert by_decord.content == by_pyav.content and by_decord.footage != by_pyav.footage, "features are kept apart"


def test_the_same_folder_gives_the_same_manifest_each_time(folder, tmp_path):
    data = {make(folder, tmp_path / f"{i}/s.csv").content_sha256 for i in range(3)}
    assert len(data) == 1
    assert len({(tmp_path / f"{i}/s.csv").read_bytes() for i in range(3)}) == 1


def test_a_manifest_of_an_earlier_version_is_refused(folder, tmp_path):
    out = tmp_path / "o/s.csv"
    record = {**asdict(make(folder, out)), "schema": 1}
    m.summary_path(out).write_text(json.dumps(record))
    with pytest.raises(ManifestError, match="earlier version, which looked at each file once"):
        read_summary(out)


def test_a_call_that_was_stopped_goes_on(folder, tmp_path):
    """Rows that were checked before Ctrl-C are not checked again; the end is that of a call that was not stopped."""
    clips = tmp_path / "v"
    clips.mkdir()
    for number in range(16):
        shutil.copy(folder / "plain.mp4", clips / f"{number:02d}.mp4")
    command = [sys.executable, str(ROOT / "jobs/prepare.py"), "manifest", str(clips), "--out", str(tmp_path / "o/s.csv"),
               "--workers", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, preexec_fn=hear_ctrl_c) as process:
        journal, ends = tmp_path / "o/.s.checked.jsonl", time.monotonic() + 60
        while not journal.exists() or journal.read_text().count("\n") < 4:
            assert time.monotonic() < ends and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "the same command goes on" in said and "Traceback" not in said
    assert not (tmp_path / "o/s.csv").exists()
    with journal.open("a") as file:
        file.write('{"path": "/cut off')
    summary, reused = build(find_sources(clips), tmp_path / "o/s.csv", Check("auto", True), workers=1, time_limit_s=60, progress=quiet)
    assert 3 <= reused < 16 and summary.videos == 16 and not journal.exists()
    make(clips, tmp_path / "whole/s.csv")
    assert (tmp_path / "o/s.csv").read_bytes() == (tmp_path / "whole/s.csv").read_bytes()


def test_parts_are_checked_apart_and_joined_without_another_look(folder, tmp_path, monkeypatch):
    """As the tasks of an array do it; the join is that of one call, and a file that changed since is looked at again."""
    clips = tmp_path / "v"
    clips.mkdir()
    for number in range(5):
        shutil.copy(folder / "plain.mp4", clips / f"{number}.mp4")
    shutil.copy(folder / "damaged.mp4", clips / "damaged.mp4")
    out, sources = tmp_path / "o/s.csv", find_sources(clips)
    counts = [check_part(sources, out, Check("auto", True), part, 3, workers=1, time_limit_s=60, progress=quiet) for part in range(3)]
    assert counts == [(2, 0), (2, 0), (2, 1)], "by name: 0 3, 1 4, 2 and the damaged one"
    assert len(manifest_build.journal_paths(out)) == 3 and not out.exists()
    command = ("manifest", str(clips), "--out", str(out), "--workers", "1")
    again = cli("prepare.py", *command, "--part", "1/2", cwd=tmp_path)
    assert again.returncode == 0 and not again.stdout
    assert "part 1/2: 3 files checked, 1 of them" in again.stderr, "another number of parts knows it, too"
    looked = []
    monkeypatch.setattr(manifest_build, "_judge_all", lambda todo, *_: looked.extend(todo) or ())
    summary, reused = build(find_sources(clips), tmp_path / "o/s.csv", Check("auto", True), workers=1, time_limit_s=60, progress=quiet)
    assert (looked, reused, summary.videos, summary.unreadable) == ([], 5, 5, 1)
    assert manifest_build.journal_paths(tmp_path / "o/s.csv") == []
    monkeypatch.undo()
    make(clips, tmp_path / "whole/s.csv")
    for name in ("s.csv", "s.json", "s.unreadable.csv"):
        assert (tmp_path / "o" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for wrong in ("3/3", "1", "-1/2"):
        with pytest.raises(SystemExit, match="2"):
            prepare.main([*command, f"--part={wrong}"])


def test_a_place_that_cannot_be_written_is_found_before_the_work(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(manifest_build, "_judge_all", lambda *_: pytest.fail("files were decoded"))
    with pytest.raises(OSError):
        make(folder, tmp_path / "file" / "s.csv")


def test_what_a_user_may_not_expect_is_counted(folder, tmp_path):
    clips = tmp_path / "v"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(folder / "plain.mp4", clips / name)  # 4 s: shorter than the paper's clips
    for name in ("c.mpg", "d.mpg", "notes.txt"):
        (clips / name).write_text("x")
    done = cli("prepare.py", "manifest", str(clips), "--name", "s", cwd=tmp_path)
    assert done.returncode == 0
    assert "3 files of other kinds are not looked at: 2 .mpg, 1 .txt" in done.stderr
    assert "1 videos are copies of others" in done.stderr and "2 videos are shorter than the paper's clips of 4.27 s" in done.stderr
    planned = cli("pretrain.py", "--recipe", "demo", "--data", "manifests/s.csv", "--cluster", "local", "--dry-run", cwd=tmp_path)
    assert "about 100% of the videos are shorter than a clip of 4.27 s" in planned.stderr
    assert "--no-verify" not in planned.stderr
    quick = cli("prepare.py", "manifest", str(clips), "--name", "quick", "--no-verify", cwd=tmp_path)
    assert quick.returncode == 0
    planned = cli("pretrain.py", "--recipe", "demo", "--data", "manifests/quick.csv", "--cluster", "local", "--dry-run", cwd=tmp_path)
    assert "quick.csv was made with --no-verify" in planned.stderr
