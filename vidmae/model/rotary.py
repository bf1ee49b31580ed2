"""Places of tokens by turning queries and keys, as V-JEPA 2 does. It has no weights.

Letters: B clips, A heads, L tokens, E width of a head, T H W token grid.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Turns queries or keys by the frame, row and column of their token, as V-JEPA 2 does.

    A head has three equal parts of an even width, one each for frame, row and column; numbers that are left over stay.
    In a part, numbers 2i and 2i + 1 are turned together. Their angle is not one of their own: the first half of a part takes
    the frequencies in order, and the second half takes them again, as in the released code, whose weights have learned so.

    Attributes:
        cos, sin: float32 [L, E]; not in a state dict. Computed on the CPU in float64 wherever a model is built, so they are
            numbers on the meta device, too.
    Source: Assran et al. 2025 (arXiv 2506.09985), released code; Su et al. 2021 (arXiv 2104.09864).
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int, int], head_dim: int) -> None:
        super().__init__()
        part = 2 * (head_dim // 3 // 2)
        frequencies = 10000 ** -(torch.arange(part // 2, dtype=torch.float64, device="cpu") / max(part / 2, 1))
        axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64, device="cpu") for n in grid), indexing="ij")
        angles = [(axis.reshape(-1, 1) * frequencies).repeat(1, 2) for axis in axes]
        angles.append(torch.zeros(len(angles[0]), head_dim - 3 * part, dtype=torch.float64, device="cpu"))
        turned = torch.cat(angles, dim=1)
        self.register_buffer("cos", turned.cos().float(), persistent=False)
        self.register_buffer("sin", turned.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, A, L, E] to the same."""
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        across = torch.stack([-odd, even], dim=-1).flatten(-2)
        return (x * self.cos + across * self.sin).to(x.dtype)
