"""What a few-shot cell uses of time, on its page: points that are lost where clips are shown in other ways."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.page.dossier import FEWSHOT, Dossier
from analysis.page.html import Section, Table
from analysis.page.robustness_page import CLEAN, cells_of
from analysis.page.wording import discreet
from analysis.results.guessing import BLIND, NOTHING_TO_LOSE, above_guessing, sees_by_frame
from analysis.results.paired_clips import lost, share_right
from vidmae.runs.predictions import Predictions

GROUP = "time"
MISSING = "--"


def use_of_time(run: Dossier) -> list[Section]:
    """A table of the conditions of time; nothing where no robustness cell beside the run tested it under them."""
    rows, said = [], list[str]()
    for record, result, cell in cells_of(run) if run.kind == FEWSHOT else ():
        of_time = [each for each in result["conditions"] if each["group"] == GROUP] if result else []
        clean = [each for each in result["conditions"] if each["text"] == CLEAN] if result else []
        if result is None or not of_time or not clean:
            continue
        try:
            before, *after = (share_right([Predictions.read(cell.conditions / each["file"])])
                              for each in (*clean, *of_time))
        except (ValueError, OSError) as error:
            return [Section("Use of time", [f"Predictions cannot be read ({type(error).__name__})."])]
        test_set, views = discreet(record["cell"]["set"]), str(result.get("views") or MISSING)
        for each, (_, _, right) in zip(of_time, after, strict=True):
            points = lost(before[2], right)
            interval = f"{points.low:.1f} to {points.high:.1f}" if np.isfinite(points.low) else MISSING
            rows.append((test_set, views, discreet(each["name"]), f"{100 * right.mean():.1f}",
                         f"{points.value:.1f}", interval, f"{len(right):,}"))
        where = f"{test_set}, views {views}"
        if result["num_frames"] == 1 and not sees_by_frame(views):
            said.append(BLIND.format(where))
        if not above_guessing(100 * float(before[2].mean()), len(before[2]), 100 / result["answers"]):
            said.append(f"{where}: clean accuracy is not above guessing (95 %). {NOTHING_TO_LOSE}")
    if not rows:
        return []
    columns = ["set", "views", "clips are", "top-1, %", "points lost", "95 % interval", "clips"]
    words = [("Points of top-1 accuracy that are lost on the same clips, with intervals over clips. frames-N: so many "
              "frames, evenly spread, each held until the next; frozen: one."), *dict.fromkeys(said)]
    table = pd.DataFrame(rows, columns=columns).drop_duplicates(["set", "views", "clips are"])
    return [Section("Use of time", words, tables=[Table("Accuracy where clips are shown in other ways", table, 3)])]
