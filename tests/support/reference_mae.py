"""The video MAE and the classifier once more: slow, plain numpy in float64, written from the paper's definitions and
without the model's shortcuts. Every patch is embedded, the decoder sees the tokens in grid order, the loss is masked at the end.

Letters: B clips, L tokens, D width, T H W frames and px, C channels.
"""

from __future__ import annotations

import math

import numpy as np

erf = np.vectorize(math.erf)


def loss(params, clips, mask, *, patch, tubelet, heads, decoder_heads, pred_t_dim, norm_pix=False, rebuilt=None):
    """Mean squared error over removed patches, or over those of them that are `rebuilt`.

    params: released names -> float64 arrays; clips: normalised [B, C, T, H, W]; mask: bool [B, L], True = removed;
    rebuilt: bool [B, L], the removed tokens that the decoder sees; None is all.
    """
    rebuilt = mask if rebuilt is None else rebuilt
    predicted = forward(params, clips, mask, patch=patch, tubelet=tubelet, heads=heads, decoder_heads=decoder_heads,
                        rebuilt=rebuilt)
    frames = [int(f) for f in np.linspace(0, clips.shape[2] - 1, pred_t_dim)]
    target = cut(clips[:, :, frames], patch, tubelet * pred_t_dim // clips.shape[2])
    if norm_pix:
        target = (target - target.mean(-1, keepdims=True)) / np.sqrt(target.var(-1, ddof=1, keepdims=True) + 1e-6)
    per_patch = ((predicted - target) ** 2).mean(-1)
    return (per_patch * rebuilt).sum() / rebuilt.sum()


def forward(p, clips, mask, *, patch, tubelet, heads, decoder_heads, rebuilt):
    """Prediction for every token, [B, L, u * p * p * C]; 0 for those that the decoder does not see."""
    out = []
    for b, x in enumerate(last_block(p, clips, mask, patch=patch, tubelet=tubelet, heads=heads)):
        x = linear(norm(x, p, "norm"), p, "decoder_embed")
        full = np.repeat(p["mask_token"][0], mask.shape[1], axis=0)
        full[~mask[b]] = x[1:]
        full = full + position_table(p, "decoder_", mask.shape[1])
        cls = p["decoder_cls_token"][0] + p["decoder_pos_embed_class"][0]
        seen = ~mask[b] | rebuilt[b]
        tail = run(np.concatenate([cls, full[seen]]), p, "decoder_blocks", decoder_heads)[1:]
        predicted = np.zeros((mask.shape[1], p["decoder_pred.bias"].shape[0]))
        predicted[seen] = linear(norm(tail, p, "decoder_norm"), p, "decoder_pred")
        out.append(predicted)
    return np.stack(out)


def logits(p, clips, *, patch, tubelet, heads, pool):
    """The classifier in evaluation, [B, classes]."""
    tokens = clips.shape[2] // tubelet * p["pos_embed_spatial"].shape[1]
    x = np.stack(last_block(p, clips, np.zeros((len(clips), tokens), bool), patch=patch, tubelet=tubelet, heads=heads))
    return linear(norm(x[:, 0] if pool == "cls" else x[:, 1:].mean(1), p, "norm"), p, "head")


def last_block(p, clips, mask, *, patch, tubelet, heads):
    """Clip by clip the output of the last block: class token, then the visible tokens in grid order."""
    tokens = conv(clips, p["patch_embed.proj.weight"], patch, tubelet) + p["patch_embed.proj.bias"]
    tokens = tokens + position_table(p, "", mask.shape[1])
    cls = p["cls_token"][0] + p["pos_embed_class"][0]
    return [run(np.concatenate([cls, seen[~removed]]), p, "blocks", heads)
            for seen, removed in zip(tokens, mask, strict=True)]


def cut(clips, patch, u):
    """[B, C, T, H, W] to [B, L, u * p * p * C], one patch at a time."""
    b, _, t, h, w = clips.shape
    rows = [clips[:, :, i:i + u, j:j + patch, k:k + patch].transpose(0, 2, 3, 4, 1).reshape(b, -1)
            for i in range(0, t, u) for j in range(0, h, patch) for k in range(0, w, patch)]
    return np.stack(rows, axis=1)


def conv(clips, weight, patch, tubelet):
    """A 3-D convolution whose stride is its kernel."""
    _, _, t, h, w = clips.shape
    rows = [np.einsum("bcuhw,dcuhw->bd", clips[:, :, i:i + tubelet, j:j + patch, k:k + patch], weight)
            for i in range(0, t, tubelet) for j in range(0, h, patch) for k in range(0, w, patch)]
    return np.stack(rows, axis=1)


def position_table(p, prefix, tokens):
    """[L, D]: every time slot's vector with every place's; the places' alone where there is no table of time."""
    spatial = p[prefix + "pos_embed_spatial"][0]
    temporal = p[prefix + "pos_embed_temporal"][0] if prefix + "pos_embed_temporal" in p else np.zeros((tokens // len(spatial), 1))
    return np.stack([place + slot for slot in temporal for place in spatial])


def run(x, p, name, heads):
    """All blocks called NAME.0, NAME.1, ..."""
    i = 0
    while f"{name}.{i}.norm1.weight" in p:
        x = x + attention(norm(x, p, f"{name}.{i}.norm1"), p, f"{name}.{i}.attn", heads)
        y = linear(norm(x, p, f"{name}.{i}.norm2"), p, f"{name}.{i}.mlp.fc1")
        x = x + linear(0.5 * y * (1 + erf(y / math.sqrt(2))), p, f"{name}.{i}.mlp.fc2")
        i += 1
    return x


def attention(x, p, name, heads):
    """Head by head over one clip's tokens [N, D]."""
    q, k, v = (np.split(linear(x, p, f"{name}.{part}"), heads, axis=-1) for part in "qkv")
    out = []
    for qh, kh, vh in zip(q, k, v, strict=True):
        scores = qh @ kh.T / math.sqrt(qh.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out.append(weights / weights.sum(-1, keepdims=True) @ vh)
    return linear(np.concatenate(out, -1), p, f"{name}.proj")


def linear(x, p, name):
    return x @ p[name + ".weight"].T + p[name + ".bias"]


def norm(x, p, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p[name + ".weight"] + p[name + ".bias"]
