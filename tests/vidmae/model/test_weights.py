"""Checkpoints in and out."""

import argparse
import json
import stat
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.support.launching import ROOT
from vidmae.model.formats.keys import by_group
from vidmae.model.mae import build_mae
from vidmae.model.masking import random_mask
from vidmae.model.weights import load_into, load_state, load_weights, read_metadata, save_safetensors

TOY = {"img_size": 16, "num_frames": 4, "pred_t_dim": 4, "decoder_embed_dim": 32, "decoder_depth": 2,
       "decoder_num_heads": 2, "mask_ratio": 0.5}


def toy(seed=0, **options):
    torch.manual_seed(seed)
    return build_mae("mae_vit_nano_patch8", **{**TOY, **options})


def loss(model):
    g = torch.Generator().manual_seed(3)
    s = model.shape
    clips = torch.randint(0, 256, (2, s.num_frames, s.img_size, s.img_size, 3), generator=g, dtype=torch.uint8)
    return model(clips, random_mask(s.num_tokens, s.mask_ratio, 2, generator=g)).item()


def released(path, model, key="model", prefix="", legacy=False):
    """A file as the released code writes it: pickled, with the run's argparse.Namespace inside."""
    content = {key: {prefix + name: t for name, t in model.state_dict().items()}, "optimizer": {"state": {}},
               "epoch": 7, "scaler": {"scale": 65536.0}, "args": argparse.Namespace(lr=1e-4, mask_ratio=0.9)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize(("key", "prefix", "legacy"), [
    ("model", "", False), ("model_state", "", False), ("model", "module.", False),
    ("model", "_orig_mod.module.", False), ("model", "", True)])
def test_a_released_file_gives_the_same_loss(tmp_path, key, prefix, legacy):
    source, target = toy(0), toy(1)
    path = released(tmp_path / "say.pth", source, key, prefix, legacy)
    assert loss(target) != loss(source)
    report = load_weights(target, path)
    assert loss(target) == loss(source)
    assert str(report) == f"{len(source.state_dict())} tensors loaded"


def test_a_plain_state_dict_and_a_bf16_one_load(tmp_path):
    source, target = toy(0), toy(1)
    torch.save({name: t.bfloat16() for name, t in source.state_dict().items()}, tmp_path / "plain.pt")
    load_weights(target, tmp_path / "plain.pt")
    assert target.norm.weight.dtype == torch.float32
    assert loss(target) == pytest.approx(loss(source), rel=0.02)


def test_safetensors_round_trip(tmp_path):
    source, target = toy(0), toy(1)
    path = tmp_path / "export" / "model.safetensors"
    save_safetensors(source.bfloat16().state_dict(), path, {"model": "mae_vit_nano_patch8"})
    load_weights(target, path)
    assert loss(target) == pytest.approx(loss(source.float()), rel=1e-6)
    assert {t.dtype for t in load_file(path).values()} == {torch.float32}
    raw = path.read_bytes()
    header = json.loads(raw[8:8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["__metadata__"] == {"format": "pt", "model": "mae_vit_nano_patch8"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_safetensors({"a": torch.ones(2)}, path, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_safetensors({"a": torch.zeros(2)}, path, {"step": 3})  # metadata must be strings
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_position_tables_follow_the_image_size():
    source, target = toy(0, img_size=32), toy(1, img_size=64)
    with pytest.raises(ValueError, match=r"pos_embed_spatial is \(1, 16, 96\), the model has \(1, 64, 96\) "
                                         r"\(another image size: pass resize_positions=True\)"):
        load_into(target, source.state_dict())
    report = load_into(target, source.state_dict(), resize_positions=True)
    assert report.resized == ("decoder_pos_embed_spatial 16 -> 64", "pos_embed_spatial 16 -> 64")
    assert "pos_embed_spatial 16 -> 64 (bicubic)" in str(report)
    small = source.pos_embed_spatial.detach().reshape(4, 4, 96)
    large = target.pos_embed_spatial.detach().reshape(8, 8, 96)
    blocks = large.reshape(4, 2, 4, 2, 96).mean((1, 3))  # bicubic upsampling by 2 keeps the local means, roughly
    assert torch.corrcoef(torch.stack([blocks.flatten(), small.flatten()]))[0, 1] > 0.95
    assert 0 < loss(target) < 10


def test_resized_ramp_is_a_ramp():
    """Away from the border a linear ramp stays one (torch's cubic kernel is off by up to 0.02), in the right place."""
    source, target = toy(0, img_size=64), toy(1, img_size=128)
    with torch.no_grad():
        source.pos_embed_spatial.copy_(torch.arange(8.0).repeat(8)[None, :, None].expand(1, 64, 96))
    load_into(target, source.state_dict(), resize_positions=True)
    row = target.pos_embed_spatial.detach().reshape(16, 16, 96)[5, :, 0]
    assert torch.allclose(row[4:12], torch.arange(4, 12) / 2 - 0.25, atol=0.05)


def test_misfits_are_reported_by_group_and_change_nothing():
    model = toy(0)
    before = loss(model)
    state = toy(1).state_dict()
    for name in [n for n in state if ".attn." in n and n.startswith("blocks")]:
        del state[name]
    state |= {"head.weight": torch.zeros(2, 96), "head.bias": torch.zeros(2), "norm.weight": torch.zeros(7)}
    with pytest.raises(ValueError) as caught:
        load_into(model, state)
    assert str(caught.value) == (
        "the weights do not fit mae_vit_nano_patch8: blocks.0-2.attn: 24 tensors missing; head: 2 tensors unexpected; "
        "norm.weight is (7,), the model has (96,)")
    assert loss(model) == before


def test_allowed_differences_are_reported():
    model, state = toy(0), toy(1).state_dict()
    del state["norm.bias"]
    state["head.weight"] = torch.zeros(2, 96)
    report = load_into(model, state, allow_missing=["norm."], allow_unexpected=["head."])
    assert report.missing == ("norm.bias",)
    assert report.ignored == ("head.weight",)
    assert str(report).endswith("norm: 1 tensor missing, left as they were; head: 1 tensor ignored")


def test_another_pred_t_dim_says_so():
    with pytest.raises(ValueError, match=r"decoder_pred\.weight is \(384, 32\).*\(another pred_t_dim\)"):
        load_into(toy(0, pred_t_dim=2), toy(0).state_dict())


def test_head_projection_is_renamed(tmp_path):
    torch.save({"model_state": {"head.projection.weight": torch.ones(2, 3)}}, tmp_path / "fb.pth")
    assert list(load_state(tmp_path / "fb.pth")) == ["head.weight"]


def test_groups():
    names = [f"blocks.{i}.attn.{m}.{x}" for i in (0, 1, 2, 5) for m in "qkv" for x in ("weight", "bias")]
    assert by_group([*names, "patch_embed.proj.weight", "cls_token"]) == [
        "blocks.0-2,5.attn: 24 tensors", "patch_embed: 1 tensor", "cls_token: 1 tensor"]


@pytest.mark.parametrize(("make", "message"), [
    (lambda p: p, "does not exist"),
    (lambda p: p.mkdir() or p, "has no model.safetensors and no pytorch_model.bin, nor shards of a DeepSpeed"),
    (lambda p: torch.save({"epoch": 3, "state": 1}, p) or p, r"has no state dict: its keys are \['epoch', 'state'\]"),
    (lambda p: torch.save([1], p) or p, "holds a list, expected a dict"),
    (lambda p: p.write_bytes(b"no checkpoint") and p, "cannot be read as a checkpoint"),
    (lambda p: torch.save({}, p.with_name("mp_rank_00_model_states.pt")) or p.with_name("mp_rank_00_model_states.pt"),
     "belongs to a DeepSpeed checkpoint"),
])
def test_unusable_files_say_why(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        load_state(make(tmp_path / "file.pth"))


def test_a_pickle_cannot_run_code(tmp_path):
    path = tmp_path / "bad.pth"
    code = (f"import torch, os\nclass Bad:\n    def __reduce__(self):\n"
            f"        return os.mkdir, ({str(tmp_path / 'ran')!r},)\ntorch.save({{'model': Bad()}}, {str(path)!r})")
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ValueError, match="cannot be read as a checkpoint") as error:
        load_state(path)
    assert "weights_only" not in str(error.value), "torch says how to load it unsafely"
    assert not (tmp_path / "ran").exists()


def test_equal_weights_are_equal_bytes_in_every_process(tmp_path):
    """The library writes the metadata in the order of a hash map, another in each process; three are alike once in 14,400."""
    program = ("import sys, torch; from vidmae.model.weights import save_safetensors; save_safetensors({'b': torch.ones(3), 'a': torch.zeros(2, 5)},"
               " sys.argv[1], {key: key.upper() + ' \"ä\"' for key in 'config sampling step model name'.split()})")
    files = [tmp_path / f"{i}.safetensors" for i in range(3)]
    for path in files:
        subprocess.run([sys.executable, "-c", program, str(path)], check=True, cwd=ROOT)
    assert len({path.read_bytes() for path in files}) == 1
    assert read_metadata(files[0]) == {"format": "pt", **{key: f'{key.upper()} "ä"' for key in ["config", "sampling", "step", "model", "name"]}}
    assert torch.equal(load_state(files[0])["b"], torch.ones(3)) and torch.equal(load_file(files[0])["a"], torch.zeros(2, 5))
