"""Frames by number against the frames that the ffmpeg program decodes in order."""

import os

import av
import numpy as np
import pytest

from tests.support import videos
from tests.support.facilities import demo_clips, need
from vidmae.footage.decoders import with_pyav
from vidmae.footage.decoders.packets import av_open, has_table, timeline_of_table
from vidmae.footage.open_video import DECODERS, DecodeError, open_video, probe
from vidmae.footage.verify import verify

need("ffmpeg")

NEAR = 1.0  # mean grey levels between two conversions of the same picture


@pytest.fixture(params=DECODERS)
def decoder(request):
    if request.param == "torchcodec":
        need("torchcodec")
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One video of every kind that can be read, and of every kind that cannot."""
    folder = tmp_path_factory.mktemp("videos")
    for name, make in {**videos.GOOD, **videos.BAD, "hevc.mp4": videos.hevc, "open_gop.mp4": videos.open_gop}.items():
        make(folder / name)
    return folder


def distance(got: np.ndarray, reference: np.ndarray) -> float:
    assert got.shape == reference.shape
    return float(np.abs(got.astype(int) - reference).mean(axis=(1, 2, 3)).max())


def judged(path, decoder) -> str | None:
    """Why a file is no row with a decoder, whoever is to blame."""
    try:
        return verify(path, decoder)
    except DecodeError as error:
        return str(error)


def reference_of(path) -> np.ndarray:
    info = probe(path)
    return videos.reference_frames(path, info.width, info.height)


@pytest.mark.parametrize("name", videos.GOOD)
def test_frames_by_number_are_those_of_ffmpeg(folder, name, decoder):
    reference = reference_of(folder / name)
    assert verify(folder / name, decoder) is None
    asked = np.random.default_rng(0).integers(0, len(reference), 12)
    with open_video(folder / name, decoder) as video:
        assert video.num_frames == len(reference)
        assert (video.height, video.width) == reference.shape[1:3]
        got = video.read(asked)  # any order, some numbers twice
        assert got.dtype == np.uint8
        assert distance(got, reference[asked]) < NEAR
        for index in (len(reference) - 1, 0, len(reference) // 2):  # singly, backwards and onwards
            assert distance(video.read([index]), reference[index : index + 1]) < NEAR
        assert distance(video.read(range(len(reference))), reference) < NEAR


def test_real_clips_are_read_rightly(decoder):
    need("clips")
    for path in demo_clips():
        reference = reference_of(path)
        asked = np.linspace(0, len(reference) - 1, 16).astype(int)[::-1]
        with open_video(path, decoder) as video:
            assert distance(video.read(asked), reference[asked]) < NEAR


@pytest.mark.parametrize("name", ["hevc.mp4", "open_gop.mp4"])
def test_where_decord_seeks_wrongly_it_is_found_and_pyav_is_right(folder, name):
    path = folder / name
    reference = reference_of(path)
    with open_video(path, "decord") as video:
        wrong = [k for k in range(len(reference))[::-1] if distance(video.read([k]), reference[k : k + 1]) > 3]
    assert wrong, "decord has become right: its exclusion can go"
    assert "wrong frame" in str(verify(path, "decord"))
    assert verify(path, "pyav") is None
    with open_video(path, "pyav") as video:
        for k in reversed(range(len(reference))):
            assert distance(video.read([k]), reference[k : k + 1]) < NEAR


def packets_of(path):
    """Time of showing and whether a key frame, of every packet in order, by PyAV alone."""
    with av.open(str(path)) as container:
        return [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]


@pytest.mark.parametrize("name", [*videos.GOOD, "hevc.mp4", "open_gop.mp4"])
def test_the_table_of_an_mp4_says_what_its_packets_say(folder, name):
    container, stream = av_open(folder / name)
    with container:
        found = timeline_of_table(container, stream) if has_table(container) else None
    assert found is not None or name not in ("h264.mp4", "open_gop.mp4")
    if found:
        assert found.pts.tolist() == sorted(pts for pts, _ in packets_of(folder / name)) and found.timed


def test_a_clip_is_read_without_what_it_does_not_need(folder, monkeypatch):
    """Neither all packets of the file, nor an earlier key frame than that which it is built on, nor unwanted B-frames."""
    path, given, out = folder / "short_gop.mp4", [], []
    packets = packets_of(path)
    shown, keys = sorted(pts for pts, _ in packets), [pts for pts, key in packets if key]
    assert len(keys) > 2 and shown != [pts for pts, _ in packets], "it has several key frames, and B-frames"
    numbers = shown.index(keys[-2]) + np.array([1, 9])
    real = with_pyav.decoded

    def counted(stream, packets, wanted):
        for frame in real(stream, (given.append(packet.pts) or packet for packet in packets), wanted):
            out.append(frame.pts)
            yield frame

    monkeypatch.setattr("vidmae.footage.decoders.with_pyav.timeline", None)
    monkeypatch.setattr("vidmae.footage.decoders.with_pyav.decoded", counted)
    with open_video(path, "pyav") as video:
        assert distance(video.read(numbers), reference_of(path)[numbers]) < NEAR
    assert given[0] == keys[-2] and len(given) < 12 + 4 and len(out) < len(given) - 2


@pytest.mark.parametrize("name", videos.BAD)
def test_what_cannot_be_read_is_refused_without_its_name(folder, name, decoder, capfd):
    reason = judged(folder / name, decoder)
    assert reason
    stem = name.split(".")[0]
    assert name not in reason and str(folder) not in reason
    try:
        with open_video(folder / name, decoder) as video:
            video.read(range(video.num_frames))
    except DecodeError as error:
        assert str(folder) not in str(error) and f"{stem}." not in str(error)
    said = capfd.readouterr()
    assert str(folder) not in said.out + said.err, "a decoder wrote the name of a private recording"


@pytest.mark.parametrize("name, words", [
    ("empty.mp4", "0 bytes"), ("audio_only.mp4", "no video stream"), ("damaged.mp4", "after 59 frames"),
    ("truncated.mp4", "Invalid data"), ("gone.mp4", "no such file"), ("pipe.mp4", "no regular file")])
def test_the_reason_says_what_is_wrong(folder, name, words):
    if name == "pipe.mp4":
        os.mkfifo(folder / name)
    assert words in judged(folder / name, "decord")


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_turned_as_players_turn_them(tmp_path, degrees, decoder):
    path = videos.rotated(tmp_path / "turned.mov", degrees)
    upright = videos.h264(tmp_path / "upright.mp4", seconds=1)
    info = probe(path)
    assert info.rotation == degrees
    assert (info.width, info.height) == ((96, 128) if degrees != 180 else (128, 96))
    with open_video(path, decoder) as turned, open_video(upright, decoder) as plain:
        expected = np.rot90(plain.read([7])[0], degrees // 90)  # counter-clockwise
        assert np.array_equal(turned.read([7])[0], expected)


def test_probe_tells_the_facts(folder):
    info = probe(folder / "vp9.webm")
    assert (info.codec, info.frames, info.fps, info.width, info.height) == ("vp9", 48, 12, 106, 60)
    assert info.seconds == pytest.approx(4) and info.bytes == (folder / "vp9.webm").stat().st_size
    assert not info.has_b_frames and not info.vfr and info.rotation == 0
    assert probe(folder / "h264.mp4").has_b_frames


def test_a_variable_rate_is_seen_and_the_mean_rate_counted(folder):
    info = probe(folder / "vfr.mp4")
    assert info.vfr and not probe(folder / "offset.mp4").vfr
    assert info.frames == 80
    assert info.fps == pytest.approx(79 / (119 / 30 - 2 / 30), rel=0.03)  # 60 frames in 2 s, then 20 in 2 s


def test_numbers_outside_the_video_are_refused(folder, decoder):
    with open_video(folder / "vp9.webm", decoder) as video:
        for asked in ([48], [-1, 3], []):
            with pytest.raises(DecodeError, match=r"\[0, 48\)|at least one"):
                video.read(asked)
        assert video.read([47]).shape == (1, 60, 106, 3)  # and it still reads


def test_an_unknown_decoder_lists_the_known_ones(folder):
    with pytest.raises(ValueError, match="pyav, decord"):
        open_video(folder / "vp9.webm", "opencv")
