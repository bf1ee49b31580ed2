"""Turn results into tables: models x tasks, top-1 and top-5 accuracy, beside the published numbers and chance.

    python analysis/collect.py
    python analysis/collect.py runs /scratch/old/runs --logs mae_st/models_finetuned
    python analysis/collect.py --subset ssv2_developmental
    python analysis/collect.py --explain s-vith14

Reads every few-shot run below the folders, runs/ where none is named: mean over seeds with a 95 % confidence interval, and
how many. Settings that differ among the runs join the name of the row, so that unlike numbers never meet in a cell. --logs
adds the logs of mae_st, JSON lines in files named {model}_{task}_log.txt, in any folders below. Few-shot tasks, whole data
sets and ImageNet have a table each, written as CSV, Markdown and LaTeX; results.csv and logs.csv list what they are made of.
Every run that was announced is expected, and every row in every column of its table. A second call reads only what is new.
Standard output is the paths of the files that were written; standard error has the tables, and what is missing or failed.

Exit codes: 0 ok, 2 nothing to read or no place to write, 3 results are incomplete: missing or failed runs, cells without a
value, or damaged logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from analysis.results.mae_st_logs import CLASSES
from analysis.results.published import Version, read_published
from analysis.results.scan import KnownRecords, scan, without_garbage_collection
from analysis.results.subset import Subset, on_subset, read_subset
from analysis.results.table_flags import Parser, tables_folder
from analysis.tables import log_rows as gather
from analysis.tables import run_rows as groups
from analysis.tables.lines import Line, Shown, make_tables, missing
from analysis.tables.listing import (
    LOG_COLUMNS,
    RUN_COLUMNS,
    Record,
    behind_logs,
    behind_runs,
    describe_log,
    describe_run,
    list_logs,
    list_runs,
    log_record,
    report_logs,
    report_runs,
    run_record,
)
from analysis.tables.log_rows import Gathered
from analysis.tables.result_table import WIDEST, Table, csv_text, to_console, to_csv, to_latex, to_markdown
from analysis.tables.run_rows import Grouped
from vidmae.runs.record import make_private_folder, write_atomic

FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
RUNS = Path("runs")
CACHE = ".known-results.json"  # in the folder of the tables
MOST_ROWS = 200  # of a table on the console; its files have all


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help=f"folders with run folders (default: {RUNS})")
    what.add_argument("--logs", type=Path, metavar="FOLDER", help="read the logs of mae_st below this folder, too")
    what.add_argument("--subset", type=Path, metavar="NAME|FILE",
                      help="accuracy on the clips of some classes: a YAML file, or a name in analysis/results/subsets")
    what.add_argument("--published", choices=("matching", "all", "none"), default="matching",
                      help="which published numbers stand beside ours (default: %(default)s)")
    what.add_argument("--explain", metavar="ROW",
                      help="list what is behind the numbers of a row, or of all rows of a model, and write nothing")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=tables_folder, default=Path("tables"), metavar="FOLDER",
                     help="where the tables go (default: %(default)s)")
    out.add_argument("--json", action="store_true",
                     help="one object instead of the paths: files, counts and lists; with --explain one object a line")
    return parser


@dataclass(frozen=True)
class Collected:
    """Everything that was read; None where it was not asked for."""

    grouped: Grouped | None
    gathered: Gathered | None
    lines: list[Line]
    shown: Shown


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        with without_garbage_collection():
            collected = collect(args)
            if args.explain:
                return explain(collected, args.explain, as_json=args.json)
            tables = make_tables(collected.lines, collected.shown)
            listed = listings(collected)
            files = write(tables, listed, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = count(collected)
    print_tables(tables)
    for line in report(collected, counts):
        print(line, file=sys.stderr)
    print(json.dumps({"files": list(map(str, files)), **counts, **listed}) if args.json else "\n".join(map(str, files)))
    return 3 if counts["missing"] or counts["failed"] or counts["damaged"] or not counts["found"] else 0


def collect(args: argparse.Namespace) -> Collected:
    """Read runs and logs.

    Raises:
        ValueError: There is nothing to read, or what was asked for does not fit together.
        OSError: A folder cannot be listed.
    """
    versions = read_published()
    subset = read_subset(args.subset) if args.subset else None
    if subset and args.logs:
        raise ValueError("--subset needs the predictions of every clip, which logs do not have; leave out --logs")
    folders = args.folders or ([RUNS] if RUNS.is_dir() else [])
    if not folders and not args.logs:
        raise ValueError(f"there is no folder {RUNS} here; name the folders that hold run folders, or logs with --logs")
    grouped = read_runs(folders, subset, versions, args.out / CACHE, keep=not args.explain)
    if not grouped and not args.logs:
        on = f" on {subset.data} (--subset)" if subset else ""
        raise ValueError(f"no few-shot run{on} below {', '.join(map(str, folders))}; start some "
                         "(python sweeps/fewshot.py), or name other folders")
    gathered = gather.gather(args.logs, versions) if args.logs else None
    lines = [*(groups.lines_of(grouped, versions) if grouped else ()),
             *(gather.lines_of(gathered.rows, versions) if gathered else ())]
    return Collected(grouped, gathered, lines, beside(grouped, subset, versions, args.published))


def read_runs(folders: list[Path], subset: Subset | None, versions: list[Version], cache: Path, *,
              keep: bool) -> Grouped | None:
    """The few-shot runs below folders, in rows; None where there are none. `keep` what was read for the next call."""
    known = KnownRecords(cache)
    runs = scan(folders, known)
    if keep and runs:
        known.write()
    if subset:
        everything, runs = len(runs), on_subset(runs, subset)
        if left_out := everything - len(runs):
            print(f"left out: {left_out} runs on other data sets than {subset.data} (--subset)", file=sys.stderr)
    return groups.group(runs, versions) if runs else None


def beside(grouped: Grouped | None, subset: Subset | None, versions: list[Version], published: str) -> Shown:
    """What stands beside and below the rows."""
    classes = {**CLASSES, **groups.classes_of(run for _, run in grouped.runs)} if grouped else CLASSES
    footers = groups.footers(grouped) if grouped else {}
    if not subset:
        return Shown(versions, published, classes, footers)
    what = (f"Only clips of {len(subset.classes)} classes, guessed among all: {subset.why}. Published numbers are of "
            "all clips, hence not shown.")
    return Shown(versions, "none", classes, {kind: [what, *said] for kind, said in footers.items()}, f"-{subset.name}",
                 f", {subset.name} classes of {subset.data}")


def count(collected: Collected) -> dict[str, int]:
    """How many results there are and should be; a damaged log counts as found, too."""
    counts: Counter[str] = Counter()
    if collected.grouped:
        counts.update(run.status for _, run in collected.grouped.runs)
        counts.update(failed=len(collected.grouped.failed), superseded=len(collected.grouped.superseded))
    if collected.gathered:
        logs = [log for _, log in collected.gathered.logs]
        counts.update(found=sum(not log.failed for log in logs), skipped=len(collected.gathered.skipped),
                      failed=sum(log.failed for log in logs) + len(collected.gathered.failed),
                      damaged=sum(bool(log.problems) and not log.failed for log in logs))
    nameless = len(collected.gathered.failed) if collected.gathered else 0  # logs that do not say of what: not expected
    counts["missing"] += len(missing(collected.lines))
    counts["expected"] = counts["found"] + counts["missing"] + counts["failed"] - nameless
    return {name: counts[name] for name in ("found", "expected", "missing", "failed", "damaged", "skipped", "superseded")}


def report(collected: Collected, counts: dict[str, int]) -> list[str]:
    """What was found and what was not, for people."""
    lines = [", ".join(f"{name} {number}" for name, number in counts.items())]
    absent: dict[str, list[str]] = {}
    for line, task in missing(collected.lines):
        absent.setdefault(line.name, []).append(task.name)
    lines += [f"missing: {name}: {', '.join(tasks)}" for name, tasks in absent.items()]
    lines += report_runs(collected.grouped) if collected.grouped else []
    return lines + (report_logs(collected.gathered) if collected.gathered else [])


def listings(collected: Collected) -> dict[str, list[Record]]:
    """What the tables are made of."""
    listed = {}
    if collected.grouped:
        listed[f"results{collected.shown.suffix}"] = list_runs(collected.grouped)
    if collected.gathered:
        listed["logs"] = list_logs(collected.gathered)
    return listed


def explain(collected: Collected, wanted: str, *, as_json: bool) -> int:
    """Print what is behind a row to standard output."""
    runs = behind_runs(collected.grouped, wanted) if collected.grouped else []
    logs = behind_logs(collected.gathered, wanted) if collected.gathered else []
    if not runs and not logs:
        names = ", ".join(line.name for line in collected.lines) or "none"
        raise ValueError(f"no row {wanted!r}; there are: {names} (--explain)")
    for row, run in runs:
        print(json.dumps(run_record(row, run)) if as_json else describe_run(row, run))
    for row, log in logs:
        print(json.dumps(log_record(row, log)) if as_json else describe_log(row, log))
    return 0


def write(tables: list[Table], listed: dict[str, list[Record]], folder: Path) -> list[Path]:
    """Write every table in every format, and the lists; the paths."""
    texts = {f"{table.name}.{suffix}": form(table) for table in tables for suffix, form in FORMATS.items()}
    for name, records in listed.items():
        columns = LOG_COLUMNS if name == "logs" else RUN_COLUMNS
        texts[f"{name}.csv"] = csv_text([columns, *([record[column] for column in columns] for record in records)])
    make_private_folder(folder)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode(errors="backslashreplace"))
    return [folder / name for name in texts]


def print_tables(tables: list[Table]) -> None:
    """The tables on standard error, never cut: a terminal that is too narrow wraps them."""
    console = Console(stderr=True, highlight=False, width=WIDEST)
    for table in tables:
        more = len(table.rows) - MOST_ROWS
        cut = [Text(f"and {more} more rows in the files")] if more > 0 else []
        console.print(Text(table.title, "bold"), to_console(table, MOST_ROWS), *cut, *map(Text, table.lines_below), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
