"""The footage of a run from several manifests: joined rows, hours that are drawn, ages from names; and the clips of it."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tests.support.facilities import demo_clips, need
from vidmae.clips.loader import Batch
from vidmae.clips.transforms import crop_resize, sample_crop
from vidmae.footage.known.facts import Facts
from vidmae.footage.manifest import Check, Manifest, ManifestError, Source, read_all, read_summary, write_manifest
from vidmae.footage.manifest_build import build as build_manifest
from vidmae.mixtures.ages import ages
from vidmae.mixtures.children import known_children
from vidmae.mixtures.mixture import joined, read_footage, stocks
from vidmae.settings.config import DataConfig, FootageConfig, ModelConfig, Phase, PretrainConfig, SourceConfig, TrainConfig
from vidmae.settings.layers import to_dict
from vidmae.settings.schedule import Duration
from vidmae.train.build import clip_loader, footage_order, footage_plan

MODEL = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=4, pred_t_dim=4)
SETS = {"s": ["C_20130101_0900_01_segment01", "C_20140101_0900_01_segment01", "Z_20130102_1800_03_segment02"],
        "a": ["A_20140102_1800_01_segment01"], "k": ["undated"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Manifests of small real clips: `s` and `a` with names as SAYCam's, `k` without a date."""
    need("clips")
    folder = tmp_path_factory.mktemp("mixture")
    clips = [path for path in demo_clips() if path.stem.startswith("carphone")]
    for name, videos in SETS.items():
        (folder / name).mkdir()
        sources = []
        for i, video in enumerate(videos):
            copy = folder / name / f"{video}.mp4"
            shutil.copy(clips[i % 2], copy)
            sources.append(Source(str(copy), ""))
        build_manifest(sources, folder / f"{name}.csv", Check("pyav", False), workers=1, time_limit_s=120, progress=lambda *_: None)
    return folder


def config(folder: Path, *sources: SourceConfig | str, steps: int = 3, **settings) -> PretrainConfig:
    listed = tuple(replace(s, manifest=str(folder / f"{s.name}.csv")) for s in
                   (SourceConfig(s) if isinstance(s, str) else s for s in sources))
    data = FootageConfig(**{"sampling_rate": 2, "repeat_aug": 2, "sources": listed, "recheck_pct": 0, "read_limit_s": 0, **settings})
    train = TrainConfig(global_batch=8, micro_batch=8, phases=(Phase(Duration(steps, "steps")),))
    return PretrainConfig(model=MODEL, data=data, train=train)


def clips(of: PretrainConfig, *, world: int = 1, start: int = 0) -> Batch:
    footage = read_footage(of.data, num_frames=4, seed=of.seed)
    plan = footage_plan(of, footage, world)
    order = footage_order(of, footage, plan)
    ranks = [list(clip_loader(of, footage.manifest, plan, rank=rank, start=start, stop=plan.schedule.total_steps, workers=0, noise=8,
                              footage=footage, order=order)) for rank in range(world)]
    parts = [batch for step in zip(*ranks, strict=True) for batch in step]
    return Batch(*(torch.cat([getattr(b, name) for b in parts]) for name in ("clips", "noise", "rows", "labels")))


def test_joined_manifests_have_the_rows_of_both(folder):
    s, a = (Manifest.read(folder / f"{name}.csv") for name in "sa")
    both = joined([s, replace(a, decoders=("decord",))])
    assert len(both) == 4 and [both.path(i) for i in range(4)] == [*map(s.path, range(3)), a.path(0)]
    assert [both.decoder(i) for i in range(4)] == ["pyav", "pyav", "pyav", "decord"]
    assert both.seconds.tolist() == [*s.seconds, *a.seconds] and both.footage[0] == s.footage[0]


def test_ages_are_those_of_the_names(folder):
    found = ages(Manifest.read(folder / "s.csv"))
    assert found.since == "first recording" and found.unknown == 0
    np.testing.assert_allclose(found.months, [0, 365 / 30.4375, 0])
    assert ages(Manifest.read(folder / "k.csv")).unknown == 1


def test_by_age_the_youngest_come_first(folder):
    footage = read_footage(config(folder, "s", "a", order="age").data, num_frames=4, seed=0)
    names = [[Path(footage.manifest.path(row)).stem for row in part.rows] for part in footage.parts]
    assert names == [[SETS["s"][0], SETS["s"][2], SETS["s"][1]], SETS["a"]]


@pytest.mark.parametrize("settings", [
    {"order": "age", "weight": "seconds"}, {"order": "single-pass"}, {"sources": "weights", "clip": "shuffled-frames"}])
def test_steps_are_the_same_on_any_number_of_ranks_and_after_a_restart(folder, settings):
    sources = (SourceConfig("s", weight=0.5), SourceConfig("a", weight=3)) if settings.get("sources") else ("s", "a")
    of = config(folder, *sources, **{k: v for k, v in settings.items() if k != "sources"})
    one = clips(of)
    for other in (clips(of, world=2), clips(of, world=4)):
        assert all(torch.equal(getattr(other, name), getattr(one, name)) for name in ("clips", "noise", "rows"))
    late = clips(of, start=2)
    assert torch.equal(late.clips, one.clips[16:]) and torch.equal(late.rows, one.rows[16:])


def test_what_the_metrics_would_count_is_what_came(folder):
    of = config(folder, SourceConfig("s", weight=0.5), SourceConfig("a", weight=3), "k", steps=5)
    footage = read_footage(of.data, num_frames=4, seed=0)
    order = footage_order(of, footage, footage_plan(of, footage, 1))
    counted = Counter(np.searchsorted([3, 4], clips(of).rows.numpy(), side="right").tolist())
    assert order.seen(40) == [counted[i] for i in range(3)] and min(order.seen(40)) > 0


def test_a_single_pass_takes_the_frames_of_each_stretch(folder):
    """Without crop, flip and resize, against frames read one by one: stretch k begins k clips after the start."""
    of = config(folder, "a", order="single-pass", repeat_aug=1, sampling_rate=5, crop_area=(1, 1), crop_aspect=(1, 1), flip_prob=0, steps=1)
    of = replace(of, train=replace(of.train, global_batch=5, micro_batch=5))
    got = clips(of).clips.numpy()
    with av.open(str(next((folder / "a").iterdir()))) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    box = sample_crop(np.random.default_rng(0), frames.shape[1], frames.shape[2], (1, 1), (1, 1))
    fps = Manifest.read(folder / "a.csv").fps[0]
    span = 5 * 4 / 30 * fps  # frames that a clip covers
    for k in range(5):
        asked = np.floor(k * span + np.arange(4) * (span - 1) / 3).astype(int)
        assert np.array_equal(got[k], crop_resize(frames, asked, box, 32, flip=False).numpy()), k


@pytest.mark.parametrize("kind", ["reversed", "frozen", "static-pair", "shuffled-frames"])
def test_clips_are_the_normal_ones_put_together_otherwise(folder, kind):
    """The same window, crop, flip and mask, so plain indexing of the normal clips must give the others."""
    normal, other = (clips(config(folder, "s", steps=2, clip=c)) for c in ("normal", kind))
    assert torch.equal(normal.noise, other.noise) and torch.equal(normal.rows, other.rows)
    plain, got = normal.clips.numpy(), other.clips.numpy()
    if kind == "shuffled-frames":
        orders = set()
        for a, b in zip(plain, got, strict=True):
            match = [[np.array_equal(x, y) for x in a] for y in b]
            assert sorted(x.tobytes() for x in a) == sorted(y.tobytes() for y in b)
            orders.add(tuple(row.index(True) for row in match))
        assert len(orders) > 3 and orders != {(0, 1, 2, 3)}
        return
    which = {"reversed": [3, 2, 1, 0], "frozen": [2, 2, 2, 2], "static-pair": [0, 0, 3, 3]}[kind]
    assert np.array_equal(got, plain[:, which]) and not np.array_equal(got, plain)


def test_a_source_may_have_its_own_frame_rate(folder):
    same = clips(config(folder, "s", "a", steps=1))
    own = clips(config(folder, "s", SourceConfig("a", sampling_rate=4, target_fps=60.0), steps=1))
    other = clips(config(folder, "s", SourceConfig("a", sampling_rate=7), steps=1))
    of_a = (same.rows == 3).numpy()
    assert torch.equal(same.clips, own.clips), "4 of 60 is 2 of 30"
    assert torch.equal(same.clips[~of_a], other.clips[~of_a]) and not torch.equal(same.clips[of_a], other.clips[of_a])


def test_hours_are_whole_videos_drawn_by_the_seed_and_more_hold_fewer(folder):
    def taken(hours: float, seed: int) -> set[int]:
        (part,) = read_footage(config(folder, SourceConfig("s", hours=hours)).data, num_frames=4, seed=seed).parts
        return set(part.rows.tolist())

    draws = [taken(3 / 3600, seed) for seed in range(12)]
    assert {len(draw) for draw in draws} == {1} and len(set.union(*draws)) == 3
    assert all(taken(3 / 3600, seed) < taken(12 / 3600, seed) <= {0, 1, 2} for seed in range(5))


@pytest.mark.parametrize("settings", [{"weight": "seconds"}, {"order": "age"}, {"order": "single-pass"}, {"sources": "hours"}])
def test_the_launcher_knows_what_the_run_finds(folder, settings):
    sources = ("a", SourceConfig("s", hours=0.002)) if settings.get("sources") else ("a", "s")
    data = config(folder, *sources, **{k: v for k, v in settings.items() if k != "sources"}).data
    summaries = [read_summary(folder / f"{name}.csv") for name in "as"]
    launcher = stocks(data, summaries, num_frames=4, seed=3)
    run = [part.stock for part in read_footage(data, num_frames=4, seed=3).parts]
    counted = data.order == "single-pass"
    assert [s if counted else replace(s, stretches=0) for s in run] == [s if counted else replace(s, stretches=0) for s in launcher]


@pytest.mark.parametrize("settings, says", [
    ({"order": "age"}, "data.order age needs the age or the date of every recording; 1 of the 1 videos of k have none"),
    ({"age_months": (6, 14)}, r"data.age_months \[6, 14\] needs the age or the date"),
    ({"hours": 2.0}, r"data.sources: k: hours is 2, allowed: up to 0.001")])
def test_what_the_manifest_does_not_have_says_so(folder, settings, says):
    source = SourceConfig("k", hours=settings.pop("hours", None))
    with pytest.raises(ManifestError, match=says) as caught:
        read_footage(config(folder, source, **settings).data, num_frames=4, seed=0)
    assert "undated" not in str(caught.value)


def test_dates_alone_are_no_ages(folder):
    with pytest.raises(ManifestError, match="needs ages since birth; the recordings of s have dates only"):
        read_footage(config(folder, "s", age_months=(0, 4)).data, num_frames=4, seed=0)


def test_an_age_window_takes_the_recordings_in_it(folder):
    rows = [replace(row, facts=Facts(age_months=age)) for row, age in zip(read_all(folder / "s.csv")[1], ("6", "14.5", "9"), strict=True)]
    write_manifest(folder / "aged.csv", rows, [], Check("auto", True))
    (part,) = read_footage(config(folder, "aged", age_months=(6, 14)).data, num_frames=4, seed=0).parts
    assert part.rows.tolist() == [0, 2] and part.stock.videos == 2
    assert set(clips(config(folder, "aged", age_months=(6, 14))).rows.tolist()) == {0, 2}
    with pytest.raises(ManifestError, match=r"recordings at 6.0 to 14.5 months, and none in between"):
        read_footage(config(folder, "aged", age_months=(10, 14)).data, num_frames=4, seed=0)


def test_a_child_is_left_out_by_the_manifest_and_else_by_name(folder):
    (named,) = read_footage(config(folder, "s", without_child="C").data, num_frames=4, seed=0).parts
    assert named.rows.tolist() == [2] and named.stock.videos == 1
    rows = [replace(row, facts=Facts(child=child)) for row, child in zip(read_all(folder / "s.csv")[1], ("00220001", "", "B"), strict=True)]
    write_manifest(folder / "children.csv", rows, [], Check("auto", True))
    assert known_children(Manifest.read(folder / "children.csv")) == ["00220001", "B", "C"]
    both = config(folder, "children", "k", without_child="00220001")
    assert [part.rows.tolist() for part in read_footage(both.data, num_frames=4, seed=0).parts] == [[1, 2], [3]], "k has no children"
    assert set(clips(both).rows.tolist()) == {1, 2, 3}
    assert [stock.videos for stock in stocks(both.data, [read_summary(folder / f"{name}.csv") for name in ("children", "k")], num_frames=4, seed=0)] == [2, 1]
    with pytest.raises(ManifestError, match=r"data.without_child is 'Q', allowed: 00220001, B, C, or null"):
        read_footage(config(folder, "children", "k", without_child="Q").data, num_frames=4, seed=0)


def test_defaults_are_not_signed():
    assert to_dict(FootageConfig(), signed_only=True) == to_dict(DataConfig(), signed_only=True)
    assert FootageConfig(without_child="a b", clip="frozen").tag == "without-a_b-frozen"
    assert to_dict(FootageConfig(clip="frozen"), signed_only=True) == {**to_dict(DataConfig(), signed_only=True), "clip": "frozen"}
