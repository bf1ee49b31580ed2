"""Few-shot cells on a page: those that started from a run, beside those from scratch; a cell's accuracy class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.page.dossier import Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet
from analysis.results.scan import RUN, KnownRecords, scan
from vidmae.runs.accuracy import confusion, per_class_pct
from vidmae.runs.cell_record import Cell, Result, amount_of
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder

SCRATCH = "scratch"
MOST_ROWS = 500
MOST_OPEN = 30  # of a table of classes; a longer one is folded
TASK = ["data", "shots", "fraction", "method", "seed", "overrides", "select", "views"]
"""Cells that differ in none of these learned the same."""


def few_shot_results(run: Dossier) -> Section:
    """A table of the cells in the folder where the run lies."""
    cells, title = cells_beside(run.run.path), "Few-shot results"
    scratch = cells[cells["checkpoint"] == SCRATCH].drop_duplicates(TASK, keep="last")
    signed = cells["content"].str.startswith("run:")  # else the name of the folder says where a cell started
    mine = cells[(signed & (cells["content"] == f"run:{run.signature}") & bool(run.signature))
                 | (~signed & (cells["checkpoint"] == run.name))]
    if mine.empty:
        return Section(title, ["No few-shot cell beside this run starts from it."])
    count = mine["status"].value_counts().reindex(["found", "missing", "failed"], fill_value=0)
    words = [f"Cells: {len(mine)}; done: {count['found']}, without a result: {count['missing']}, failed: {count['failed']}.",
             ("Intervals are over the validation clips of one cell, not over seeds. Scratch: top-1 of the cell that has the "
              "same settings and starts from no weights.")]
    caption = "Accuracy of the cells" + (f", the first {MOST_ROWS}" if len(mine) > MOST_ROWS else "")
    beside = mine[:MOST_ROWS].merge(scratch[[*TASK, "top1_pct"]], how="left", on=TASK, suffixes=("", "_scratch"))
    return Section(title, words, tables=[Table(caption, texts_of(beside), 7)])


def cells_beside(run: Path) -> pd.DataFrame:
    """Every few-shot cell in the folder of a run: what `Cell` and `Result` say of it, and its status."""
    folders = [path for path in run.absolute().parent.iterdir() if path != run and (path / RUN).is_file()]
    found = [{**vars(each.cell), **(vars(each.result) if each.result else {}), "status": each.status}
             for each in scan(folders, KnownRecords(None)) if each.cell]
    found.sort(key=lambda row: (row["data"], row["method"], row["overrides"], row["shots"] or 10**9, row["fraction"] or 1,
                              row["seed"]))
    return pd.DataFrame(found, columns=[field.name for kind in (Cell, Result) for field in fields(kind)] + ["status"])


def texts_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells as the page shows them."""
    pct = cells[["top1_pct", "top5_pct", "top1_pct_scratch"]].map("{:.2f}".format, na_action="ignore")
    ends = cells["top1_ci_pct"].map(lambda ends: f"{ends[0]:.2f} to {ends[1]:.2f}", na_action="ignore")
    settings = cells["overrides"].map(lambda pairs: discreet(", ".join(f"{key}={value}" for key, value in pairs)) or "--")
    shown = pd.DataFrame({
        "data": cells["data"].map(discreet),
        "shots": np.where(cells["method"] == "cluster", "none", list(map(amount_of, cells["shots"], cells["fraction"]))),
        "method": cells["method"], "seed": cells["seed"], "settings": settings, "selection": cells["select"],
        "views": cells["views"], "top-1, %": pct["top1_pct"],
        "95 % interval": ends.where(cells["status"] == "found", cells["status"]), "top-5, %": pct["top5_pct"],
        "scratch, %": pct["top1_pct_scratch"]})
    return shown.astype(object).where(shown.notna(), "--")


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


def accuracy_by_class(run: RunFolder) -> list[Section]:
    """A table of the classes of the validation clips; nothing where there are no predictions."""
    title = "Accuracy by class"
    try:
        table = by_class([Predictions.read(run.predictions)])
    except FileNotFoundError:
        return []
    except (ValueError, OSError) as error:
        return [Section(title, [f"predictions.npz cannot be read ({type(error).__name__})."])]
    cells = pd.DataFrame({
        "class": table["class"], "mostly mistaken for": table["taken_for"].astype(object).fillna("--"),
        "mistaken, clips": table["taken"].astype(str), "clips": table["clips"].map("{:,}".format),
        "top-1, %": table["top1_pct"].map("{:.1f}".format), "top-5, %": table["top5_pct"].map("{:.1f}".format)})
    return [Section(title, tables=[Table("Classes, the hardest first", cells, 2, folded=len(cells) > MOST_OPEN)])]
