"""Filling in clips of real footage by a small model: from the weights to the tables."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from skimage.metrics import peak_signal_noise_ratio

from jobs import embed as embed_command
from jobs import interpolate as command
from tests.support.launching import ROOT
from tests.support.runs import export_model, make_manifest, make_run
from vidmae.clips.windows import WindowReader, WindowSpec, places, spread_windows
from vidmae.footage.encode import write_mp4
from vidmae.footage.manifest import Check, Manifest, find_sources
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import open_video
from vidmae.insight.interpolation import interpolate
from vidmae.insight.interpolation.interpolate_table import differences_table, methods_table
from vidmae.insight.interpolation.scenes import PATHS
from vidmae.insight.interpolation.scores import SCORES
from vidmae.model.classifier import build_classifier
from vidmae.model.masking import center_mask
from vidmae.model.trained import load_trained
from vidmae.model.weights import save_safetensors
from vidmae.ranks.local_program import make_manifest as list_footage
from vidmae.ranks.local_program import prepare_folder
from vidmae.runs.record import RunFolder, read_json, write_json
from vidmae.settings.config import ModelConfig
from vidmae.settings.layers import ConfigError, load, to_dict, to_yaml
from vidmae.settings.programs.interpolate_config import InterpolateConfig

NANO = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=8, pred_t_dim=8, decoder_embed_dim=48, decoder_depth=1,
                   mask_ratio=0.75)
IMAGE = replace(NANO, num_frames=1, t_patch_size=1, pred_t_dim=1)
METHODS = ["model", "hold", "fade", "flow", "mean"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export as a run writes it."""
    return export_model(tmp_path_factory.mktemp("weights") / "weights.safetensors", NANO, seed=5, sampling_rate=4,
                        target_fps=30.0, decoder="pyav")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image MAE as a run of one-frame clips exports it."""
    return export_model(tmp_path_factory.mktemp("image") / "weights.safetensors", IMAGE, seed=6)


def start(out: Path, weights: Path, manifest: Path, *flags: str, **settings) -> int:
    out.mkdir(exist_ok=True)
    config = InterpolateConfig(weights=str(weights), videos={"demo": str(manifest)}, read_limit_s=0, **settings)
    (out / "config.yaml").write_text(to_yaml(config))
    return interpolate.main([str(out), *flags])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, weights: Path, manifest: Path) -> Path:
    out = tmp_path_factory.mktemp("done")
    assert start(out, weights, manifest) == 0
    return out


def test_every_clip_has_a_row_per_method_and_no_name(done, manifest):
    found, videos = rows(done / "scores.csv"), Manifest.read(manifest)
    assert [(row["row"], row["method"]) for row in found] == [(str(i + 1), m) for i in range(len(videos)) for m in METHODS]
    contents = [row["content"] for row in rows(manifest)]
    assert [row["content"] for row in found[::len(METHODS)]] == contents
    assert not any(Path(videos.path(i)).stem in file.read_text() for i in range(len(videos)) for file in done.glob("*.*"))
    assert not (done / "pictures").exists()
    assert read_json(done / "result.json").items() >= {"clips": len(videos), "mask": "center", "sampling_rate": 4,
                                                        "clip_fps": 7.5, "unreadable": {}}.items()


def test_scores_are_those_of_the_completion(done, weights, manifest):
    trained, videos = load_trained(weights), Manifest.read(manifest)
    spec = WindowSpec(8, 4, 30.0, 32)
    clip = WindowReader(spec)(places(videos, [spread_windows(videos, spec, 1)[0][2]])[0])
    mask = center_mask(16, 0.25, 1)
    filled = trained.model.reconstruct(torch.from_numpy(clip)[None], mask)[0].numpy()
    hidden = trained.model.removed_pixels(mask)[0, ..., 0].numpy()
    found = {row["method"]: float(row["psnr_db"]) for row in rows(done / "scores.csv") if row["row"] == "3"}
    expected = peak_signal_noise_ratio((clip / 255.0)[hidden], filled[hidden], data_range=1)
    assert found["model"] == pytest.approx(expected, rel=1e-5)
    assert found["hold"] > found["model"] + 3  # an untrained one


def test_shards_and_a_second_call_give_the_same_tables(done, weights, manifest, tmp_path, capsys):
    assert start(tmp_path, weights, manifest, "--shard", "1/3") == 0
    assert not (tmp_path / "result.json").exists()
    assert [start(tmp_path, weights, manifest, "--shard", shard) for shard in ("0/3", "1/3", "2/3")] == [0, 0, 0]
    assert "part 2 of 3 was done before" in capsys.readouterr().out
    for name in ("scores.csv", "methods.csv", "differences.csv"):
        assert (tmp_path / name).read_bytes() == (done / name).read_bytes()
    finished = read_json(tmp_path / "result.json")["finished"]
    assert start(tmp_path, weights, manifest) == 0
    assert read_json(tmp_path / "result.json")["finished"] == finished


def test_a_video_that_is_gone_is_counted_and_not_named(weights, manifest, tmp_path, capsys):
    for number in range(2):
        (tmp_path / f"secret{number}.mp4").symlink_to(Manifest.read(manifest).path(number))
    build(find_sources(tmp_path), tmp_path / "two.csv", Check("decord", False), workers=1, time_limit_s=60,
          progress=lambda *_: None)
    (tmp_path / "secret1.mp4").unlink()
    assert start(tmp_path / "out", weights, tmp_path / "two.csv") == 3
    assert {row["row"] for row in rows(tmp_path / "out/scores.csv")} == {"1"}
    assert read_json(tmp_path / "out/result.json")["unreadable"] == {"no such file": 1}
    assert "secret" not in "".join([*capsys.readouterr(), (tmp_path / "out/result.json").read_text()])


def test_pictures_only_where_asked_for(weights, manifest, tmp_path):
    assert start(tmp_path, weights, manifest, pictures=1, mask="random", ratio=0.5, names=True, untrained=True) == 0
    picture, video = sorted((tmp_path / "pictures").iterdir())[::-1]
    assert picture.suffix == ".png" and video.suffix == ".mp4" and picture.stem == video.stem
    assert [oct(p.stat().st_mode & 0o777) for p in (picture, video, picture.parent)] == ["0o600", "0o600", "0o700"]
    sheet = np.asarray(Image.open(picture)) / 255
    names, sheet = sheet[:, :-(8 * 36)], sheet[:, -(8 * 32 + 7 * 4):]
    assert len(sheet) == 3 * 32 + 2 * 4 and all((names[top:top + 32] < 0.5).any() for top in (0, 36, 72)), "each row has its name"
    grey = [(np.abs(sheet[top:top + 32] - 0.5) < 0.01).all(2).mean() for top in (0, 36, 72)]
    assert grey[0] == pytest.approx(0.5, abs=0.05) and max(grey[1:]) < 0.1, "seen, filled in, truth"
    with open_video(video, "pyav") as reader:
        assert (reader.num_frames, reader.fps) == (8, 7.5)
        frames = reader.read(range(8)) / 255
    assert frames.shape[1:3] == (32, 3 * 32 + 2 * 4)
    for t in range(8):
        for place, top in enumerate((0, 36, 72)):
            shown = frames[t, :, place * 36:place * 36 + 32]
            assert np.abs(shown - sheet[top:top + 32, t * 36:t * 36 + 32]).mean() < 0.06
    found = rows(tmp_path / "scores.csv")
    assert {row["method"] for row in found} == {"model", "untrained", "hold", "fade", "mean"}  # no whole frame for flow
    assert found[0]["path"] == Manifest.read(manifest).path(0)


def test_the_tracking_probe_in_shards(weights, image, manifest, tmp_path):
    settings = {"track": 1, "ratio": 0.5, "image": str(image)}
    assert [start(tmp_path, weights, manifest, "--shard", shard, **settings) for shard in ("0/2", "1/2")] == [0, 0]
    table = {(r["mask"], r["path"], r["method"]): r for r in rows(tmp_path / "tracking_summary.csv")}
    assert {key[:2] for key in table} == {(m, p) for m in ("center", "box") for p in PATHS}
    for (_, _, method), row in table.items():
        assert method not in ("truth", "fade", "model") or float(row["one_object_pct"]) == 100 * (method == "truth")
    assert len(rows(tmp_path / "tracking.csv")) == 2 * 5 * len([*METHODS, "image", "truth"])  # of two objects each has a row
    assert len(read_json(tmp_path / "result.json")["tracking"]) == len(table)
    assert {row["method"] for row in rows(tmp_path / "methods.csv")} == {*METHODS, "image"}


def test_a_video_of_odd_size_is_filled_up_with_white(tmp_path):
    frames = np.full((3, 31, 45, 3), 40, dtype=np.uint8)
    write_mp4(frames, tmp_path / "odd.mp4", 3.75)
    with open_video(tmp_path / "odd.mp4", "pyav") as reader:
        assert (reader.num_frames, reader.fps) == (3, 3.75)
        read = reader.read([2])[0].astype(int)
    assert read.shape == (32, 46, 3) and abs(read[:30, :44] - 40).max() < 12 and read[31, :44].min() > 200
    with pytest.raises(ValueError, match="at least one frame"):
        write_mp4(frames[:0], tmp_path / "none.mp4", 3.75)


def test_a_model_comes_from_a_run_an_export_or_a_released_file(weights, manifest, tmp_path):
    export = load_trained(weights)
    state = export.model.state_dict()
    torch.save({"model": state, "epoch": 3}, tmp_path / "say.pth")
    released = load_trained(tmp_path / "say.pth")
    assert released.config == replace(NANO, mask_ratio=0.9) and released.data is None
    run = make_run(tmp_path / "run", manifest, *(f"model.{k}={v}" for k, v in to_dict(NANO).items()), "data.sampling_rate=4")
    with pytest.raises(ValueError, match="the run is not finished"):
        load_trained(run.path)
    save_safetensors(state, run.weights, {})
    ours = load_trained(run.path)
    assert ours.data.sampling_rate == export.data.sampling_rate == 4 and ours.config == NANO == export.config
    clip = torch.randint(0, 256, (1, 8, 32, 32, 3), dtype=torch.uint8)
    filled = [m.model.reconstruct(clip, center_mask(16, 0.5, 1)) for m in (export, released, ours)]
    assert torch.equal(filled[0], filled[1]) and torch.equal(filled[0], filled[2])
    normed = load_trained(tmp_path / "say.pth", ["model.norm_pix_loss=true"])
    assert normed.model.norm_pix_loss and not torch.equal(normed.model.reconstruct(clip, center_mask(16, 0.5, 1)), filled[0])


def test_what_has_no_decoder_is_refused(tmp_path):
    vit = build_classifier("vit_nano_patch16", img_size=32, num_frames=8, num_classes=None)
    save_safetensors(vit.state_dict(), tmp_path / "vit.safetensors", {})
    with pytest.raises(ValueError, match=r"has no decoder.*looks like vit_nano_patch16"):
        load_trained(tmp_path / "vit.safetensors")
    run = RunFolder(tmp_path / "cell")
    run.path.mkdir()
    run.config.write_text("{}")
    run.weights.touch()
    run.record.write_text('{"kind": "fewshot"}')
    with pytest.raises(ValueError, match="fewshot run, whose model has no decoder"):
        load_trained(run.path)


@pytest.mark.parametrize(("settings", "message"), [
    ({"ratio": 0.99}, r"--ratio 0\.99 keeps none or all of 16 tokens.*at most 0\.9375$"),
    ({"ratio": 0.97, "mask": "tube"}, r"--ratio 0\.97 keeps none or all of 4 tokens.*at most 0\.75$"),
    ({"track": 1}, r"--mask center --ratio 0\.25 hides none: use .* --ratio 0\.5 or more"),
    ({"sampling_rate": 400}, r"400 of 30 fps are 106\.67 s, the longest video has .* use at most --sampling-rate \d+"),
    ({"settings": ("model.norm_pix_loss=true",)}, "--true-stats"),
    ({"videos_content": {"demo": "another"}}, "lists other videos or labels than when this was started"),
])
def test_what_cannot_be_done_is_said(settings, message, weights, manifest, tmp_path, capsys):
    assert start(tmp_path, weights, manifest, **settings) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "result.json").exists()


def test_image_models_in_the_wrong_place_are_refused(weights, image, manifest, tmp_path, capsys):
    assert start(tmp_path, image, manifest) == 2
    assert "is an image model: it has no other frames to fill in from" in capsys.readouterr().err
    larger = export_model(tmp_path / "larger.safetensors", replace(IMAGE, img_size=64), seed=6)
    assert start(tmp_path, weights, manifest, image=str(larger)) == 2
    assert "the image MAE takes 64 px, the clips have 32 px; give one of 32 px (--image)" in capsys.readouterr().err
    normed = export_model(tmp_path / "normed.safetensors", replace(IMAGE, norm_pix_loss=True), seed=6)
    assert start(tmp_path, weights, manifest, image=str(normed)) == 2
    assert "--true-stats" in capsys.readouterr().err


def test_the_sampling_rate_that_the_message_names_works(weights, manifest, tmp_path, capsys):
    start(tmp_path, weights, manifest, sampling_rate=400)
    rate = int(re.search(r"at most --sampling-rate (\d+)", capsys.readouterr().err)[1])
    videos = Manifest.read(manifest)
    windows, short = spread_windows(videos, WindowSpec(8, rate, 30.0, 32), 2)
    assert len(windows) >= 2 and short == len(videos) - len(windows) // 2 > 0
    ends = [w.start + WindowSpec(8, rate, 30.0, 32).span(videos.fps[w.row]) for w in windows]
    assert all(end <= videos.frames[w.row] for end, w in zip(ends, windows, strict=True))
    with pytest.raises(ValueError, match=f"at most --sampling-rate {rate}"):
        spread_windows(videos, WindowSpec(8, rate + 1, 30.0, 32), 2)


def test_bad_settings_name_the_flag():
    for settings, flag in (({"ratio": 1.0}, "--ratio"), ({"per_video": 0}, "--per-video"), ({"workers": 0}, "--workers")):
        with pytest.raises(ConfigError, match=f"{flag} is .*allowed"):
            InterpolateConfig(weights="w", videos={"a": "b"}, **settings)


def fake_rows() -> list[dict]:
    rng = np.random.default_rng(0)
    return [{"domain": "d", "row": str(r), "clip": str(c), "content": f"v{r // 2}", "method": m, "motion_px": float(r),
             **{s: float(rng.normal()) for s in SCORES}} for r in range(12) for c in range(2) for m in ("model", "hold")]


def test_tables_against_counting():
    table = fake_rows()
    methods = {(r["motion"], r["method"]): r for r in methods_table(table)}
    assert {third for third, _ in methods} == {"all", "still", "middle", "moving"}
    chosen = [r for r in table if r["method"] == "hold" and r["motion_px"] >= 8]
    per_video = [np.mean([r["ssim"] for r in chosen if r["content"] == v]) for v in {r["content"] for r in chosen}]
    assert methods["moving", "hold"]["ssim"] == pytest.approx(np.mean(per_video))
    assert (methods["moving", "hold"]["clips"], methods["moving", "hold"]["recordings"]) == (8, 2)
    found = next(r for r in differences_table(table) if (r["motion"], r["baseline"], r["score"]) == ("all", "hold", "mse"))
    mine, theirs = ([r["mse"] for r in table if r["method"] == m] for m in ("model", "hold"))
    assert found["better_pct"] == pytest.approx(100 * np.mean([a < b for a, b in zip(mine, theirs, strict=True)]))
    assert found["ci_low"] < found["difference"] < found["ci_high"]
    assert (found["clips"], found["recordings"]) == (24, 6)


def test_the_command_from_a_video_to_the_folder(weights, image, manifest, tmp_path):
    video = Manifest.read(manifest).path(0)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/good.mp4").symlink_to(video)
    (tmp_path / "videos/bad.mp4").write_text("no video")
    command = [sys.executable, str(ROOT / "jobs/interpolate.py"), "--weights", str(weights), "--videos", "videos", "--out", "out",
               "--frames", "--clips", "1", "--ratio", "0.5", "--cluster", "local", "--image", str(image)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == str(tmp_path / "out")
    assert "1 of 2 files cannot be read" in found.stderr and "1/1 clips" not in found.stdout
    assert len(list((tmp_path / "out/pictures").iterdir())) == 2
    assert [row["method"] for row in rows(tmp_path / "out/scores.csv")] == ["model", "image", *METHODS[1:]]
    config = load(InterpolateConfig, tmp_path / "out/config.yaml")
    prepare_folder(tmp_path / "out", config)
    with pytest.raises(ConfigError, match=r"another configuration \(now ratio: 0\.25, there ratio: 0\.5\)"):
        prepare_folder(tmp_path / "out", replace(config, ratio=0.25))


def test_a_folder_of_results_keeps_its_videos(manifest, tmp_path):
    def listed() -> None:
        list_footage(tmp_path / "videos", out / "videos-own.csv", Console(stderr=True), decoder="pyav", workers=1)

    out, videos = tmp_path / "videos/out", Manifest.read(manifest)
    for number in range(2):
        (tmp_path / f"videos/{number}").mkdir(parents=True)
    (tmp_path / "videos/0/a.mp4").symlink_to(videos.path(0))
    (tmp_path / "videos/1/bad.mp4").write_text("no video")
    listed()
    prepare_folder(out, InterpolateConfig(weights="w", videos={"own": "m"}))
    (tmp_path / "videos/1/b.mp4").symlink_to(videos.path(1))
    listed()
    made = (out / "videos-own.csv").read_bytes()
    assert len(Manifest.read(out / "videos-own.csv")) == 2, "there are no results yet: what is there now counts"
    (out / "pictures").mkdir()
    (out / "pictures/row00001-0.mp4").write_bytes(b"of a completion")
    listed()
    (tmp_path / "videos/1/b.mp4").unlink()
    with pytest.raises(ConfigError, match=r"holds the results of other videos .*--out"):
        listed()
    assert (out / "videos-own.csv").read_bytes() == made


def test_what_failed_before_there_were_results_may_be_corrected(tmp_path):
    config = InterpolateConfig(weights="w", videos={"own": "m"}, mask="tube", ratio=0.999)
    prepare_folder(tmp_path, config)
    prepare_folder(tmp_path, replace(config, ratio=0.9))
    assert load(InterpolateConfig, tmp_path / "config.yaml").ratio == 0.9
    (tmp_path / "parts").mkdir()
    with pytest.raises(ConfigError, match="another configuration"):
        prepare_folder(tmp_path, config)
    older = {key: value for key, value in reversed(to_dict(config).items()) if key != "image"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(older, sort_keys=False))
    prepare_folder(tmp_path, config)


@pytest.mark.parametrize(("done", "kind", "message"), [
    (False, "pretrain", r"has no weights\.safetensors: it is not finished"),
    (True, "fewshot", "is a few-shot run, whose model has no decoder"),
])
def test_a_run_without_weights_or_a_decoder_is_said_before_anything_is_written(done, kind, message, tmp_path, capsys):
    run = RunFolder(tmp_path / "runs/s-1")
    run.path.mkdir(parents=True)
    write_json(run.record, {"kind": kind})
    if done:
        write_json(run.result, {})
    (tmp_path / "videos").mkdir()
    flags = ["--run", "s-1", "--runs-dir", str(tmp_path / "runs"), "--videos", str(tmp_path / "videos")]
    assert command.main([*flags, "--out", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)
    flags = ["--run", "s-1", "--runs-dir", str(tmp_path / "runs"), "--data", "none.csv", "--out", str(tmp_path / "out")]
    assert embed_command.main(flags) == 2
    assert ("--set keep_weights=true" in capsys.readouterr().err) == done
    assert not (tmp_path / "out").exists()
