"""Robustness on the page of a run: the cells that tested a few-shot cell, or those that started from a pretraining run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd

from analysis.page.dossier import FEWSHOT, Dossier
from analysis.page.html import Section, Table
from analysis.page.wording import discreet, number
from vidmae.runs.record import RunFolder, read_json

KIND = "robustness"
CLEAN = "clean"
MOST_ROWS = 400
MOST_OPEN = 30  # a longer table is folded


def robustness_results(run: Dossier) -> list[Section]:
    """A table of accuracy by condition; nothing where no robustness cell beside the run tested it."""
    rows, waiting = [], 0
    for record, result, _ in cells_of(run):
        if result is None:
            waiting += 1
            continue
        clean = [each["top1_pct"] for each in result["conditions"] if each["text"] == CLEAN]
        rows += [(discreet(record["cell"]["tested"].removesuffix(f"-{record['cell']['tested_signature']}")),
                  discreet(result["set"]), discreet(each["text"]) + (", generated" if each["generated"] else ""),
                  number(each["clips"]), f"{each['top1_pct']:.2f}",
                  "{:.2f} to {:.2f}".format(*each["top1_ci_pct"]),
                  f"{100 * each['top1_pct'] / clean[0]:.1f}" if clean and clean[0] else "--")
                 for each in result["conditions"]]
    if not rows and not waiting:
        return []
    words = ["Generated: made by a rule where no published set is at hand. Kept: accuracy divided by clean accuracy."]
    words += [f"Robustness cells without a result: {waiting}."] if waiting else []
    columns = ["cell", "set", "condition", "clips", "top-1, %", "95 % interval", "kept, %"]
    table = pd.DataFrame(rows, columns=columns).drop_duplicates(["cell", "set", "condition"])
    caption = "Accuracy under conditions" + (f", the first {MOST_ROWS}" if len(table) > MOST_ROWS else "")
    tables = [Table(caption, table[:MOST_ROWS], 3, folded=len(table) > MOST_OPEN)] if rows else []
    return [Section("Robustness", words, tables=tables)]


def cells_of(run: Dossier) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None, RunFolder]]:
    """Records, results and folders of the robustness cells beside a run that belong to it; damaged ones are passed over."""
    of_cell = run.kind == FEWSHOT
    key, wanted = ("tested_signature", run.signature) if of_cell else ("checkpoint_content", f"run:{run.signature}")
    for path in sorted(run.run.path.absolute().parent.glob("*/run.json")):
        try:
            record = read_json(path) or {}
            if record.get("kind") == KIND and run.signature and (record.get("cell") or {}).get(key) == wanted:
                yield record, read_json(RunFolder(path.parent).result), RunFolder(path.parent)
        except ValueError:
            continue
