"""What models use of time: accuracy that is lost where clips are shown in another order, or with fewer frames.

    clean minus shuffled      the order of the frames
    clean minus frozen        everything that one frame does not show: motion, and what happens later or earlier
    video minus image model   of that what the choice of frames does not explain: an image model sees no order, no motion

All differences are of the same clips, paired; a clip counts with the share of seeds in which it was right.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from analysis.results.guessing import above_guessing, sees_by_frame
from analysis.results.paired_clips import Points, lost, mean_points
from analysis.tables.curves.robust.robust_runs import CLEAN, Tests, align, common_seeds, only_some
from analysis.tables.curves.robust.robust_study import chance_pct, video_image_pairs
from vidmae.settings.command_line import text_of

GROUP = "time"
CONDITIONS = {
    "frames-8": "8 frames", "frames-4": "4 frames", "frames-2": "2 frames", "frozen": "1 frame (frozen)",
    "static-pair": "first, then last", "shuffled-frames": "shuffled", "reversed": "reversed"}
"""Name of a condition to what tables say, in their order."""
SHUFFLED, REVERSED, FROZEN = "shuffled-frames", "reversed", "frozen"
ORDER, FRAMES, NOT_SHOWN = "order", "several frames", "--"
ONE_VIEW = ("center", "random")


@dataclass(frozen=True)
class Seen:
    """A model on a set, clip by clip, N clips.

    Attributes:
        model: Its name.
        test_set: Name of the set.
        frames: That the model sees at once.
        by_frame: It sees clips frame by frame (views framesN).
        seeds: How many.
        classes: Names.
        label: int [N].
        right: Name of each condition, `clean` among them, to the share of seeds in which a clip was right, [N].
        answers: Name of each condition to what was said, int [S, N].
        chance_pct: Accuracy of guessing.
    """

    model: str
    test_set: str
    frames: int
    by_frame: bool
    seeds: int
    classes: Sequence[str]
    label: np.ndarray
    right: dict[str, np.ndarray]
    answers: dict[str, np.ndarray] = field(repr=False)
    chance_pct: float
    content: np.ndarray

    @property
    def blind(self) -> bool:
        """It sees one frame of a clip, so that nothing of time can change what it says."""
        return self.frames == 1 and not self.by_frame

    def drop(self, condition: str, chosen: np.ndarray | slice = slice(None)) -> Points:
        """Points that are lost under a condition, on all clips or on some."""
        return lost(self.right[CLEAN][chosen], self.right[condition][chosen])


def seen_by(tests: Tests) -> tuple[list[Seen], list[str]]:
    """Every model on every set that was tested clean and under conditions of time; why some, or their seeds, are missing."""
    found, why = [], []
    rows = tests.rows[(tests.rows["group"] == GROUP) & tests.rows["name"].isin(CONDITIONS)]
    for (test_set, model), own in rows.groupby(["set", "model"], sort=False):
        try:
            each, some = _seen(tests, test_set, model, own)
        except (ValueError, OSError) as error:
            why.append(f"{model} on {test_set}: {text_of(error)}")
            continue
        found.append(each)
        why += [f"{model} on {test_set}: {some}"] if some else []
    return found, why


def _seen(tests: Tests, test_set: str, model: str, own: pd.DataFrame) -> tuple[Seen, str]:
    """A model on a set from its rows of time; and that some of its seeds do not count."""
    texts = {CLEAN: CLEAN, **dict(zip(own["name"], own["condition"], strict=True))}
    names = [CLEAN, *(name for name in CONDITIONS if name in texts)]
    said = {name: tests.said(model, test_set, texts[name]) for name in names}
    if not said[CLEAN]:
        raise ValueError("not tested clean, so nothing can be said to be lost")
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in said.values())))
    if not seeds:
        raise ValueError("no seed was tested under all conditions")
    every = common_seeds(own)[1]
    each = align([said[name][seed] for name in names for seed in seeds])
    block = {name: slice(i * len(seeds), (i + 1) * len(seeds)) for i, name in enumerate(names)}
    facts = own.iloc[0]
    return Seen(
        model, test_set, int(facts["num_frames"]), sees_by_frame(facts["views"]), len(seeds),
        said[CLEAN][seeds[0]].classes.tolist(), each.label,
        {name: np.mean(each.right[where], axis=0) for name, where in block.items()},
        {name: np.stack(each.answer[where]) for name, where in block.items()},
        chance_pct(tests, test_set, model), each.content), only_some(set(seeds), every) if every != set(seeds) else ""


def drops(seen: Sequence[Seen]) -> pd.DataFrame:
    """A row per set, model and condition, `clean` among them: accuracy, and points that are lost with their interval."""
    records = []
    for each in seen:
        for name, right in each.right.items():
            pct, clean = 100 * float(right.mean()), 100 * float(each.right[CLEAN].mean())
            points = each.drop(name) if name != CLEAN else Points(0.0, np.nan, np.nan)
            above = clean - each.chance_pct
            clear = above_guessing(clean, len(right), each.chance_pct)  # who guesses keeps nothing
            records.append({
                "set": each.test_set, "model": each.model, "num_frames": each.frames, "by_frame": each.by_frame,
                "condition": name, "clips": len(right), "seeds": each.seeds, "pct": pct, "lost_points": points.value,
                "low": points.low, "high": points.high, "chance_pct": each.chance_pct,
                "kept_above_chance_pct": 100 * (pct - each.chance_pct) / above if clear else np.nan})
    return pd.DataFrame(records)


def class_drops(seen: Sequence[Seen]) -> pd.DataFrame:
    """A row per set, model and class that has clips, what loses most under the `leading` condition first.

    Columns, beside accuracy and the points that are lost under each condition with their ends: `lives_on`, which is ORDER
    where the interval of shuffled or of reversed lies above 0, else FRAMES where that of frozen does, else NOT_SHOWN; and
    `reversed_taken_for`, the class that is said most often of its clips that are right forwards and wrong backwards.
    """
    records = []
    for each in seen:
        own = list[dict[str, Any]]()
        for place, name in enumerate(each.classes):
            chosen = each.label == place
            if not chosen.any():
                continue
            found = {condition: each.drop(condition, chosen) for condition in each.right if condition != CLEAN}
            record = {"set": each.test_set, "model": each.model, "class": name, "clips": int(chosen.sum()),
                      "clean_pct": 100 * float(each.right[CLEAN][chosen].mean())}
            for condition, points in found.items():
                record |= {f"{condition}_points": points.value, f"{condition}_low": points.low,
                           f"{condition}_high": points.high}
            own.append({**record, "lives_on": lives_on(found), "reversed_taken_for": _taken_for(each, place, chosen)})
        key = f"{leading(each.right)}_points"
        records += sorted(own, key=lambda row: (-row[key], row["class"]))
    return pd.DataFrame(records)


def leading(conditions: Collection[str]) -> str:
    """The condition whose loss sorts the classes: of those that were tested the one that says most."""
    return next(name for name in (FROZEN, SHUFFLED, REVERSED, *CONDITIONS) if name in conditions)


def lives_on(found: dict[str, Points]) -> str:
    """What a class is shown to need: ORDER, FRAMES or NOT_SHOWN."""
    def loses(*conditions: str) -> bool:
        return any(condition in found and found[condition].low > 0 for condition in conditions)

    return ORDER if loses(SHUFFLED, REVERSED) else FRAMES if loses(FROZEN) else NOT_SHOWN


def _taken_for(seen: Seen, place: int, chosen: np.ndarray) -> str | None:
    if REVERSED not in seen.answers:
        return None
    forwards, backwards = (seen.answers[name][:, chosen] for name in (CLEAN, REVERSED))
    wrong = backwards[(forwards == place) & (backwards != place)]
    return str(seen.classes[int(np.bincount(wrong).argmax())]) if len(wrong) else None


def video_minus_image(tests: Tests, seen: Sequence[Seen]) -> pd.DataFrame:
    """Points that a video model loses more than an image model of the same task on the same clips; a row per condition.

    Image models count that see clips frame by frame. Classes and clips must be the same.
    """
    records = []
    of = {(each.test_set, each.model): each for each in seen}
    for video, image in video_image_pairs(tests):
        for test_set in tests.sets:
            one, other = of.get((test_set, video)), of.get((test_set, image))
            if one is None or other is None or other.blind or list(one.classes) != list(other.classes):
                continue
            _, here, there = np.intersect1d(one.content, other.content, assume_unique=True, return_indices=True)
            for name in (name for name in one.right if name in other.right and name != CLEAN and len(here)):
                mine, theirs = ((each.right[CLEAN] - each.right[name])[rows] for each, rows in ((one, here), (other, there)))
                points = mean_points(mine - theirs)
                records.append({
                    "set": test_set, "video": video, "image": image, "condition": name, "clips": len(here),
                    "video_lost_points": 100 * float(mine.mean()), "image_lost_points": 100 * float(theirs.mean()),
                    "apart_points": points.value, "low": points.low, "high": points.high})
    return pd.DataFrame(records)
