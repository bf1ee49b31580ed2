"""Token masks: which patches the encoder sees. Pure tensors.

Letters: B clips, L tokens per clip, K kept tokens.

A mask is a permutation of the tokens and a count: the first K of the shuffled order are kept.

    noise       [.7 .1 .9 .3]        one number per token
    ids_shuffle [ 1  3  0  2]        argsort(noise); K = 2 keeps tokens 1 and 3
    ids_restore [ 2  0  3  1]        argsort(ids_shuffle): where each token went
    mask        [ 1  0  1  0]        True = removed
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from vidmae.sizes import num_kept

__all__ = ["Mask", "mask_from_noise", "num_kept", "random_mask"]


@dataclass(frozen=True)
class Mask:
    """Which tokens of each clip are kept.

    Attributes:
        ids_keep: int64 [B, K], the kept tokens in shuffled order.
        ids_removed: int64 [B, L - K], the removed tokens in shuffled order.
        ids_restore: int64 [B, L], position of each token in the shuffled order [ids_keep, ids_removed].
        mask: bool [B, L], True = removed.
    """

    ids_keep: Tensor
    ids_removed: Tensor
    ids_restore: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Mask:
        """The same mask on another device; itself where it is there already."""
        if self.mask.device == torch.device(device):
            return self
        moved = (t.to(device, non_blocking=True) for t in (self.ids_keep, self.ids_removed, self.ids_restore, self.mask))
        return Mask(*moved)


def mask_from_noise(noise: Tensor, mask_ratio: float) -> Mask:
    """Keep the tokens with the smallest noise.

    Args:
        noise: Floating [B, L], one number per token. The sort is stable, so equal numbers keep the lower index.
        mask_ratio: Fraction removed, between 0 and 1, both excluded. K = int(L * (1 - mask_ratio)).
    Returns:
        The mask, on the device of `noise`.
    Raises:
        ValueError: `noise` is not [B, L], or the ratio keeps no token or every token.
    Source: Feichtenhofer et al. 2022 (arXiv 2205.09113) sec. 3: space-time-agnostic random sampling.
    """
    if noise.ndim != 2:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected [clips, tokens]")
    kept = num_kept(noise.shape[1], mask_ratio)
    ids_shuffle = torch.argsort(noise, dim=1, stable=True)
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    return Mask(ids_shuffle[:, :kept], ids_shuffle[:, kept:], ids_restore, ids_restore >= kept)


def random_mask(num_tokens: int, mask_ratio: float, batch: int, *, generator: torch.Generator) -> Mask:
    """Draw one random token mask per clip.

    Args:
        num_tokens: L, tokens per clip.
        mask_ratio: Fraction removed, between 0 and 1, both excluded. K = int(L * (1 - mask_ratio)).
        batch: B, clips.
        generator: A CPU source of randomness; the same state gives the same mask, whatever device trains.
    Returns:
        A mask on the CPU.
    Raises:
        ValueError: The ratio keeps no token or every token; the message gives the ratios that work.
    Source: Feichtenhofer et al. 2022 (arXiv 2205.09113) sec. 3.
    """
    return mask_from_noise(torch.rand(batch, num_tokens, generator=generator), mask_ratio)
