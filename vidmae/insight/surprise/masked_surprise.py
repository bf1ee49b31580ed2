"""How surprised a masked autoencoder is by what comes next: it sees the first frames of a window and predicts the others.

Letters: B windows, T frames, S px, N hidden tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from vidmae.insight.surprise.surprise_table import OWN, PIXEL
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import Mask, mask_from_hidden
from vidmae.settings.sizes import EncoderShape


class Surprise(Protocol):
    """What gives windows a number for each loss. A model with another objective than pixels is one more class of this kind,
    and one more line in `surprise_of`."""

    def __call__(self, windows: np.ndarray, context: int) -> Mapping[str, np.ndarray]:
        """Ending of the method's name -> float64 [B], given uint8 windows [B, T, S, S, 3] and how many frames are seen."""


class PixelSurprise:
    """The loss of a model that predicts pixels, over all frames after the context.

    Args:
        model: In evaluation mode.
        device: Where it computes.
        batch: Windows of a forward pass.
    """

    def __init__(self, model: MaskedAutoencoder, device: torch.device, batch: int) -> None:
        self._model, self._device, self._batch = model, device, batch

    def __call__(self, windows: np.ndarray, context: int) -> Mapping[str, np.ndarray]:
        """Give windows their surprise.

        Args:
            windows: uint8 [B, T, S, S, 3].
            context: Frames that are seen.
        Returns:
            OWN: mean over the hidden tokens of the loss of training, of normalised patches where it is trained with these.
            PIXEL: of the squared error of pixels in 0..1.
        """
        losses: dict[str, list[np.ndarray]] = {OWN: [], PIXEL: []}
        for first in range(0, len(windows), self._batch):
            part = torch.tensor(windows[first:first + self._batch]).to(self._device)
            mask = context_mask(self._model.shape, context, len(part)).to(self._device)
            for name, tokens in zip(losses, self._model.token_losses(part, mask), strict=True):
                losses[name].append(tokens.double().mean(dim=1).cpu().numpy())
        return {name: np.concatenate(parts) for name, parts in losses.items()}


def surprise_of(model: object, device: torch.device, batch: int) -> Surprise:
    """What gives windows their surprise by a model.

    Raises:
        ValueError: The model predicts something else than pixels.
    """
    if type(model) is MaskedAutoencoder:  # a subclass may predict something else
        return PixelSurprise(model, device, batch)
    raise ValueError(f"surprise is the loss of a model that predicts pixels; this one is a {type(model).__name__}, whose "
                     "surprise is not known")


def context_mask(shape: EncoderShape, context: int, batch: int) -> Mask:
    """Hide all frames after the first `context`, which are whole time slots; `check_contexts` says so."""
    slots, rows, columns = shape.grid
    hidden = torch.arange(slots * rows * columns) >= context // shape.t_patch_size * rows * columns
    return mask_from_hidden(hidden.expand(batch, -1))


def check_contexts(asked: Sequence[int], shape: EncoderShape) -> tuple[int, ...]:
    """The context lengths, a quarter, a half and three quarters of a clip where none are asked for.

    Raises:
        ValueError: One is no whole number of time slots, leaves nothing to predict, or is so short that nothing moves in it.
    """
    t, u = shape.num_frames, shape.t_patch_size
    given = tuple(asked) or tuple(dict.fromkeys(max(share * t // 4 // u * u, u) for share in (1, 2, 3)))
    wrong = [c for c in given if c % u or not 2 <= c < t]
    if wrong or len(set(given)) < len(given):
        raise ValueError(f"--context-frames {','.join(map(str, given))}: allowed are different multiples of {u}, the frames "
                         f"of a token, from 2 to {t - u}")
    return given
