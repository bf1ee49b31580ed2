"""Is the impossible video of a pair the more surprising one? Shares of pairs with intervals. Numpy and scipy.

The primary number, fixed before any model was looked at: the loss that the model was trained with, its mean over the windows
of a video, and the mean of that over the context lengths. Videos of a pair are alike in most windows. These windows add the
same to both means, so that only the others decide; their maximum may lie where both videos are the same, which is a tie. And
for a mean it can be proved that whatever looks at single frames is right in exactly half of the generated pairs. The code of
Garrido et al. 2025 (arXiv 2502.11831) has both, as relative accuracy (avg) and (max), and takes the smallest over context
lengths where it joins these. The maximum and each context length by itself stand in the tables, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata, t

from vidmae.insight.paired import FEWEST, LEVEL

MEAN, MAX = "mean", "max"
REDUCTIONS: dict[str, Callable[[np.ndarray], float]] = {MEAN: np.mean, MAX: np.max}
EVERY_CONTEXT = "all"
"""As a context: the mean over the context lengths."""
Z = float(norm.ppf((1 + LEVEL) / 2))
PRIMARY = (EVERY_CONTEXT, MEAN)
"""Context and reduction of the primary number."""


@dataclass(frozen=True)
class Share:
    """A share of pairs.

    Attributes:
        pct: 0 to 100; a tie counts as half.
        low: Lower end of the 95 % interval in percent; NaN where pairs share scenes and there are fewer than FEWEST scenes.
        high: Upper end.
        pairs: Pairs.
        scenes: Independent scenes.
    """

    pct: float
    low: float
    high: float
    pairs: int
    scenes: int


def reduced(windows: Mapping[int, np.ndarray], count: int) -> dict[tuple[str, str], float]:
    """One video's surprise under each context and reduction.

    Args:
        windows: Of each context length the surprise of the windows, in their order.
        count: Windows that count: as many as both videos of the pair have.
    """
    found = {(str(context), name): float(reduce(values[:count])) for context, values in windows.items()
             for name, reduce in REDUCTIONS.items()}
    return found | {(EVERY_CONTEXT, name): float(np.mean([found[str(context), name] for context in windows]))
                    for name in REDUCTIONS}


def is_right(possible: float, impossible: float) -> float:
    """1 where the impossible video surprises more, 0.5 where both do alike, else 0."""
    return 0.5 if possible == impossible else float(impossible > possible)


def share_of(right: Sequence[float], scenes: Sequence[str]) -> Share:
    """Share of right pairs, with the interval of Wilson (1927).

    Pairs of one scene are not independent. So the interval is that of fewer pairs: as many independent ones as would spread
    as the scenes do (design effect, at least 1), and fewer still by the square of the normal quantile over that of Student's
    t, since the spread of a few scenes is not known well. Where all pairs are right, or none is, nothing is seen of the
    spread, and the scenes are counted.

    Args:
        right: See `is_right`.
        scenes: Which scene each pair is from.
    Raises:
        ValueError: There is no pair.
    Source: Korn and Graubard 1998 (Survey Methodology 24) for the number of pairs, Dean and Pagano 2015 for it with Wilson's
        interval.
    """
    if not len(right):
        raise ValueError("there is no pair")
    values, (names, which) = np.asarray(right, dtype=np.float64), np.unique(np.asarray(scenes), return_inverse=True)
    pairs, groups, p = len(values), len(names), float(values.mean())
    effective = float(pairs)
    if groups < pairs:
        if groups < FEWEST:
            return Share(100 * p, float("nan"), float("nan"), pairs, groups)
        effective = _independent(values - p, which, p)
    low, high = _wilson(p, effective)
    return Share(100 * p, 100 * low, 100 * high, pairs, groups)


def _independent(off: np.ndarray, which: np.ndarray, p: float) -> float:
    """As many independent pairs as would spread as these do."""
    pairs, groups = len(off), int(which.max()) + 1
    if p in (0.0, 1.0):
        return float(groups)
    spread = groups / (groups - 1) * float(np.square(np.bincount(which, weights=off)).sum()) / pairs**2
    effect = max(1.0, spread / (p * (1 - p) / pairs))
    return float(pairs / effect * (Z / t.ppf((1 + LEVEL) / 2, groups - 1)) ** 2)


def _wilson(p: float, count: float) -> tuple[float, float]:
    z2 = Z**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = np.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def auc(possible: np.ndarray, impossible: np.ndarray) -> float:
    """The chance that any impossible video surprises more than any possible one, ties counting as half, in 0 to 1.

    Other than a pair's, this comparison is across scenes, so that a busy scene outweighs an impossible one.
    """
    ranks = rankdata(np.concatenate([impossible, possible]))[:len(impossible)]
    return float((ranks.sum() - len(impossible) * (len(impossible) + 1) / 2) / (len(impossible) * len(possible)))
