"""The demo's labelled clips: the label is what the picture does, and nothing else tells it."""

from __future__ import annotations

import json
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs.prepare import main as prepare
from jobs.submit.example import demo_pictures
from jobs.submit.example.demo_clips import FRAMES, MOTIONS, SHOTS, SIZE_PX, decode, encode, main, render, scenes
from tests.support.facilities import need
from tests.support.videos import reference_frames

need("clips")
need("ffmpeg")
CLIPS = 2
MIDDLE = FRAMES // 2
STEP = 4  # frames between the two pictures that are compared
# what Pillow must do to a picture to get the one STEP frames later, at a middling pace; it maps output to input
SHIFT_PX, SCALE, DEGREES = 11.0, 1.07, 5.1


def affine(picture: Image.Image, scale: float, right: float, down: float) -> Image.Image:
    rest = (1 - scale) * SIZE_PX / 2
    return picture.transform(picture.size, Image.Transform.AFFINE, (scale, 0, rest + right, 0, scale, rest + down),
                             Image.Resampling.BILINEAR)


def guesses(picture: Image.Image) -> dict[str, np.ndarray]:
    """The picture a moment later under each of nine camera motions: Pillow's own geometry, not that of the code."""
    made = {
        "still": picture,
        "pan left": affine(picture, 1, -SHIFT_PX, 0), "pan right": affine(picture, 1, SHIFT_PX, 0),
        "pan up": affine(picture, 1, 0, -SHIFT_PX), "pan down": affine(picture, 1, 0, SHIFT_PX),
        "zoom in": affine(picture, 1 / SCALE, 0, 0), "zoom out": affine(picture, SCALE, 0, 0),
        # a camera that rolls clockwise sees the world turn the other way, which is Pillow's way
        "rotate clockwise": picture.rotate(DEGREES, Image.Resampling.BILINEAR),
        "rotate counterclockwise": picture.rotate(-DEGREES, Image.Resampling.BILINEAR),
    }
    return {name: inner(image) for name, image in made.items()}


def inner(image: Image.Image) -> np.ndarray:
    """Without the rim, which no picture knows of the next one, and without the finest detail."""
    return np.asarray(image.crop((16, 16, SIZE_PX - 16, SIZE_PX - 16)).reduce(2), dtype=np.float32)


def measured(clip: np.ndarray) -> str:
    """The camera motion that explains all pairs of pictures best; of the picture only the half that it explains well."""
    pictures = [Image.fromarray(frame).convert("L") for frame in clip]
    errors: Counter[str] = Counter()
    for before, after in zip(pictures[::STEP], pictures[STEP::STEP], strict=False):
        for name, guess in guesses(before).items():
            errors[name] += np.log(np.median(abs(guess - inner(after))) + 0.5)
    return min(errors, key=errors.__getitem__)


def shifts_px(clip: np.ndarray) -> np.ndarray:
    """Shift of the picture from each frame to the next by phase correlation, [T - 1, 2] down and right."""
    grey = clip.mean(-1)
    window = np.hanning(SIZE_PX)[:, None] * np.hanning(SIZE_PX)
    spectra = np.fft.fft2((grey - grey.mean((1, 2), keepdims=True)) * window)
    cross = spectra[1:] * spectra[:-1].conj()
    peaks = np.fft.ifft2(cross / (abs(cross) + 1e-9)).real.reshape(len(cross), -1).argmax(1)
    found = np.stack(np.unravel_index(peaks, (SIZE_PX, SIZE_PX)), axis=1)
    return np.where(found > SIZE_PX // 2, found - SIZE_PX, found)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "clips"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert main(["--out", str(folder), "--clips", str(CLIPS)]) == 0
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def clips(out: Path) -> dict[tuple[str, str, int], np.ndarray]:
    """Data set, class and number to the frames that the ffmpeg program reads."""
    found = {(path.parent.parent.name, path.parent.name, int(path.stem)): reference_frames(path, SIZE_PX, SIZE_PX)
             for path in out.glob("*/*/*.mp4")}
    assert all(frames.shape == (FRAMES, SIZE_PX, SIZE_PX, 3) for frames in found.values())
    return found


def test_each_class_has_the_same_number_of_clips(out: Path, clips: dict[tuple[str, str, int], np.ndarray]) -> None:
    assert set(clips) == {(name, motion, n) for name in SHOTS for motion in MOTIONS for n in range(CLIPS)}
    assert all(stat.S_IMODE(folder.stat().st_mode) == 0o700 for folder in (out, *out.glob("*/"), *out.glob("*/*/")))


def test_pictures_move_as_the_label_says(clips: dict[tuple[str, str, int], np.ndarray]) -> None:
    wrong = {key: found for key, clip in clips.items() if key[1] != "shake" and (found := measured(clip)) != key[1]}
    assert not wrong


def test_a_shaking_camera_jumps_to_and_fro_and_a_still_one_does_not(clips: dict[tuple[str, str, int], np.ndarray]) -> None:
    for (_, motion, _), clip in clips.items():
        if motion in ("shake", "still"):
            jumps = np.hypot(*shifts_px(clip).T)
            assert np.median(jumps) > 6 if motion == "shake" else np.median(jumps) <= 1


def test_the_middle_picture_is_the_same_in_all_classes(clips: dict[tuple[str, str, int], np.ndarray]) -> None:
    for name in SHOTS:
        for number in range(CLIPS):
            middle = np.stack([clips[name, motion, number][MIDDLE].astype(float) for motion in MOTIONS])
            assert abs(middle - middle.mean(0)).mean() < 4  # levels of 255: what compression does to it
            others = clips[name, "zoom in", number][[0, -1]]
            assert abs(others - middle.mean(0)).mean() > 10  # the bound above means something


def test_the_same_seed_gives_the_same_files(out: Path, tmp_path: Path) -> None:
    scene = scenes("motion", CLIPS, 0)[1]
    footage = decode(scene.shot)[scene.frames() - scene.shot.first].transpose(0, 3, 1, 2)
    again = tmp_path / "again.mp4"
    encode(again, render(np.ascontiguousarray(footage, dtype=np.float32), scene.poses("shake")))
    assert again.read_bytes() == (out / "motion/shake/01.mp4").read_bytes()
    assert scenes("motion", 12, 0)[:CLIPS] == scenes("motion", CLIPS, 0) != scenes("motion", CLIPS, 1)


def test_clips_that_are_there_are_not_rendered_again(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.mp4")}
    assert main(["--out", str(out), "--clips", str(CLIPS)]) == 0
    assert capsys.readouterr().out.split() == [str(out / name) for name in SHOTS]
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.mp4")}


def test_folders_of_others_are_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "motion/dear.txt"
    mine.parent.mkdir()
    mine.write_text("keep me")
    assert main(["--out", str(tmp_path)]) == 2
    assert "change --out" in capsys.readouterr().err and mine.read_text() == "keep me"
    (tmp_path / "clips.json").write_text("{}")
    assert main(["--out", str(tmp_path)]) == 2, "it began here once, and this file is not of its kind"
    assert "1 of its 1 files are not of this command" in capsys.readouterr().err and mine.read_text() == "keep me"


def test_cameras_stay_within_the_footage_whatever_the_seed() -> None:
    drawn = [scene for name in SHOTS for seed in range(5) for scene in scenes(name, 12, seed)]
    corners = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]) / 2
    for scene in drawn:
        for motion in MOTIONS:
            x, y, side, angle = (column[:, None] for column in scene.poses(motion).T)
            right = x + side * (corners[:, 0] * np.cos(angle) - corners[:, 1] * np.sin(angle))
            down = y + side * (corners[:, 0] * np.sin(angle) + corners[:, 1] * np.cos(angle))
            assert right.min() >= 2 and right.max() <= scene.shot.width_px - 2 and down.min() >= 2 and down.max() <= 238
        assert scene.shot.first <= scene.frames().min() and scene.frames().max() < scene.shot.first + scene.shot.frames


def test_training_and_validation_share_no_footage(out: Path) -> None:
    plan = json.loads((out / "clips.json").read_text())
    files = {name: {scene["shot"]["file"].split("_")[0] for scene in plan[name]} for name in SHOTS}
    assert files["motion"] and files["motion-val"] and not files["motion"] & files["motion-val"]


@pytest.mark.parametrize("shot", [shot for shots in SHOTS.values() for shot in shots], ids=str)
def test_a_shot_has_no_cut(shot) -> None:  # type: ignore[no-untyped-def]
    frames = decode(shot)[:, ::4, ::4].mean(-1)
    assert abs(np.diff(frames, axis=0)).mean((1, 2)).max() < 30  # the cuts of bikes are at 50 and more


def test_the_manifests_fit_each_other(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [str(tmp_path / f"{name}.csv") for name in SHOTS]
    for name, path in zip(SHOTS, made, strict=True):
        assert prepare(["manifest", str(out / name), "--labels", "folders", "--no-verify", "--workers", "1", "--out", path]) == 0
    assert prepare(["check", *made]) == 0
    said = f"{len(MOTIONS) * CLIPS} videos to train on and {len(MOTIONS) * CLIPS} to validate on share no recording; {len(MOTIONS)} classes"
    assert said in capsys.readouterr().err
    assert prepare(["shots", made[0], "--shots", str(CLIPS)]) == 0


@pytest.mark.parametrize("wrong", [["--clips", "0"], ["--seed", "-1"], ["--clip", "3"]])
def test_bad_numbers_are_refused(wrong: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--out", str(tmp_path / "x"), *wrong])
    assert left.value.code == 2 and wrong[0] in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_the_pictures_of_the_objects_demo_are_the_digits_of_scikit_learn(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    assert demo_pictures.main(["--out", str(tmp_path), "--val", "13"]) == 0
    images, label = load_digits(return_X_y=True)
    learn, test = ({int(path.stem): path for path in (tmp_path / name).glob("*/*.png")} for name in ("digits", "digits-val"))
    assert len(test) == 130 and sorted([*learn, *test]) == list(range(1797)), "each once"
    for digit in range(10):
        assert sorted(row for row, path in test.items() if path.parent.name == str(digit)) == np.flatnonzero(label == digit)[-13:].tolist()
    for row in (0, 7, 1000):
        path = (learn | test)[row]
        small = np.asarray(Image.open(path).resize((8, 8), Image.Resampling.BOX).convert("L"), float) / 16
        assert path.parent.name == str(label[row]) and np.corrcoef(small.ravel(), images[row])[0, 1] > 0.97
    few = {int(path.stem) for path in (tmp_path / "digits-100").glob("*/*.png")}
    assert len(few) == 100 and few < set(test)
    assert demo_pictures.main(["--out", "/proc/none"]) == 2
    mine = tmp_path / "digits-val/3/dear.txt"
    mine.write_text("keep me")
    before = sorted(tmp_path.rglob("*"))
    assert demo_pictures.main(["--out", str(tmp_path)]) == 2 and sorted(tmp_path.rglob("*")) == before, "no folder was touched"
