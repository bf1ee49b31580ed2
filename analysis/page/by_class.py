"""Accuracy class by class, and what each class is taken for, from the stored predictions of one cell or of several."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.page.html import Section, Table
from vidmae.runs.accuracy import confusion, per_class_pct
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder

TITLE = "Accuracy by class"
MOST_OPEN = 30


def by_class(found: Sequence[Predictions]) -> pd.DataFrame:
    """A row for each class that has clips, the hardest first; accuracies are means over cells that saw the same clips.

    Returns:
        Columns class, clips (of one cell), top1_pct, top5_pct, taken_for (the other class that is said most often, missing
        where there is none), taken_for_pct, taken (clips of all cells).
    """
    names, matrix = found[0].classes, np.sum([confusion(predictions) for predictions in found], axis=0)
    wrong = matrix - np.diag(np.diag(matrix))
    taken, clips = wrong.max(axis=1), matrix.sum(axis=1)
    top1_pct, top5_pct = (np.mean([per_class_pct(predictions, k) for predictions in found], axis=0) for k in (1, 5))
    table = pd.DataFrame({"class": names, "clips": clips // len(found), "top1_pct": top1_pct, "top5_pct": top5_pct,
                          "taken_for": names[wrong.argmax(axis=1)], "taken_for_pct": 100 * taken / clips.clip(1)})
    table.loc[taken == 0, ["taken_for", "taken_for_pct"]] = None
    return table.assign(taken=taken)[clips > 0].sort_values(["top1_pct", "top5_pct"], kind="stable")


def section_of(run: RunFolder) -> list[Section]:
    """A table of the classes of the validation clips; nothing where there are no predictions."""
    try:
        table = by_class([Predictions.read(run.predictions)])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        return [Section(TITLE, [f"predictions.npz cannot be read ({type(error).__name__})."])]
    cells = pd.DataFrame({
        "class": table["class"], "mostly mistaken for": table["taken_for"].fillna("--"),
        "mistaken, clips": table["taken"].astype(str), "clips": table["clips"].map("{:,}".format),
        "top-1, %": table["top1_pct"].map("{:.1f}".format), "top-5, %": table["top5_pct"].map("{:.1f}".format)})
    return [Section(TITLE, tables=[Table("Classes, the hardest first", cells, 2, folded=len(cells) > MOST_OPEN)])]
