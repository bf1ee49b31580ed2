"""Temporal probes on footage that is computed: pairs with equal pixels, probes that can fail and succeed, intervals that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vidmae.evaluate.feature_cache import feature_spec
from vidmae.evaluate.probes import WIDER_PENALTIES, fit_held_out
from vidmae.evaluate.temporal.drawn_windows import SELECT, TRAIN, UNEVEN, Windows, draw_windows, recordings_of
from vidmae.evaluate.temporal.shown_features import CHANNELS, chunks_of, key_of, measures, pixel_spec
from vidmae.evaluate.temporal.time_answers import answer, check_fails, check_succeeds, together
from vidmae.evaluate.temporal.time_tasks import (
    CLASSES,
    SAME_PIXELS,
    TimeTask,
    different,
    evenly,
    make_task,
    pairs_of,
    still_places,
)
from vidmae.footage.known.facts import Facts
from vidmae.footage.manifest import Row
from vidmae.insight.paired import paired_difference
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, build, parse_set
from vidmae.settings.programs.temporal_config import TIME_PROBES, TemporalConfig, TimeProbesConfig

T, FRAMES, FPS = 8, 1200, 30.0
SETTINGS = TimeProbesConfig(windows=130, per_recording=6)


def row(number: int, path: str = "", *, frames: int = FRAMES, fps: float = FPS, facts: Facts = Facts()) -> Row:  # noqa: B008
    return Row(path or f"/v/{number}.mp4", "", frames, fps, frames / fps, 9, 8, 8, "h264", 0, 0, 0, f"{number + 1:016x}", 1, "decord", facts)


ROWS = [row(i) for i in range(30)]


def drawn(rows: list[Row] = ROWS, settings: TimeProbesConfig = SETTINGS, seed: int = 0, rate: int = 6, frames: int = T) -> Windows:
    return draw_windows(rows, settings, num_frames=frames, sampling_rate=rate, target_fps=30.0, seed=seed)


@pytest.fixture(scope="module")
def windows() -> Windows:
    return drawn()


@pytest.fixture(scope="module")
def tasks(windows: Windows) -> dict[str, TimeTask]:
    return {name: make_task(name, windows, T, (1.0, 20.0), 0) for name in TIME_PROBES}


def film(recording: int, frames: np.ndarray) -> np.ndarray:
    """Frames of a made-up recording, which changes smoothly, as likely forwards as backwards: uint8 [T, 6, 6, 3]."""
    rng = np.random.default_rng(recording)
    period, phase = rng.uniform(150, 300, (6, 6, 3)), rng.uniform(0, 2 * np.pi, (6, 6, 3))
    return (128 + 100 * np.sin(2 * np.pi * frames[:, None, None, None] / period + phase)).round().astype(np.uint8)


def clips_of(task: TimeTask) -> np.ndarray:
    """What the examples show: uint8 [E, K, T, 6, 6, 3]."""
    return np.stack([np.stack([film(int(r), f) for r, f in zip(rows, shown, strict=True)])
                     for rows, shown in zip(task.row, task.shown, strict=True)])


def test_windows_lie_within_their_files_and_apart(windows: Windows) -> None:
    assert set(windows.step.tolist()) == {6} and len(windows) == 120 and not windows.left_out  # 130 windows are 4 for each of 30
    reach = (2 * T - 1) * 6 // 2
    assert windows.centre.min() >= reach and windows.centre.max() < FRAMES - reach
    for name in TIME_PROBES:
        shown = make_task(name, windows, T, (1.0, 20.0), 0).shown
        assert shown.min() >= 0 and shown.max() < FRAMES
    for recording in range(30):
        own = windows.centre[windows.recording == recording]
        assert len(own) == 4 and (np.diff(own) > 0).all()


def test_recordings_and_not_windows_are_dealt_out(windows: Windows) -> None:
    assert np.bincount(windows.part).tolist() == [12, 6, 12]
    again, other = drawn(), drawn(seed=1)
    assert windows.digest([r.content for r in ROWS]) == again.digest([r.content for r in ROWS]) != other.digest([r.content for r in ROWS])
    moved = drawn([replace(r, path=f"/other/{9 - i}") for i, r in enumerate(ROWS)])
    assert (moved.centre == windows.centre).all() and (moved.part == windows.part).all(), "paths have no say"


def test_parts_of_a_recording_are_one_recording_and_follow_each_other() -> None:
    names = [f"/v/S_2013041{d}_0626_01_segment{k}.mp4" for d in (7, 8) for k in (10, 9)]
    rows = [row(i, name) for i, name in enumerate(names)] + [row(9, "/v/a.mp4"), row(10, "/v/b.mp4")]
    recording, begins_s, line = recordings_of(rows)
    assert recording.tolist() == [0, 0, 1, 1, 2, 3] and line.tolist() == recording.tolist()
    assert begins_s.tolist() == [40.0, 0.0, 40.0, 0.0, 0.0, 0.0], "part 9 comes before part 10"
    at_once = [row(i, facts=Facts(child="c", session="x")) for i in range(3)]  # parts in an order that nobody knows
    recording, begins_s, line = recordings_of(at_once)
    assert recording.tolist() == [0, 0, 0] and line.tolist() == [0, 1, 2] and not begins_s.any()
    found = drawn([row(10 * i + k, f"/v/S_201304{i + 10}_0626_01_segment{k}.mp4") for i in range(6) for k in range(4)])
    assert len(found.part) == 6 and all(len(np.unique(found.recording[found.row // 4 == i])) == 1 for i in range(6))
    pairs = pairs_of(found, T, (30.0, 300.0), 0)
    assert (found.row[pairs[:, 0]] != found.row[pairs[:, 1]]).any(), "a pair may lie in two files of a recording"


def test_what_cannot_be_used_is_left_out_and_too_little_is_refused() -> None:
    rows = [*ROWS, row(40, frames=60), row(41, fps=4.0), row(42, fps=12.0)]
    found = drawn(rows, rate=8)
    assert found.left_out == {"too short": 1, UNEVEN: 1}  # 12 fps: 3.2 frames a step, and 4 are a quarter more
    assert set(found.step[found.row == 32].tolist()) == {4}
    slow = drawn(rows, replace(SETTINGS, probes=("arrow", "first")), rate=8)
    assert not slow.left_out and set(slow.step[slow.row == 31].tolist()) == {1} and set(slow.step[slow.row == 32].tolist()) == {3}
    with pytest.raises(ValueError, match="4 recordings have room for a window, allowed: 5 or more"):
        drawn(ROWS[:4])
    for key, value in (("probes", ()), ("test_share", 0.9), ("gap_s", (5.0, 1.0)), ("num_frames", 7)):
        with pytest.raises(ConfigError, match=f"temporal.{key}"):
            TimeProbesConfig(**{key: value})
    with pytest.raises(ConfigError, match="method is 'finetune', allowed: linear"):
        TemporalConfig(method="finetune")


def test_a_copy_of_a_video_is_on_one_side_of_the_split_alone() -> None:
    copies = [replace(ROWS[i], path=f"/elsewhere/{i}.mp4") for i in range(20)]
    found = drawn([*ROWS, *copies])
    assert found.left_out == {"a copy of another video": 20} and len(found.part) == 30 and found.row.max() < 30
    assert found.digest([r.content for r in (*ROWS, *copies)]) == drawn().digest([r.content for r in ROWS])
    with pytest.raises(ValueError, match=r"4 recordings have room for a window.*3 of 7 videos: a copy of another video"):
        drawn([*ROWS[:4], *copies[:3]])


def test_a_split_that_leaves_nothing_to_learn_from_is_refused() -> None:
    wide = replace(SETTINGS, test_share=0.79, select_share=0.2)
    with pytest.raises(ValueError, match=r"of 5 recordings 4 are to be tested on \(temporal.test_share is 0.79\) and 1 .*temporal.select_share=X"):
        drawn(ROWS[:5], wide)
    assert np.bincount(drawn(ROWS[:5]).part).tolist() == [2, 1, 2]


def test_what_pixels_say_is_shared_by_all_encoders() -> None:
    settings = ["method=linear", "model.name=vit_nano_patch16", "model.img_size=32", "model.num_frames=4"]
    plain, conv, still, mean = (pixel_spec(feature_spec(build(FinetuneConfig, parse_set([*settings, *more]))[0]), 4)
                                for more in ([], ["model.net=conv", "model.pool=mean"], ["model.temporal_positions=false"], ["model.pool=mean"]))
    assert plain == conv == still == mean


def test_frame_numbers_by_hand(windows: Windows, tasks: dict[str, TimeTask]) -> None:
    one = replace(windows, row=np.array([0]), centre=np.array([500]), step=np.array([4]), fps=np.array([30.0]), recording=np.array([0]),
                  line=np.array([0]), when_s=np.array([500 / 30]))
    clip = [493 - 7 + 4 * i for i in range(8)]  # 486, 490 ... 514
    assert evenly(one, 8)[0].tolist() == clip and clip[3] + clip[4] == 1000
    shown = {name: make_task(name, one, 8, (1.0, 20.0), 0).shown[:, 0].tolist() for name in ("halves", "halves-apart", "arrow", "speed")}
    assert shown["halves"] == [clip, clip[4:] + clip[:4]] and shown["arrow"] == [clip, clip[::-1]]
    apart = [n - 16 for n in clip[:4]] + [n + 16 for n in clip[4:]]
    assert shown["halves-apart"] == [apart, apart[4:] + apart[:4]] and apart[4] - apart[3] == 4 + 8 * 4
    assert shown["speed"] == [[493 + 2 * i for i in range(8)], clip, [472 + 8 * i for i in range(8)]]
    assert still_places(16) == (0, 7, 8, 15) and still_places(2) == (0, 1)
    first = tasks["first"]
    assert (first.shown[::2, 0] == first.shown[1::2, 1]).all() and (first.shown[::2, 0].max(axis=1) < first.shown[::2, 1].min(axis=1)).all()
    gap = (first.shown[::2, 1].min(axis=1) - first.shown[::2, 0].max(axis=1)) / FPS
    assert gap.min() >= 1 and gap.max() <= 20
    assert different([tasks["halves"], tasks["arrow"], tasks["first"]])[0] == 3 * len(windows), "the clip as it is comes in all of them"


@pytest.mark.parametrize("name", TIME_PROBES)
def test_every_label_has_as_many_clips_and_the_same_pixels(name: str, tasks: dict[str, TimeTask]) -> None:
    task = tasks[name]
    assert len(set(np.bincount(task.label).tolist())) == 1 and len(task.classes) == len(np.unique(task.label))
    assert task.chance_pct == pytest.approx(100 / len(CLASSES[name]))
    clips = clips_of(task)[:60]
    groups = clips.reshape(-1, len(task.classes), *clips.shape[1:]).swapaxes(0, 1).reshape(len(task.classes), 20 if len(task.classes) == 3 else 30, -1)
    sorted_pixels = np.sort(groups, axis=2)
    equal = bool((sorted_pixels == sorted_pixels[:1]).all())
    assert equal == (name in SAME_PIXELS), "only other speeds show other frames"
    if name in SAME_PIXELS and name != "first":
        measured = np.stack([measures(clip[0]) for clip in clips]).reshape(-1, 2, CHANNELS + T - 1)
        assert (measured[:, 0, :CHANNELS] == measured[:, 1, :CHANNELS]).all(), "to the last bit"


def test_each_probe_can_succeed_and_can_fail(windows: Windows, tasks: dict[str, TimeTask]) -> None:
    """An oracle gets it right; mean pixels are at chance; what sees change sees cuts, their size, and speed, and no direction."""
    reached: dict[str, dict[str, float]] = {}
    for name, task in tasks.items():
        clips = clips_of(task)
        seen = np.stack([[measures(clip) for clip in example] for example in clips])
        kinds = {"pixels": seen[..., :CHANNELS], "change": seen[..., CHANNELS:],
                 "still": clips[:, :, T // 2, 0].reshape(len(clips), clips.shape[1], -1).astype(float)}
        assert check_succeeds(task, windows.part).pct == 100
        found = {kind: answer(task, together(x), windows.part) for kind, x in kinds.items()}
        check_fails(task, found["pixels"])
        reached[name] = {kind: each.pct for kind, each in found.items()}
    exact = {name: found["pixels"] for name, found in reached.items()}
    assert exact["halves"] == exact["halves-apart"] == exact["arrow"] == 50 and 30 <= exact["first"] <= 70 and 20 <= exact["speed"] <= 47
    change, still = ({name: found[kind] for name, found in reached.items()} for kind in ("change", "still"))
    assert change["halves"] >= 95 and change["speed"] >= 90, "cuts and speed"
    assert change["halves-apart"] >= 95, "both clips have a cut, and in footage as smooth as this the farther one is larger"
    assert 30 <= change["arrow"] <= 70, "time has no direction here"
    assert all(30 <= still[name] <= 70 for name in SAME_PIXELS) and 20 <= still["speed"] <= 47


def test_a_probe_that_cannot_succeed_or_gives_its_labels_away_is_refused(windows: Windows, tasks: dict[str, TimeTask]) -> None:
    blind = replace(tasks["arrow"], when=np.random.default_rng(0).normal(size=tasks["arrow"].when.shape))
    with pytest.raises(ValueError, match="arrow: a probe that is told the time of every frame is right in"):
        check_succeeds(blind, windows.part)
    bright = tasks["arrow"].label[:, None] + np.zeros((1, 3))
    with pytest.raises(ValueError, match=r"mean pixels are right in 100\.00 % of the test clips, and chance is 50 %"):
        check_fails(tasks["arrow"], answer(tasks["arrow"], bright, windows.part))


def test_the_probe_learns_chooses_and_is_tested_on_three_sets_of_recordings(windows: Windows, tasks: dict[str, TimeTask]) -> None:
    """A feature that names the recording and the label is learned by heart, and is of no use on other recordings."""
    task, rng = tasks["arrow"], np.random.default_rng(0)
    codes = rng.normal(size=(30, 2, 12))
    by_heart = codes[task.recording, task.label]
    assert 30 <= answer(task, by_heart, windows.part).pct <= 70
    part = windows.part[task.recording]
    (train, y), (select, select_y) = ((by_heart[part == each], task.label[part == each]) for each in (TRAIN, SELECT))
    assert fit_held_out(train, y, select, select_y, num_classes=2)[1] <= 1e-2, "on other recordings strong penalties are best"
    assert fit_held_out(train, y, train, y, num_classes=2)[1] == max(WIDER_PENALTIES), "on its own clips the weakest one"


def test_keys_and_chunks() -> None:
    assert key_of(1, [3, 4]) != key_of(1, [4, 3]) != key_of(2, [4, 3]) and key_of(1, [3, 4]) == key_of(1, [3, 4])
    rows, places = np.repeat([2, 5, 7], [3, 20, 1]), np.arange(100, 124)
    assert [len(chunk) for chunk in chunks_of(rows, places)] == [3, 16, 4, 1] and not list(chunks_of(rows[:0], places[:0]))
    assert np.concatenate(list(chunks_of(rows, places))).tolist() == places.tolist()


@pytest.mark.slow
def test_intervals_hold_the_truth_in_93_to_97_of_100_draws() -> None:
    """Right and wrong answers of a few windows, alike within a recording; the truth is known. 1,000 draws each."""
    for recordings, spread in ((12, 0.15), (20, 0.05), (60, 0.1)):
        rng, held = np.random.default_rng(0), 0
        for seed in range(1000):
            own = np.clip(rng.normal(0.6, spread, recordings), 0.2, 1.0)
            which = np.repeat(np.arange(recordings), 40)
            right, control = rng.random((2, len(which))) < np.stack([own[which], np.full(len(which), 0.5)])
            found = paired_difference(right.astype(float), np.zeros(len(which)), which, seed=seed)
            apart = paired_difference(right.astype(float), control.astype(float), which, seed=seed)
            held += np.array([found.low <= 0.6 <= found.high, apart.low <= 0.1 <= apart.high])
        print(recordings, spread, held)
        assert (held >= 930).all() and (held <= 970).all(), (recordings, spread, held)
