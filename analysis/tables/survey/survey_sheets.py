"""Tables of footage: what each child and data set has, how it is spread, and how two data sets differ."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.tables.sheet import MISSING, Sheet, texts
from analysis.tables.survey.moments import ALL, MEASURES, Group, above, mean, quantiles, resampled
from analysis.tables.survey.repeated_views import BITS, FLAT, REPEAT_S, Repeats

SHARES = (5, 25, 50, 75, 95)
STATIC = "static_pct"


def footage_sheet(groups: Sequence[Group], repeated: Mapping[str, Repeats], static_pct_per_s: float, sample: int) -> Sheet:
    """A line per child and data set."""
    records = []
    for group in groups:
        ages = group.age_months[~np.isnan(group.age_months)]
        values = {name: group.moments[name].to_numpy() for name in MEASURES}
        found = repeated[group.name]
        records.append({
            "data": group.data, "child": group.child, "recordings": len(group.seconds), "hours": group.hours,
            "age_from_months": ages.min() if len(ages) else np.nan, "age_to_months": ages.max() if len(ages) else np.nan,
            "median_length_s": float(np.median(group.seconds)), "longest_s": float(group.seconds.max()),
            "motion_pct_per_s": _median(values["motion_pct_per_s"], group),
            STATIC: mean(static(group, static_pct_per_s), group),
            "sharpness": _median(values["sharpness"], group), "brightness": mean(values["brightness"], group),
            "contrast": mean(values["contrast"], group), "repeats_within_pct": found.within_pct,
            "repeats_across_pct": found.across_pct, "flat_pct": found.flat_pct, "copies": found.copies,
            "moments": len(group.moments)})
    frame = pd.DataFrame(records)
    whole = {"recordings", "copies", "moments"}
    shown = frame.assign(**{name: texts(frame[name], ",.0f" if name in whole else ",.2f") for name in frame.columns[2:]})
    return Sheet("footage", "footage by data set and child", shown, 2, frame, [
        f"motion, sharpness and length: medians of seconds (of recordings: length); at most {sample} moments of a recording",
        f"static: motion below {static_pct_per_s:g} % of the short side per second",
        f"repeats: hashes differ in {BITS} of 64 bits at most, {REPEAT_S:g} s apart or more, or in another recording",
        f"flat: contrast below {FLAT:g} grey levels, such as darkness; left out of repeats. Copies: of equal content"])


def spread_sheet(groups: Sequence[Group]) -> Sheet:
    """How each measure is spread over the seconds, and the lengths over the recordings."""
    records = []
    for group in groups:
        spread = {name: (group.moments[name].to_numpy(), group.weight) for name in MEASURES}
        spread["length_s"] = group.seconds, np.ones(len(group.seconds))
        for name, (values, weight) in spread.items():
            found = quantiles(values, weight, np.array(SHARES) / 100).tolist()
            records.append({"data": group.data, "child": group.child, "measure": name,
                            **{f"p{share}": value for share, value in zip(SHARES, found, strict=True)}})
    frame = pd.DataFrame(records)
    shown = frame.assign(**{name: texts(frame[name], ",.2f") for name in frame.columns[3:]})
    return Sheet("footage-spread", "spread of each measure", shown, 3, frame,
                 ["p5 to p95: the value up to which so many percent of the seconds lie (length_s: of the recordings)"])


def difference_sheet(one: Group, other: Group, static_pct_per_s: float, seed: int) -> Sheet:
    """Two data sets beside each other, with intervals over recordings."""
    records = []
    for name in (*MEASURES, STATIC):
        mine, theirs = (static(group, static_pct_per_s) if name == STATIC else group.moments[name].to_numpy(dtype=float)
                        for group in (one, other))
        drawn = [resampled(values, group, zlib.crc32(f"{seed} {name} {place}".encode()))
                 for place, (values, group) in enumerate(((mine, one), (theirs, other)))]
        low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
        records.append({
            "measure": name, one.data: mean(mine, one), other.data: mean(theirs, other),
            "difference": mean(mine, one) - mean(theirs, other), "low": low, "high": high,
            "above_pct": 100 * above(mine, one.weight, theirs, other.weight)})
    frame = pd.DataFrame(records)
    numbers = {name: texts(frame[name], ",.2f") for name in (one.data, other.data, "difference", "above_pct")}
    span = [MISSING if np.isnan(low) else f"{low:.2f} to {high:.2f}" for low, high in frame[["low", "high"]].to_numpy()]
    shown = pd.DataFrame({"measure": frame["measure"], **numbers, "95 %": span})[
        ["measure", one.data, other.data, "difference", "95 %", "above_pct"]]
    return Sheet("footage-difference", f"{one.data} beside {other.data}", shown, 1, frame, [
        "means of seconds; intervals: recordings drawn anew 1,000 times, from six recordings on",
        f"above: how often a second of {one.data} has more than a second of {other.data}; 50 where they are alike"])


def static(group: Group, static_pct_per_s: float) -> np.ndarray:
    """100 for each moment that does not move, else 0."""
    return np.where(group.moments["motion_pct_per_s"].to_numpy() < static_pct_per_s, 100.0, 0.0)


def whole_sets(groups: Sequence[Group]) -> list[Group]:
    """The groups that are whole data sets."""
    return [group for group in groups if group.child == ALL]


def _median(values: np.ndarray, group: Group) -> float:
    return float(quantiles(values, group.weight, np.array([0.5]))[0])
