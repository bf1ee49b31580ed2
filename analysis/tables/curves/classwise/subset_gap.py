"""Some classes beside all others: accuracy on both, and the difference with two intervals.

    over clips     had other clips of these very classes been tested; the classes are taken as given
    over classes   had other classes of the kind been chosen; much wider, and what a claim about a kind of action needs
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results.paired_clips import Points, apart, share_right
from analysis.results.subset import Subset
from analysis.tables.sheet import MISSING, Sheet, texts
from vidmae.insight.paired import RESAMPLES, Drawn, interval_apart
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder


@dataclass(frozen=True)
class Gap:
    """Accuracy on the chosen classes and on all others.

    Attributes:
        chosen_pct: On the clips of the chosen classes.
        rest_pct: On those of all others.
        over_clips: Chosen minus rest in percentage points, with the interval over clips.
        over_classes: Ends of the interval over classes; NaN where one of the sides has fewer than six.
        classes: That have clips, chosen and others.
        clips: The same.
    """

    chosen_pct: float
    rest_pct: float
    over_clips: Points
    over_classes: tuple[float, float]
    classes: tuple[int, int]
    clips: tuple[int, int]


def gap_between(right: np.ndarray, label: np.ndarray, chosen: np.ndarray, *, seed: int = 0) -> Gap:
    """The gap of one model.

    Args:
        right: float [N], the share of seeds in which each clip was right.
        label: int [N], its class.
        chosen: bool [C], which classes are chosen.
        seed: Of the draws.
    Raises:
        ValueError: No clip is of a chosen class, or none of another.
    """
    sides = []
    for place, wanted in enumerate((True, False)):
        mine = chosen[label] == wanted
        if not mine.any():
            raise ValueError(f"no clip is of {'a chosen' if wanted else 'any other'} class, so there is nothing to compare")
        _, which = np.unique(label[mine], return_inverse=True)
        clips = np.bincount(which)
        drawn = np.random.default_rng([seed, place]).integers(len(clips), size=(RESAMPLES, len(clips)))
        hits = np.bincount(which, weights=right[mine])[drawn].sum(axis=1)
        draws = 100 * hits / clips[drawn].sum(axis=1)
        sides.append((right[mine], Drawn(100 * float(right[mine].mean()), draws, len(clips))))
    (one, of_one), (other, of_other) = sides
    return Gap(of_one.value, of_other.value, apart(one, other, seed=seed), interval_apart(of_one, of_other),
               (of_one.units, of_other.units), (len(one), len(other)))


def gap_of(found: Sequence[Predictions], names: Sequence[str]) -> Gap:
    """The gap of a model from what its seeds said of the same clips; `names` are the chosen classes.

    Raises:
        ValueError: The seeds were tested on other clips, or one of the sides has none.
    """
    _, label, right = share_right(found)
    return gap_between(right, label, np.isin(found[0].classes, list(names)))


def gap_sheet(runs: pd.DataFrame, subset: Subset) -> tuple[Sheet | None, list[str]]:
    """A row per row and task of the tables: the subset, all other classes, and the difference; and what could not be said.

    Args:
        runs: The few-shot runs in rows (`run_rows.in_rows`).
        subset: The choice.
    """
    records, lost = [], []
    done = runs[runs["row"].notna() & runs["top1_pct"].notna()]
    for (row, task), own in done.groupby(["row", "task"], sort=False):
        try:
            found = [Predictions.read(RunFolder(Path(run)).predictions) for run in own["run"]]
            gap = gap_of(found, list(subset.classes))
        except (ValueError, OSError) as error:
            lost.append(f"{row} on {task}: no complement of {subset.name}: {error}")
            continue
        records.append({
            "row": row, "task": task, "subset_pct": gap.chosen_pct, "rest_pct": gap.rest_pct,
            "gap_points": gap.over_clips.value, "clips_low": gap.over_clips.low, "clips_high": gap.over_clips.high,
            "classes_low": gap.over_classes[0], "classes_high": gap.over_classes[1],
            "subset_clips": gap.clips[0], "rest_clips": gap.clips[1],
            "subset_classes": gap.classes[0], "rest_classes": gap.classes[1], "seeds": len(found)})
    if not records:
        return None, lost
    frame = pd.DataFrame(records)
    shown = pd.DataFrame({
        "model": frame["row"], "task": frame["task"], f"{subset.name}, %": texts(frame["subset_pct"], ".2f"),
        "all other classes, %": texts(frame["rest_pct"], ".2f"), "difference": texts(frame["gap_points"], "+.2f"),
        "95 % over clips": _ends(frame, "clips"), "95 % over classes": _ends(frame, "classes"),
        "classes": frame["subset_classes"].map(str) + " / " + frame["rest_classes"].map(str),
        "clips": frame["subset_clips"].map("{:,}".format) + " / " + frame["rest_clips"].map("{:,}".format),
        "seeds": frame["seeds"].map(str)})
    title = f"Top-1 on {subset.name} classes of {subset.data} and on all others"
    return Sheet(f"gap-{subset.name}", title, shown, 2, frame, [
        "The model guesses among all classes on both sides. A clip counts with the share of seeds in which it was right.",
        ("Over clips: these very classes, other clips (bootstrap). Over classes: other classes of either kind, six or more "
         "(classes drawn with their clips); what a claim about a kind of action needs.")]), lost


def _ends(frame: pd.DataFrame, over: str) -> pd.Series:
    ends = zip(frame[f"{over}_low"], frame[f"{over}_high"], strict=True)
    return pd.Series([MISSING if np.isnan(low) else f"{low:+.2f} to {high:+.2f}" for low, high in ends], frame.index,
                     dtype=object)
