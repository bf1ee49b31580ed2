"""From a pretraining run, or from another classifier, into a classifier; and every file that does not fit."""

import argparse
import re

import numpy as np
import pytest
import torch

from vidmae.model.classifier import build_classifier
from vidmae.model.mae import build_mae
from vidmae.model.weights import load_encoder, save_safetensors

TOY = {"img_size": 16, "num_frames": 4}
CLIPS = torch.randint(0, 256, (2, 4, 16, 16, 3), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
ENCODER = 4 + 2 + 3 * 16 + 2  # class token and positions, patch embedding, blocks, norm


def toy_mae(seed=0, **options):
    torch.manual_seed(seed)
    return build_mae("mae_vit_nano_patch8", **{**TOY, "pred_t_dim": 4, "decoder_embed_dim": 32, "decoder_depth": 2,
                                               "decoder_num_heads": 2, "mask_ratio": 0.5, **options})


def toy(seed=1, num_classes=5, name="vit_nano_patch8", **options):
    torch.manual_seed(seed)
    return build_classifier(name, num_classes=num_classes, **{**TOY, **options}).eval()


def exported(path, model):
    save_safetensors(model.state_dict(), path / "weights.safetensors", {})
    return path / "weights.safetensors"


def released(path, model, prefix="module."):
    """A file as the released code writes it."""
    torch.save({"model": {prefix + name: t for name, t in model.state_dict().items()}, "epoch": 7,
                "args": argparse.Namespace(lr=1e-4)}, path / "released.pth")
    return path / "released.pth"


@pytest.mark.parametrize("save", [exported, released])
def test_a_pretraining_file_gives_the_same_features(tmp_path, save):
    mae, model = toy_mae(), toy()
    head = model.head.weight.clone()
    report = load_encoder(model, save(tmp_path, mae))
    assert torch.allclose(model.features(CLIPS), mae.encode(CLIPS)[:, 0], atol=1e-6)
    assert torch.equal(model.head.weight, head)
    assert (report.loaded, report.resized, report.missing) == (ENCODER, (), ("head.bias", "head.weight"))
    assert set(report.ignored) == {name for name in mae.state_dict() if name.startswith(("decoder_", "mask_token"))}
    assert str(report).startswith(f"{ENCODER} tensors loaded; head: 2 tensors missing, left as they were; "
                                  f"decoder_blocks.0-1.attn: 16 tensors ignored")


def test_every_token_is_the_pretrained_one(tmp_path):
    mae, model = toy_mae(), toy()
    load_encoder(model, exported(tmp_path, mae))
    assert torch.allclose(model.norm(model.last_block(CLIPS)), mae.encode(CLIPS), atol=1e-6)


def test_a_finetuned_file_brings_its_head(tmp_path):
    source, model = toy(0), toy(1)
    report = load_encoder(model, released(tmp_path, source))
    assert torch.equal(model(CLIPS), source(CLIPS))
    assert str(report) == f"{ENCODER + 2} tensors loaded"


@pytest.mark.parametrize("classes", [5, 7])
def test_a_new_head_leaves_the_old_one_out(tmp_path, classes):
    source, model = toy(0), toy(1, num_classes=classes)
    head = model.head.weight.clone()
    report = load_encoder(model, exported(tmp_path, source), new_head=True)
    assert torch.equal(model.features(CLIPS), source.features(CLIPS))
    assert torch.equal(model.head.weight, head)
    assert (report.loaded, report.missing) == (ENCODER, ("head.bias", "head.weight"))
    assert set(report.ignored) == {"head.bias", "head.weight"}


@pytest.mark.parametrize("make", [toy_mae, toy, lambda: toy(0, num_classes=None)], ids=["mae", "finetuned", "headless"])
def test_a_model_without_a_head_takes_the_encoder(tmp_path, make):
    source, model = make(), toy(2, num_classes=None)
    report = load_encoder(model, exported(tmp_path, source))
    assert torch.equal(model.cls_token, source.cls_token)
    assert (report.loaded, report.missing) == (ENCODER, ())
    assert ("head.weight" in report.ignored) == ("head.weight" in source.state_dict())


def cubic_matrix(side, new_side):
    """[new_side, side]: cubic convolution (a = -0.75) between pixel centres, the border repeated."""
    def weight(d, a=-0.75):
        d = abs(d)
        return (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4) if d < 2 else 0.0

    matrix = np.zeros((new_side, side))
    for i in range(new_side):
        centre = (i + 0.5) * side / new_side - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            matrix[i, min(max(tap, 0), side - 1)] += weight(centre - tap)
    return matrix


@pytest.mark.parametrize(("size", "new_size"), [(224, 448), (448, 224)])
def test_positions_follow_the_image_size(tmp_path, size, new_size):
    source, model = (build_classifier("vit_nano_patch14", num_classes=5, img_size=px) for px in (size, new_size))
    path, (a, b) = exported(tmp_path, source), (size // 14, new_size // 14)
    with pytest.raises(ValueError, match=rf"{ENCODER - 1} of {ENCODER} .* pos_embed_spatial is \(1, {a * a}, 96\), the model has "
                                         rf"\(1, {b * b}, 96\) \(another image size: pass resize_positions=True\)"):
        load_encoder(model, path)
    report = load_encoder(model, path, resize_positions=True)
    assert report.resized == (f"pos_embed_spatial {a * a} -> {b * b}",)
    matrix, image = cubic_matrix(a, b), source.pos_embed_spatial.detach().double().numpy().reshape(a, a, 96)
    expected = np.einsum("ir,jc,rcd->ijd", matrix, matrix, image).reshape(1, b * b, 96)
    assert np.allclose(model.pos_embed_spatial.detach().numpy(), expected, atol=1e-6)
    assert torch.equal(model.pos_embed_temporal, source.pos_embed_temporal)


def test_positions_of_the_same_size_stay_to_the_bit(tmp_path):
    source, model = toy(0), toy(1)
    assert load_encoder(model, exported(tmp_path, source), resize_positions=True).resized == ()
    assert torch.equal(model.pos_embed_spatial, source.pos_embed_spatial)


def without(state, part):
    return {name: t for name, t in state.items() if part not in name}


def with_qkv(state):
    """As timm has it."""
    kept = {name: t for name, t in state.items() if not re.search(r"\.attn\.[qkv]\.", name)}
    return kept | {f"blocks.{i}.attn.qkv.weight": torch.zeros(288, 96) for i in range(3)}


@pytest.mark.parametrize(("make", "messages"), [
    (lambda: toy(0, num_classes=7).state_dict(),
     [f"{ENCODER} of {ENCODER} encoder tensors fit, the file looks like vit_nano_patch8; the weights do not fit vit_nano",
      "head: 2 tensors of another shape, such as: head.weight is (7, 96), the model has (5, 96) (other classes: load_enc"]),
    (lambda: without(toy(0).state_dict(), "head.bias"), ["do not fit vit_nano_patch8: head: 1 tensor missing"]),
    (lambda: toy_mae(0, num_frames=8, pred_t_dim=8).state_dict(),
     ["looks like mae_vit_nano_patch8; ", "pos_embed_temporal is (1, 4, 96), the model has (1, 2, 96) (another num_frames"]),
    (lambda: toy(0, name="vit_tiny_patch8").state_dict(),
     [f"0 of {ENCODER} encoder tensors fit, the file looks like vit_tiny_patch8; ",
      "blocks.0-2.attn: 24 tensors of another shape, such as: blocks.0.attn.k.weight is (192, 192), the model has (96, 96)",
      "blocks.3-11.attn: 72 tensors unexpected"]),
    (lambda: toy(0, name="vit_nano_patch4").state_dict(), ["looks like vit_nano_patch4; ", "patch_embed.proj.weight is"]),
    (lambda: without(toy_mae(0).state_dict(), "blocks.1.mlp"),
     ["looks like mae_vit_nano_patch8; the weights do not fit vit_nano_patch8: blocks.1.mlp: 4 tensors missing"]),
    (lambda: without(toy(0).state_dict(), "blocks.1."),
     ["looks like a vit of width 96 with 2 blocks; ", "blocks.1.attn: 8 tensors missing"]),
    (lambda: toy(0).state_dict() | {"fc_norm.weight": torch.ones(96)}, ["fc_norm: 1 tensor unexpected"]),
    (lambda: with_qkv(toy(0).state_dict()),
     ["looks like a ViT with one matrix for q, k and v", "blocks.0-2.attn: 18 tensors missing; ",
      "blocks.0-2.attn: 3 tensors unexpected"]),
    (lambda: {f"encoder.{name}": t for name, t in toy(0).state_dict().items()},
     [f"0 of {ENCODER} encoder tensors fit", "a part of a larger model (names begin with encoder.)",
      f"encoder: {ENCODER + 2} tensors unexpected"]),
    (lambda: toy(0).state_dict() | {"patch_embed.proj.weight": torch.zeros(96, 3, 8, 8)}, ["looks like an image model"]),
    (lambda: {"conv1.weight": torch.zeros(2), "layer4.0.conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(2)},
     [f"0 of {ENCODER} encoder tensors fit, the file looks like a ResNet; ", "cls_token: 1 tensor missing"]),
    (lambda: {"a.weight": torch.zeros(2)}, ["looks like none that is known (it begins with a.weight)"]),
])
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, make, messages):
    model, path = toy(1), tmp_path / "file.pth"
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.save({"model": make()}, path)
    with pytest.raises(ValueError) as caught:
        load_encoder(model, path)
    assert str(caught.value).startswith(f"{path}: ")
    for message in messages:
        assert message in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_an_empty_folder_and_a_foreign_class_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nor shards of a DeepSpeed checkpoint"):
        load_encoder(toy(), tmp_path)
    torch.save({"model": toy(0).state_dict(), "args": re.compile("x")}, tmp_path / "foreign.pth")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        load_encoder(toy(), tmp_path / "foreign.pth")
