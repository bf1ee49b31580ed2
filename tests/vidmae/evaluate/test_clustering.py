"""Clusters against their definitions, and shown to be able to succeed and to fail: an oracle's features, and those that say nothing."""

from __future__ import annotations

import itertools
from collections import Counter
from math import comb, log

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from vidmae.evaluate.clustering import _matched, distances, named, purity, scores, table

CLASSES, PER_CLASS = 6, 20


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def labels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(CLASSES), PER_CLASS))


def by_definition(cluster: np.ndarray, label: np.ndarray) -> tuple[float, float, float]:
    """NMI, purity and the adjusted Rand index, counted."""
    n = len(label)
    both, first, second = Counter(zip(cluster.tolist(), label.tolist(), strict=True)), Counter(cluster.tolist()), Counter(label.tolist())
    entropy = [-sum(c / n * log(c / n) for c in counts.values()) for counts in (first, second)]
    mutual = sum(c / n * log(n * c / (first[a] * second[b])) for (a, b), c in both.items())
    pure = sum(max(c for (a, _), c in both.items() if a == of) for of in first) / n
    pairs, rows, columns = (sum(comb(c, 2) for c in counts.values()) for counts in (both, first, second))
    expected = rows * columns / comb(n, 2)
    return mutual / np.mean(entropy), pure, (pairs - expected) / ((rows + columns) / 2 - expected)


def test_scores_are_what_they_are_defined_as() -> None:
    rng, label = np.random.default_rng(1), labels()
    cluster = rng.integers(CLASSES, size=CLASSES * PER_CLASS)
    cluster[:70] = label[:70]  # agree in part
    found = scores(cluster, label)
    assert (found.nmi_pct, found.purity_pct, found.ari_pct) == pytest.approx([100 * v for v in by_definition(cluster, label)])
    assert purity(cluster, label) == pytest.approx(found.purity_pct / 100) and found.clusters == CLASSES
    shuffled = scores(cluster, np.random.default_rng(5).permutation(label))
    assert shuffled.nmi_pct == pytest.approx(found.nmi_chance_pct, abs=4) and found.nmi_chance_pct > 3, "chance is not 0"
    mixed = rng.permutation(label)
    best = max(sum(np.array(order)[cluster] == mixed) for order in itertools.permutations(range(CLASSES)))
    assert _matched(table(cluster, mixed)) == best
    few = scores(np.repeat(np.arange(10), 12), np.random.default_rng(0).permutation(np.repeat(np.arange(10), 12)))
    assert 20 < few.accuracy_chance_pct < 32, "ten classes of twelve clips: names that the same labels give, not 10 %"
    assert shuffled.purity_pct == pytest.approx(found.purity_chance_pct, abs=6) and abs(shuffled.ari_pct) < 4


def test_an_oracle_is_right_and_a_feature_that_says_nothing_is_at_chance() -> None:
    """Before any model is judged: what knows the class gets it, and the mean of the pixels, which does not, does not."""
    label, rng = labels(), np.random.default_rng(2)
    oracle = np.eye(CLASSES)[label] + 0.05 * rng.standard_normal((len(label), CLASSES))
    pixel_mean = np.concatenate([rng.uniform(60, 180, (len(label), 3)), np.full((len(label), 1), 120.0)], axis=1)
    found = {}
    for name, features in (("oracle", oracle), ("pixel mean", pixel_mean)):
        squared = distances(features.astype(np.float32), CLASSES, restarts=5, seed=0)
        said = named(squared, label, CLASSES)
        found[name] = scores(squared.argmin(axis=1), label), (said.argmax(1) == label).mean()
        assert np.allclose(said.sum(1), 1)
    right, accuracy = found["oracle"]
    assert (right.nmi_pct, right.purity_pct, right.ari_pct, accuracy) == pytest.approx((100, 100, 100, 1))
    wrong, accuracy = found["pixel mean"]
    assert wrong.nmi_pct == pytest.approx(wrong.nmi_chance_pct, abs=5) and abs(wrong.ari_pct) < 5
    assert wrong.purity_pct == pytest.approx(wrong.purity_chance_pct, abs=6) and accuracy < 0.35, "naming clusters by their own clips adds a little"


def test_clusters_are_the_tightest_of_several_starts_and_see_direction_alone() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(120, 3)).astype(np.float32)  # no clusters, so each start ends elsewhere
    alone = [distances(x, 9, restarts=1, seed=seed).min(axis=1).sum() for seed in range(4)]
    assert distances(x, 9, restarts=10, seed=0).min(axis=1).sum() < max(alone) > min(alone), "else the starts would not matter here"
    longer = distances(x * rng.uniform(1, 9, (len(x), 1)).astype(np.float32), 9, restarts=10, seed=0)
    assert np.allclose(longer, distances(x, 9, restarts=10, seed=0), atol=1e-4)
    assert np.array_equal(distances(x, 9, restarts=3, seed=7), distances(x, 9, restarts=3, seed=7))


def test_each_cluster_gets_the_class_that_makes_most_clips_right() -> None:
    rng = np.random.default_rng(4)
    label = rng.integers(4, size=60) * 2  # classes 0, 2, 4 and 6 of 8
    squared = rng.uniform(size=(60, 4))
    said, cluster = named(squared, label, 8), squared.argmin(axis=1)
    best = max(np.mean([2 * order[c] == true for c, true in zip(cluster, label, strict=True)]) for order in itertools.permutations(range(4)))
    assert (said.argmax(1) == label).mean() == pytest.approx(best)
    assert (said[:, 1::2] == 0).all() and [len(set(said.argmax(1)[cluster == c])) for c in range(4)] == [1] * 4


def test_what_cannot_be_clustered_is_refused() -> None:
    x = np.random.default_rng(5).normal(size=(5, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"makes 6 clusters, .* 5 different test clips"):
        distances(np.concatenate([x, x]), 6, restarts=1, seed=0)
    x[2, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 5 clips are NaN"):
        distances(x, 2, restarts=1, seed=0)
