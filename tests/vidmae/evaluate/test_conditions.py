"""Names of conditions, and what holds for every corruption: shape, type, the same draws again, constant or flickering."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from skimage import data

from tests.support.launching import ROOT
from vidmae.evaluate.corruptions.conditions import ALL, FLICKER, Condition, apply, parse_conditions
from vidmae.evaluate.corruptions.conditions_page import page
from vidmae.settings.layers import ConfigError

EVERYTHING = parse_conditions("clean,imagenet-c,parametric,shape,video,time")
STRONGEST = [Condition(name, len(kind.constants)) for name, kind in ALL.items()]
IMAGES = [condition for condition in STRONGEST if condition.group not in ("video", "time")]
FLICKERING = [condition for condition in STRONGEST if condition.name.endswith(FLICKER)]
PUBLISHED = ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
             "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"]


def picture(side: int = 64) -> np.ndarray:
    """A photograph, uint8 [side, side, 3]."""
    return np.asarray(Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BOX))


def still(frames: int = 5, side: int = 64) -> np.ndarray:
    """A clip in which nothing moves."""
    return np.repeat(picture(side)[None], frames, axis=0)


def text_of(condition: Condition) -> str:
    return condition.text


def test_groups_hold_what_was_published() -> None:
    named = parse_conditions("imagenet-c")
    assert len(named) == 75 and [c.name for c in named[::5]] == PUBLISHED and {c.level for c in named} == {1, 2, 3, 4, 5}
    assert [(group, sum(c.group == group for c in named)) for group in ("noise", "blur", "weather", "digital")] == [
        ("noise", 15), ("blur", 20), ("weather", 20), ("digital", 20)]
    assert len(parse_conditions("parametric")) == 38
    assert [c.text for c in parse_conditions("shape")] == ["silhouette:1", "edges:1", *(f"patch_shuffle:{n}" for n in range(1, 5))]
    assert len(parse_conditions("video")) == 15 + 75
    assert {c.name for c in EVERYTHING if c.generated} == {"silhouette", "edges", "patch_shuffle", "frost", "frost-flicker"}


def test_a_list_is_read_as_it_is_written() -> None:
    read = parse_conditions(" clean, gaussian_noise:3,fog, gaussian_noise:3 ,")
    assert [c.text for c in read] == ["clean", "gaussian_noise:3", "fog:1", "fog:2", "fog:3", "fog:4", "fog:5"]
    assert [(c.level, c.group) for c in read[:3]] == [(0, "clean"), (3, "noise"), (1, "weather")]
    assert parse_conditions(",".join(c.text for c in EVERYTHING)) == EVERYTHING
    assert len({c.text for c in EVERYTHING}) == len(EVERYTHING)


@pytest.mark.parametrize(("text", "says"), [
    ("gausian_noise", "did you mean gaussian_noise"), ("imagenet_c", "did you mean imagenet-c"), ("fog:6", "levels 1 to 5, got 6"),
    ("fog:0", "got 0"), ("fog:strong", "whole number"), ("fog:", "whole number"), ("noise:2", "is a group"), ("", "no condition"),
    ("clean:2", "has no levels"), ("fog-flicker:9", "levels 1 to 5"), ("snow:-1", "whole number")])
def test_what_cannot_be_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match="--conditions") as refused:
        parse_conditions(text)
    assert says in str(refused.value)


@pytest.mark.parametrize("condition", EVERYTHING, ids=text_of)
def test_each_condition_gives_frames_of_the_same_kind_and_the_same_ones_again(condition: Condition) -> None:
    frames = still(3, 34)
    frames = frames if condition.name == "rotation" else frames[:, :, :29]  # an odd number of columns
    before = frames.copy()
    out = apply(frames, condition, 5)
    assert out.dtype == np.uint8 and out.shape == frames.shape and np.array_equal(frames, before)
    assert np.array_equal(out, apply(frames, condition, 5))


@pytest.mark.parametrize("condition", STRONGEST, ids=text_of)
def test_seeds_matter_where_something_is_drawn(condition: Condition) -> None:
    clip = np.stack([np.roll(picture(36), step, axis=1) for step in range(6)])
    first = apply(clip, condition, 1)
    assert any(not np.array_equal(first, apply(clip, condition, seed)) for seed in range(2, 9)) is ALL[condition.name].drawn


@pytest.mark.parametrize("condition", IMAGES, ids=text_of)
def test_a_corruption_of_pictures_is_constant_over_time(condition: Condition) -> None:
    frames = still()
    out = apply(frames, condition, 3)
    assert (out == out[:1]).all()
    assert np.array_equal(out[:1], apply(frames[:1], condition, 3)), "an image is a clip of one frame"
    assert not np.array_equal(out, frames)


@pytest.mark.parametrize("condition", FLICKERING, ids=text_of)
def test_a_flickering_one_is_drawn_anew_for_each_frame(condition: Condition) -> None:
    frames = still()
    out = apply(frames, condition, 3)
    changed = [not np.array_equal(frame, frames[0]) for frame in out]
    distinct = len({frame.tobytes() for frame in out})
    if ALL[condition.name.removesuffix(FLICKER)].drawn:
        assert all(changed) and distinct == 5
    else:
        assert sum(changed) == 3 and distinct == 2
    assert not np.array_equal(apply(frames[:1], condition, 3), frames[:1]), "one frame is struck"


@pytest.mark.parametrize("name", ["frame_drop", "shake"])
def test_an_image_has_no_faults_of_clips(name: str) -> None:
    frames = still(1)
    assert np.array_equal(apply(frames, Condition(name, 5), 1), frames)


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in
                                  ("glass_blur", "motion_blur", "snow", "frost", "fog", "elastic_transform")])
def test_levels_share_their_draws_and_grow_stronger(name: str) -> None:
    frames = still(1, 64)
    errors = [np.square(apply(frames, Condition(name, level), 7).astype(float) - frames).mean() for level in range(1, 6)]
    assert errors == sorted(errors) and errors[4] > 1.5 * errors[0]


@pytest.mark.parametrize("bad", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8),
                                 np.zeros((1, 8, 8, 1), np.uint8)])
def test_frames_of_another_kind_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]"):
        apply(bad, Condition("fog", 1), 0)


def test_a_picture_that_is_not_square_cannot_lie_on_its_side() -> None:
    wide = still()[:, :40]
    assert apply(wide, Condition("rotation", 2), 0).shape == wide.shape
    with pytest.raises(ValueError, match="40 x 64 px cannot turn by 90 degrees"):
        apply(wide, Condition("rotation", 1), 0)


def test_the_page_is_that_of_the_code() -> None:
    path = ROOT / "vidmae/evaluate/corruptions/README.md"
    assert path.read_text() == page(), f"python -m vidmae.evaluate.corruptions.conditions_page > {path.relative_to(ROOT)}"
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(ALL) - 15 + 1


def test_names_are_read_without_torch_or_opencv() -> None:
    program = """import sys; from vidmae.evaluate.corruptions.conditions import parse_conditions
parse_conditions("imagenet-c,video"); print(sorted({"torch", "cv2", "av", "scipy", "PIL"} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"
