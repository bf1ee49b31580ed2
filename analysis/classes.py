"""Accuracy of every class, and what it is taken for: from the stored predictions of one cell, or of several seeds of it.

    python analysis/classes.py s-vith14-ssv2-10shot-seed0-finetune
    python analysis/classes.py runs/s-vith14-ssv2-10shot-seed*-finetune-* --out tables/classes

Writes classes.{csv,md,tex} and confusion.{csv,png,svg}: the clips by true class (rows) and by the class that was said
(columns); the picture has shares of the clips of each true class.
Several cells must have been tested on the same clips: accuracies are their means, the confusion matrix is their sum.
Standard output is the paths of the files; standard error has the table, the hardest class first.

Exit codes: 0 ok, 2 nothing to read, cells of other clips, or no place to write.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import numpy as np
import pandas as pd

from analysis.page.cells import by_class
from analysis.results.table_flags import Parser, add_runs_dir, tables_folder
from analysis.results.which_run import find_run
from analysis.tables.sheet import MISSING, Sheet, show, write
from vidmae.runs.accuracy import confusion
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder
from vidmae.settings.command_line import text_of

SAME = ("content", "classes", "label")  # what cells have in common whose accuracies can be averaged
SHOWN = {"class": "class", "taken_for": "most often taken for", "clips": "clips", "top1_pct": "top-1", "top5_pct": "top-5",
         "taken_for_pct": "taken for it"}


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a cell: its id, the start of it, its folder")
    add_runs_dir(parser)
    parser.add_argument("--out", type=tables_folder, default=Path("tables/classes"), metavar="FOLDER",
                        help="where the tables go (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        runs = [find_run(given, args.runs_dir) for given in args.runs]
        if lacking := [run for run in runs if not RunFolder(run).predictions.is_file()]:
            raise ValueError(f"{lacking[0]} has no predictions.npz: it is not the folder of a cell that is done")
        found = [Predictions.read(RunFolder(run).predictions) for run in runs]
        for run, other in zip(runs, found, strict=True):
            if not all(np.array_equal(getattr(found[0], name), getattr(other, name)) for name in SAME):
                raise ValueError(f"{run} was tested on other clips or classes than {runs[0]}; give cells of one data "
                                 "set")
        sheet, names = sheet_of(found), found[0].classes
        matrix = pd.DataFrame(sum(map(confusion, found)), index=names, columns=names)
        files = write([sheet], args.out, {"confusion.csv": matrix.to_csv(index_label="true class", lineterminator="\n")})
        from analysis.tables.confusion_figure import draw_confusion  # matplotlib takes 0.3 s, and --help needs none

        files += draw_confusion(matrix, args.out / "confusion")
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    show([sheet])
    print("\n".join(map(str, files)))
    return 0


def sheet_of(found: Sequence[Predictions]) -> Sheet:
    """One row per class that has clips, the hardest first."""
    table = by_class(found).sort_values(["top1_pct", "top5_pct", "class"]).drop(columns="taken")
    records = table.assign(**table.select_dtypes("float").map(round, ndigits=3))
    shown = records[[*SHOWN]].rename(columns=SHOWN)
    texts = shown.map(lambda value: f"{value:.1f}" if isinstance(value, float) else str(value)).where(shown.notna(), MISSING)
    footer = [f"In %, mean over {len(found)} cells; clips of one cell."]
    return Sheet("classes", "Accuracy by class", texts, 2, records, footer)


if __name__ == "__main__":
    sys.exit(main())
