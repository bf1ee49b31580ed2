"""The attentive probe: one learned query looks over the frozen tokens of a clip; what it finds goes to a linear head.

    tokens [B, N, D] -> norm -> keys, values  \
                              learned query ->  attention -> norm -> linear -> scores [B, C]

It is trained with a fixed budget and tested after the last step. One device is enough for a head. With probe.blocks the
tokens pass blocks of self-attention first (attentive_heads.py); with several rates these are trained at once and one of them
is chosen (attentive_grid.py).

Letters: B clips, V views of a clip, N tokens, D width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidmae.evaluate.attentive_heads import AttentiveBlocks, AttentiveHead
from vidmae.model.groups import param_groups
from vidmae.settings.finetune_config import ProbeConfig

Places = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Which clips, or which clips and the view of each."""


class Tokens(Protocol):
    """Token features by place: an array [clips, N, D] or [clips, V, N, D], or features.FeatureRows, which reads what is
    asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Ends in N, D."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Places) -> np.ndarray: ...


@dataclass(frozen=True)
class AttentiveProbe:
    """A trained head. Called with tokens [M, N, D] it gives probabilities [M, C].

    Attributes:
        head: The head, on the CPU while it travels between processes.
        absent: bool [C], classes without a training clip, which get probability 0.
        batch: Clips of a forward pass.
        device: Where it computes.
        steps: Of its training.
        chosen: Of several rates, the one that was taken and what it scored (tried 0: nothing could be held out); empty
            where there was one.
    """

    head: nn.Module
    absent: Tensor
    batch: int
    device: torch.device
    steps: int
    chosen: dict[str, Any] = field(default_factory=dict)

    def __call__(self, val_x: Tokens, views: int = 1) -> np.ndarray:
        """Probabilities, float64 [M, C]; of V views of a clip the mean."""
        return probabilities(self.head, self.absent, val_x, self.batch, self.device, views)

    def on(self, device: torch.device) -> AttentiveProbe:
        """The same on another device."""
        return AttentiveProbe(self.head.to(device), self.absent.to(device), self.batch, device, self.steps, self.chosen)


def fit_attentive(train_x: Tokens, train_y: np.ndarray, *, num_classes: int, probe: ProbeConfig, seed: int,
                  device: torch.device, say: Callable[[str], object] = print, views: int = 1) -> AttentiveProbe:
    """Train a head with probe.lr and probe.weight_decay. The same numbers every time on the same kind of device.

    Args:
        train_x: Tokens of the training clips.
        train_y: Class index of each, int.
        num_classes: C; classes without a training clip get probability 0.
        probe: Blocks, epochs, batch, learning rate and weight decay.
        seed: Of the start values and of the order.
        device: Where to train.
        say: Takes a line for the log.
        views: V; each step sees one view of a clip, drawn.
    Raises:
        ValueError: The loss is not finite, or the heads do not divide the width.
    """
    head = new_head(train_x.shape[-1], num_classes, probe, seed, device)
    absent = absent_classes(train_y, num_classes, device)
    steps, (mean,) = train_heads([head], [(probe.lr, probe.weight_decay)], absent, train_x, train_y, probe, seed, device,
                                 views)
    say(f"attentive probe: {steps} steps of {min(probe.batch, len(train_x))} clips at most, loss of the last epoch "
        f"{mean:.4f}")
    return AttentiveProbe(head.eval(), absent, probe.batch, device, steps)


def attentive(train_x: Tokens, train_y: np.ndarray, val_x: Tokens, *, num_classes: int, probe: ProbeConfig, seed: int,
              device: torch.device, say: Callable[[str], object] = print) -> tuple[np.ndarray, int]:
    """Probabilities of the validation clips, float64 [M, C], by a new head, and its steps; see `fit_attentive`."""
    fitted = fit_attentive(train_x, train_y, num_classes=num_classes, probe=probe, seed=seed, device=device, say=say)
    return fitted(val_x), fitted.steps


def new_head(dim: int, num_classes: int, probe: ProbeConfig, seed: int, device: torch.device) -> nn.Module:
    """A head that was not trained, the same for equal seeds; see `fit_attentive`."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        if probe.blocks:
            return AttentiveBlocks(dim, num_classes, blocks=probe.blocks, heads=probe.heads).to(device)
        return AttentiveHead(dim, num_classes).to(device)


def absent_classes(train_y: np.ndarray, num_classes: int, device: torch.device) -> Tensor:
    """bool [C], the classes that no training clip has."""
    present = torch.zeros(num_classes, dtype=torch.bool)
    present[torch.from_numpy(np.unique(train_y)).long()] = True
    return ~present.to(device)


def train_heads(heads: Sequence[nn.Module], rates: Sequence[tuple[float, float]], absent: Tensor, x: Tokens, y: np.ndarray,
                probe: ProbeConfig, seed: int, device: torch.device, views: int = 1) -> tuple[int, list[float]]:
    """Train heads at once: the tokens of a step are read once for all of them, and each learns what it would learn alone.

    Args:
        heads: Each is changed.
        rates: Learning rate and weight decay of each head.
        absent: bool [C], classes that cannot win.
        x: Tokens of the training clips.
        y: Class index of each, int.
        probe: Epochs and batch.
        seed: Of the order, and of the views.
        device: Where to train.
        views: V; each step sees one view of a clip, drawn.
    Returns:
        Steps, and of each head the mean loss of the last epoch; infinite where it was not finite in an epoch.
    Raises:
        ValueError: That is so of all heads.
    """
    optimizers = [torch.optim.AdamW(param_groups(head, decay), lr=lr, fused=True)
                  for head, (lr, decay) in zip(heads, rates, strict=True)]
    per_epoch = math.ceil(len(x) / min(probe.batch, len(x)))
    steps = probe.epochs * per_epoch
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps) for optimizer in optimizers]
    targets, order = torch.from_numpy(y).long(), np.random.default_rng(seed)
    means, learning = [math.inf] * len(heads), list(range(len(heads)))
    for epoch in range(probe.epochs):
        losses: list[list[Tensor]] = [[] for _ in heads]
        for part in np.array_split(order.permutation(len(x)), per_epoch):
            places = (part, order.integers(views, size=len(part))) if views > 1 else part
            tokens, wanted = torch.from_numpy(x[places]).to(device), targets[part].to(device)
            for number in learning:
                loss = F.cross_entropy(_scores(heads[number], absent, tokens), wanted)
                optimizers[number].zero_grad()
                loss.backward()
                optimizers[number].step()
                schedules[number].step()
                losses[number].append(loss.detach())
        now = {number: torch.stack(losses[number]).mean().item() for number in learning}
        learning = [number for number in learning if math.isfinite(now[number])]
        means = [now[number] if number in learning else math.inf for number in range(len(heads))]
        if not learning:
            flag = "probe.lrs" if probe.lrs else "probe.lr"
            raise ValueError(f"the loss of the attentive probe is {', '.join(map(str, now.values()))} in epoch {epoch + 1}; "
                             f"lower --set {flag} (now {', '.join(f'{lr:g}' for lr, _ in rates)})")
    return steps, means


@torch.no_grad()
def probabilities(head: nn.Module, absent: Tensor, x: Tokens, batch: int, device: torch.device, views: int = 1,
                  ) -> np.ndarray:
    """What a head says of clips, float64 [M, C]; of V views of a clip the mean."""
    parts = [np.arange(first, min(first + batch, len(x))) for first in range(0, len(x), batch)]

    def of(places: Places) -> np.ndarray:
        scores = _scores(head, absent, torch.from_numpy(x[places]).to(device))
        return np.asarray(scores.double().softmax(-1).cpu().numpy())

    if views == 1:
        return np.concatenate([of(part) for part in parts])
    return np.concatenate([np.mean([of((part, np.full(len(part), view))) for view in range(views)], axis=0)
                           for part in parts])


def _scores(head: nn.Module, absent: Tensor, tokens: Tensor) -> Tensor:
    """Scores of clips; classes that are absent from training cannot win."""
    scores: Tensor = head(tokens)
    return scores.masked_fill(absent, -torch.inf)
