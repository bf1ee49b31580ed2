"""Write one HTML page about a run: what it is, how it went, what came of it. It needs no network and no other file.

    python analysis/report.py s-1a2b3c4d
    python analysis/report.py runs/s-1a2b3c4d --with results/s-center --with results/s-attention --out s.html
    python analysis/report.py s-1a2b3c4d --frames
    python analysis/report.py s-1a2b3c4d --beside s_0.1 --beside mae_st/models/old/s/s_log.txt
    python analysis/report.py --all                                 # of all runs: runs/index.html

RUN is the folder of a pretraining run or a few-shot cell, its name, or a start of it that fits one run alone. The page has
settings, state, curves, where the seconds went, data that was left out, the few-shot cells beside the run that start from
it (of a cell: its accuracy by class), their accuracy under conditions, and the tables of results (interpolation, attention,
embeddings) below RUN/analysis and the folders named by --with. A run that failed, goes on or has not begun has a page, too.
File names never stand on it, and pictures of footage only with --frames. Only its owner can read the file. Standard output
is its path.

--all writes an index of all runs in --runs-dir: a table that is sorted by a click on a column and filtered by words and
state, with links to the pages that there are. Runs that are ticked stand beside each other, with the settings that differ
and their losses. A folder that is damaged or half-written is a row that says why.

Exit codes: 0 ok, 2 no such run or folder, or no place to write.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from analysis.page.all_runs import DAMAGED, page_of, row_of, run_folders
from analysis.page.beside import beside
from analysis.page.cells import accuracy_by_class, few_shot_results
from analysis.page.chapters import TRAINING, curves, how_it_stands, key_figures, left_out, seconds, what_it_is
from analysis.page.dossier import FEWSHOT, PRETRAIN, Dossier
from analysis.page.findings import folders_of_results, pictures_of, results_section
from analysis.page.html import Section, to_html
from analysis.page.robustness_page import robustness_results
from analysis.page.time_page import use_of_time
from analysis.page.wording import moment
from analysis.results.table_flags import Parser, add_runs_dir
from analysis.results.which_run import find_run
from vidmae.runs.record import RunFolder, make_private_folder, write_atomic
from vidmae.settings.command_line import text_of

KINDS = {PRETRAIN: "Pretraining run", FEWSHOT: "Few-shot cell", "robustness": "Robustness cell",
         "temporal": "Temporal probes"}
RESULTS = "analysis"  # folder of results inside a run folder
PICTURE = "A few clips: seen, filled in, truth"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("run", nargs="?", metavar="RUN", help="run folder, name of a run, or the start of one")
    what.add_argument("--all", action="store_true", help="an index of all runs in place of a page about one")
    what.add_argument("--with", type=Path, action="append", default=[], metavar="FOLDER", dest="folders",
                      help="folder of results that belong to the run; may be repeated")
    what.add_argument("--beside", action="append", default=[], metavar="RUN|LOG|PUBLISHED",
                      help="another run, a log of the original code or a published run (see compare.py), whose losses "
                           "are drawn beside those of this one; may be repeated")
    what.add_argument("--frames", action="store_true", help="show pictures; they show the footage, which may be private")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="FILE.html",
                     help="the page (default: report.html in the run folder; of --all index.html in --runs-dir)")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true",
                     help="one object instead of the path: file, run, state, sections; of --all: file, runs, states")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        if args.all or args.run is None:
            return index(args)
        named = [each for folder in args.folders for each in results_in(folder)]
        run = Dossier(RunFolder(find_run(args.run, args.runs_dir)))
        sections = make_sections(run, named, frames=args.frames)
        if args.beside:
            after_curves = [section.title for section in sections].index(TRAINING) + 1
            sections.insert(after_curves, beside(run, args.beside, args.runs_dir))
        html = to_html("report.html", run=run, kind=KINDS.get(run.kind, "Run of unknown kind"), sections=sections,
                       figures=key_figures(run), made=f"Made {moment(time.time())} from the records in the run folder")
        out = args.out or run.run.path / "report.html"
        make_private_folder(out.absolute().parent)
        write_atomic(out, html.encode())
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    for line in run.damaged:
        print(f"note: {line}", file=sys.stderr)
    titles = [section.title for section in sections]
    print(json.dumps({"file": str(out), "run": run.name, "state": run.state, "sections": titles}) if args.json else out)
    return 0


def index(args: argparse.Namespace) -> int:
    """Write the index of all runs; the exit code.

    Raises:
        ValueError: A run, or what belongs to the page of one, is named, too; or neither a run nor --all is.
    """
    if not args.all:
        raise ValueError("name a RUN, or give --all for an index of all runs")
    given = [flag for flag, value in (("RUN", args.run), ("--with", args.folders), ("--beside", args.beside),
                                      ("--frames", args.frames)) if value]
    if given:
        raise ValueError(f"{', '.join(given)} and --all are both given; --all is an index of all runs, without pictures")
    if not args.runs_dir.is_dir():
        raise ValueError(f"--runs-dir {args.runs_dir} is not a folder")
    out = args.out or args.runs_dir / "index.html"
    runs_dir, place = args.runs_dir.absolute(), make_private_folder(out.absolute().parent)
    rows = [row_of(path, place) for path in run_folders(runs_dir)]
    write_atomic(out, page_of(rows, runs_dir, f"Made {moment(time.time())} from the records in the run folders").encode())
    states = Counter(row.state for row in rows)
    if damaged := states[DAMAGED]:
        print(f"note: damaged or half-written: {damaged} of {len(rows)} folders; their rows say why", file=sys.stderr)
    print(json.dumps({"file": str(out), "runs": len(rows), "states": states}) if args.json else out)
    return 0


def results_in(folder: Path) -> list[Path]:
    """The folders of results in one that --with names.

    Raises:
        ValueError: It does not exist or has none.
    """
    if not folder.is_dir():
        raise ValueError(f"--with {folder}: no such folder")
    results = list(folders_of_results(folder))
    if not results:
        raise ValueError(f"--with {folder}: there are no results in it (tables as .csv, or a result.json)")
    return results


def make_sections(run: Dossier, named: list[Path], *, frames: bool) -> list[Section]:
    """The sections of the page; `named` are folders of results that lie elsewhere."""
    sections = [how_it_stands(run), what_it_is(run), curves(run), seconds(run), left_out(run)]
    sections += accuracy_by_class(run.run) if run.kind == FEWSHOT else [few_shot_results(run)]
    sections += [*robustness_results(run), *use_of_time(run)]
    pictures, words = pictures_of([run.run.picture] if run.run.picture.exists() else [], PICTURE, frames=frames)
    if pictures or words:
        sections.append(Section("Reconstruction", words, pictures=pictures))
    inside, titles = run.run.path / RESULTS, list[str]()
    for folder in [*(folders_of_results(inside) if inside.is_dir() else ()), *named]:
        section = results_section(folder, frames=frames)
        titles.append(section.title)
        again = titles.count(section.title)  # a title that comes again gets a number
        sections.append(replace(section, title=f"{section.title} {again}") if again > 1 else section)
    return sections


if __name__ == "__main__":
    sys.exit(main())
