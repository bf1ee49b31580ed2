"""Say what is in the footage of one or two data sets: hours, ages, lengths, motion, blur, brightness, repeated views.

    python analysis/footage.py s --out tables/footage
    python analysis/footage.py s kinetics --sample 10 --out tables/s-kinetics

Moments of each recording are looked at once, in processes that are killed where they hang: at most --sample of them, evenly
spread, each a frame and the one 0.27 s later. OUT/features-*.csv keeps what was measured, a row per moment, without names;
the same command again reads it, and goes on where a call was stopped. footage, footage-spread and, of two data sets,
footage-difference are the tables (csv, md, tex), with a line for each child; every measure has a figure (png, svg). No frame
is in any of them. Children and ages are those that the manifest knows (python jobs/prepare.py manifest --about).

Exit codes: 0 ok, 1 failed, 2 usage or data that cannot be used, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing


from analysis.results.table_flags import Parser, tables_folder
from analysis.results.which_manifest import find_manifest
from analysis.tables.survey.looking import features_of, look
from vidmae.ranks.local_program import CHECK_LIMIT_S
from vidmae.runs.record import make_private_folder
from vidmae.settings.command_line import answer

STATIC_PCT_PER_S = 1.0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("data", nargs="+", metavar="DATA", help="one or two data sets: names, or manifests (.csv)")
    what.add_argument("--sample", type=int, default=20, metavar="N",
                      help="moments of a recording at most, never more than one a second (default: %(default)s)")
    what.add_argument("--static-pct-per-s", type=float, default=STATIC_PCT_PER_S, metavar="PCT",
                      help="motion below which a moment is static, in percent of the short side per second "
                           "(default: %(default)s)")
    what.add_argument("--seed", type=int, default=0, help="of the intervals (default: %(default)s)")
    control = parser.add_argument_group("run control")
    control.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    control.add_argument("--time-limit-s", type=float, default=CHECK_LIMIT_S,
                         help="seconds for a recording before it is left out (default: %(default)g)")
    out = parser.add_argument_group("output")
    out.add_argument("--out", type=tables_folder, required=True, metavar="FOLDER", help="where tables and figures go")
    out.add_argument("--no-figures", action="store_true", help="tables only")
    out.add_argument("--json", action="store_true", help="print the files as one JSON object")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="what was looked at is kept: the same command goes on")


def run(args: argparse.Namespace) -> int:
    """Look at the recordings, make the tables and figures, and say what there is."""
    if len(args.data) > 2 or args.sample < 1 or args.workers < 1 or args.time_limit_s <= 0:
        raise ValueError(f"{len(args.data)} data sets (1 or 2), --sample {args.sample} (1 or more), --workers "
                         f"{args.workers} (1 or more), --time-limit-s {args.time_limit_s:g} (more than 0)")
    manifests = [find_manifest(given) for given in args.data]
    if len({path.stem for path in manifests}) < len(manifests):
        raise ValueError(f"both data sets are called {manifests[0].stem}; give two of different names")
    make_private_folder(args.out)
    for manifest in manifests:
        if code := look(manifest, args.out, args.sample, workers=args.workers, time_limit_s=args.time_limit_s):
            return code
    files = list(map(str, write_tables(manifests, args)))
    print(json.dumps({"files": files}) if args.json else "\n".join(files))
    return 0


def write_tables(manifests: list[Path], args: argparse.Namespace) -> list[Path]:
    """Tables and figures of what was measured; the files."""
    from analysis.tables.sheet import show, write
    from analysis.tables.survey.moments import read_groups
    from analysis.tables.survey.repeated_views import repeats
    from analysis.tables.survey.survey_sheets import difference_sheet, footage_sheet, spread_sheet, whole_sets

    groups = [group for path in manifests for group in read_groups(path, features_of(path, args.out, args.sample))]
    repeated = {group.name: repeats(group, args.seed) for group in groups}
    sheets = [footage_sheet(groups, repeated, args.static_pct_per_s, args.sample), spread_sheet(groups)]
    if len(manifests) == 2:
        one, other = whole_sets(groups)
        sheets.append(difference_sheet(one, other, args.static_pct_per_s, args.seed))
    files = write(sheets, args.out)
    show([sheet for sheet in sheets if sheet.name != "footage-spread"])
    if args.no_figures:
        return files
    from analysis.tables.survey.survey_figures import draw

    return files + draw(groups, repeated, args.out)


if __name__ == "__main__":
    sys.exit(main())
