"""The few-shot cells that started from a run, each beside the cell that learned the same from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.page.dossier import Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet
from analysis.results.cell_record import Cell
from analysis.results.scan import RUN, KnownRecords, Run, scan

SCRATCH = "scratch"
MOST_ROWS = 500
COLUMNS = ("data", "shots", "method", "seed", "settings", "selection", "views", "top-1, %", "95 % interval", "top-5, %",
           "scratch, %")


def section_of(run: Dossier) -> Section:
    """A table of the cells in the folder where the run lies."""
    cells = [each for each in cells_beside(run.run.path) if each.cell]
    mine = sorted((each for each in cells if each.cell and starts_from(each.cell, run.name, run.signature)), key=_order)
    if not mine:
        return Section("Few-shot results", ["No few-shot cell beside this run starts from it."])
    scratch = {_task(each.cell): each for each in cells if each.cell and each.cell.checkpoint == SCRATCH}
    rows = [row_of(each, scratch) for each in mine[:MOST_ROWS]]
    count = {status: sum(each.status == status for each in mine) for status in ("found", "missing", "failed")}
    words = [f"Cells: {len(mine)}; done: {count['found']}, without a result: {count['missing']}, failed: {count['failed']}.",
             ("Intervals are over the validation clips of one cell, not over seeds. Scratch: top-1 of the cell that has the "
              "same settings and starts from no weights.")]
    caption = "Accuracy of the cells" + (f", the first {MOST_ROWS}" if len(mine) > MOST_ROWS else "")
    return Section("Few-shot results", words, tables=[Table(caption, COLUMNS, rows, 7)])


def cells_beside(run: Path) -> list[Run]:
    """Every few-shot cell in the folder of a run."""
    folders = [path for path in run.absolute().parent.iterdir() if path != run and (path / RUN).is_file()]
    return scan(folders, KnownRecords(None))


def starts_from(cell: Cell, name: str, signature: str) -> bool:
    """By the signature of the run, where a cell has one; else by the name of its folder."""
    if cell.content.startswith("run:"):
        return bool(signature) and cell.content == f"run:{signature}"
    return cell.checkpoint == name


def row_of(each: Run, scratch: dict[tuple[object, ...], Run]) -> list[str]:
    """A cell as a line."""
    cell, result = each.cell, each.result
    assert cell is not None
    settings = discreet(", ".join(f"{key}={value}" for key, value in cell.overrides)) or "--"
    named = [discreet(cell.data), str(cell.shots or "all"), cell.method, str(cell.seed), settings, cell.select, cell.views]
    other = scratch.get(_task(cell))
    theirs = f"{other.result.top1_pct:.2f}" if other and other.result else "--"
    if result is None:
        return [*named, "--", each.status, "--", theirs]
    ends = f"{result.top1_ci_pct[0]:.2f} to {result.top1_ci_pct[1]:.2f}" if result.top1_ci_pct else "--"
    return [*named, f"{result.top1_pct:.2f}", ends, f"{result.top5_pct:.2f}", theirs]


def _task(cell: Cell | None) -> tuple[object, ...]:
    assert cell is not None
    return cell.data, cell.shots, cell.seed, cell.method, cell.overrides, cell.select, cell.views


def _order(each: Run) -> tuple[Any, ...]:
    assert each.cell is not None
    return each.cell.data, each.cell.method, each.cell.overrides, each.cell.shots or 10**9, each.cell.seed
