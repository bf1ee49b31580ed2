"""The tables of a scaling study: all fits side by side, the line of every seed, and amounts foreseen from the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from analysis.curves.fits import CEILING, LINE, Fit, FitError
from analysis.curves.fitted_curves import DECADES, Judged, Study
from analysis.curves.series import METRICS, Results
from analysis.tables.sheets import Sheet
from analysis.tables.stats import mean_interval

INTERVALS = ("[95 %]: confidence interval of slope and gain, prediction interval of a further run (of means: of the mean of "
             "as many) at x10 and x100, by Student's t; approximate for the curves. Clipped to 0 and 100 %; * marks a value "
             "above.")
JUDGED = ("left out: root mean square error, in points, of each amount foreseen from the others. n too small: AICc needs 5 "
          "points for the line, 6 for the curves. best by: lowest AICc, where all have one; lowest error left out.")
SINGLE = ("One run per amount of data ({tasks}): the intervals are the regression's, from how far the points lie from the "
          "line; nothing is known of other seeds.")
LEFT_OUT = ("Accuracy in %, mean of the repeats; error: measured less foreseen, in points. For the largest amount it is the "
            "error of an extrapolation.")

Interval = tuple[float | None, float | None]


def record(each: Study, judged: Judged, whole: float) -> dict[str, object]:
    """A fit as one line of the CSV; None where there is no such number."""
    found, x = judged.fit, math.log10(whole)
    values: dict[str, object] = {
        **_start(each), "fit": judged.name, "points": len(found.points.x), "amounts": len(found.points.amounts),
        "chosen_by": each.chosen.get(judged.name)}
    slope, low, high = (found.value("slope"), *_interval(found, "slope")) if found.curve is LINE else (None, None, None)
    values |= {"slope_per_decade": slope, "slope_low": low, "slope_high": high}
    for decade in DECADES:
        low, high = _prediction(found, x + decade)
        name = f"x{10 ** decade}"
        values |= {f"{name}_pct": _clip(float(found.at(x + decade)[0])), f"{name}_low_pct": low, f"{name}_high_pct": high}
    gain, low, high = gain_to(found, x)
    return values | {
        "gain_x100": gain, "gain_x100_low": low, "gain_x100_high": high,
        "x100_unclipped_pct": float(found.at(x + DECADES[-1])[0]), "r2": found.r2, "aicc": found.aicc,
        "left_out_rms": judged.held_out_rms,
        "parameters": "; ".join(f"{name} {found.value(name):.6g}" for name in found.curve.parameters),
        "at_limit": ", ".join(found.stuck) or None}


def gain_to(found: Fit, x: float) -> tuple[float, float | None, float | None]:
    """Points of accuracy won from all data to x100, with the interval; no more can be won than is left to 100 %."""
    start, end = x, x + DECADES[-1]
    here = float(found.at(start)[0])
    try:
        values: Sequence[float | None] = found.gain(start, end)
    except FitError:
        values = float(found.at(end)[0]) - here, None, None
    gain, low, high = (None if value is None else min(max(value, -here), CEILING - here) for value in values)
    assert gain is not None
    return gain, low, high


def _interval(found: Fit, name: str) -> Interval:
    try:
        return found.interval(name)
    except FitError:
        return None, None


def _prediction(found: Fit, x: float) -> Interval:
    try:
        low, high = found.prediction(x)
    except FitError:
        return None, None
    return _clip(float(low[0])), _clip(float(high[0]))


def _clip(pct: float) -> float:
    return min(max(pct, 0.0), CEILING)


def fits_sheet(studies: Sequence[Study], results: Results) -> Sheet:
    """The table of all fits, side by side."""
    records = [record(each, judged, results.whole) for each in studies
               for judged in (*each.judged, *([each.means] if each.means else []))]
    named = "100 %" if results.axis == "fraction" else f"{results.whole:.4g} h"
    columns = ("series", "task", "metric", "fit", "n", "per decade [95 %]", f"at {named}", "x10 [95 %]", "x100 [95 %]",
               "gain to x100 [95 %]", "R2", "AICc", "left out", "best by")
    return Sheet("scaling", f"Accuracy in % against log10 of the {_axis_name(results)}", columns, 4,
                 [_texts(line) for line in records], records,
                 footer(studies, results))


def _axis_name(results: Results) -> str:
    return "share of the recordings" if results.axis == "fraction" else "hours of video"


def _texts(line: Mapping[str, object]) -> list[str]:
    """A record as people read it; * marks a value that was clipped at 100 %."""

    def around(name: str, low: str, high: str, digits: int = 1) -> str:
        if line[name] is None:
            return "--"
        star = "*" if name == "x100_pct" and _number(line["x100_unclipped_pct"]) > CEILING else ""
        between = "--" if line[low] is None else f"{_number(line[low]):.{digits}f}, {_number(line[high]):.{digits}f}"
        return f"{_number(line[name]):.{digits}f}{star} [{between}]"

    return [*_words(line, "series", "task", "metric", "fit", "points"),
            around("slope_per_decade", "slope_low", "slope_high", 2), f"{_number(line['x1_pct']):.2f}",
            around("x10_pct", "x10_low_pct", "x10_high_pct"), around("x100_pct", "x100_low_pct", "x100_high_pct"),
            around("gain_x100", "gain_x100_low", "gain_x100_high"), _maybe(line["r2"], 3),
            _maybe(line["aicc"], 1, "n too small"), _maybe(line["left_out_rms"], 2), *_words(line, "chosen_by")]


def _maybe(value: object, digits: int, nothing: str = "--") -> str:
    return nothing if value is None else f"{_number(value):.{digits}f}"


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return float(value)


def footer(studies: Sequence[Study], results: Results) -> list[str]:
    """What has to be said below the table of fits."""
    singles = sorted({each.task for each in studies if not each.repeated})
    alone = [SINGLE.format(tasks=", ".join(singles))] if singles else []
    return [INTERVALS, JUDGED, *alone, f"Source: {results.source}."]


def seeds_sheet(studies: Sequence[Study], whole: float) -> Sheet:
    """The line of every seed, and the mean of their slopes with its interval."""
    records = [line for each in studies for line in _seed_records(each, math.log10(whole))]
    rows = [[*_words(line, "series", "task", "metric", "seed", "points"),
             f"{_number(line['slope_per_decade']):.2f}",
             "--" if line["slope_low"] is None else f"[{_number(line['slope_low']):.2f}, {_number(line['slope_high']):.2f}]",
             f"{_number(line['x100_pct']):.1f}"] for line in records]
    return Sheet("scaling-seeds", "The log-linear fit of every seed",
                 ("series", "task", "metric", "seed", "n", "per decade", "[95 %]", "x100"), 4, rows, records,
                 ["mean: of the seeds' slopes, with the interval of Student's t over seeds; two seeds or more."])


def _seed_records(each: Study, x: float) -> list[dict[str, object]]:
    slopes = [found.value("slope") for found in each.by_seed.values()]
    interval = mean_interval(slopes)
    if interval is None:
        return []
    start, ends = _start(each), [float(found.at(x + DECADES[-1])[0]) for found in each.by_seed.values()]
    lines: list[dict[str, object]] = []
    for (seed, found), end in zip(each.by_seed.items(), ends, strict=True):
        lines.append({**start, "seed": seed, "points": len(found.points.x), "slope_per_decade": found.value("slope"),
                      "slope_low": None, "slope_high": None, "x100_pct": _clip(end)})
    lines.append({**start, "seed": "mean", "points": sum(len(found.points.x) for found in each.by_seed.values()),
                  "slope_per_decade": float(np.mean(slopes)), "slope_low": interval[0], "slope_high": interval[1],
                  "x100_pct": _clip(float(np.mean(ends)))})
    return lines


def left_out_sheet(studies: Sequence[Study], results: Results) -> Sheet:
    """What every amount, left out, was foreseen to reach by the others."""
    records: list[dict[str, object]] = []
    for each in studies:
        for judged in each.judged:
            for x, error in (judged.held_out or {}).items():
                measured = float(each.points.y[each.points.x == x].mean())
                records.append({**_start(each), "fit": judged.name, results.axis: float(f"{10 ** x:.6g}"),
                                "measured_pct": measured, "foreseen_pct": measured - error, "error": error})
    rows = [[*_words(line, "series", "task", "metric", "fit"), f"{_number(line[results.axis]):g}",
             *(f"{_number(line[name]):.2f}" for name in ("measured_pct", "foreseen_pct", "error"))] for line in records]
    return Sheet("scaling-left-out", "Each amount of data foreseen from the others",
                 ("series", "task", "metric", "fit", results.axis, "measured", "foreseen", "error"), 4, rows, records,
                 [LEFT_OUT])


def _start(each: Study) -> dict[str, object]:
    return {"series": each.series or None, "task": each.task, "metric": METRICS[each.metric]}


def _words(line: Mapping[str, object], *names: str) -> list[str]:
    return [str("" if line[name] is None else line[name]) for name in names]
