"""The tables of attention maps: their columns, and the mean ratio of each map. Numpy and scipy."""

from __future__ import annotations

import numpy as np

from vidmae.insight.attention.motion_share import MIN_AREA_SHARE
from vidmae.insight.csv_rows import Row
from vidmae.insight.paired import paired_difference

MEAN, ROLLOUT = "mean", "rollout"
COLUMNS = ("row", "clip", "content", "map", "attention_share", "area_share", "ratio", "others_ratio")
SUMMARY_COLUMNS = ("map", "clips", "recordings", "ratio", "ratio_low", "ratio_high", "others_ratio", "difference",
                   "difference_low", "difference_high")



def summary(rows: list[Row]) -> list[Row]:
    """The mean ratio of each map over the clips in which enough moves, intervals over recordings; NaN: there is none."""
    table = []
    for name in dict.fromkeys(row["map"] for row in rows):
        chosen = [row for row in rows if row["map"] == name and row["area_share"] >= MIN_AREA_SHARE]
        if not chosen:
            continue
        recordings = np.array([row["content"] for row in chosen])
        mine, usual = (np.array([row[key] for row in chosen]) for key in ("ratio", "others_ratio"))
        mean, line = paired_difference(mine, np.zeros(len(mine)), recordings), dict.fromkeys(SUMMARY_COLUMNS, float("nan"))
        line |= {"map": name, "clips": mean.clips, "recordings": mean.recordings, "ratio": mean.mean, "ratio_low": mean.low,
                 "ratio_high": mean.high}
        if np.isfinite(usual).all():  # there is more than one clip
            apart = paired_difference(mine, usual, recordings)
            line |= {"others_ratio": mean.mean - apart.mean, "difference": apart.mean, "difference_low": apart.low,
                     "difference_high": apart.high}
        table.append(line)
    return table
