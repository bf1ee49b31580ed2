"""The data order as a pure function, the clips against a brute-force reading, and workers that behave."""

import os
import signal
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support import videos
from tests.support.facilities import need
from vidmae.clips import cutting, filling, order
from vidmae.clips.cutting import ClipSpec
from vidmae.clips.loader import Batch, make_loader
from vidmae.clips.order import FramesOfClips, ShuffledVideos, place_of
from vidmae.footage.frame_numbers import clip_indices, span_frames
from vidmae.footage.manifest import Check, Manifest, find_sources
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import DecodeError, open_video
from vidmae.runs.quarantine import Substitution

SPEC = ClipSpec(num_frames=16, sampling_rate=8, target_fps=30.0, img_size=32, crop_area=(0.5, 1.0),
                crop_aspect=(0.75, 1.333), flip_prob=0.5, repeat_aug=2, repeat_window="own",
                num_tokens=32)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    """Five videos, one of 12 fps, one shorter than a clip."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    videos.h264(folder / "a.mp4", seconds=8)
    videos.h264(folder / "b.mp4", seconds=6, fps=25, size="96x128")
    videos.short_gop(folder / "c.mp4")
    videos.vp9(folder / "d.webm")
    videos.h264(folder / "e.mp4", seconds=7, fps=15)
    (folder / "list.txt").write_text("".join(f"{name} {label}\n" for label, name in enumerate(
        ["a.mp4", "b.mp4", "c.mp4", "d.webm", "e.mp4"], start=10)))
    out = folder / "out" / "s.csv"
    build(find_sources(folder / "list.txt"), out, Check("decord", False), workers=2, time_limit_s=60,
          progress=lambda *_: None)
    return Manifest.read(out)


def batches(manifest, *, spec=SPEC, world=1, rank=0, accum=1, G=4, start=0, stop=3, workers=0, seed=0,
            limit_s=60.0) -> list[Batch]:
    return list(make_loader(manifest, spec, seed=seed, global_batch=G, micro_batch=G // world // accum, grad_accum=accum,
                            rank=rank, world_size=world, start_step=start, stop_step=stop, workers=workers,
                            read_limit_s=limit_s, read_retries=1))


def joined(parts: list[Batch]) -> Batch:
    return Batch(*(torch.cat([getattr(b, name) for b in parts]) for name in ("clips", "noise", "rows", "labels")))


def assert_same(a: Batch, b: Batch) -> None:
    for name in ("rows", "labels", "noise", "clips"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


@pytest.fixture(scope="module")
def reference(manifest) -> Batch:
    """Three steps of four clips, read by one process."""
    return joined(batches(manifest))


def test_batches_have_the_promised_form(manifest, reference):
    assert reference.clips.shape == (12, 16, 32, 32, 3) and reference.clips.dtype == torch.uint8
    assert reference.clips.is_contiguous()
    assert reference.noise.shape == (12, 32) and reference.noise.dtype == torch.float32
    assert reference.noise.min() >= 0 and reference.noise.max() < 1
    assert reference.rows.dtype == reference.labels.dtype == torch.int64
    assert torch.equal(reference.labels, reference.rows + 10)


@pytest.mark.parametrize("world, accum", [(2, 1), (4, 1), (1, 2), (2, 2)])
def test_steps_are_the_same_whatever_the_number_of_ranks(manifest, reference, world, accum):
    ranks = [batches(manifest, world=world, rank=r, accum=accum) for r in range(world)]
    assert all(len(rank) == 3 * accum for rank in ranks)
    for step in range(3):
        whole = joined([batch for rank in ranks for batch in rank[step * accum : (step + 1) * accum]])
        part = Batch(*(getattr(reference, n)[step * 4 : step * 4 + 4] for n in ("clips", "noise", "rows", "labels")))
        assert_same(whole, part)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(manifest, reference, workers):
    assert_same(joined(batches(manifest, workers=workers)), reference)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_process_for_reading_changes_nothing(manifest, reference, workers):
    assert_same(joined(batches(manifest, workers=workers, limit_s=0)), reference)


def test_a_restart_draws_what_would_have_come(manifest, reference):
    late = joined(batches(manifest, start=2, stop=3))
    assert_same(late, Batch(*(getattr(reference, n)[8:] for n in ("clips", "noise", "rows", "labels"))))
    assert batches(manifest, start=3, stop=3) == []


def test_another_seed_gives_another_order(manifest, reference):
    other = joined(batches(manifest, seed=1))
    assert not torch.equal(other.noise, reference.noise)
    assert not torch.equal(other.rows, reference.rows)


@pytest.mark.parametrize("number, repeat_aug", [(5, 2), (7, 1), (3, 16)])
def test_every_epoch_shows_every_video_repeat_aug_times(number, repeat_aug):
    per_epoch = number * repeat_aug
    places = [place_of(p, videos=number, repeat_aug=repeat_aug, seed=3) for p in range(4 * per_epoch)]
    orders = []
    for epoch in range(4):
        part = places[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert {place.epoch for place in part} == {epoch}
        assert Counter(place.row for place in part) == dict.fromkeys(range(number), repeat_aug)
        assert [place.repeat for place in part] == list(range(repeat_aug)) * number  # repeats stand together
        orders.append(tuple(place.row for place in part))
    assert len(set(orders)) > 1, "epochs must differ"


def test_a_permutation_of_a_million_videos_is_made_once(monkeypatch):
    order._permutation.cache_clear()
    for position in range(0, 3_000_000, 3000):
        place_of(position, videos=1_000_000, repeat_aug=1, seed=0)
    assert order._permutation.cache_info().misses == 3


def indices_read(manifest, monkeypatch, spec, **options) -> list[np.ndarray]:
    """Frame numbers of every clip, caught where they are computed, in the order of the file's time."""
    caught: list[np.ndarray] = []

    def spy(*args):
        caught.append(clip_indices(*args))
        return caught[-1]

    monkeypatch.setattr(cutting, "clip_indices", spy)
    batches(manifest, spec=spec, limit_s=0, **options)  # in this process, where the spy is seen
    return caught


def test_repeats_have_their_own_time_window_or_share_one(manifest, monkeypatch):
    spec = replace(SPEC, repeat_aug=4)
    own = indices_read(manifest, monkeypatch, spec, G=4, stop=5)
    shared = indices_read(manifest, monkeypatch, replace(spec, repeat_window="shared"), G=4, stop=5)
    windows = [len({tuple(i) for i in own[k : k + 4]}) for k in range(0, 20, 4)]
    assert sorted(windows)[1:] != [1, 1, 1, 1] and max(windows) >= 3  # the short video has one window only
    assert [len({tuple(i) for i in shared[k : k + 4]}) for k in range(0, 20, 4)] == [1] * 5
    clips = joined(batches(manifest, spec=replace(spec, repeat_window="shared"), G=4, stop=1)).clips
    assert not torch.equal(clips[0], clips[1])  # crop and flip still differ


def test_near_windows_differ_and_do_not_depend_on_micro_batches(manifest, monkeypatch):
    spec = replace(SPEC, repeat_aug=4, repeat_window="near", repeat_near_s=5.0)
    near = indices_read(manifest, monkeypatch, spec, G=4, stop=5)
    assert max(len({tuple(i) for i in near[k:k + 4]}) for k in range(0, 20, 4)) >= 3, "each has its own"
    first, own = joined(batches(manifest, spec=spec, stop=5)), joined(batches(manifest, spec=replace(spec, repeat_window="own"), stop=5))
    assert_same(first, joined(batches(manifest, spec=spec, stop=5, accum=4, workers=2)))
    assert torch.equal(first.noise, own.noise) and not torch.equal(first.clips, own.clips), "all but the time is drawn as ever"


def test_a_shared_window_is_shared_across_micro_batches(manifest, monkeypatch):
    spec = replace(SPEC, repeat_aug=4, repeat_window="shared")
    whole = joined(batches(manifest, spec=spec, G=4, stop=2))
    split = joined(batches(manifest, spec=spec, G=4, stop=2, accum=4))
    assert_same(whole, split)


def test_a_clip_is_the_frames_of_its_window(manifest):
    """Without crop, flip and resize a clip must be frames of the file, floor(linspace(...)) apart."""
    spec = replace(SPEC, img_size=96, crop_area=(1, 1), crop_aspect=(1, 1), flip_prob=0.0, repeat_aug=1)
    for batch in batches(manifest, spec=spec, G=1, stop=5):
        index = int(batch.rows[0])
        with open_video(manifest.path(index), "decord") as video:
            every = video.read(range(video.num_frames))
        height, width = every.shape[1:3]
        if height != 96:
            continue  # another size is resized: the pixels are no longer the file's
        square = every[:, :, (width - 96) // 2 : (width - 96) // 2 + 96]
        clip = batch.clips[0].numpy()
        found = [int(np.abs(square.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()) for frame in clip]
        assert all(np.array_equal(square[f], frame) for f, frame in zip(found, clip, strict=True))
        span = span_frames(num_frames=16, sampling_rate=8, target_fps=30, fps=float(manifest.fps[index]))
        candidates = [clip_indices(start, span, 16, len(every)).tolist()
                      for start in np.linspace(0, max(0, len(every) - span), 2000)]
        assert found in candidates


def test_a_file_of_12_fps_gives_clips_of_3_75_fps(manifest, monkeypatch):
    slow = [i for i in range(5) if manifest.fps[i] == 12]
    assert len(slow) == 1
    caught = indices_read(manifest, monkeypatch, replace(SPEC, repeat_aug=1), G=1, stop=5)
    of_slow = caught[[place_of(p, videos=5, repeat_aug=1, seed=0).row for p in range(5)].index(slow[0])]
    # 4 s at 12 fps are 48 frames, a clip is 51.2: the whole file, then the last frame again
    assert of_slow.tolist() == [min(int(k * 50.2 / 15), 47) for k in range(16)]
    steps = np.diff(of_slow[:14]) / 12
    assert steps.mean() == pytest.approx(1 / 3.75 * 50.2 / 48, rel=0.03)


def test_every_frame_that_repeats_share_is_decoded_once(manifest, monkeypatch):
    asked = []

    class Spy:
        def __init__(self, path, decoder):
            self._inner = open_video(path, decoder)
            self.num_frames = self._inner.num_frames
            asked.append([])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._inner.close()

        def each(self, indices):
            asked[-1].append(list(indices))
            return self._inner.each(indices)

    monkeypatch.setattr(cutting, "open_video", Spy)
    at_once = joined(batches(manifest, spec=replace(SPEC, repeat_aug=8), G=8, stop=2, limit_s=0))
    assert [len(calls) for calls in asked] == [1, 1]  # two videos, each opened once, one read each
    for calls in asked:
        assert len(set(calls[0])) == len(calls[0]) < 8 * 16
    monkeypatch.setattr(filling, "READ_BYTES", 1)  # a recording too large to hold: one repeat after the other
    assert_same(joined(batches(manifest, spec=replace(SPEC, repeat_aug=8), G=8, stop=2, limit_s=0)), at_once)
    assert [len(calls) for calls in asked[2:]] == [8, 8]


@pytest.mark.parametrize("workers", [0, 1])
def test_where_no_video_can_be_read_the_error_names_rows_and_not_files(tmp_path, workers):
    need("ffmpeg")
    gone = videos.vp9(tmp_path / "secret child.webm")
    out = tmp_path / "o" / "s.csv"
    build(find_sources(tmp_path), out, Check("decord", False), workers=1, time_limit_s=60, progress=lambda *_: None)
    gone.unlink()
    with pytest.raises(DecodeError) as error:
        batches(Manifest.read(out), spec=SPEC, G=2, stop=1, workers=workers)
    assert "row 1" in str(error.value) and "no such file" in str(error.value) and "jobs/prepare.py" in str(error.value)
    assert "secret" not in str(error.value)


def test_page_locked_batches_keep_what_was_substituted():
    need("gpu")
    replaced = (Substitution(0, 1, 2, 3, 4, "it is empty"),)
    batch = Batch(torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1), torch.zeros(1), replaced).pin_memory()
    assert batch.substituted == replaced and batch.clips.is_pinned() and batch.noise.is_pinned()


def test_workers_do_not_act_on_the_jobs_signals(manifest):
    """Slurm's warning goes to every process of a step; the parent saves at a step's end and needs its workers."""
    steps = iter(make_loader(manifest, SPEC, seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0, world_size=1,
                             start_step=0, stop_step=12, workers=2, read_limit_s=60, read_retries=1))
    next(steps)
    for worker in steps._workers:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
            os.kill(worker.pid, number)
    time.sleep(0.3)
    assert len(list(steps)) == 11


def test_a_worker_that_hangs_does_not_keep_the_job_from_ending(manifest):
    steps = iter(make_loader(manifest, SPEC, seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0, world_size=1,
                             start_step=0, stop_step=12, workers=1, read_limit_s=60, read_retries=1))
    next(steps)
    worker = steps._workers[0]
    os.kill(worker.pid, signal.SIGSTOP)  # no signal handler of it gets a turn
    began = time.monotonic()
    del steps
    worker.join(20)
    assert not worker.is_alive() and time.monotonic() - began < 20


def frames_shown(manifest, monkeypatch, spec, **options) -> Counter:
    """How often each frame of each file is shown, caught where frames would be read; black ones are shown instead."""
    caught, files = Counter(), []

    def open_spy(path, decoder):
        files.append(str(path))
        return open_video(path, decoder)

    def fill_spy(video, indices, clips, look, **_):
        caught.update((files[-1], int(number)) for number in indices.ravel())
        clips[:] = 0

    with monkeypatch.context() as patched:
        patched.setattr(cutting, "open_video", open_spy)
        patched.setattr(cutting, "fill_clips", fill_spy)
        list(make_loader(manifest, spec, seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0, world_size=1, start_step=0,
                         workers=0, read_limit_s=0, read_retries=1, **options))
    return caught


STILL = replace(SPEC, num_frames=1, num_tokens=4, window_frames=16)


@pytest.mark.parametrize("clip", ["normal", "static-pair"])
def test_an_image_model_sees_the_very_frames_of_a_video_model(manifest, monkeypatch, clip):
    """12 clips are 6 visits of 5 videos: no whole epoch."""
    of_video = frames_shown(manifest, monkeypatch, replace(SPEC, clip=clip), stop_step=3)
    stills = FramesOfClips(ShuffledVideos(len(manifest), 2, 0), 16, 12, 0)
    of_image = frames_shown(manifest, monkeypatch, replace(STILL, clip=clip), stop_step=48, order=stills)
    assert of_image == of_video and sum(of_video.values()) == 12 * 16
    one_each = frames_shown(manifest, monkeypatch, replace(STILL, clip=clip), stop_step=3, order=stills)
    assert one_each <= of_video and sum(one_each.values()) == 12
    assert not frames_shown(manifest, monkeypatch, replace(STILL, window_frames=0), stop_step=48) <= of_video, "else drawn anew"


def test_an_image_is_cut_out_as_its_clip_is_and_differently_when_the_clip_comes_again(manifest, reference):
    def images(start, stop):
        return joined(list(make_loader(
            manifest, STILL, seed=0, global_batch=4, micro_batch=4, grad_accum=1, rank=0, world_size=1, start_step=start,
            stop_step=stop, workers=0, read_limit_s=0, read_retries=1,
            order=FramesOfClips(ShuffledVideos(len(manifest), 2, 0), 16, 12, 0))))

    first, second = images(0, 3), images(3, 6)
    assert torch.equal(first.rows, reference.rows) and torch.equal(second.rows, reference.rows)
    which = [[k for k in range(16) if torch.equal(image[0], clip[k])] for image, clip in zip(first.clips, reference.clips, strict=True)]
    assert all(which) and len({k[0] for k in which}) > 3, "one frame of each clip, pixel by pixel, not always the same one"
    same = [any(torch.equal(image[0], frame) for frame in clip) for image, clip in zip(second.clips, reference.clips, strict=True)]
    assert sum(same) <= 2 and not torch.equal(second.noise, first.noise)


def test_every_frame_of_every_clip_comes_once_in_a_round_and_positions_stand_alone():
    stills = FramesOfClips(ShuffledVideos(7, 3, 5), 4, 30, 5)
    places = [stills.place(p) for p in range(2 * 4 * 30)]
    clips = [place_of(p, videos=7, repeat_aug=3, seed=5) for p in range(30)]
    for round_ in (places[:120], places[120:]):
        assert Counter((p.epoch, p.slot, p.repeat, p.frame) for p in round_) == Counter(
            (c.epoch, c.slot, c.repeat, frame) for c in clips for frame in range(4))
    assert [p.turn for p in places] == [i // 30 for i in range(240)]
    assert [stills.place(p) for p in (239, 0, 95)] == [places[p] for p in (239, 0, 95)]
    assert [p.row for p in places[:30]] == [c.row for c in clips]
    endless = FramesOfClips(ShuffledVideos(7, 3, 5), 4, 0, 5)
    assert endless.place(1000).turn == 0 and endless.place(1000).row == place_of(1000, videos=7, repeat_aug=3, seed=5).row
    assert stills.substitute(places[100], 2) == ShuffledVideos(7, 3, 5).substitute(clips[10], 2), "what stood in for the clip"
