"""Moments that look alike: perceptual hashes that differ in few bits.

A view is repeated within its recording where a moment REPEAT_S or more away looks alike, and across recordings where one of
another recording does. Nothing can be said of moments without structure (dark, or a bare wall), which all look alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.tables.survey.moments import Group

BITS = 6  # of 64: random pictures differ in 32 +- 4, so one pair in ten million is that near by chance
REPEAT_S = 10.0
FLAT = 8.0  # grey levels of contrast; less is no structure
MOST_MOMENTS = 20_000
_BLOCK = 512
_ONES = np.array([f"{i:b}".count("1") for i in range(2**16)], dtype=np.uint8)


@dataclass(frozen=True)
class Repeats:
    """Shares of the footage in percent; NaN where there is nothing to be said.

    Attributes:
        within_pct: Repeats a view of the same recording.
        across_pct: Repeats a view of another recording.
        flat_pct: Without structure.
        copies: Recordings whose content is that of another.
    """

    within_pct: float
    across_pct: float
    flat_pct: float
    copies: int


def repeats(group: Group, seed: int) -> Repeats:
    """How much of a group repeats; of more than MOST_MOMENTS moments so many are drawn."""
    copies = len(group.content) - len(np.unique(group.content))
    flat = group.moments["contrast"].to_numpy() < FLAT
    total = group.weight.sum()
    flat_pct = float(group.weight[flat].sum() / total * 100) if total else float("nan")
    shown = np.flatnonzero(~flat)
    if len(shown) > MOST_MOMENTS:
        shown = np.sort(np.random.default_rng(seed).choice(shown, MOST_MOMENTS, replace=False))
    hashes = np.array([int(text, 16) for text in group.moments["hash"].iloc[shown]], dtype=np.uint64)
    of, second, weight = group.of[shown], group.moments["second"].to_numpy()[shown], group.weight[shown]
    within, across = np.zeros(len(shown), dtype=bool), np.zeros(len(shown), dtype=bool)
    for start in range(0, len(shown), _BLOCK):
        mine = slice(start, start + _BLOCK)
        alike = distance(hashes[mine, None], hashes[None, :]) <= BITS
        same = of[mine, None] == of[None, :]
        within[mine] = (alike & same & (np.abs(second[mine, None] - second[None, :]) >= REPEAT_S)).any(axis=1)
        across[mine] = (alike & ~same).any(axis=1)
    if not len(shown):
        return Repeats(float("nan"), float("nan"), flat_pct, copies)
    within_pct, across_pct = (float(weight[found].sum() / weight.sum() * 100) for found in (within, across))
    return Repeats(within_pct, across_pct, flat_pct, copies)


def distance(hashes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In how many bits hashes differ, uint64 of shapes that fit each other."""
    different = hashes ^ others
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(different))
    return np.asarray(sum(_ONES[(different >> np.uint64(shift)) & np.uint64(0xFFFF)] for shift in (0, 16, 32, 48)))
