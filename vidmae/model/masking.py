"""Token masks: which patches the encoder sees. Pure tensors.

Letters: B clips, L tokens per clip, K kept tokens.

A mask is a permutation of the tokens and a count: the first K of the shuffled order are kept.

    noise       [.7 .1 .9 .3]        one number per token
    ids_shuffle [ 1  3  0  2]        argsort(noise); K = 2 keeps tokens 1 and 3
    ids_restore [ 2  0  3  1]        argsort(ids_shuffle): where each token went
    mask        [ 1  0  1  0]        True = removed

Training masks by `training_mask`, of the kind that model.mask says. The others ask a trained model a question, `make_mask`
by name. Of 16 frames in 8 time slots (1-based) they hide:

    center    0.25  frames 7 to 10: what happened in between?       0.5  frames 5 to 12
    temporal  0.25  frames 13 to 16: what comes next?
    tube      the same places in every frame
    box       what the boxes around a moving object touch
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vidmae.settings.sizes import EncoderShape, ModelShape, num_kept, num_rebuilt

__all__ = ["KINDS", "Mask", "box_mask", "center_mask", "make_mask", "mask_from_hidden", "mask_from_noise", "mask_from_order",
           "num_kept", "random_mask", "removed_pixels", "running_cell", "temporal_mask", "training_mask", "tube_mask"]

KINDS = ("center", "temporal", "random", "tube")
"""Masks that a name and a ratio describe."""


@dataclass(frozen=True)
class Mask:
    """Which tokens of each clip are kept.

    Attributes:
        ids_keep: int64 [B, K], the kept tokens in shuffled order.
        ids_removed: int64 [B, L - K], the removed tokens in shuffled order.
        ids_restore: int64 [B, L], position of each token in the shuffled order [ids_keep, ids_removed].
        mask: bool [B, L], True = removed.
    """

    ids_keep: Tensor
    ids_removed: Tensor
    ids_restore: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Mask:
        """The same mask on another device; itself where it is there already."""
        if self.mask.device == torch.device(device):
            return self
        moved = (t.to(device, non_blocking=True) for t in (self.ids_keep, self.ids_removed, self.ids_restore, self.mask))
        return Mask(*moved)


def mask_from_noise(noise: Tensor, mask_ratio: float) -> Mask:
    """Keep the tokens with the smallest noise.

    Args:
        noise: Floating [B, L], one number per token. The sort is stable, so equal numbers keep the lower index.
        mask_ratio: Fraction removed, between 0 and 1, both excluded. K = int(L * (1 - mask_ratio)).
    Returns:
        The mask, on the device of `noise`.
    Raises:
        ValueError: `noise` is not [B, L], or the ratio keeps no token or every token.
    Source: Feichtenhofer et al. 2022 (arXiv 2205.09113) sec. 3: space-time-agnostic random sampling.
    """
    if noise.ndim != 2:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected [clips, tokens]")
    return mask_from_order(torch.argsort(noise, dim=1, stable=True), num_kept(noise.shape[1], mask_ratio))


def training_mask(noise: Tensor, shape: ModelShape) -> Mask:
    """The mask of a training step, a function of the noise that comes with the clips; so it resumes to the bit.

    `random` keeps the tokens with the smallest noise. The two others put the places of the picture into a random order, that
    of their noise in the first time slot, and keep the first places of it (. visible, # hidden):

        tube, 2 places of 6               causal, K = 5 of 24

        place     0 1 2 3 4 5             place     0 1 2 3 4 5
        slot 0    # . # # . #             slot 0    # . # # . .    past: the first half
        slot 1    # . # # . #             slot 1    # . # # . #
        slot 2    # . # # . #             slot 2    # # # # # #    future: all hidden
        slot 3    # . # # . #             slot 3    # # # # # #

    tube: each slot keeps int(H * W * (1 - mask_ratio)) places, the same ones.
    causal: K is that of a random mask. The past is the first half of the slots, or more where K tokens do not fit in it. It
    shows K // past places from the first slot to its last, and one further place in the first K % past slots. So no token is
    visible after a hidden one of its place, and none of the future. Hidden tokens of the past are filled in, too: with the
    paper's model 1,024 of the 1,844 hidden tokens are of the future.

    Hidden and visible tokens stay in the order of their noise among themselves, on which `running_cell` relies.

    Args:
        noise: Floating [B, L], one number per token.
        shape: The model's: its mask, mask_ratio and grid.
    Returns:
        The mask, on the device of `noise`, with K = shape.num_kept.
    Raises:
        ValueError: `noise` is not [B, L].
    Source: Tong et al. 2022, VideoMAE (arXiv 2203.12602) sec. 3.3: tubes. Bardes et al. 2024, V-JEPA (arXiv 2404.08471):
        causal masks there, too, hide later frames, and of earlier ones the same places.
    """
    if shape.mask == "random":
        return mask_from_noise(noise, shape.mask_ratio)
    if noise.ndim != 2 or noise.shape[1] != shape.num_tokens:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; {shape.name} takes [clips, {shape.num_tokens}]")
    slots, height, width = shape.grid
    rank = torch.argsort(torch.argsort(noise[:, :height * width], dim=1, stable=True), dim=1)  # of each place
    if shape.mask == "tube":
        seen = torch.where(rank < shape.num_kept // slots, slots, 0)  # of each place: so many slots from the first on
    else:
        past = max(-(-slots // 2), -(-shape.num_kept // (height * width)))
        whole, rest = divmod(shape.num_kept, past)
        seen = torch.where(rank < whole, past, torch.where(rank == whole, rest, 0))
    hidden = (torch.arange(slots, device=noise.device)[:, None] >= seen[:, None]).flatten(1)
    order = torch.argsort(noise, dim=1, stable=True)
    visible_first = torch.argsort(hidden.gather(1, order).int(), dim=1, stable=True)
    return mask_from_order(order.gather(1, visible_first), shape.num_kept)


def mask_from_order(ids_shuffle: Tensor, kept: int) -> Mask:
    """Keep the first `kept` tokens of a shuffled order, int64 [B, L]; 0 leaves the class token alone with nothing to see."""
    ids_restore = torch.argsort(ids_shuffle, dim=1)
    return Mask(ids_shuffle[:, :kept], ids_shuffle[:, kept:], ids_restore, ids_restore >= kept)


def random_mask(num_tokens: int, mask_ratio: float, batch: int, *, generator: torch.Generator) -> Mask:
    """Draw one random token mask per clip.

    Args:
        num_tokens: L, tokens per clip.
        mask_ratio: Fraction removed, between 0 and 1, both excluded. K = int(L * (1 - mask_ratio)).
        batch: B, clips.
        generator: A CPU source of randomness; the same state gives the same mask, whatever device trains.
    Returns:
        A mask on the CPU.
    Raises:
        ValueError: The ratio keeps no token or every token; the message gives the ratios that work.
    Source: Feichtenhofer et al. 2022 (arXiv 2205.09113) sec. 3.
    """
    return mask_from_noise(torch.rand(batch, num_tokens, generator=generator), mask_ratio)


def running_cell(mask: Mask, shape: ModelShape) -> Tensor:
    """The hidden tokens that the decoder rebuilds in training, for `decoder_mask_ratio` above 0.

    Every cell of 2 x 2 places is walked through clockwise, one place per time slot, so that each place has its turn in
    every four slots. A hidden token's turn is how many places it lies ahead of the walk; those with the lowest turns are
    rebuilt. For a ratio of 0.5 these are turns 0 and 1:

        turns in a cell of slots 0 to 3              rebuilt, where hidden (#)
        0 1    3 0    2 3    1 2                     # #    . #    . .    # .
        3 2    2 1    1 0    0 3                     . .    . #    # #    # .

    Clips hide different places, so turns 0 and 1 have not quite half of each clip's hidden tokens. All clips of a batch
    need equal counts: tokens of one turn come in the clip's shuffled order, and the first N are taken. Which place a
    clip's walk starts from is the rank of its first token in that order, modulo 4. So the choice is a function of the
    clip's own noise, and no further number is drawn.

    Args:
        mask: What the encoder sees.
        shape: The model's shape; N = shape.num_rebuilt where the mask hides as many tokens as in training.
    Returns:
        int64 [B, N], indices of tokens.
    Source: Wang et al. 2023, VideoMAE V2 (arXiv 2303.16727) sec. 3.2: running cell masking. There mask tokens stand for
        all places of the pattern, and the loss leaves out those that the encoder saw.
    """
    _, height, width = shape.grid
    ids = mask.ids_removed
    slot, row, column = ids // (height * width), ids // width % height, ids % width
    place = row % 2 * 2 + (row + column) % 2  # 0 1 clockwise: top left, top right,
    turn = (place - slot - mask.ids_restore[:, :1]) % 4  # 3 2                bottom left, bottom right
    order = torch.argsort(turn, dim=1, stable=True)
    return ids.gather(1, order[:, :num_rebuilt(ids.shape[1], shape.decoder_mask_ratio)])


def center_mask(num_tokens: int, mask_ratio: float, batch: int) -> Mask:
    """Hide the middle of the clip: the tokens that are farthest from both its ends, in time-major order.

    Args:
        num_tokens: L, tokens per clip.
        mask_ratio: Fraction removed, between 0 and 1, both excluded. K = int(L * (1 - mask_ratio)).
        batch: B, clips; all get the same mask.
    Raises:
        ValueError: The ratio keeps no token or every token.
    Source: Orhan et al. 2024 (arXiv 2402.00300), interpolation; `center` or `boundary` in the released code.
    """
    order = torch.arange(num_tokens)
    return mask_from_noise(torch.minimum(order, num_tokens - 1 - order).float().expand(batch, -1), mask_ratio)


def temporal_mask(num_tokens: int, mask_ratio: float, batch: int) -> Mask:
    """Hide the end of the clip: prediction. Arguments and errors as for `center_mask`."""
    return mask_from_noise(torch.arange(num_tokens).float().expand(batch, -1), mask_ratio)


def tube_mask(grid: tuple[int, int, int], mask_ratio: float, batch: int, *, generator: torch.Generator) -> Mask:
    """Hide the same random places in every time slot.

    Args:
        grid: T, H, W of the token grid.
        mask_ratio: Fraction removed; H * W places keep int(H * W * (1 - mask_ratio)).
        batch: B, clips; each has its own places.
        generator: A CPU source of randomness.
    Raises:
        ValueError: The ratio keeps no place or every place.
    Source: Tong et al. 2022, VideoMAE (arXiv 2203.12602) sec. 3.3.
    """
    time, height, width = grid
    places = random_mask(height * width, mask_ratio, batch, generator=generator)
    return mask_from_hidden(places.mask.repeat(1, time))


def box_mask(boxes: np.ndarray, shape: EncoderShape) -> Mask:
    """Hide every token that a box touches, for one clip.

    Args:
        boxes: Floating [T, N, 4], N boxes in each time slot of the token grid: top, left, bottom, right in px, the last
            two excluded. A box of NaN, and one that lies outside the frame, touches nothing.
        shape: The model's shape.
    Returns:
        A mask of one clip.
    Raises:
        ValueError: `boxes` has another shape, or the boxes touch no token or every token.
    """
    (time, height, width), side = shape.grid, shape.patch_size
    boxes = np.asarray(boxes, dtype=np.float64)
    if boxes.ndim != 3 or boxes.shape[::2] != (time, 4):
        raise ValueError(f"boxes have shape {boxes.shape}; {shape.name} takes [{time}, N, 4]: N boxes (top, left, bottom, "
                         f"right in px) in each of {time} time slots")
    top, left, bottom, right = np.moveaxis(boxes, -1, 0)[..., None]
    rows, columns = np.arange(height) * side, np.arange(width) * side
    touches = (top < rows + side) & (bottom > rows), (left < columns + side) & (right > columns)
    hidden = (touches[0][..., :, None] & touches[1][..., None, :]).any(axis=1)
    return mask_from_hidden(torch.from_numpy(hidden.reshape(1, -1)))


def mask_from_hidden(hidden: Tensor) -> Mask:
    """The mask that hides given tokens.

    Args:
        hidden: bool [B, L]; every clip hides as many.
    Raises:
        ValueError: Clips hide different numbers of tokens, or one hides none or all.
    """
    counts = hidden.sum(1)
    count, tokens = int(counts[0]), hidden.shape[1]
    if not bool((counts == count).all()):
        raise ValueError(f"clips hide {int(counts.min())} to {int(counts.max())} tokens; in one batch all must hide as many")
    if not 0 < count < tokens:
        raise ValueError(f"the mask hides {count} of {tokens} tokens, allowed: 1 to {tokens - 1}; a model needs something "
                         "to see and something to fill in")
    return mask_from_order(torch.argsort(hidden.int(), dim=1, stable=True), tokens - count)


def make_mask(kind: str, shape: EncoderShape, mask_ratio: float, batch: int, *, generator: torch.Generator) -> Mask:
    """A mask by name.

    Args:
        kind: One of KINDS.
        shape: The model's shape.
        mask_ratio: Fraction removed.
        batch: B, clips.
        generator: Source of randomness of `random` and `tube`.
    Raises:
        ValueError: There is no such mask, or the ratio hides nothing or everything; the message gives the allowed range.
    """
    if kind not in KINDS:
        raise ValueError(f"mask {kind!r} is unknown; known: {', '.join(KINDS)} (--mask)")
    _, height, width = shape.grid
    num_kept(height * width if kind == "tube" else shape.num_tokens, mask_ratio, "--ratio")
    if kind == "random":
        return random_mask(shape.num_tokens, mask_ratio, batch, generator=generator)
    if kind == "tube":
        return tube_mask(shape.grid, mask_ratio, batch, generator=generator)
    return (center_mask if kind == "center" else temporal_mask)(shape.num_tokens, mask_ratio, batch)


def removed_pixels(mask: Mask, shape: EncoderShape) -> Tensor:
    """bool [B, T, H, W], True where a pixel belongs to a removed patch."""
    pixels = mask.mask.reshape(-1, *shape.grid)
    for axis, repeat in ((1, shape.t_patch_size), (2, shape.patch_size), (3, shape.patch_size)):
        pixels = pixels.repeat_interleave(repeat, dim=axis)
    return pixels
