"""The table of positions that VideoMAE computes and does not learn.

It is computed on the CPU in float64 wherever a model is built, so it has numbers on the meta device, too.

Letters: L tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sine_table(rows: int, dim: int) -> Tensor:
    """The table of VideoMAE: sines in even and cosines in odd columns of the token's number, whatever its time and place.

    Args:
        rows: L.
        dim: D, even.
    Returns:
        float32 [L, D].
    Source: Vaswani et al. 2017 (arXiv 1706.03762) sec. 3.5; Tong et al. 2022 (arXiv 2203.12602).
    """
    numbers = torch.arange(rows, dtype=torch.float64, device="cpu")[:, None]
    angles = numbers / 10000 ** (torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()
