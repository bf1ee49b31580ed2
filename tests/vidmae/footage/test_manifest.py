"""The list of videos: what gets in, what is left out and why, and that every rank reads the same packed arrays."""

import csv
import ctypes
import hashlib
import json
import os
import stat
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict

import numpy as np
import pytest

from tests.support import videos
from tests.support.facilities import need
from vidmae.footage import manifest as m
from vidmae.footage.killable import map_killable
from vidmae.footage.manifest import Check, Manifest, ManifestError, Row, Source, find_sources, read_summary
from vidmae.footage.manifest_build import build
from vidmae.footage.manifest_columns import BLOCK_BYTES

ODD_NAMES = ["a b.mp4", "[brackets] (and) more.mp4", "comma, and blank.mp4", 'quote"s.mp4', "Ärger – 子供.mp4", "it's.mp4"]


def quiet(done: int, total: int) -> None:
    """Progress that nobody watches."""


def make(folder, out, **changes):
    options = {"workers": 2, "time_limit_s": 60.0, "progress": quiet, **changes}
    return build(find_sources(folder), out, Check("decord", True), **options)


def written(tmp_path, rows: list[Row], bad=()):
    out = tmp_path / "made" / "s.csv"
    m.write_manifest(out, rows, list(bad), Check("decord", True))
    return out


def row(path: str = "/v/a.mp4", label: str = "", frames: int = 90, content: str = "0" * 16) -> Row:
    return Row(path, label, frames, 30000 / 1001, frames / 30, 1000, 64, 48, "h264", 0, 1, 0, content, 17, "decord")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sound and unsound videos, some in folders, one that no reader could wait for."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    (folder / "class [a], b").mkdir()
    plain = videos.vp9(folder / "vp9.webm").read_bytes()
    for name in ODD_NAMES:
        (folder / "class [a], b" / name).write_bytes(plain)
    (folder / "UPPER.MP4").write_bytes(plain)
    (folder / "notes.txt").write_text("no video")
    for name, make_video in videos.BAD.items():
        make_video(folder / name)
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture(scope="module")
def built(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "manifests" / "s.csv"
    summary, _ = make(folder, out)
    return out, summary


def test_every_readable_video_gets_in_sorted_whatever_its_name(folder, built):
    out, summary = built
    manifest = Manifest.read(out)
    names = [folder / "class [a], b" / name for name in ODD_NAMES] + [folder / "vp9.webm", folder / "UPPER.MP4"]
    assert [manifest.path(i) for i in range(len(manifest))] == sorted(map(str, names))
    assert set(manifest.frames.tolist()) == {48} and set(manifest.fps.tolist()) == {12.0}
    assert (manifest.width[0], manifest.height[0]) == (106, 60)
    assert set(manifest.class_index.tolist()) == {-1}
    assert summary.videos == 8 and summary.hours == pytest.approx(8 * 4 / 3600)
    assert summary == read_summary(out) == manifest.summary


def test_what_is_left_out_is_listed_with_a_reason(folder, built):
    out, summary = built
    with m.unreadable_path(out).open(newline="") as f:
        left_out = {row["path"]: row["reason"] for row in csv.DictReader(f)}
    assert set(left_out) == {str(folder / name) for name in [*videos.BAD, "pipe.mp4"]}
    assert summary.unreadable == len(left_out)
    assert all(left_out.values())
    assert "0 bytes" in left_out[str(folder / "empty.mp4")]
    assert "no video stream" in left_out[str(folder / "audio_only.mp4")]
    assert "no regular file" in left_out[str(folder / "pipe.mp4")]


def test_files_are_private(built):
    out, _ = built
    for path in (out, m.summary_path(out), m.unreadable_path(out)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(out.parent.stat().st_mode) == 0o700
    assert len(list(out.parent.iterdir())) == 3  # no temporary file stays


def test_a_second_call_looks_at_changed_files_only(tmp_path):
    need("ffmpeg")
    for name in "abc":
        videos.vp9(tmp_path / f"{name}.webm")
    out = tmp_path / "out" / "s.csv"
    first, reused = make(tmp_path, out)
    assert (first.videos, reused) == (3, 0)
    assert make(tmp_path, out) == (first, 3)
    os.utime(tmp_path / "b.webm", ns=(0, 1))
    videos.vp9(tmp_path / "d.webm")
    (tmp_path / "c.webm").unlink()
    second, reused = make(tmp_path, out)
    assert (second.videos, reused) == (3, 1)
    labelled = [Source(source.path, "new") for source in find_sources(tmp_path)]  # a label is no reason to decode again
    third, reused = build(labelled, out, Check("decord", True), workers=1, time_limit_s=60, progress=quiet)
    assert (third.classes, third.hours, reused) == (1, second.hours, 3)
    assert Manifest.read(out).class_index.tolist() == [0, 0, 0]
    assert build(find_sources(tmp_path), out, Check("pyav", True), workers=1, time_limit_s=60, progress=quiet)[1] == 0


def test_the_content_hash_ignores_where_files_lie_but_not_what_they_hold(tmp_path):
    here = [row("/here/a.mp4", "1"), row("/here/b.mp4", "2", content="1" * 16)]
    there = [row("/there/a.mp4", "1"), row("/there/b.mp4", "2", content="1" * 16)]
    other = [row("/here/a.mp4", "1"), row("/here/b.mp4", "2", content="2" * 16)]
    hashes = [read_summary(written(tmp_path / str(i), rows)).content_sha256 for i, rows in enumerate([here, there, other])]
    assert hashes[0] == hashes[1] != hashes[2]


def test_content_hash_is_that_of_size_and_both_ends(tmp_path):
    data = np.random.default_rng(0).bytes(3 * 2**20)
    (tmp_path / "x").write_bytes(data)
    expected = hashlib.blake2b(str(len(data)).encode() + data[: 2**20] + data[-(2**20) :], digest_size=8).hexdigest()
    assert m.content_hash(tmp_path / "x") == expected


@pytest.mark.parametrize("line, path, label", [
    ("/v/a.mp4, 3", "/v/a.mp4", "3"),
    ("/v/a.mp4 3", "/v/a.mp4", "3"),
    ("/v/a b [x].webm 12", "/v/a b [x].webm", "12"),
    ("/v/a, b.mp4, 3", "/v/a, b.mp4", "3"),
    ("/v/a, b.mp4 3", "/v/a, b.mp4", "3"),
    ("/v/Putting [something] on a table/7.webm, 3", "/v/Putting [something] on a table/7.webm", "3"),
    ("/v/a.mp4\tjump", "/v/a.mp4", "jump"),
    ("/v/a.mp4\tjump up", "/v/a.mp4", "jump up"),
    ("/v/1.webm, Removing [something], revealing [something] behind", "/v/1.webm", "Removing [something], revealing [something] behind"),
    ("/v/a, b.mp4,one, two", "/v/a, b.mp4", "one, two"),
    ("/v/ä.mp4, massaging person's head – 子供", "/v/ä.mp4", "massaging person's head – 子供"),
    ('/v/a.mp4,"one, two"', "/v/a.mp4", "one, two"),
    ('"/v/a, b.mp4", "the ""odd"" one"', "/v/a, b.mp4", 'the "odd" one'),
    ('/v/quote"s.mp4, "odd" one', '/v/quote"s.mp4', '"odd" one'),
    ("/v/two words.MOV", "/v/two words.MOV", ""),
    ("sub/a.mp4, 0", "ROOT/sub/a.mp4", "0"),
])
def test_lists_of_the_field_are_understood(tmp_path, line, path, label):
    listing = tmp_path / "train.csv"
    listing.write_text(f"{line}\n\n")
    assert find_sources(listing) == [Source(path.replace("ROOT", str(tmp_path)), label)]
    assert find_sources(listing, tmp_path / "else")[0].path == path.replace("ROOT", f"{tmp_path}/else")


@pytest.mark.parametrize("line", ["/v/a.txt 3", "/v/a.mp4 0 300 5", "path,label", "3"])
def test_another_line_is_refused_by_number(tmp_path, line):
    (tmp_path / "l.txt").write_text(f"/v/a.mp4 1\n{line}\n")
    with pytest.raises(ManifestError, match=r"l\.txt:2"):
        find_sources(tmp_path / "l.txt")


@pytest.mark.parametrize("line", [
    "/v/a.mp4,arm,extra", "/v/a.mp4, 3, 300", "/v/a.mp4\tarm\textra", "/v/a.mp4 arm,extra", "/v/a b.mp4,abseiling,0,10,train",
    '"/v/a, b.mp4","arm","extra"', '/v/a.mp4, "one, two", 5',
])
def test_a_third_column_never_joins_the_label(tmp_path, line):
    (tmp_path / "l.csv").write_text(f"/v/b.mp4, arm\n{line}\n")
    with pytest.raises(ManifestError, match=r'l\.csv:2 has more than two columns.*path,"one,two"'):
        find_sources(tmp_path / "l.csv")


@pytest.mark.parametrize("separator", [",", ", ", "\t"])
def test_a_byte_order_mark_and_a_header_lose_no_video(tmp_path, separator):
    listing, rows = tmp_path / "l.csv", [("/v/ä.mp4", "arm"), ("/v/b.mp4", "leg")]
    lines = "".join(f"{path}{separator}{label}\r\n" for path, label in rows)
    for before in (b"", b"\xef\xbb\xbf", f"\ufeffPath{separator}Label\r\n".encode(), b"path,label\n"):
        listing.write_bytes(before + lines.encode())
        assert find_sources(listing) == [Source(*each) for each in rows]
    listing.write_bytes(b"\xef\xbb\xbf/v/\xff.mp4,arm\n")  # a name that is not UTF-8
    assert find_sources(listing) == [Source("/v/\udcff.mp4", "arm")]


@pytest.mark.parametrize("header", ["label,youtube_id,time_start,time_end,split", "label,youtube_id,time_start,time_end,split,is_cc",
                                    '"youtube_id","time_start","time_end","split"'])
def test_annotations_of_kinetics_are_refused_with_what_to_do(tmp_path, header):
    (tmp_path / "train.csv").write_text(f"{header}\nabseiling,-3B32lodo2M,59,69,train\n")
    with pytest.raises(ManifestError, match=r"annotation file of Kinetics.*--labels folders.*path, label"):
        find_sources(tmp_path / "train.csv")


def test_labels_become_class_numbers(tmp_path):
    whole = written(tmp_path / "1", [row("/a.mp4", "7"), row("/b.mp4", ""), row("/c.mp4", "0")])
    assert Manifest.read(whole).class_index.tolist() == [7, -1, 0]
    named = written(tmp_path / "2", [row("/a.mp4", "walk"), row("/b.mp4", ""), row("/c.mp4", "jump")])
    assert Manifest.read(named).class_index.tolist() == [1, -1, 0]
    assert read_summary(named).classes == 2


def test_a_name_with_a_line_break_is_left_out(tmp_path):
    need("ffmpeg")
    videos.vp9(tmp_path / "ok.webm").rename(tmp_path / "li\nne.webm")
    summary, _ = make(tmp_path, tmp_path / "o" / "s.csv")
    assert (summary.videos, summary.unreadable) == (0, 1)
    with m.unreadable_path(tmp_path / "o" / "s.csv").open(newline="") as f:
        assert "line break" in next(csv.DictReader(f))["reason"]


def test_a_name_that_is_not_utf8_survives(tmp_path):
    path = os.fsdecode(b"/v/\xff\xe9.mp4")
    assert Manifest.read(written(tmp_path, [row(path)])).path(0) == path


@pytest.mark.parametrize("change", ["cut", "longer", "same length", "no csv", "no summary", "broken summary"])
def test_a_manifest_that_was_touched_is_refused(tmp_path, change):
    out = written(tmp_path, [row("/a.mp4"), row("/b.mp4")])
    data, summary = out.read_bytes(), m.summary_path(out)
    {"cut": lambda: out.write_bytes(data[:-20]),
     "longer": lambda: out.write_bytes(data + data[-20:]),
     "same length": lambda: out.write_bytes(data.replace(b",90,", b",91,", 1)),
     "no csv": out.unlink, "no summary": summary.unlink,
     "broken summary": lambda: summary.write_text("{"),
     }[change]()
    with pytest.raises(ManifestError, match=r"python jobs/prepare\.py manifest"):
        Manifest.read(out)


def test_a_manifest_without_videos_names_the_command(tmp_path):
    with pytest.raises(ManifestError, match=r"0 videos.*prepare\.py manifest"):
        Manifest.read(written(tmp_path, [], [("/a.mp4", "it is empty")]))


def test_sources_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(ManifestError, match="holds no video"):
        find_sources(tmp_path)
    with pytest.raises(ManifestError, match="cannot read"):
        find_sources(tmp_path / "gone")


def test_rows_live_in_arrays_and_many_of_them_are_read_rightly(tmp_path):
    count = 20_000
    rows = [row(f"/v/ü {i:06d}, [x].mp4", str(i % 700), frames=i + 1) for i in range(count)]
    manifest = Manifest.read(written(tmp_path, rows))
    assert len(manifest) == count
    kept = {name: value for name, value in vars(manifest).items() if name not in ("summary", "decoders", "children")}
    assert all(isinstance(value, np.ndarray) and value.dtype != object for value in kept.values())
    apart = {id(value): value for value in kept.values()}.values()  # source is content itself where nothing is prepared
    held = sum(value.nbytes if value.strides[0] else value.itemsize for value in apart)  # what is nowhere known is one number
    assert held < count * (64 + 30)
    for i in (0, 1, 777, count - 1):
        assert manifest.path(i) == rows[i].path
        assert manifest.frames[i] == i + 1 and manifest.class_index[i] == i % 700
        assert manifest.fps[i] == 30000 / 1001  # to the last bit


@pytest.mark.parametrize("pyarrow", [True, False])
def test_columns_are_what_the_rows_say_whatever_a_text_holds(tmp_path, monkeypatch, pyarrow):
    """More than one block, and texts that a csv reader could take for something else; with pyarrow, and where it is missing."""
    odd = ["a, b", 'quo"te', '"', "tab\t", " lead", "NA", "nan", "null", "", "007", "true", "ü子", os.fsdecode(b"\xff\xe9")]
    out = written(tmp_path, [row(f"{odd[i % 13]}{i}.mp4" if i % 13 != 8 else f"/{i}", odd[i % 11] if i % 3 else odd[12], frames=2**40 + i,
                                 content=f"{i * 2**50:016x}") for i in range(8_000)])
    if not pyarrow:
        monkeypatch.setitem(sys.modules, "pyarrow", None)  # an ImportError for who imports it
    with nullcontext() if pyarrow else pytest.warns(UserWarning, match="pip install pyarrow"):
        manifest, (_, rows) = Manifest.read(out), m.read_rows(out)
    found = [m.parse_row(dict(zip(m.COLUMNS, values, strict=True))) for values in rows]
    assert len(out.read_bytes()) > 2 * BLOCK_BYTES and [manifest.path(i) for i in range(8_000)] == [r.path for r in found]
    assert manifest.frames.tolist() == [r.frames for r in found] and manifest.seconds.tolist() == [r.seconds for r in found]
    assert [int(c) for c in manifest.content] == [int(r.content, 16) for r in found]
    rank = {label: i for i, label in enumerate(sorted({r.label for r in found} - {""}))}
    assert manifest.class_index.tolist() == [rank.get(r.label, -1) for r in found]
    assert {manifest.decoder(i) for i in range(8_000)} == {"decord"}


def test_contents_are_numbers_and_some_rows_are_a_manifest(tmp_path):
    rows = [row(f"/v/{'ü' * i} {i}.mp4", label, frames=i + 1, content=f"{2**64 - 1 - i:016x}")
            for i, label in enumerate(["b", "a", "c", "b", ""])]
    whole = Manifest.read(written(tmp_path, rows))
    assert whole.content.dtype == np.uint64
    assert [int(content) for content in whole.content] == [int(r.content, 16) for r in rows]
    some = whole.take(np.array([3, 0, 3, 2]))
    assert [some.path(i) for i in range(len(some))] == [rows[i].path for i in (3, 0, 3, 2)]
    assert some.frames.tolist() == [4, 1, 4, 3] and some.content.tolist() == whole.content[[3, 0, 3, 2]].tolist()
    assert some.class_index.tolist() == [1, 1, 1, 2], "as in the whole manifest"
    assert some.take(np.array([3])).path(0) == rows[2].path and len(whole.take(np.array([], dtype=np.int64))) == 0


def test_the_summary_is_read_without_numpy_work_or_decoders(tmp_path):
    out = written(tmp_path, [row()])
    record = json.loads(m.summary_path(out).read_text())
    assert record == {key: value for key, value in asdict(read_summary(out)).items() if value is not None}
    code = ("import sys; from pathlib import Path; from vidmae.footage.manifest import read_summary;"
            "read_summary(Path(sys.argv[1])); assert not {'torch', 'av', 'decord'} & set(sys.modules)")
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code, str(out)]) == 0


def hang_with_the_interpreter_lock(item: str) -> str:
    """What a broken decoder does: no thread and no signal handler of this process gets a turn."""
    if item == "hang":
        ctypes.PyDLL(None).sleep(600)
    if item == "crash":
        os.abort()
    return item


def test_a_hang_and_a_crash_cost_their_own_file_only():
    items = ["a", "hang", "b", "crash", "c"]
    began = time.monotonic()
    outcomes = {o.index: o for o in map_killable(hang_with_the_interpreter_lock, items, workers=2, time_limit_s=3)}
    assert time.monotonic() - began < 40
    assert [outcomes[i].value for i in (0, 2, 4)] == ["a", "b", "c"]
    assert "no answer within 3 s" in str(outcomes[1].reason)
    assert "crashed" in str(outcomes[3].reason)


def test_a_link_that_leads_back_lists_every_video_once(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "back").symlink_to(tmp_path)
    assert len(find_sources(tmp_path)) == 1


def test_a_file_with_two_labels_is_refused_and_a_double_line_counts_once(tmp_path):
    need("ffmpeg")
    videos.vp9(tmp_path / "a.webm")
    (tmp_path / "l.txt").write_text("a.webm 1\na.webm 2\n")
    with pytest.raises(ManifestError, match="two labels, '1' and '2'"):
        make(tmp_path / "l.txt", tmp_path / "o" / "s.csv")
    (tmp_path / "l.txt").write_text("a.webm 1\r\na.webm 1\r\n")
    assert make(tmp_path / "l.txt", tmp_path / "o" / "s.csv")[0].videos == 1
