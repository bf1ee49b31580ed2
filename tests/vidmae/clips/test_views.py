"""Which frames and which square a view shows, by fractions and by ffmpeg; that every view is read once, by any ranks."""

import math
import shutil
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from tests.support import videos
from tests.support.facilities import need
from tests.support.programs import reading as program_reading
from tests.support.runs import make_manifest
from vidmae.clips.view_loader import batches_of_rank, refuse_unreadable, view_loader
from vidmae.clips.views import ViewSpec, view_box, view_frames
from vidmae.footage.manifest import Check, Manifest, Source
from vidmae.footage.manifest_build import build

SPEC = ViewSpec(num_frames=16, sampling_rate=8, target_fps=30.0, img_size=224)
FPS = Fraction(30)


def expected_frames(total: int, window: int, windows: int, spec=SPEC, fps=FPS) -> list[int]:
    """In exact arithmetic: windows spread from the first frame to the last; frames floor(linspace(start, start + span - 1))."""
    span = Fraction(spec.sampling_rate * spec.num_frames) / Fraction(spec.target_fps) * fps
    start = max(total - span, Fraction(0)) * (Fraction(window, windows - 1) if windows > 1 else Fraction(1, 2))
    frames = [math.floor(start + (span - 1) * i / (spec.num_frames - 1)) for i in range(spec.num_frames)]
    return [min(frame, total - 1) for frame in frames]


@pytest.mark.parametrize("total", [1, 50, 128, 129, 300, 301])
@pytest.mark.parametrize("views", ["center", "1x3", "2x1", "10x3"])
def test_windows_are_spread_evenly(total, views):
    spec = replace(SPEC, views=views)
    for view in range(spec.views_per_clip):
        found = view_frames(spec, view, content=7, total_frames=total, fps=30.0)
        exact = expected_frames(total, view // spec.squares, spec.windows)
        assert np.abs(found - exact).max() <= 1, "floor of a float at a whole number"
        assert (found != exact).sum() <= 2
    assert spec.views_per_clip == {"center": 1, "1x3": 3, "2x1": 2, "10x3": 30}[views]


def test_the_first_and_the_last_window_touch_the_ends():
    spec = replace(SPEC, views="3x1")
    first, middle, last = (view_frames(spec, view, content=7, total_frames=300, fps=30.0) for view in range(3))
    assert first[0] == 0 and first[-1] == 127 and last[0] == 172 and last[-1] == 299
    assert np.array_equal(middle, view_frames(SPEC, 0, content=7, total_frames=300, fps=30.0)) and middle[0] == 86
    slow = view_frames(SPEC, 0, content=7, total_frames=120, fps=12.0)
    assert (slow[0], slow[-1]) == (34, 84), "51.2 of 120 frames at 12 a second"


@pytest.mark.parametrize(("height", "width", "squares"), [
    (240, 320, [(0, 0), (0, 40), (0, 80)]), (321, 240, [(0, 0), (40, 0), (81, 0)]), (100, 100, [(0, 0)] * 3)])
def test_squares_lie_along_the_long_side(height, width, squares):
    side, spec = min(height, width), replace(SPEC, views="2x3")
    for view in range(6):
        assert view_box(spec, view, content=7, height=height, width=width) == ((*squares[view % 3], side, side), False)
    for single in ("center", "4x1"):
        assert view_box(replace(SPEC, views=single), 0, content=7, height=height, width=width) == (
            (*squares[1], side, side), False)


def test_the_random_view_is_the_papers_with_a_seed_of_its_own():
    spec = replace(SPEC, views="random")
    height, width, clips = 3000, 4000, 1500
    boxes = [view_box(spec, 0, content=content, height=height, width=width) for content in range(clips)]
    starts = [int(view_frames(spec, 0, content=content, total_frames=10128, fps=30.0)[0]) for content in range(clips)]
    top, left, side = (np.array([box[i] for box, _ in boxes]) for i in range(3))
    assert all(box[2] == box[3] for box, _ in boxes)
    uniform = {"short side": (height * 224 / side - 256) / 64, "top": top / (height - side), "left": left / (width - side),
               "start": np.array(starts) / 10000}
    for name, shares in uniform.items():
        assert shares.min() > -0.01 and shares.max() < 1.01, name
        assert scipy.stats.kstest(shares, "uniform").pvalue > 1e-4, name
    flips = np.array([flip for _, flip in boxes])
    assert scipy.stats.binomtest(int(flips.sum()), clips).pvalue > 1e-4
    pairs = [("start", "top"), ("start", "short side"), ("top", "left")]
    assert all(abs(np.corrcoef(uniform[a], uniform[b])[0, 1]) < 0.12 for a, b in pairs)
    again = [view_box(spec, 0, content=content, height=height, width=width) for content in reversed(range(clips))]
    assert again[::-1] == boxes, "whatever was drawn before"
    assert view_box(replace(spec, seed=1), 0, content=5, height=height, width=width) != boxes[5]
    assert view_box(spec, 0, content=2**64 - 1, height=96, width=128)[0][2] in range(67, 85)


def test_single_frames_are_those_of_a_clip_in_the_middle_window():
    single = replace(SPEC, num_frames=1, views="frames16")
    assert (single.views_per_clip, single.squares, single.shape) == (16, 1, (1, 224, 224, 3))
    for total, fps in ((300, 30.0), (50, 30.0), (120, 12.0), (1, 30 / 128)):
        together = view_frames(SPEC, 0, content=7, total_frames=total, fps=fps)
        found = [view_frames(single, view, content=7, total_frames=total, fps=fps) for view in range(16)]
        assert [frames.tolist() for frames in found] == [[frame] for frame in together.tolist()]
        assert view_box(single, 15, content=7, height=240, width=320) == view_box(SPEC, 0, content=7, height=240, width=320)
    with pytest.raises(ValueError, match="views frames16 is for models of single frames, and this one takes 16 frames"):
        replace(SPEC, views="frames16")


def test_views_that_nobody_knows_are_refused():
    with pytest.raises(ValueError, match="'10x2' must be center, random, TxS with S 1 or 3, or framesN"):
        replace(SPEC, views="10x2")


@pytest.mark.parametrize(("clips", "views", "batch"), [(10, 1, 4), (7, 3, 2), (5, 30, 16), (1, 1, 8), (9, 3, 3), (4, 2, 7)])
def test_every_view_once_in_the_same_batches_for_any_number_of_ranks(clips, views, batch):
    everything = batches_of_rank(clips, views, batch, 0, 1)
    assert [pair for pairs in everything for pair in pairs] == list(range(clips * views))
    assert {len(pairs) for pairs in everything[:-1]} <= {batch} and 1 <= len(everything[-1]) <= batch
    for world in (2, 3, 4, 20):
        ranks = [batches_of_rank(clips, views, batch, rank, world) for rank in range(world)]
        assert Counter(b for rank in ranks for b in rank) == Counter(everything)
        owners = [{pair // views for pairs in rank for pair in pairs} for rank in ranks]
        assert sum(map(len, owners)) == clips, "all views of a clip on one rank"
        if views == 1:
            assert all(everything.index(b) % world == rank for rank in range(world) for b in ranks[rank])


def loaded(manifest, rows, spec, **options):
    return list(view_loader(manifest, np.array(rows), spec, **{
        "rank": 0, "world_size": 1, "batch": 4, "workers": 0, "read_limit_s": 60.0, "read_retries": 0, **options}))


def test_pixels_of_a_view_are_those_of_ffmpeg(tmp_path):
    need("ffmpeg")
    path = videos.h264(tmp_path / "a.mp4", seconds=6)
    build([Source(str(path), "")], tmp_path / "m.csv", Check("decord", False), workers=1, time_limit_s=60,
          progress=lambda *_: None)
    spec = replace(SPEC, img_size=96, views="3x3")  # of 128 x 96: squares are cut and not resized
    (one, two, three) = loaded(Manifest.read(tmp_path / "m.csv"), [0], spec)
    clips, frames = torch.cat([b.clips for b in (one, two, three)]).numpy(), videos.reference_frames(path, 128, 96)
    assert len(frames) == 180 and clips.shape == (9, 16, 96, 96, 3) and one.view.tolist() == [0, 1, 2, 3]
    for view in range(9):
        left = (0, 16, 32)[view % 3]
        expected = frames[expected_frames(180, view // 3, 3)][:, :, left:left + 96]
        assert np.abs(clips[view].astype(int) - expected).mean() < 1.0, "colour conversions differ by rounding"
        others = frames[expected_frames(180, (view // 3 + 1) % 3, 3)][:, :, left:left + 96]
        assert np.abs(clips[view].astype(int) - others).mean() > 3.0
    for flip in (False, True):
        check_random_view(Manifest.read(tmp_path / "m.csv"), frames, flip)


def check_random_view(manifest: Manifest, frames: np.ndarray, mirrored: bool) -> None:
    """Pixels of a random view that is mirrored, or is not, against ffmpeg's frames, cut, resized and mirrored by Pillow."""
    content = int(manifest.content[0])
    specs = (replace(SPEC, img_size=96, views="random", seed=seed) for seed in range(100))
    spec = next(s for s in specs if view_box(s, 0, content=content, height=96, width=128)[1] == mirrored)
    (batch,) = loaded(manifest, [0], spec)
    (top, left, side, _), flip = view_box(spec, 0, content=content, height=96, width=128)
    numbers = view_frames(spec, 0, content=content, total_frames=180, fps=30.0)
    expected = []
    for frame in frames[numbers]:
        picture = Image.fromarray(frame).crop((left, top, left + side, top + side)).resize((96, 96), Image.Resampling.BILINEAR)
        expected.append(np.asarray(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else picture))
    found = batch.clips[0].numpy().astype(int)
    assert np.abs(found - np.stack(expected)).mean() < 1.5
    assert np.abs(found - np.stack(expected)[:, :, ::-1]).mean() > 5


def test_batches_are_the_same_read_ahead_by_ranks_and_in_any_order(tmp_path):
    manifest = Manifest.read(make_manifest(tmp_path))
    spec = replace(SPEC, num_frames=4, img_size=32, views="random", seed=3)
    plain = loaded(manifest, [0, 1, 2], spec, batch=2)
    assert [b.rows.tolist() for b in plain] == [[0, 1], [2]]
    state = torch.get_rng_state()
    ahead = loaded(manifest, [0, 1, 2], spec, batch=2, workers=2)
    assert torch.equal(torch.get_rng_state(), state), "a look at a validation set does not change what training draws"
    second = loaded(manifest, [0, 1, 2], spec, batch=2, rank=1, world_size=2)
    backwards = loaded(manifest, [2, 1, 0], spec, batch=2)
    assert all(torch.equal(a.clips, b.clips) for a, b in zip(plain, ahead, strict=True))
    assert len(second) == 1 and torch.equal(second[0].clips, plain[1].clips)
    clips = {int(row): clip for b in plain for row, clip in zip(b.rows, b.clips, strict=True)}
    assert all(torch.equal(clip, clips[int(row)]) for b in backwards for row, clip in zip(b.rows, b.clips, strict=True))


def test_a_clip_that_cannot_be_read_is_missing_and_said_to_be(tmp_path):
    need("ffmpeg")
    clip = videos.h264(tmp_path / "clip.mp4", seconds=3)
    folder = tmp_path / "v"
    folder.mkdir()
    for name in ("a", "b", "hang-secret", "odd-secret"):
        shutil.copy(clip, folder / f"{name}.mp4")
    build([Source(str(p), "") for p in sorted(folder.iterdir())], tmp_path / "m.csv", Check("decord", False), workers=1,
          time_limit_s=60, progress=lambda *_: None)
    manifest = program_reading.read_by_faulty(tmp_path / "m.csv")
    spec = replace(SPEC, num_frames=4, img_size=32, views="2x1")
    batches = loaded(manifest, [0, 2, 1, 3], spec, batch=3, read_limit_s=1.0, workers=1)
    assert [b.rows.tolist() for b in batches] == [[0, 0], [1, 1], []] and [len(b.clips) for b in batches] == [2, 2, 0]
    reasons = [dict(b.unreadable) for b in batches]
    assert [set(r) for r in reasons] == [{2}, {2}, {3}]
    assert reasons[0][2] == "no answer within 1 s (the decoder hangs)" and reasons[2] == {3: "OSError"}
    opened = Counter(Path(name).stem for name in (folder / "opened").read_text().split())
    assert opened["hang-secret"] == opened["odd-secret"] == 1, "what failed is not tried again for its next views"
    whole = loaded(manifest, [0, 1], spec, batch=2)
    assert torch.equal(batches[0].clips, whole[0].clips) and torch.equal(batches[1].clips, whole[1].clips)
    with pytest.raises(ValueError) as error:
        refuse_unreadable(reasons[0] | reasons[2], clips=4)
    assert str(error.value).startswith("2 of 4 clips cannot be read (rows 3, 4 of the manifest; the first: no answer")
    assert "secret" not in str(error.value)
    refuse_unreadable({}, clips=4)
