"""Surprise of a small model: from the weights to the tables, on generated scenes and on the same scenes as files."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from jobs import surprise as surprise_job
from jobs.standing.surprise_show import show
from tests.support.runs import export_model
from vidmae.clips.windows import WindowSpec
from vidmae.footage.decoders.reader import DecodeError
from vidmae.insight.surprise import surprise
from vidmae.insight.surprise.masked_surprise import check_contexts, context_mask, surprise_of
from vidmae.insight.surprise.pair_list import Place, content_of, read_pairs
from vidmae.insight.surprise.surprises import Surprises
from vidmae.insight.surprise.violations import CONCEPTS, make_violation
from vidmae.insight.surprise.whole_video import WholeReader
from vidmae.model.masking import removed_pixels
from vidmae.model.trained import untrained
from vidmae.model.weights import save_safetensors
from vidmae.runs.record import read_json
from vidmae.settings.config import ModelConfig
from vidmae.settings.layers import ConfigError, to_yaml
from vidmae.settings.programs.surprise_config import SurpriseConfig

NANO = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=8, pred_t_dim=8, decoder_embed_dim=48, decoder_depth=1,
                   mask_ratio=0.75, norm_pix_loss=True)
FPS = 7.5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("weights") / "weights.safetensors", NANO, seed=5, sampling_rate=4, target_fps=30.0)


def start(out: Path, weights: Path, *flags: str, **settings) -> int:
    out.mkdir(exist_ok=True)
    config = SurpriseConfig(weights=str(weights), read_limit_s=0, device="cpu", **settings)
    (out / "config.yaml").write_text(to_yaml(config))
    return surprise.main([str(out), *flags])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """A scene of each concept over noise."""
    out = tmp_path_factory.mktemp("done")
    assert start(out, weights, scenes=1) == 0
    return out


def test_every_video_has_a_row_for_each_window_and_context(done):
    found = rows(done / "surprise.csv")
    assert len(found) == len(CONCEPTS) * 4 * 3 * 3
    assert [(row["video"], row["context"], row["start_frame"]) for row in found[:9]] == [
        ("1", c, s) for c in ("2", "4", "6") for s in ("0", "2", "4")]
    assert list(found[0])[4:] == ["model", "model_pixel", "untrained", "untrained_pixel", "hold", "difference", "flow", "brightness", "oracle"]
    assert all(value != "" for row in found for value in row.values())


def test_the_oracle_is_right_and_brightness_is_at_chance(done):
    found = {(row["concept"], row["method"]): float(row["accuracy_pct"]) for row in rows(done / "concepts.csv")
             if (row["context"], row["reduction"]) == ("all", "mean")}
    for concept in ("all", *CONCEPTS):
        assert (found[concept, "oracle"], found[concept, "brightness"], found[concept, "difference"]) == (100, 50, 50)


def test_surprise_is_the_loss_of_training(done, weights):
    model = untrained(NANO, 5)
    video = make_violation("shape", [], num_frames=8, size=32, seed=(0, 0)).video("AB")
    number = str(CONCEPTS.index("shape") * 4 + 2)  # AA, AB, BB, BA of each scene
    found = {(row["context"], row["start_frame"]): row for row in rows(done / "surprise.csv") if row["video"] == number}
    clip, mask = torch.from_numpy(video[2:10])[None], context_mask(model.shape, 4, 1)
    with torch.no_grad():
        assert float(found["4", "2"]["model"]) == pytest.approx(float(model(clip, mask)), rel=1e-5)
    hidden = np.zeros((8, 32, 32), dtype=bool)
    hidden[4:] = True
    assert np.array_equal(removed_pixels(mask, model.shape)[0].numpy(), hidden)
    filled = model.reconstruct(clip, mask)[0].numpy()
    assert filled[4:].min() > 0 and filled[4:].max() < 1, "nothing is clamped"
    expected = ((filled - video[2:10] / 255) ** 2)[hidden].mean()
    assert float(found["4", "2"]["model_pixel"]) == pytest.approx(expected, rel=1e-4)
    change = np.diff(video.astype(float) / 255, axis=0) ** 2
    assert float(found["4", "2"]["difference"]) == pytest.approx(change[5:9].mean(), rel=1e-5)


def test_of_a_model_of_plain_pixels_both_losses_are_proportional():
    model = untrained(replace(NANO, norm_pix_loss=False), 1)
    windows = np.random.default_rng(0).integers(0, 256, (3, 8, 32, 32, 3), dtype=np.uint8)
    found = surprise_of(model, torch.device("cpu"), 2)(windows, 2)
    np.testing.assert_allclose(found["_pixel"], found[""] * 0.225**2, rtol=1e-6)
    with torch.no_grad():
        each = [float(model(torch.from_numpy(w)[None], context_mask(model.shape, 2, 1))) for w in windows]
    np.testing.assert_allclose(found[""], each, rtol=1e-5)
    with pytest.raises(ValueError, match="predicts pixels; this one is a Linear"):
        surprise_of(torch.nn.Linear(1, 1), torch.device("cpu"), 2)


def test_shards_give_the_same_tables_and_nothing_names_a_file(done, weights, tmp_path):
    assert [start(tmp_path, weights, "--shard", shard, scenes=1) for shard in ("1/2", "0/2")] == [0, 0]
    for name in ("surprise.csv", "pairs.csv", "concepts.csv", "concepts.md", "surprise.png"):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes()
        assert oct((done / name).stat().st_mode & 0o777) == "0o600"
    record = read_json(done / "result.json")
    assert record.items() >= {"kind": "surprise", "pairs": 10, "pairs_left_out": 0, "videos": 20, "context_frames": [2, 4, 6],
                              "sampling_rate": 4, "norm_pix_loss": True}.items()
    assert Image.open(done / "surprise.png").size == (3 * 320, 2 * 220)
    said = io.StringIO()
    show(record, Console(file=said, width=200))
    assert "impossible surprises more, % of 10 pairs" in said.getvalue() and "permanence" in said.getvalue()


def write_frames(folder: Path, video: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for t, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"{t}.png")


def test_files_have_the_surprise_of_what_they_show(done, weights, tmp_path, capsys):
    scene = make_violation("permanence", [], num_frames=8, size=32, seed=(0, 0))
    for order in ("AA", "AB"):
        write_frames(tmp_path / f"private-{order}", scene.video(order))
    (tmp_path / "private-bad.mp4").write_text("no video")
    (tmp_path / "pairs.csv").write_text(f"possible,impossible,concept,set,fps\nprivate-AA,private-AB,permanence,mine,{FPS}\n"
                                        f"private-AA,private-bad.mp4,shape,mine,{FPS}\n")
    settings = {"pairs": str(tmp_path / "pairs.csv"), "pairs_content": content_of(read_pairs(tmp_path / "pairs.csv"))}
    assert start(tmp_path / "out", weights, **settings) == 3
    theirs = [row for row in rows(done / "surprise.csv") if row["video"] in ("1", "2")]
    found = rows(tmp_path / "out/surprise.csv")
    assert found == [{name: value for name, value in row.items() if name != "oracle"} for row in theirs]
    record = read_json(tmp_path / "out/result.json")
    assert record["pairs"] == record["pairs_left_out"] == 1 and sum(record["unreadable"].values()) == 1
    written = "".join(path.read_text() for path in (tmp_path / "out").glob("*.*") if path.suffix != ".png" and path.name != "config.yaml")
    assert "private" not in "".join([written, *capsys.readouterr()])
    assert start(tmp_path / "named", weights, names=True, **settings) == 3
    assert rows(tmp_path / "named/pairs.csv")[0]["impossible_path"] == str(tmp_path / "private-AB")
    assert start(tmp_path / "other", weights, **{**settings, "pairs_content": "0"}) == 2
    assert "others than when this was started" in capsys.readouterr().err


@pytest.mark.parametrize("place", [{}, {"start_frame": 4}, {"start_s": 0.4}])
def test_frames_are_as_far_apart_as_in_training(tmp_path, place):
    """40 frames at 10 a second; a clip of 8 at stride 13 of 30 covers 34.7 frames, floor(linspace) as in training."""
    write_frames(tmp_path / "video", np.arange(40, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 12, 3), dtype=np.uint8))
    spec = WindowSpec(num_frames=8, sampling_rate=13, target_fps=30.0, img_size=8)
    found = WholeReader(spec, "pyav")(Place(str(tmp_path / "video"), fps=10.0, **place))[:, 4, 4, 0].tolist()
    step = (13 * 8 / 30 * 10 - 1) / 7
    assert found == [int(first) for first in np.arange(4 if place else 0, 40, step)]
    if not place:
        assert found[:8] == np.floor(np.linspace(0, 13 * 8 / 3 - 1, 8)).astype(int).tolist()
    with pytest.raises(DecodeError, match=r"shorter than a clip of 4\.53 s"):
        WholeReader(replace(spec, sampling_rate=17), "pyav")(Place(str(tmp_path / "video"), fps=10.0))


def test_context_lengths_are_checked(weights, tmp_path, capsys):
    shape = untrained(NANO).shape
    assert check_contexts((), shape) == (2, 4, 6) and check_contexts((6, 2), shape) == (6, 2)
    for wrong in ((3,), (8,), (2, 2)):
        with pytest.raises(ValueError, match="different multiples of 2, the frames of a token, from 2 to 6"):
            check_contexts(wrong, shape)
    assert start(tmp_path, weights, scenes=1, context_frames=(2, 12)) == 2
    assert "--context-frames 2,12: allowed" in capsys.readouterr().err


def test_a_model_of_features_is_refused_before_a_node_is_asked(tmp_path, capsys):
    save_safetensors({"w": torch.zeros(1)}, tmp_path / "f.safetensors", {"config": '{"target": "features"}'})
    out = tmp_path / "out"
    assert surprise_job.main(["--weights", str(tmp_path / "f.safetensors"), "--scenes", "1", "--out", str(out), "--dry-run"]) == 2
    assert "predicts features (model.target) and has no pixel decoder" in capsys.readouterr().err and not out.exists()


def test_bad_settings_name_the_flag():
    for settings, flag in (({}, "--scenes"), ({"scenes": 1, "pairs": "p"}, "--scenes"), ({"pairs": "p", "backgrounds": "b"}, "--backgrounds"),
                           ({"scenes": 1, "window_step": 0}, "--window-step"), ({"scenes": 1, "batch": 0}, "--batch")):
        with pytest.raises(ConfigError, match=f"{flag} is .*allowed"):
            SurpriseConfig(weights="w", **settings)


def test_an_image_model_is_refused(tmp_path, capsys):
    image = export_model(tmp_path / "image.safetensors", replace(NANO, num_frames=1, t_patch_size=1, pred_t_dim=1))
    assert start(tmp_path / "out", image, scenes=1) == 2
    assert "expects nothing of a next frame" in capsys.readouterr().err


@pytest.mark.parametrize(("pictures", "looks"), [(9, [0, 1, 2, 0, 1]), (10, [0, 1, 2, 0, 1]), (2, [0] * 5), (0, [0, 1, 2, 3, 4])])
def test_scenes_that_share_a_picture_are_one_unit_of_an_interval(pictures: int, looks: list[int]):
    work = object.__new__(Surprises)
    work.config = SurpriseConfig(weights="w", scenes=5, backgrounds="b" if pictures else "")
    work.shape, work.spec, work.methods, work._scene = SimpleNamespace(num_frames=8), SimpleNamespace(num_frames=8, img_size=32), [], None
    work._bank = [np.full((32, 32, 3), 20 * i, np.uint8) for i in range(pictures)]
    videos, pairs = work._generated()
    scenes = {(videos[pair.possible - 1].concept, videos[pair.possible - 1].number): pair.scene for pair in pairs}
    assert [scenes[concept, number] - 1 for concept in CONCEPTS for number in range(5)] == looks * len(CONCEPTS)
    shown = {number: {id(picture) for picture in work._of(number)} for number in range(5)}
    for one in range(5):
        assert all(bool(shown[one] & shown[other]) == (looks[one] == looks[other] and pictures > 0) for other in range(5))
