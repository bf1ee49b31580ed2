"""Clips to patches and back. Pure tensors; nothing here has weights.

Letters: B clips, T frames, H W px, C channels, L tokens, P = u * p * p * C pixel values per patch
(u frames, p px; values of a patch are ordered frame, row, column, channel).
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidmae.settings.sizes import CHANNELS, EncoderShape


def as_frames(clips: Tensor, shape: EncoderShape) -> Tensor:
    """Bring both accepted clip layouts to [B, T, H, W, C] without a copy.

    Args:
        clips: uint8 [B, T, H, W, C] as decoded, or floating [B, C, T, H, W], normalised already (the layout that the
            released code feeds).
        shape: The model's shape.
    Returns:
        A view [B, T, H, W, C].
    Raises:
        ValueError: Another dtype or size.
    """
    t, s = shape.num_frames, shape.img_size
    if clips.dtype == torch.uint8:
        expected, layout = (t, s, s, CHANNELS), "uint8 [B, T, H, W, C]"
    elif clips.is_floating_point():
        expected, layout = (CHANNELS, t, s, s), "floating [B, C, T, H, W]"
    else:
        raise ValueError(f"clips are {clips.dtype}; give uint8 [B, T, H, W, C] or normalised floating [B, C, T, H, W]")
    if clips.ndim != 5 or tuple(clips.shape[1:]) != expected:
        raise ValueError(f"clips have shape {tuple(clips.shape)}; {shape.name} takes {layout} = "
                         f"(B, {', '.join(map(str, expected))}) (model.num_frames, model.img_size)")
    return clips if clips.dtype == torch.uint8 else clips.permute(0, 2, 3, 4, 1)


def patchify(frames: Tensor, u: int, p: int) -> Tensor:
    """Cut [B, T, H, W, C] into patches [B, L, P] of u frames and p x p px; tokens run time-major."""
    b, t, h, w, c = frames.shape
    x = frames.reshape(b, t // u, u, h // p, p, w // p, p, c)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, -1, u * p * p * c)


def unpatchify(patches: Tensor, u: int, p: int, grid: tuple[int, int, int]) -> Tensor:
    """Undo `patchify`: [B, L, P] to [B, T, H, W, C]."""
    t, h, w = grid
    x = patches.reshape(patches.shape[0], t, h, w, u, p, p, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(patches.shape[0], t * u, h * p, w * p, -1)


def take_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """Rows `ids` [B, N] of x [B, L, ...]: [B, N, ...]."""
    return x[torch.arange(x.shape[0], device=x.device)[:, None], ids]


def normalise(pixels: Tensor, mean: float, std: float) -> Tensor:
    """uint8 0..255 to float32 (pixels / 255 - mean) / std; floating input is normalised already and only widened."""
    if pixels.dtype != torch.uint8:
        return pixels.float()
    return pixels.float().sub_(255 * mean).div_(255 * std)


def patch_stats(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B, L, 1] of each patch, as norm_pix_loss has them.

    The variance is unbiased, runs over all frames, pixels and channels of the patch, and 1e-6 is added below the root.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()


def predicted_frames(num_frames: int, pred_t_dim: int) -> list[int]:
    """The frames that are predicted: `pred_t_dim` evenly spread ones, fractions truncated.

    8 of 16 are 0 2 4 6 8 10 12 15. Predicted frame i always lies inside its own token's frames.
    """
    if pred_t_dim == 1:
        return [0]
    return [i * (num_frames - 1) // (pred_t_dim - 1) for i in range(pred_t_dim)]


def nearest_predicted(num_frames: int, pred_t_dim: int, t_patch_size: int) -> list[int]:
    """For every frame of a clip, which of the predicted frames of its own token is nearest in time."""
    frames = predicted_frames(num_frames, pred_t_dim)
    u = pred_t_dim * t_patch_size // num_frames
    return [min(range(f // t_patch_size * u, (f // t_patch_size + 1) * u), key=lambda i: abs(frames[i] - f))
            for f in range(num_frames)]
