"""Measures of footage against videos whose motion, blur, brightness and repeats are known."""

import math

import numpy as np
import pytest

from tests.support.facilities import need
from tests.support.videos import X264, ffmpeg
from vidmae.footage.open_video import open_video
from vidmae.insight.footage_measures import PAIR_S, frame_pairs, measure, moments_of, perceptual_hash, small_grey
from vidmae.insight.vision import camera_flow

FPS = 30
GREY = "format=yuv444p,hue=s=0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Noise of coarse and fine structure that moves, stands still, is blurred, is dark: 320 x 240, 3 s."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("measures")
    texture = folder / "texture.png"
    rng = np.random.default_rng(0)
    from PIL import Image
    octaves = [rng.uniform(40, 216, (480 // px, 1280 // px)).repeat(px, 0).repeat(px, 1) for px in (8, 32, 160)]
    Image.fromarray(np.mean(octaves, axis=0).astype(np.uint8)).save(texture)
    still = ["-loop", "1", "-framerate", str(FPS), "-t", "3", "-i", texture]
    for name, filters in {"still": "crop=320:240:0:0", "moving": "crop=320:240:2*n:0", "fast": "crop=320:240:4*n:0",
                          "blurred": "crop=320:240:0:0,gblur=sigma=8", "dark": "crop=320:240:0:0,lutyuv=y=val*0.25"}.items():
        ffmpeg(*still, "-vf", f"{GREY},{filters}", *X264, "-crf", "10", folder / f"{name}.mp4")
    ffmpeg("-f", "lavfi", "-i", f"color=c=0x404040:size=320x240:rate={FPS}:duration=2", *X264, folder / "flat.mp4")
    return folder


def measured(path) -> dict:
    with open_video(path, "pyav") as video:
        (first, later), = frame_pairs([1.0], video.fps, video.num_frames)
        frames = video.read([first, later])
        return measure(frames[0], frames[1], (later - first) / video.fps)


def test_motion_is_what_the_camera_does(folder):
    """2 px a frame of a short side of 240 px at 30 frames a second are 25 % a second."""
    still, moving, fast = (measured(folder / f"{name}.mp4")["motion_pct_per_s"] for name in ("still", "moving", "fast"))
    assert still < 0.2 and moving == pytest.approx(25, rel=0.1) and fast == pytest.approx(50, rel=0.15)


def test_blur_and_brightness(folder):
    still, blurred, dark = (measured(folder / f"{name}.mp4") for name in ("still", "blurred", "dark"))
    with open_video(folder / "still.mp4", "pyav") as video:
        grey = small_grey(video.read([30])[0]).astype(float)
    by_hand = -4 * grey[1:-1, 1:-1] + grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    assert still["sharpness"] == pytest.approx(by_hand.var(), rel=0.05)
    assert blurred["sharpness"] < still["sharpness"] / 20 and blurred["brightness"] == pytest.approx(still["brightness"], abs=3)
    assert still["contrast"] == pytest.approx(grey.std(), rel=1e-3)
    flat = measured(folder / "flat.mp4")
    assert flat["brightness"] == pytest.approx(64, abs=2) and flat["contrast"] < 1 and flat["sharpness"] < 1 and flat["motion_pct_per_s"] < 0.2
    assert dark["brightness"] < still["brightness"] / 2.5 and dark["contrast"] < still["contrast"] / 2.5


def test_a_hash_outlives_compression_size_and_brightness_and_tells_pictures_apart(folder):
    def bits(one: int, other: int) -> int:
        return f"{one ^ other:b}".count("1")

    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (12, 16)).astype(np.uint8).repeat(20, 0).repeat(20, 1) for _ in range(30)]
    hashes = [perceptual_hash(picture) for picture in pictures]
    apart = [bits(hashes[i], hashes[j]) for i in range(30) for j in range(i)]
    assert np.mean(apart) == pytest.approx(32, abs=2) and min(apart) > 10
    for picture, known in zip(pictures, hashes, strict=True):
        assert bits(perceptual_hash((picture * 0.7 + 20).astype(np.uint8)), known) <= 4
        assert bits(perceptual_hash(picture[::2, ::2]), known) <= 4
    still, dark, blurred, moving = (int(str(measured(folder / f"{n}.mp4")["hash"]), 16) for n in ("still", "dark", "blurred", "moving"))
    assert bits(still, dark) <= 6 and bits(still, blurred) <= 6 and bits(still, moving) > 10


def test_a_hash_is_that_of_a_cosine_transform():
    from scipy.fft import dctn
    picture = np.random.default_rng(2).integers(0, 256, (32, 32)).astype(np.uint8)
    waves = dctn(picture.astype(float))[:8, :8] * _scales()
    bits = (waves.ravel() > np.median(waves.ravel()[1:])).astype(int)
    bits[0] = 0
    assert perceptual_hash(picture) == int("".join(map(str, bits)), 2)


def _scales() -> float:
    return 0.25  # scipy's has a factor of 2 for each axis; the median does not mind


@pytest.mark.parametrize(("seconds", "most", "moments"), [(0.4, 20, [0.2]), (3.9, 20, [0.65, 1.95, 3.25]), (100, 4, [12.5, 37.5, 62.5, 87.5])])
def test_moments_are_spread_evenly(seconds, most, moments):
    assert moments_of(seconds, most).tolist() == pytest.approx(moments)


@pytest.mark.parametrize(("frames", "fps"), [(1, 30), (2, 30), (5, 30), (9, 30), (900, 30), (40, 12.5)])
def test_pairs_lie_within_the_video(frames, fps):
    pairs = frame_pairs(moments_of(frames / fps, 20), fps, frames)
    assert (pairs >= 0).all() and (pairs < frames).all() and ((pairs[:, 1] > pairs[:, 0]) | (frames < 2)).all()
    if frames > 100:
        assert (np.diff(pairs) == math.floor(PAIR_S * fps + 0.5)).all()


def moving(shift_px: tuple[float, float], zoom: float, box_px: float) -> np.ndarray:
    """A flow: a camera that shifts and zooms, and a box of a sixth of the picture that moves to the right by itself."""
    y, x = np.mgrid[:96, :128].astype(float)
    flow = np.stack([shift_px[0] + zoom * (x - x.mean()), shift_px[1] + zoom * (y - y.mean())], axis=-1)
    flow[30:70, 20:70, 0] += box_px
    return flow


def test_the_camera_is_told_from_what_moves():
    noise = np.random.default_rng(0).normal(0, 0.1, (96, 128, 2))
    for shift_px, zoom, box_px in (((3, -1), 0.0, 6), ((0, 0), 0.05, -4), ((0, 0), 0.0, 5), ((2, 2), -0.02, 0)):
        flow = moving(shift_px, zoom, box_px)
        camera = camera_flow((flow + noise).astype(np.float32))
        assert np.abs(camera - moving(shift_px, zoom, 0)).max() < 0.35, (shift_px, zoom, box_px)
        rest = np.linalg.norm(flow - camera, axis=-1)
        assert rest.mean() == pytest.approx(abs(box_px) * 40 * 50 / flow[..., 0].size, abs=0.15)


def test_of_a_camera_that_moves_over_a_still_picture_little_is_left():
    rng = np.random.default_rng(1)
    coarse = [rng.uniform(40, 216, (-(-160 // px), -(-240 // px))).repeat(px, 0).repeat(px, 1)[:160, :240] for px in (4, 16, 64)]
    picture = np.mean(coarse, axis=0).astype(np.uint8)[..., None].repeat(3, axis=-1)
    found = measure(picture[:128, :160], picture[:128, 5:165], 1.0)  # 5 px of 128 in a second
    assert found["motion_pct_per_s"] == pytest.approx(100 * 5 / 128, rel=0.15)
    assert found["camera_pct_per_s"] == pytest.approx(100 * 5 / 128, rel=0.1) and found["moving_pct_per_s"] < 1
