"""Put runs beside each other, and beside released logs: settings that differ, losses over epochs, results.

    python analysis/compare.py s-vith14 s-vith14-448
    python analysis/compare.py s-vith14 s_0.1 say                  # with published losses: is my loss right?
    python analysis/compare.py s-vith14 mae_st/models/old/s/s_log.txt --out tables

RUN is the folder of a pretraining run or a few-shot cell, its name, or a start of it that fits one run alone. Instead of a
run, all but the first may be a log of the original code (JSON lines with train_loss and epoch) or the name of a published
run: s, s_0.1, say, kinetics. compare-settings has what is not the same, compare-losses the loss of some epochs and its ratio
to the first run's, compare-results accuracy, speed and cost. Losses that do not measure the same thing are named. Standard
output is the paths of the files. No file names of footage stand in them.

Exit codes: 0 ok, 2 no such run or log, or no place to write, 3 a run has no loss yet.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from analysis.results.table_flags import Parser, add_runs_dir, add_tables_output
from vidmae.settings.command_line import text_of

MOST_ROWS = 40


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("first", metavar="RUN", help="run folder, name of a run, or the start of one")
    what.add_argument("others", nargs="+", metavar="RUN|LOG|PUBLISHED",
                      help="further runs, logs of the original code (*.txt), or names of published runs")
    add_runs_dir(what)
    add_tables_output(parser, numbers="losses")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    from analysis.page.beside import curve_of, read  # here, since pandas and matplotlib take a second
    from analysis.page.dossier import Dossier
    from analysis.results.frames import records_of
    from analysis.results.loss_curves import LossCurve
    from analysis.tables.comparing import compared
    from analysis.tables.sheet import show, write

    try:
        things = compared.lettered([read(word, args.runs_dir) for word in (args.first, *args.others)])
        if not isinstance(things["A"], Dossier):
            raise ValueError(f"{args.first} is no run of yours; the first one must be, and the others are compared with it")
        runs = {letter: thing for letter, thing in things.items() if isinstance(thing, Dossier)}
        curves, without = dict[str, LossCurve](), list[str]()
        for letter, thing in things.items():
            try:
                curves[letter] = curve_of(thing) if isinstance(thing, Dossier) else thing
            except ValueError as error:
                without.append(str(error))
        tables = [compared.results_sheet(runs)]
        tables += [compared.losses_sheet(curves)] if curves else []
        tables += [compared.settings_sheet(runs)] if len(runs) > 1 else []
        files = write(tables, args.out)
        if curves and not args.no_figures:
            from analysis.tables.comparing.compare_figure import draw

            files += draw(curves, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    show(tables, MOST_ROWS)
    for run in runs.values():
        for line in run.damaged:
            print(f"note: {run.name}: {line}", file=sys.stderr)
    for line in without:
        print(f"missing: {line}", file=sys.stderr)
    losses = next((sheet.records for sheet in tables if sheet.name == "compare-losses"), None)
    print(json.dumps({"files": list(map(str, files)), "missing": without,
                      "losses": [] if losses is None else records_of(losses, list(losses))}) if args.json
          else "\n".join(map(str, files)))
    return 3 if without else 0


if __name__ == "__main__":
    sys.exit(main())
