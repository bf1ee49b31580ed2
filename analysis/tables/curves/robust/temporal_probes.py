"""What frozen models know of time: accuracies of temporal probes, beside controls that cannot see time.

Reads the cells of sweeps/probes.py. All numbers, intervals over recordings among them, are those of the cells' result.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.tables.curves.robust.robust_runs import runs_below, why_missing
from analysis.tables.sheet import MISSING, Sheet
from vidmae.runs.record import read_json

KIND, FIRST_WORD = "temporal", "time-"
PROBE_ORDER = ("halves", "halves-apart", "arrow", "speed", "first")
FEATURES = ("model", "pixels", "still", "frames", "random", "change", "oracle")
COMPARED = ("pixels", "still", "frames", "random", "change")
SHOWN = {"pixels": "mean pixels", "still": "one frame", "frames": "mean of frames", "random": "random weights",
         "change": "pixel change", "oracle": "oracle"}
"""Feature to the heading of its column."""


@dataclass(frozen=True)
class TimeProbes:
    """What cells found.

    Attributes:
        rows: A row per set, model, pool, seed and probe.
        lost: What is missing or damaged, a line each.
    """

    rows: pd.DataFrame
    lost: list[str]


def read_probes(folders: Sequence[Path]) -> TimeProbes:
    """Read every cell of temporal probes in folders of runs; both are empty where there is none.

    Raises:
        ValueError: There is no such folder.
    """
    found: list[dict[str, Any]] = []
    lost: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        for run in runs_below(folder, FIRST_WORD, KIND):
            try:
                result = read_json(run.result)
                if result is None:
                    lost.append(f"{run.path.name}: {why_missing(run)}")
                else:
                    found += [_row(result, probe, run.path) for probe in result["probes"]]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                lost.append(f"{run.path.name}: its records are damaged ({type(error).__name__}: {error})")
    found.sort(key=lambda row: (row["set"], row["probe_order"], row["model"], row["pool"], row["seed"]))
    return TimeProbes(pd.DataFrame(found).drop(columns="probe_order", errors="ignore"), lost)


def _row(result: dict[str, Any], probe: dict[str, Any], path: Path) -> dict[str, Any]:
    cell = result["cell"]
    row = {"set": result["set"], "probe": probe["probe"], "probe_order": PROBE_ORDER.index(probe["probe"]),
           "model": cell["checkpoint"], "pool": result["pool"], "num_frames": int(result["num_frames"]),
           "seed": int(cell["seed"]), "chance_pct": float(probe["chance_pct"]),
           "test_recordings": int(probe["recordings"][2]), "test_clips": int(probe["clips"][2])}
    for name in FEATURES:
        row |= _numbers(name, probe["features"].get(name), "pct")
    for name in COMPARED:
        row |= _numbers(f"minus_{name}", probe["apart"].get(name), "points")
    return {**row, "run": str(path)}


def _numbers(name: str, found: dict[str, Any] | None, value: str) -> dict[str, float]:
    """A value and its interval as three columns; NaN where it was not measured, or has no interval."""
    found = found or {}
    return {f"{name}{end}": np.nan if found.get(key) is None else float(found[key])
            for end, key in ((f"_{value}", value), ("_low", "low"), ("_high", "high"))}


def probes_sheet(rows: pd.DataFrame) -> Sheet:
    """A row per set, probe and cell; cells with the same windows have equal `mean pixels`."""
    shown = pd.DataFrame({
        "set": rows["set"], "probe": rows["probe"], "model": rows["model"], "pool": rows["pool"],
        "seed": rows["seed"].map(str), "cell": rows["run"].str[-8:], "model, % [95 %]": _texts(rows, "model", "pct"),
        **{heading: _texts(rows, name, "pct", interval=name != "oracle") for name, heading in SHOWN.items()},
        **{f"minus {SHOWN[name]}": _texts(rows, f"minus_{name}", "points") for name in COMPARED},
        "chance": rows["chance_pct"].map("{:.1f}".format), "recordings": rows["test_recordings"].map(str),
        "clips": rows["test_clips"].map("{:,}".format)})
    return Sheet("time-probes", "What frozen models know of time", shown, 6, rows, FOOTER)


def _texts(rows: pd.DataFrame, name: str, value: str, *, interval: bool = True) -> pd.Series:
    """`61.2 [55.0, 67.1]`."""
    def text(number: float, low: float, high: float) -> str:
        if np.isnan(number):
            return MISSING
        return f"{number:.1f}" if np.isnan(low) or not interval else f"{number:.1f} [{low:.1f}, {high:.1f}]"

    columns = (rows[f"{name}{end}"] for end in (f"_{value}", "_low", "_high"))
    return pd.Series([text(*each) for each in zip(*columns, strict=True)], rows.index, dtype=object)


FOOTER = (
    ("Each recording counts once; intervals are 95 % over test recordings (bootstrap), none with fewer than six. They do "
     "not cover the draw of the recordings that the probe learned from; --seeds draws others."),
    ("Mean pixels, one frame (held for the whole clip) and the mean of four single frames cannot see time; random weights "
     "are of the same shape of model. In halves and arrow both labels show the same frames, so mean pixels and the mean of "
     "frames are right in exactly half of the clips. In speed they show other frames, and mean pixels may tell a little."),
    ("Oracle: a feature that holds the time of each frame. Pixel change: how much differs from frame to frame. It sees the "
     "cut in a swapped clip of halves, and in halves-apart, where both clips have a cut, which one is larger; so may a "
     "model, and only what it is ahead of pixel change is more than that."),
    "A model that sees one frame at a time looks at clips as `mean of frames` does.")
