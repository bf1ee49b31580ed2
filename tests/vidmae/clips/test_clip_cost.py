"""CPU time of a clip: against a clock of our own, in time that is bounded, and outside of every hash."""

import json
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from tests.support import videos
from tests.support.facilities import need
from vidmae.clips import clip_cost
from vidmae.clips.order import Place
from vidmae.footage import manifest as m
from vidmae.footage.manifest import Check, Manifest, find_sources, read_summary
from vidmae.footage.manifest_build import build


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    videos.h264(folder / "a.mp4", seconds=8)
    out = folder / "o" / "s.csv"
    build(find_sources(folder), out, Check("pyav", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    return out


def test_it_is_what_a_clock_of_our_own_says(path):
    manifest = Manifest.read(path)
    found = clip_cost.measure(manifest)
    assert found["videos"] == 1 and (found["num_frames"], found["img_size"], found["sampling_rate"]) == (16, 224, 8)
    assert 0 < found["near_ms_per_clip"] < found["ms_per_clip"]["1"]
    cutter = clip_cost.paper_cutter(manifest)
    for repeats in clip_cost.REPEATS:
        out = [np.empty((repeats, *shape), dtype) for shape, dtype in cutter.outputs]
        spent_s = []
        for _ in range(3):
            began_s = time.process_time()
            cutter.cut(0, [Place(0, 0, 0, repeat) for repeat in range(repeats)], *out)
            spent_s.append(time.process_time() - began_s)
        assert 0.2 < found["ms_per_clip"][str(repeats)] / (1000 * min(spent_s) / repeats) < 5


def test_totals_have_it_and_no_hash_does(path):
    before = read_summary(path)
    after = clip_cost.record_clip_cost(path, before, None)
    assert after.clip_cost and read_summary(path) == after and Manifest.read(path).summary == after
    assert replace(after, clip_cost=None) == before
    known = replace(after, clip_cost={**after.clip_cost, "cpu": "another"})
    assert clip_cost.record_clip_cost(path, before, known).clip_cost["cpu"] == "another", "known of the same contents"
    other = replace(known, content_sha256="x")
    assert clip_cost.record_clip_cost(path, before, other).clip_cost["cpu"] == clip_cost.cpu_name()


def test_totals_without_it_are_read(path):
    record = {key: value for key, value in asdict(read_summary(path)).items() if key != "clip_cost"}
    m.summary_path(path).write_text(json.dumps(record))
    assert read_summary(path).clip_cost is None and clip_cost.known_summary(path) is not None
    assert clip_cost.known_summary(path.with_name("gone.csv")) is None


def test_a_part_has_the_cost_of_the_whole(path, tmp_path):
    whole, rows = m.read_all(path)
    timed = replace(whole, clip_cost={"ms_per_clip": {"1": 3.0, "16": 1.0}})
    part = m.write_part(tmp_path / "part.csv", rows, timed, {"of": "s"})
    assert part.clip_cost == timed.clip_cost == read_summary(tmp_path / "part.csv").clip_cost
    assert part == m.sum_part(rows, timed, {"of": "s"})


class Sleeps:
    def __init__(self, manifest):
        pass

    def __call__(self, _):
        time.sleep(600)


def test_a_decoder_that_hangs_costs_bounded_seconds(path, monkeypatch):
    monkeypatch.setattr(clip_cost, "_Timed", Sleeps)
    monkeypatch.setattr(clip_cost, "VIDEO_LIMIT_S", 0.3)
    began = time.monotonic()
    assert clip_cost.measure(Manifest.read(path), limit_s=0.5) is None
    assert time.monotonic() - began < 30  # with the start of three processes on a busy machine
