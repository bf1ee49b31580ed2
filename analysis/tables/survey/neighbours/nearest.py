"""How well classes lie together in features that never saw their names: nearest clips by cosine, precision, silhouette.

Neighbours are not searched by scikit-learn: NearestNeighbors cannot leave out copies, takes 1.6 times as long (8,000 clips,
width 256), and of its cosines, 1 less a distance in float32, 3 % differ in the last of the six digits that are written.

Letters: N clips, D width, Q queries, K neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

AT = (1, 5, 10)
SILHOUETTE_CLIPS = 10_000  # its cost grows with the square
CHUNK = 512  # queries of one matrix product


class Precision(NamedTuple):
    """Among the `at` nearest other clips of each clip, how many have its class."""

    at: int
    value: float  # mean share over clips, 0 to 1
    chance: float  # the same for neighbours drawn at random
    ceiling: float  # the most that can be had: a class may have fewer than `at` other clips


def nearest(features: np.ndarray, content: np.ndarray, count: int, queries: np.ndarray | None = None,
            ) -> tuple[np.ndarray, np.ndarray]:
    """The clips that are most alike by cosine, without the clip itself and copies of it: clips of equal content.

    Args:
        features: Floating [N, D].
        content: uint64 [N].
        count: K, at most.
        queries: Rows to look for, int64 [Q]; None takes all.
    Returns:
        Rows int64 [Q, K], most alike first, -1 where there are fewer; and their cosines, float32 [Q, K], NaN there.
    """
    unit, rows, parts = unit_length(features), np.arange(len(features)) if queries is None else queries, []
    count = min(count, len(features) - 1)
    for some in np.split(rows, range(CHUNK, len(rows), CHUNK)):
        cosine = unit[some] @ unit.T
        cosine[content[some][:, None] == content] = -np.inf
        best = np.argpartition(-cosine, max(count - 1, 0), axis=1)[:, :count]
        values = np.take_along_axis(cosine, best, axis=1)
        order = np.lexsort((best, -values))
        parts.append((np.take_along_axis(best, order, axis=1), np.take_along_axis(values, order, axis=1)))
    places, alike = map(np.concatenate, zip(*parts, strict=True))
    return np.where(np.isneginf(alike), -1, places), np.where(np.isneginf(alike), np.nan, alike)


def unit_length(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; zeros stay."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny), dtype=np.float32)


def precisions(features: np.ndarray, content: np.ndarray, label: np.ndarray, at: Sequence[int] = AT) -> list[Precision]:
    """Precision of retrieval at several K, for features [N, D], content uint64 [N] and every clip's class, int [N].

    One that some clip has too few others for is left out.
    """
    clips = pd.DataFrame({"content": content, "label": label, "clip": 1})
    copies, of_class, both = (clips.groupby(keys)["clip"].transform("size").to_numpy()
                              for keys in ("content", "label", ["content", "label"]))
    others, alike = len(clips) - copies, of_class - both
    possible = [k for k in at if len(clips) and k <= others.min()]
    if not possible:
        return []
    same = label[nearest(features, content, max(possible))[0]] == label[:, None]
    return [Precision(k, float(same[:, :k].mean()), float((alike / others).mean()), float((np.minimum(alike, k) / k).mean()))
            for k in possible]


def silhouette(features: np.ndarray, label: np.ndarray, seed: int = 0) -> tuple[float, int] | None:
    """Mean silhouette by cosine distance: 1 classes lie apart, 0 they overlap, below 0 clips lie with another class.

    Of features [N, D] and every clip's class, int [N]; of more than 10,000 clips so many are drawn at random.

    Returns:
        The score, and of how many clips; None where not two classes are there, or none with two clips.
    """
    from sklearn.metrics import silhouette_score

    if len(label) > SILHOUETTE_CLIPS:
        drawn = np.sort(np.random.default_rng(seed).choice(len(label), SILHOUETTE_CLIPS, replace=False))
        features, label = features[drawn], label[drawn]
    if not 2 <= len(np.unique(label)) < len(label):
        return None
    return float(silhouette_score(unit_length(features), label, metric="cosine")), len(label)
