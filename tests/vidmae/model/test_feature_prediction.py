"""Prediction of features against the numpy float64 reference: loss, gradient, one update, the teacher after it."""

import copy

import numpy as np
import pytest
import torch

from tests.support import reference_mae
from tests.vidmae.model.test_mae import TOY, clips_and_mask, normalised
from vidmae.model.feature_prediction import FeaturePredictor, features_of, follow, make_teacher, momentum_at, spread
from vidmae.model.groups import param_groups
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import running_cell
from vidmae.settings.sizes import model_shape

SIZES = {"patch": 8, "tubelet": 2, "heads": 2}
PICO = {**TOY, "img_size": 16, "decoder_embed_dim": 24, "decoder_depth": 1}
ERROR = {"l1": np.abs, "smooth": lambda d: np.where(np.abs(d) < 1, d * d / 2, np.abs(d) - 0.5)}


def toy(loss="l1", **options):
    """A student and a teacher that is another model, as after some updates; every parameter is random."""
    torch.manual_seed(0)
    shape = model_shape("mae_vit_pico_patch8", **{**PICO, **options}, target="features")
    student, other = (FeaturePredictor(shape, feature_loss=loss).double() for _ in range(2))
    with torch.no_grad():
        for model in (student, other):
            for param in model.parameters():
                param.add_(torch.randn_like(param) * 0.05)
    return student, make_teacher(other, torch.device("cpu"), torch.float64)


def values(model):
    """Its parameters by name, as numpy."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def reference_features(params, clips):
    """What a teacher makes of whole clips: its norm, then every token to mean 0 and variance 1."""
    slots, places = (params[f"pos_embed_{name}"].shape[1] for name in ("temporal", "spatial"))
    seen = np.zeros((len(clips), slots * places), bool)
    tokens = np.stack(reference_mae.last_block(params, normalised(clips).numpy(), seen, **SIZES))[:, 1:]
    tokens = reference_mae.norm(tokens, params, "norm")
    return (tokens - tokens.mean(-1, keepdims=True)) / np.sqrt(tokens.var(-1, keepdims=True) + 1e-5)


def reference_loss(params, features, clips, mask, loss="l1", rebuilt=None):
    """The mean over the hidden tokens, or over the `rebuilt`, clip by clip in grid order."""
    hidden = mask.mask.numpy() if rebuilt is None else rebuilt
    predicted = reference_mae.forward(params, normalised(clips).numpy(), mask.mask.numpy(), **SIZES, decoder_heads=4, rebuilt=hidden)
    return ERROR[loss]((predicted - features)[hidden]).mean()


@pytest.mark.parametrize("loss", ["l1", "smooth"])
def test_loss_equals_the_numpy_reference(loss):
    student, teacher = toy(loss)
    clips, mask = clips_and_mask(student)
    features, expected = features_of(teacher, clips), reference_features(values(teacher), clips)
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-5)
    assert features.dtype == torch.float32 and not features.requires_grad
    ours = student(clips, mask, features)
    assert ours.item() == pytest.approx(reference_loss(values(student), expected, clips, mask, loss), rel=1e-5)


def test_one_update_and_the_teacher_after_it():
    """Slopes of the reference by differences, AdamW's first update by hand, the teacher a mean of both models."""
    student, teacher = toy()
    clips, mask = clips_and_mask(student, batch=1)
    before, of_teacher = values(student), values(teacher)
    optimizer = torch.optim.AdamW(param_groups(student, 0.05), lr=1e-3, betas=(0.9, 0.95))
    student(clips, mask, features_of(teacher, clips)).backward()
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    expected = reference_features(of_teacher, clips)
    slopes = {}
    for name, place in {"decoder_pred.bias": (3,), "decoder_embed.weight": (2, 5), "blocks.0.mlp.fc1.weight": (7, 9),
                        "patch_embed.proj.weight": (4, 1, 0, 2, 3), "mask_token": (0, 0, 11)}.items():
        sides = []
        for shift in (-1e-6, 1e-6):
            moved = copy.deepcopy(before)
            moved[name][place] += shift
            sides.append(reference_loss(moved, expected, clips, mask))
        slopes[name, place] = (sides[1] - sides[0]) / 2e-6
        assert dict(student.named_parameters())[name].grad.numpy()[place] == pytest.approx(slopes[name, place], rel=2e-3), name
    optimizer.step()
    after, momentum = values(student), momentum_at(30, 40, (0.9, 1.0))
    assert momentum == pytest.approx(0.975)
    for (name, place), slope in slopes.items():
        decay = 0 if name.endswith("bias") else 0.05
        assert after[name][place] == pytest.approx((1 - 1e-3 * decay) * before[name][place] - 1e-3 * np.sign(slope), abs=1e-7)
    average = {name: momentum * of_teacher[name] + (1 - momentum) * after[name] for name in after}
    follow(teacher, ((name, torch.from_numpy(value)) for name, value in average.items()))
    np.testing.assert_allclose(features_of(teacher, clips).numpy(), reference_features(average, clips), atol=1e-5)
    with pytest.raises(AssertionError, match="the average lacks"):
        follow(teacher, [])


def test_a_part_of_the_hidden_tokens_can_be_predicted():
    student, teacher = toy(decoder_mask_ratio=0.5)
    clips, mask = clips_and_mask(student)
    rebuilt = np.zeros(mask.mask.shape, bool)
    np.put_along_axis(rebuilt, running_cell(mask, student.shape).numpy(), True, axis=1)
    features = features_of(teacher, clips)
    expected = reference_loss(values(student), reference_features(values(teacher), clips), clips, mask, rebuilt=rebuilt)
    assert student(clips, mask, features).item() == pytest.approx(expected, rel=1e-5)


def test_the_encoder_is_that_of_pixels_under_the_same_names():
    student, _ = toy()
    pixels = MaskedAutoencoder(model_shape("mae_vit_pico_patch8", **PICO)).state_dict()
    ours = student.state_dict()
    assert ours.keys() == pixels.keys()
    assert {name for name in ours if ours[name].shape != pixels[name].shape} == {"decoder_pred.weight", "decoder_pred.bias"}
    clips, mask = clips_and_mask(student)
    with pytest.raises(ValueError, match="no pixel decoder"):
        student.reconstruct(clips, mask)


def test_spread_tells_both_collapses():
    """Of numbers that are known: all alike, alike at each place, and neither."""
    g = torch.Generator().manual_seed(0)
    free = torch.randn(64, 20, 30, generator=g)
    by_place = torch.randn(1, 20, 30, generator=g).expand(64, -1, -1)
    np.testing.assert_allclose(spread(free), [1, 1], atol=0.02)
    np.testing.assert_allclose(spread(by_place), [np.sqrt(by_place[0].numpy().var(0).mean()), 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(spread(torch.ones(4, 20, 30)), [0, 0], atol=1e-6)
    alone = spread(free[:1])
    assert alone[0] > 0.9 and torch.isnan(alone[1])
