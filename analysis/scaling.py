"""How accuracy grows with the amount of pretraining video, and what a hundred times as much would buy, with intervals.

    python analysis/scaling.py
    python analysis/scaling.py --published
    python analysis/scaling.py --results scaling.csv --compare contiguous,random
    python analysis/scaling.py --compare s,say

Fits accuracy = a + b log10(amount), a power law with a ceiling and a logistic curve to each task, compares them by AICc and
by leaving out each amount, and carries them on to x10 and x100. Results are those of the few-shot runs in runs/ whose
checkpoint was pretrained on a fraction; --published takes the paper's own numbers, child S and its fractions; --results is
CSV with the columns fraction (or hours), task, seed, top1_pct and, as there are, top5_pct, series.
Standard output is the paths of the files that were written: tables as CSV, Markdown and LaTeX, a figure per task as PNG and
SVG; standard error has the table of fits, and what is missing.

Exit codes: 0 ok, 2 nothing to fit or no place to write, 3 results are missing, or a task has too few amounts for a fit.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from analysis.results.table_flags import Parser, add_tables_output
from vidmae.settings.command_line import text_of


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--runs-dir", "--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="fit the results of the runs in this folder (default: %(default)s)")
    source.add_argument("--results", type=Path, metavar="FILE.csv", help="fit these results")
    source.add_argument("--published", action="store_true", help="fit the published results, v1 and v3")
    what.add_argument("--compare", action="append", default=[], metavar="A,B",
                      help="also compare two series, paired by task, amount and seed: contiguous,random, or two data sets, "
                           "s,say, at equal hours; may be repeated")
    what.add_argument("--axis", choices=("fraction", "hours"),
                      help="amounts of --runs (default: fraction, unless one was chosen by hours or there are several "
                           "data sets)")
    add_tables_output(parser, numbers="fits")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    from analysis.results.frames import records_of
    from analysis.tables.curves.results_csv import read_results  # here, since pandas, scipy and matplotlib take 2 s
    from analysis.tables.curves.scaling_runs import read_runs
    from analysis.tables.curves.scaling_study import analyse, remarks
    from analysis.tables.curves.series import published_results
    from analysis.tables.sheet import show, write

    try:
        results = published_results() if args.published else \
            read_results(args.results) if args.results else read_runs(args.runs_dir, args.axis)
        studies, sheets, lost = analyse(results, args.compare)
        files = write(sheets, args.out)
        if not args.no_figures:
            from analysis.tables.curves.figures import draw

            files += draw(studies, results, args.out, published_results().points)
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    show([sheet for sheet in sheets if sheet.name != "scaling-left-out"])  # which is long
    for line in (*(f"missing: {line}" for line in lost), *(f"note: {line}" for line in remarks(studies, results))):
        print(line, file=sys.stderr)
    fits = sheets[0].records
    print(json.dumps({"files": list(map(str, files)), "missing": lost, "fits": records_of(fits, list(fits))}) if args.json
          else "\n".join(map(str, files)))
    return 3 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
