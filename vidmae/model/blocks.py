"""The layers of the video transformer. Parameter names are those of the released checkpoints.

Letters: B clips, N tokens of a sequence, D width, P pixel values per patch.
Every weight is used inside the forward of the module that owns it: ZeRO-3 gathers it there and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from vidmae.settings.sizes import CHANNELS, mlp_dim

AttentionKernel = Literal["auto", "sdpa", "naive"]
NORM_EPS = 1e-6


class PatchProjection(nn.Module):
    """The released Conv3d whose stride is its kernel, as a linear map of the patches that are visible.

    Attributes:
        weight: [D, C, u, p, p], the order of a Conv3d.
        bias: [D].
    """

    def __init__(self, embed_dim: int, t_patch_size: int, patch_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(embed_dim, CHANNELS, t_patch_size, patch_size, patch_size))
        self.bias = nn.Parameter(torch.empty(embed_dim))
        nn.init.xavier_uniform_(self.weight.flatten(1))
        bound = 1 / math.sqrt(self.weight[0].numel())
        nn.init.uniform_(self.bias, -bound, bound)  # what a Conv3d starts from

    def forward(self, patches: Tensor) -> Tensor:
        """Project patches [B, N, P], values ordered frame, row, column, channel, to [B, N, D]."""
        weight = self.weight.permute(0, 2, 3, 4, 1).flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.bias)


class PatchEmbed(nn.Module):
    """Patches to tokens; a wrapper that gives the projection its released name `patch_embed.proj`."""

    def __init__(self, embed_dim: int, t_patch_size: int, patch_size: int) -> None:
        super().__init__()
        self.proj = PatchProjection(embed_dim, t_patch_size, patch_size)

    def forward(self, patches: Tensor) -> Tensor:
        """[B, N, P] to [B, N, D]."""
        tokens: Tensor = self.proj(patches)
        return tokens


class Attention(nn.Module):
    """Multi-head self-attention with separate q, k and v, as released; one fused matrix measured no faster.

    Attributes:
        rotary: Turns queries and keys by their place, where an encoder has no table of positions.
    """

    def __init__(self, dim: int, num_heads: int, kernel: AttentionKernel = "auto", rotary: nn.Module | None = None) -> None:
        super().__init__()
        self.num_heads, self.kernel, self.rotary = num_heads, kernel, rotary
        self.q, self.k, self.v = linear(dim, dim), linear(dim, dim), linear(dim, dim)
        self.proj = linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        x = autocast_once(x)
        q, k, v = (layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        attend = F.scaled_dot_product_attention if use_sdpa(q, self.kernel) else naive_attention
        out: Tensor = self.proj(attend(q, k, v).transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with an exact (erf) GELU between.

    Attributes:
        recompute_gelu: Keep the GELU's input alone for the backward pass, a quarter of a block's activations less. Not
            inside a checkpointed block, which would hold on to what is to be recomputed.
    """

    def __init__(self, dim: int, *, recompute_gelu: bool = True) -> None:
        super().__init__()
        self.recompute_gelu = recompute_gelu
        self.fc1, self.fc2 = linear(dim, mlp_dim(dim)), linear(mlp_dim(dim), dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        hidden: Tensor = self.fc1(x)
        activated = F.gelu(hidden)
        if torch.compiler.is_compiling():  # the compiler itself computes it again in the backward pass
            compiled: Tensor = self.fc2(activated)
            return compiled
        with recomputed(activated, lambda: F.gelu(hidden)) if self.recompute_gelu else nullcontext():
            out: Tensor = self.fc2(activated)
        return out


class Block(nn.Module):
    """Pre-norm transformer block.

    Attributes:
        drop_path: Chance with which, in training, a clip skips the attention, and another with which it skips the MLP.
        compiled: A compiled form of `both_branches` for training steps; see `compiled.compile_blocks`.
    """

    compiled: Callable[..., Tensor] | None = None

    def __init__(self, dim: int, num_heads: int, kernel: AttentionKernel = "auto", *, recompute_gelu: bool = True,
                 drop_path: float = 0.0, rotary: nn.Module | None = None) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, num_heads, kernel, rotary)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, recompute_gelu=recompute_gelu)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] to [B, N, D]."""
        rate = self.drop_path if self.training else 0.0
        if self.compiled is not None and self.training and torch.is_grad_enabled():
            return self.compiled(self, x, *(drop_factor(x, rate) if rate else None for _ in range(2)))
        x = x + drop_path(self.attn(self.norm1(x)), rate)
        return x + drop_path(self.mlp(self.norm2(x)), rate)

    def both_branches(self, x: Tensor, attention_factor: Tensor | None, mlp_factor: Tensor | None) -> Tensor:
        """The same with the factors of drop path as arguments: nothing random and no number of one block alone in it, so all
        blocks of a width share what a compiler makes of it."""
        x = x + scaled(self.attn(self.norm1(x)), attention_factor)
        return x + scaled(self.mlp(self.norm2(x)), mlp_factor)


def drop_path(branch: Tensor, rate: float) -> Tensor:
    """Zero the whole branch of a clip with chance `rate` and scale up the others', so that the mean stays.

    Source: Huang et al. 2016 (arXiv 1603.09382), which scales down in evaluation instead.
    """
    if rate == 0:
        return branch
    return branch * drop_factor(branch, rate)


def drop_factor(x: Tensor, rate: float) -> Tensor:
    """What drop path multiplies with, [B, 1, ...]: 0 with chance `rate`, else 1 / (1 - rate)."""
    kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - rate)
    return kept.div_(1 - rate)


def scaled(branch: Tensor, factor: Tensor | None) -> Tensor:
    """branch times factor, in the branch's type; None leaves it."""
    return branch if factor is None else branch * factor.to(branch.dtype)


def recomputed(saved: Tensor, recompute: Callable[[], Tensor]) -> saved_tensors_hooks:
    """Within this context autograd keeps `recompute` in place of `saved` and calls it in the backward pass.

    For cheap functions of a tensor that is kept anyway. `recompute` must not use parameters: ZeRO-3 has them gathered
    in their own module's backward only.
    """
    address = saved.data_ptr()  # torch keeps `pack` as long as `unpack`, so it must not hold the tensor

    def pack(tensor: Tensor) -> Tensor | torch.Size:
        return tensor.shape if tensor.data_ptr() == address else tensor

    def unpack(packed: Tensor | torch.Size) -> Tensor:
        return packed if isinstance(packed, Tensor) else recompute().view(packed)

    return saved_tensors_hooks(pack, unpack)


class Linear(nn.Linear):
    """A linear layer that under autocast keeps no 16-bit copy of its weight: the backward pass casts it again.

    Autograd's own form keeps the copies of all weights until the backward pass, in a ViT-B step of two clips 0.19 of
    0.50 GiB. Without autocast (ZeRO 1 to 3) the weight itself has the right type and torch's layer is as good.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., E]."""
        if torch.is_autocast_enabled(x.device.type) and not torch.compiler.is_compiling():  # which casts again by itself
            out: Tensor = _CastAgain.apply(autocast_once(x), self.weight, self.bias)
            return out
        return super().forward(x)


class _CastAgain(torch.autograd.Function):
    """x @ weight.T + bias in the type of x; the saved weight is the parameter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x, weight.to(x.dtype), bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = grad @ weight.to(grad.dtype) if ctx.needs_input_grad[0] else None
        rows = grad.flatten(0, -2)
        return grad_x, (rows.T @ x.flatten(0, -2)).to(weight.dtype), rows.sum(0, dtype=weight.dtype)


def linear(dim_in: int, dim_out: int) -> Linear:
    """A linear layer started as in the released code: Xavier-uniform weight, zero bias."""
    layer = Linear(dim_in, dim_out)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def use_sdpa(q: Tensor, kernel: AttentionKernel) -> bool:
    """Whether to call torch's fused attention.

    `auto` takes it everywhere but for 16-bit numbers on a CPU: there the fused kernel measured 20 % slower than plain
    matrix products at 2049 tokens of head width 32 (torch 2.13, AVX-512), though it needs far less memory.
    """
    if kernel == "auto":
        return q.device.type != "cpu" or q.dtype in (torch.float32, torch.float64)
    return kernel == "sdpa"


def naive_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by plain matrix products.

    Autocast is off inside: it would copy the [B, heads, N, N] scores to float32 and back. Softmax sums in float32
    anyway, and the scores are 16-bit already, so the numbers do not change.
    """
    with torch.autocast(q.device.type, enabled=False):
        scores: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return scores.softmax(dim=-1) @ v


def autocast_once(x: Tensor) -> Tensor:
    """Cast to autocast's dtype here, so that q, k and v share one copy in memory; otherwise each makes its own."""
    if torch.is_autocast_enabled(x.device.type):
        return x.to(torch.get_autocast_dtype(x.device.type))
    return x
