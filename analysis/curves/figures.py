"""The figure of a scaling study, one per task: points, the line with its bands, the saturating curves, carried on to x100.

Colours are Okabe and Ito's, told apart by the colour-blind; in grey, line styles and markers tell the same.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.curves.fits import CEILING, Fit
from analysis.curves.fitted_curves import DECADES, Study
from analysis.curves.series import METRICS, Result, Results, points
from vidmae.runs.record import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN, BLACK, PURPLE = "#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7"
STYLES = {"log-linear": (BLUE, "-"), "power law": (VERMILLION, "--"), "logistic": (GREEN, ":")}
PUBLISHED_MARKERS = {"published v1": "^", "published v3": "D"}
AXIS_NAMES = {"fraction": "Share of the recordings (%)", "hours": "Pretraining video (h)"}
PANEL_IN = (4.2, 3.2)
LONGEST_NAME = 200  # bytes; file systems take 255
SETTINGS: Any = {"svg.hashsalt": "vidmae", "svg.fonttype": "none", "font.size": 8, "axes.spines.top": False,
            "axes.spines.right": False, "legend.frameon": False}


def draw(studies: Sequence[Study], results: Results, folder: Path, published: Sequence[Result] = ()) -> list[Path]:
    """Draw every task, as PNG and as SVG, the same bytes for the same numbers.

    Args:
        studies: All fits; a task's series are rows of its figure, its metrics columns.
        results: What they are of.
        folder: Where the files go, scaling-TASK.png and .svg; it exists.
        published: Points to mark beside ours.
    Returns:
        The files.
    """
    import matplotlib

    files = []
    with matplotlib.rc_context(SETTINGS):
        for task in dict.fromkeys(each.task for each in studies):
            name = file_name(task)
            chosen = [each for each in studies if each.task == task]
            for suffix, data in _picture(chosen, results, [row for row in published if row.task == task]).items():
                write_atomic(folder / f"{name}.{suffix}", data)
                files.append(folder / f"{name}.{suffix}")
    return files


def file_name(task: str) -> str:
    """A file's name without its suffix; a long one, of a task with many settings, is cut and ends in a hash of the task."""
    name = "scaling-" + "".join(c if c.isalnum() or c in "._-" else "-" for c in task)
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name[:LONGEST_NAME // 4]}-{hashlib.blake2b(task.encode(), digest_size=4).hexdigest()}"


def _picture(studies: Sequence[Study], results: Results, published: Sequence[Result]) -> dict[str, bytes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = list(dict.fromkeys(each.series for each in studies))
    figure = Figure(figsize=(PANEL_IN[0] * len(METRICS), PANEL_IN[1] * len(series) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(series), len(METRICS), squeeze=False)
    for row, name in zip(panels, series, strict=True):
        for metric, panel in enumerate(row):
            found = [each for each in studies if (each.series, each.metric) == (name, metric)]
            if found:
                _panel(panel, found[0], results, published)
            panel.set_visible(bool(found))
    entries = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels.flat]
    shown = {label: handle for pairs in entries for handle, label in pairs}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4)
    figure.suptitle(studies[0].task)
    png = figure_bytes(figure, "png", {"Software": None})
    figure.set_layout_engine("none")  # the layout is done, and the slowest part
    return {"png": png, "svg": figure_bytes(figure, "svg", {"Date": None})}


def figure_bytes(figure: object, form: str, metadata: dict[str, None]) -> bytes:
    """A figure as a file: `form` is png or svg; `metadata` says what of its date and program is left out."""
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    data = io.BytesIO()
    figure.savefig(data, format=form, dpi=150, metadata=metadata)
    return data.getvalue()


def _panel(panel: Axes, each: Study, results: Results, published: Sequence[Result]) -> None:
    whole = math.log10(results.whole)
    x = np.linspace(each.points.x.min(), whole + DECADES[-1], 200)
    scale = 100.0 if results.axis == "fraction" else 1.0
    amounts = scale * 10 ** x
    _bands(panel, each.banded, x, scale)
    for judged in each.judged:
        colour, style = STYLES[judged.name]
        panel.plot(amounts, np.clip(judged.fit.at(x), 0, CEILING), style, color=colour, linewidth=1.6, label=judged.name)
    name = "published accuracies" if each.series.startswith("published") else "runs"
    panel.plot(scale * 10 ** each.points.x, each.points.y, "o", color=BLACK, markersize=5, zorder=4, label=name)
    for name, marker in PUBLISHED_MARKERS.items():
        theirs = points([row for row in published if row.series == name], each.metric)
        if len(theirs.x):
            panel.plot(scale * 10 ** theirs.x, theirs.y, marker, color=PURPLE, markerfacecolor="none", label=name)
    panel.axvline(scale * results.whole, color="0.6", linewidth=0.8, linestyle=(0, (1, 3)))
    panel.set_xscale("log")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.minorticks_off()
    panel.set_ylim(0, _top(each, x))
    panel.set_xlabel(AXIS_NAMES[results.axis])
    panel.set_ylabel(f"{METRICS[each.metric].capitalize()} accuracy (%)")
    panel.set_title(each.series, loc="left")


def _bands(panel: Axes, line: Fit, x: np.ndarray, scale: float) -> None:
    """Both intervals of the line, clipped to what an accuracy can be."""
    low, high = (np.clip(side, 0, CEILING) for side in line.confidence(x))
    panel.fill_between(scale * 10 ** x, low, high, color=BLUE, alpha=0.25, linewidth=0, label="95 % confidence of the line")
    low, high = (np.clip(side, 0, CEILING) for side in line.prediction(x))
    for side, label in ((low, "95 % prediction"), (high, None)):
        panel.plot(scale * 10 ** x, side, color=BLUE, linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), label=label)


def _top(each: Study, x: np.ndarray) -> float:
    """Of the vertical axis: a little above the line's confidence band, the rest may run out of the picture."""
    return min(1.05 * float(max(each.banded.confidence(x)[1].max(), each.points.y.max())), 1.03 * CEILING)
