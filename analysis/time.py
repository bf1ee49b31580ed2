"""What models use of time, and know of it: accuracy that is lost with frames shuffled or frozen, and temporal probes.

    python analysis/time.py
    python analysis/time.py runs --out tables --no-figures

Reads the cells that `python sweeps/robustness.py CELL --conditions time` tested; nothing is trained. A model is a few-shot
cell without its seed. time has the points that are lost under each condition, time-classes the same class by class and
which classes live on the order of frames or on several frames, time-paired what a video model loses more than an image model
of the same task that sees the same frames one by one (views frames16). All differences are of the same clips, with 95 %
intervals over clips. time-probes has what `python sweeps/probes.py` read off frozen features, beside controls that cannot
see time, with 95 % intervals over recordings. Standard output is the paths of the files.

Exit codes: 0 ok, 2 nothing to read or no place to write, 3 results are missing, or something could not be computed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from analysis.results.table_flags import Parser, add_folders, add_tables_output, folders_of
from vidmae.settings.command_line import text_of

MOST_ROWS = 60
NOTHING = ("no cell was tested under conditions of time yet; test some: python sweeps/robustness.py CELL --conditions time, "
           "or probe frozen models: python sweeps/probes.py --videos NAME")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_folders(what)
    add_tables_output(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    from analysis.results.frames import records_of
    from analysis.tables.curves.robust import time_sheets as sheets  # here, since pandas and matplotlib take a second
    from analysis.tables.curves.robust import time_study as study
    from analysis.tables.curves.robust.robust_runs import read_tests
    from analysis.tables.curves.robust.temporal_probes import probes_sheet, read_probes
    from analysis.tables.sheet import show, write

    try:
        probes = read_probes(folders_of(args))
        tests = read_tests(folders_of(args), or_none=bool(len(probes.rows) or probes.lost))
        seen, without = study.seen_by(tests)
        lost = [*tests.lost, *without, *probes.lost]
        if not seen and probes.rows.empty:
            raise ValueError("; ".join([NOTHING, *lost]))
        of_conditions, of_classes = study.drops(seen), study.class_drops(seen)
        made = [sheets.drops_sheet(of_conditions), sheets.classes_sheet(of_classes),
                sheets.against_images_sheet(study.video_minus_image(tests, seen))] if seen else []
        tables = [each for each in (*made, None if probes.rows.empty else probes_sheet(probes.rows)) if each]
        files = write(tables, args.out)
        if seen and not args.no_figures:
            from analysis.tables.curves.robust.time_figures import draw

            files += draw(of_conditions, of_classes, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    show(tables, MOST_ROWS)
    for line in lost:
        print(f"missing: {line}", file=sys.stderr)
    rows, of_probes = (records_of(frame, list(frame)) for frame in (of_conditions, probes.rows))
    print(json.dumps({"files": list(map(str, files)), "missing": lost, "rows": rows, "probes": of_probes}) if args.json
          else "\n".join(map(str, files)))
    return 3 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
