"""Accuracy of every class, and what it is taken for: from the stored predictions of one cell, or of several seeds of it.

    python analysis/classes.py runs/s-vith14-ssv2-10shot-seed0-finetune-1a2b3c4d
    python analysis/classes.py runs/s-vith14-ssv2-10shot-seed*-finetune-* --out tables/classes

Writes classes.{csv,md,tex} and confusion.csv, the clips by true class (rows) and by the class that was said (columns).
Several cells must have been tested on the same clips: accuracies are their means, the confusion matrix is their sum.
Standard output is the paths of the files; standard error has the table, the hardest class first.

Exit codes: 0 ok, 2 nothing to read, cells of other clips, or no place to write.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.results.table_flags import Parser, tables_folder
from analysis.tables.sheets import WIDEST, Sheet, csv_text, to_console, to_csv, to_latex, to_markdown
from vidmae.runs.accuracy import confusion, per_class_pct
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, make_private_folder, write_atomic

FORMATS: dict[str, Callable[[Sheet], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a cell")
    parser.add_argument("--out", type=tables_folder, default=Path("tables/classes"), metavar="FOLDER",
                        help="where the tables go (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        found = [Predictions.read(RunFolder(run).predictions) for run in args.runs]
        _check_alike(args.runs, found)
        sheet, matrix = by_class(found), sum(confusion(predictions) for predictions in found)
        texts = {f"classes.{suffix}": form(sheet) for suffix, form in FORMATS.items()}
        texts["confusion.csv"] = confusion_csv(found[0].classes.tolist(), np.asarray(matrix))
        make_private_folder(args.out)
        for name, text in texts.items():
            write_atomic(args.out / name, text.encode(errors="backslashreplace"))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console = Console(stderr=True, highlight=False, width=WIDEST)
    console.print(Text(sheet.title, "bold"), to_console(sheet), *map(Text, sheet.footer), sep="\n")
    print("\n".join(str(args.out / name) for name in texts))
    return 0


def by_class(found: Sequence[Predictions]) -> Sheet:
    """One row per class that has clips, the hardest first."""
    names, label = found[0].classes.tolist(), found[0].label
    top1, top5 = (np.mean([per_class_pct(predictions, k) for predictions in found], axis=0) for k in (1, 5))
    matrix = np.sum([confusion(predictions) for predictions in found], axis=0)
    clips = np.bincount(label, minlength=len(names))
    order = sorted(np.flatnonzero(clips).tolist(), key=lambda i: (top1[i], top5[i], names[i]))
    records = [{"class": names[i], "clips": int(clips[i]), "top1_pct": round(float(top1[i]), 3),
                "top5_pct": round(float(top5[i]), 3), **_taken_for(matrix[i], i, names)} for i in order]
    rows = [[str(r["class"]), str(r["taken_for"] or "--"), str(r["clips"]), f"{r['top1_pct']:.1f}", f"{r['top5_pct']:.1f}",
             "--" if r["taken_for_pct"] is None else f"{r['taken_for_pct']:.1f}"] for r in records]
    columns = ("class", "most often taken for", "clips", "top-1", "top-5", "taken for it")
    return Sheet("classes", "Accuracy by class", columns, 2, rows, records,
                 [f"In %, mean over {len(found)} cells; clips of one cell."])


def _taken_for(row: np.ndarray, own: int, names: Sequence[str]) -> dict[str, object]:
    """The other class that was said most often, and of how many of the clips, in %."""
    others = row.copy()
    others[own] = 0
    most = int(others.argmax())
    if not others[most]:
        return {"taken_for": None, "taken_for_pct": None}
    return {"taken_for": names[most], "taken_for_pct": round(float(100 * others[most] / row.sum()), 3)}


def confusion_csv(names: Sequence[str], matrix: np.ndarray) -> str:
    """The confusion matrix with its class names; clips."""
    return csv_text([["true class", *names], *([name, *row] for name, row in zip(names, matrix.tolist(), strict=True))])


def _check_alike(runs: Sequence[Path], found: Sequence[Predictions]) -> None:
    for run, other in zip(runs[1:], found[1:], strict=True):
        same = np.array_equal(found[0].content, other.content) and np.array_equal(found[0].classes, other.classes)
        if not same or not np.array_equal(found[0].label, other.label):
            raise ValueError(f"{run} was tested on other clips or classes than {runs[0]}; give cells of one data set")


if __name__ == "__main__":
    sys.exit(main())
