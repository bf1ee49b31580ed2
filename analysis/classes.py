"""Accuracy of every class, and what it is taken for: from the stored predictions of one cell, or of several seeds of it.

    python analysis/classes.py s-vith14-ssv2-10shot-seed0-finetune
    python analysis/classes.py runs/s-vith14-ssv2-10shot-seed*-finetune-* --out tables/classes
    python analysis/classes.py runs/s-vith14-ssv2-10shot-seed*-finetune-* --factors --classes ssv2_developmental

Writes classes.{csv,md,tex} and confusion.{csv,png,svg}: the clips by true class (rows) and by the class that was said
(columns); the picture has shares of the clips of each true class.
Several cells must have been tested on the same clips: accuracies are their means, the confusion matrix is their sum.
--factors says what hard classes have in common: factors.{csv,md,tex,png,svg} have a regression of the accuracy of classes on
how much moves, how the camera moves, how long the clips are, whether a hand is at a thing (by the label's grammar), and how
many clips were learned from; with --classes also whether a class is in it, so that what remains of its gap is seen. The test
clips are measured once; OUT/features-*.csv keeps that, without names, and the same command reads it again.
Standard output is the paths of the files; standard error has the tables, the hardest class first.

Exit codes: 0 ok, 1 clips could not be measured, 2 nothing to read, cells of other clips, or no place to write.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import numpy as np
import pandas as pd

from analysis.page.cells import by_class
from analysis.results.subset import read_subset
from analysis.results.table_flags import Parser, add_runs_dir, number, tables_folder
from analysis.results.which_run import find_run
from analysis.tables.sheet import MISSING, Sheet, csv_text, show, write
from vidmae.ranks.local_program import CHECK_LIMIT_S
from vidmae.runs.accuracy import confusion, of_classes
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.command_line import text_of

SAME = ("content", "classes", "label")  # what cells have in common whose accuracies can be averaged
SHOWN = {"class": "class", "taken_for": "most often taken for", "clips": "clips", "top1_pct": "top-1", "top5_pct": "top-5",
         "taken_for_pct": "taken for it"}


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a cell: its id, the start of it, its folder")
    add_runs_dir(parser)
    parser.add_argument("--factors", action="store_true",
                        help="measure the test clips, and fit the accuracy of classes to what their clips are like")
    parser.add_argument("--classes", "--subset", type=Path, metavar="NAME|FILE",
                        help="with --factors: some classes, a YAML file or a name in analysis/results/subsets")
    parser.add_argument("--sample", type=number(1, 1000), default=8, metavar="N",
                        help="with --factors: moments of a clip at most, one a second at most (default: %(default)s)")
    parser.add_argument("--workers", type=number(1, 1024), default=os.cpu_count() or 1, metavar="N",
                        help="with --factors: processes that read videos (default: all %(default)s cores)")
    parser.add_argument("--time-limit-s", type=float, default=CHECK_LIMIT_S, metavar="S",
                        help="with --factors: seconds for a clip before it is left out (default: %(default)g)")
    parser.add_argument("--out", type=tables_folder, default=Path("tables/classes"), metavar="FOLDER",
                        help="where the tables go (default: %(default)s)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    more, code = list[Sheet](), 0
    try:
        if args.classes and not args.factors:
            raise ValueError("--classes is for --factors; analysis/collect.py --classes makes tables of its classes")
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
        if args.factors:
            found_files, more, code = write_factors(runs, found, args)
            files += found_files
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    show([sheet, *more])
    print("\n".join(map(str, files)))
    return code


def write_factors(runs: Sequence[Path], found: Sequence[Predictions], args: argparse.Namespace,
                  ) -> tuple[list[Path], list[Sheet], int]:
    """Measure the test clips of some cells and fit the accuracy of their classes; the files, the table, and the exit code.

    Raises:
        ValueError: The clips are not those of the cells, or the subset cannot be used.
        OSError: The manifest of the test clips is gone.
    """
    from analysis.tables.curves.classwise.class_factors import class_factors
    from analysis.tables.curves.classwise.factor_fit import fit_factors
    from analysis.tables.curves.classwise.factor_sheets import draw_factors, factors_sheet
    from analysis.tables.survey.looking import features_of, look
    from vidmae.settings.finetune_config import FinetuneConfig
    from vidmae.settings.layers import load

    cells = [load(FinetuneConfig, RunFolder(run).config) for run in runs]
    manifest = Path(cells[0].data.val_manifest)
    chosen = list(read_subset(args.classes).classes) if args.classes else None
    if chosen:
        of_classes(found[0], chosen)  # an unknown name is an error
    make_private_folder(args.out)
    if code := look(manifest, args.out, args.sample, workers=args.workers, time_limit_s=args.time_limit_s):
        return [], [], code
    factors = class_factors(manifest, features_of(manifest, args.out, args.sample), found[0], cells, chosen)
    accuracy = by_class(found).set_index("class")["top1_pct"].reindex(factors.table.index)
    fit = fit_factors(accuracy.to_numpy(float), factors.table.drop(columns="clips"))
    sheet = factors_sheet(fit, factors.said, len(found))
    listed = factors.table.assign(top1_pct=accuracy).rename_axis("class").reset_index()
    files = write([sheet], args.out, {"factors-classes.csv": csv_text(listed)})
    return files + draw_factors(fit, args.out / "factors"), [sheet], 0


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
