"""Completions that need no training: what a model must beat. A filler is a function of a clip and of what is hidden in it.

    hold   the last visible value of every pixel
    fade   a linear cross-fade of its two visible neighbours in time
    flow   the two nearest frames that are visible as a whole, moved along their optical flow and cross-faded
    mean   the mean of the pixel over the visible frames

Where one side is missing (the end is hidden) `fade` holds, and `flow` lets the motion of the last two frames go on. A pixel
that is never visible gets the mean colour of all that is. No baseline looks at a hidden pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from vidmae.insight.vision import between, beyond
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import mask_from_hidden

Filler = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(clip uint8 [T, H, W, 3], hidden bool [T, H, W]) to float32 [T, H, W, 3] in 0..1; visible pixels are the clip's."""


def hold(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The last visible value of each pixel; the next one where nothing was visible before."""
    shown, before, after = _visible(clip, hidden)
    return _filled(shown, hidden, _at(shown, np.where(before >= 0, before, after)))


def fade(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """A linear cross-fade of each pixel's visible neighbours in time."""
    shown, before, after = _visible(clip, hidden)
    now = np.arange(len(clip))[:, None, None]
    one_sided = (before < 0) | (after >= len(clip)) | ~hidden
    when = np.where(one_sided, 0, (now - before) / np.maximum(after - before, 1))[..., None].astype(np.float32)
    first = _at(shown, np.where(before >= 0, before, after))
    second = _at(shown, np.where(after < len(clip), after, before))
    return _filled(shown, hidden, (1 - when) * first + when * second)


def mean(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The mean of each pixel over the frames in which it is visible."""
    shown = _blank(clip, hidden)
    seen = (~hidden).sum(axis=0)[..., None]
    total = np.nan_to_num(shown).sum(axis=0)
    return _filled(shown, hidden, np.broadcast_to(np.where(seen, total / np.maximum(seen, 1), np.nan), shown.shape))


def flow(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The nearest visible frames on both sides, moved along their optical flow.

    Raises:
        ValueError: No frame is visible as a whole.
    """
    whole = whole_frames(hidden)
    if not whole:
        raise ValueError("optical flow needs frames that are visible as a whole; this mask hides a part of every frame")
    shown = _blank(clip, hidden)
    guess = shown.copy()
    for t in np.flatnonzero(hidden.any(axis=(1, 2))).tolist():
        guess[t] = _moved(shown, [w for w in whole if w < t], [w for w in whole if w > t], t)
    return _filled(shown, hidden, guess)


BASELINES: dict[str, Filler] = {"hold": hold, "fade": fade, "flow": flow, "mean": mean}


def applicable(hidden: np.ndarray) -> dict[str, Filler]:
    """The baselines that a mask allows: `flow` needs frames that are visible as a whole."""
    return {name: filler for name, filler in BASELINES.items() if name != "flow" or whole_frames(hidden)}


def whole_frames(hidden: np.ndarray) -> list[int]:
    """Frames of which nothing is hidden."""
    return np.flatnonzero(~hidden.any(axis=(1, 2))).tolist()


def model_filler(model: MaskedAutoencoder, device: torch.device) -> Filler:
    """A model as a filler: trained, untrained, or any module with such a `reconstruct` and `shape`.

    With norm_pix_loss a model predicts no brightness and contrast; `reconstruct` takes them from the hidden patches.
    """
    shape = model.shape

    def fill(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        tokens = hidden[::shape.t_patch_size, ::shape.patch_size, ::shape.patch_size].reshape(1, -1)
        mask = mask_from_hidden(torch.from_numpy(tokens)).to(device)
        filled: np.ndarray = model.reconstruct(torch.tensor(clip)[None].to(device), mask)[0].float().cpu().numpy()
        return filled

    return fill


def _moved(shown: np.ndarray, before: list[int], after: list[int], t: int) -> np.ndarray:
    if before and after:
        return between(shown[before[-1]], shown[after[0]], (t - before[-1]) / (after[0] - before[-1]))
    known = before if before else after[::-1]  # the nearest comes last
    if len(known) == 1:
        return np.asarray(shown[known[0]])
    return beyond(shown[known[-2]], shown[known[-1]], (t - known[-1]) / (known[-1] - known[-2]))


def _blank(clip: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The clip as float32 in 0..1 with NaN for what is hidden: a baseline that looked would show it."""
    return np.where(hidden[..., None], np.float32(np.nan), clip.astype(np.float32) / 255)


def _visible(clip: np.ndarray, hidden: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The blanked clip; of every pixel the last frame until now in which it is visible (-1: none) and the next (T: none)."""
    now = np.broadcast_to(np.arange(len(clip))[:, None, None], hidden.shape)
    before = np.maximum.accumulate(np.where(hidden, -1, now), axis=0)
    after = np.minimum.accumulate(np.where(hidden, len(clip), now)[::-1], axis=0)[::-1]
    return _blank(clip, hidden), before, after


def _at(shown: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Pixels of the given frames; NaN stays where a pixel is never visible."""
    return np.take_along_axis(shown, np.clip(frames, 0, len(shown) - 1)[..., None], axis=0)


def _filled(shown: np.ndarray, hidden: np.ndarray, guess: np.ndarray) -> np.ndarray:
    colour = np.nanmean(shown, axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    guess = np.where(np.isnan(guess), colour, guess)
    return np.where(hidden[..., None], guess, shown).clip(0, 1).astype(np.float32)
