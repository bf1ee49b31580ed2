"""Tables of what models use of time: by condition, by class, video model against image model."""

from __future__ import annotations

import pandas as pd

from analysis.results.guessing import BLIND, NOTHING_TO_LOSE
from analysis.tables.curves.robust.robust_runs import CLEAN
from analysis.tables.curves.robust.time_study import CONDITIONS, FRAMES, FROZEN, ORDER, REVERSED, SHUFFLED
from analysis.tables.sheet import MISSING, Sheet, texts

OVER_CLIPS = ("Intervals are 95 % over clips (paired bootstrap), not over seeds or labelled clips; a clip counts with the "
              "share of seeds in which it was right.")
HOW = ("Fewer frames: the clip is cut into so many stretches of equal length, and the frame at the middle of each is shown "
       "for all of it; one is the frozen clip. The model gets as many frames as it was trained with; where half of them are "
       "held, both frames of a token of two are alike.")
KEPT = f"Kept: of the points above guessing; -- where clean accuracy is not above guessing (95 %). {NOTHING_TO_LOSE}"
BY_FRAME = "{}: sees clips frame by frame (views framesN), so that only the choice of frames can matter, not their order."


def drops_sheet(frame: pd.DataFrame) -> Sheet:
    """A row per set, model and condition."""
    shown = pd.DataFrame({
        "set": frame["set"], "model": frame["model"],
        "clip": frame["condition"].map(lambda name: CONDITIONS.get(name, "as it is")),
        "top-1, %": texts(frame["pct"], ".1f"), "lost, points [95 %]": points_texts(frame, "lost_points", "low", "high"),
        "kept above chance, %": texts(frame["kept_above_chance_pct"], ".0f"), "clips": frame["clips"].map("{:,}".format),
        "seeds": frame["seeds"].map(str)})
    clean = frame["condition"] == CLEAN
    shown.loc[clean, "lost, points [95 %]"] = MISSING
    models = frame.drop_duplicates("model")
    footer = [HOW, OVER_CLIPS, KEPT,
              *(BY_FRAME.format(row.model) for row in models.itertuples() if row.by_frame),
              *(BLIND.format(row.model) for row in models.itertuples() if row.num_frames == 1 and not row.by_frame)]
    return Sheet("time", "What models use of time", shown, 3, frame, footer)


def classes_sheet(frame: pd.DataFrame) -> Sheet:
    """A row per set, model and class."""
    shown = frame[["set", "model", "class", "lives_on"]].rename(columns={"lives_on": "lives on"})
    if "reversed_taken_for" in frame and frame["reversed_taken_for"].notna().any():
        shown["backwards taken for"] = frame["reversed_taken_for"].astype(object).fillna(MISSING)
    words = shown.shape[1]
    shown = shown.assign(clips=frame["clips"].map(str), **{"top-1, %": texts(frame["clean_pct"], ".1f")})
    for name in (SHUFFLED, REVERSED, FROZEN):
        if f"{name}_points" in frame:
            ends = (f"{name}_{end}" for end in ("points", "low", "high"))
            shown[f"{CONDITIONS[name]}, points lost"] = points_texts(frame, *ends)
    footer = [(f"Lives on: {ORDER}, where the interval of shuffled or reversed lies above 0; {FRAMES}, where that of frozen "
               f"does alone; {MISSING} is no evidence, not evidence of none."), OVER_CLIPS]
    for (test_set, model), own in frame.groupby(["set", "model"], sort=False):
        found = [int((own["lives_on"] == kind).sum()) for kind in (ORDER, FRAMES)]
        chance = [by_chance(own, SHUFFLED, REVERSED), by_chance(own, FROZEN)]
        footer.append(f"{model} on {test_set}: of {len(own)} classes {found[0]} live on {ORDER}, {found[1]} on {FRAMES}; "
                      f"each interval lies above 0 by chance alone 1 time in 40: {chance[0]:.1f} classes for {ORDER}, "
                      f"{chance[1]:.1f} for {FRAMES}.")
    return Sheet("time-classes", "Which classes live on time", shown, words, frame, footer)


def by_chance(frame: pd.DataFrame, *conditions: str) -> float:
    """Classes of a model whose interval lies above 0 by chance alone, for at least one of some conditions; at most."""
    return sum(int(frame[f"{name}_low"].notna().sum()) for name in conditions if f"{name}_low" in frame) / 40


def against_images_sheet(frame: pd.DataFrame) -> Sheet | None:
    """A row per set, pair and condition; None where there is no pair."""
    if frame.empty:
        return None
    shown = pd.DataFrame({
        "set": frame["set"], "video model": frame["video"], "image model": frame["image"],
        "clip": frame["condition"].map(CONDITIONS),
        "video loses": texts(frame["video_lost_points"], ".1f"),
        "image loses": texts(frame["image_lost_points"], ".1f"),
        "more, points [95 %]": points_texts(frame, "apart_points", "low", "high"),
        "clips": frame["clips"].map("{:,}".format)})
    return Sheet("time-paired", "What video models lose more than image models", shown, 4, frame, [
        "What an image model loses comes from the choice of frames; what a video model loses beyond it, from time.",
        OVER_CLIPS])


def points_texts(frame: pd.DataFrame, value: str, low: str, high: str) -> pd.Series:
    """`12.3 [4.5, 20.1]`; without an interval where clips are too few."""
    return pd.Series([MISSING if pd.isna(v) else f"{v:.1f}" if pd.isna(lo) else f"{v:.1f} [{lo:.1f}, {hi:.1f}]"
                      for v, lo, hi in zip(frame[value], frame[low], frame[high], strict=True)], frame.index, dtype=object)
