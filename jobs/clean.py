"""Make room in the folder of the runs: list what is not needed any more, with sizes, and remove it where that is asked for.

    python jobs/clean.py                                  a list; nothing is changed
    python jobs/clean.py --older-than 30 --delete         the list, a question, and what was listed goes
    python jobs/clean.py --kinds checkpoints --delete --yes
    python jobs/clean.py --protect s-vith14               it stays as it is, whatever is asked for

The kinds: checkpoints (of runs that are done and whose weights are whole; of others what checkpoint.keep_last would not
keep), failed (runs without a result, only with --older-than), caches (frozen features and prepared clips that no cell waits
for and that can be made again), snapshots (copies of code that are equal become one copy with several names), leftovers
(of saves and removals that were cut off), weights (of runs that are done; only with --weights).

What a job works at, or may work at, is never touched. Nor are protected runs, and runs that others were made from. Links
are not followed. Ctrl-C is safe at any moment; the same command goes on. Standard output is the list.

Exit codes: 0 ok, 1 something of the list could not be removed, or nobody agreed, 2 usage, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.keeping import protection
from jobs.keeping.removal import Seen, remove, seen
from jobs.keeping.spare import (
    CACHES,
    CHECKPOINTS,
    DAY_S,
    FAILED,
    KINDS,
    LEFTOVERS,
    SNAPSHOTS,
    TRASH,
    WEIGHTS,
    Search,
    Spare,
    text_of_bytes,
)
from jobs.keeping.spare_caches import spare_caches
from jobs.keeping.spare_code import spare_snapshots
from jobs.keeping.spare_of_runs import spare_checkpoints, spare_failures, spare_leftovers, spare_weights
from jobs.place.launch_flags import RUN_HELP, RUNS, Parser, add_runs_dir
from jobs.place.speak import answer, say
from jobs.standing.shard_runs import find_runs
from vidmae.settings.command_line import text_of
from vidmae.settings.layers import ConfigError

FINDERS: dict[str, Callable[[Search], Iterator[Spare]]] = {
    SNAPSHOTS: spare_snapshots, CHECKPOINTS: spare_checkpoints, FAILED: spare_failures, CACHES: spare_caches,
    LEFTOVERS: spare_leftovers, WEIGHTS: spare_weights}
"""In the order in which things go: links between snapshots come before a run that has one of them goes."""
TABLES = Path("tables")
SHOWN = 20  # of what is left


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP} (default: all runs, and what belongs to none)")
    what.add_argument("--kinds", type=_kinds, default=[], metavar="KIND,KIND,...",
                      help=f"{', '.join(KINDS[:-1])} (default: all of these)")
    what.add_argument("--older-than", type=_days, metavar="DAYS",
                      help="only what nothing has changed for so many days; equal snapshots and what a removal has left go "
                           "at any age (default: of any age, and no failed run)")
    what.add_argument("--weights", action="store_true",
                      help="weights of runs that are done, too, where no other run and no table names the run")
    what.add_argument("--tables", type=Path, default=TABLES, metavar="FOLDER",
                      help="runs that are named in these tables stay (default: %(default)s)")
    control = parser.add_argument_group("run control")
    control.add_argument("--delete", action="store_true", help="remove what is listed, after a question")
    control.add_argument("--yes", action="store_true", help="do not ask")
    control.add_argument("--protect", nargs="+", default=[], metavar="RUN", help="leave these runs as they are from now on")
    control.add_argument("--unprotect", nargs="+", default=[], metavar="RUN", help="let these runs be cleaned again")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object instead of the list")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="what was not removed is as it was; the same command goes on")


def run(args: argparse.Namespace) -> int:
    """Protect, or list and remove."""
    if args.runs_dir != RUNS and not args.runs_dir.is_dir():
        raise ConfigError(f"--runs-dir {args.runs_dir} is not a folder")
    if args.tables != TABLES and not args.tables.is_dir():
        raise ConfigError(f"--tables {args.tables} is not a folder, so no run would stay for it")
    if args.protect or args.unprotect:
        return protect(args)
    if not args.tables.is_dir():
        say(f"note: there is no folder {args.tables} here, so no table protects a run (--tables FOLDER)")
    search, found = look(args)
    show(search, found, args)
    for name, why in list(search.left.items())[:SHOWN]:
        say(f"left: {name}: {why}")
    if (more := len(search.left) - SHOWN) > 0:
        say(f"left: {more} more (--json lists them)")
    say(total(found))
    if not args.delete and found:
        say("nothing was changed; --delete removes what is listed")
    if not args.delete or not found:
        return 0
    if not agreed(args):
        say("nothing was changed")
        return 1
    return remove_all(found, args)


def protect(args: argparse.Namespace) -> int:
    """Write or remove the file that protects a run."""
    for given, act, done, before in ((args.protect, protection.protect, "protected", "was protected before"),
                                     (args.unprotect, protection.unprotect, "not protected any more", "was not protected")):
        for name in given:
            for one in find_runs(name, args.runs_dir):
                say(f"{one.path.name}: {done if act(one) else before}")
    return 0


def look(args: argparse.Namespace) -> tuple[Search, list[Spare]]:
    """Everything that may go, each path once, and the search that found it."""
    runs_dir = args.runs_dir.expanduser().absolute()
    chosen = [one for name in args.runs for one in find_runs(name, runs_dir)]
    outside = [one.path for one in chosen if one.path.parent != runs_dir]
    if outside:
        raise ConfigError(f"{outside[0]} lies in another folder than {runs_dir} (--runs-dir)")
    search = Search(runs_dir, chosen, None if args.older_than is None else args.older_than * DAY_S, (args.tables,))
    kinds = args.kinds or [kind for kind in KINDS if kind != WEIGHTS]
    kinds = [*kinds, *([WEIGHTS] if args.weights else [])]
    found: dict[Path, Spare] = {}
    for kind, find in FINDERS.items():
        for spare in find(search) if kind in kinds and runs_dir.is_dir() else ():
            found.setdefault(spare.path, spare)
    whole = {path for path, spare in found.items() if spare.kind == FAILED}
    return search, [spare for path, spare in found.items() if path in whole or not whole & set(path.parents)]


def show(search: Search, found: Sequence[Spare], args: argparse.Namespace) -> None:
    """The list, on standard output."""
    if args.json:
        records = [{"kind": s.kind, "path": str(s.path), "bytes": s.bytes, "files": s.files, "why": s.why} for s in found]
        print(json.dumps({"found": records, "left": search.left}), flush=True)
        return
    lines = [("KIND", "SIZE", "FILES", "WHAT", "WHY"), *(
        (s.kind, text_of_bytes(s.bytes), str(s.files), str(s.path.relative_to(search.runs_dir)), s.why) for s in found)]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    for kind, size, files, what, why in lines if found else []:
        print(f"{kind:<{widths[0]}}  {size:>{widths[1]}}  {files:>{widths[2]}}  {what:<{widths[3]}}  {why}", flush=True)


def total(found: Sequence[Spare]) -> str:
    """All of it in one line."""
    parts = []
    for kind in KINDS:
        if of_kind := [spare for spare in found if spare.kind == kind]:
            parts.append(f"{len(of_kind)} {kind} {text_of_bytes(sum(spare.bytes for spare in of_kind))}")
    files = sum(spare.files for spare in found)
    return f"{text_of_bytes(sum(spare.bytes for spare in found))} in {files:,} files: {', '.join(parts)}" if found else \
        "there is nothing to remove"


def agreed(args: argparse.Namespace) -> bool:
    """Whether what is listed shall go."""
    if args.yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigError("nobody can be asked here: there is no terminal (--yes removes without a question)")
    say("Remove all of it? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def remove_all(listed: Sequence[Spare], args: argparse.Namespace) -> int:
    """Remove what was listed and still may go, which is looked up again first; the exit code."""
    search, found = look(args)
    still = {(spare.kind, spare.path, spare.like): spare for spare in found}
    before: dict[Path, Seen] = {s.of.path: seen(s.of) for s in found if s.of}
    code, done = 0, list[Spare]()
    for spare in listed:
        name = spare.path.relative_to(search.runs_dir)
        again = still.get((spare.kind, spare.path, spare.like))
        try:
            left = remove(search, again, before.get(again.of.path) if again.of else None) if again else \
                "it has changed since it was listed"
        except OSError as error:
            left, code = text_of(error), 1
        if left:
            say(f"left: {name}: {left}")
        else:
            done.append(spare)
    trash = search.runs_dir / TRASH
    if trash.is_dir() and not any(trash.iterdir()):
        trash.rmdir()
    say(f"removed {text_of_bytes(sum(spare.bytes for spare in done))}: {len(done)} of {len(listed)} that were listed")
    return code


def _kinds(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    allowed = [kind for kind in KINDS if kind != WEIGHTS]
    for word in words:
        if word == WEIGHTS:
            raise argparse.ArgumentTypeError("weights go only with --weights, which is a flag of its own")
        if word not in allowed:
            raise argparse.ArgumentTypeError(f"{word!r} is no kind; allowed: {', '.join(allowed)}")
    return list(dict.fromkeys(words))


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of days, 0 or more")
    return days


if __name__ == "__main__":
    sys.exit(main())
