"""Tables and figures of robustness, from the cells that sweeps/robustness.py ran.

    python analysis/robustness.py
    python analysis/robustness.py runs --reference scratch-ssv2-10shot-finetune --out tables
    python analysis/robustness.py runs --compare s-vith14-ssv2-10shot-finetune,scratch-ssv2-10shot-finetune --no-figures

A model is a few-shot cell without its seed. The tables have accuracy under every condition; for groups of conditions the
share of the clean accuracy that is kept, mean corruption error against a reference model, and the distance from the line
through all models; shape bias; differences of models on the same images, of every model of several frames and every model
of one, or those of --compare; error consistency between models, and with people. What is made by rules where no published
set is at hand is called generated. Standard output is the paths of the files.

Exit codes: 0 ok, 2 nothing to read or no place to write, 3 results are missing, or something could not be computed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from analysis.results.table_flags import Parser, add_folders, add_tables_output, folders_of
from vidmae.settings.command_line import text_of

if TYPE_CHECKING:
    from analysis.tables.curves.robust.robust_runs import Tests
    from analysis.tables.curves.robust.robust_study import CorruptionErrors

MOST_ROWS = 40


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_folders(what)
    what.add_argument("--reference", metavar="MODEL",
                      help="model, as the tables call it, by whose errors those of all are divided (without: no mCE)")
    what.add_argument("--compare", action="append", default=[], metavar="A,B",
                      help="two models to compare on the same images; may be repeated (default: models of several frames "
                           "with models of one)")
    what.add_argument("--humans", type=Path, metavar="FILE.csv",
                      help="what people said of images: subject, image, response, label, or the columns of model-vs-human")
    add_tables_output(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    from analysis.results.frames import records_of
    from analysis.tables.curves.robust import robust_sheets as sheets  # here, since pandas and matplotlib take a second
    from analysis.tables.curves.robust import robust_study as study
    from analysis.tables.curves.robust.robust_runs import of_common_seeds, read_tests
    from analysis.tables.sheet import show, write

    try:
        tests = of_common_seeds(read_tests(folders_of(args)))
        if tests.rows.empty:
            raise ValueError("no robustness cell has a result yet: " + "; ".join(tests.lost))
        shifts = study.shifts_of(tests)
        fitted = [study.fit_shift(tests, shift) for shift in shifts]
        errors = corruption_errors(tests, args.reference)
        biases, indices = study.shape_biases(tests), study.shape_texture_indices(tests)
        pairs, not_paired = study.paired_differences(tests, pairs_of(tests, args.compare), shifts)
        consistent, not_consistent = study.consistencies(tests, args.humans)
        tables = [each for each in (
            sheets.shifts_sheet(tests, fitted, errors) if fitted else None, sheets.conditions_sheet(tests),
            sheets.errors_sheet(errors), sheets.shape_sheet(biases, indices), sheets.paired_sheet(pairs),
            sheets.consistency_sheet(consistent)) if each]
        files = write(tables, args.out)
        if not args.no_figures:
            from analysis.tables.curves.robust.robust_figures import draw

            files += draw(tests, fitted, biases, pairs, args.out)
    except (ValueError, OSError) as error:
        print(f"error: {text_of(error)}", file=sys.stderr)
        return 2
    lost = [*tests.lost, *not_paired, *not_consistent]
    show([table for table in tables if table.name != "robustness-conditions"], MOST_ROWS)
    for line in lost:
        print(f"missing: {line}", file=sys.stderr)
    rows = records_of(tables[0].records, list(tables[0].records))
    print(json.dumps({"files": list(map(str, files)), "missing": lost, "rows": rows}) if args.json
          else "\n".join(map(str, files)))
    return 3 if lost else 0


def corruption_errors(tests: Tests, reference: str | None) -> dict[str, CorruptionErrors]:
    """mCE of every set that has corruptions of ImageNet-C; nothing without a reference.

    Raises:
        ValueError: The reference is no model, or was not tested.
    """
    from analysis.tables.curves.robust.robust_study import corruption_errors as of_set

    if reference is None:
        return {}
    if reference not in tests.models:
        raise ValueError(f"--reference {reference!r} is no model; there are: {', '.join(tests.models)}")
    found = {test_set: of_set(tests, test_set, reference) for test_set in tests.sets}
    return {test_set: each for test_set, each in found.items() if each}


def pairs_of(tests: Tests, given: list[str]) -> list[tuple[str, str]]:
    """The models to compare.

    Raises:
        ValueError: A name is no model.
    """
    from analysis.tables.curves.robust.robust_study import video_image_pairs

    found = []
    for item in given:
        first, _, second = (word.strip() for word in item.partition(","))
        for name in (first, second):
            if name not in tests.models:
                raise ValueError(f"--compare {item}: {name!r} is no model; there are: {', '.join(tests.models)}")
        found.append((first, second))
    return found or video_image_pairs(tests)


if __name__ == "__main__":
    sys.exit(main())
