"""An image MAE as a baseline: the released format against another implementation of it, and clips frame by frame."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from tests.support.footage import real_clip
from tests.support.runs import export_model
from vidmae.insight.interpolation.image_mae import IMAGENET_MEAN, IMAGENET_STD, frame_filler, load_image_mae
from vidmae.settings.config import ModelConfig

CPU = torch.device("cpu")
SIDE, PATCH, TOKENS = 64, 8, 64
ONE_FRAME = ModelConfig(name="mae_vit_nano_patch8", img_size=SIDE, num_frames=1, t_patch_size=1, pred_t_dim=1,
                        decoder_embed_dim=48, decoder_depth=1, mask_ratio=0.75)


def another_image_mae(mask_ratio: float) -> ViTMAEForPreTraining:
    """An image MAE of another implementation with weights that are all different from zero and one."""
    torch.manual_seed(0)
    model = ViTMAEForPreTraining(ViTMAEConfig(
        hidden_size=96, num_hidden_layers=3, num_attention_heads=3, intermediate_size=384, image_size=SIDE, patch_size=PATCH,
        decoder_hidden_size=64, decoder_num_hidden_layers=2, decoder_num_attention_heads=16, decoder_intermediate_size=256,
        layer_norm_eps=1e-6, mask_ratio=mask_ratio))
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> ViTMAEForPreTraining:
    return another_image_mae(0.75)


@pytest.fixture(scope="module")
def released(theirs, tmp_path_factory) -> str:
    """The same as a file of the released format."""
    path = tmp_path_factory.mktemp("released") / "s_vith14.pth"
    torch.save({"model": released_names(theirs.state_dict())}, path)
    return str(path)


def released_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of facebookresearch/mae for those of transformers."""
    words = {"vit.embeddings.cls_token": "cls_token", "vit.embeddings.position_embeddings": "pos_embed",
             "vit.embeddings.patch_embeddings.projection": "patch_embed.proj", "vit.layernorm": "norm",
             "vit.layers": "blocks", "decoder.decoder_layers": "decoder_blocks", "decoder.": "", "layernorm_before": "norm1",
             "layernorm_after": "norm2", "attention.o_proj": "attn.proj", "attention.q_proj": "attn.qkv"}
    made = {}
    for name, tensor in state.items():
        if "k_proj" in name or "v_proj" in name:
            continue
        if "q_proj" in name:
            tensor = torch.cat([state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        made[re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], name)] = tensor
    return made


def their_picture(model: ViTMAEForPreTraining, frames: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """What another implementation fills in: frames uint8 [N, S, S, 3], hidden tokens bool [N, L] alike in number."""
    mean, std = (np.array(values) for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = torch.from_numpy(((frames / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    model.config.mask_ratio = model.vit.embeddings.config.mask_ratio = hidden[0].mean()
    with torch.no_grad():
        out = model(pixels, noise=torch.from_numpy(hidden).float())
    assert np.array_equal(out.mask.bool().numpy(), hidden)
    patches = out.logits.numpy().reshape(len(frames), SIDE // PATCH, SIDE // PATCH, PATCH, PATCH, 3)
    made = patches.transpose(0, 1, 3, 2, 4, 5).reshape(frames.shape) * std + mean
    return np.where(pixels_of(hidden)[..., None], made, frames / 255).clip(0, 1)


def pixels_of(tokens: np.ndarray) -> np.ndarray:
    """bool [N, L] to [N, S, S]."""
    return tokens.reshape(-1, SIDE // PATCH, SIDE // PATCH).repeat(PATCH, 1).repeat(PATCH, 2)


def test_a_released_file_fills_in_as_another_implementation_does(theirs, released):
    clip = real_clip("bikes")
    hidden = np.random.default_rng(0).permuted(np.arange(TOKENS)[None].repeat(len(clip), 0), axis=1) < 48
    filled = frame_filler(load_image_mae(released), CPU)(clip, pixels_of(hidden))
    expected = their_picture(theirs, clip, hidden)
    assert np.ptp(expected[pixels_of(hidden)]) > 0.5
    assert np.abs(filled - expected).max() < 1e-5


@pytest.fixture(scope="module")
def of_this_suite(tmp_path_factory) -> str:
    """An image MAE as a run of one-frame clips exports it."""
    return str(export_model(tmp_path_factory.mktemp("export") / "weights.safetensors", ONE_FRAME, seed=1))


@pytest.mark.parametrize("which", ["released", "of_this_suite"])
def test_a_frame_is_filled_in_without_looking_at_others(which, request):
    fill = frame_filler(load_image_mae(request.getfixturevalue(which)), CPU)
    clip = real_clip("bikes")
    hidden = np.random.default_rng(1).random((len(clip), TOKENS)) < np.linspace(0, 1, len(clip))[:, None]
    pixels = pixels_of(hidden)
    filled = fill(clip, pixels)
    assert np.array_equal(filled[~pixels], (clip.astype(np.float32) / 255)[~pixels])
    for t in range(len(clip)):
        alone = fill(clip[t:t + 1], pixels[t:t + 1])[0]
        assert np.abs(filled[t] - alone).max() < 1e-5


def test_of_a_frame_that_is_hidden_as_a_whole_it_says_the_same_whatever_is_there(of_this_suite):
    model = load_image_mae(of_this_suite)
    fill, everything = frame_filler(model, CPU), np.ones((2, SIDE, SIDE), bool)
    first, second = fill(np.stack([real_clip("bikes")[0], real_clip("carphone_pristine")[0]]), everything)
    assert np.array_equal(first, second)
    assert np.ptp(first) > 0  # what it takes any frame for


def test_a_patch_is_hidden_where_any_of_its_pixels_is(of_this_suite):
    fill, clip, spot = frame_filler(load_image_mae(of_this_suite), CPU), real_clip("bikes")[:1], np.zeros((1, SIDE, SIDE), bool)
    spot[0, 3, 5] = True
    patch = np.zeros_like(spot)
    patch[0, :PATCH, :PATCH] = True
    assert np.array_equal(fill(clip, spot)[spot], fill(clip, patch)[spot])


def test_a_video_model_is_no_image_mae(tmp_path):
    video = replace(ONE_FRAME, num_frames=8, pred_t_dim=8)
    export_model(tmp_path / "video.safetensors", video)
    with pytest.raises(ValueError, match="a video model of 8 frames; --image takes an image MAE"):
        load_image_mae(tmp_path / "video.safetensors")


def test_a_released_file_of_unknown_sizes_or_without_a_part_is_refused(released, tmp_path):
    state = torch.load(released, weights_only=True)["model"]
    torch.save({name: t for name, t in state.items() if not name.startswith("blocks.2.")}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match="width 96 with 2 blocks is none that is known"):
        load_image_mae(tmp_path / "short.pth")
    torch.save({name: t for name, t in state.items() if name != "decoder_norm.bias"}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth: the weights do not fit .* decoder_norm: 1 tensor missing"):
        load_image_mae(tmp_path / "part.pth")
