"""Masks that ask a trained model a question, against definitions that are counted out token by token."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from vidmae.model.mae import build_mae
from vidmae.model.masking import (
    KINDS,
    box_mask,
    center_mask,
    make_mask,
    mask_from_hidden,
    num_kept,
    random_mask,
    removed_pixels,
    temporal_mask,
    tube_mask,
)
from vidmae.settings.sizes import encoder_shape

HUGE = encoder_shape("vit_huge_patch14")
NANO = encoder_shape("vit_nano_patch16", img_size=64, num_frames=8)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def hidden_frames(mask, shape) -> list[int]:
    """1-based numbers of the frames that are hidden as a whole; no frame may be hidden in part."""
    share = removed_pixels(mask, shape)[0].float().mean((1, 2))
    assert set(share.tolist()) <= {0.0, 1.0}
    return [i + 1 for i, s in enumerate(share.tolist()) if s]


@pytest.mark.parametrize(("ratio", "first", "last"), [(0.25, 7, 10), (0.5, 5, 12), (0.75, 3, 14)])
def test_center_hides_the_frames_that_the_paper_hides(ratio, first, last):
    assert hidden_frames(center_mask(2048, ratio, 1), HUGE) == list(range(first, last + 1))


@pytest.mark.parametrize(("ratio", "first"), [(0.25, 13), (0.5, 9)])
def test_temporal_hides_the_last_frames(ratio, first):
    assert hidden_frames(temporal_mask(2048, ratio, 1), HUGE) == list(range(first, 17))


@pytest.mark.parametrize("tokens", [7, 16, 125])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4, 0.77])
def test_center_and_temporal_against_counting_tokens(tokens, ratio):
    if not 0 < int(tokens * (1 - ratio)) < tokens:
        pytest.skip("hides nothing")
    kept = num_kept(tokens, ratio)
    to_an_end = {i: min(i, tokens - 1 - i) for i in range(tokens)}
    nearest = sorted(range(tokens), key=lambda i: (to_an_end[i], i))[:kept]
    assert sorted(center_mask(tokens, ratio, 1).ids_keep[0].tolist()) == sorted(nearest)
    assert temporal_mask(tokens, ratio, 1).mask[0].tolist() == [i >= kept for i in range(tokens)]


def test_tube_hides_the_same_places_in_every_slot():
    mask = tube_mask((4, 6, 5), 0.6, 3, generator=generator())
    slots = mask.mask.reshape(3, 4, 30)
    assert (slots == slots[:, :1]).all()
    assert slots[:, 0].sum(1).tolist() == [30 - num_kept(30, 0.6)] * 3
    assert not torch.equal(slots[0], slots[1])
    assert torch.equal(slots[:, 0], random_mask(30, 0.6, 3, generator=generator()).mask)


def touched(box, slot_boxes, row, column, side) -> bool:
    """By pixels: whether a pixel of a token lies in the box."""
    top, left, bottom, right = slot_boxes[box]
    return any(top < y + 1 and y < bottom and left < x + 1 and x < right
               for y in range(row * side, row * side + side) for x in range(column * side, column * side + side))


def test_box_hides_what_a_box_touches():
    rng = np.random.default_rng(0)
    corners = rng.uniform(-20, 70, (4, 2, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (4, 2, 2))], axis=-1)
    boxes[1, 0] = np.nan
    mask = box_mask(boxes, NANO)
    expected = [any(touched(n, boxes[t], h, w, 16) for n in range(2)) for t in range(4) for h in range(4) for w in range(4)]
    assert mask.mask[0].tolist() == expected
    assert 0 < sum(expected) < 64


def test_a_box_on_a_token_edge_does_not_touch_the_next():
    boxes = np.tile(np.array([[16.0, 32.0, 32.0, 48.0]]), (4, 1, 1))
    assert box_mask(boxes, NANO).mask.reshape(4, 4, 4).nonzero()[:, 1:].tolist() == [[1, 2]] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_whole_and_the_model_takes_them(kind):
    model = build_mae("mae_vit_nano_patch16", img_size=64, num_frames=8, pred_t_dim=8, decoder_embed_dim=48, decoder_depth=1,
                      decoder_num_heads=3).eval()
    mask = make_mask(kind, model.shape, 0.5, 2, generator=generator())
    tokens = torch.cat([mask.ids_keep, mask.ids_removed], 1)
    assert torch.equal(tokens.gather(1, mask.ids_restore), torch.arange(64).expand(2, -1))
    assert mask.mask.gather(1, mask.ids_removed).all() and mask.mask.sum(1).tolist() == [32, 32]
    clips = torch.randint(0, 256, (2, 8, 64, 64, 3), dtype=torch.uint8, generator=generator())
    filled, hidden = model.reconstruct(clips, mask), model.removed_pixels(mask)
    assert torch.equal(hidden[..., 0], removed_pixels(mask, model.shape))
    shown = clips.float() / 255
    assert torch.allclose(filled[~hidden.expand_as(filled)], shown[~hidden.expand_as(filled)], atol=1e-6)
    assert not torch.allclose(filled[hidden.expand_as(filled)], shown[hidden.expand_as(filled)], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.9999, -1.0])
def test_a_ratio_that_hides_all_or_nothing_is_refused(kind, ratio):
    allowed = "0.9961" if kind == "tube" else "0.9995"
    with pytest.raises(ValueError, match=rf"^--ratio {re.escape(str(ratio))} keeps .* above 0 and at most {allowed}$"):
        make_mask(kind, HUGE, ratio, 1, generator=generator())


def test_other_masks_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"'middle' is unknown; known: center, temporal, random, tube \(--mask\)"):
        make_mask("middle", HUGE, 0.5, 1, generator=generator())
    with pytest.raises(ValueError, match=r"hides 0 of 64 tokens, allowed: 1 to 63"):
        box_mask(np.full((4, 1, 4), np.nan), NANO)
    with pytest.raises(ValueError, match=r"hides 64 of 64 tokens"):
        box_mask(np.tile(np.array([[0.0, 0, 64, 64]]), (4, 1, 1)), NANO)
    with pytest.raises(ValueError, match=r"shape \(3, 1, 4\).*\[4, N, 4\]"):
        box_mask(np.zeros((3, 1, 4)), NANO)
    with pytest.raises(ValueError, match=r"hide 1 to 2 tokens"):
        mask_from_hidden(torch.tensor([[True, False, False], [True, True, False]]))


@pytest.mark.parametrize("tokens", [2, 3, 1000, 2048])
def test_every_number_of_hidden_tokens_is_exact(tokens):
    for count in {1, tokens // 3, tokens - 1} - {0}:
        hidden = torch.zeros(1, tokens, dtype=torch.bool)
        hidden[0, torch.randperm(tokens, generator=generator())[:count]] = True
        assert torch.equal(mask_from_hidden(hidden).mask, hidden)
