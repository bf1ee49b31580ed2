"""The spatiotemporal masked autoencoder: encoder on the visible patches, small decoder on all, loss on the removed.

Letters: B clips, L tokens, K kept, D encoder width, d decoder width, T H W frames and px, C channels, P pixel values.
Parameter names and shapes are those of the released checkpoints, so files load without a mapping.

The decoder works in shuffled order [cls, kept, removed]: attention does not care, position tables are gathered to
match, and the output head and the loss read the removed tail only. With decoder_mask_ratio above 0 that is a part of the
removed tokens (`masking.running_cell`) in training, and the decoder does not see the others. Left out because they measured
no gain: a fused qkv matrix, and queries of the last decoder block for removed tokens only.
Source: Feichtenhofer et al. 2022 (arXiv 2205.09113); Orhan et al. 2024 (arXiv 2402.00300).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidmae.model.blocks import NORM_EPS, AttentionKernel, Block, linear
from vidmae.model.encoder import Encoder, is_recomputed, positions, table
from vidmae.model.masking import Mask, removed_pixels, running_cell
from vidmae.model.patches import (
    as_frames,
    nearest_predicted,
    normalise,
    patch_stats,
    patchify,
    predicted_frames,
    take_tokens,
    unpatchify,
)
from vidmae.settings.sizes import MaskKind, ModelShape, model_shape


class MaskedAutoencoder(Encoder):
    """Video MAE. Build one with `build_mae`.

    Attributes:
        shape: Sizes and token arithmetic.
        norm_pix_loss: Each target patch is normalised by its own mean and deviation.
    """

    shape: ModelShape

    def __init__(
        self, shape: ModelShape, *, norm_pix_loss: bool = False, attention: AttentionKernel = "auto",
        activation_checkpointing: bool | int = False, mean: float = 0.45, std: float = 0.225,
    ) -> None:
        super().__init__(shape, attention=attention, activation_checkpointing=activation_checkpointing, mean=mean, std=std)
        self.norm_pix_loss = norm_pix_loss
        (t, h, w), dim, ddim = shape.grid, shape.embed_dim, shape.decoder_embed_dim
        self.decoder_embed = linear(dim, ddim)
        self.mask_token = nn.Parameter(torch.empty(1, 1, ddim).normal_(std=0.02))
        self.decoder_cls_token = table(1, ddim)
        self.decoder_pos_embed_spatial = table(h * w, ddim)
        self.decoder_pos_embed_temporal = table(t, ddim) if shape.temporal_positions else None
        self.decoder_pos_embed_class = table(1, ddim)
        self.decoder_blocks = nn.ModuleList(
            Block(ddim, shape.decoder_num_heads, attention, recompute_gelu=not is_recomputed(i, activation_checkpointing))
            for i in range(shape.decoder_depth))
        self.decoder_norm = nn.LayerNorm(ddim, eps=NORM_EPS)
        self.decoder_pred = linear(ddim, shape.pred_dim)

    def forward(self, clips: Tensor, mask: Mask) -> Tensor:
        """The training loss.

        Args:
            clips: uint8 [B, T, H, W, C] or normalised floating [B, C, T, H, W].
            mask: Which tokens the encoder sees; moved to the device of `clips` where it is elsewhere.
        Returns:
            float32 scalar, mean squared error over the pixels of removed patches, or with decoder_mask_ratio over those
            of the patches that the decoder rebuilds.
        Raises:
            ValueError: Clips or mask do not fit the model.
        """
        mask, frames = self._checked(clips, mask)
        rebuilt = running_cell(mask, self.shape) if self.shape.decoder_mask_ratio else mask.ids_removed
        predicted = self._decode(self._encode(frames, mask.ids_keep), mask.ids_keep, rebuilt)
        target = self._target(frames, rebuilt)
        if self.norm_pix_loss:
            mean, std = patch_stats(target)
            target = (target - mean) / std
        return F.mse_loss(predicted.float(), target)

    def encode(self, clips: Tensor, mask: Mask | None = None) -> Tensor:
        """Encoder output after the last norm.

        Args:
            clips: As in `forward`.
            mask: Which tokens are seen; None sees all.
        Returns:
            [B, 1 + K, D], class token first, then the kept tokens in the mask's order (all L in grid order for None).
        """
        if mask is None:
            return self._encode(as_frames(clips, self.shape))
        mask, frames = self._checked(clips, mask)
        return self._encode(frames, mask.ids_keep)

    @torch.no_grad()
    def reconstruct(self, clips: Tensor, mask: Mask) -> Tensor:
        """Fill in the removed patches, all of them whatever decoder_mask_ratio is, for pictures.

        With pred_t_dim below num_frames, a frame that is not predicted shows the nearest predicted frame of its token.
        With norm_pix_loss the model does not predict a patch's mean and deviation: they are taken from the true patch,
        as is the field's habit for such pictures.

        Returns:
            float32 [B, T, H, W, C] in 0..1; visible patches are the input's.
        """
        s = self.shape
        mask, frames = self._checked(clips, mask)
        patches = self._decode(self._encode(frames, mask.ids_keep), mask.ids_keep, mask.ids_removed).float()
        if self.norm_pix_loss:
            mean, std = patch_stats(self._target(frames, mask.ids_removed))
            patches = patches * std + mean
        full = patches.new_zeros(len(patches), s.num_tokens, s.pred_dim)
        full = full.scatter(1, mask.ids_removed[..., None].expand_as(patches), patches)
        predicted = unpatchify(full, s.pred_t_patch_size, s.patch_size, s.grid)
        predicted = predicted[:, nearest_predicted(s.num_frames, s.pred_t_dim, s.t_patch_size)]
        clip = torch.where(self.removed_pixels(mask), predicted, normalise(frames, self.mean, self.std))
        return (clip * self.std + self.mean).clamp(0, 1)

    @torch.no_grad()
    def token_losses(self, clips: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """How far off each removed patch is, all of them whatever decoder_mask_ratio is, as training sees it and in pixels.

        With norm_pix_loss the prediction of pixels takes each patch's mean and deviation from the true patch, as in
        `reconstruct`; no pixel is clamped.

        Returns:
            float32 [B, L - K] each, in the order of `mask.ids_removed`: the mean squared error that training minimises, and
            the mean squared error of pixels in 0..1.
        """
        mask, frames = self._checked(clips, mask)
        predicted = self._decode(self._encode(frames, mask.ids_keep), mask.ids_keep, mask.ids_removed).float()
        target = self._target(frames, mask.ids_removed)
        if not self.norm_pix_loss:
            own = (predicted - target).square().mean(dim=-1)
            return own, own * self.std**2
        mean, std = patch_stats(target)
        own = (predicted - (target - mean) / std).square().mean(dim=-1)
        return own, own * (std[..., 0] * self.std) ** 2

    def removed_pixels(self, mask: Mask) -> Tensor:
        """bool [B, T, H, W, 1], True where a pixel belongs to a removed patch."""
        return removed_pixels(mask, self.shape)[..., None]

    def _encode(self, frames: Tensor, ids: Tensor | None = None) -> Tensor:
        """Tokens `ids` [B, K] of frames [B, T, H, W, C] to [B, 1 + K, D]."""
        encoded: Tensor = self.norm(self.last_block(frames, ids))
        return encoded

    def _decode(self, encoded: Tensor, ids_keep: Tensor, ids_removed: Tensor) -> Tensor:
        """Encoder output [B, 1 + K, D] to the prediction [B, N, P] for N removed tokens."""
        tables = self.decoder_pos_embed_spatial, self.decoder_pos_embed_temporal, self.shape.grid[0]
        cls = self._decoder_class(encoded)
        kept = self.decoder_embed(encoded[:, 1:]) + positions(ids_keep, *tables)
        removed = self.mask_token + positions(ids_removed, *tables)
        x = self.run(self.decoder_blocks, torch.cat([cls, kept, removed], dim=1))
        predicted: Tensor = self.decoder_pred(self.decoder_norm(x[:, encoded.shape[1]:]))
        return predicted

    def _decoder_class(self, encoded: Tensor) -> Tensor:
        """The decoder's class token [B, 1, d]: one of its own, as in the released video models."""
        return (self.decoder_cls_token + self.decoder_pos_embed_class).expand(len(encoded), -1, -1)

    def _target(self, frames: Tensor, ids: Tensor) -> Tensor:
        """True pixels of tokens `ids`, normalised as the input is: float32 [B, N, P]."""
        s = self.shape
        if s.pred_t_dim != s.num_frames:
            frames = frames[:, predicted_frames(s.num_frames, s.pred_t_dim)]
        patches = patchify(frames, s.pred_t_patch_size, s.patch_size)
        return normalise(take_tokens(patches, ids), self.mean, self.std)

    def _checked(self, clips: Tensor, mask: Mask) -> tuple[Mask, Tensor]:
        frames = as_frames(clips, self.shape)
        expected = (len(clips), self.shape.num_tokens)
        if tuple(mask.mask.shape) != expected:
            raise ValueError(f"the mask is for {mask.mask.shape[0]} clips of {mask.mask.shape[1]} tokens, the clips need "
                             f"{expected[0]} of {expected[1]} ({self.shape.name}, grid {self.shape.grid})")
        return mask.to(clips.device), frames


def build_mae(
    name: str, *, img_size: int = 224, num_frames: int = 16, t_patch_size: int = 2, decoder_embed_dim: int = 512,
    decoder_depth: int = 4, decoder_num_heads: int = 16, mask_ratio: float = 0.9, norm_pix_loss: bool = False,
    pred_t_dim: int = 16, decoder_mask_ratio: float = 0.0, attention: AttentionKernel = "auto",
    activation_checkpointing: bool | int = False, mean: float = 0.45, std: float = 0.225, mask: MaskKind = "random",
    temporal_positions: bool = True,
) -> MaskedAutoencoder:
    """Build a video MAE by name, weights drawn from torch's global generator.

    Args:
        name: `mae_vit_{pico,nano,tiny,small,base,large,huge,giant}_patch{px}`.
        img_size: Side of the square frame in px; a multiple of the patch size.
        num_frames: Frames per clip; a multiple of t_patch_size.
        t_patch_size: Frames per token.
        decoder_embed_dim: Decoder width; a multiple of decoder_num_heads.
        decoder_depth: Decoder blocks.
        decoder_num_heads: Decoder attention heads.
        mask_ratio: Fraction of the tokens removed in training. The model itself takes whatever mask it is given.
        norm_pix_loss: Normalise each target patch by its own mean and deviation.
        pred_t_dim: Frames predicted, evenly spread; a multiple of num_frames / t_patch_size.
        decoder_mask_ratio: Fraction of the removed tokens that the decoder does not rebuild in training, below 1.
        attention: `sdpa`, `naive`, or `auto`: sdpa but for 16-bit numbers on a CPU (see `blocks.use_sdpa`).
        activation_checkpointing: Recompute blocks in the backward pass, True each, N every N-th: less memory, slower.
        mean: Pixel mean, for pixels in 0..1.
        std: Pixel deviation, for pixels in 0..1.
        mask: What training hides; see `masking.training_mask`.
        temporal_positions: With tables of positions in time, as released; False leaves them out.
    Returns:
        The model, float32, on torch's default device.
    Raises:
        ValueError: Unknown name or sizes that do not divide; the message says what would do.
    """
    shape = model_shape(
        name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size, decoder_embed_dim=decoder_embed_dim,
        decoder_depth=decoder_depth, decoder_num_heads=decoder_num_heads, mask_ratio=mask_ratio, pred_t_dim=pred_t_dim,
        decoder_mask_ratio=decoder_mask_ratio, mask=mask, temporal_positions=temporal_positions)
    return MaskedAutoencoder(shape, norm_pix_loss=norm_pix_loss, attention=attention, mean=mean, std=std,
                             activation_checkpointing=activation_checkpointing)
