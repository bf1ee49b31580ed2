"""Each corruption against values that come by another way: published formulas in float64, scipy, scikit-image, statistics."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage, stats
from skimage import color, morphology

from tests.vidmae.evaluate.test_conditions import picture
from vidmae.evaluate.corruptions import blurs, clip_faults, digital, pixels, weather
from vidmae.evaluate.corruptions.conditions import Condition, apply

LEVELS = range(1, 6)
PHOTO = picture(224)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def plain(value: int, side: int = 224) -> np.ndarray:
    """A clip of one frame of one colour."""
    return np.full((1, side, side, 3), value, np.uint8)


def struck(name: str, level: int, frame: np.ndarray = PHOTO, seed: int = 0) -> np.ndarray:
    """One corrupted frame, uint8 [H, W, 3]."""
    return apply(frame[None], Condition(name, level), seed)[0]


def near(ours: np.ndarray, exact: np.ndarray, most: int = 1, share: float = 0.01) -> None:
    """Equal to values in 0..255 that are cut to whole numbers: nowhere more than `most` apart, and seldom at all."""
    wanted = np.clip(exact + 0.002, 0, 255).astype(np.uint8).astype(int)
    apart = np.abs(ours.astype(int) - wanted)
    assert apart.max() <= most and (apart > 0).mean() <= share


def published(name: str) -> Any:
    """The constants of the paper's code, typed in anew."""
    return {"defocus_blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
            "zoom_blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
            "glass_blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)]}[name]


# noise

@pytest.mark.parametrize(("level", "sigma"), list(enumerate([0.08, 0.12, 0.18, 0.26, 0.38], 1)))
def test_gaussian_noise_is_normal(level: int, sigma: float) -> None:
    got = apply(plain(100), Condition("gaussian_noise", level), 1)
    even = (np.arange(100_000) + 0.5) / 100_000
    wanted = np.clip(100 + 255 * sigma * stats.norm.ppf(even), 0, 255).astype(np.uint8)
    assert got.mean() == pytest.approx(wanted.mean(), abs=0.6) and got.std() == pytest.approx(wanted.std(), rel=0.01)
    assert abs(np.corrcoef(got[..., 0].ravel(), got[..., 1].ravel())[0, 1]) < 0.02, "each colour has noise of its own"


@pytest.mark.parametrize(("level", "photons"), list(enumerate([60, 25, 12, 5, 3], 1)))
@pytest.mark.parametrize("value", [0, 20, 127, 255])
def test_shot_noise_is_poisson(level: int, photons: int, value: int) -> None:
    got = apply(plain(value), Condition("shot_noise", level), 1).ravel()
    counts = np.bincount(np.round(got * (photons / 255)).astype(int), minlength=photons + 1)
    chance = stats.poisson.pmf(np.arange(photons + 1), value / 255 * photons)
    chance[-1] = 1 - chance[:-1].sum()  # what is brighter than white
    spread = np.sqrt(got.size * chance * (1 - chance))
    assert (np.abs(counts - got.size * chance) <= 4.5 * spread + 1e-6).all()


@pytest.mark.parametrize(("level", "share"), list(enumerate([0.03, 0.06, 0.09, 0.17, 0.27], 1)))
def test_impulse_noise_strikes_a_share(level: int, share: float) -> None:
    got = struck("impulse_noise", level, plain(100)[0])
    black, white = got == 0, got == 255
    assert [black.mean(), white.mean()] == [pytest.approx(share / 2, rel=0.06)] * 2
    assert (got[~black & ~white] == 100).all()
    assert (black | white).all(axis=-1).mean() == pytest.approx(share**3, abs=0.002), "colours are struck one by one"


# blur

@pytest.mark.parametrize("level", LEVELS)
def test_defocus_blur_is_a_disc(level: int) -> None:
    radius, smoothing = published("defocus_blur")[level - 1]
    disc = np.pad(morphology.disk(radius) / morphology.disk(radius).sum(), 0 if radius >= 8 else 3)
    steps = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    line = np.exp(-steps**2 / (2 * smoothing**2))
    soft = ndimage.correlate(disc, np.outer(line, line) / line.sum() ** 2, mode="mirror")
    near(struck("defocus_blur", level), ndimage.correlate(PHOTO.astype(float), soft[..., None], mode="mirror"))


def test_a_disc_shrinks_with_the_picture() -> None:
    for radius in (3, 4, 6, 8, 10):
        kernel = blurs.disc(radius * 64 / 224, 0.1)
        places = np.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert (kernel.sum(axis=0) * places**2).sum() == pytest.approx((radius * 64 / 224) ** 2 / 4 + 1 / 12, abs=0.1)


@pytest.mark.parametrize(("reach", "rounds"), [(1, 2), (2, 1), (2, 3), (3, 2), (4, 2)])
def test_glass_scatters_as_the_published_loop(reach: int, rounds: int) -> None:
    height, width = 30, 26
    frame = rng(1).integers(0, 256, size=(height, width, 3)).astype(np.uint8)
    wanted, draws = frame.copy(), rng(2)
    for _ in range(rounds):
        places = [(h, w) for h in range(height - reach, reach, -1) for w in range(width - reach, reach, -1)]
        for (h, w), (down, right) in zip(places, draws.integers(-reach, reach, size=(2, len(places))).T, strict=True):
            wanted[h, w], wanted[h + down, w + right] = wanted[h + down, w + right], wanted[h, w]  # views: it copies
    got = frame.reshape(-1, 3)[blurs.scattered(height, width, reach, rounds, rng(2))]
    assert np.array_equal(got.reshape(frame.shape), wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_glass_blurs_before_and_after(level: int) -> None:
    sigma, reach, rounds = published("glass_blur")[level - 1]
    soft = np.stack([ndimage.gaussian_filter(PHOTO[..., c].astype(float), sigma, mode="nearest") for c in range(3)], -1)
    origin = blurs.scattered(224, 224, reach, rounds, rng(3))
    again = (soft + 0.002).astype(np.uint8).reshape(-1, 3)[origin].reshape(PHOTO.shape).astype(float)
    wanted = np.stack([ndimage.gaussian_filter(again[..., c], sigma, mode="nearest") for c in range(3)], -1)
    near(blurs.glass_blur(PHOTO[None], (sigma, reach, rounds), rng(3))[0], wanted)


@pytest.mark.parametrize(("radius", "sigma"), [(10, 3), (15, 12), (20, 15)])
@pytest.mark.parametrize("angle", [-45, 0, 33, -135])
def test_motion_blur_is_half_a_gaussian_along_a_line(radius: int, sigma: float, angle: float) -> None:
    kernel = np.zeros((4 * radius + 3, 4 * radius + 3))
    for i in range(2 * radius + 1):  # from the middle on, px by px
        row, column = (int(np.floor(i * part + 0.5 - 1e-9)) for part in (np.sin(np.radians(angle)), np.cos(np.radians(angle))))
        kernel[2 * radius + 1 + row, 2 * radius + 1 + column] += np.exp(-i**2 / 2 / sigma**2)
    small = PHOTO[60:120, 60:130]
    wanted = ndimage.correlate(small.astype(float), (kernel / kernel.sum())[..., None], mode="nearest")
    assert np.abs(pixels.smeared(small[None], radius, sigma, angle)[0] - wanted).max() < 0.01


def test_motion_blur_goes_along_drawn_angles() -> None:
    point = np.zeros((1, 224, 224, 3), np.uint8)
    point[:, 112, 112] = 255
    angles = []
    for seed in range(40):
        weights = apply(point, Condition("motion_blur", 4), seed)[0, ..., 0].astype(float)
        rows, columns = np.nonzero(weights)
        angles.append(np.degrees(np.arctan2(rows - 112, columns - 112)[weights[rows, columns].argsort()].mean()))
        assert columns.max() == 112 and len(rows) > 20, "to one side"
    assert len(set(angles)) == 40


@pytest.mark.parametrize("level", LEVELS)
def test_zoom_blur_is_the_mean_of_enlargements(level: int) -> None:
    end, step = published("zoom_blur")[level - 1]
    factors = np.arange(1, end, step)
    total = PHOTO.astype(float)
    for factor in factors:
        inside = int(np.ceil(224 / factor))
        top = (224 - inside) // 2
        zoomed = ndimage.zoom(PHOTO[top:top + inside, top:top + inside].astype(float), (factor, factor, 1), order=1)
        cut = (len(zoomed) - 224) // 2
        total += zoomed[cut:cut + 224, cut:cut + 224]
    near(struck("zoom_blur", level), total / (len(factors) + 1))


# weather

@pytest.mark.parametrize(("level", "more"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], 1)))
def test_brightness_raises_the_value_of_hsv(level: int, more: float) -> None:
    picture = PHOTO.copy()
    picture[:3] = 0
    hsv = color.rgb2hsv(picture)
    hsv[..., 2] = np.minimum(hsv[..., 2] + more, 1)
    near(struck("brightness", level, picture), color.hsv2rgb(hsv) * 255, share=0.1)  # the other way ends below whole numbers


@pytest.mark.parametrize(("level", "stays"), list(enumerate([0.8, 0.7, 0.7, 0.65, 0.55], 1)))
def test_snow_falls_from_two_sides_on_a_pale_picture(level: int, stays: float) -> None:
    black = struck("snow", level, plain(0)[0]).astype(int)
    assert np.array_equal(black, black[::-1, ::-1]) and (black[..., :1] == black).all()
    ground = (1 - stays) * 127.5
    assert black.min() >= int(ground)
    layer = black[..., :1] - ground
    grey = PHOTO @ np.array([0.299, 0.587, 0.114])
    pale = stays * PHOTO + (1 - stays) * np.maximum(PHOTO, grey[..., None] * 1.5 + 127.5)
    near(struck("snow", level), pale + np.where(black[..., :1] == 255, 255, layer), most=2, share=1)


# Means of this photograph over seeds 0 to 3, and of clouds over 60 seeds (mean, spread, step from row to row), as made by
# another implementation, imagecorruptions-imaug 1.1.5
SNOW_MEANS = (156.1, 178.8, 178.6, 189.9, 201.2)
CLOUDS = {2: (0.499, 0.162, 0.0031), 1.7: (0.497, 0.175, 0.0038), 1.4: (0.502, 0.187, 0.0083)}


@pytest.mark.parametrize("level", LEVELS)
def test_so_much_snow_falls(level: int) -> None:
    means = [struck("snow", level, seed=seed).mean() for seed in range(4)]
    assert np.mean(means) == pytest.approx(SNOW_MEANS[level - 1], abs=2.5)


@pytest.mark.parametrize("decay", CLOUDS)
def test_clouds_have_the_published_grain(decay: float) -> None:
    clouds = [weather.plasma(256, decay, rng(seed)) for seed in range(30)]
    mean, spread, step = CLOUDS[decay]
    assert np.mean(clouds) == pytest.approx(mean, abs=0.05) and np.mean([c.std() for c in clouds]) == pytest.approx(spread, rel=0.1)
    assert np.mean(np.abs(np.diff(clouds, axis=1))) == pytest.approx(step, rel=0.1)
    assert {(c.min(), c.max()) for c in clouds} == {(0, 1)}


def test_frost_is_laid_over() -> None:
    over_black = [struck("frost", level, plain(0)[0]).astype(float) for level in LEVELS]
    for level, (stays, frozen) in enumerate([(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)], 1):
        ice = weather.ice(224, 224, rng(level))
        near(weather.frost(PHOTO[None], (stays, frozen), rng(level))[0], PHOTO * stays + ice * frozen)
        assert np.abs(over_black[level - 1] / frozen - over_black[0] / 0.4).max() < 3, "one ice for all levels"


@pytest.mark.parametrize(("level", "thickness"), list(enumerate([1.5, 2, 2.5, 2.5, 3], 1)))
def test_fog_keeps_the_brightest_value(level: int, thickness: float) -> None:
    white = struck("fog", level, plain(255)[0])
    cloud = (white.astype(float) / 255 * (1 + thickness) - 1) / thickness
    assert cloud.min() > -0.02 and cloud.max() < 1.02 and (white[..., :1] == white).all()
    bright = int(PHOTO.max())
    near(struck("fog", level), (PHOTO + cloud * thickness * 255) * bright / (bright + 255 * thickness), most=2, share=1)


# digital

@pytest.mark.parametrize(("level", "share"), list(enumerate([0.4, 0.3, 0.2, 0.1, 0.05], 1)))
def test_contrast_moves_values_to_the_mean_of_their_colour(level: int, share: float) -> None:
    means = PHOTO.reshape(-1, 3).mean(axis=0)
    near(struck("contrast", level), (PHOTO - means) * share + means)


@pytest.mark.parametrize(("sigma", "size"), [(170.8, 224), (19.52, 224), (2.44, 224), (2.44, 97)])
def test_the_smooth_field_is_a_gaussian_filter(sigma: float, size: int) -> None:
    field = rng().uniform(-1, 1, size=(size, 5))
    wanted = ndimage.gaussian_filter1d(field, sigma, axis=0, mode="reflect", truncate=3)
    assert np.abs(digital._smooth(size, sigma) @ field - wanted).max() < 1e-6


def test_places_between_pixels_are_mixed() -> None:
    frame = rng().random((40, 30, 3)).astype(np.float32)
    rows, columns = rng(1).uniform(-30, 70, size=(2, 50, 50))
    wanted = np.stack([ndimage.map_coordinates(frame[..., c].astype(float), [rows, columns], order=1, mode="reflect")
                       for c in range(3)], axis=-1)
    assert np.abs(pixels.sampled(frame, rows, columns) - wanted).max() < 1e-5


@pytest.mark.parametrize(("level", "strength", "smooth", "jump"), [
    (1, 488, 170.8, 24.4), (2, 488, 19.52, 48.8), (3, 12.2, 2.44, 4.88), (4, 17.08, 2.44, 4.88), (5, 29.28, 2.44, 4.88)])
def test_elastic_transform_moves_pixels_as_far_as_published(level: int, strength: float, smooth: float, jump: float) -> None:
    """A picture that tells in red where a pixel comes from: columns 15 to 208 have their own value."""
    slope = np.clip(np.arange(224) - 15, 0, None).astype(np.uint8)
    frame = np.repeat(np.stack([np.tile(slope, (224, 1)), np.tile(slope[:, None], (1, 224)), np.zeros((224, 224), np.uint8)], -1)[None],
                      1, axis=0)
    fine, ends = [], []
    for seed in range(8):
        red = apply(frame, Condition("elastic_transform", level), seed)[0, 60:164, 60:164, 0].astype(float) + 0.5
        rows, columns = np.mgrid[60:164, 60:164]
        design = np.stack([np.ones(red.size), rows.ravel(), columns.ravel()], axis=1)
        plane, *_ = np.linalg.lstsq(design, red.ravel(), rcond=None)
        fine.append(red.ravel() - design @ plane)
        ends.append(design[len(design) // 2] @ plane - (112 - 15))
    if smooth < 10:  # white noise of variance 1/3 behind a Gaussian has 1 / (4 pi sigma^2) of it
        wanted = strength * np.sqrt(1 / 3 / (4 * np.pi)) / smooth
        assert np.std(fine) == pytest.approx(np.hypot(wanted, 1 / np.sqrt(12)), rel=0.15)
    assert 0.2 * jump < np.std(ends) < 1.2 * jump


@pytest.mark.parametrize(("level", "share"), list(enumerate([0.6, 0.5, 0.4, 0.3, 0.25], 1)))
def test_pixelate_has_so_many_pixels(level: int, share: float) -> None:
    got = struck("pixelate", level).astype(float)
    small = int(224 * share)
    starts = [np.flatnonzero(np.abs(np.diff(got, axis=axis)).max(axis=(1 - axis, 2))) for axis in (0, 1)]
    assert [len(found) + 1 for found in starts] == [small, small]
    if 224 % small == 0:
        side = 224 // small
        means = PHOTO.reshape(small, side, small, side, 3).mean(axis=(1, 3))
        assert np.abs(got[::side, ::side] - means).max() <= 1


@pytest.mark.parametrize(("level", "quality"), list(enumerate([25, 18, 15, 10, 7], 1)))
def test_jpeg_has_the_quality(level: int, quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables in the file are those of annex K of the standard, scaled as libjpeg does."""
    files = []
    opened = Image.open
    monkeypatch.setattr(Image, "open", lambda file: files.append(file.getvalue()) or opened(file))
    got = struck("jpeg_compression", level)
    monkeypatch.undo()
    first_row = np.array([16, 11, 10, 16, 24, 40, 51, 61])
    tables = Image.open(io.BytesIO(files[0])).quantization
    assert tables[0][:8] == np.clip((first_row * (5000 // quality) + 50) // 100, 1, 255).tolist()
    assert np.array_equal(got, np.asarray(Image.open(io.BytesIO(files[0]))))


# one parameter, grey

LUMINANCE = PHOTO @ np.array([0.2125, 0.7154, 0.0721])


def test_grey_and_low_contrast() -> None:
    near(struck("greyscale", 1), (LUMINANCE + 0.5)[..., None].repeat(3, -1))
    for level, share in enumerate([0.5, 0.3, 0.15, 0.1, 0.05, 0.03, 0.01], 1):
        near(struck("low_contrast", level), (LUMINANCE * share + 127.5 * (1 - share) + 0.5)[..., None].repeat(3, -1))


@pytest.mark.parametrize("sigma", [1, 3, 5, 7, 10, 15, 40])
def test_low_pass_is_a_gaussian_filter(sigma: float) -> None:
    level = [1, 3, 5, 7, 10, 15, 40].index(sigma) + 1
    wanted = ndimage.gaussian_filter(LUMINANCE / 255, sigma, mode="constant", cval=0.4423)
    near(struck("low_pass", level)[..., 0], wanted * 255 + 0.5)


@pytest.mark.parametrize("sigma", [3, 1.5, 1, 0.7, 0.55, 0.45, 0.4])
def test_high_pass_is_the_rest(sigma: float) -> None:
    level = [3, 1.5, 1, 0.7, 0.55, 0.45, 0.4].index(sigma) + 1
    rest = LUMINANCE / 255 - ndimage.gaussian_filter(LUMINANCE / 255, sigma, mode="constant", cval=0.4423)
    near(struck("high_pass", level)[..., 0], (rest + 0.4423 - rest.mean()) * 255 + 0.5)


@pytest.mark.parametrize("side", [64, 63])
@pytest.mark.parametrize(("level", "width"), [(1, 30), (3, 90), (6, 180)])
def test_phase_noise_turns_phases_and_keeps_amplitudes(side: int, level: int, width: float) -> None:
    soft = (picture(side) // 8 + 112).astype(np.uint8)  # far from black and white
    before, after = (np.fft.fft2(frame.astype(float) @ np.array([0.2125, 0.7154, 0.0721]))
                     for frame in (soft, struck("phase_noise", level, soft)))
    strong = np.abs(before) > 40 * side * 0.29  # what rounding to whole numbers does not touch
    strong[0, 0] = False
    assert strong.sum() > 50 and np.abs(after[strong]) == pytest.approx(np.abs(before[strong]), rel=0.15)
    turned = np.degrees(np.angle(after[strong] / before[strong]))
    assert np.abs(turned).max() < width + 4 and turned.std() == pytest.approx(width / np.sqrt(3), rel=0.3)


@pytest.mark.parametrize(("level", "width"), list(enumerate([0.03, 0.05, 0.1, 0.2, 0.35, 0.6, 0.9], 1)))
def test_uniform_noise_is_uniform(level: int, width: float) -> None:
    got = struck("uniform_noise", level, plain(255)[0])[..., 0] / 255
    noise = got - 0.65  # white at 30 % contrast
    inside = (got > 0) & (got < 1)
    assert noise.min() >= max(-width, -0.65) - 0.002 and noise.max() <= min(width, 0.35) + 0.002
    low, high = max(-width, -0.65), min(width, 0.35)
    assert inside.mean() == pytest.approx((high - low) / (2 * width), abs=0.02)
    assert noise[inside].std() == pytest.approx((high - low) / np.sqrt(12), rel=0.02)


def test_rotation_turns_against_the_clock() -> None:
    corner = plain(0, 32)[0]
    corner[0, 31] = 255  # top right
    for level, place in ((1, (0, 0)), (2, (31, 0)), (3, (31, 31))):
        assert np.argwhere(struck("rotation", level, corner)[..., 0]).tolist() == [list(place)]


# shape and texture

def test_a_silhouette_is_the_thing_in_the_middle() -> None:
    rows, columns = np.mgrid[:96, :96]
    thing = (rows - 50) ** 2 / 900 + (columns - 44) ** 2 / 400 < 1
    frame = (np.where(thing[..., None], [190, 60, 40], [70, 120, 80]) + rng().normal(0, 12, (96, 96, 3))).clip(0, 255).astype(np.uint8)
    got = struck("silhouette", 1, frame)
    black = got[..., 0] == 0
    assert set(np.unique(got)) == {0, 255} and (black & thing).sum() / (black | thing).sum() > 0.95


def test_edges_lie_where_brightness_jumps() -> None:
    frame = plain(60, 96)[0]
    frame[:, 40:] = 180
    lines = struck("edges", 1, frame)[..., 0] == 0
    assert set(np.flatnonzero(lines.any(axis=0))) <= {39, 40} and lines.any(axis=1).mean() > 0.95


@pytest.mark.parametrize(("level", "cells"), list(enumerate([2, 4, 8, 16], 1)))
def test_shuffled_patches_are_all_there_and_none_at_its_place(level: int, cells: int) -> None:
    got = struck("patch_shuffle", level)
    side = 224 // cells

    def patches(frame: np.ndarray) -> list[bytes]:
        return [frame[r:r + side, c:c + side].tobytes() for r in range(0, 224, side) for c in range(0, 224, side)]

    before, after = patches(PHOTO), patches(got)
    assert sorted(before) == sorted(after) and not any(a == b for a, b in zip(before, after, strict=True) if before.count(a) == 1)


# clips

def moving(count: int = 9, side: int = 64) -> np.ndarray:
    return np.stack([PHOTO[40 + t:40 + t + side, 60 + 2 * t:60 + 2 * t + side] for t in range(count)])


@pytest.mark.parametrize(("level", "lost"), list(enumerate([1, 2, 4, 6, 7], 1)))
def test_dropped_frames_show_the_one_before(level: int, lost: int) -> None:
    clip = moving()
    got = apply(clip, Condition("frame_drop", level), 4)
    shown = [next(s for s in range(9) if np.array_equal(frame, clip[s])) for frame in got]
    assert shown[0] == 0 and sum(s != t for t, s in enumerate(shown)) == lost
    assert all(s == t or s == shown[t - 1] for t, s in enumerate(shown))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def test_compression_loses_more_at_higher_levels() -> None:
    clip = moving(9, 63)  # an odd side
    scores = [psnr(apply(clip, Condition("compression", level), 0), clip) for level in LEVELS]
    assert scores == sorted(scores, reverse=True) and scores[0] > 28 and scores[4] < 22


def test_a_shaken_camera_moves_as_its_path_says() -> None:
    clip = np.repeat(PHOTO[None], 6, axis=0)
    path = clip_faults.shake_path(6, (4, 0), 224, rng(3))
    got = clip_faults.shake(clip, (4, 0), rng(3))
    assert not path[0].any() and np.array_equal(got[0], PHOTO)
    for frame, (x, y, angle) in zip(got, path, strict=True):
        wanted = ndimage.shift(PHOTO.astype(float), (y, x, 0), order=1, mode="mirror")
        assert angle == 0 and np.abs(frame - wanted).mean() < 1.2  # OpenCV moves by 1/32 px
    steps = np.concatenate([clip_faults.shake_path(16, (4, 2), 224, rng(seed)) for seed in range(200)])
    assert np.diff(steps.reshape(200, 16, 3), axis=1).std(axis=(0, 1)) == pytest.approx(
        np.sqrt(2 * (1 - 0.7)) * np.array([8.96, 8.96, 2]), rel=0.06)
