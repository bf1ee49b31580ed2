"""Features of real clips by a small encoder: from the weights to the files, in one part or in several."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.launching import ROOT
from tests.support.runs import export_model, make_cell, make_labelled, make_run
from vidmae.clips.view_cutting import ViewCutter
from vidmae.clips.views import ViewSpec
from vidmae.footage.manifest import Check, Manifest, read_all, read_summary, write_manifest
from vidmae.insight import embed
from vidmae.insight.embedding_files import Embeddings, file_path, read_embeddings, read_file
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.trained import untrained
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import save_safetensors
from vidmae.ranks.local_program import prepare_folder
from vidmae.runs.record import read_json
from vidmae.settings.config import ModelConfig
from vidmae.settings.layers import ConfigError, to_yaml
from vidmae.settings.programs.embed_config import EmbedConfig

NANO = ModelConfig(name="mae_vit_nano_patch16", img_size=32, num_frames=4, pred_t_dim=4, decoder_embed_dim=48, decoder_depth=1,
                   mask_ratio=0.75)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six copies of real clips of three classes."""
    return make_labelled(tmp_path_factory.mktemp("labelled") / "set", train=2, val=1)[0]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export as a run writes it."""
    return export_model(tmp_path_factory.mktemp("weights") / "weights.safetensors", NANO, seed=5, sampling_rate=2,
                        target_fps=30.0, decoder="pyav")


def config_of(weights: Path, manifest: Path, **settings) -> EmbedConfig:
    given = {"batch": 2, "clips_per_file": 2, "read_limit_s": 0, "workers": 0, **settings}
    return EmbedConfig(weights=str(weights), manifest=str(manifest), manifest_content=read_summary(manifest).content_sha256,
                       **given)


def start(out: Path, weights: Path, manifest: Path, *flags: str, **settings) -> int:
    out.mkdir(exist_ok=True)
    (out / "config.yaml").write_text(to_yaml(config_of(weights, manifest, **settings)))
    return embed.main([str(out), *flags])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, weights: Path, manifest: Path) -> Path:
    out = tmp_path_factory.mktemp("done")
    assert start(out, weights, manifest) == 0
    return out


def test_features_are_those_of_the_model(done, weights, manifest):
    found, record = read_embeddings(done)
    videos, rows = Manifest.read(manifest), read_all(manifest)[1]
    spec = ViewSpec(num_frames=4, sampling_rate=2, target_fps=30.0, img_size=32)
    for pool, features in (("cls", found.cls), ("mean", found.mean)):
        model = build_classifier("vit_nano_patch16", num_classes=None, img_size=32, num_frames=4, pool=pool).eval()
        model.load_state_dict(untrained(NANO, seed=5).state_dict(), strict=False)
        for row in range(len(videos)):
            clip = np.empty((1, *spec.shape), dtype=np.uint8)
            ViewCutter(videos, spec).cut(row, [0], clip)
            with torch.inference_mode():
                alone = model.features(torch.from_numpy(clip))[0].numpy()  # a batch of one rounds in another order
            np.testing.assert_allclose(features[row], alone, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found.cls, found.mean, atol=0.1)
    assert found.content.tolist() == [int(row.content, 16) for row in rows] and found.label.dtype == np.int32
    assert [record["classes"][str(label)] for label in found.label] == [row.label for row in rows]
    assert record.items() >= {"clips": 6, "files": 3, "embed_dim": 96, "unreadable": {}}.items()
    assert [oct(p.stat().st_mode & 0o777) for p in (done / "files", file_path(done, 0, 3))] == ["0o700", "0o600"]
    assert all(Path(row.path).name.encode() not in p.read_bytes() for row in rows for p in done.rglob("*.*"))


def test_three_shards_and_one_write_the_same_files(done, weights, manifest, tmp_path, capsys):
    assert start(tmp_path, weights, manifest, "--shard", "1/3") == 0
    assert [p.name for p in (tmp_path / "files").iterdir()] == ["00001-of-00003.npz"]
    before = file_path(tmp_path, 1, 3).stat().st_mtime_ns
    assert not (tmp_path / "result.json").exists()
    assert start(tmp_path, weights, manifest) == 0, "another number of shards goes on with these files"
    assert "2 of this shard's 3 files are missing" in capsys.readouterr().out
    assert file_path(tmp_path, 1, 3).stat().st_mtime_ns == before
    for number in range(3):
        assert file_path(tmp_path, number, 3).read_bytes() == file_path(done, number, 3).read_bytes()
    finished = read_json(tmp_path / "result.json")["finished"]
    assert start(tmp_path, weights, manifest) == 0 and read_json(tmp_path / "result.json")["finished"] == finished


def test_a_file_that_was_lost_is_made_again_alike(done, weights, manifest, tmp_path):
    for kept in (0, 2):
        (tmp_path / "files").mkdir(exist_ok=True)
        file_path(tmp_path, kept, 3).write_bytes(file_path(done, kept, 3).read_bytes())
    assert start(tmp_path, weights, manifest) == 0
    assert file_path(tmp_path, 1, 3).read_bytes() == file_path(done, 1, 3).read_bytes()
    file_path(tmp_path, 0, 3).write_bytes(file_path(done, 0, 3).read_bytes()[:200])
    with pytest.raises(ValueError, match=r"00000-of-00003\.npz is missing or damaged .* run jobs/embed.py again"):
        read_embeddings(tmp_path)


def test_a_video_that_is_gone_is_counted_and_the_others_are_unchanged(done, weights, manifest, tmp_path):
    rows = []
    for number, row in enumerate(read_all(manifest)[1]):
        rows.append(replace(row, path=str(tmp_path / f"secret{number}.mp4"), label=row.label if number else ""))
        if number != 2:
            Path(rows[-1].path).symlink_to(row.path)
    write_manifest(tmp_path / "gone.csv", rows, [], Check("decord", True))
    assert start(tmp_path / "out", weights, tmp_path / "gone.csv", batch=2, clips_per_file=4) == 3
    found, record = read_embeddings(tmp_path / "out")
    assert found.cls.tobytes() == np.delete(read_embeddings(done)[0].cls, 2, axis=0).tobytes()
    assert found.label[0] == -1 and record["clips"] == 5
    assert list(record["unreadable"].values()) == [1] and "secret" not in (tmp_path / "out/result.json").read_text()


def same(model: VideoClassifier, other: VideoClassifier) -> bool:
    clip = torch.randint(0, 256, (1, 4, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        return torch.equal(model.features(clip), other.features(clip))


def test_an_encoder_comes_from_runs_cells_exports_and_released_files(weights, manifest, tmp_path):
    export, state = load_trained_encoder(weights), untrained(NANO, seed=5).state_dict()
    assert export.data.sampling_rate == 2 and export.model.head is None and not export.model.training
    torch.save({"model": state, "epoch": 3}, tmp_path / "say.pth")
    released = load_trained_encoder(tmp_path / "say.pth")
    assert released.data is None and same(released.model, export.model)
    finetuned = build_classifier("vit_nano_patch16", num_classes=3, img_size=32, num_frames=4)
    torch.save({"model": finetuned.state_dict()}, tmp_path / "finetuned.pth")
    assert same(load_trained_encoder(tmp_path / "finetuned.pth").model, finetuned.eval())
    run = make_run(tmp_path / "run", manifest, "data.sampling_rate=3")
    cell = make_cell(tmp_path / "cell", (manifest, manifest), "data.sampling_rate=5")
    cell.record.write_text('{"kind": "fewshot"}')
    for folder, tensors, rate in ((run, state, 3), (cell, finetuned.state_dict(), 5)):
        with pytest.raises(ValueError, match="the run is not finished"):
            load_trained_encoder(folder.path)
        save_safetensors(tensors, folder.weights, {})
        assert load_trained_encoder(folder.path).data.sampling_rate == rate


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: s.pop("norm.weight"), "encoder tensors fit, the file looks like mae_vit_nano_patch16; .* norm: 1 tensor missing"),
    (lambda s: s.pop("pos_embed_spatial"), "the file has no pos_embed_spatial"),
    (lambda s: s.pop("patch_embed.proj.weight"), "holds no video encoder of this suite: it looks like none that is known"),
    (lambda s: s.update({"blocks.0.attn.qkv.weight": torch.zeros(1)}), "it looks like a ViT with one matrix"),
    (lambda s: s.update({"patch_embed.proj.weight": torch.zeros(96, 3, 16, 16)}), "it looks like an image model"),
])
def test_weights_that_do_not_fit_are_refused(change, message, manifest, tmp_path, capsys):
    state = untrained(NANO).state_dict()
    change(state)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match=message):
        load_trained_encoder(tmp_path / "odd.pth")
    assert start(tmp_path / "out", tmp_path / "odd.pth", manifest) == 2
    assert capsys.readouterr().err.startswith("error: ") and not list((tmp_path / "out").glob("files/*"))


def test_features_that_are_nan_and_settings_that_cannot_be(weights, manifest, tmp_path):
    rows = np.full((2, 3), np.nan, dtype=np.float32)
    with pytest.raises(ValueError, match="features of 2 of 2 clips are NaN"):
        Embeddings(np.zeros(2, np.uint64), np.zeros(2, np.int32), rows, rows).write(tmp_path / "a.npz")
    assert not list(tmp_path.iterdir())
    for settings, flag in (({"clips_per_file": 3}, "--clips-per-file is 3, allowed: a multiple of --batch"),
                           ({"batch": 0}, "--batch"), ({"workers": -1}, "--workers")):
        with pytest.raises(ConfigError, match=flag):
            config_of(weights, manifest, **settings)
    config = config_of(weights, manifest)
    prepare_folder(tmp_path, config)
    (tmp_path / "files").mkdir()
    prepare_folder(tmp_path, replace(config, workers=7))
    with pytest.raises(ConfigError, match=r"another configuration \(now sampling_rate: 4, there sampling_rate: 0\)"):
        prepare_folder(tmp_path, replace(config, sampling_rate=4))
    (tmp_path / "config.yaml").write_text(to_yaml(replace(config, manifest_content="another")))
    assert embed.main([str(tmp_path)]) == 2


def test_the_command_on_this_machine(done, weights, manifest, tmp_path):
    command = [sys.executable, str(ROOT / "jobs/embed.py"), "--weights", str(weights), "--data", str(manifest), "--out", "out",
               "--cluster", "local", "--shards", "2", "--batch", "2", "--clips-per-file", "2", "--workers", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    first, again = (subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    assert first.stdout.strip() == again.stdout.strip() == str(tmp_path / "out")
    assert "set: 6 clips in 3 files, 96 numbers for each of cls and mean, 3 classes" in again.stderr
    assert "files are missing" in first.stderr and "files are missing" not in again.stderr
    for number in range(3):
        assert read_file(file_path(tmp_path / "out", number, 3))[0].cls.tobytes() == read_file(
            file_path(done, number, 3))[0].cls.tobytes()
