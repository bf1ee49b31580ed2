"""Watch runs in a terminal: where they stand, their losses and logs, the queue; cancel and retry them with a key.

    python jobs/watch.py                        all runs in runs/
    python jobs/watch.py 's-vith14-*' --every 2   the runs of a pattern, looked at every two seconds
    python jobs/watch.py 81233 --once           the cells of an array, once, as plain lines

Keys: arrows choose, / filters, s sorts, Enter shows the cells of an array, c cancels, r retries, l shows the log, ? helps,
q quits. Nothing is cancelled or submitted before it was shown and confirmed, and leaving stops no job. It works over ssh.
Without a terminal, or with TERM=dumb, it prints the table of `status` again and again until Ctrl-C, and says why.

Exit codes: 0 ok, 2 no such run or folder, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, RUNS, Parser, add_runs_dir
from jobs.place.scheduler import slurm
from jobs.standing.runs import all_runs
from jobs.standing.shard_runs import find_runs
from jobs.watching.plain import show_plain, why_plain
from jobs.watching.seen_runs import Watcher
from vidmae.runs.record import RunFolder
from vidmae.settings.layers import ConfigError

EVERY_S, LEAST_EVERY_S = 5.0, 1.0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP} (default: all runs)")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--every", type=float, default=EVERY_S, metavar="S",
                     help="seconds between two looks at the runs and at Slurm (default: %(default)g, at least 1)")
    out.add_argument("--plain", action="store_true", help="plain lines instead of the interface")
    out.add_argument("--once", action="store_true", help="plain lines, once")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        find = finder(args)
        find()  # a name that fits nothing is said before the screen is cleared
        watcher = Watcher(find)
        plain = why_plain("--once" if args.once else "--plain" if args.plain else "")
        if not plain:
            return show_screens(watcher, args)
        if not args.once:
            print(f"plain lines every {args.every:g} s until Ctrl-C ({plain})", file=sys.stderr, flush=True)
        show_plain(watcher, args.every, once=args.once)
        return 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes there once more when it ends
        return 0


def finder(args: argparse.Namespace) -> Callable[[], Sequence[RunFolder]]:
    """What finds the runs that are asked for, at every look; those of a job or an array are the ones that it has now.

    Raises:
        ConfigError: A flag has a value that cannot be, or no run has a job that is asked for.
    """
    if not args.every >= LEAST_EVERY_S:
        raise ConfigError(f"--every is {args.every:g} s, allowed: {LEAST_EVERY_S:g} or more")
    if args.runs_dir != RUNS and not args.runs_dir.is_dir():
        raise ConfigError(f"--runs-dir {args.runs_dir} is not a folder")
    if not args.runs:
        return lambda: all_runs(args.runs_dir.absolute())
    by_job = {given: find_runs(given, args.runs_dir) for given in args.runs if slurm.is_job_id(given)}  # reads each run.json

    def find() -> list[RunFolder]:
        found: dict[RunFolder, None] = {}
        for given in args.runs:
            runs = by_job.get(given) or find_runs(given, args.runs_dir)
            found |= dict.fromkeys(run for run in runs if given not in by_job or run.record.exists())
        return list(found)

    return find


def show_screens(watcher: Watcher, args: argparse.Namespace) -> int:
    """Show the interface until the user leaves; the exit code."""
    from jobs.watching.screens.watch_app import WatchApp

    app = WatchApp(watcher, f"vidmae watch  {args.runs_dir}", args.every)
    code = app.run()
    if app.busy:
        print("stopped waiting; what was asked to end still ends; python jobs/cancel.py RUN kills it", file=sys.stderr)
    return 1 if code is None else code


if __name__ == "__main__":
    sys.exit(main())
