"""Frame arithmetic against definitions written out by hand."""

import math

import numpy as np
import pytest

from vidmae.footage.frame_numbers import clip_indices, near_start, random_start, span_frames


def span(fps: float) -> float:
    return span_frames(num_frames=16, sampling_rate=8, target_fps=30, fps=fps)


@pytest.mark.parametrize("fps, frames", [(30, 128), (12, 51.2), (25, 320 / 3), (29.97002997, 127.872)])
def test_a_clip_lasts_the_same_time_in_files_of_every_rate(fps, frames):
    assert span(fps) == pytest.approx(frames)
    assert span(fps) / fps == pytest.approx(128 / 30)  # 4.27 s


@pytest.mark.parametrize("start", [0.0, 0.4, 7.9, 100.0])
@pytest.mark.parametrize("fps", [12, 25, 29.97, 30, 60])
def test_indices_are_the_floor_of_evenly_spaced_points(start, fps):
    last = start + span(fps) - 1
    brute = [math.floor(start + k * (last - start) / 15 + 1e-9) for k in range(16)]
    got = clip_indices(start, span(fps), 16, 10_000)
    assert got.dtype == np.int64 and got.shape == (16,)
    assert np.abs(got - brute).max() <= (0 if start == int(start) else 1)  # 1: rounding of a float at a whole number
    assert got[0] == math.floor(start) and got[-1] <= math.ceil(last)


def test_the_released_stride_at_30_fps_is_8_47_frames():
    assert clip_indices(0, span(30), 16, 300).tolist() == [
        0, 8, 16, 25, 33, 42, 50, 59, 67, 76, 84, 93, 101, 110, 118, 127]


def test_a_short_video_repeats_its_last_frame():
    assert clip_indices(0, span(30), 16, 20).tolist() == [0, 8, 16, *[19] * 13]
    assert clip_indices(0, span(30), 16, 1).tolist() == [0] * 16
    assert random_start(np.random.default_rng(0), span(30), 20) == 0


def near_starts(total: float, visits: int, *, span: float = 16, near: float = 37.5) -> np.ndarray:
    """Starts of four repeats of each visit."""
    def visit(i: int) -> list[float]:
        return [near_start(np.random.default_rng((1, i)), np.random.default_rng((2, i, k)), span, total, near) for k in range(4)]
    return np.array([visit(i) for i in range(visits)])


def test_windows_of_a_visit_are_near_each_other_and_everywhere_alike():
    starts = near_starts(216, 2000)
    assert starts.min() >= 0 and starts.max() < 200
    apart = (starts[:, 1:] - starts[:, :1] + 100) % 200 - 100  # the end of the file goes on at its beginning
    assert np.abs(apart).max() <= 37.5 - 16 and np.abs(apart).max() > 20, "all within 37.5 frames"
    for k in range(4):
        counts = np.histogram(starts[:, k], bins=8, range=(0, 200))[0]
        assert np.abs(counts - 250).max() < 5 * 250**0.5, "by itself a window is anywhere alike, also at both ends"


def test_windows_of_short_files_lie_anywhere_in_them():
    assert (near_starts(16, 3) == 0).all() and (near_starts(5, 3) == 0).all()
    few = near_starts(26, 500)
    assert few.min() >= 0 and few.max() < 10 and np.abs(np.histogram(few, bins=5, range=(0, 10))[0] - 400).max() < 100
    assert np.abs(np.corrcoef(few.T)[0, 1]) < 0.2, "a file shorter than `near`: as with windows of their own"


def test_windows_are_uniform_and_stay_inside_the_file():
    rng = np.random.default_rng(0)
    starts = np.array([random_start(rng, 51.2, 151) for _ in range(4000)])
    assert starts.min() >= 0 and starts.max() <= 151 - 51.2
    counts, _ = np.histogram(starts, bins=8, range=(0, 99.8))
    assert np.abs(counts - 500).max() < 5 * math.sqrt(500)
    ends = [clip_indices(start, 51.2, 16, 151)[-1] for start in starts]
    assert 149 <= max(ends) <= 150
    assert all(start + 50.2 <= 150 for start in starts)  # no clip needed clipping
