"""The table of a dense sweep: models and controls on each set, and how far each model is ahead of random weights.

Written as Markdown for people, and as CSV with a line for every score. No torch here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmae.evaluate.dense.dense_summary import JF, Measured, apart, summarise
from vidmae.runs.record import RunFolder, make_private_folder, read_json, write_atomic

NAME = "dense"
TITLE = "Dense probes"
SHOWN = {JF: "J&F", "j_mean_pct": "J", "f_mean_pct": "F", "first_delta_pct": "points: delta", "first_aj_pct": "AJ",
         "first_occlusion_pct": "occlusion accuracy"}
AHEAD = (JF, "first_delta_pct")  # of random weights
COLUMNS = ("model", "set", "score", "pct", "low", "high", "sequences", "minus_random", "minus_random_low",
           "minus_random_high")
FOOTER = ("In %; in brackets 95 % intervals over sequences (six or more). J and F: masks of the first frame, carried on. "
          "Delta, AJ and occlusion accuracy: points, asked for where they are first seen. oracle and ceiling know the "
          "truth, oracle in cells of 2 and 4 px, ceiling in those of the model; static and mean know nothing of motion.")


@dataclass(frozen=True)
class Line:
    """A finished cell.

    Attributes:
        model: What the table calls it.
        test_set: The set.
        run: Its folder.
        random: Folder of the cell of the same set with random weights of the same shape; None for controls.
    """

    model: str
    test_set: str
    run: RunFolder
    random: RunFolder | None = None


def records_of(run: RunFolder) -> list[dict[str, Any]]:
    """The records of the sequences of a cell, in order."""
    return [record for path in sorted((run.path / "sequences").glob("[0-9]*.json")) if (record := read_json(path))]


def make_table(lines: Sequence[Line]) -> tuple[str, str]:
    """Markdown and CSV.

    Args:
        lines: Finished cells in the order of the table.
    """
    rows: list[list[str]] = []
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    for line in lines:
        records = records_of(line.run)
        scores = summarise(records)
        others = records_of(line.random) if line.random else None
        ahead = {name: apart(records, others, name) for name in scores} if others else {}
        for name, score in scores.items():
            more = ahead.get(name)
            table.writerow([line.model, line.test_set, name, *_plain(score), score.sequences,
                            *(_plain(more) if more else [""] * 3)])
        rows.append([line.model, line.test_set, *(_text(scores.get(name)) for name in SHOWN),
                     *(_text(ahead.get(name), "+") for name in AHEAD)])
    heads = ["model", "set", *SHOWN.values(), *(f"{SHOWN[name].removeprefix('points: ')} minus random" for name in AHEAD)]
    filled = [i for i in range(len(heads)) if i < 2 or any(row[i] != "--" for row in rows)]
    text = [" | ".join(row[i] for i in filled) for row in (heads, ["---", "---", *["---:"] * (len(heads) - 2)], *rows)]
    return "\n".join([f"**{TITLE}**", "", *(f"| {row} |" for row in text), "", f"- {FOOTER}", ""]), out.getvalue()


def write_table(lines: Sequence[Line], folder: Path) -> tuple[str, list[Path]]:
    """Write both forms; the Markdown, and the paths.

    Raises:
        OSError: They cannot be written.
    """
    markdown, values = make_table(lines)
    make_private_folder(folder)
    files: Mapping[Path, str] = {folder / f"{NAME}.csv": values, folder / f"{NAME}.md": markdown}
    for path, text in files.items():
        write_atomic(path, text.encode())
    return markdown, list(files)


def _plain(score: Measured) -> list[str]:
    return ["" if value is None else f"{value:.4f}" for value in (score.pct, score.low, score.high)]


def _text(score: Measured | None, sign: str = "") -> str:
    if score is None:
        return "--"
    interval = "" if score.low is None else f" [{score.low:{sign}.1f}, {score.high:{sign}.1f}]"
    return f"{score.pct:{sign}.1f}{interval}"
