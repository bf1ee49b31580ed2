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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.results.table_flags import Parser, tables_folder
from analysis.tables.sheets import Sheet, to_console, to_csv, to_latex, to_markdown
from vidmae.runs.record import make_private_folder, write_atomic

if TYPE_CHECKING:
    from analysis.curves.fitted_curves import Study
    from analysis.curves.series import Results

FORMATS: dict[str, Callable[[Sheet], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
WIDEST = 10_000  # characters
CLAIM_POINTS = 20.0  # what the paper expects of a hundred times as much video


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    source = what.add_mutually_exclusive_group()
    source.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER",
                        help="fit the results of the runs in this folder (default: %(default)s)")
    source.add_argument("--results", type=Path, metavar="FILE.csv", help="fit these results")
    source.add_argument("--published", action="store_true", help="fit the published results, v1 and v3")
    what.add_argument("--compare", action="append", default=[], metavar="A,B",
                      help="also compare two series, paired by task, amount and seed: contiguous,random, or two data sets, "
                           "s,say, at equal hours; may be repeated")
    what.add_argument("--axis", choices=("fraction", "hours"),
                      help="amounts of --runs (default: fraction, unless one was chosen by hours or there are several "
                           "data sets)")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=tables_folder, default=Path("tables"), metavar="FOLDER",
                     help="where tables and figures go (default: %(default)s)")
    out.add_argument("--no-figures", action="store_true", help="write tables only")
    out.add_argument("--json", action="store_true", help="one object instead of the paths: files, fits, what is missing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        results = load(args)
        studies, sheets, lost = analyse(results, args.compare)
        files = write(sheets, args.out)
        files += [] if args.no_figures else figures(studies, results, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(sheets, lost, remarks(studies, results))
    print(json.dumps({"files": list(map(str, files)), "missing": lost, "fits": sheets[0].records}) if args.json else
          "\n".join(map(str, files)))
    return 3 if lost else 0


def load(args: argparse.Namespace) -> Results:
    """The results that were asked for."""
    from analysis.curves.scaling_runs import read_runs
    from analysis.curves.series import published_results, read_results

    if args.published:
        return published_results()
    return read_results(args.results) if args.results else read_runs(args.runs, args.axis)


def analyse(results: Results, given: Sequence[str]) -> tuple[list[Study], list[Sheet], list[str]]:
    """All fits, their tables, and what is missing.

    Args:
        results: What to fit.
        given: What --compare says.
    Raises:
        ValueError: Not one task can be fitted, or the two series cannot be compared.
    """
    from analysis.curves.curve_tables import fits_sheet, left_out_sheet, seeds_sheet
    from analysis.curves.fitted_curves import study_all
    from analysis.curves.series import missing
    from analysis.curves.series_pairs import compare, paired_sheet, series_of

    pairs = [(series_of(results, first), series_of(results, second)) for first, second in map(two_series, given)]
    compared = {pair: compare(results, *pair) for pair in pairs}
    alone = [f"{first} and {second} have no task, {results.axis} and seed in common: there is nothing to compare"
             for (first, second), found in compared.items() if not found]
    studies, failed = study_all(results)
    if not studies:
        raise ValueError("; ".join(failed or results.lost) or "there is no accuracy in the results")
    sheets = [fits_sheet(studies, results), left_out_sheet(studies, results)]
    if any(len(each.by_seed) > 1 for each in studies):
        sheets.append(seeds_sheet(studies, results.whole))
    if any(compared.values()):
        sheets.append(paired_sheet(results, compared))
    return studies, sheets, missing(results) + failed + alone


def two_series(given: str) -> tuple[str, str]:
    """What --compare names.

    Raises:
        ValueError: It does not name two.
    """
    first, comma, second = (word.strip() for word in given.partition(","))
    if not comma:
        raise ValueError(f"--compare {given} is not two series, such as contiguous,random")
    return first, second


def write(sheets: Sequence[Sheet], folder: Path) -> list[Path]:
    """Write every table in every format; the paths."""
    make_private_folder(folder)
    texts = {folder / f"{sheet.name}.{suffix}": form(sheet) for sheet in sheets for suffix, form in FORMATS.items()}
    for path, text in texts.items():
        write_atomic(path, text.encode(errors="backslashreplace"))
    return list(texts)


def figures(studies: Sequence[Study], results: Results, folder: Path) -> list[Path]:
    """Draw every task; results of our own by share have the published points of the same task beside them."""
    from analysis.curves.figures import draw
    from analysis.curves.series import published_results

    theirs = published_results().rows if results.axis == "fraction" else ()
    ours = {row.series for row in results.rows}
    return draw(studies, results, folder, [row for row in theirs if row.series not in ours])


def remarks(studies: Sequence[Study], results: Results) -> list[str]:
    """What the numbers alone would hide; of published ones also what the fits make of the paper's claim."""
    from analysis.curves.fitted_curves import warnings

    said = warnings(studies, results.whole)
    groups = dict.fromkeys((each.series, each.metric) for each in studies if each.series.startswith("published"))
    return said + [on_the_claim([each for each in studies if (each.series, each.metric) == group]) for group in groups]


def on_the_claim(studies: Sequence[Study]) -> str:
    """The gains to x100 by the line in one metric, with their intervals, against the paper's about 20 points."""
    from analysis.curves.curve_tables import gain_to
    from analysis.curves.series import METRICS

    gains = {each.task: gain_to(each.line, 0.0) for each in studies}
    inside = sum(low is not None and high is not None and low <= CLAIM_POINTS <= high for _, low, high in gains.values())
    each = ", ".join(f"{task} {gain:+.1f} [{low:.1f}, {high:.1f}]" for task, (gain, low, high) in gains.items())
    return (f"{studies[0].series} {METRICS[studies[0].metric]}, points gained by x100 of the data on the line: {each}; "
            f"{CLAIM_POINTS:g} points lie within {inside} of {len(gains)} intervals")


def show(sheets: Sequence[Sheet], lost: Sequence[str], said: Sequence[str]) -> None:
    """The tables on standard error but the one of left-out amounts, which is long; never cut."""
    console = Console(stderr=True, highlight=False, width=WIDEST)
    for sheet in sheets:
        if sheet.name != "scaling-left-out":
            console.print(Text(sheet.title, "bold"), to_console(sheet), *map(Text, sheet.footer), sep="\n")
    for line in lost:
        console.print(Text(f"missing: {line}"))
    for line in said:
        console.print(Text(f"note: {line}"))


if __name__ == "__main__":
    sys.exit(main())
