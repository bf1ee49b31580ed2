"""A confusion matrix as a picture: of the clips of each class, the share that was taken for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.tables.figure_files import write_figure

MOST_NAMED = 40  # classes whose names can be read
MOST_NUMBERED = 15  # classes whose cells have their number
LONGEST_NAME = 30


def draw_confusion(matrix: pd.DataFrame, stem: Path) -> list[Path]:
    """Draw clips by true class (rows) and by the class that was said (columns), in the order of the frame.

    Args:
        matrix: Counts; rows and columns are named by the classes.
        stem: The files without their suffix, in a folder that exists.
    Returns:
        STEM.png and STEM.svg.
    """
    clips = matrix.to_numpy(dtype=float)
    share_pct = 100 * clips / np.maximum(clips.sum(axis=1, keepdims=True), 1)
    names = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME - 1]}…" for name in map(str, matrix.index)]
    side_in = float(np.clip(2.2 + 0.22 * len(names), 4.0, 10.0))

    def fill(figure: Figure) -> None:
        panel = figure.subplots()
        picture = panel.imshow(share_pct, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        figure.colorbar(picture, ax=panel, shrink=0.7, label="Share of the clips of the true class (%)")
        panel.set(xlabel="Class that was said", ylabel="True class")
        if len(names) <= MOST_NAMED:
            panel.set_xticks(range(len(names)), names, rotation=90)
            panel.set_yticks(range(len(names)), names)
        if len(names) <= MOST_NUMBERED:
            for (row, column), share in np.ndenumerate(share_pct):
                panel.text(column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 60 else "black")

    return write_figure(stem, (side_in + 1, side_in), fill)
