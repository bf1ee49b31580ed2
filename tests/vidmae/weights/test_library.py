"""vidmae as a library: its page as it stands, folders of the hub, runs, clips of videos and pictures, and every refusal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VideoMAEForVideoClassification

import vidmae
from tests.support.footage import real_clip
from tests.support.launching import ROOT
from tests.vidmae.weights import families
from vidmae.footage.encode import write_mp4
from vidmae.footage.open_video import open_video
from vidmae.model.classifier import build_classifier
from vidmae.model.mae import build_mae
from vidmae.model.trained import load_trained
from vidmae.model.weights import load_state, save_safetensors
from vidmae.weights import converting, released_weights
from vidmae.weights.finding import find

SIDE, FRAMES = families.SIDE, families.FRAMES
PAGE = ROOT / "vidmae/weights/README.md"


@pytest.fixture(scope="module")
def tuned() -> VideoMAEForVideoClassification:
    return families.videomae("nano", build=VideoMAEForVideoClassification, pooled=True, num_labels=7)


@pytest.fixture
def folder(tuned: VideoMAEForVideoClassification, tmp_path: Path) -> Path:
    """config.json and model.safetensors, as transformers writes them."""
    tuned.save_pretrained(tmp_path / "tuned")
    return tmp_path / "tuned"


def clips(model: torch.nn.Module) -> torch.Tensor:
    s = model.shape
    return torch.randint(0, 256, (2, s.num_frames, s.img_size, s.img_size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a small model under the name that it loads, in the hub's cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("VIDMAE_WEIGHTS", str(tmp_path / "put"))
    small = replace(released_weights.published()["hvm1@448_none"], sizes={})
    monkeypatch.setattr(released_weights, "published", lambda: {small.name: small})
    put = tmp_path / "put/eminorhan--hvm-1/hvm1@448_none.pth"
    put.parent.mkdir(parents=True)
    torch.save({"model": build_mae("mae_vit_nano_patch8", img_size=SIDE, decoder_embed_dim=32).state_dict()}, put)
    write_mp4(np.tile(real_clip(), (12, 1, 1, 1)), tmp_path / "walk.mp4", 15.0)
    Image.fromarray(real_clip()[0]).save(tmp_path / "frame.png")
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 2 and names["vectors"].shape == (1, 96) and names["tokens"].shape == (1, 8 * 16, 96)
    assert names["batch"].shape == (2, 16, SIDE, SIDE, 3) and torch.equal(names["same"], names["clip"])
    said = capsys.readouterr().out
    assert "tensors loaded" in said and "16 frames, evenly spread over 4.27 s (3.75 a second" in said


def test_a_folder_of_a_hub_gives_the_same_scores(tuned: VideoMAEForVideoClassification, folder: Path) -> None:
    said: list[str] = []
    model = vidmae.load(folder, say=said.append)
    assert (model.num_frames, model.img_size, model.mean, model.std, model.pool) == (FRAMES, SIDE, 0.45, 0.225, "mean")
    with torch.no_grad():
        expected = tuned(families.pixels(clips(model).numpy())).logits
        assert (model(clips(model)) - expected).abs().max() < 1e-5 and expected.std() > 0.1
    assert not any(t.is_meta for t in model.state_dict().values())
    assert said[0].startswith("tuned: vit_nano_patch8, 4 frames of 32 px, 2 per token; VideoMAE of transformers; 55 tensors loaded from")


def test_configuration_and_weights_that_disagree(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for change, said in (({"hidden_size": 192}, r"disagree: width 192 \(the tensors: 96\)"), ({"num_attention_heads": 4}, "heads 4"),
                         ({"patch_size": 16}, "patch_size 16"), ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
                         ({"model_type": "bert"}, "a model of type 'bert'")):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=said):
            vidmae.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        vidmae.load(folder)


class Evil:
    """What a hostile file would hold."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("import pathlib; pathlib.Path('ran').touch()",)


def test_what_cannot_be_opened_is_one_clear_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"model": {"w": torch.ones(2, 3)}, "evil": Evil()}, "evil.pth")
    torch.save({"state": 3}, "empty.pth")
    torch.save(build_classifier("vit_nano_patch8", num_classes=None, img_size=SIDE, num_frames=4).state_dict(), "cut.pth")
    Path("cut.pth").write_bytes(Path("cut.pth").read_bytes()[:100_000])
    (tmp_path / "nothing").mkdir()
    for source, said in ((folder, "cut off, damaged"), ("text.pth", "cannot be read as a checkpoint"), ("evil.pth", "no video encoder|cannot be read"),
                         ("empty.pth", "no state dict"), ("cut.pth", "cannot be read as a checkpoint"), ("nothing", "no folder of weights"),
                         ("gone.pth", "does not exist"), ("hvm1@449_none", r"no published weights are called .*did you mean hvm1@448_none"),
                         ("hvm1@448_none", r"HF_HUB_OFFLINE forbids it.*hvm1@448_none\.pth where there is a network.*VIDMAE_WEIGHTS"),
                         ("mae_st-huge-k400", "it is not on the hub.*mae_pretrain_vit_huge_k400.pth")):
        with pytest.raises(ValueError, match=said):
            vidmae.load(source)
    assert not Path("ran").exists()


def test_other_sizes_and_a_run(tmp_path: Path) -> None:
    mae = build_mae("mae_vit_nano_patch8", img_size=SIDE, num_frames=4, pred_t_dim=4, decoder_embed_dim=32)
    save_safetensors(mae.state_dict(), tmp_path / "w.safetensors", {})
    said: list[str] = []
    large = vidmae.load(tmp_path / "w.safetensors", img_size=2 * SIDE, num_frames=8, say=said.append)
    assert large.features(clips(large)).shape == (2, 96)
    assert "pos_embed_spatial 16 -> 64 (bicubic); pos_embed_temporal 2 -> 4 (linear)" in said[0]
    same = vidmae.load(str(tmp_path / "w.safetensors"), pool="mean")
    assert torch.allclose(same.tokens(clips(same)), mae.encode(clips(same))[:, 1:], atol=1e-6)
    shutil.copytree(ROOT / "tests/earlier_runs/runs/done-edd1b7a1", tmp_path / "runs/done-edd1b7a1")
    run = vidmae.load("done", runs_dir=tmp_path / "runs")
    assert torch.equal(run.norm.weight, load_state(tmp_path / "runs/done-edd1b7a1/weights.safetensors")["norm.weight"])
    for option, said in (({"inflated": "mean"}, "allowed with weights of a model of 4 frames: no"), ({"img_size": 0}, "img_size 0 must"),
                         ({"num_frames": 0}, "num_frames 0 must")):
        with pytest.raises(ValueError, match=said):
            vidmae.load(tmp_path / "w.safetensors", **option)
    with pytest.raises(ValueError, match="no run of"):
        vidmae.load("other", runs_dir=tmp_path / "runs")


def test_a_file_is_mapped_and_not_changed_by_training(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(build_classifier("vit_nano_patch8", num_classes=3, img_size=SIDE, num_frames=4).state_dict(), path)
    before = path.read_bytes()
    model = vidmae.load(path).train()
    model(clips(model)).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= parameter.grad
    assert path.read_bytes() == before and all(parameter.requires_grad for parameter in model.parameters())


def test_converted_weights_are_the_same_model(tuned: VideoMAEForVideoClassification, folder: Path, tmp_path: Path) -> None:
    said = converting.convert(find(folder), tmp_path / "ours.safetensors")
    assert said.startswith("55 tensors from the layout of VideoMAE of transformers, 6 of them cut or computed")
    ours, theirs = vidmae.load(tmp_path / "ours.safetensors"), vidmae.load(folder)
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    assert torch.allclose(ours(clips(ours)), theirs(clips(ours)), atol=1e-5), "mapped files lie at other addresses"
    torch.save({"model_state": build_mae("mae_vit_nano_patch8", img_size=SIDE, pred_t_dim=8, decoder_embed_dim=32).state_dict()}, tmp_path / "st.pyth")
    converting.convert(find(tmp_path / "st.pyth"), tmp_path / "st.safetensors")
    assert load_trained(tmp_path / "st.safetensors").config.pred_t_dim == 8
    with pytest.raises(ValueError, match="is there already"):
        converting.convert(find(folder), tmp_path / "ours.safetensors")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        converting.convert(find(folder), tmp_path / "ours.pth")


def test_clips_are_cut_where_they_are_asked_for(tmp_path: Path) -> None:
    frames = np.repeat(np.arange(90, dtype=np.uint8)[:, None, None, None] * 2, 48, axis=1).repeat(64, axis=2).repeat(3, axis=3)
    write_mp4(frames, tmp_path / "ramp.mp4", 15.0)
    with open_video(tmp_path / "ramp.mp4", "pyav") as video:
        decoded = video.read(np.arange(90)).mean(axis=(1, 2, 3))
    cut = vidmae.Preprocessor(num_frames=4, img_size=24, sampling_rate=8, target_fps=30.0)
    for start_s, first in ((0.0, 0), (2.0, 30), (None, (90 - 16) / 2)):
        shown = cut(tmp_path / "ramp.mp4", start_s).float().mean(dim=(1, 2, 3)).numpy()
        assert np.allclose(shown, decoded[np.floor(np.linspace(first, first + 15, 4)).astype(int)], atol=1), start_s
    assert vidmae.read_clip(tmp_path / "ramp.mp4", 5.9, num_frames=4, img_size=24).shape == (1, 4, 24, 24, 3)
    with pytest.raises(ValueError, match=r"start_s is 6, allowed: 0 to 4\.93.*6\.00, where the video ends"):
        cut(tmp_path / "ramp.mp4", 6.0)
    with pytest.raises(ValueError, match=r"frames are float64 of shape \(2, 3\)"):
        cut.of_frames(np.ones((2, 3)))


def test_the_package_loads_no_torch_until_it_is_used() -> None:
    code = "import sys, vidmae; assert 'torch' not in sys.modules and 'numpy' not in sys.modules; vidmae.load; assert 'torch' in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        vidmae.laod  # noqa: B018
