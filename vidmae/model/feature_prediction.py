"""Features in place of pixels as what is predicted: a student sees the kept tokens, a teacher the whole clip.

    clip --- kept tokens ---> encoder ---> decoder, with a mask token for each hidden place ---> predicted [B, N, D]
      |                          |                                                                  |  l1
      |               running average, after each update                                            |
      |                          v                                                                  v
      +----- all tokens -----> teacher ---> LayerNorm without weights ---> hidden tokens ---> target [B, N, D]

Encoder, masks and data are those of pixel prediction, and the decoder is the predictor, with its width and depth: nothing
else changes. No gradient goes through the teacher. That a network may predict its own average without saying the same of
every clip is found by experience, not proved; `spread` shows whether it still holds.

Letters: B clips, L tokens, N hidden tokens, D encoder width.
Source: Bardes et al. 2024, V-JEPA (arXiv 2404.08471) sec. 3; Assran et al. 2025, V-JEPA 2 (arXiv 2506.09985) sec. 2. There
encoders have no class token; here the student's and the teacher's have one, and it is not predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from vidmae.model.blocks import AttentionKernel
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import Mask, running_cell
from vidmae.model.patches import take_tokens
from vidmae.settings.sizes import ModelShape

FeatureLoss = Literal["l1", "smooth"]


class FeaturePredictor(MaskedAutoencoder):
    """A video model that predicts features of hidden tokens. Parameters are named as those of a masked autoencoder;
    `decoder_pred` has as many rows as the encoder is wide.

    Attributes:
        feature_loss: l1, or smooth: squared below a difference of 1.
    """

    def __init__(
        self, shape: ModelShape, *, feature_loss: FeatureLoss = "l1", attention: AttentionKernel = "auto",
        activation_checkpointing: bool | int = False, mean: float = 0.45, std: float = 0.225,
    ) -> None:
        assert shape.target == "features", shape
        super().__init__(shape, attention=attention, activation_checkpointing=activation_checkpointing, mean=mean, std=std)
        self.feature_loss = feature_loss

    def forward(self, clips: Tensor, mask: Mask, features: Tensor | None = None) -> Tensor:
        """The training loss.

        Args:
            clips: uint8 [B, T, H, W, C] or normalised floating [B, C, T, H, W].
            mask: Which tokens the encoder sees.
            features: Floating [B, L, D], of all tokens in grid order: `features_of` the teacher.
        Returns:
            float32 scalar, mean over the hidden tokens, or with decoder_mask_ratio over those that the decoder rebuilds.
        Raises:
            ValueError: Clips or mask do not fit the model.
        """
        assert features is not None, "the loss of features needs those of a teacher"
        mask, frames = self._checked(clips, mask)
        rebuilt = running_cell(mask, self.shape) if self.shape.decoder_mask_ratio else mask.ids_removed
        predicted = self._decode(self._encode(frames, mask.ids_keep), mask.ids_keep, rebuilt).float()
        target = take_tokens(features, rebuilt).float()
        return (F.l1_loss if self.feature_loss == "l1" else F.smooth_l1_loss)(predicted, target)

    def reconstruct(self, clips: Tensor, mask: Mask) -> Tensor:  # noqa: ARG002
        """There are no pixels to fill in.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"{self.shape.name} predicts features (model.target features) and has no pixel decoder to fill in "
                         "with")


def make_teacher(student: MaskedAutoencoder, device: torch.device, dtype: torch.dtype) -> MaskedAutoencoder:
    """A copy of the student as it is now, that computes in `dtype` on `device` and learns nothing by itself.

    Args:
        student: Before an engine takes it, so with whole weights.
        device: Where it computes.
        dtype: Of its weights.
    """
    return copy.deepcopy(student).requires_grad_(False).eval().to(device, dtype)


@torch.no_grad()
def features_of(teacher: MaskedAutoencoder, clips: Tensor) -> Tensor:
    """What a teacher makes of whole clips: float32 [B, L, D], each token of mean 0 and variance 1 over its channels."""
    tokens = teacher.encode(clips)[:, teacher.shape.class_tokens:].float()
    return F.layer_norm(tokens, tokens.shape[-1:])


@torch.no_grad()
def follow(teacher: MaskedAutoencoder, averaged: Iterable[tuple[str, Tensor]]) -> None:
    """Give the teacher new weights.

    Args:
        teacher: From `make_teacher`.
        averaged: Name and value of every parameter.
    """
    own = dict(teacher.named_parameters())
    for name, value in averaged:
        own.pop(name).copy_(value)
    assert not own, f"the average lacks {', '.join(own)}"


def spread(features: Tensor) -> Tensor:
    """How much features differ, float32 [2]: 0 and 0 where they have collapsed to one vector.

    Args:
        features: [B, L, D], from `features_of`.
    Returns:
        Standard deviation over all tokens of all clips, then over the clips at each place: the root of the mean variance of
        channels (and places). The first is 1 at most; the second is an estimate from few clips, and NaN for one clip. Where
        it alone is 0, features say where a token is and not what it shows.
    """
    over_tokens = features.flatten(0, 1).var(0, correction=0).mean()
    over_clips = features.var(0).mean() if len(features) > 1 else torch.full_like(over_tokens, float("nan"))
    return torch.stack([over_tokens, over_clips]).sqrt()


def momentum_at(step: int, total_steps: int, first_last: tuple[float, float]) -> float:
    """Share of the teacher that stays at update `step`, from 0 on: it rises evenly from the first value to the last, which
    it would reach after the last update.

    Source: the released code of V-JEPA.
    """
    first, last = first_last
    return first + (last - first) * step / total_steps
