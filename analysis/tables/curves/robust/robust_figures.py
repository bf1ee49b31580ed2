"""Figures of robustness: accuracy over severity, shifts against clean accuracy, shape bias, paired differences.

Models are told apart by colour, and in grey by line style and marker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.tables.curves.robust.robust_numbers import Estimated
from analysis.tables.curves.robust.robust_runs import CLEAN, Tests
from analysis.tables.curves.robust.robust_study import Fitted, Paired, chance_pct, clean_pct
from analysis.tables.figure_files import BLACK, PALETTE, write_figure

COLOURS = (BLACK, *PALETTE[:-1])
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES: Any = ("-", "--", ":", "-.", (0, (6, 2)), (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
PANEL_IN = (2.1, 1.8)
COLUMNS = 5
LEGEND_IN, LETTER_IN = 0.5, 0.05  # of an entry of a legend: its line, and a letter
LEAST_LEVELS = 2


def style(model: str, models: Sequence[str]) -> dict[str, Any]:
    """Colour, marker and dashes of a model."""
    place = models.index(model)
    return {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)], "markersize": 4,
            "linestyle": DASHES[place % len(DASHES)]}


def draw(tests: Tests, fitted: Sequence[Fitted], shapes: Sequence[tuple[str, str, Estimated, float, float, int]],
         pairs: Sequence[Paired], folder: Path) -> list[Path]:
    """Draw all figures, each as PNG and SVG, the same bytes for the same numbers; the files. The folder exists."""
    files = []
    for test_set in tests.sets:
        if names := _graded(tests, test_set):
            rows = math.ceil(len(names) / COLUMNS)
            size = (PANEL_IN[0] * min(len(names), COLUMNS), PANEL_IN[1] * rows + 0.5)
            stem = folder / re.sub(r"[^\w.-]", "-", f"robustness-severity-{test_set}")[:200]
            files += write_figure(stem, size, partial(_severity, tests=tests, test_set=test_set, names=names))
    for place in range(0, len(fitted), COLUMNS):
        some = fitted[place:place + COLUMNS]
        name = "robustness-effective" + (f"-{place // COLUMNS + 1}" if place else "")
        files += write_figure(folder / name, (2.8 * len(some), 3.2), partial(_scatter, tests=tests, fitted=some))
    if shapes:
        files += write_figure(folder / "robustness-shape-bias", (4.8, 1.0 + 0.3 * len(shapes)),
                              partial(_shapes, tests=tests, shapes=shapes))
    if pairs:
        files += write_figure(folder / "robustness-paired", (5.6, 1.0 + 0.22 * len(pairs)), partial(_pairs, pairs=pairs))
    return files


def _graded(tests: Tests, test_set: str) -> list[str]:
    """Corruptions of a set that were tested at several severities."""
    facts = tests.facts(test_set)
    levels = facts[facts["level"] > 0].groupby("name", sort=False)["level"].nunique()
    return [str(name) for name in levels.index[levels >= LEAST_LEVELS]]


def _severity(figure: Figure, tests: Tests, test_set: str, names: Sequence[str]) -> None:
    """A panel per corruption, a curve per model; severity 0 is clean."""
    means, facts, clean = tests.means(test_set), tests.facts(test_set), clean_pct(tests, test_set)
    panels = figure.subplots(math.ceil(len(names) / COLUMNS), min(len(names), COLUMNS), squeeze=False, sharey=True).ravel()
    for panel, name in zip(panels, names, strict=False):
        own = facts[facts["name"] == name].sort_values("level")
        for model in means:
            y = means.loc[own.index, model].to_numpy(float)
            panel.plot([0, *own["level"]], [clean[model], *y], label=model, linewidth=1.2, **style(model, tests.models))
        for place, chance in enumerate(sorted({chance_pct(tests, test_set, model) for model in means})):
            panel.axhline(chance, color="0.6", linewidth=0.8, label=None if place else "chance")
        panel.set_title(name.replace("_", " ") + (", generated" if own["generated"].all() else ""), fontsize=8)
        panel.set_xlabel("Severity (0 is clean)", fontsize=7)
    panels[0].set_ylim(bottom=0)  # of all panels, once all curves are drawn: earlier it would fix the upper end, too
    for panel in panels[len(names):]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    _legend(figure, dict(zip(labels, handles, strict=True)))
    figure.supylabel(f"Top-1 on {test_set} (%)", fontsize=8)


def _scatter(figure: Figure, tests: Tests, fitted: Sequence[Fitted]) -> None:
    """A panel per shift: a point per model, and the line through all."""
    panels = figure.subplots(1, len(fitted), squeeze=False).ravel()
    for panel, each in zip(panels, fitted, strict=True):
        x, y = each.clean.to_numpy(float), each.shifted.to_numpy(float)
        for model in each.shifted.index:
            panel.plot(each.clean[model], each.shifted[model], label=model,
                       **{**style(model, tests.models), "linestyle": "none", "markersize": 6})
        low, high = max(0.1, min(x.min(), y.min()) - 3), min(99.9, max(x.max(), y.max()) + 3)
        line = np.linspace(low, high, 100)
        panel.plot(line, line, color="0.6", linewidth=0.8, linestyle=":", label="nothing lost")
        if each.line:
            panel.plot(line, each.line.at(line), color="0.3", linewidth=1.0, label="line through all models")
        panel.set(xlabel="Clean top-1 (%)", ylabel="Top-1 under the shift (%)", xlim=(low, high))
        made = ", generated" if each.shift.generated else ""
        panel.set_title(f"{each.shift.test_set}: {each.shift.name}{made}" if each.shift.conditions != (CLEAN,)
                        else each.shift.name, fontsize=8)
    found: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        found |= zip(labels, handles, strict=True)
    _legend(figure, found)


def _shapes(figure: Figure, tests: Tests, shapes: Sequence[tuple[str, str, Estimated, float, float, int]]) -> None:
    """Shape bias of every model with its interval."""
    panel: Axes = figure.subplots()
    for place, (model, _, number, *_) in enumerate(shapes):
        _with_interval(panel, place, number, style(model, tests.models))
    panel.axvline(0.5, color="0.6", linewidth=0.8)
    panel.set_yticks(range(len(shapes)), [f"{model}, {test_set}" for model, test_set, *_ in shapes])
    panel.invert_yaxis()
    panel.set(xlim=(0, 1), xlabel="Shape bias (0 texture alone, 1 shape alone)")


def _pairs(figure: Figure, pairs: Sequence[Paired]) -> None:
    """Differences with their intervals, clean and every shift."""
    panel: Axes = figure.subplots()
    order = list(dict.fromkeys((each.first, each.second) for each in pairs))
    names = [f"{first}\nminus {second}" for first, second in order]
    for place, each in enumerate(pairs):
        _with_interval(panel, place, each.difference, style(names[order.index((each.first, each.second))], names))
    panel.axvline(0, color="0.6", linewidth=0.8)
    made = {True: ", generated", False: ""}
    shifts = [each.shift for each in pairs]
    panel.set_yticks(range(len(pairs)), [f"{shift.test_set}: {shift.name}{made[shift.generated]}" for shift in shifts])
    panel.invert_yaxis()
    panel.set_xlabel("Top-1 of the first minus the second (points, 95 % over images)")
    _legend(figure, {name: Line2D([], [], **{**style(name, names), "linestyle": "none"}) for name in names})


def _legend(figure: Figure, handles: Mapping[str, Any]) -> None:
    """A legend below, in as many columns as the figure is wide enough for."""
    width_in = LEGEND_IN + LETTER_IN * max(len(line) for name in handles for line in name.split("\n"))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center",
                  ncols=max(1, min(3, int(figure.get_figwidth() / width_in))))


def _with_interval(panel: Axes, place: int, number: Estimated, look: dict[str, Any]) -> None:
    if not np.isfinite(number.value):
        return
    panel.plot([number.low, number.high], [place, place], color=look["color"], linewidth=1.2)
    panel.plot([number.value], [place], color=look["color"], marker=look["marker"], markersize=5, linestyle="none")
