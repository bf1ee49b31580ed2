"""The peers of the step benchmark: the same video MAE as a textbook writes it, for speed to be compared with.

All patches are embedded by a Conv3d, the decoder gets its tokens back in grid order, and head and loss run on all of them.
Attention is softmax(q k^T) v with the score matrices in memory, as in the first released code, or torch's fused attention,
which the author of the paper calls since 2024. Parameter names are the model's, so all load the same weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from vidmae.settings.sizes import ModelShape


class Attention(nn.Module):
    def __init__(self, dim, heads, fused):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = (part(x).reshape(b, n, self.heads, d // self.heads).transpose(1, 2) for part in (self.q, self.k, self.v))
        if self.fused:
            return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d))
        scores = (q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5
        return self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, fused):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads, fused), Mlp(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, dim, u, p):
        super().__init__()
        self.proj = nn.Conv3d(3, dim, kernel_size=(u, p, p), stride=(u, p, p))

    def forward(self, clips):
        return self.proj(clips).flatten(2).transpose(1, 2)


class Textbook(nn.Module):
    def __init__(self, shape: ModelShape, *, fused: bool = False):
        super().__init__()
        self.shape = shape
        (t, h, w), dim, ddim = shape.grid, shape.embed_dim, shape.decoder_embed_dim
        for prefix, width in (("", dim), ("decoder_", ddim)):
            for name, rows in (("cls_token", 1), ("pos_embed_spatial", h * w), ("pos_embed_temporal", t),
                               ("pos_embed_class", 1)):
                self.register_parameter(prefix + name, nn.Parameter(torch.zeros(1, rows, width)))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, ddim))
        self.patch_embed = PatchEmbed(dim, shape.t_patch_size, shape.patch_size)
        self.blocks = nn.ModuleList(Block(dim, shape.num_heads, fused) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_embed = nn.Linear(dim, ddim)
        self.decoder_blocks = nn.ModuleList(Block(ddim, shape.decoder_num_heads, fused) for _ in range(shape.decoder_depth))
        self.decoder_norm = nn.LayerNorm(ddim, eps=1e-6)
        self.decoder_pred = nn.Linear(ddim, shape.pred_dim)

    def forward(self, clips, mask):
        """clips float [B, C, T, H, W], normalised; every frame is predicted."""
        x = self.patch_embed(clips) + positions(self.pos_embed_spatial, self.pos_embed_temporal)
        x = x.gather(1, mask.ids_keep[..., None].expand(-1, -1, x.shape[-1]))
        x = torch.cat([(self.cls_token + self.pos_embed_class).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_embed(self.norm(x)[:, 1:])
        hidden = self.mask_token.expand(len(x), self.shape.num_tokens - x.shape[1], -1).to(x.dtype)
        x = torch.cat([x, hidden], dim=1)
        x = x.gather(1, mask.ids_restore[..., None].expand(-1, -1, x.shape[-1]))
        x = x + positions(self.decoder_pos_embed_spatial, self.decoder_pos_embed_temporal)
        x = torch.cat([(self.decoder_cls_token + self.decoder_pos_embed_class).expand(len(x), -1, -1), x], dim=1)
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.decoder_pred(self.decoder_norm(x))[:, 1:]
        target = self.patches(clips)
        per_patch = ((predicted - target) ** 2).mean(dim=-1)
        removed = mask.mask.to(per_patch.dtype)
        return (per_patch * removed).sum() / removed.sum()

    def patches(self, clips):
        (t, h, w), p, u = self.shape.grid, self.shape.patch_size, self.shape.t_patch_size
        x = clips.reshape(len(clips), 3, t, u, h, p, w, p)
        return x.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(len(clips), t * h * w, -1)


def positions(spatial, temporal):
    return spatial.repeat(1, temporal.shape[1], 1) + temporal.repeat_interleave(spatial.shape[1], dim=1)
