"""Token masks."""

import pytest
import torch

from vidmae.model.masking import mask_from_noise, num_kept, random_mask


@pytest.mark.parametrize(("tokens", "ratio", "kept"), [
    (2048, 0.9, 204), (1568, 0.9, 156), (1000, 0.9, 99), (400, 0.9, 39), (1960, 0.9, 195), (8192, 0.95, 409), (8, 0.5, 4)])
def test_kept_count_truncates_as_the_released_code(tokens, ratio, kept):
    assert num_kept(tokens, ratio) == kept


@pytest.mark.parametrize("ratio", [0.0, 1.0, 0.95, -0.1, float("nan")])
def test_a_ratio_that_keeps_none_or_all_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"^model\.mask_ratio {ratio} keeps none or all of 16 tokens.*at most 0\.9375$"):
        num_kept(16, ratio)


def test_the_largest_ratio_that_the_message_names_works():
    assert num_kept(16, 0.9375) == 1


def test_worked_example():
    mask = mask_from_noise(torch.tensor([[0.7, 0.1, 0.9, 0.3]]), 0.5)
    assert mask.ids_keep.tolist() == [[1, 3]]
    assert mask.ids_removed.tolist() == [[0, 2]]
    assert mask.ids_restore.tolist() == [[2, 0, 3, 1]]
    assert mask.mask.tolist() == [[True, False, True, False]]


def test_parts_agree():
    mask = random_mask(100, 0.7, 5, generator=torch.Generator().manual_seed(1))
    shuffled = torch.cat([mask.ids_keep, mask.ids_removed], 1)
    assert mask.ids_keep.dtype == mask.ids_restore.dtype == torch.int64
    assert mask.mask.dtype == torch.bool
    assert mask.mask.sum(1).tolist() == [100 - num_kept(100, 0.7)] * 5
    assert torch.equal(shuffled.gather(1, mask.ids_restore), torch.arange(100).expand(5, -1))
    assert not mask.mask.gather(1, mask.ids_keep).any()
    assert mask.mask.gather(1, mask.ids_removed).all()


def test_ties_keep_the_lower_index():
    assert mask_from_noise(torch.zeros(1, 1000), 0.5).ids_keep[0].tolist() == list(range(500))


def test_a_generator_state_fixes_the_mask_and_clips_differ():
    first, second = (random_mask(64, 0.9, 3, generator=torch.Generator().manual_seed(7)) for _ in range(2))
    other = random_mask(64, 0.9, 3, generator=torch.Generator().manual_seed(8))
    assert torch.equal(first.ids_keep, second.ids_keep)
    assert not torch.equal(first.ids_keep, other.ids_keep)
    assert not torch.equal(first.ids_keep[0], first.ids_keep[1])


def test_every_token_is_kept_equally_often():
    mask = random_mask(20, 0.75, 20000, generator=torch.Generator().manual_seed(0))
    share = (~mask.mask).float().mean(0)
    assert (share - 0.25).abs().max() < 0.015  # 5 standard deviations of 20,000 draws


def test_noise_must_be_two_dimensional():
    with pytest.raises(ValueError, match=r"\(8,\); expected \[clips, tokens\]"):
        mask_from_noise(torch.rand(8), 0.5)
