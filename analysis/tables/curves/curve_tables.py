"""The tables of a scaling study: all fits, the line of every seed, amounts foreseen from the others, pairs of two series."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.curves.fits import CEILING, LINE, Fit, FitError
from analysis.tables.curves.fitted_curves import DECADES, Study
from analysis.tables.curves.series import CURVE, Results
from analysis.tables.curves.series_pairs import NEAR, Paired
from analysis.tables.sheet import MISSING, Sheet, texts
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
PAIRS = ("Points of accuracy; interval of the mean by Student's t over pairs. It takes pairs for independent; those of one "
         "seed share recordings, since smaller fractions lie within larger ones.")

SLOPE = ("slope_per_decade", "slope_low", "slope_high")
GAIN = ("gain_x100", "gain_x100_low", "gain_x100_high")
FORESEEN = {decade: (f"x{10 ** decade}_pct", f"x{10 ** decade}_low_pct", f"x{10 ** decade}_high_pct") for decade in DECADES}


def fits_sheet(studies: Sequence[Study], results: Results) -> Sheet:
    """The table of all fits, side by side."""
    records = pd.DataFrame([record(each, found, results.whole) for each in studies
                            for found in (*each.fits, *filter(None, [each.means]))])
    amount, whole = ("share of the recordings", "100 %") if results.axis == "fraction" else \
        ("hours of video", f"{results.whole:.4g} h")
    star = records["x100_unclipped_pct"].gt(CEILING).map({True: "*", False: ""})  # clipped at 100 %
    shown = _words(records, [*CURVE, "fit"]).assign(**{
        "n": records["points"].map(str), "per decade [95 %]": _around(records, SLOPE, ".2f"),
        f"at {whole}": texts(records["x1_pct"], ".2f"), "x10 [95 %]": _around(records, FORESEEN[1]),
        "x100 [95 %]": _around(records, FORESEEN[2], star=star), "gain to x100 [95 %]": _around(records, GAIN),
        "R2": texts(records["r2"], ".3f"), "AICc": texts(records["aicc"], ".1f").replace(MISSING, "n too small"),
        "left out": texts(records["left_out_rms"], ".2f"), "best by": _words(records, ["chosen_by"])["chosen_by"]})
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


def _words(records: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return records[list(names)].astype(object).fillna("").map(str)


def _around(records: pd.DataFrame, names: Sequence[str], form: str = ".1f", star: str | pd.Series = "") -> pd.Series:
    """Values with their intervals, such as `9.98 [3.10, 16.85]`; `--` stands for what is missing."""
    middle, low, high = (texts(records[name], form) for name in names)
    return (middle + star + " " + _between(low, high, f"[{MISSING}]")).where(middle != MISSING, MISSING)


def _between(low: pd.Series, high: pd.Series, nothing: str) -> pd.Series:
    return ("[" + low + ", " + high + "]").where(low != MISSING, nothing)


def seeds_sheet(studies: Sequence[Study], whole: float) -> Sheet:
    """The line of every seed, and the mean of their slopes with its interval."""
    records = pd.DataFrame([line for each in studies for line in _seeds(each, math.log10(whole))])
    records["x100_pct"] = records["x100_pct"].clip(0, CEILING)
    slope, low, high = (texts(records[name], ".2f") for name in SLOPE)
    shown = _words(records, [*CURVE, "seed"]).assign(**{
        "n": records["points"].map(str), "per decade": slope, "[95 %]": _between(low, high, MISSING),
        "x100": texts(records["x100_pct"], ".1f")})
    return Sheet("scaling-seeds", "The log-linear fit of every seed", shown, 4, records, [SEEDS])


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
    records = pd.DataFrame(lines)
    shown = _words(records, [*CURVE, "fit"]).assign(**{results.axis: texts(records[results.axis], "g"), **{
        name.removesuffix("_pct"): texts(records[name], ".2f") for name in ("measured_pct", "foreseen_pct", "error")}})
    return Sheet("scaling-left-out", "Each amount of data foreseen from the others", shown, 4, records, [LEFT_OUT])


def paired_sheet(results: Results, compared: Mapping[tuple[str, str], Sequence[Paired]]) -> Sheet:
    """The table of all comparisons, by the names of the two series."""
    lines = []
    for (first, second), found in compared.items():
        for each in found:
            low, high = each.interval() or (math.nan, math.nan)
            lines.append({"first": first, "second": second, "task": each.task, "metric": each.metric,
                          "paired_by": results.axis, "amounts": ", ".join(f"{x:.4g}" for x in dict.fromkeys(each.amounts)),
                          "pairs": len(each.differences), "difference": each.mean, "low": low, "high": high,
                          "unpaired": each.unpaired})
    records = pd.DataFrame(lines)
    difference, low, high = (texts(records[name], "+.2f") for name in ("difference", "low", "high"))
    shown = pd.DataFrame({
        "series": records["first"] + " less " + records["second"], "task": records["task"], "metric": records["metric"],
        results.axis: records["amounts"], "pairs": records["pairs"].map(str), "difference": difference,
        "[95 %]": _between(low, high, "no interval on one pair"), "unpaired": records["unpaired"].map(str)})
    by = f"hours (within {100 * NEAR['hours']:g} %)" if results.axis == "hours" else results.axis
    return Sheet("scaling-compare", f"Differences, paired by {by} and seed", shown, 4, records,
                 [PAIRS, f"Source: {results.source}."])
