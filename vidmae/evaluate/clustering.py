"""Do frozen features fall into the classes by themselves? k-means on the test clips, which sees no label.

    features [M, D] -> unit length -> k-means of K clusters, the tightest of several starts -> a cluster for each clip
    labels come after that: they score the clusters, and give each cluster the name of a class (one to one)

Letters: M clips, D width, K clusters, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from vidmae.evaluate.probes import checked, unit

SHUFFLES = 20  # of the labels, for what chance gives


@dataclass(frozen=True)
class Scores:
    """How well clusters agree with classes; see `scores`.

    Attributes:
        clusters: K.
        nmi_pct: Normalised mutual information, in % of the mean of both entropies.
        purity_pct: Clips that are of the most frequent class of their cluster.
        ari_pct: Rand index, adjusted for chance: 0 is chance, 100 the classes themselves; it may be below 0.
        nmi_chance_pct, purity_chance_pct: The same of the same clusters with shuffled labels: neither is 0 by chance, and
            both grow with the number of clusters.
        accuracy_chance_pct: Clips that are right once each cluster is named after a class (`named`), with shuffled labels:
            more than 1/C, since the labels of the same clips name the clusters.
    """

    clusters: int
    nmi_pct: float
    purity_pct: float
    ari_pct: float
    nmi_chance_pct: float
    purity_chance_pct: float
    accuracy_chance_pct: float

    def record(self) -> dict[str, float]:
        """As result.json has it."""
        return asdict(self)


def distances(features: np.ndarray, clusters: int, *, restarts: int, seed: int) -> np.ndarray:
    """Squared distances of clips to the centres of clusters, which k-means finds on the unit sphere (as knn compares them).

    Args:
        features: Floating [M, D].
        clusters: K.
        restarts: Starts (k-means++), of which the one with the least sum of squared distances counts.
        seed: Of the starts.
    Returns:
        float64 [M, K]; the cluster of a clip is the nearest.
    Raises:
        ValueError: Features are not finite, or there are fewer different clips than clusters.
    Source: Lloyd 1982; Arthur & Vassilvitskii 2007.
    """
    from sklearn.cluster import KMeans

    x = unit(checked(features))
    if (different := len(np.unique(x, axis=0))) < clusters:
        raise ValueError(f"k-means makes {clusters} clusters, one for each class, and there are {different} different test "
                         "clips; take a larger validation set (--data)")
    found = KMeans(clusters, n_init=restarts, random_state=seed).fit(x)
    return np.asarray(found.transform(x), dtype=np.float64) ** 2


def scores(cluster: np.ndarray, label: np.ndarray, *, seed: int = 0) -> Scores:
    """How well clusters agree with classes.

    Args:
        cluster: Of each clip, int [M].
        label: Class index of each, int [M].
        seed: Of the shuffles.
    Source: Strehl & Ghosh 2002 (NMI), Hubert & Arabie 1985 (adjusted Rand index).
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(label) for _ in range(SHUFFLES)]
    return Scores(len(np.unique(cluster)), 100 * float(normalized_mutual_info_score(label, cluster)),
                  100 * purity(cluster, label), 100 * float(adjusted_rand_score(label, cluster)),
                  100 * float(np.mean([normalized_mutual_info_score(each, cluster) for each in shuffled])),
                  100 * float(np.mean([purity(cluster, each) for each in shuffled])),
                  100 * float(np.mean([_matched(table(cluster, each)) / len(label) for each in shuffled])))


def purity(cluster: np.ndarray, label: np.ndarray) -> float:
    """Share of the clips that are of the most frequent class of their cluster, 0 to 1; of clusters and labels int [M]."""
    return float(table(cluster, label).max(axis=1).sum() / len(label))


def table(cluster: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Clips by cluster (rows, 0 to the largest) and class (columns), int64."""
    counts = np.zeros((int(cluster.max()) + 1, int(label.max()) + 1), dtype=np.int64)
    np.add.at(counts, (cluster, label), 1)
    return counts


def _matched(counts: np.ndarray) -> int:
    """The most clips that can be right where each cluster (row) stands for one class (column)."""
    from scipy.optimize import linear_sum_assignment

    return int(counts[linear_sum_assignment(counts, maximize=True)].sum())


def named(squared: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """What clusters say of clips once each stands for a class: float64 [M, C].

    Each cluster gets one class so that most clips are right; K is the number of classes that have clips, so each of these
    has one cluster. Top-1 of these is the clustering accuracy, which the labels of the same clips have helped to name.

    Args:
        squared: Squared distances to the centres [M, K].
        label: Class index of each clip, int [M].
        num_classes: C; classes without a clip get 0.
    Source: Kuhn 1955, as scipy has it.
    """
    from scipy.optimize import linear_sum_assignment

    counts = np.zeros((squared.shape[1], num_classes), dtype=np.int64)
    np.add.at(counts, (squared.argmin(axis=1), label), 1)
    present = np.unique(label)
    rows, columns = linear_sum_assignment(counts[:, present], maximize=True)
    spread = max(float(squared.min(axis=1).mean()), float(np.finfo(np.float64).tiny))
    said = np.exp(-(squared - squared.min(axis=1, keepdims=True)) / (2 * spread))
    out = np.zeros((len(label), num_classes))
    out[:, present[columns]] = (said / said.sum(axis=1, keepdims=True))[:, rows]
    return out
