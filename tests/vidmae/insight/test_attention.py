"""Attention maps against numpy, rollout against brute force, and the share of a map on what moves against counting."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from torch import nn

from tests.support.footage import real_clip
from tests.support.launching import ROOT
from tests.support.runs import make_cell, make_manifest, make_run
from vidmae.clips.windows import WindowReader, WindowSpec, places, spread_windows
from vidmae.footage.encode import write_mp4
from vidmae.footage.manifest import Check, Manifest, Source
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import open_video
from vidmae.insight.attention import attention_maps
from vidmae.insight.attention.attention_table import summary
from vidmae.insight.attention.motion_share import attention_share, moving_pixels, moving_share, others, ratio
from vidmae.insight.attention.token_attention import attention_weights, class_attention, rollout
from vidmae.insight.vision import heat
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.trained import untrained
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import save_safetensors
from vidmae.runs.record import read_json
from vidmae.settings.config import ModelConfig
from vidmae.settings.layers import ConfigError, to_dict, to_yaml
from vidmae.settings.programs.attention_config import AttentionConfig

NANO = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=8, pred_t_dim=8, decoder_embed_dim=48, decoder_depth=1,
                   mask_ratio=0.75)
SPEC = WindowSpec(8, 4, 30.0, 32)
GRID = (4, 2, 2)


@cache
def classifier() -> VideoClassifier:
    """A nano classifier whose attention is far from even."""
    torch.manual_seed(3)
    model = build_classifier("vit_nano_patch16", img_size=32, num_frames=8, num_classes=5).eval()
    for block in model.blocks:
        nn.init.normal_(block.attn.q.weight, std=0.3)
        nn.init.normal_(block.attn.k.weight, std=0.3)
        nn.init.normal_(block.attn.q.bias, std=0.3)
    return model


def clips() -> torch.Tensor:
    return torch.from_numpy(np.stack([real_clip(name, img_size=32) for name in ("bikes", "carphone_pristine")]))


def by_hand(model: VideoClassifier, video: torch.Tensor) -> list[dict[str, np.ndarray]]:
    """Per block: input, q, k, v and output of its attention, as hooks see them, and its weights [B, A, N, N] by numpy."""
    caught: list[dict[str, np.ndarray]] = [{} for _ in model.blocks]
    handles = []
    for at, block in zip(caught, model.blocks, strict=True):
        for name in ("q", "k", "v"):
            layer = block.attn.get_submodule(name)
            handles.append(layer.register_forward_hook(
                lambda _, __, out, at=at, name=name: at.__setitem__(name, split(out))))
        handles.append(block.attn.register_forward_hook(
            lambda _, given, out, at=at: at.update(x=given[0].detach().numpy(), out=out.detach().numpy())))
    with torch.no_grad():
        model(video)
    for handle in handles:
        handle.remove()
    for at in caught:
        scores = np.einsum("bhqd,bhkd->bhqk", at["q"], at["k"]) / np.sqrt(at["q"].shape[-1])
        at["weights"] = softmax(scores, axis=-1)
    return caught


def split(x: torch.Tensor) -> np.ndarray:
    """[B, N, D] to float64 [B, 3, N, D / 3]: three heads one after the other."""
    b, n, d = x.shape
    return x.detach().double().numpy().reshape(b, n, 3, d // 3).transpose(0, 2, 1, 3)


def test_weights_are_those_of_every_block_and_rows_sum_to_one():
    model = classifier()
    for block, at in zip(model.blocks, by_hand(model, clips()), strict=True):
        with torch.no_grad():
            found = attention_weights(block.attn, torch.from_numpy(at["x"])).numpy()
            first = attention_weights(block.attn, torch.from_numpy(at["x"]), queries=2).numpy()
        assert found.shape == (2, 3, 17, 17) and found.std() > 0.05
        np.testing.assert_allclose(found, at["weights"], atol=1e-5)
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
        np.testing.assert_allclose(first, found[:, :, :2], atol=1e-6)
        mixed = np.einsum("bhqk,bhkd->bqhd", found, at["v"]).reshape(2, 17, 96)
        expected = mixed @ block.attn.proj.weight.detach().numpy().T + block.attn.proj.bias.detach().numpy()
        np.testing.assert_allclose(expected, at["out"], atol=1e-5)  # what the fused kernel made of them


def test_the_map_is_the_class_tokens_row_of_the_last_block():
    found = class_attention(classifier(), clips()).numpy()
    row = by_hand(classifier(), clips())[-1]["weights"][:, :, 0]
    assert found.shape == (2, 3, *GRID)
    for b, head, t, y, x in np.ndindex(found.shape):
        expected = row[b, head, 1 + (t * 2 + y) * 2 + x] / (1 - row[b, head, 0])
        assert found[b, head, t, y, x] == pytest.approx(expected, abs=1e-6)
    np.testing.assert_allclose(found.sum((2, 3, 4)), 1, atol=1e-6)


def test_rollout_against_adding_up_all_paths():
    """Of two blocks, from the class token: every path over a token in the middle; of three, one step more."""
    steps = [(at["weights"].mean(1) + np.eye(17)) / 2 for at in by_hand(classifier(), clips())]
    found = rollout(classifier(), clips()).numpy()
    for b in range(2):
        reached = np.zeros(17)
        for second in range(17):
            for third in range(17):
                reached += steps[2][b, 0, second] * steps[1][b, second, third] * steps[0][b, third]
        np.testing.assert_allclose(found[b].ravel(), reached[1:] / reached[1:].sum(), atol=1e-6)


def test_looking_changes_nothing_and_a_decoder_does_not_matter():
    model, video = classifier(), clips()
    with torch.no_grad():
        before = model(video)
        class_attention(model, video), rollout(model, video)
        assert torch.equal(model(video), before)
    assert not any(module._forward_pre_hooks for module in model.modules())
    mae = untrained(NANO)
    mae.load_state_dict({n: t for n, t in model.state_dict().items() if not n.startswith("head.")}, strict=False)
    assert torch.equal(class_attention(mae, video), class_attention(model, video))
    with pytest.raises(ValueError, match=r"takes uint8 .*model\.num_frames"):
        class_attention(model, video[:, :4])


def test_the_share_against_counting_pixels():
    rng = np.random.default_rng(0)
    attention, moving = rng.dirichlet(np.ones(16)).reshape(GRID), rng.random((8, 32, 32)) < 0.3
    expected = sum(attention[t // 2, y // 16, x // 16] / (2 * 16 * 16) for t, y, x in zip(*np.nonzero(moving), strict=True))
    share = moving_share(moving, GRID)
    assert attention_share(attention, share) == pytest.approx(expected, rel=1e-12)
    assert share.mean() == pytest.approx(moving.mean(), rel=1e-12)
    even = np.full(GRID, 1 / 16, dtype=np.float32)
    assert ratio(attention_share(even, share), float(share.mean())) == 1.0  # exactly
    assert np.isnan(ratio(attention_share(attention, share * 0), 0.0))


def moved_object() -> tuple[np.ndarray, np.ndarray]:
    """A piece of one picture that moves by 3 px per frame over another that stands still, and where it is."""
    still, piece = real_clip("bigbuckbunny", img_size=64)[0], real_clip("bikes", img_size=64)[0, 20:36, 20:36]
    clip, where = np.repeat(still[None], 8, axis=0), np.zeros((8, 64, 64), dtype=bool)
    for t in range(8):
        clip[t, 24:40, 8 + 3 * t:24 + 3 * t] = piece
        where[t, 24:40, 8 + 3 * t:24 + 3 * t] = True
    return clip, where


def test_a_map_on_the_moving_object_is_above_one_and_one_beside_it_below():
    clip, where = moved_object()
    moving = moving_pixels(clip, 1.0)
    assert moving[where].mean() > 0.8 and moving[~where].mean() < 0.1  # the flow smears over its edge
    grid, share = (4, 8, 8), moving_share(moving, (4, 8, 8))
    on = moving_share(where, grid)
    for attention, low, high in ((on, 4, 16), (1 - on, 0.0, 0.6)):
        assert low < ratio(attention_share(attention / attention.sum(), share), float(share.mean())) < high
    assert not moving_pixels(clip, 6).any()  # it moves by 3
    with pytest.raises(ValueError, match="a clip of 1 frame shows no motion"):
        moving_pixels(clip[:1], 1.0)


def test_a_camera_that_pans_moves_nothing_relative_to_the_picture():
    wide = real_clip("bikes", img_size=96)[0]
    pan = np.stack([wide[16:80, 2 * t:2 * t + 64] for t in range(8)])
    assert moving_pixels(pan, 1.5).mean() > 0.9 and moving_pixels(pan, 2.5).mean() < 0.1  # it moves by 2
    assert moving_pixels(pan, 1.5, relative=True).mean() < 0.1


def test_the_mean_map_of_other_recordings_against_a_loop():
    rng = np.random.default_rng(1)
    maps, recordings = rng.random((6, *GRID)).astype(np.float32), np.array([7, 9, 7, 8, 9, 7], dtype=np.uint64)
    found = others(maps, recordings)
    for i in range(6):
        apart = [maps[j] for j in range(6) if recordings[j] != recordings[i]]
        np.testing.assert_allclose(found[i], np.mean(apart, axis=0, dtype=np.float64), rtol=1e-12)
    assert np.isnan(others(maps, np.ones(6))).all()


def test_the_summary_leaves_out_clips_in_which_nothing_moves():
    rows = [{"map": "mean", "content": f"c{i}", "area_share": area, "ratio": value, "others_ratio": 1.0}
            for i, (area, value) in enumerate([(0.5, 2.0), (0.3, 1.0), (0.009, 80.0), (0.0, float("nan")), (0.2, 3.0),
                                               (0.3, 1.5), (0.3, 2.5), (0.3, 2.0)])]
    (line,) = summary(rows)
    assert (line["clips"], line["ratio"], line["difference"], line["others_ratio"]) == (6, 2.0, 1.0, 1.0)
    assert 1 <= line["ratio_low"] < 2 < line["ratio_high"] <= 3 and line["difference_low"] == line["ratio_low"] - 1
    (alone,) = summary([{**rows[0], "others_ratio": float("nan")}])
    assert alone["ratio"] == 2 and np.isnan([alone["ratio_low"], alone["difference"]]).all()
    assert summary(rows[2:4]) == []


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_manifest(tmp_path_factory.mktemp("clips"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finetuned classifier as released files are."""
    path = tmp_path_factory.mktemp("weights") / "ssv2.pth"
    torch.save({"model": classifier().state_dict(), "epoch": 3}, path)
    return path


def start(out: Path, weights: Path, manifest: Path, **settings) -> int:
    out.mkdir(exist_ok=True)
    given = {"sampling_rate": 4, "read_limit_s": 0, "device": "cpu", **settings}
    (out / "config.yaml").write_text(to_yaml(AttentionConfig(weights=str(weights), videos=str(manifest), **given)))
    return attention_maps.main([str(out)])


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_command_on_real_clips(weights, manifest, tmp_path):
    flags = ["--weights", str(weights), "--videos", str(manifest), "--out", "out", "--sampling-rate", "4",
             "--device", "cpu", "--moving-px", "0.5", "--rollout", "--frames", "--clips", "1", "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run([sys.executable, str(ROOT / "analysis/attention.py"), *flags], cwd=tmp_path, env=env,
                           capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    record, out, videos = json.loads(found.stdout), tmp_path / "out", Manifest.read(manifest)
    assert record == read_json(out / "result.json")
    assert record.items() >= {"clips": len(videos), "grid": [4, 2, 2], "moving_px": 0.5, "pretrained": False}.items()
    names = ["mean", "head1", "head2", "head3", "rollout"]
    rows = table(out / "clips.csv")
    assert [(r["row"], r["map"]) for r in rows] == [(str(i + 1), name) for i in range(len(videos)) for name in names]
    assert [r["content"] for r in rows[::5]] == [r["content"] for r in table(manifest)]
    check_rows(rows, videos)
    assert [line["map"] for line in table(out / "summary.csv")] == names == [line["map"] for line in record["maps"]]
    assert "attention on moving pixels" in found.stderr and "head3" in found.stderr
    texts = [found.stderr, *(p.read_text() for p in out.glob("*.csv")), (out / "result.json").read_text()]
    assert not any(Path(videos.path(i)).stem in text for i in range(len(videos)) for text in texts)
    check_pictures(out / "pictures")


def check_rows(rows: list[dict[str, str]], videos: Manifest) -> None:
    """Two clips once more, pixel by pixel; the mean map of the others only of one."""
    windows = spread_windows(videos, SPEC, 1)[0]
    pixels = [WindowReader(SPEC)(place) for place in places(videos, windows)]
    maps = [class_attention(classifier(), torch.from_numpy(p)[None])[0].numpy() for p in pixels]
    for i in (1, 2):
        moving = moving_pixels(pixels[i], 0.5)
        assert 0.01 < moving.mean() < 0.9
        every = {"mean": maps[i].mean(0), "head2": maps[i][1], "rollout": rollout(classifier(), torch.from_numpy(pixels[i])[None])[0]}
        for name, attention in every.items():
            row = next(r for r in rows if (r["row"], r["map"]) == (str(i + 1), name))
            full = np.asarray(attention, dtype=np.float64).repeat(2, 0).repeat(16, 1).repeat(16, 2) / 512
            share = full[moving].sum()
            assert float(row["attention_share"]) == pytest.approx(share, rel=1e-4)
            assert float(row["area_share"]) == pytest.approx(moving.mean(), rel=1e-6)
            assert float(row["ratio"]) == pytest.approx(share / moving.mean(), rel=1e-4)
    usual = np.mean([m[1] for j, m in enumerate(maps) if j != 2], axis=0).repeat(2, 0).repeat(16, 1).repeat(16, 2) / 512
    found = next(r for r in rows if (r["row"], r["map"]) == ("3", "head2"))
    assert float(found["others_ratio"]) == pytest.approx(usual[moving].sum() / moving.mean(), rel=1e-4)


def check_pictures(folder: Path) -> None:
    """One clip's: the strip is the frames and the frames with the map laid over."""
    stem = next(p for p in folder.glob("*-heads.png")).name.removesuffix("-heads.png")
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        f"{stem}{end}" for end in (".png", ".mp4", "-heads.png", "-rollout.png", "-rollout.mp4"))
    assert {oct(p.stat().st_mode & 0o777) for p in folder.iterdir()} == {"0o600"} and folder.stat().st_mode & 0o777 == 0o700
    whole = np.asarray(Image.open(folder / f"{stem}.png")) / 255
    names, strip = whole[:, :-(8 * 36)], whole[:, -(8 * 32 + 7 * 4):]
    assert len(strip) == 2 * 36 + 16 and all((names[top:top + 32] < 0.5).any() for top in (0, 36)), "each row has its name"
    light = strip[72:].mean(0) @ [0.299, 0.587, 0.114]
    assert light[0] < 0.05 and light[-1] > 0.9 and (np.diff(light) > -0.02).all(), "colours from low to high"
    heads = np.asarray(Image.open(folder / f"{stem}-heads.png"))
    assert len(heads) == 4 * 36 + 16 and heads.shape[1] > 4 * 36
    with open_video(folder / f"{stem}.mp4", "pyav") as reader:
        assert (reader.num_frames, reader.fps) == (8, 7.5)
        video = reader.read(range(8)) / 255
    assert video.shape[1:3] == (32, 2 * 32 + 4)
    for t in range(8):
        frame, over = strip[:32, t * 36:t * 36 + 32], strip[36:68, t * 36:t * 36 + 32]
        assert np.abs(video[t, :, :32] - frame).mean() < 0.06
        colours = (over - 0.5 * frame) / 0.5
        assert np.abs(video[t, :, 36:] - colours).mean() < 0.06
        assert colours.reshape(2, 16, 2, 16, 3).std(axis=(1, 3)).max() < 0.01  # one colour per token


def test_a_brighter_colour_is_a_larger_number():
    light = heat(np.linspace(0, 1, 256)[None])[0] @ [0.299, 0.587, 0.114]
    assert (np.diff(light) > -0.004).all() and light[0] < 0.02 and light[-1] > 0.95  # in grey, too


def test_no_frame_unless_asked_for_and_the_second_call_does_nothing(weights, manifest, tmp_path, capsys):
    assert start(tmp_path, weights, manifest, per_video=2) == 0
    assert {r["map"] for r in table(tmp_path / "clips.csv")} == {"mean", "head1", "head2", "head3"}
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml", "clips.csv", "summary.csv", "result.json"}
    assert {r["clip"] for r in table(tmp_path / "clips.csv")} == {"0", "1"}
    finished = read_json(tmp_path / "result.json")["finished"]
    capsys.readouterr()
    assert start(tmp_path, weights, manifest, per_video=2) == 0 and not capsys.readouterr().out
    assert read_json(tmp_path / "result.json")["finished"] == finished


def test_a_clip_that_stands_still_has_no_ratio_and_one_that_is_gone_is_counted(weights, tmp_path, capsys):
    still = np.repeat(real_clip("bikes", img_size=64)[:1], 40, axis=0)
    write_mp4(still, tmp_path / "secret.mp4", 30.0)
    write_mp4(still[::-1, :, ::-1].copy(), tmp_path / "secret-gone.mp4", 30.0)
    build([Source(str(p), "") for p in sorted(tmp_path.glob("*.mp4"))], tmp_path / "m.csv", Check("pyav", False), workers=1,
          time_limit_s=60, progress=lambda *_: None)
    (tmp_path / "secret-gone.mp4").unlink()
    assert start(tmp_path / "out", weights, tmp_path / "m.csv", rollout=True) == 3
    rows, record = table(tmp_path / "out/clips.csv"), read_json(tmp_path / "out/result.json")
    assert {(r["area_share"], r["ratio"], r["others_ratio"]) for r in rows} == {("0", "", "")}
    assert record.items() >= {"still_clips": 1, "maps": [], "unreadable": {"no such file": 1}}.items()
    assert "secret" not in "".join([*capsys.readouterr(), (tmp_path / "out/result.json").read_text()])


def test_encoders_come_from_runs_exports_and_files(weights, manifest, tmp_path):
    state = untrained(NANO, seed=5).state_dict()
    run = make_run(tmp_path / "run", manifest, *(f"model.{k}={v}" for k, v in to_dict(NANO).items()), "data.sampling_rate=4")
    with pytest.raises(ValueError, match="the run is not finished"):
        load_trained_encoder(run.path)
    sampling = {"sampling_rate": 4, "target_fps": 30.0, "decoder": "pyav"}
    save_safetensors(state, run.weights, {"sampling": json.dumps(sampling)})
    ours, export, released = (load_trained_encoder(p) for p in (run.path, run.weights, weights))
    assert (ours.data.sampling_rate, export.data.sampling_rate, released.data) == (4, 4, None)
    assert (ours.pretrained, export.pretrained, released.pretrained) == (True, True, False)
    expected = class_attention(untrained(NANO, seed=5), clips())
    assert torch.equal(class_attention(ours.model, clips()), expected)
    assert torch.equal(class_attention(export.model, clips()), expected)
    assert torch.equal(class_attention(released.model, clips()), class_attention(classifier(), clips()))
    cell = make_cell(tmp_path / "cell", (manifest, manifest))
    cell.record.write_text('{"kind": "fewshot"}')
    with pytest.raises(ValueError, match="or did not keep its weights"):
        load_trained_encoder(cell.path)
    save_safetensors(classifier().state_dict(), cell.weights, {})
    assert load_trained_encoder(cell.path).data.sampling_rate == 2


def test_a_classifier_of_another_size_is_read_off_its_tensors(tmp_path):
    vit = build_classifier("vit_tiny_patch8", img_size=48, num_frames=6, t_patch_size=3, num_classes=3)
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    found = load_trained_encoder(tmp_path / "vit.pth").model.shape
    assert found == vit.shape and found.grid == (2, 6, 6)


def test_weights_without_a_fitting_encoder_are_refused(manifest, tmp_path, capsys):
    state = classifier().state_dict()
    image = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"][:, :, 0]}
    joint = {n: t for n, t in state.items() if "temporal" not in n}
    broken = {n: t * float("nan") if n == "blocks.1.mlp.fc1.weight" else t for n, t in state.items()}
    short = {n: t for n, t in state.items() if not n.startswith("blocks.2.attn.k")}
    for name, content, message in (("image", image, "an image model"), ("joint", joint, "has no pos_embed_temporal"),
                                   ("broken", broken, "not finite: its weights hold NaN"),
                                   ("short", short, r"of \d+ encoder tensors fit.*blocks\.2\.attn: 2 tensors missing"),
                                   ("resnet", {"layer4.0.conv1.weight": torch.zeros(1)}, "a ResNet")):
        torch.save(content, tmp_path / f"{name}.pth")
        assert start(tmp_path / name, tmp_path / f"{name}.pth", manifest) == 2
        assert re.search(message, capsys.readouterr().err)
        assert not (tmp_path / name / "result.json").exists()


def test_clips_that_are_too_short_are_said(weights, manifest, tmp_path, capsys):
    assert start(tmp_path, weights, manifest, sampling_rate=400) == 2
    assert re.search(r"the longest video has .* use at most --sampling-rate \d+", capsys.readouterr().err)
    for settings, flag in (({"moving_px": 0.0}, "--moving-px"), ({"per_video": 0}, "--per-video"), ({"pictures": -1}, "--clips")):
        with pytest.raises(ConfigError, match=f"{flag} is .*allowed"):
            AttentionConfig(weights="w", videos="v", **settings)


@pytest.mark.parametrize(("flags", "message"), [
    (["--weights", "none.pth", "--videos", "m.csv"], r"--weights .*none\.pth does not exist"),
    (["--weights", "w.pth", "--videos", "nothing"], r"no manifest manifests/nothing\.csv.*prepare\.py manifest"),
    (["--weights", "w.pth", "--videos", "m.csv", "--clips", "2"], "--clips 2 .* add --frames"),
    (["--weights", "w.pth", "--videos", "m.csv", "--moving-px", "-1"], "--moving-px is -1.0, allowed: more than 0"),
    (["--weights", "w.pth", "--videos", "m.csv", "--moving-px", "inf"], "--moving-px is inf, allowed: more than 0"),
    (["--run", "s-1", "--videos", "m.csv"], "fits 2 runs: s-10, s-11"),
    (["--run", "s-2", "--videos", "m.csv"], "is no run in runs.*did you mean s-1"),
    (["--run", "s-10", "--videos", "m.csv"], "has no weights.safetensors"),
])
def test_what_the_command_cannot_do_is_said(flags, message, tmp_path, monkeypatch, capsys):
    from analysis.attention import main

    monkeypatch.chdir(tmp_path)
    for name in ("s-10", "s-11"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "w.pth").touch()
    (tmp_path / "m.csv").touch()
    assert main([*flags, "--out", "out"]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
