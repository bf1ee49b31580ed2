"""A few-shot cell's accuracy class by class, and what each class is taken for."""

from __future__ import annotations

import zipfile

import numpy as np

from analysis.page.html import Section, Table
from vidmae.runs.accuracy import confusion, per_class_pct
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder

TITLE = "Accuracy by class"
COLUMNS = ("class", "mostly mistaken for", "mistaken, clips", "clips", "top-1, %", "top-5, %")
MOST_OPEN = 30


def section_of(run: RunFolder) -> list[Section]:
    """A table of the classes of the validation clips, the hardest first; nothing where there are no predictions."""
    try:
        predictions = Predictions.read(run.predictions)
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        return [Section(TITLE, [f"predictions.npz cannot be read ({type(error).__name__})."])]
    table, top1, top5 = confusion(predictions), per_class_pct(predictions, 1), per_class_pct(predictions, 5)
    clips, wrong = table.sum(1), table - np.diag(np.diag(table))
    rows = []
    for place in sorted(np.flatnonzero(clips), key=lambda place: (top1[place], top5[place])):
        other = int(wrong[place].argmax())
        mistaken = int(wrong[place, other])
        rows.append([str(predictions.classes[place]), str(predictions.classes[other]) if mistaken else "--", f"{mistaken}",
                     f"{clips[place]:,}", f"{top1[place]:.1f}", f"{top5[place]:.1f}"])
    return [Section(TITLE, tables=[Table("Classes, the hardest first", COLUMNS, rows, 2, folded=len(rows) > MOST_OPEN)])]
