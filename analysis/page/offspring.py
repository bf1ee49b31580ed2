"""The few-shot cells that started from a run, each beside the cell that learned the same from scratch."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pandas as pd

from analysis.page.dossier import Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet
from analysis.results.cell_record import Cell, Result
from analysis.results.scan import RUN, KnownRecords, scan

SCRATCH = "scratch"
MOST_ROWS = 500
TASK = ["data", "shots", "method", "seed", "overrides", "select", "views"]  # cells that differ in none learned the same


def section_of(run: Dossier) -> Section:
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
    """Every few-shot cell in the folder of a run: what `Cell` and `Result` say, and its status; by data, method, shots, seed."""
    folders = [path for path in run.absolute().parent.iterdir() if path != run and (path / RUN).is_file()]
    found = [{**vars(each.cell), **(vars(each.result) if each.result else {}), "status": each.status}
             for each in scan(folders, KnownRecords(None)) if each.cell]
    found.sort(key=lambda row: (row["data"], row["method"], row["overrides"], row["shots"] or 10**9, row["seed"]))
    return pd.DataFrame(found, columns=[field.name for kind in (Cell, Result) for field in fields(kind)] + ["status"])


def texts_of(cells: pd.DataFrame) -> pd.DataFrame:
    """Cells as the page shows them."""
    pct = cells[["top1_pct", "top5_pct", "top1_pct_scratch"]].map("{:.2f}".format, na_action="ignore")
    ends = cells["top1_ci_pct"].map(lambda ends: f"{ends[0]:.2f} to {ends[1]:.2f}", na_action="ignore")
    settings = cells["overrides"].map(lambda pairs: discreet(", ".join(f"{key}={value}" for key, value in pairs)) or "--")
    return pd.DataFrame({
        "data": cells["data"].map(discreet), "shots": cells["shots"].map(lambda shots: str(shots or "all")),
        "method": cells["method"], "seed": cells["seed"], "settings": settings, "selection": cells["select"],
        "views": cells["views"], "top-1, %": pct["top1_pct"],
        "95 % interval": ends.where(cells["status"] == "found", cells["status"]), "top-5, %": pct["top5_pct"],
        "scratch, %": pct["top1_pct_scratch"]}).fillna("--")
