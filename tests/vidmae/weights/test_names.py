"""jobs/weights.py, and names of published weights where a file can be given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from analysis import attention
from jobs import interpolate, weights
from sweeps.grid.checkpoints import find_inits
from vidmae.model.mae import build_mae
from vidmae.model.weights import read_metadata
from vidmae.settings.layers import ConfigError
from vidmae.weights.finding import weights_in


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("VIDMAE_WEIGHTS", str(tmp_path / "put"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def put(tmp_path: Path, name: str) -> Path:
    """A file that was brought by hand, in the layout of a released one: ViT-H/14, one number for all."""
    with torch.device("meta"):
        shapes = {key: t.shape for key, t in build_mae("mae_vit_huge_patch14", img_size=448).state_dict().items()}
    path = tmp_path / "put/eminorhan--hvm-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}}, path)
    return path


def test_list_show_and_get(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, "hvm1@448_none.pth")
    assert weights.main(["list"]) == 0
    out, err = capsys.readouterr()
    assert {"say_none", "hvm1@448_none", "vjepa2-large", "mae-huge"} <= set(out.split()) and "licence: CC-BY-NC 4.0" in err
    assert re.search(r"hvm1@448_none +here  4,971 hours", err) and re.search(r"say_none +-     SAYCam, three children", err)
    assert weights.main(["show", "hvm1@448_none"]) == 0 and f"here          {path}" in capsys.readouterr().out
    assert weights.main(["show", "vjepa2-giant", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sizes"]["name"] == "vit_giant_patch16"
    assert weights.main(["get", "hvm1@448_none"]) == 0 and capsys.readouterr().out.strip() == str(path)
    assert weights.main(["get", "say_none"]) == 2
    assert "HF_HUB_OFFLINE forbids it" in capsys.readouterr().err
    assert weights.main(["show", "say_nothing"]) == 2 and "did you mean say_none" in capsys.readouterr().err


def test_convert_and_show_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model_state": build_mae("mae_vit_nano_patch8", img_size=32, decoder_embed_dim=32, pred_t_dim=8).state_dict()}, "st.pyth")
    assert weights.main(["convert", "st.pyth", "--out", "ours.safetensors"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "ours.safetensors")
    assert json.loads(read_metadata("ours.safetensors")["config"])["pred_t_dim"] == 8
    assert weights.main(["convert", "st.pyth", "--out", "ours.safetensors"]) == 2 and "is there already" in capsys.readouterr().err
    run = tmp_path / "site/demo-1a2b3c4d"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    (tmp_path / "ours.safetensors").rename(run / "weights.safetensors")
    for given in (["st.pyth"], [str(run)], ["demo", "--runs-dir", "site"]):
        assert weights.main(["show", *given]) == 0
        assert "model         vit_nano_patch8, 16 frames of 32 px, 2 per token; this suite" in capsys.readouterr().out, given
    assert weights.main(["show", "demo", "--runs-dir", "site", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["settings"]["img_size"], told["classes"], told["decoder"]) == (32, 0, True)
    assert weights.main(["get", "demo", "--runs-dir", "site"]) == 0 and capsys.readouterr().out.strip() == str(run)
    assert weights.main(["show", "hf://me/tiny/none.pth"]) == 2 and "is not on this machine" in capsys.readouterr().err


def test_a_name_stands_for_a_file(tmp_path: Path) -> None:
    path = put(tmp_path, "hvm1@448_none.pth")
    found, file = weights_in("hvm1@448_none", "--weights")
    assert (found.path, file, found.settings) == (path, path, ()) and found.sizes == {"img_size": 448, "num_frames": 16, "t_patch_size": 2}
    (init,) = find_inits(["vit_hvm1@448_none"], [], tmp_path / "runs")
    assert (init.name, init.weights) == ("hvm1@448_none", str(path)) and init.settings["model"]["img_size"] == 448
    for given, said in (("say_none", "--weights: hf://eminorhan/video-models/say_none.pth is not on this machine"),
                        ("gone.pth", "does not exist"), ("hf://a/b", "is not of the form")):
        with pytest.raises(ConfigError, match=said):
            weights_in(given, "--weights")
    with pytest.raises(ConfigError, match=r"say_none\.pth is not on this machine.*\(--checkpoints\)"):
        find_inits(["say_none"], [], tmp_path / "runs")
    with pytest.raises(ConfigError, match="there is no file"):
        find_inits(["vitl16.pth.tar"], [], tmp_path / "runs")
    (path.parent.parent / "mae_pretrain_vit_large_k400.pth").write_bytes(b"weights")
    args = interpolate.make_parser().parse_args(["--weights", "mae_st-large-k400", "--videos", str(tmp_path), "--out", "out",
                                                "--set", "model.decoder_num_heads=8"])
    asked = interpolate.resolve(args, {"videos": tmp_path}, tmp_path / "out")
    assert asked.settings == ("model.norm_pix_loss=true", "model.decoder_num_heads=8"), "what the catalogue knows, then the flags"
    looked = attention.make_parser().parse_args(["--weights", "hvm1@448_none", "--videos", str(tmp_path), "--out", "out"])
    assert attention.resolve(looked, tmp_path / "out").sizes == found.sizes
