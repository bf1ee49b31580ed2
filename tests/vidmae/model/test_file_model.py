"""What a file holds before it is loaded, whether a run can start from it, and positions of other sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vidmae.model.feature_prediction import FeaturePredictor
from vidmae.model.formats.file_model import init_problem, model_in
from vidmae.model.mae import MaskedAutoencoder, build_mae
from vidmae.model.masking import random_mask
from vidmae.model.trained_encoder import load_trained_encoder
from vidmae.model.weights import LoadReport, load_weights, save_safetensors
from vidmae.settings.config import ModelConfig
from vidmae.settings.finetune_config import ClassifierConfig
from vidmae.settings.layers import to_dict
from vidmae.weights.converting import convert
from vidmae.weights.finding import find

TOY = {"img_size": 32, "num_frames": 4, "pred_t_dim": 4, "decoder_embed_dim": 32, "decoder_depth": 2, "decoder_num_heads": 2, "mask_ratio": 0.5}


def toy(seed: int = 0, name: str = "mae_vit_nano_patch8", **options: object) -> MaskedAutoencoder:
    torch.manual_seed(seed)
    return build_mae(name, **{**TOY, **options})


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("file") / "w.safetensors"
    save_safetensors(toy().state_dict(), file, {})
    return file


def test_a_run_knows_before_it_starts_whether_it_can_start_from_a_file(path: Path, tmp_path: Path) -> None:
    def problem(resize: bool = False, file: Path = path, **options: object) -> str | None:
        return init_problem(file, toy(**options).shape, resize=resize)

    assert problem() is None and problem(img_size=64, num_frames=8, pred_t_dim=8, resize=True) is None
    assert problem(img_size=64) == ("it has model.img_size 32 (the run has 64); --set train.resize_positions=true interpolates the "
                                    "positions")
    assert problem(num_frames=8, pred_t_dim=8).startswith("it has model.num_frames 4 (the run has 8); --set")
    assert problem(decoder_depth=1, resize=True) == "it has model.decoder_depth 2 (the run has 1)"
    assert problem(decoder_embed_dim=64) == "it has model.decoder_embed_dim 32 (the run has 64)"
    assert problem(pred_t_dim=2, resize=True) == "it has model.pred_t_dim 4 (the run has 2)"
    assert "model.name vit_nano_patch8 (the run has vit_nano_patch16)" in problem(name="mae_vit_nano_patch16")
    encoder = {name: t for name, t in toy().state_dict().items() if not name.startswith(("decoder", "mask"))}
    torch.save(encoder, tmp_path / "encoder.pth")
    assert "without the decoder of an ST-MAE" in problem(file=tmp_path / "encoder.pth")
    (tmp_path / "old.pth").write_bytes(b"what cannot be listed")
    assert problem(file=tmp_path / "old.pth") is None, "the job itself looks"
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/model.safetensors").symlink_to(path)
    assert problem(file=tmp_path / "folder") is None and "decoder_depth" in problem(file=tmp_path / "folder", decoder_depth=1)


def test_a_features_run_starts_from_its_own_export_and_from_no_other(path: Path, tmp_path: Path) -> None:
    config = ModelConfig(name="mae_vit_nano_patch8", **TOY, target="features")
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in FeaturePredictor(config.shape()).state_dict().items()}
    own = tmp_path / "own.safetensors"
    save_safetensors({name: torch.zeros(shape) for name, shape in shapes.items()}, own, {"config": json.dumps(to_dict(config))})
    assert init_problem(own, config.shape(), resize=False) is None
    wide = replace(config, decoder_embed_dim=64).shape()
    assert init_problem(own, wide, resize=True) == "it has model.decoder_embed_dim 32 (the run has 64)"
    pixels = replace(config, target="pixels").shape()
    assert init_problem(own, pixels, resize=True) == "it has model.target features (the run has pixels)"
    assert init_problem(path, wide, resize=True) == ("it has model.decoder_embed_dim 32 (the run has 64), model.target pixels (the run has "
                                                     "features)")


def test_a_model_goes_on_at_another_size_with_its_decoder(path: Path) -> None:
    model = toy(1, img_size=64, num_frames=8, pred_t_dim=8)
    report = load_weights(model, path, resize_positions=True)
    assert report.resized == ("decoder_pos_embed_spatial 16 -> 64", "decoder_pos_embed_temporal 2 -> 4", "pos_embed_spatial 16 -> 64",
                              "pos_embed_temporal 2 -> 4")
    assert "pos_embed_temporal 2 -> 4 (linear)" in str(report)
    fixed = str(LoadReport(1, resized=("pos_embed_fixed 2 x 16 -> 4 x 16", "pos_embed_fixed 2 x 16 -> 2 x 64", "pos_embed_fixed 2 x 16 -> 4 x 64")))
    assert fixed.split("; ")[1:] == ["pos_embed_fixed 2 x 16 -> 4 x 16 (linear)", "pos_embed_fixed 2 x 16 -> 2 x 64 (bicubic)",
                                     "pos_embed_fixed 2 x 16 -> 4 x 64 (linear, bicubic)"]
    two = toy().pos_embed_temporal.detach()
    assert torch.allclose(model.pos_embed_temporal.detach(), torch.stack([two[:, 0], 0.75 * two[:, 0] + 0.25 * two[:, 1],
                                                                          0.25 * two[:, 0] + 0.75 * two[:, 1], two[:, 1]], dim=1), atol=1e-6)
    clips = torch.randint(0, 256, (1, 8, 64, 64, 3), dtype=torch.uint8)
    assert 0 < model(clips, random_mask(model.shape.num_tokens, 0.5, 1, generator=torch.Generator().manual_seed(0))) < 10
    half = toy(2, num_frames=2, pred_t_dim=2)
    load_weights(half, path, resize_positions=True)
    assert torch.allclose(half.pos_embed_temporal.detach(), two.mean(1, keepdim=True), atol=1e-6)


def test_an_export_of_a_cell_says_how_it_pools(tmp_path: Path) -> None:
    """Its tensors do not, where there is a class token."""
    size = {"name": "vit_nano_patch8", "img_size": 32, "num_frames": 4}
    assert ClassifierConfig(**size).unsaid == {}, "the bytes of usual exports stay"
    state = {name: t for name, t in toy().state_dict().items() if not name.startswith(("decoder", "mask"))}
    for pool, config in (("mean", ClassifierConfig(**size, pool="mean").unsaid), ("cls", {})):
        file = tmp_path / f"{pool}.safetensors"
        save_safetensors(state, file, {"config": json.dumps(config)})
        convert(find(file), tmp_path / f"{pool}2.safetensors")
        assert {load_trained_encoder(each).model.pool for each in (file, tmp_path / f"{pool}2.safetensors")} == {pool}


def test_a_file_of_448_px_says_so(tmp_path: Path) -> None:
    """The layout of a released file, ViT-H/14 at 448 px, without its blocks' numbers."""
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in build_mae("mae_vit_huge_patch14", img_size=448).state_dict().items()}
    torch.save({"model": {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}}, tmp_path / "hvm1@448_none.pth")
    found = model_in(tmp_path / "hvm1@448_none.pth")
    assert found.settings == {"name": "vit_huge_patch14", "img_size": 448, "num_frames": 16, "t_patch_size": 2}
    assert str(found) == "vit_huge_patch14, 16 frames of 448 px, 2 per token; this suite and released ST-MAE"
