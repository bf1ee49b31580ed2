"""Pack what a paper needs of runs into one file, with a checksum of everything in it; check such a file.

    python jobs/archive.py s-vith14                                    writes s-vith14-1a2b3c4d.tar.gz
    python jobs/archive.py 's-vith14-ssv2-*' --tables tables --out paper.tar.gz
    python jobs/archive.py verify paper.tar.gz

In it: settings, records, metrics, code, weights with a model card, tables, packages, licences. Never in it: footage, names
of footage, logs, checkpoints, and paths, hosts and accounts of this machine, which are taken out of the records; pictures
and pages only with --pictures. What stays behind is said, and contents.json has the list. Unpacked, its folder `runs` works
as --runs-dir of all commands, and `sha256sum -c MANIFEST.sha256` checks it without this suite. RUN may be the folder of a
sweep's array (runs/arrays/...), for all of its cells. Standard output is the path of the archive.

Exit codes: 0 ok, 1 an archive is damaged, or something is missing or extra, 2 usage, or it exists already, 130 Ctrl-C
(nothing is left behind).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.keeping.archive_file import verify_archive, write_archive
from jobs.keeping.packing import Wanted, pack
from jobs.keeping.spare import text_of_bytes
from jobs.place.launch_flags import RUN_HELP, Parser, add_runs_dir
from jobs.place.speak import answer, say
from jobs.standing.arrays import CELLS, cells_of
from jobs.standing.runs import find_run
from jobs.standing.shard_runs import find_runs
from vidmae.runs.record import RunFolder
from vidmae.settings.layers import ConfigError

VERBS = ("pack", "verify")
SHOWN = 10


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("words", nargs="+", metavar="RUN",
                      help=f"{RUN_HELP}, or the folder of a sweep's array; the word `pack` may stand before them. After the "
                           "word `verify`: archives")
    what.add_argument("--tables", type=Path, action="append", default=[], metavar="FOLDER",
                      help="pack these tables, too; may be repeated")
    what.add_argument("--no-weights", action="store_true", help="leave out the weights")
    what.add_argument("--predictions", action="store_true",
                      help="pack what models say of every clip, too; clips are named by the hash of their content")
    what.add_argument("--pictures", action="store_true",
                      help="pack pictures, figures and pages, too; they may show frames of footage")
    what.add_argument("--licence", default="", metavar="ID", help="of the weights, such as cc-by-4.0 (default: unknown)")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--out", type=Path, metavar="FILE.tar.gz",
                     help="the archive: .tar.gz or .tar (default: the name of the run or array, here)")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    verb, words = (args.words[0], args.words[1:]) if args.words[0] in VERBS else (VERBS[0], args.words)
    return answer(lambda: (verify if verb == "verify" else pack_runs)(words, args), interrupted="no archive was written")


def pack_runs(given: Sequence[str], args: argparse.Namespace) -> int:
    """Write an archive; its path."""
    if not given:
        raise ConfigError("no run is named; give a run, a pattern, or the folder of an array")
    runs_dir = args.runs_dir.expanduser().absolute()
    runs = list({run.path: run for name in given for run in _runs_of(name, runs_dir)}.values())
    unfinished = [run.path.name for run in runs if not run.result.is_file()]
    out = (args.out or Path(f"{_name_of(given[0], runs)}.tar.gz")).expanduser()
    found = pack(runs, runs_dir, Wanted(not args.no_weights, args.predictions, args.pictures, args.tables, args.licence))
    write_archive(out, found.members, found.links, time_s=found.time_s, tell=say)
    for name in unfinished[:SHOWN]:
        say(f"note: {name} is not done; what there is of it was packed")
    reasons = Counter(found.left_out.values())
    for why, count in reasons.most_common():
        example = next(name for name, said in found.left_out.items() if said == why)
        say(f"left out: {example}{f' and {count - 1} more' if count > 1 else ''}: {why}")
    size = out.stat().st_size
    say(f"{len(runs)} runs, {len(found.members)} files, {text_of_bytes(size)}; python jobs/archive.py verify {out}")
    record = {"archive": str(out.absolute()), "bytes": size, "runs": [run.path.name for run in runs],
              "files": len(found.members), "left_out": found.left_out}
    print(json.dumps(record) if args.json else out.absolute(), flush=True)
    return 0


def _runs_of(name: str, runs_dir: Path) -> list[RunFolder]:
    array = Path(name)
    if not (array / CELLS).is_file():
        runs = find_runs(name, runs_dir)
    else:
        runs = [find_run(cell.path.name, runs_dir) for cell in cells_of(array)]
        if not runs:
            raise ConfigError(f"{array} is the folder of an array without cells")
    for run in runs:
        if run.path.parent != runs_dir:
            raise ConfigError(f"{run.path} lies in another folder than {runs_dir} (--runs-dir)")
    return runs


def _name_of(given: str, runs: Sequence[RunFolder]) -> str:
    if (Path(given) / CELLS).is_file():
        return Path(given).name
    if len(runs) > 1:
        raise ConfigError(f"{given!r} and what else is named are {len(runs)} runs; the archive needs a name (--out)")
    return runs[0].path.name


def verify(given: Sequence[str], args: argparse.Namespace) -> int:
    """Check archives; 0 if all of them are whole."""
    if not given:
        raise ConfigError("no archive is named: python jobs/archive.py verify FILE.tar.gz")
    code, records = 0, []
    for name in given:
        found = verify_archive(Path(name).expanduser())
        for problem in found.problems:
            say(f"{name}: {problem}")
        code = max(code, int(bool(found.problems)))
        say(f"{name}: {f'{len(found.problems)} problems' if found.problems else 'whole'}; {found.files} files have the "
            f"content that was packed, {found.weights} of them weights that open")
        records.append({"archive": name, "whole": not found.problems, "files": found.files, "weights": found.weights,
                        "problems": found.problems})
    if args.json:
        print(json.dumps({"archives": records}), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
