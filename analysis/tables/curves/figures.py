"""The figure of a scaling study, one per task: points, the line with its bands, the saturating curves, carried on to x100.

In grey, line styles and markers tell the same as the colours.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables.curves.fits import CEILING
from analysis.tables.curves.fitted_curves import DECADES, Study, points
from analysis.tables.curves.series import METRICS, Results
from analysis.tables.figure_files import BLACK, BLUE, GREEN, PURPLE, VERMILLION, write_figure

STYLES = {"log-linear": (BLUE, "-"), "power law": (VERMILLION, "--"), "logistic": (GREEN, ":")}
PUBLISHED_MARKERS = {"published v1": "^", "published v3": "D"}
AXIS_NAMES = {"fraction": "Share of the recordings (%)", "hours": "Pretraining video (h)"}
PANEL_IN = (4.2, 3.2)
LONGEST_NAME = 200  # bytes; file systems take 255


def draw(studies: Sequence[Study], results: Results, folder: Path, published: pd.DataFrame) -> list[Path]:
    """Draw every task, as PNG and as SVG, the same bytes for the same numbers.

    Args:
        studies: All fits; a task's series are rows of its figure, its metrics columns.
        results: What they are of.
        folder: Where the files go, scaling-TASK.png and .svg; it exists.
        published: Points to mark beside ours where those are shares, too.
    Returns:
        The files.
    """
    beside = published[~published["series"].isin(results.series())] if results.axis == "fraction" else published[:0]
    files = []
    for task in dict.fromkeys(each.task for each in studies):
        of_task = [each for each in studies if each.task == task]
        rows = len({each.series for each in of_task})
        files += write_figure(folder / file_name(task), (PANEL_IN[0] * len(METRICS), PANEL_IN[1] * rows + 0.5),
                              partial(_fill, studies=of_task, results=results, published=beside))
    return files


def file_name(task: str) -> str:
    """A file's name without its suffix; a long one, of a task with many settings, is cut and ends in a hash of the task."""
    name = "scaling-" + "".join(c if c.isalnum() or c in "._-" else "-" for c in task)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME // 4]}-{hashlib.blake2b(task.encode(), digest_size=4).hexdigest()}"


def _fill(figure: Figure, studies: Sequence[Study], results: Results, published: pd.DataFrame) -> None:
    """All of one task."""
    found = {(each.series, each.metric): each for each in studies}
    series = list(dict.fromkeys(each.series for each in studies))
    panels = figure.subplots(len(series), len(METRICS), squeeze=False)
    shown: dict[str, Any] = {}
    for row, name in zip(panels, series, strict=True):
        for panel, metric in zip(row, METRICS, strict=True):
            panel.set_visible((name, metric) in found)
            if (name, metric) in found:
                _panel(panel, found[name, metric], results, published)
            handles, labels = panel.get_legend_handles_labels()
            shown |= zip(labels, handles, strict=True)
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    figure.suptitle(studies[0].task)


def _panel(panel: Axes, each: Study, results: Results, published: pd.DataFrame) -> None:
    whole = math.log10(results.whole)
    x = np.linspace(each.points.x.min(), whole + DECADES[-1], 200)
    scale = 100.0 if results.axis == "fraction" else 1.0
    amounts = scale * 10 ** x
    (low, high), foreseen = ([np.clip(side, 0, CEILING) for side in sides]
                             for sides in (each.banded.confidence(x), each.banded.prediction(x)))
    panel.fill_between(amounts, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95 % confidence of the line")
    for side, label in zip(foreseen, ("95 % prediction", None), strict=True):
        panel.plot(amounts, side, color=BLUE, linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), label=label)
    for found in each.fits:
        colour, style = STYLES[found.curve.name]
        panel.plot(amounts, np.clip(found.at(x), 0, CEILING), style, color=colour, linewidth=1.6, label=found.curve.name)
    name = "published accuracies" if each.series.startswith("published") else "runs"
    panel.plot(scale * 10 ** each.points.x, each.points.y, "o", color=BLACK, markersize=5, zorder=4, label=name)
    beside = published[(published["task"] == each.task) & (published["metric"] == each.metric)]
    for name, marker in PUBLISHED_MARKERS.items():
        theirs = points(beside[beside["series"] == name])
        if len(theirs.x):
            panel.plot(scale * 10 ** theirs.x, theirs.y, marker, color=PURPLE, markerfacecolor="none", label=name)
    panel.axvline(scale * results.whole, color="0.6", linewidth=0.8, linestyle=(0, (1, 3)))
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.minorticks_off()
    top = max(each.banded.confidence(x)[1].max(), each.points.y.max())  # the rest may run out of the picture
    panel.set_ylim(0, min(1.05 * float(top), 1.03 * CEILING))
    panel.set_xlabel(AXIS_NAMES[results.axis])
    panel.set_ylabel(f"{each.metric.capitalize()} accuracy (%)")
    panel.set_title(each.series, loc="left")
