"""The attentive probe: one learned query looks over the frozen tokens of a clip; what it finds goes to a linear head.

    tokens [B, N, D] -> norm -> keys, values  \
                              learned query ->  attention -> norm -> linear -> scores [B, C]

It is trained with a fixed budget and tested after the last step. One device is enough for a head.

Letters: B clips, N tokens, D width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidmae.model.blocks import NORM_EPS, linear
from vidmae.model.groups import param_groups
from vidmae.settings.finetune_config import ProbeConfig

HEAD_WIDTH = 64  # of an attention head, about


class Tokens(Protocol):
    """Token features by place: an array [clips, N, D], or features.FeatureRows, which reads what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Ends in N, D."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: np.ndarray) -> np.ndarray: ...


class AttentiveHead(nn.Module):
    """One multi-head cross-attention with a single query, and a linear layer.

    A single query needs no keys and values of all tokens: its product with the key weights is compared with the tokens
    themselves, and value weights are applied to what each head has averaged. The same function as
    `nn.MultiheadAttention`, with 1/64 of the multiplications for ViT-H.

    Source: Bardes et al. 2024 (arXiv 2404.08471), without the MLP of its block: few shots cannot fill it.
    """

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.heads = _heads(dim)
        self.query = nn.Parameter(nn.init.trunc_normal_(torch.empty(self.heads, dim // self.heads), std=0.02))
        self.norm_tokens = nn.LayerNorm(dim, eps=NORM_EPS)
        self.key, self.value, self.proj = nn.Linear(dim, dim, bias=False), linear(dim, dim), linear(dim, dim)
        nn.init.xavier_uniform_(self.key.weight)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.head = nn.Linear(dim, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores [B, C] of tokens [B, N, D]."""
        scores: Tensor = self.head(self.norm(self.look(self.norm_tokens(tokens))))
        return scores

    def look(self, x: Tensor) -> Tensor:
        """What the query finds in normed tokens [B, N, D]: [B, D]."""
        key, value = (layer.weight.unflatten(0, (self.heads, -1)) for layer in (self.key, self.value))
        wanted = torch.einsum("hd,hdD->hD", self.query, key) * self.query.shape[1] ** -0.5
        weights = (x @ wanted.T).softmax(1)
        found = torch.einsum("bhD,hdD->bhd", weights.transpose(1, 2) @ x, value).flatten(1)
        projected: Tensor = self.proj(found + self.value.bias)
        return projected


@dataclass(frozen=True)
class AttentiveProbe:
    """A trained head. Called with tokens [M, N, D] it gives probabilities [M, C].

    Attributes:
        head: The head, on the CPU while it travels between processes.
        absent: bool [C], classes without a training clip, which get probability 0.
        batch: Clips of a forward pass.
        device: Where it computes.
        steps: Of its training.
    """

    head: AttentiveHead
    absent: Tensor
    batch: int
    device: torch.device
    steps: int

    def __call__(self, val_x: Tokens) -> np.ndarray:
        """Probabilities, float64 [M, C]."""
        return _probabilities(self.head, self.absent, val_x, self.batch, self.device)

    def on(self, device: torch.device) -> AttentiveProbe:
        """The same on another device."""
        return AttentiveProbe(self.head.to(device), self.absent.to(device), self.batch, device, self.steps)


def fit_attentive(train_x: Tokens, train_y: np.ndarray, *, num_classes: int, probe: ProbeConfig, seed: int,
                  device: torch.device, say: Callable[[str], object] = print) -> AttentiveProbe:
    """Train a head. The same numbers every time on the same kind of device.

    Args:
        train_x: Tokens of the training clips.
        train_y: Class index of each, int.
        num_classes: C; classes without a training clip get probability 0.
        probe: Epochs, batch, learning rate and weight decay.
        seed: Of the start values and of the order.
        device: Where to train.
        say: Takes a line for the log.
    Raises:
        ValueError: The loss is not finite.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = AttentiveHead(train_x.shape[-1], num_classes).to(device)
    present = torch.zeros(num_classes, dtype=torch.bool)
    present[torch.from_numpy(np.unique(train_y)).long()] = True
    absent = ~present.to(device)
    steps = _train(head, absent, train_x, train_y, probe, seed, device, say)
    return AttentiveProbe(head.eval(), absent, probe.batch, device, steps)


def attentive(train_x: Tokens, train_y: np.ndarray, val_x: Tokens, *, num_classes: int, probe: ProbeConfig, seed: int,
              device: torch.device, say: Callable[[str], object] = print) -> tuple[np.ndarray, int]:
    """Probabilities of the validation clips, float64 [M, C], by a new head, and its steps; see `fit_attentive`."""
    fitted = fit_attentive(train_x, train_y, num_classes=num_classes, probe=probe, seed=seed, device=device, say=say)
    return fitted(val_x), fitted.steps


def _train(head: AttentiveHead, absent: Tensor, x: Tokens, y: np.ndarray, probe: ProbeConfig, seed: int,
           device: torch.device, say: Callable[[str], object]) -> int:
    optimizer = torch.optim.AdamW(param_groups(head, probe.weight_decay), lr=probe.lr, fused=True)
    batch = min(probe.batch, len(x))
    per_epoch = math.ceil(len(x) / batch)
    steps = probe.epochs * per_epoch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    targets, order = torch.from_numpy(y).long(), np.random.default_rng(seed)
    for epoch in range(probe.epochs):
        losses = []
        for part in np.array_split(order.permutation(len(x)), per_epoch):
            loss = F.cross_entropy(_scores(head, absent, x, part, device), targets[part].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise ValueError(f"the loss of the attentive probe is {mean} in epoch {epoch + 1}; lower --set probe.lr "
                             f"(now {probe.lr:g})")
    say(f"attentive probe: {steps} steps of {batch} clips at most, loss of the last epoch {mean:.4f}")
    return steps


@torch.no_grad()
def _probabilities(head: AttentiveHead, absent: Tensor, x: Tokens, batch: int, device: torch.device) -> np.ndarray:
    parts = [np.arange(first, min(first + batch, len(x))) for first in range(0, len(x), batch)]
    return np.concatenate([_scores(head, absent, x, part, device).double().softmax(-1).cpu().numpy() for part in parts])


def _scores(head: AttentiveHead, absent: Tensor, x: Tokens, places: np.ndarray, device: torch.device) -> Tensor:
    """Scores of the clips at these places; classes that are absent from training cannot win."""
    scores: Tensor = head(torch.from_numpy(x[places]).to(device))
    return scores.masked_fill(absent, -torch.inf)


def _heads(dim: int) -> int:
    """Attention heads of about HEAD_WIDTH numbers each."""
    return next(n for n in range(max(1, dim // HEAD_WIDTH), dim + 1) if dim % n == 0)
