"""Turn results into tables: models x tasks, best top-1 and top-5 accuracy, beside the published numbers and chance.

    python analysis/collect.py --logs mae_st/models_finetuned
    python analysis/collect.py --logs mae_st --explain old/s_250ep

Reads the logs of mae_st, JSON lines in files named {model}_{task}_log.txt, in any folders below. Few-shot tasks, whole data
sets and ImageNet have a table each, written as CSV, Markdown and LaTeX; logs.csv lists every log and what became of it.
A row is called old/MODEL or new/MODEL where a folder says so. Every model is expected in every column of its table.
Standard output is the paths of the files that were written; standard error has the tables, and what is missing or failed.

Exit codes: 0 ok, 2 nothing to read or no place to write, 3 results are incomplete: cells without a value, or damaged logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from analysis.gather import Gathered, gather, make_tables, missing
from analysis.logs import LogResult
from analysis.options import Parser
from analysis.published import read_published
from analysis.tables import Table, csv_text, to_console, to_csv, to_latex, to_markdown
from vidmae.record import make_private_folder, write_atomic

FORMATS: dict[str, Callable[[Table], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}
COLUMNS = ("log", "status", "row", "model", "task", "shots", "lines", "first_epoch", "last_epoch", "resets", "top1_pct",
           "top1_epoch", "top5_pct", "top5_epoch", "said")
WIDEST = 10_000  # characters


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--logs", type=Path, required=True, metavar="FOLDER", help="read the logs of mae_st below this folder")
    what.add_argument("--explain", metavar="ROW",
                      help="list the logs behind the numbers of a row, or of all rows of a model, and write nothing")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, default=Path("tables"), metavar="FOLDER",
                     help="where the tables go (default: %(default)s)")
    out.add_argument("--json", action="store_true",
                     help="one object instead of the paths: files, counts and all logs; with --explain one object a log")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        versions = read_published()
        gathered = gather(args.logs, versions)
        if args.explain:
            return explain(gathered, args.explain, as_json=args.json)
        tables = make_tables(gathered.rows, versions)
        records = list_logs(gathered)
        files = write(tables, records, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = count(gathered)
    print_tables(tables)
    for line in report(gathered, counts):
        print(line, file=sys.stderr)
    print(json.dumps({"files": list(map(str, files)), **counts, "logs": records}) if args.json else
          "\n".join(map(str, files)))
    return 3 if counts["missing"] or counts["failed"] or counts["damaged"] or not counts["found"] else 0


def count(gathered: Gathered) -> dict[str, int]:
    """How many results there are and should be; a damaged log counts as found, too."""
    results = [log for _, log in gathered.logs]
    absent = sum(map(len, missing(gathered.rows).values()))
    return {"found": sum(not log.failed for log in results), "expected": len(results) + absent, "missing": absent,
            "failed": sum(log.failed for log in results) + len(gathered.failed),
            "damaged": sum(bool(log.problems) and not log.failed for log in results), "skipped": len(gathered.skipped)}


def report(gathered: Gathered, counts: dict[str, int]) -> list[str]:
    """What was found and what was not, for people."""
    lines = [", ".join(f"{name} {number}" for name, number in counts.items())]
    lines += [f"missing: {row}: {', '.join(tasks)}" for row, tasks in missing(gathered.rows).items()]
    for _, log in gathered.logs:
        if log.problems:
            lines.append(f"{'failed' if log.failed else 'damaged'}: {log.path}: {'; '.join(log.problems)}")
    lines += [f"failed: {path}: {why}" for path, why in gathered.failed.items()]
    lines += [f"skipped: {path}: {why}" for path, why in gathered.skipped.items()]
    if gathered.others:
        kinds = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in sorted(gathered.others.items()))
        lines.append(f"skipped: files of other kinds: {kinds}")
    return lines


def list_logs(gathered: Gathered) -> list[dict[str, Any]]:
    """Every log and what became of it, with the keys `COLUMNS`."""
    records = [record_of(row, log) for row, log in gathered.logs]
    for status, paths in (("failed", gathered.failed), ("skipped", gathered.skipped)):
        records += [dict.fromkeys(COLUMNS) | {"log": str(path), "status": status, "said": why}
                    for path, why in paths.items()]
    return records


def record_of(row: str, log: LogResult) -> dict[str, Any]:
    """A log with the keys `COLUMNS`; None where it does not say."""
    best = [(best.pct, best.epoch) if best else (None, None) for best in (log.top1, log.top5)]
    status = "failed" if log.failed else "damaged" if log.problems else "found"
    values = (str(log.path), status, row, log.model, log.task.name, log.task.shots, log.lines, log.first_epoch,
              log.last_epoch, log.resets, *best[0], *best[1], "; ".join((*log.notes, *log.problems)) or None)
    return dict(zip(COLUMNS, values, strict=True))


def explain(gathered: Gathered, wanted: str, *, as_json: bool) -> int:
    """Print the logs behind a row to standard output."""
    chosen = [wanted] if wanted in gathered.rows else [
        row for row, cells in gathered.rows.items() if any(log.model == wanted for log in cells.values())]
    if not chosen:
        raise ValueError(f"no row {wanted!r}; there are: {', '.join(gathered.rows) or 'none'} (--explain)")
    for row in chosen:
        for log in gathered.rows[row].values():
            print(json.dumps(record_of(row, log)) if as_json else describe(row, log))
    return 0


def describe(row: str, log: LogResult) -> str:
    """A log on one line."""
    best = [f"{name} {best.pct:.3f} at epoch {best.epoch}" if best else f"{name} --"
            for name, best in (("top-1", log.top1), ("top-5", log.top5))]
    epochs = "no epochs" if log.first_epoch is None else f"epochs {log.first_epoch} to {log.last_epoch}"
    return "; ".join((f"{row} {log.task.name}: {', '.join(best)}", f"{log.lines} lines, {epochs}", *log.notes, *log.problems,
                      str(log.path)))


def write(tables: list[Table], records: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write every table in every format, and the list of logs; the paths."""
    texts = {f"{table.name}.{suffix}": form(table) for table in tables for suffix, form in FORMATS.items()}
    texts["logs.csv"] = csv_text([COLUMNS, *([record[name] for name in COLUMNS] for record in records)])
    make_private_folder(folder)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode(errors="backslashreplace"))
    return [folder / name for name in texts]


def print_tables(tables: list[Table]) -> None:
    """The tables on standard error, never cut: a terminal that is too narrow wraps them."""
    console = Console(stderr=True, highlight=False, width=WIDEST)
    for table in tables:
        console.print(Text(table.title, "bold"), to_console(table), *map(Text, table.lines_below), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
