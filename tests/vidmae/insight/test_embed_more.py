"""Features of inner layers, tokens, and windows over recordings: against the model cut short, and frames that are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs import embed as command
from tests.support.runs import export_model, make_labelled
from tests.vidmae.insight.test_embed import NANO, start
from vidmae.clips.view_cutting import ViewCutter
from vidmae.clips.views import ViewSpec, view_frames
from vidmae.evaluate.extract import layer_features, pooled_features
from vidmae.footage.manifest import Manifest
from vidmae.insight import embed
from vidmae.insight.embedding_files import Embeddings, read_embeddings
from vidmae.insight.sliding import window_pairs, windows_of
from vidmae.insight.token_files import open_tokens, token_path, write_token_file
from vidmae.model.classifier import VideoClassifier
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.settings.layers import ConfigError
from vidmae.settings.programs.embed_config import EmbedConfig


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three real clips."""
    return make_labelled(tmp_path_factory.mktemp("labelled") / "set", train=1, val=1)[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("weights") / "weights.safetensors", NANO, seed=5, sampling_rate=2,
                        target_fps=30.0, decoder="pyav")


@pytest.fixture(scope="module")
def model(weights: Path) -> VideoClassifier:
    return load_trained_encoder(weights).model


def cut_short(model: VideoClassifier, layer: int, clips: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class token, mean and tokens of a model that has the first blocks alone."""
    blocks = model.blocks
    try:
        model.blocks = blocks[:layer]
        with torch.inference_mode():
            cls, mean = pooled_features(model, clips, "fp32")
            return cls, mean, model.tokens(clips).numpy()
    finally:
        model.blocks = blocks


def clips_of(manifest: Path, rows: list[int], spec: ViewSpec, views: list[int]) -> torch.Tensor:
    videos, out = Manifest.read(manifest), np.empty((len(rows), *spec.shape), dtype=np.uint8)
    for place, (row, view) in enumerate(zip(rows, views, strict=True)):
        ViewCutter(videos, spec).cut(row, [view], out[place:place + 1])
    return torch.from_numpy(out)


CENTRE = ViewSpec(num_frames=4, sampling_rate=2, target_fps=30.0, img_size=32)


def test_a_layer_is_the_model_without_the_blocks_behind_it(model: VideoClassifier, manifest: Path) -> None:
    clips, depth = clips_of(manifest, [0, 1, 2], CENTRE, [0, 0, 0]), model.shape.depth
    layers = (depth, 1, 3)
    found = layer_features(model, clips, layers, "fp32", tokens=torch.float32)
    assert found.tokens is not None
    for place, layer in enumerate(layers):
        cls, mean, tokens = cut_short(model, layer, clips)
        for ours, theirs in ((found.cls, cls), (found.mean, mean), (found.tokens, tokens)):
            np.testing.assert_allclose(ours[:, place], theirs, rtol=1e-5, atol=1e-5)
    assert np.abs(found.mean[:, 1] - found.mean[:, 2]).max() > 0.1
    assert all(map(np.array_equal, (found.cls[:, 0], found.mean[:, 0]), pooled_features(model, clips, "fp32"))), "to the bit"
    assert not model.blocks[0]._forward_hooks, "nothing is left on the model"
    for wrong in ((0,), (depth + 1,)):
        with pytest.raises(ValueError, match=rf"layer {wrong[0]} does not exist, allowed: 1 to {depth}.*--layers"):
            layer_features(model, clips, wrong, "fp32")


def test_layers_and_tokens_on_disk(model: VideoClassifier, weights: Path, manifest: Path, tmp_path: Path) -> None:
    asked = {"layers": (1, 3), "tokens": True}
    assert start(tmp_path / "whole", weights, manifest, **asked) == 0
    found, record = read_embeddings(tmp_path / "whole")
    clips = clips_of(manifest, [0, 1, 2], CENTRE, [0, 0, 0])
    expected = layer_features(model, clips, (1, 3), "fp32", tokens=torch.float32)
    np.testing.assert_allclose(found.layer_cls, expected.cls, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.layer_mean, expected.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.mean, pooled_features(model, clips, "fp32")[1], rtol=1e-5, atol=1e-5)
    tokens = open_tokens(tmp_path / "whole", record["files"])
    assert all(isinstance(each, np.memmap) and each.dtype == np.float16 for each in tokens) and [len(each) for each in tokens] == [2, 1]
    np.testing.assert_allclose(np.concatenate(tokens).astype(np.float32), expected.tokens, atol=4e-3)
    assert record["layers"] == [1, 3] and record["tokens"] == {"clips": 3, "shape": [2, 8, 96], "dtype": "float16"}
    path = token_path(tmp_path / "whole", 0, 2)
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"00000-of-00002\.npy is missing or damaged .*run jobs/embed.py again"):
        open_tokens(tmp_path / "whole", 2)


@pytest.mark.slow
def test_tokens_of_the_last_block_in_one_part_or_two(model: VideoClassifier, weights: Path, manifest: Path, tmp_path: Path) -> None:
    asked = {"tokens": True, "token_type": "float32"}
    assert start(tmp_path / "whole", weights, manifest, **asked) == 0
    for part in ("0/2", "1/2"):
        assert start(tmp_path / "parts", weights, manifest, "--shard", part, **asked) == 0
    for number in range(2):
        of = (tmp_path / "parts", tmp_path / "whole")
        assert len({token_path(out, number, 2).read_bytes() for out in of}) == 1
        assert len({(out / f"files/0000{number}-of-00002.npz").read_bytes() for out in of}) == 1
    plain, tokens = read_embeddings(tmp_path / "whole")[0], open_tokens(tmp_path / "whole", 2)
    assert plain.layer_cls is None and tokens[0].shape == (2, 1, 8, 96) and tokens[0].dtype == np.float32
    clips = clips_of(manifest, [0, 1], CENTRE, [0, 0])
    np.testing.assert_allclose(tokens[0][:, 0], model.tokens(clips).detach().numpy(), rtol=1e-4, atol=1e-4)


def test_tokens_that_are_too_large_for_their_type_are_refused(tmp_path: Path) -> None:
    with np.errstate(over="ignore"):
        parts = [np.full((2, 1, 3, 4), v, np.float32).astype(np.float16) for v in (1.0, 1e6)]
    with pytest.raises(ValueError, match=r"tokens of 2 clips are NaN or too large for float16.*--token-type float32"):
        write_token_file(tmp_path / "tokens/a.npy", parts)
    assert not (tmp_path / "tokens").exists()


def test_which_windows_there_are() -> None:
    assert windows_of([10.0, 4.0, 1.0, 8.0], 4.0, 2.0).tolist() == [4, 1, 1, 3], "0 to 4, 2 to 6, 4 to 8, 6 to 10; the short one has one, too"
    assert windows_of(np.array([4.27 + 3 * 0.1]), 4.27, 0.1).tolist() == [4], "rounding loses none"
    assert window_pairs(np.array([2, 1, 3])).tolist() == [[0, 0], [0, 1], [1, 0], [2, 0], [2, 1], [2, 2]]
    spec = ViewSpec(num_frames=4, sampling_rate=1, target_fps=4 / 2.0, img_size=8, every_s=0.5)  # windows of 2 s
    for view in range(4):
        frames = view_frames(spec, view, content=0, total_frames=120, fps=24.0)
        first = view * 12
        assert frames.tolist() == np.floor(np.linspace(first, first + 48 - 1, 4)).astype(int).tolist()
    assert view_frames(spec, 9, content=0, total_frames=120, fps=24.0).max() == 119


WINDOWS = {"window_s": 2.0, "every_s": 1.75, "batch": 2, "clips_per_file": 4}


@pytest.fixture(scope="module")
def slid(weights: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slid")
    assert start(out, weights, manifest, **WINDOWS) == 0
    return out


def test_windows_slide_over_each_recording(model: VideoClassifier, slid: Path, manifest: Path) -> None:
    videos, window_s, every_s = Manifest.read(manifest), WINDOWS["window_s"], WINDOWS["every_s"]
    found, record = read_embeddings(slid)
    counts = windows_of(videos.seconds, window_s, every_s)
    assert record.items() >= {"clips": int(counts.sum()), "view": "windows", "window_s": window_s, "every_s": every_s}.items() and counts.max() > 2
    assert found.row is not None and found.start_s is not None
    assert np.bincount(found.row).tolist() == counts.tolist() and (found.start_s + window_s <= videos.seconds[found.row] + 1e-3).all()
    np.testing.assert_allclose(np.diff(found.start_s)[np.diff(found.row) == 0], every_s)
    assert (found.content == videos.content[found.row]).all() and (found.label == videos.class_index[found.row]).all()
    spec = ViewSpec(num_frames=4, sampling_rate=1, target_fps=4 / window_s, img_size=32, every_s=every_s)
    some = [0, 2, len(found) - 1]
    views = [round(float(found.start_s[i]) / every_s) for i in some]
    expected = pooled_features(model, clips_of(manifest, found.row[some].tolist(), spec, views), "fp32")[1]
    np.testing.assert_allclose(found.mean[some], expected, rtol=1e-5, atol=1e-5)
    assert all(Path(videos.path(row)).name.encode() not in path.read_bytes() for row in range(3) for path in slid.rglob("*.*"))


@pytest.mark.slow
def test_a_recording_that_is_gone_costs_its_windows_and_no_others(slid: Path, weights: Path, manifest: Path, tmp_path: Path) -> None:
    lost = Path(Manifest.read(manifest).path(1))
    lost.rename(lost.with_suffix(".away"))
    try:
        assert start(tmp_path, weights, manifest, **WINDOWS) == 3
    finally:
        lost.with_suffix(".away").rename(lost)
    (whole, _), (less, record) = read_embeddings(slid), read_embeddings(tmp_path)
    assert whole.row is not None and less.row is not None
    assert np.array_equal(less.mean, whole.mean[whole.row != 1]) and not (less.row == 1).any()
    assert sum(record["unreadable"].values()) == (whole.row == 1).sum()


def test_the_size_of_tokens_is_said_before_and_too_much_is_refused(weights: Path, manifest: Path, tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    args = ["--weights", str(weights), "--data", str(manifest), "--out", "out", "--cluster", "local", "--dry-run", "--batch", "2",
            "--tokens", "--layers", "1,3"]
    assert command.main(args) == 0
    said = capsys.readouterr().err
    assert "tokens: 3 clips x 2 layers x 8 tokens x 96 numbers as float16: 0.00 GiB" in said and "clips_per_file: 512" in said
    assert command.main([*args, "--most-gib", "0.000001"]) == 2
    assert "the tokens would take 0.00 GiB, allowed: 1e-06 (--most-gib 1 allows it" in capsys.readouterr().err
    size = command.TokenSize(1000, 4, 2048, 1280, "float16")
    assert size.gib == pytest.approx(1000 * 4 * 2048 * 1280 * 2 / 2**30) and size.clips_per_file(16) == 48
    assert command.main([*args, "--layers", "1,99"]) == 2 and "--layers 99 does not exist, allowed: 1 to" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"would take 19.53 GiB, allowed: 16"):
        size.check(16)


@pytest.mark.parametrize(("settings", "flag"), [({"layers": (0,)}, "--layers"), ({"layers": (2, 2)}, "--layers"), ({"window_s": 1.0}, "--every-s"),
                                                ({"every_s": 1.0}, "--every-s"), ({"window_s": 1.0, "every_s": 1.0, "sampling_rate": 4}, "--sampling-rate")])
def test_settings_that_cannot_be(settings: dict[str, object], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        EmbedConfig(weights="w", manifest="m", **settings)


def test_folders_without_these_flags_hold_what_they_held(tmp_path: Path) -> None:
    features = np.ones((2, 3), dtype=np.float32)
    Embeddings(np.arange(2, dtype=np.uint64), np.zeros(2), features, features).write(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:
        assert file.files == ["unreadable", "content", "label", "cls", "mean"]
    assert embed.asked_for(EmbedConfig(weights="w", manifest="m"), tmp_path, []) == {}
