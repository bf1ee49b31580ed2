"""Figures of footage: shares of seconds up to each value, hours by age, lengths, and repeated views. No frame is in them.

Colours are Okabe and Ito's; data sets have thick lines, children thin and dashed ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables.figure_files import PALETTE, write_figure
from analysis.tables.survey.moments import ALL, MEASURES, Group
from analysis.tables.survey.repeated_views import Repeats

LOGARITHMIC = {"motion_pct_per_s", "sharpness", "length_s"}
SIZE_IN = (5.2, 3.4)
DASHES: Any = ("--", ":", "-.", (0, (6, 2)), (0, (1, 3)), (0, (6, 2, 1, 2, 1, 2)))
MOST_POINTS = 400  # of a line: more is not seen


def draw(groups: Sequence[Group], repeated: Mapping[str, Repeats], folder: Path) -> list[Path]:
    """Draw all figures, each as PNG and SVG, the same bytes for the same numbers; the files. The folder exists."""
    panels: dict[str, Callable[[Axes], None]] = {
        f"footage-{name.partition('_')[0]}": lambda panel, name=name: _shares(  # type: ignore[misc]
            panel, [(group, group.moments[name].to_numpy(), group.weight) for group in groups], MEASURES[name], name)
        for name in MEASURES}
    panels["footage-length"] = lambda panel: _shares(
        panel, [(group, group.seconds, group.seconds) for group in groups], "Length of the recording (s)", "length_s")
    panels["footage-hours"] = lambda panel: _bars(panel, groups, {"hours": [group.hours for group in groups]}, "Footage (h)")
    panels["footage-repeats"] = lambda panel: _bars(panel, groups, {
        "of the same recording": [repeated[group.name].within_pct for group in groups],
        "of another recording": [repeated[group.name].across_pct for group in groups]}, "Seconds that repeat a view (%)")
    if any((~np.isnan(group.age_months)).any() for group in groups):
        panels["footage-age"] = lambda panel: _ages(panel, groups)
    return [path for name, fill in panels.items() for path in write_figure(folder / name, SIZE_IN, partial(_fill, fill))]


def _fill(fill: Callable[[Axes], None], figure: Figure) -> None:
    fill(figure.subplots())


def _shares(panel: Axes, lines: Sequence[tuple[Group, np.ndarray, np.ndarray]], axis: str, name: str) -> None:
    """Of each group the share of the weight up to each value."""
    groups = [group for group, _, _ in lines]
    for group, values, weight in lines:
        if not len(values):
            continue
        order = np.argsort(values, kind="stable")
        x, y = values[order], 100 * np.cumsum(weight[order]) / weight.sum()
        some = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
        panel.step(x[some], y[some], where="post", label=group.name, **_style(group, groups))
    if name in LOGARITHMIC:
        panel.set_xscale("symlog", linthresh=1.0)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        panel.set_xlim(left=0)
    panel.set(xlabel=axis, ylabel="Footage (%)", ylim=(0, 100))
    panel.legend(fontsize=7)


def _style(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    """A colour for each data set; the children of one are told apart by dashes, as far as that goes."""
    sets = list(dict.fromkeys(each.data for each in groups))
    colour = PALETTE[sets.index(group.data) % len(PALETTE)]
    if group.child == ALL:
        return {"color": colour, "linewidth": 2.0}
    children = [each.child for each in groups if each.data == group.data and each.child != ALL]
    return {"color": colour, "linewidth": 0.9, "linestyle": DASHES[children.index(group.child) % len(DASHES)]}


def _bars(panel: Axes, groups: Sequence[Group], kinds: Mapping[str, Sequence[float]], axis: str) -> None:
    """A bar per group and kind, from the top down."""
    height = 0.8 / len(kinds)
    for place, (kind, values) in enumerate(kinds.items()):
        panel.barh(np.arange(len(groups)) + place * height, np.nan_to_num(values), height, label=kind, color=PALETTE[place])
    panel.set_yticks(np.arange(len(groups)) + 0.4 - height / 2, [group.name for group in groups])
    panel.invert_yaxis()
    panel.set_xlabel(axis)
    if len(kinds) > 1:
        panel.legend(fontsize=7)


def _ages(panel: Axes, groups: Sequence[Group]) -> None:
    """Hours of each child by month of age."""
    ages = np.concatenate([group.age_months for group in groups])
    months = np.arange(np.floor(np.nanmin(ages)), np.floor(np.nanmax(ages)) + 2)
    for group in groups:
        known = ~np.isnan(group.age_months)
        if known.any():
            hours, _ = np.histogram(group.age_months[known], months, weights=group.seconds[known] / 3600)
            panel.stairs(hours, months, label=group.name, **_style(group, groups))
    panel.set(xlabel="Age (months)", ylabel="Footage (h per month of age)")
    panel.legend(fontsize=7)
