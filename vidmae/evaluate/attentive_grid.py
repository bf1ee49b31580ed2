"""Several learning rates and weight decays of an attentive probe at once, one of which is chosen without the test clips.

    labelled clips   |------- learned from -------|-- held out --|     all heads of the grid, one pass over the tokens
    labelled clips   |-------------- learned from ---------------|     one new head, with the rates that were best held out

Letters: V views of a clip, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vidmae.evaluate.attentive import (
    AttentiveProbe,
    Places,
    Tokens,
    absent_classes,
    fit_attentive,
    new_head,
    probabilities,
    train_heads,
)
from vidmae.settings.finetune_config import ProbeConfig


@dataclass(frozen=True)
class SomeClips:
    """Some of the clips of `Tokens`, by place."""

    of: Tokens
    places: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Ends in N, D."""
        return self.of.shape

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Places) -> np.ndarray:
        if isinstance(index, tuple):
            return self.of[self.places[index[0]], index[1]]
        return self.of[self.places[index]]


def rates_of(probe: ProbeConfig) -> list[tuple[float, float]]:
    """Learning rate and weight decay of every head of the grid; a single pair where none is asked for."""
    return list(itertools.product(probe.lrs or (probe.lr,), probe.weight_decays or (probe.weight_decay,)))


def fit_best(train_x: Tokens, train_y: np.ndarray, *, num_classes: int, probe: ProbeConfig, holdout: float, seed: int,
             device: torch.device, say: Callable[[str], object] = print, views: int = 1) -> AttentiveProbe:
    """Train a head with the rates that are best on held-out labelled clips; where there is one pair, with that; where
    nothing can be held out, with probe.lr and probe.weight_decay.

    Args:
        train_x: Tokens of the labelled clips.
        train_y: Class index of each, int.
        num_classes: C.
        probe: As in `fit_attentive`, with lrs and weight_decays.
        holdout: Share of each class's labelled clips that is held out, one at least (select.holdout).
        seed: Of the draw, the start values and the order.
        device: Where to train.
        say: Takes a line for the log.
        views: V.
    Raises:
        ValueError: No loss is finite.
    """
    rates = rates_of(probe)
    settings: dict[str, Any] = {"num_classes": num_classes, "seed": seed, "device": device, "views": views}
    held = held_out(train_y, holdout, seed)
    if len(rates) == 1 or held is None:
        if len(rates) > 1:
            say("a class has a single labelled clip, so no rates can be tried: those of probe.lr and probe.weight_decay are "
                f"taken, lr {probe.lr:g}, weight decay {probe.weight_decay:g}")
            fitted = fit_attentive(train_x, train_y, probe=replace(probe, lrs=(), weight_decays=()), say=say, **settings)
            return replace(fitted, chosen={"lr": probe.lr, "weight_decay": probe.weight_decay, "tried": 0, "held_out": 0})
        return fit_attentive(train_x, train_y, probe=_with(probe, rates[0]), say=say, **settings)
    heads = [new_head(train_x.shape[-1], num_classes, probe, seed, device) for _ in rates]
    learn, absent = np.flatnonzero(~held), absent_classes(train_y, num_classes, device)
    _, losses = train_heads(heads, rates, absent, SomeClips(train_x, learn), train_y[learn], probe, seed, device, views)
    kept, scores = SomeClips(train_x, np.flatnonzero(held)), list[tuple[float, float]]()
    for head, loss in zip(heads, losses, strict=True):
        if not np.isfinite(loss):
            scores.append((-1.0, -np.inf))
            continue
        prob = probabilities(head.eval(), absent, kept, probe.batch, device, views)
        right = prob[np.arange(len(kept)), train_y[held]]
        scores.append((float((prob.argmax(1) == train_y[held]).mean()), float(np.log(np.maximum(right, 1e-38)).mean())))
    del heads
    best = max(range(len(rates)), key=lambda number: scores[number])  # of equal ones the first
    lr, decay = rates[best]
    chosen = {"lr": lr, "weight_decay": decay, "tried": len(rates), "held_out": int(held.sum()),
              "held_out_top1_pct": 100 * scores[best][0]}
    say(f"of {len(rates)} pairs of rates, lr {lr:g} with weight decay {decay:g} is best on {held.sum()} held-out labelled "
        f"clips: top-1 {chosen['held_out_top1_pct']:.2f} %; it is trained anew on all {len(train_y)}")
    fitted = fit_attentive(train_x, train_y, probe=_with(probe, rates[best]), say=say, **settings)
    return replace(fitted, chosen=chosen)


def held_out(labels: np.ndarray, share: float, seed: int) -> np.ndarray | None:
    """Which clips are held out: of each class a share, rounded, one at least, drawn by the seed.

    Args:
        labels: Class index of each clip, int [N].
        share: Between 0 and 1.
        seed: Of the draw.
    Returns:
        bool [N]; None where a class has a single clip.
    """
    held, rng = np.zeros(len(labels), dtype=bool), np.random.default_rng(seed)
    for label in np.unique(labels):
        clips = rng.permutation(np.flatnonzero(labels == label))
        if len(clips) < 2:
            return None
        held[clips[:min(len(clips) - 1, max(1, round(share * len(clips))))]] = True
    return held


def _with(probe: ProbeConfig, rates: tuple[float, float]) -> ProbeConfig:
    return replace(probe, lr=rates[0], weight_decay=rates[1])
