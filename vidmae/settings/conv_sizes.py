"""Sizes and FLOPs of the convolutional net that cells of a sweep can train beside a transformer: an R(2+1)D. Stdlib only.

    stem      7 x 7, stride 2 in space                 width channels
    stage 1   2 blocks of 2 convolutions, 3 x 3 x 3    width
    stage 2   the same; its first block strides by 2   2 x width
    stage 3                                            4 x width
    stage 4                                            8 x width
    then the mean over time and space, and a head

Each convolution of k x k x 3 (height, width, time) is one of k x k within frames to M channels, then one of 3 over time.
M = 3 k k in out / (k k in + 3 out), rounded down, so that both together have as many weights as the whole one. A stride is 2
in time and in space, but for the stem's. The width is not free: `conv_shape` chooses it so that the net costs what it is to
cost.

Source: Tran et al. 2018 (arXiv 1711.11248) sec. 3.5, of 18 layers. There batches are normalised, here groups of channels of
a clip (Wu and He 2018, arXiv 1803.08494): statistics of a batch would hang on how many ranks and micro-batches share it.

Letters: T H W frames and px.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from vidmae.settings.sizes import CHANNELS

STAGES, BLOCKS = 4, 2
NEAR, FAR = 0.005, 0.02  # relative errors of the FLOPs: good enough to search no further, and too much
GROUPS = (8, 4, 2, 1)  # of a normalisation, the most first; all channels are multiples of it
SPREADS = (1.25, 2.5)  # by what factor middle channels may differ from the formula, at most; the second is for toys


@dataclass(frozen=True)
class Factored:
    """A convolution over space and then one over time.

    Attributes:
        inputs, middle, outputs: Channels.
        kernel: Side in px, of the first.
        stride_t, stride_s: Steps in time, of the second, and in space, of the first.
    """

    inputs: int
    middle: int
    outputs: int
    kernel: int
    stride_t: int
    stride_s: int

    @property
    def parameters(self) -> int:
        """Weights, and those of the two normalisations behind them; no biases."""
        middle, outputs = self.middle, self.outputs
        return self.kernel**2 * self.inputs * middle + 3 * middle * outputs + 2 * (middle + outputs)

    def flops(self, t: int, side: int) -> tuple[float, float]:
        """FLOPs within frames and over time, of T frames of `side` x `side` px."""
        places = steps(side, self.stride_s) ** 2
        within = 2.0 * t * places * self.kernel**2 * self.inputs * self.middle
        return within, 2.0 * steps(t, self.stride_t) * places * 3 * self.middle * self.outputs


@dataclass(frozen=True)
class ConvShape:
    """What fixes every tensor of the net, and its cost. Build one with `conv_shape`.

    Attributes:
        num_frames, img_size: Of a clip, frames and px.
        width: Channels of the stem and of the first stage.
        scale: Middle channels, in those of the formula.
        groups: Of each normalisation.
    """

    num_frames: int
    img_size: int
    width: int
    scale: float
    groups: int

    @property
    def features(self) -> int:
        """D, channels of the last stage."""
        return self.width << STAGES - 1

    @property
    def stem(self) -> Factored:
        """The first convolution."""
        return self._factored(CHANNELS, self.width, 7, 1, 2)

    @property
    def blocks(self) -> list[tuple[Factored, Factored]]:
        """The two convolutions of each residual block."""
        found, inputs = [], self.width
        for stage in range(STAGES):
            outputs = self.width << stage
            for block in range(BLOCKS):
                stride = 2 if stage and not block else 1
                found.append((self._factored(inputs, outputs, 3, stride, stride), self._factored(outputs, outputs, 3, 1, 1)))
                inputs = outputs
        return found

    @property
    def parameters(self) -> int:
        """All but those of a head."""
        shortcuts = sum(first.inputs * first.outputs + 2 * first.outputs for first, _ in self.blocks if strides(first))
        return self.stem.parameters + shortcuts + sum(one.parameters for block in self.blocks for one in block)

    @property
    def forward_flops(self) -> float:
        """FLOPs of one clip's forward pass, two per multiply-add; the head aside."""
        return sum(self._flops())

    @property
    def train_flops(self) -> float:
        """FLOPs of forward and backward; pixels need no gradient, so the first convolution goes back once."""
        return 3 * self.forward_flops - next(self._flops())

    def _flops(self) -> Iterator[float]:
        """Of each convolution, in order."""
        t, side = self.num_frames, self.img_size
        yield from self.stem.flops(t, side)
        side = steps(side, 2)
        for first, second in self.blocks:
            yield from first.flops(t, side)
            t, side = steps(t, first.stride_t), steps(side, first.stride_s)
            yield from second.flops(t, side)
            if strides(first):
                yield 2.0 * t * side**2 * first.inputs * first.outputs

    def _factored(self, inputs: int, outputs: int, kernel: int, stride_t: int, stride_s: int) -> Factored:
        whole = 3 * kernel**2 * inputs * outputs / (kernel**2 * inputs + 3 * outputs)
        middle = max(1, int(self.scale * whole / self.groups)) * self.groups
        return Factored(inputs, middle, outputs, kernel, stride_t, stride_s)


def steps(size: int, stride: int) -> int:
    """Places that a convolution with so much padding as keeps the size has with a stride."""
    return -(-size // stride)


def strides(first: Factored) -> bool:
    """Whether the way around a block needs a convolution, since channels and size change."""
    return first.stride_t > 1


@cache
def conv_shape(train_flops: float, num_frames: int, img_size: int) -> ConvShape:
    """The net whose forward and backward pass takes so many FLOPs.

    The width comes first, as large as it may be with middle channels of the formula; these then take up the rest.

    Args:
        train_flops: Of one clip.
        num_frames, img_size: Of a clip, frames and px.
    Returns:
        A net whose FLOPs differ by 2 % at most; for transformers from ViT-Tiny on by less than 0.5 %.
    Raises:
        ValueError: There is none, since so few FLOPs leave the channels no choice.
    """
    for spread in SPREADS:
        found: list[ConvShape] = []
        for groups in GROUPS:
            width = groups
            while ConvShape(num_frames, img_size, width + groups, 1.0, groups).train_flops <= train_flops:
                width += groups
            near = (ConvShape(num_frames, img_size, each, 1.0, groups) for each in (width, width + groups))
            found += [_scaled(shape, train_flops, spread) for shape in near]
            closest = min(found, key=lambda shape: _error(shape, train_flops))
            if _error(closest, train_flops) <= NEAR:
                return closest
        if _error(closest, train_flops) <= FAR:
            return closest
    raise ValueError(f"no convolutional net takes {train_flops / 1e9:.3g} GFLOP for a clip of {num_frames} frames of "
                     f"{img_size} px and a step, give or take {FAR:.0%}; the nearest takes "
                     f"{closest.train_flops / 1e9:.3g}: conv needs a larger transformer beside it (model.name)")


def _error(shape: ConvShape, train_flops: float) -> float:
    return abs(shape.train_flops / train_flops - 1)


def _scaled(shape: ConvShape, train_flops: float, spread: float) -> ConvShape:
    """The same width with middle channels that bring the FLOPs nearest."""
    def scaled(scale: float) -> ConvShape:
        return ConvShape(shape.num_frames, shape.img_size, shape.width, scale, shape.groups)

    low, high = 1 / spread, spread
    for _ in range(30):  # FLOPs grow with the scale, in steps
        middle = (low + high) / 2
        low, high = (low, middle) if scaled(middle).train_flops > train_flops else (middle, high)
    return min((scaled(low), scaled(high)), key=lambda each: _error(each, train_flops))
