"""How alike representations of the same clips are: linear CKA without bias, and RSA, with bootstrap intervals over clips.

    features [N, D] -> Gram matrix of their products           -> CKA: do two of them co-vary (1), or not (0)
    features [N, D] -> dissimilarities, 1 - Pearson's r        -> RSA: Spearman's correlation of those of all pairs of clips

Both are sums over pairs (CKA: also over triples and quadruples) of *different* clips. A bootstrap sample holds some clips
several times, and a clip beside its copy is no pair: its dissimilarity is 0 in every representation, which would make all of
them alike. So a resample is a weight for each clip, how often it was drawn, and pairs of a clip with itself stay out.

Windows of one recording look alike, so they are not drawn one by one. There, a resample is half of the recordings, drawn
without replacement, with all their windows: it holds no copies, and such halves spread about as much as whole draws do.

Letters: N clips, D width, S representations, R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

FEWEST = 4
"""Clips that unbiased CKA takes: it has terms of four different clips."""
FEWEST_RECORDINGS = 6
"""Recordings of which halves are drawn; of fewer there are too few halves for an interval."""
RESAMPLES = 200
LEVEL = 0.95


class Similarity(NamedTuple):
    """Of two representations: the number, and the ends of its 95 % interval over clips, or over recordings."""

    value: float
    lower: float
    upper: float


def gram(features: np.ndarray) -> np.ndarray:
    """Products of all pairs of clips, float64 [N, N], of features [N, D] that are centred and of unit mean square before.

    Centring changes no estimate (it is of centred features anyway), and both keep numbers small.
    """
    x = features.astype(np.float64)
    x = x - x.mean(axis=0)
    x /= max(float(np.sqrt((x**2).sum(axis=1).mean())), float(np.finfo(np.float64).tiny))
    return np.asarray(x @ x.T)


def dissimilarity(features: np.ndarray) -> np.ndarray:
    """1 - Pearson's r of the features of all pairs of clips, float64 [N, N], of features [N, D].

    Source: Kriegeskorte et al. 2008, Representational similarity analysis.
    """
    x = features.astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(1 - x @ x.T)


class Grams:
    """Products of all pairs of clips, of several representations.

    Args:
        features: S of them, floating [N, D] each.
    """

    def __init__(self, features: Sequence[np.ndarray]) -> None:
        self._full = np.stack([gram(each) for each in features])
        clips = self._full.shape[1]
        self._full[:, np.arange(clips), np.arange(clips)] = 0  # a clip and itself are no pair
        self._first, self._second = np.triu_indices(clips, 1)
        self._pairs = self._full[:, self._first, self._second]
        self._ones = np.ones((1, len(self._first)))

    def hsic(self, weight: np.ndarray) -> np.ndarray:
        """The Hilbert-Schmidt independence criterion of each two of them, without bias, [S, S].

        Means over pairs, triples and quadruples of different clips: E[K_ij M_ij] + E[K_ij M_qr] - 2 E[K_ij M_iq].

        Args:
            weight: float64 [N], how often each clip was drawn; ones for the clips as they are. FEWEST of them are not 0.
        Source: Song et al. 2012, Feature selection via dependence maximization (eq. 5), here with weights.
        """
        pairs, triples, quadruples = self._sums(self._pairs, self._full @ weight, weight)
        of_one = np.full((1, len(weight)), weight.sum()) - weight
        all_pairs, all_triples, all_quadruples = self._sums(self._ones, of_one, weight)
        return np.asarray(pairs / all_pairs + quadruples / all_quadruples - 2 * triples / all_triples)

    def cka(self, weight: np.ndarray) -> np.ndarray:
        """Linear CKA of each two of them, debiased, [S, S].

        1 for equal representations up to rotation and scale, about 0 for independent ones (and as often below 0 as above),
        NaN where one has no variance between clips.

        Source: Kornblith et al. 2019 (arXiv 1905.00414), with the estimator of Nguyen et al. 2021 (arXiv 2010.15327).
        """
        found = self.hsic(weight)
        own = np.diag(found)
        norm = np.sqrt(np.where(own > 0, own, np.nan))
        return np.asarray(found / norm[:, None] / norm)

    def _sums(self, pairs: np.ndarray, rows: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weighted sums of K_ij M_ij, K_ij M_iq and K_ij M_qr over different clips, [S, S] each.

        Args:
            pairs: K_ij of all i < j, [S, P].
            rows: Sum over j of w_j K_ij, [S, N].
            w: [N].
        """
        i, j = w[self._first], w[self._second]
        both = (pairs * (2 * i * j)) @ pairs.T
        triples = (rows * w) @ rows.T - (pairs * (i * j * (i + j))) @ pairs.T  # without q = j
        total = rows @ w
        # of all quadruples without those in which one clip is in both pairs, in one of four ways; twice in two of them
        quadruples = np.outer(total, total) - 4 * (rows * w**2) @ rows.T + 2 * (pairs * (2 * i**2 * j**2)) @ pairs.T
        return both, triples, quadruples


class Ranked:
    """The dissimilarities of all pairs of clips in order, so that those of a resample need not be sorted again.

    Args:
        dissimilarities: [N, N].
    """

    def __init__(self, dissimilarities: np.ndarray) -> None:
        values = dissimilarities[np.triu_indices(len(dissimilarities), 1)]
        _, self._group = np.unique(values, return_inverse=True)

    def ranks(self, pair_weight: np.ndarray) -> np.ndarray:
        """Rank of every pair among pairs that come so often: of equal ones the middle."""
        of_group = np.bincount(self._group, weights=pair_weight)
        return np.asarray((np.cumsum(of_group) - of_group / 2)[self._group])


def similarities(features: Sequence[np.ndarray], *, recording: np.ndarray | None = None, resamples: int = RESAMPLES,
                 seed: int = 0) -> dict[tuple[int, int], dict[str, Similarity]]:
    """CKA and RSA of every pair of representations of the same clips.

    Args:
        features: S of them, floating [N, D] each; D may differ.
        recording: Of windows, which recording each is of, int [N]; None for clips, of which each stands for itself.
        resamples: R, draws of N clips with replacement, or of half of the recordings; those of fewer than FEWEST different
            clips are left out.
        seed: Of the draws.
    Returns:
        Pair (a, b), a < b, to `cka` and `rsa`; of fewer than FEWEST_RECORDINGS recordings without an interval (NaN).
    Raises:
        ValueError: There are too few clips.
    """
    clips = len(features[0])
    if clips < FEWEST:
        raise ValueError(f"{clips} clips are too few to compare representations; it takes {FEWEST}")
    grams = Grams(features)
    ranked = [Ranked(dissimilarity(each)) for each in features]
    rng = np.random.default_rng(seed)
    if recording is None:
        drawn = [np.bincount(rng.integers(clips, size=clips), minlength=clips).astype(np.float64) for _ in range(resamples)]
    else:
        drawn = list(_halves(recording, resamples, rng))
    weights = [np.ones(clips), *(each for each in drawn if (each > 0).sum() >= FEWEST)]
    count = len(features)
    ckas, rsas = (np.empty((len(weights), count, count)) for _ in range(2))
    first, second = np.triu_indices(clips, 1)
    for number, weight in enumerate(weights):
        pairs = weight[first] * weight[second]
        ckas[number] = grams.cka(weight)
        rsas[number] = pearson(np.stack([each.ranks(pairs) for each in ranked]), pairs)
    return {(a, b): {"cka": _with_ends(ckas[:, a, b]), "rsa": _with_ends(rsas[:, a, b])}
            for a in range(count) for b in range(a + 1, count)}


def _halves(recording: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Weights of windows, 1 in half of the recordings and 0 in the others: the spread of a mean over half of them, drawn
    without replacement, is that of a mean over all.

    Source: Shao & Wu 1989, A general theory for jackknife variance estimation (delete-d, d half of all).
    """
    recordings = np.unique(recording)
    for _ in range(resamples if len(recordings) >= FEWEST_RECORDINGS else 0):
        yield np.isin(recording, rng.permutation(recordings)[:len(recordings) // 2]).astype(np.float64)


def pearson(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Pearson's correlations of the rows of x, floating [S, P], each of the P numbers so often as weight [P] says: [S, S].

    NaN where a row does not vary. Of ranks this is Spearman's correlation.
    """
    x = x - (x @ weight / weight.sum())[:, None]
    products = (x * weight) @ x.T
    norm = np.sqrt(np.where(np.diag(products) > 0, np.diag(products), np.nan))
    return np.asarray(products / norm[:, None] / norm)


def _with_ends(values: np.ndarray) -> Similarity:
    """The first number, and the middle 95 % of the others that are defined."""
    draws = values[1:][np.isfinite(values[1:])]
    if not len(draws):
        return Similarity(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Similarity(float(values[0]), float(low), float(high))
