"""Weights for others: what others read is what was written, by code that is not ours; and nothing is sent unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from transformers import AutoModel, VideoMAEForVideoClassification

import vidmae
from jobs import weights
from tests.support.launching import ROOT
from tests.vidmae.weights import families
from vidmae.model.classifier import VideoClassifier, build_classifier
from vidmae.model.mae import build_mae
from vidmae.model.trained import load_trained, untrained
from vidmae.model.trained_encoder import file_model
from vidmae.model.weights import load_weights, read_metadata, save_safetensors
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import build, parse_set, to_dict
from vidmae.weights.finding import find
from vidmae.weights.model_card import Card, card_of, to_markdown

SECRET = "Anna"
SIDE, FRAMES = families.SIDE, families.FRAMES


def exported(source: Path, out: Path, *flags: str) -> int:
    return weights.main(["export", str(source), "--out", str(out), *flags])


def clips_of(model: VideoClassifier, batch: int = 2) -> torch.Tensor:
    s = model.shape
    return torch.randint(0, 256, (batch, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(batch))


@pytest.fixture(scope="module")
def mae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked autoencoder of ours."""
    path = tmp_path_factory.mktemp("mae") / "ours.safetensors"
    torch.manual_seed(0)
    save_safetensors(build_mae("mae_vit_nano_patch8", img_size=SIDE, num_frames=FRAMES, decoder_embed_dim=32, pred_t_dim=FRAMES).state_dict(),
                     path, {"model": "mae_vit_nano_patch8", "config": json.dumps({
                         "name": "mae_vit_nano_patch8", "img_size": SIDE, "num_frames": FRAMES, "decoder_embed_dim": 32,
                         "pred_t_dim": FRAMES, "decoder_num_heads": 4, "norm_pix_loss": True, "mask_ratio": 0.8})})
    return path


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VideoMAE that was finetuned, and then by us: with a bias of k."""
    folder = tmp_path_factory.mktemp("videomae")
    families.videomae("nano", build=VideoMAEForVideoClassification, pooled=True, num_labels=7).save_pretrained(folder / "theirs")
    model = vidmae.load(folder / "theirs")
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos_embed" not in name:
                parameter += 0.02 * torch.randn_like(parameter)
    path = folder / "tuned.safetensors"
    s = model.shape
    save_safetensors(model.state_dict(), path, {"config": json.dumps({"name": s.name, "img_size": s.img_size, "num_frames": s.num_frames,
                                                                      "positions": "fixed", "pool": "mean"})})
    return path


def test_our_own_form_keeps_every_bit_and_the_decoder(mae: Path, tmp_path: Path) -> None:
    assert exported(mae, tmp_path / "out", "--licence", "cc-by-4.0") == 0
    again = build_mae("mae_vit_nano_patch8", img_size=SIDE, num_frames=FRAMES, decoder_embed_dim=32, pred_t_dim=FRAMES)
    load_weights(again, tmp_path / "out")
    first = build_mae("mae_vit_nano_patch8", img_size=SIDE, num_frames=FRAMES, decoder_embed_dim=32, pred_t_dim=FRAMES)
    load_weights(first, mae)
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in again.state_dict().items())
    one, other = vidmae.load(mae), vidmae.load(tmp_path / "out")
    assert torch.equal(one.features(clips_of(one)), other.features(clips_of(one)))
    assert 'license: "cc-by-4.0"' in (tmp_path / "out/README.md").read_text()
    assert load_trained(tmp_path / "out").config == load_trained(mae).config and read_metadata(tmp_path / "out") == read_metadata(mae)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o600}
    assert exported(mae, tmp_path / "out") == 2  # it is there


def test_torch_hub_opens_what_vidmae_opens(mae: Path) -> None:
    one, other = vidmae.load(mae), torch.hub.load(str(ROOT), "load", str(mae), source="local", pool="mean")
    assert (one.pool, other.pool) == ("cls", "mean") and torch.equal(one.tokens(clips_of(one)), other.tokens(clips_of(one)))


def test_the_released_form_is_a_dict_of_the_same_tensors(mae: Path, tmp_path: Path) -> None:
    assert exported(mae, tmp_path / "out", "--form", "mae_st") == 0
    state = torch.load(tmp_path / "out/weights.pth", weights_only=True)["model"]
    model = build_mae("mae_vit_nano_patch8", img_size=SIDE, num_frames=FRAMES, decoder_embed_dim=32, pred_t_dim=FRAMES)
    model.load_state_dict(state)
    load_weights(model, mae)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_transformers_computes_the_same_scores(videomae: Path, tmp_path: Path) -> None:
    assert exported(videomae, tmp_path / "out", "--form", "transformers") == 0
    ours = vidmae.load(videomae)
    theirs = VideoMAEForVideoClassification.from_pretrained(tmp_path / "out").eval()
    clips = clips_of(ours)
    with torch.inference_mode():
        scores = theirs(families.pixels(clips.numpy())).logits
        assert (ours(clips) - scores).abs().max() < 1e-5 and scores.std() > 0.1
        again = vidmae.load(tmp_path / "out")
        assert (again(clips) - scores).abs().max() < 1e-5  # this suite reads it as it reads any VideoMAE


def test_transformers_computes_the_same_tokens(videomae: Path, tmp_path: Path) -> None:
    ours = vidmae.load(videomae)
    state = {name: tensor for name, tensor in ours.state_dict().items() if not name.startswith("head.")}
    save_safetensors(state, tmp_path / "headless.safetensors", {"config": json.dumps({"pool": "mean"})})
    assert exported(tmp_path / "headless.safetensors", tmp_path / "out", "--form", "transformers") == 0
    clips = clips_of(ours)
    with torch.inference_mode():
        tokens = AutoModel.from_pretrained(tmp_path / "out").eval()(families.pixels(clips.numpy())).last_hidden_state
        assert (ours.tokens(clips) - tokens).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("which", ["mae", "videomae"])
def test_a_program_needs_torch_alone_and_takes_any_batch(which: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    weights_file = request.getfixturevalue(which)
    assert exported(weights_file, tmp_path / "out", "--form", "program") == 0
    encoder, ours = torch.export.load(tmp_path / "out/encoder.pt2").module(), vidmae.load(weights_file)
    assert (ours.head is None) == (which == "mae")  # with a head, class scores
    with torch.inference_mode():
        for batch in (1, 5):
            assert (encoder(clips_of(ours, batch)) - ours(clips_of(ours, batch))).abs().max() < 1e-5


@pytest.mark.parametrize(("form", "which", "message"), [
    ("transformers", "mae", "it has learned positions and a class token, and VideoMAE of transformers has a fixed table of sines"),
    ("mae_st", "videomae", "it has fixed positions and no class token, other than the released code of ST-MAE"),
])
def test_a_form_that_has_no_such_model(form: str, which: str, message: str, tmp_path: Path, request: pytest.FixtureRequest,
                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert exported(request.getfixturevalue(which), tmp_path / "out", "--form", form) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_how_a_model_pools_goes_with_it(tmp_path: Path) -> None:
    shape = {"name": "vit_nano_patch8", "img_size": SIDE, "num_frames": FRAMES, "pool": "mean"}
    model = build_classifier(**shape, num_classes=7).eval()
    save_safetensors(model.state_dict(), tmp_path / "pooled.safetensors", {"config": json.dumps(shape)})
    assert exported(tmp_path / "pooled.safetensors", tmp_path / "out") == 0
    with torch.inference_mode():
        assert torch.equal(vidmae.load(tmp_path / "out")(clips_of(model)), model(clips_of(model)))


def test_a_model_that_predicts_features_keeps_what_its_header_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = build(PretrainConfig, parse_set(["model.name=mae_vit_nano_patch16", "model.img_size=32", "model.num_frames=4",
                                              "model.pred_t_dim=4", "model.mask_ratio=0.75", "model.target=features"]))[0].model
    model = untrained(config)
    save_safetensors(model.state_dict(), tmp_path / "features.safetensors", {"model": config.name, "config": json.dumps(to_dict(config))})
    assert exported(tmp_path / "features.safetensors", tmp_path / "out") == 0
    assert json.loads(read_metadata(tmp_path / "out")["config"])["target"] == "features"
    assert exported(tmp_path / "features.safetensors", tmp_path / "theirs", "--form", "mae_st") == 2
    assert "it predicts features" in capsys.readouterr().err


def test_a_model_without_a_table_of_time_opens_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"name": "vit_nano_patch8", "img_size": SIDE, "num_frames": FRAMES, "temporal_positions": False}
    model = build_classifier(**shape, num_classes=None).eval()
    save_safetensors(model.state_dict(), tmp_path / "timeless.safetensors", {"config": json.dumps(shape)})
    assert exported(tmp_path / "timeless.safetensors", tmp_path / "out") == 0
    with torch.inference_mode():
        assert torch.equal(vidmae.load(tmp_path / "out")(clips_of(model)), model(clips_of(model)))
    assert exported(tmp_path / "timeless.safetensors", tmp_path / "theirs", "--form", "mae_st") == 2
    assert "no table of positions in time" in capsys.readouterr().err


def test_another_table_of_positions_is_refused(videomae: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = build_classifier("vit_nano_patch8", num_classes=None, img_size=SIDE, num_frames=FRAMES, positions="fixed", pool="mean")
    state = {**model.state_dict(), "pos_embed_fixed": torch.rand(2, 16, 96)}
    save_safetensors(state, tmp_path / "odd.safetensors", {})
    assert exported(tmp_path / "odd.safetensors", tmp_path / "out", "--form", "transformers") == 2
    assert "its table of positions is not VideoMAE's" in capsys.readouterr().err


def test_the_card_of_a_run_has_numbers_and_no_names(mae: Path, tmp_path: Path) -> None:
    run = RunFolder(make_private_folder(tmp_path / f"runs/s-{SECRET}-0011aabb"))
    run.weights.write_bytes(mae.read_bytes())
    manifest = tmp_path / f"{SECRET}.csv"
    manifest.with_suffix(".json").write_text(json.dumps({"content_sha256": "ab" * 32, "seconds": 360_000}))
    run.config.write_text(f"name: s\nmodel: {{mask_ratio: 0.9}}\ndata: {{name: {SECRET}, manifest: {manifest}}}\ntrain: {{init: /{SECRET}.pth}}\n")
    run.record.write_text(json.dumps({"kind": "pretrain", "signature": "0011aabb", "manifest": str(manifest), "content_sha256": "ab" * 32, "videos": 12, "data": SECRET}))
    run.result.write_text(json.dumps({"steps": 300, "last_loss": 0.14421}))
    assert exported(run.path, tmp_path / "out") == 0
    card = (tmp_path / "out/README.md").read_text()
    assert all(f"| {row} |" in card for row in (
        "hours of video | 100", "videos | 12", "optimizer steps | 300", "loss of the last step | 0.1442", "model.mask_ratio | 0.9"))
    assert "ab" * 32 in card and SECRET not in card and "# vit_nano_patch8-0011aabb\n" in card


@pytest.mark.parametrize(("licence", "lines"), [
    ("no", {"license": "no"}), ("Apache 2.0: (the files)", {"license": "other", "license_name": "Apache 2.0: (the files)"})])
def test_the_licence_is_one_line_that_hubs_read(licence: str, lines: dict[str, str], mae: Path) -> None:
    header = yaml.safe_load(to_markdown(Card("s", licence), file_model(mae), "vidmae").split("---")[1])
    assert {key: value for key, value in header.items() if key.startswith("licen")} == lines
    with pytest.raises(ValueError, match=r"--licence 'a: b' is none"):
        card_of(find(mae), "a: b")


class Hub:
    """Stands for the hub: keeps what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.error = error

    def create_repo(self, repo: str, **more: Any) -> None:
        if self.error:
            raise self.error
        self.asked.append((repo, more))

    def upload_folder(self, **more: Any) -> None:
        self.asked.append(("upload", more))


@pytest.fixture
def out(mae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert exported(mae, tmp_path / "out") == 0
    return tmp_path / "out"


def test_push_says_what_it_sends_and_asks_first(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    assert weights.main(["push", str(out), "me/s"]) == 2 and not hub.asked  # nobody can be asked
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True, "readline": lambda _: "no\n"})())
    assert weights.main(["push", str(out), "me/s"]) == 1 and not hub.asked
    said = capsys.readouterr().err
    assert all(name in said for name in ("https://huggingface.co/me/s", "only you can see", "model.safetensors", "config.json", "README.md"))
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True, "readline": lambda _: "y\n"})())
    assert weights.main(["push", str(out), "me/s"]) == 0
    (repo, made), (_, sent) = hub.asked
    assert (repo, made["private"]) == ("me/s", True) and set(sent["allow_patterns"]) == {"README.md", "config.json", "model.safetensors"}


def test_push_refuses_what_is_no_export(out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(ConnectionError("https://x?token=hf_secret")))
    assert weights.main(["push", str(out), "me/s", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "the hub did not take it (ConnectionError)" in said and "hf_secret" not in said
    assert weights.main(["push", str(out), "me", "--yes"]) == 2
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert weights.main(["push", str(out), "me/s", "--yes"]) == 2
    (out / "frame.png").write_bytes(b"")
    assert weights.main(["push", str(out), "me/s", "--yes"]) == 2
    said = capsys.readouterr().err
    assert "not of the form owner/name" in said and "HF_HUB_OFFLINE forbids it" in said and "files that no export has, such as frame.png" in said
