"""Representational similarity of what jobs/embed.py wrote: which layers of which models, the table, and the heat map.

Letters: N clips, S representations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.tables.figure_files import write_figure
from analysis.tables.sheet import Sheet
from analysis.tables.survey.similarity import FEWEST_RECORDINGS, Similarity
from vidmae.insight.embedding_files import FEATURES, Embeddings

MEASURES = {"cka": "linear CKA, debiased", "rsa": "RSA, Spearman"}
MOST_WORDS = 28  # letters of a name on an axis
OF_MEASURES = ("cka: linear, without bias; 1 equal up to rotation and scale, about 0 independent. rsa: Spearman's "
               "correlation of the dissimilarities (1 - Pearson's r) of all pairs of clips.")
OF_ENDS = ("lower, upper: 95 % bootstrap over clips. A clip that was drawn twice is no pair with itself: those zero "
           "dissimilarities, which would make all representations alike, are left out.")
OF_WINDOWS = ("lower, upper: 95 % interval over {recordings:,} recordings, whose windows look alike: each draw is half of "
              "them, without replacement; -- of fewer than {fewest}. The numbers are over all windows, so pairs of windows "
              "of one recording count, too.")


@dataclass(frozen=True)
class Representation:
    """Features of clips by one layer of one model.

    Attributes:
        name: `s-ssv2 mean` or `s-ssv2 mean 8`, where 8 is the layer.
        features: float32 [N, D].
    """

    name: str
    features: np.ndarray


def representations(folders: Mapping[str, Embeddings], layers: Mapping[str, Sequence[int]], kinds: Sequence[str] = FEATURES,
                    ) -> list[Representation]:
    """All layers of all models, over the clips that all folders have, in the order of the first.

    Args:
        folders: Name of a folder to its embeddings.
        layers: The same to the numbers of its layers; empty where it has the last block alone.
        kinds: cls, mean or both.
    Raises:
        ValueError: The folders have no clip in common.
    """
    keys, common = _common(folders)
    found = []
    for name, embeddings in folders.items():
        rows = np.array([keys[name][key] for key in common])
        for kind in kinds:
            if not layers[name]:
                found.append(Representation(f"{name} {kind}", getattr(embeddings, kind)[rows]))
            for place, layer in enumerate(layers[name]):
                of_layers = getattr(embeddings, f"layer_{kind}")
                assert of_layers is not None
                found.append(Representation(f"{name} {kind} {layer}", of_layers[rows, place]))
    return found


def recordings(folders: Mapping[str, Embeddings]) -> np.ndarray | None:
    """Which recording each clip of `representations` is a window of, int [N]; None where no windows slide."""
    if all(found.start_s is None for found in folders.values()):
        return None
    return np.unique([content for content, _ in _common(folders)[1]], return_inverse=True)[1]


def check_alike(records: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError where the windows of some folders are longer than those of others, or whole clips.

    Args:
        records: Name of a folder to its result.json.
    """
    lengths = {name: float(record.get("window_s", 0)) for name, record in records.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {f'{length:g} s' if length else 'none'}" for name, length in lengths.items())
        raise ValueError(f"the windows of the folders differ in length: {said}; allowed: one length, or none, in all of "
                         "them (jobs/embed.py --window-s)")


def _common(folders: Mapping[str, Embeddings]) -> tuple[dict[str, dict[tuple[int, float], int]], list[tuple[int, float]]]:
    """The clips of each folder, see `_keys`, and those that all have, in the order of the first."""
    keys = {name: _keys(found) for name, found in folders.items()}
    first, *others = keys.values()
    common = [key for key in dict.fromkeys(first) if all(key in own for own in others)]
    if not common:
        raise ValueError(f"the folders {', '.join(folders)} have no clip in common, by content; write features of the same "
                         "data set (jobs/embed.py --data)")
    return keys, common


def _keys(found: Embeddings) -> dict[tuple[int, float], int]:
    """Row of every clip; windows of one recording are told apart by their start, and a whole clip is none of them."""
    starts = np.full(len(found), -1.0) if found.start_s is None else found.start_s
    keys: dict[tuple[int, float], int] = {}
    for row, key in enumerate(zip(found.content.tolist(), starts.tolist(), strict=True)):
        keys.setdefault(key, row)
    return keys


def similarity_sheet(names: Sequence[str], found: Mapping[tuple[int, int], Mapping[str, Similarity]], clips: int, of: int,
                     recordings: int | None = None) -> Sheet:
    """The table: a row per pair of representations and measure.

    Args:
        names: Of the representations.
        found: See `similarity.similarities`.
        clips: N, those that were compared.
        of: Those that all folders have.
        recordings: That the N are windows of; None where no windows slide.
    """
    rows = [{"a": names[a], "b": names[b], "measure": measure, **each[measure]._asdict(), "clips": clips}
            for (a, b), each in found.items() for measure in MEASURES]
    records = pd.DataFrame(rows, columns=["a", "b", "measure", "value", "lower", "upper", "clips"])
    shown = records[["a", "b", "measure"]].assign(
        value=records["value"].map("{:.3f}".format, na_action="ignore").astype(object).fillna("--"),
        interval=[f"[{low:.3f}, {high:.3f}]" if np.isfinite(low) else "--" for low, high in
                  records[["lower", "upper"]].to_numpy(dtype=float)])
    of_ends = (OF_ENDS if recordings is None else
               OF_WINDOWS.format(recordings=recordings, fewest=FEWEST_RECORDINGS))
    drawn = [f"{clips:,} of {of:,} common clips were drawn at random (--clips)"] if clips < of else []
    return Sheet("similarity", f"Representational similarity, {clips:,} clips", shown, 3, records,
                 [OF_MEASURES, of_ends, *drawn])


def draw_similarity(names: Sequence[str], found: Mapping[tuple[int, int], Mapping[str, Similarity]], stem: Path,
                    ) -> list[Path]:
    """Heat maps of both measures side by side, as STEM.png and STEM.svg; the files."""
    short = [name if len(name) <= MOST_WORDS else f"…{name[1 - MOST_WORDS:]}" for name in names]
    size = max(3.0, 0.42 * len(names) + 1.6)

    def fill(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        for panel, (measure, title) in zip(panels, MEASURES.items(), strict=True):
            grid = np.eye(len(names))
            for (a, b), each in found.items():
                grid[a, b] = grid[b, a] = each[measure].value
            image = _show(panel, grid, short, title)
        figure.colorbar(image, ax=list(panels), shrink=0.7)

    return write_figure(stem, (2 * size + 0.8, size), fill)


def _show(panel: Any, grid: np.ndarray, names: Sequence[str], title: str) -> Any:
    image = panel.imshow(grid, vmin=0, vmax=1, cmap="viridis")  # below 0 is as 0: nothing in common
    panel.set_title(title, loc="left")
    panel.set_xticks(range(len(names)), names, rotation=90)
    panel.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(grid):
        if np.isfinite(value) and len(names) <= 16:
            panel.text(column, row, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=5,
                       color="white" if value < 0.6 else "black")
    return image
