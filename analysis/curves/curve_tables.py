"""The tables of a scaling study: all fits side by side, the line of every seed, and amounts foreseen from the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.curves.fits import CEILING, LINE, Fit, FitError
from analysis.curves.fitted_curves import DECADES, Study
from analysis.curves.series import Results
from analysis.tables.sheet import MISSING, Sheet
from analysis.tables.stats import mean_interval

INTERVALS = ("[95 %]: confidence interval of slope and gain, prediction interval of a further run (of means: of the mean of "
             "as many) at x10 and x100, by Student's t; approximate for the curves. Clipped to 0 and 100 %; * marks a value "
             "above.")
JUDGED = ("left out: root mean square error, in points, of each amount foreseen from the others. n too small: AICc needs 5 "
          "points for the line, 6 for the curves. best by: lowest AICc, where all have one; lowest error left out.")
SINGLE = ("One run per amount of data ({}): the intervals are the regression's, from how far the points lie from the "
          "line; nothing is known of other seeds.")
SEEDS = "mean: of the seeds' slopes, with the interval of Student's t over seeds; two seeds or more."
LEFT_OUT = ("Accuracy in %, mean of the repeats; error: measured less foreseen, in points. For the largest amount it is the "
            "error of an extrapolation.")

SLOPE = ("slope_per_decade", "slope_low", "slope_high")
GAIN = ("gain_x100", "gain_x100_low", "gain_x100_high")
FORESEEN = {decade: (f"x{10 ** decade}_pct", f"x{10 ** decade}_low_pct", f"x{10 ** decade}_high_pct") for decade in DECADES}
Record = Mapping[str, Any]


def fits_sheet(studies: Sequence[Study], results: Results) -> Sheet:
    """The table of all fits, side by side."""
    records = pd.DataFrame([record(each, found, results.whole) for each in studies
                            for found in (*each.fits, *filter(None, [each.means]))])
    amount, whole = ("share of the recordings", "100 %") if results.axis == "fraction" else \
        ("hours of video", f"{results.whole:.4g} h")
    shown = pd.DataFrame([_texts(line, whole) for line in records.to_dict("records")])
    singles = ", ".join(sorted({each.task for each in studies if not each.means}))
    return Sheet("scaling", f"Accuracy in % against log10 of the {amount}", shown, 4, records,
                 [INTERVALS, JUDGED, *([SINGLE.format(singles)] if singles else []), f"Source: {results.source}."])


def record(each: Study, found: Fit, whole: float) -> dict[str, Any]:
    """A fit as one line of the CSV; None or NaN where there is no such number."""
    x, slope = math.log10(whole), [math.nan] * 3
    if found.curve.parameters == LINE.parameters:
        slope = [found.value("slope"), *_interval(found.interval, "slope")]
    chosen = each.chosen.index[each.chosen == found.curve.name]
    values = {**_curve(each), "fit": found.curve.name, "points": len(found.points.x), "amounts": len(found.points.amounts),
              "chosen_by": ", ".join(chosen) or None, **_named(SLOPE, slope)}
    for decade, names in FORESEEN.items():
        foreseen = [float(found.at(x + decade)[0]), *_interval(found.prediction, x + decade)]
        values |= _named(names, np.clip(foreseen, 0, CEILING).tolist())
    return {**values, **_named(GAIN, gain_to(found, x)), "x100_unclipped_pct": float(found.at(x + DECADES[-1])[0]),
            "r2": found.r2, "aicc": found.aicc, "left_out_rms": found.held_out_rms,
            "parameters": "; ".join(f"{name} {found.value(name):.6g}" for name in found.curve.parameters),
            "at_limit": ", ".join(found.stuck) or None}


def gain_to(found: Fit, x: float) -> list[float]:
    """Points of accuracy won from all data to x100, low and high; no more can be won than is left to 100 %."""
    here, there = (float(found.at(each)[0]) for each in (x, x + DECADES[-1]))
    gains: list[float] = np.clip([there - here, *_interval(found.gain, x, x + DECADES[-1])], -here, CEILING - here).tolist()
    return gains


def _interval(ask: Callable[..., Sequence[Any]], *at: Any) -> list[float]:
    """The last two numbers of the answer, low and high; NaN where there are too few points for an interval."""
    try:
        return [float(side) for side in np.ravel(ask(*at))[-2:]]
    except FitError:
        return [math.nan] * 2


def _named(names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(names, values, strict=True))


def _curve(each: Study) -> dict[str, Any]:
    return {"series": each.series or None, "task": each.task, "metric": each.metric}


def _texts(line: Record, whole: str) -> dict[str, str]:
    """A fit as people read it; * marks a value that was clipped at 100 %."""
    star = "*" if line["x100_unclipped_pct"] > CEILING else ""
    return {**_words(line, "series", "task", "metric", "fit"), "n": str(line["points"]),
            "per decade [95 %]": _around(line, SLOPE, 2), f"at {whole}": _number(line["x1_pct"], 2),
            "x10 [95 %]": _around(line, FORESEEN[1]), "x100 [95 %]": _around(line, FORESEEN[2], star=star),
            "gain to x100 [95 %]": _around(line, GAIN), "R2": _number(line["r2"], 3),
            "AICc": _number(line["aicc"], 1, "n too small"), "left out": _number(line["left_out_rms"], 2),
            "best by": _words(line, "chosen_by")["chosen_by"]}


def _around(line: Record, names: Sequence[str], digits: int = 1, star: str = "") -> str:
    middle, low, high = (_number(line[name], digits) for name in names)
    between = MISSING if low == MISSING else f"{low}, {high}"
    return MISSING if middle == MISSING else f"{middle}{star} [{between}]"


def _number(value: float | None, digits: int, nothing: str = MISSING) -> str:
    return nothing if pd.isna(value) else f"{value:.{digits}f}"


def _words(line: Record, *names: str) -> dict[str, str]:
    return {name: "" if pd.isna(line[name]) else str(line[name]) for name in names}


def seeds_sheet(studies: Sequence[Study], whole: float) -> Sheet:
    """The line of every seed, and the mean of their slopes with its interval."""
    records = pd.DataFrame([line for each in studies for line in _seeds(each, math.log10(whole))])
    records["x100_pct"] = records["x100_pct"].clip(0, CEILING)
    shown = [{**_words(line, "series", "task", "metric", "seed"), "n": str(line["points"]),
              "per decade": _number(line["slope_per_decade"], 2),
              "[95 %]": MISSING if pd.isna(line["slope_low"]) else f"[{line['slope_low']:.2f}, {line['slope_high']:.2f}]",
              "x100": _number(line["x100_pct"], 1)} for line in records.to_dict("records")]
    return Sheet("scaling-seeds", "The log-linear fit of every seed", pd.DataFrame(shown), 4, records, [SEEDS])


def _seeds(each: Study, x: float) -> list[dict[str, Any]]:
    lines: list[Sequence[Any]] = [(seed, len(found.points.x), found.value("slope"), math.nan, math.nan,
                                   float(found.at(x + DECADES[-1])[0])) for seed, found in each.by_seed.items()]
    if len(lines) < 2:
        return []
    _, counts, slopes, *_, ends = zip(*lines, strict=True)
    lines.append(("mean", sum(counts), np.mean(slopes), *(mean_interval(slopes) or ()), np.mean(ends)))
    return [{**_curve(each), **_named(("seed", "points", *SLOPE, "x100_pct"), line)} for line in lines]


def left_out_sheet(studies: Sequence[Study], results: Results) -> Sheet:
    """What every amount, left out, was foreseen to reach by the others."""
    lines = []
    for each in studies:
        for found in each.fits:
            for x, error in (found.held_out or {}).items():
                measured = float(each.points.y[each.points.x == x].mean())
                lines.append({**_curve(each), "fit": found.curve.name, results.axis: float(f"{10 ** x:.6g}"),
                              "measured_pct": measured, "foreseen_pct": measured - error, "error": error})
    shown = [{**_words(line, "series", "task", "metric", "fit"), results.axis: f"{line[results.axis]:g}",
              **{name.removesuffix("_pct"): _number(line[name], 2) for name in ("measured_pct", "foreseen_pct", "error")}}
             for line in lines]
    return Sheet("scaling-left-out", "Each amount of data foreseen from the others", pd.DataFrame(shown), 4,
                 pd.DataFrame(lines), [LEFT_OUT])
