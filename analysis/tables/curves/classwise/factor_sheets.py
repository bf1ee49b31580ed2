"""What the accuracy of classes depends on, as a table and a figure."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.tables.curves.classwise.class_factors import WORDS
from analysis.tables.curves.classwise.factor_fit import Coefficient, FactorFit, order_of
from analysis.tables.figure_files import BLUE, VERMILLION, write_figure
from analysis.tables.sheet import MISSING, Sheet, texts

COLUMNS = ["factor", "step", "together_points", "together_low", "together_high", "beta", "alone_points", "alone_low",
           "alone_high", "shared_pct"]


def factors_sheet(fit: FactorFit, said: list[str], cells: int) -> Sheet:
    """A row per factor, the largest first."""
    effects = order_of(fit.effects)
    frame = pd.DataFrame([{
        "factor": each.factor, "step": each.step, "together_points": each.together.value,
        "together_low": each.together.low, "together_high": each.together.high, "beta": each.beta,
        "alone_points": each.alone.value, "alone_low": each.alone.low, "alone_high": each.alone.high,
        "shared_pct": each.shared_pct} for each in effects], columns=COLUMNS)
    shown = pd.DataFrame({
        "factor": frame["factor"].map(WORDS), "one step": texts(frame["step"], ".3g"),
        "together, points a step [95 %]": [_text(each.together) for each in effects], "beta": texts(frame["beta"], "+.2f"),
        "alone, points a step [95 %]": [_text(each.alone) for each in effects],
        "shared with the others, %": texts(frame["shared_pct"], ".0f")}, dtype=object)
    footer = [(f"Least squares over {fit.classes} classes; accuracy: mean over {cells} cells. One step: a standard "
               "deviation over the classes, or from no to yes. Intervals are those of HC3 and Student's t, over classes."),
              "A difference between classes is no experiment: what is not measured may differ, too.",
              *([f"All factors together explain {fit.explained_pct:.0f} % of the variance of accuracy over classes."]
                if np.isfinite(fit.explained_pct) else []), *said, *fit.said]
    return Sheet("factors", "What the accuracy of classes goes with", shown, 1, frame, footer)


def _text(each: Coefficient) -> str:
    if not np.isfinite(each.value):
        return MISSING
    return f"{each.value:+.1f}" + (f" [{each.low:+.1f}, {each.high:+.1f}]" if np.isfinite(each.low) else "")


def draw_factors(fit: FactorFit, stem: Path) -> list[Path]:
    """Coefficients with their intervals, together and alone, as PNG and SVG; nothing where there is no factor."""
    return write_figure(stem, (5.6, 1.1 + 0.42 * len(fit.effects)), partial(_fill, fit=fit)) if fit.effects else []


def _fill(figure: Figure, fit: FactorFit) -> None:
    panel: Axes = figure.subplots()
    effects = order_of(fit.effects)
    for aside, colour, marker, label, of in (
            (-0.13, BLUE, "o", "all factors together", [each.together for each in effects]),
            (0.13, VERMILLION, "s", "the factor alone", [each.alone for each in effects])):
        y = np.arange(len(of)) + aside
        panel.hlines(y, [each.low for each in of], [each.high for each in of], color=colour, linewidth=1.2)
        panel.plot([each.value for each in of], y, color=colour, marker=marker, markersize=4.5, linestyle="none",
                   label=label)
    panel.axvline(0, color="0.6", linewidth=0.8)
    panel.set_yticks(range(len(effects)), [WORDS[each.factor].partition(",")[0] for each in effects])
    panel.invert_yaxis()
    panel.set_xlabel(f"Points per standard deviation, or from no to yes (95 %, {fit.classes} classes)")
    figure.legend(loc="outside lower center", ncols=2)
