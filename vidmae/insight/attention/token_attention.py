"""Where an encoder looks: the class token's attention in its last block, and attention rollout through all blocks.

The forward pass is the model's own; what goes into the attention of a block is caught on its way, and the weights are
computed from it once more, since the fused kernel does not keep them.

    class_attention   last block, one map per head; their mean is what is mostly shown
    rollout           all blocks, the residual path counted in: which patches a token's content is from

In a masked autoencoder nothing trains the class token's last look: the decoder is not given it. Maps of a classifier, and
rollouts, say more.

Letters: B clips, A heads, N tokens of a sequence (the class token is the first), D width, T H W token grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vidmae.model.blocks import Attention
from vidmae.model.encoder import Encoder
from vidmae.model.patches import as_frames


def attention_weights(attention: Attention, x: Tensor, *, queries: int | None = None) -> Tensor:
    """How much each token looks at each other one, in one attention layer.

    Args:
        attention: The layer.
        x: Its input [B, N, D].
        queries: Only of the first so many tokens; None: of all.
    Returns:
        float32 [B, A, queries, N]; every row sums to 1.
    """
    q, k = (layer(tokens).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for layer, tokens in ((attention.q, x[:, :queries]), (attention.k, x)))
    weights: Tensor = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).float().softmax(dim=-1)
    return weights


def class_attention(encoder: Encoder, clips: Tensor) -> Tensor:
    """What the class token looks at in the last block.

    Args:
        encoder: In evaluation mode, on the device of `clips`; it sees all tokens.
        clips: uint8 [B, T, H, W, C] or normalised floating [B, C, T, H, W].
    Returns:
        float32 [B, A, T, H, W]: a map per head over the patches; each sums to 1, as the class token itself is left out.
    Raises:
        ValueError: Clips do not fit the model, or it has no class token.
    """
    _has_class_token(encoder)
    found: list[Tensor] = []
    with _watched(encoder.blocks[-1:], lambda layer, x: found.append(attention_weights(layer, x, queries=1)[:, :, 0])):
        _forward(encoder, clips)
    return _as_map(found[0], encoder)


def rollout(encoder: Encoder, clips: Tensor) -> Tensor:
    """Attention rollout: what reaches the class token through all blocks.

    Each block's weights are averaged over its heads and, for the residual path, with the identity; their product says how
    much of every patch is in a token at the end, as if values and MLPs changed nothing. A clip in ViT-H (2049 tokens, 16
    heads) needs 0.6 GiB for the weights of a block.

    Args:
        encoder: As in `class_attention`.
        clips: As in `class_attention`.
    Returns:
        float32 [B, T, H, W]; a clip's map sums to 1, as the class token itself is left out.
    Raises:
        ValueError: Clips do not fit the model, or it has no class token.
    Source: Abnar and Zuidema 2020 (arXiv 2005.00928) sec. 3.
    """
    _has_class_token(encoder)
    so_far: list[Tensor] = []

    def step(layer: Attention, x: Tensor) -> None:
        mixed = attention_weights(layer, x).mean(dim=1)
        mixed = (mixed + torch.eye(mixed.shape[-1], device=mixed.device)) / 2
        so_far[:] = [mixed @ so_far[0] if so_far else mixed]

    with _watched(encoder.blocks, step):
        _forward(encoder, clips)
    return _as_map(so_far[0][:, 0], encoder)


@torch.inference_mode()
def _forward(encoder: Encoder, clips: Tensor) -> None:
    assert not encoder.training, "dropped branches would change what is looked at"
    encoder.last_block(as_frames(clips, encoder.shape))


def _has_class_token(encoder: Encoder) -> None:
    if not encoder.shape.class_tokens:
        raise ValueError("maps show where the class token looks, and a model with "
                         f"{encoder.shape.positions} positions has none")


def _as_map(row: Tensor, encoder: Encoder) -> Tensor:
    """[..., N] to [..., T, H, W] that sums to 1: without the class token."""
    patches = row[..., 1:]
    shares: Tensor = (patches / patches.sum(dim=-1, keepdim=True)).unflatten(-1, encoder.shape.grid)
    return shares


@contextmanager
def _watched(blocks: nn.ModuleList, see: Callable[[Attention, Tensor], None]) -> Iterator[None]:
    """Show `see` the input of each block's attention while the model runs; what it returns changes nothing."""
    def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, Attention)
        see(layer, inputs[0])

    handles = [layer.register_forward_pre_hook(hook) for layer in (block.get_submodule("attn") for block in blocks)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
