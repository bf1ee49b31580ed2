"""Crops against brute force and against Pillow's resize."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from vidmae.clips.transforms import crop_resize, sample_crop

EVERY = np.arange(3)


@pytest.fixture
def frames() -> np.ndarray:
    """Three different smooth pictures with some noise, 90 x 120 px."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 9, 12, 3), dtype=np.uint8)
    smooth = np.stack([np.asarray(Image.fromarray(c).resize((120, 90), Image.Resampling.BICUBIC)) for c in coarse])
    return np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


def pillow(frames: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    top, left, h, w = box
    return np.stack([np.asarray(Image.fromarray(f).crop((left, top, left + w, top + h))
                                .resize((size, size), Image.Resampling.BILINEAR)) for f in frames])


@pytest.mark.parametrize("size", [32, 56, 200])
@pytest.mark.parametrize("box", [(0, 0, 90, 120), (7, 11, 61, 83), (30, 40, 20, 20)])
def test_resize_is_pillows_within_one_grey_level(frames, box, size):
    got = crop_resize(frames, EVERY, box, size, flip=False)
    assert got.dtype == torch.uint8 and got.shape == (3, size, size, 3) and got.is_contiguous()
    assert np.abs(got.numpy().astype(int) - pillow(frames, box, size)).max() <= 1


def test_no_resize_gives_the_very_pixels(frames):
    got = crop_resize(frames, EVERY, (5, 9, 64, 64), 64, flip=False)
    assert np.array_equal(got.numpy(), frames[:, 5:69, 9:73])


def test_flip_mirrors_left_and_right(frames):
    box = (5, 9, 70, 90)
    plain, mirrored = (crop_resize(frames, EVERY, box, 48, flip=flip) for flip in (False, True))
    assert mirrored.is_contiguous()
    assert torch.equal(mirrored, plain.flip(2))
    assert not torch.equal(mirrored, plain)


def test_frames_are_taken_in_the_order_asked_and_may_repeat(frames):
    which = np.array([2, 0, 0])
    got = crop_resize(frames, which, (0, 0, 90, 120), 40, flip=False)
    assert torch.equal(got, crop_resize(frames[which].copy(), EVERY, (0, 0, 90, 120), 40, flip=False))


def test_frames_of_a_turned_video_need_not_be_contiguous(frames):
    turned = np.rot90(frames, 1, axes=(1, 2))
    assert not turned.flags.c_contiguous
    got = crop_resize(turned, EVERY, (0, 0, 120, 90), 40, flip=False)
    assert np.abs(got.numpy().astype(int) - pillow(np.ascontiguousarray(turned), (0, 0, 120, 90), 40)).max() <= 1


@pytest.mark.parametrize("height, width", [(256, 340), (96, 128), (568, 320), (20, 400), (1, 1), (7, 3)])
def test_a_crop_lies_inside_and_keeps_its_limits(height, width):
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left, h, w = sample_crop(rng, height, width, (0.5, 1.0), (0.75, 1.333))
        assert top >= 0 and h > 0 and top + h <= height
        assert left >= 0 and w > 0 and left + w <= width
        if min(height, width) > 90:
            assert 0.49 < h * w / (height * width) <= 1
            assert 0.74 < w / h < 1.35


def test_crops_have_the_asked_distribution():
    rng = np.random.default_rng(1)
    boxes = np.array([sample_crop(rng, 1000, 1000, (0.2, 0.5), (0.75, 4 / 3)) for _ in range(3000)])
    area = boxes[:, 2] * boxes[:, 3] / 1e6
    ratio = np.log(boxes[:, 3] / boxes[:, 2]) / math.log(4 / 3)
    for values, low, high in ((area, 0.2, 0.5), (ratio, -1, 1)):  # every box fits here, so both are uniform
        counts, _ = np.histogram(values, bins=6, range=(low - 1e-3, high + 1e-3))
        assert np.abs(counts - 500).max() < 5 * math.sqrt(500)
    free = (1000 - boxes[:, 2]).astype(float)
    assert abs((boxes[:, 0] / free).mean() - 0.5) < 0.03  # places are uniform too


def test_a_frame_that_no_box_fits_gives_the_largest_centred_one():
    rng = np.random.default_rng(0)
    assert sample_crop(rng, 100, 1000, (0.9, 1.0), (0.75, 1.25)) == (0, 437, 100, 125)
    assert sample_crop(rng, 1000, 100, (0.9, 1.0), (0.8, 1.25)) == (437, 0, 125, 100)


def test_the_same_generator_draws_the_same_crops():
    draws = [[sample_crop(np.random.default_rng(5), 240, 320, (0.5, 1), (0.75, 1.333)) for _ in range(4)] for _ in "ab"]
    assert draws[0] == draws[1]
