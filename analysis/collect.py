"""Turn results into tables: models x tasks, top-1 and top-5 accuracy, beside the published numbers and chance.

    python analysis/collect.py
    python analysis/collect.py runs /scratch/old/runs --logs mae_st/models_finetuned
    python analysis/collect.py --classes ssv2_developmental
    python analysis/collect.py --explain s-vith14

Reads every few-shot run below the folders, runs/ where none is named: mean over seeds with a 95 % confidence interval, and
how many. Settings that differ among the runs join the name of the row, so that unlike numbers never meet in a cell. --logs
adds the logs of mae_st, JSON lines in files named {model}_{task}_log.txt, in any folders below. Few-shot tasks, whole data
sets and ImageNet have a table each, written as CSV, Markdown and LaTeX; results.csv and logs.csv list what they are made of,
tidy.csv has a row per result and metric for work elsewhere.
Every run that was announced is expected, and every row in every column of its table. A second call reads only what is new.
Robustness cells (sweeps/robustness.py) have a table, too: models x sets and groups of conditions. Checkpoints of a
pretraining grid (sweeps/pretrain.py) have one in which the repeats of a combination of settings are a row. Where models
were tested by several methods, `protocols` sets these side by side, and `protocol-agreement` says whether they rank the
models alike.
Standard output is the paths of the files that were written; standard error has the tables, and what is missing or failed.

Exit codes: 0 ok, 2 nothing to read or no place to write, 3 results are incomplete: missing or failed runs, cells without a
value, or damaged logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

import pandas as pd

from analysis.results.frames import IF_ANY, LOG_COLUMNS, RUN_COLUMNS, of_runs, records_of, tidy
from analysis.results.mae_st_logs import CLASSES
from analysis.results.published import Version, read_published
from analysis.results.scan import KnownRecords, scan, without_garbage_collection
from analysis.results.subset import Subset, on_subset, read_subset
from analysis.results.table_flags import Parser, add_folders, folders_of, tables_folder
from analysis.tables import log_rows, run_rows
from analysis.tables.curves.robust.robust_summary import read_summary
from analysis.tables.grid_rows import of_grids
from analysis.tables.log_rows import Gathered
from analysis.tables.result_table import Shown, make_tables, missing
from analysis.tables.sheet import Sheet, csv_text, show, write
from vidmae.settings.command_line import text_of

TIDY = "tidy"
MOST_ROWS = 200  # of a table on the console; its files have all
CACHE = ".known-results.json"  # in the folder of the tables


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_folders(what)
    what.add_argument("--logs", type=Path, metavar="FOLDER", help="read the logs of mae_st below this folder, too")
    what.add_argument("--classes", "--subset", type=Path, metavar="NAME|FILE",
                      help="accuracy on the clips of some classes, and on all others with the difference: a YAML file, or a "
                           "name in analysis/results/subsets")
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
    """Everything that was read.

    Attributes:
        runs: The few-shot runs in rows (run_rows.in_rows); None where there are none.
        logs: The logs; None where they were not asked for.
        cells: The cells of the tables, see result_table.py.
        published: What stands beside which row.
        notes: What a reader of a cell should know.
        shown: What else stands in the tables.
        gaps: With --classes, the table of its classes beside all others; else none.
        said: Of what that table lacks.
    """

    runs: pd.DataFrame | None
    logs: Gathered | None
    cells: pd.DataFrame
    published: pd.DataFrame
    notes: pd.DataFrame
    shown: Shown
    gaps: list[Sheet]
    said: list[str]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        with without_garbage_collection():
            collected = collect(args)
            if args.explain:
                return explain(collected, args.explain, as_json=args.json)
            tables = make_tables(collected.cells, collected.published, collected.notes, collected.shown)
            under_conditions, lost = robustness(args)
            tables += protocols(collected) + collected.gaps + of_grids(collected.runs, collected.shown) + under_conditions
            listed = listings(collected)
            files = write(tables, args.out, {f"{name}.csv": csv_text(frame) for name, frame in listed.items()})
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    absent = missing(collected.cells)
    counts = count(collected, absent, lost)
    show(tables, MOST_ROWS)
    for line in [*report(collected, counts, absent), *(f"missing: {each}" for each in lost)]:
        print(line, file=sys.stderr)
    if args.json:
        lists = {name: records_of(frame, list(frame)) for name, frame in listed.items() if not name.startswith(TIDY)}
        print(json.dumps({"files": list(map(str, files)), **counts, **lists}))
    else:
        print("\n".join(map(str, files)))
    return 3 if counts["missing"] or counts["failed"] or counts["damaged"] or not counts["found"] else 0


def collect(args: argparse.Namespace) -> Collected:
    """Read runs and logs.

    Raises:
        ValueError: There is nothing to read, or what was asked for does not fit together.
        OSError: A folder cannot be listed.
    """
    versions = read_published()
    subset = read_subset(args.classes) if args.classes else None
    if subset and args.logs:
        raise ValueError("--classes needs the predictions of every clip, which logs do not have; leave out --logs")
    folders = given_folders(args)
    if not folders and not args.logs:
        raise ValueError(f"there is no folder {args.runs_dir} here; name the folders that hold run folders, or logs with "
                         "--logs")
    runs = read_runs(folders, subset, versions, args.out / CACHE, keep=not args.explain)
    if runs is None and not args.logs:
        on = f" on {subset.data} (--classes)" if subset else ""
        raise ValueError(f"no few-shot run{on} below {', '.join(map(str, folders))}; start some "
                         "(python sweeps/fewshot.py), or name other folders")
    logs = log_rows.gather(args.logs, versions) if args.logs else None
    gaps, said = beside_others(runs, subset) if subset and runs is not None else ([], [])
    parts = [(run_rows, runs[runs["row"].notna()])] if runs is not None else []
    parts += [(log_rows, logs.logs)] if logs else []
    return Collected(runs, logs, pd.concat([rows.cells_of(frame) for rows, frame in parts]),
                     pd.concat([rows.published_of(frame, versions) for rows, frame in parts]),
                     pd.concat([rows.notes_of(frame) for rows, frame in parts]),
                     beside(runs, subset, versions, args.published), gaps, said)


def robustness(args: argparse.Namespace) -> tuple[list[Sheet], list[str]]:
    """The table of robustness cells, and which of them have no result; none with --classes, whose clips they do not have."""
    return ([], []) if args.classes else read_summary(given_folders(args))


def protocols(collected: Collected) -> list[Sheet]:
    """The tables of protocols, where there are several."""
    from analysis.tables.protocols import protocol_sheets  # here, since few calls need it

    return [] if collected.runs is None else protocol_sheets(collected.runs, collected.shown.suffix)


def given_folders(args: argparse.Namespace) -> list[Path]:
    """Folders with run folders, see `folders_of`; none where none was named and the default is not there."""
    folders = folders_of(args)
    return folders if args.folders or args.runs_dir.is_dir() else []


def read_runs(folders: list[Path], subset: Subset | None, versions: list[Version], cache: Path, *,
              keep: bool) -> pd.DataFrame | None:
    """The few-shot runs below folders, in rows; None where there are none. `keep` what was read for the next call."""
    known = KnownRecords(cache)
    runs = scan(folders, known)
    if keep and runs:
        known.write()
    if subset:
        everything, runs = len(runs), on_subset(runs, subset)
        if left_out := everything - len(runs):
            print(f"left out: {left_out} runs on other data sets than {subset.data} (--classes)", file=sys.stderr)
    return run_rows.in_rows(of_runs(runs), versions) if runs else None


def beside_others(runs: pd.DataFrame, subset: Subset) -> tuple[list[Sheet], list[str]]:
    """The table of the classes of a subset beside all others, if there is one, and what it lacks."""
    from analysis.tables.curves.classwise.subset_gap import gap_sheet  # here, since scipy takes half a second

    sheet, said = gap_sheet(runs, subset)
    return [sheet] if sheet else [], said


def beside(runs: pd.DataFrame | None, subset: Subset | None, versions: list[Version], published: str) -> Shown:
    """What stands beside and below the rows."""
    rows = None if runs is None else runs[runs["row"].notna()]
    classes = CLASSES if rows is None else {**CLASSES, **run_rows.classes_of(rows)}
    footers = {} if rows is None else run_rows.footers(rows)
    named_pct = {} if rows is None else run_rows.named_pct_of(rows)
    if not subset:
        return Shown(versions, published, classes, footers, named_pct=named_pct)
    what = (f"Only clips of {len(subset.classes)} classes, guessed among all: {subset.why}. Published numbers are of "
            "all clips, hence not shown.")
    return Shown(versions, "none", classes, {kind: [what, *said] for kind, said in footers.items()}, f"-{subset.name}",
                 f", {subset.name} classes of {subset.data}", named_pct)


def count(collected: Collected, absent: pd.DataFrame, lost: Sequence[str] = ()) -> dict[str, int]:
    """How many results there are and should be, with what is `missing`; a damaged log counts as found, too. Of robustness
    cells only those without a result count, `lost`."""
    counts: Counter[str] = Counter()
    if collected.runs is not None:
        counts.update(collected.runs["status"])
    nameless = 0  # logs that do not say of what: not expected
    if collected.logs:
        counts.update(collected.logs.logs["status"])
        counts.update(collected.logs.left_out["status"])
        counts["found"] += (collected.logs.logs["status"] == "damaged").sum()
        nameless = (collected.logs.left_out["status"] == "failed").sum()
    counts["missing"] += len(absent) + len(lost)
    counts["expected"] = counts["found"] + counts["missing"] + counts["failed"] - nameless
    return {name: int(counts[name])
            for name in ("found", "expected", "missing", "failed", "damaged", "skipped", "superseded")}


def report(collected: Collected, counts: dict[str, int], absent: pd.DataFrame) -> list[str]:
    """What was found and what was not, for people."""
    tasks_of = absent.groupby("row", sort=False)["task"].agg(", ".join)
    return [", ".join(f"{name} {number}" for name, number in counts.items()),
            *(f"missing: {row}: {tasks}" for row, tasks in tasks_of.items()),
            *(f"note: {line}" for line in collected.said),
            *(run_rows.report(collected.runs) if collected.runs is not None else ()),
            *(log_rows.report(collected.logs) if collected.logs else ())]


def listings(collected: Collected) -> dict[str, pd.DataFrame]:
    """What the tables are made of, by the name of a file."""
    listed, suffix = {}, collected.shown.suffix
    if collected.runs is not None:
        without = [name for name in IF_ANY if not collected.runs[name].notna().any()]
        listed[f"results{suffix}"] = collected.runs.reindex(columns=[name for name in RUN_COLUMNS if name not in without])
    if collected.logs:
        listed["logs"] = log_rows.listed(collected.logs)
    listed[TIDY + suffix] = tidy(collected.runs, collected.logs.logs if collected.logs else None, collected.shown.versions)
    return listed


def explain(collected: Collected, wanted: str, *, as_json: bool) -> int:
    """Print what is behind a row, or behind all rows of a model, to standard output."""
    found = False
    parts: list[tuple[Callable[[pd.DataFrame], list[str]], pd.DataFrame, Sequence[str]]] = []
    if collected.runs is not None:
        parts.append((run_rows.described, collected.runs, RUN_COLUMNS))
    if collected.logs:
        parts.append((log_rows.described, collected.logs.logs, LOG_COLUMNS))
    for described, frame, columns in parts:
        named = frame[frame["row"].notna()]
        behind = named[named["row"] == wanted] if (named["row"] == wanted).any() else named[named["model"] == wanted]
        found = found or not behind.empty
        for line in map(json.dumps, records_of(behind, columns)) if as_json else described(behind):
            print(line)
    if not found:
        names = ", ".join(collected.cells["row"].unique()) or "none"
        raise ValueError(f"no row {wanted!r}; there are: {names} (--explain)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
