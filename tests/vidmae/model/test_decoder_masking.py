"""Rebuilding a part of the hidden tokens, against pictures of the pattern and a numpy float64 reference."""

import numpy as np
import pytest
import torch

from tests.support import reference_mae
from tests.vidmae.model.test_mae import TOY, assert_same_grads, clips_and_mask, loss_and_grads, normalised, toy
from vidmae.model.mae import build_mae
from vidmae.model.masking import mask_from_noise, mask_from_order, random_mask, running_cell
from vidmae.settings.sizes import model_shape, num_rebuilt

HALF = {"decoder_mask_ratio": 0.5}
PICTURES = ["##..", ".#.#", "..##", "#.#."]  # a cell's rows, one after the other, in slots 0 to 3, for a half
CLOCKWISE = [(0, 0), (0, 1), (1, 1), (1, 0)]


def shape(ratio, **options):
    return model_shape("mae_vit_nano_patch8", **{**TOY, **options}, decoder_mask_ratio=ratio)


def chosen(ids, tokens):
    """bool [B, L] from int64 [B, N]."""
    return torch.zeros(len(ids), tokens, dtype=torch.bool).scatter_(1, ids, True)


def expected_choice(order, kept, grid, ratio):
    """The tokens of one clip that are rebuilt, from its shuffled order, one token at a time."""
    _, height, width = grid
    start, hidden = order.index(0), order[kept:]

    def ahead(token):
        slot, place = divmod(token, height * width)
        row, column = divmod(place, width)
        at, distance = start + slot, 0
        while CLOCKWISE[at % 4] != (row % 2, column % 2):
            at, distance = at + 1, distance + 1
        return distance

    by_turn = [token for turn in range(4) for token in hidden if ahead(token) == turn]
    return by_turn[:len(hidden) - int(len(hidden) * ratio)]


def test_the_drawing():
    """Where all but one token of another slot are hidden, the rebuilt half of a clip is the picture itself."""
    s = shape(0.5, num_frames=10, pred_t_dim=10, mask_ratio=0.15)
    for start in range(4):
        order = [*range(64, 80), *range(64)]  # the fifth slot is seen, the rest hidden
        order.insert(16 + start, order.pop(order.index(0)))  # token 0 at a place of this rest by 4
        found = chosen(running_cell(mask_from_order(torch.tensor([order]), 16), s), 80)[0, :64].reshape(4, 4, 4)
        for slot in range(4):
            picture = np.array([mark == "#" for mark in PICTURES[(slot + start) % 4]]).reshape(2, 2)
            assert np.array_equal(found[slot].numpy(), np.tile(picture, (2, 2))), (start, slot)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 0.999])
def test_the_choice_is_that_of_a_plain_loop(ratio):
    s = shape(ratio)
    noise = torch.rand(6, s.num_tokens, generator=torch.Generator().manual_seed(3))
    mask = mask_from_noise(noise, s.mask_ratio)
    found = running_cell(mask, s)
    assert found.shape == (6, s.num_rebuilt) and found.dtype == torch.int64
    for clip, order in enumerate(torch.argsort(noise, dim=1, stable=True).tolist()):
        assert found[clip].tolist() == expected_choice(order, s.num_kept, s.grid, ratio)
        alone = running_cell(mask_from_noise(noise[clip:clip + 1], s.mask_ratio), s)
        assert torch.equal(alone[0], found[clip]), "a function of the clip's own noise"


def test_half_of_the_paper_tokens_follows_the_pattern_and_all_places_have_their_turn():
    s = model_shape("mae_vit_huge_patch14", decoder_mask_ratio=0.5)
    mask = random_mask(s.num_tokens, 0.9, 64, generator=torch.Generator().manual_seed(0))
    rebuilt = chosen(running_cell(mask, s), s.num_tokens)
    assert s.num_rebuilt == 922 and (rebuilt.sum(1) == 922).all() and not (rebuilt & ~mask.mask).any()
    cells = rebuilt.reshape(64, 8, 8, 2, 8, 2).permute(0, 1, 2, 4, 3, 5).flatten(-2)  # [..., a cell's four places]
    hidden = mask.mask.reshape(64, 8, 8, 2, 8, 2).permute(0, 1, 2, 4, 3, 5).flatten(-2)
    per_place = cells.sum((2, 3)) / hidden.sum((2, 3))  # share of the hidden tokens of a place, by clip and slot
    assert ((per_place > 0.6).sum(-1) == 2).all() and ((per_place < 0.4).sum(-1) == 2).all(), "two places of four in each slot"
    assert (rebuilt.float().mean(0) - 0.45).abs().max() < 0.35, "no token is always or never rebuilt"


@pytest.mark.parametrize(("hidden", "ratio", "rebuilt"), [(1844, 0.5, 922), (1412, 0.5, 706), (7, 0.5, 4), (3, 0.999, 1), (5, 0, 5)])
def test_counts(hidden, ratio, rebuilt):
    assert num_rebuilt(hidden, ratio) == rebuilt


@pytest.mark.parametrize("ratio", [-0.1, 1.0, float("nan")])
def test_a_ratio_that_cannot_be_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"^model\.decoder_mask_ratio {ratio} must be from 0 .* to below 1"):
        shape(ratio)


@pytest.fixture(scope="module")
def half():
    """A model, clips, masks, the expected choice as bool [B, L], and the reference's arguments."""
    model = toy(**HALF)
    clips, mask = clips_and_mask(model)
    s = model.shape
    orders = torch.argsort(mask.ids_restore, dim=1).tolist()
    rebuilt = np.zeros((2, s.num_tokens), bool)
    for clip, order in enumerate(orders):
        rebuilt[clip, expected_choice(order, s.num_kept, s.grid, 0.5)] = True
    how = {"patch": 8, "tubelet": 2, "heads": 3, "decoder_heads": 4, "pred_t_dim": 8, "rebuilt": rebuilt}
    return model, clips, mask, how


@pytest.mark.parametrize("norm_pix", [False, True])
def test_loss_equals_the_numpy_reference(half, norm_pix):
    model, clips, mask, how = half
    params = {name: p.double().numpy() for name, p in model.state_dict().items()}
    expected = reference_mae.loss(params, normalised(clips).numpy(), mask.mask.numpy(), norm_pix=norm_pix, **how)
    assert toy(norm_pix_loss=norm_pix, **HALF)(clips, mask).item() == pytest.approx(expected, rel=1e-5)
    whole = reference_mae.loss(params, normalised(clips).numpy(), mask.mask.numpy(), norm_pix=norm_pix, **{**how, "rebuilt": None})
    assert expected != pytest.approx(whole, rel=1e-4), "the whole decoder has another loss"


def test_gradients_equal_differences_of_the_numpy_reference(half):
    """Slope of the reference along a random direction in one tensor at a time, float64, against the model's gradient."""
    model, clips, mask, how = half
    _, grads = loss_and_grads(toy(**HALF), clips, mask)
    params = {name: p.double().numpy() for name, p in model.state_dict().items()}
    clips_64, rng, h = normalised(clips).numpy(), np.random.default_rng(0), 1e-4
    for name in ("mask_token", "decoder_pos_embed_spatial", "decoder_blocks.1.attn.q.weight", "patch_embed.proj.weight"):
        way = rng.standard_normal(params[name].shape)
        up, down = (reference_mae.loss({**params, name: params[name] + sign * h * way}, clips_64, mask.mask.numpy(), **how)
                    for sign in (1, -1))
        slope = float((grads[name].double().numpy() * way).sum())
        scale = float(np.linalg.norm(grads[name].double().numpy()))
        assert slope == pytest.approx((up - down) / (2 * h), abs=1e-4 * scale), name


def test_tokens_that_are_left_out_count_for_nothing(half):
    model, clips, mask, how = half
    left_out = mask.mask & ~torch.from_numpy(how["rebuilt"])
    only = type(mask)(mask.ids_keep, mask.ids_removed, mask.ids_restore, left_out)
    changed = torch.where(model.removed_pixels(only), 255 - clips, clips)
    assert model(changed, mask).item() == model(clips, mask).item()
    assert toy()(changed, mask).item() != toy()(clips, mask).item()


def test_pictures_show_all_hidden_tokens(half):
    model, clips, mask, _ = half
    assert torch.equal(model.reconstruct(clips, mask), toy().reconstruct(clips, mask))


def test_weights_are_those_of_the_whole_decoder():
    with torch.device("meta"):
        one, other = (build_mae("mae_vit_nano_patch14", decoder_mask_ratio=ratio).state_dict() for ratio in (0.0, 0.5))
    assert {name: t.shape for name, t in one.items()} == {name: t.shape for name, t in other.items()}


def test_checkpointing_and_kernels_agree(half):
    _, clips, mask, _ = half
    loss, grads = loss_and_grads(toy(**HALF), clips, mask)
    for options in ({"activation_checkpointing": True}, {"attention": "naive"}):
        again, others = loss_and_grads(toy(**HALF, **options), clips, mask)
        assert again == pytest.approx(loss, rel=1e-6)
        assert_same_grads(grads, others, 1e-4)


def test_one_frame():
    """An image model has one slot, and its walk stands somewhere in it."""
    model = toy(num_frames=1, t_patch_size=1, pred_t_dim=1, **HALF)
    clips, mask = clips_and_mask(model)
    rebuilt = running_cell(mask, model.shape)
    assert rebuilt.shape == (2, model.shape.num_rebuilt)
    assert model(clips, mask).isfinite()
