"""What a few-shot cell uses of time, on its page: points that are lost where clips are shown in other ways."""

from __future__ import annotations

import pandas as pd

from analysis.page.dossier import FEWSHOT, Dossier
from analysis.page.html import Section, Table
from analysis.page.robustness_page import CLEAN, cells_of
from analysis.page.wording import discreet
from analysis.results.paired_clips import lost, share_right
from vidmae.runs.predictions import Predictions

GROUP = "time"


def use_of_time(run: Dossier) -> list[Section]:
    """A table of the conditions of time; nothing where no robustness cell beside the run tested it under them."""
    rows = []
    for record, result, cell in cells_of(run) if run.kind == FEWSHOT else ():
        of_time = [each for each in result["conditions"] if each["group"] == GROUP] if result else []
        clean = [each for each in result["conditions"] if each["text"] == CLEAN] if result else []
        if not of_time or not clean:
            continue
        try:
            before, *after = (share_right([Predictions.read(cell.conditions / each["file"])])
                              for each in (*clean, *of_time))
        except (ValueError, OSError) as error:
            return [Section("Use of time", [f"Predictions cannot be read ({type(error).__name__})."])]
        for each, (_, _, right) in zip(of_time, after, strict=True):
            points = lost(before[2], right)
            rows.append((discreet(record["cell"]["set"]), discreet(each["name"]), f"{100 * right.mean():.1f}",
                         f"{points.value:.1f}", f"{points.low:.1f} to {points.high:.1f}", f"{len(right):,}"))
    if not rows:
        return []
    columns = ["set", "clips are", "top-1, %", "points lost", "95 % interval", "clips"]
    words = [("Points of top-1 accuracy that are lost on the same clips, with intervals over clips. frames-N: so many "
              "frames, evenly spread, each held until the next; frozen: one.")]
    table = pd.DataFrame(rows, columns=columns).drop_duplicates(["set", "clips are"])
    return [Section("Use of time", words, tables=[Table("Accuracy where clips are shown in other ways", table, 2)])]
