"""The video classifier: the pretrained encoder on all tokens of a clip, one vector out of it, a linear head.

Parameter names and shapes are those of the released finetuned checkpoints. What finetuning, probes and evaluation use:

    model = build_classifier("vit_huge_patch14", num_classes=174)
    print(load_encoder(model, "weights.safetensors"))        # from a pretraining run; the head is new
    logits = model(clips)                                    # [B, 174]
    vectors = model.features(clips)                          # [B, 1280], for a probe

A model has one image size. Weights of another are fitted when they are loaded (`resize_positions=True`: bicubic over
space, linear over time), not in every forward pass as in the released code: the numbers that come out first are the
same, finetuning trains the table that is used, and on GPUs the backward pass of the interpolation is not deterministic.

Letters: B clips, L tokens, D width, T H W frames and px, C channels.
"""

from __future__ import annotations

import typing
from typing import Literal

from torch import Tensor, nn

from vidmae.model.blocks import AttentionKernel
from vidmae.model.encoder import Encoder
from vidmae.model.patches import as_frames
from vidmae.settings.sizes import EncoderShape, Positions, encoder_shape

Pool = Literal["cls", "mean"]


class VideoClassifier(Encoder):
    """Encoder, pooling and head. Build one with `build_classifier`.

    Attributes:
        pool: `cls`, the class token of the last block, or `mean`, the mean of its patch tokens.
        head: Linear [D] to [num_classes], or None.
    """

    def __init__(
        self, shape: EncoderShape, *, num_classes: int | None, pool: Pool = "cls", dropout: float = 0.3,
        drop_path: float = 0.1, attention: AttentionKernel = "auto", activation_checkpointing: bool | int = False,
        mean: float = 0.45, std: float = 0.225,
    ) -> None:
        if pool not in (pools := typing.get_args(Pool)):
            raise ValueError(f"pool {pool!r} is unknown; valid: {', '.join(pools)}")
        if pool == "cls" and not shape.class_tokens:
            raise ValueError(f"pool cls needs a class token, which a model with {shape.positions} positions has not; use "
                             "pool mean (model.pool)")
        if num_classes is not None and num_classes < 1:
            raise ValueError(f"num_classes {num_classes} must be at least 1, or None for a model without a head")
        for name, rate in (("dropout", dropout), ("drop_path", drop_path)):
            if not 0 <= rate < 1:
                raise ValueError(f"{name} {rate} must be at least 0 and below 1, a chance")
        super().__init__(shape, attention=attention, activation_checkpointing=activation_checkpointing, mean=mean, std=std,
                         drop_path=drop_path)
        self.pool = pool
        self.dropout = nn.Dropout(dropout)
        self.head = linear_head(shape.embed_dim, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """Class scores before the softmax.

        Args:
            clips: uint8 [B, T, H, W, C] or normalised floating [B, C, T, H, W].
        Returns:
            [B, num_classes]; without a head the features.
        Raises:
            ValueError: Clips do not fit the model.
        """
        features = self.features(clips)
        return features if self.head is None else self.head(self.dropout(features))

    def features(self, clips: Tensor) -> Tensor:
        """What the head sees, before dropout: pooled, then normed.

        Args:
            clips: As in `forward`.
        Returns:
            [B, D].
        """
        x = self.last_block(as_frames(clips, self.shape))
        normed: Tensor = self.norm(x[:, 0] if self.pool == "cls" else x[:, self.shape.class_tokens:].mean(1))
        return normed

    def tokens(self, clips: Tensor) -> Tensor:
        """The patch tokens of the last block, each normed; without the class token.

        Args:
            clips: As in `forward`.
        Returns:
            [B, L, D], in grid order: token (t, h, w) has index (t * H + h) * W + w.
        """
        normed: Tensor = self.norm(self.last_block(as_frames(clips, self.shape)))
        return normed[:, self.shape.class_tokens:]


def linear_head(width: int, num_classes: int | None) -> nn.Linear | None:
    """A new head on features of a width; None without classes."""
    if num_classes is None:
        return None
    head = nn.Linear(width, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)  # as in the released code that this follows; the zero bias is our choice
    nn.init.zeros_(head.bias)
    return head


def build_classifier(
    name: str, *, num_classes: int | None, img_size: int = 224, num_frames: int = 16, t_patch_size: int = 2,
    pool: Pool = "cls", dropout: float = 0.3, drop_path: float = 0.1, attention: AttentionKernel = "auto",
    activation_checkpointing: bool | int = False, mean: float = 0.45, std: float = 0.225, positions: Positions = "learned",
    temporal_positions: bool = True,
) -> VideoClassifier:
    """Build a video classifier by name, weights drawn from torch's global generator.

    Args:
        name: `vit_{pico,nano,tiny,small,base,large,huge,giant}_patch{px}`.
        num_classes: Width of the head; None builds none. Its weight starts truncated-normal (0.02), its bias zero.
        img_size: Side of the square frame in px; a multiple of the patch size.
        num_frames: Frames per clip; a multiple of t_patch_size.
        t_patch_size: Frames per token.
        pool: `cls` (as released) or `mean`, see VideoClassifier.
        dropout: Chance to zero a number of the head's input in training.
        drop_path: Chance to skip a branch of the last block in training; it grows linearly from 0 in the first.
        attention: `sdpa`, `naive`, or `auto`: sdpa but for 16-bit numbers on a CPU (see `blocks.use_sdpa`).
        activation_checkpointing: Recompute blocks in the backward pass, True each, N every N-th: less memory, slower.
        mean: Pixel mean, for pixels in 0..1.
        std: Pixel deviation, for pixels in 0..1.
        positions: `learned` (ST-MAE), `fixed` (VideoMAE, V-JEPA) or `rotary` (V-JEPA 2); see `sizes.Positions`.
        temporal_positions: Learned positions have a table of time; False leaves it out.
    Returns:
        The model, float32, on torch's default device.
    Raises:
        ValueError: Unknown name or options out of range; the message says what would do.
    """
    shape = encoder_shape(name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size, positions=positions,
                          temporal_positions=temporal_positions)
    return VideoClassifier(shape, num_classes=num_classes, pool=pool, dropout=dropout, drop_path=drop_path,
                           attention=attention, activation_checkpointing=activation_checkpointing, mean=mean, std=std)
