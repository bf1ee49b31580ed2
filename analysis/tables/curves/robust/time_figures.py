"""Figures of what models use of time: accuracy by condition, and points that the classes lose."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables.curves.robust.robust_figures import style
from analysis.tables.curves.robust.robust_runs import CLEAN
from analysis.tables.curves.robust.time_study import CONDITIONS, FROZEN, REVERSED, SHUFFLED, leading
from analysis.tables.figure_files import BLUE, PURPLE, VERMILLION, write_figure

OF_FRAMES = (CLEAN, "frames-8", "frames-4", "frames-2", FROZEN)
SHOWN = {FROZEN: (VERMILLION, "o"), SHUFFLED: (BLUE, "s"), REVERSED: (PURPLE, "^")}
MOST_CLASSES = 30


def draw(of_conditions: pd.DataFrame, of_classes: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw all figures, each as PNG and SVG, the same bytes for the same numbers; the files. The folder exists."""
    files = []
    for test_set, own in of_conditions.groupby("set", sort=False):
        files += write_figure(folder / _stem(f"time-{test_set}"), (6.4, 3.4), partial(_conditions, frame=own))
    for (test_set, model), own in of_classes.groupby(["set", "model"], sort=False):
        size = (5.6, 1.1 + 0.2 * min(len(own), MOST_CLASSES))
        files += write_figure(folder / _stem(f"time-classes-{model}-{test_set}"), size,
                              partial(_classes, frame=own, title=f"{model} on {test_set}"))
    return files


def _stem(name: str) -> str:
    return re.sub(r"[^\w.-]", "-", name)[:200]


def _conditions(figure: Figure, frame: pd.DataFrame) -> None:
    """Accuracy over the number of frames as a curve, and beside it the frames in other orders."""
    panel: Axes = figure.subplots()
    there = set(frame["condition"])
    names = [name for name in (*OF_FRAMES, *(each for each in CONDITIONS if each not in OF_FRAMES)) if name in there]
    models = list(dict.fromkeys(frame["model"]))
    for number, model in enumerate(models):
        own = frame[frame["model"] == model].set_index("condition")
        aside = (number - (len(models) - 1) / 2) * 0.12
        look = style(model, models)
        curve = [name for name in names if name in OF_FRAMES and name in own.index]
        panel.plot([names.index(name) + aside for name in curve], own.loc[curve, "pct"], linewidth=1.2, label=model, **look)
        for name in own.index:
            row, x = own.loc[name], names.index(str(name)) + aside
            panel.plot([x], [row["pct"]], **{**look, "linestyle": "none"})
            if np.isfinite(row["low"]):  # the interval of what is lost, hung on the clean accuracy
                panel.plot([x, x], [own.loc[CLEAN, "pct"] - row["high"], own.loc[CLEAN, "pct"] - row["low"]],
                           color=look["color"], linewidth=0.8)
    for place, chance in enumerate(sorted(set(frame["chance_pct"]))):
        panel.axhline(chance, color="0.6", linewidth=0.8, label=None if place else "chance")
    panel.set_xticks(range(len(names)), [CONDITIONS.get(name, "as it is").replace(" (", "\n(") for name in names])
    panel.set_ylim(bottom=0)
    panel.set_ylabel(f"Top-1 on {frame['set'].iloc[0]} (%)")
    panel.set_xlabel("What is shown of each clip; bars: 95 % of the difference from the clip as it is")
    figure.legend(loc="outside lower center", ncols=3)


def _classes(figure: Figure, frame: pd.DataFrame, title: str) -> None:
    """Points that classes lose, with intervals; those that lose most first, and of many classes the last, too."""
    panel: Axes = figure.subplots()
    half = MOST_CLASSES // 2
    own = frame if len(frame) <= MOST_CLASSES else pd.concat([frame[:half], frame[-half:]])
    own = own.reset_index(drop=True)
    for number, (name, (colour, marker)) in enumerate(SHOWN.items()):
        if f"{name}_points" not in own or own[f"{name}_points"].isna().all():
            continue
        y = own.index.to_numpy() + (number - 1) * 0.22
        low, high = own[f"{name}_low"].to_numpy(float), own[f"{name}_high"].to_numpy(float)
        panel.hlines(y, low, high, color=colour, linewidth=0.9)
        panel.plot(own[f"{name}_points"], y, color=colour, marker=marker, markersize=3.5, linestyle="none",
                   label=CONDITIONS[name])
    panel.axvline(0, color="0.6", linewidth=0.8)
    panel.set_yticks(own.index.to_list(), own["class"])
    panel.invert_yaxis()
    tested = [name for name in CONDITIONS if f"{name}_points" in own and own[f"{name}_points"].notna().any()]
    more = (f"; the {half} that lose most and the {half} that lose least of {len(frame)}, by: {CONDITIONS[leading(tested)]}"
            if len(frame) > MOST_CLASSES else "")
    panel.set_title(f"{title}{more}", fontsize=8)
    panel.set_xlabel("Points of top-1 that are lost (95 % over clips)")
    figure.legend(loc="outside lower center", ncols=3)
