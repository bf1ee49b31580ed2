"""What pretraining and classification share: patches and their positions through the encoder's blocks.

Letters: B clips, L tokens, N tokens of a sequence, D width, T H W frames and px, C channels.
"""

from __future__ import annotations

import typing

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidmae.model.blocks import NORM_EPS, AttentionKernel, Block, PatchEmbed
from vidmae.model.formats.sines import sine_table
from vidmae.model.patches import normalise, patchify, take_tokens
from vidmae.model.rotary import Rotary
from vidmae.settings.sizes import EncoderShape


class Encoder(nn.Module):
    """The parameters of a video ViT under their released names: with separable position tables and a class token, or as
    `shape.positions` says with one fixed table or turned queries and keys, and no class token. Without
    `shape.temporal_positions` there is no table of time: no tensor of its name, so files with one and models without do not
    fit each other.

    A base class and not a part, since the released names have no prefix.

    Clips are uint8 [B, T, H, W, C] as decoded (normalised inside, after the patches are gathered), or floating
    [B, C, T, H, W] that the caller has normalised.

    Attributes:
        shape: Sizes and token arithmetic.
        activation_checkpointing: Blocks are recomputed in the backward pass: True each, N every N-th.
        mean, std: Pixel normalisation, for pixels in 0..1.
        pos_embed_fixed: [T, H * W, D], where positions are fixed.
    """

    pos_embed_fixed: Tensor

    def __init__(self, shape: EncoderShape, *, attention: AttentionKernel, activation_checkpointing: bool | int, mean: float,
                 std: float, drop_path: float = 0.0) -> None:
        super().__init__()
        if attention not in (kernels := typing.get_args(AttentionKernel)):
            raise ValueError(f"attention {attention!r} is unknown; valid: {', '.join(kernels)} (model.attention)")
        self.shape, self.mean, self.std = shape, mean, std
        self.activation_checkpointing = activation_checkpointing
        (t, h, w), dim, last = shape.grid, shape.embed_dim, max(1, shape.depth - 1)

        rotary = Rotary(shape.grid, dim // shape.num_heads) if shape.positions == "rotary" else None
        if shape.positions == "learned":
            self.cls_token = table(1, dim)
            self.pos_embed_spatial = table(h * w, dim)
            self.pos_embed_temporal = table(t, dim) if shape.temporal_positions else None
            self.pos_embed_class = table(1, dim)
        elif shape.positions == "fixed":
            self.register_buffer("pos_embed_fixed", sine_table(t * h * w, dim).unflatten(0, (t, h * w)))
        self.patch_embed = PatchEmbed(dim, shape.t_patch_size, shape.patch_size)
        self.blocks = nn.ModuleList(
            Block(dim, shape.num_heads, attention, recompute_gelu=not is_recomputed(i, activation_checkpointing),
                  drop_path=drop_path * i / last, rotary=rotary) for i in range(shape.depth))
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self.shape.num_frames

    @property
    def img_size(self) -> int:
        """Side of a clip in px."""
        return self.shape.img_size

    def last_block(self, frames: Tensor, ids: Tensor | None = None) -> Tensor:
        """Output of the last block, before the norm.

        Args:
            frames: [B, T, H, W, C], from `as_frames`.
            ids: Tokens that are seen [B, N], in any order; None sees all L in grid order. Only with learned positions.
        Returns:
            [B, 1 + N, D], class token first; [B, L, D] where the model has none (shape.class_tokens).
        """
        patches = patchify(frames, self.shape.t_patch_size, self.shape.patch_size)
        if ids is not None:
            patches = take_tokens(patches, ids)
        x = self.patch_embed(normalise(patches, self.mean, self.std))
        if self.shape.positions != "learned":
            assert ids is None, "masked training is for learned positions"
            return self.run(self.blocks, x + self.pos_embed_fixed.flatten(0, 1) if self.shape.positions == "fixed" else x)
        x = x + positions(ids, self.pos_embed_spatial, self.pos_embed_temporal, self.shape.grid[0])
        cls = (self.cls_token + self.pos_embed_class).expand(x.shape[0], -1, -1)
        return self.run(self.blocks, torch.cat([cls, x], dim=1))

    def run(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """x through blocks one after the other."""
        every = self.activation_checkpointing if self.training and torch.is_grad_enabled() else False
        for i, block in enumerate(blocks):
            x = checkpoint(block, x, use_reentrant=False) if is_recomputed(i, every) else block(x)
        return x


def is_recomputed(block: int, every: bool | int) -> bool:
    """Whether activation checkpointing recomputes the block of this number: True each, N every N-th, False none."""
    return bool(every) and block % int(every) == 0


def table(rows: int, dim: int) -> nn.Parameter:
    """A learned table [1, rows, dim] of positions or of one token, started as in the released code."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, dim), std=0.02))


def positions(ids: Tensor | None, spatial: Tensor, temporal: Tensor | None, slots: int) -> Tensor:
    """Position vectors [B, N, D] of tokens `ids`, or [1, L, D] of all; token t * H * W + s has spatial[s] + temporal[t].

    Without a table of time it has spatial[s] in each of the `slots`. F.embedding and not indexing: its backward adds up rows
    in parallel and in a fixed order.
    """
    if ids is None:
        return spatial.repeat(1, slots, 1) if temporal is None else (temporal[:, :, None] + spatial[:, None]).flatten(1, 2)
    cells = spatial.shape[1]
    places = F.embedding(ids % cells, spatial[0])
    return places if temporal is None else places + F.embedding(ids // cells, temporal[0])
