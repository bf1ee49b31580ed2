"""The networks of the attentive probe: one query over the tokens, or blocks of attention before it, as of today.

    AttentiveHead      tokens -> norm -> keys, values  \
                                         learned query ->  attention -> norm -> linear -> scores
    AttentiveBlocks    tokens -> (blocks - 1) x (self-attention, MLP) -> norm -> keys, values  \
                                                                                 learned query ->  attention, MLP -> linear

Letters: B clips, N tokens, D width, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vidmae.evaluate.feature_cache import check_heads
from vidmae.model.blocks import NORM_EPS, Block, Mlp, linear

HEAD_WIDTH = 64  # of an attention head, about


class AttentiveHead(nn.Module):
    """One multi-head cross-attention with a single query, and a linear layer.

    A single query needs no keys and values of all tokens: its product with the key weights is compared with the tokens
    themselves, and value weights are applied to what each head has averaged. The same function as
    `nn.MultiheadAttention`, with 1/64 of the multiplications for ViT-H.

    Args:
        dim: D.
        num_classes: C.
        heads: Of the attention; None: about 64 numbers each.
    Source: Bardes et al. 2024 (arXiv 2404.08471), without the MLP of its block: few shots cannot fill it.
    """

    def __init__(self, dim: int, num_classes: int, heads: int | None = None) -> None:
        super().__init__()
        self.heads = heads or _heads(dim)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(self.heads, dim // self.heads), std=0.02))
        self.norm_tokens = nn.LayerNorm(dim, eps=NORM_EPS)
        self.key, self.value, self.proj = nn.Linear(dim, dim, bias=False), linear(dim, dim), linear(dim, dim)
        nn.init.xavier_uniform_(self.key.weight)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores [B, C] of tokens [B, N, D]."""
        scores: Tensor = self.head(self.norm(self.look(self.norm_tokens(tokens))))
        return scores

    def look(self, x: Tensor) -> Tensor:
        """What the query finds in normed tokens [B, N, D]: [B, D]."""
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.key, self.value))
        wanted = torch.einsum("hd,hdD->hD", self.query, key) * self.query.shape[1] ** -0.5
        weights = (x @ wanted.T).softmax(1)
        found = torch.einsum("bhD,hdD->bhd", weights.transpose(1, 2) @ x, value).flatten(1)
        projected: Tensor = self.proj(found + self.value.bias)
        return projected


class AttentiveBlocks(AttentiveHead):
    """Blocks of self-attention over the tokens, then one in which a learned query looks at them, with an MLP, and a linear
    layer.

    The query is not added to what it finds: a constant vector is what the bias of the projection is already. Start values
    are those of this suite's blocks.

    Args:
        dim: D.
        num_classes: C.
        blocks: All of them, the one with the query included.
        heads: Of each attention.
    Raises:
        ValueError: The heads do not divide the width.
    Source: Assran et al. 2025 (arXiv 2506.09985): four blocks of 16 heads, the last one with the query.
    """

    def __init__(self, dim: int, num_classes: int, *, blocks: int, heads: int) -> None:
        check_heads(dim, heads)
        super().__init__(dim, num_classes, heads)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(blocks - 1))
        self.mlp = Mlp(dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores [B, C] of tokens [B, N, D]."""
        for block in self.blocks:
            tokens = block(tokens)
        found = self.look(self.norm_tokens(tokens))
        scores: Tensor = self.head(found + self.mlp(self.norm(found)))
        return scores

def _heads(dim: int) -> int:
    """Attention heads of about HEAD_WIDTH numbers each."""
    return next(n for n in range(max(1, dim // HEAD_WIDTH), dim + 1) if dim % n == 0)
