"""Pictures of features: PCA and t-SNE, clips coloured by class.

Seven colours of Okabe and Ito times three markers tell twenty classes apart, also for the colour-blind. Nobody would tell
more of them apart: the smaller classes are grey.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.tables.figure_files import PALETTE, write_figure
from analysis.tables.survey.neighbours.nearest import unit_length

STYLES = [(colour, marker) for marker in ("o", "^", "s") for colour in PALETTE]
MOST_CLASSES = 20
FEWEST_CLIPS = 5  # below, neither picture says anything
WIDTH = 50  # t-SNE starts from so many principal components, as its authors do
PERPLEXITY = 30.0
LONGEST_NAME = 40


def project(features: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two flat views of features [N, D], N at least FEWEST_CLIPS, that are brought to length 1 before.

    Returns:
        PCA [N, 2], its two shares of variance [2], t-SNE [N, 2].
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = unit_length(features)
    pca = PCA(n_components=min(WIDTH, *unit.shape), svd_solver="full" if len(unit) <= WIDTH else "auto", random_state=seed)
    flat = pca.fit_transform(unit)
    perplexity = min(PERPLEXITY, (len(unit) - 1) / 3)
    embedded = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    return flat[:, :2], pca.explained_variance_ratio_[:2], embedded


def coloured(label: np.ndarray) -> list[int]:
    """The classes that get a colour: the largest ones, in the order of their numbers."""
    clips = pd.Series(label[label >= 0]).groupby(label[label >= 0]).size()
    return sorted(clips.nlargest(MOST_CLASSES).index.tolist())


def draw(features: np.ndarray, label: np.ndarray, names: Mapping[int, str], title: str, stem: Path, seed: int = 0,
         ) -> list[Path]:
    """Draw both views of features [N, D] side by side, as STEM.png and STEM.svg, in a folder that exists; the files.

    `label` has class numbers, int [N], -1 where a clip has none; `names` are those of the classes.
    """
    pca, shares, tsne = project(features, seed)

    def fill(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for panel, points, name in ((left, pca, "PCA"), (right, tsne, "t-SNE")):
            _scatter(panel, points, label, names)
            panel.set_title(name, loc="left")
            panel.set(xticks=[], yticks=[])
        left.set(xlabel=f"component 1, {100 * shares[0]:.0f} % of the variance",
                 ylabel=f"component 2, {100 * shares[1]:.0f} %")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", markerscale=1.5)
        figure.suptitle(title)

    return write_figure(stem, (9, 4.2), fill)


def _scatter(panel: Any, points: np.ndarray, label: np.ndarray, names: Mapping[int, str]) -> None:
    classes, size = coloured(label), float(np.clip(4000 / len(points), 4, 30))
    rest = ~np.isin(label, classes)
    if rest.any():
        others = len(np.unique(label[rest & (label >= 0)]))
        words = [f"{others} other classes"] * bool(others) + ["no label"] * bool((label < 0).any())
        panel.scatter(*points[rest].T, s=size / 2, c="0.75", marker=".", linewidths=0, label=", ".join(words))
    for number, (colour, marker) in zip(classes, STYLES, strict=False):
        name = names.get(number, str(number))
        panel.scatter(*points[label == number].T, s=size, c=colour, marker=marker, alpha=0.8, linewidths=0,
                      label=name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}…")
