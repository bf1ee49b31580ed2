"""A convolutional video classifier, an R(2+1)D: what labels alone teach a network that is made for pictures.

A transformer that learns from few labels after pretraining is compared with it: both see the same clips, as often, and their
steps take the same FLOPs. `settings.conv_sizes` says what it consists of and how wide it is.

Letters: B clips, D channels of the last stage, T H W frames and px, C channels of pixels.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidmae.model.blocks import drop_path
from vidmae.model.classifier import VideoClassifier, linear_head
from vidmae.model.encoder import is_recomputed
from vidmae.model.patches import as_frames, normalise
from vidmae.runs.cost import conv_like
from vidmae.settings.conv_sizes import ConvShape, Factored, strides
from vidmae.settings.sizes import EncoderShape, encoder_shape


class FactoredConv(nn.Module):
    """A convolution within frames, and one over time; between them norm and ReLU, behind them a norm.

    Every stride has the padding that a kernel of odd size needs to begin at the first place.
    """

    def __init__(self, size: Factored, groups: int) -> None:
        super().__init__()
        k, s, t = size.kernel, size.stride_s, size.stride_t
        self.spatial = conv(size.inputs, size.middle, (1, k, k), (1, s, s))
        self.middle_norm = nn.GroupNorm(groups, size.middle)
        self.temporal = conv(size.middle, size.outputs, (3, 1, 1), (t, 1, 1))
        self.norm = nn.GroupNorm(groups, size.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] to as many channels and places as `size` says."""
        out: Tensor = self.norm(self.temporal(F.relu(self.middle_norm(self.spatial(x)))))
        return out


class Residual(nn.Module):
    """Two factored convolutions and a way around them; a 1 x 1 x 1 convolution where channels and size change.

    Attributes:
        drop_path: Chance with which, in training, a clip skips the convolutions.
    """

    def __init__(self, first: Factored, second: Factored, groups: int, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.first, self.second = FactoredConv(first, groups), FactoredConv(second, groups)
        stride = first.stride_t, first.stride_s, first.stride_s
        self.shortcut = nn.Sequential(conv(first.inputs, first.outputs, (1, 1, 1), stride),
                                      nn.GroupNorm(groups, first.outputs)) if strides(first) else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] to the same, or with twice the channels to half of T, H and W."""
        around = x if self.shortcut is None else self.shortcut(x)
        branch = self.second(F.relu(self.first(x)))
        return F.relu(around + drop_path(branch, self.drop_path if self.training else 0.0))


class ConvClassifier(nn.Module):
    """The net with a head. Build one with `build_conv`.

    Attributes:
        shape: What clips it takes; the rest of it is that of the transformer whose FLOPs it has.
        sizes: Its own.
        mean, std: Pixel normalisation, for pixels in 0..1.
        head: Linear [D] to [num_classes], or None.
    """

    def __init__(self, shape: EncoderShape, sizes: ConvShape, *, num_classes: int | None, dropout: float, drop_path: float,
                 activation_checkpointing: bool | int, mean: float, std: float) -> None:
        super().__init__()
        self.shape, self.sizes, self.mean, self.std = replace(shape, name=f"conv-{shape.name}"), sizes, mean, std
        self.activation_checkpointing = activation_checkpointing
        last = len(sizes.blocks) - 1
        self.stem = FactoredConv(sizes.stem, sizes.groups)
        self.blocks = nn.ModuleList(Residual(first, second, sizes.groups, drop_path * i / last)
                                    for i, (first, second) in enumerate(sizes.blocks))
        self.dropout = nn.Dropout(dropout)
        self.head = linear_head(sizes.features, num_classes)

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
        """What the head sees, before dropout: the mean of the last stage over time and space.

        Args:
            clips: As in `forward`.
        Returns:
            [B, D].
        """
        pixels = normalise(as_frames(clips, self.shape), self.mean, self.std).permute(0, 4, 1, 2, 3).contiguous()
        x = F.relu(self.stem(pixels.to(self.stem.spatial.weight.dtype)))
        every = self.activation_checkpointing if self.training and torch.is_grad_enabled() else False
        for i, block in enumerate(self.blocks):
            x = checkpoint(block, x, use_reentrant=False) if is_recomputed(i, every) else block(x)
        return x.mean(dim=(2, 3, 4))


Classifier = VideoClassifier | ConvClassifier
"""What cells train and test."""


def conv(inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> nn.Conv3d:
    """A convolution without bias, padded by half its kernel; started as in He et al. 2015 (arXiv 1502.01852)."""
    t, h, w = (size // 2 for size in kernel)
    layer = nn.Conv3d(inputs, outputs, kernel, stride, (t, h, w), bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def build_conv(name: str, *, num_classes: int | None, img_size: int = 224, num_frames: int = 16, t_patch_size: int = 2,
               dropout: float = 0.3, drop_path: float = 0.1, activation_checkpointing: bool | int = False,
               mean: float = 0.45, std: float = 0.225) -> ConvClassifier:
    """Build the net that takes the FLOPs of a transformer, weights drawn from torch's global generator.

    Args:
        name: Of the transformer, `vit_{size}_patch{px}`.
        num_classes: Width of the head; None builds none.
        img_size, num_frames, t_patch_size: Of the transformer; the net takes the same clips.
        dropout: Chance to zero a number of the head's input in training.
        drop_path: Chance to skip the convolutions of the last block in training; it grows linearly from 0 in the first.
        activation_checkpointing: Recompute blocks in the backward pass, True each, N every N-th: less memory, slower.
        mean, std: Pixel mean and deviation, for pixels in 0..1.
    Returns:
        The model, float32, on torch's default device.
    Raises:
        ValueError: The transformer is unknown, or too small for a net of as many FLOPs.
    """
    shape = encoder_shape(name, img_size=img_size, num_frames=num_frames, t_patch_size=t_patch_size)
    return ConvClassifier(shape, conv_like(shape), num_classes=num_classes, dropout=dropout, drop_path=drop_path,
                          activation_checkpointing=activation_checkpointing, mean=mean, std=std)
