"""Print what a run's job wrote: rank 0 of the newest job, or another rank or job.

Of an array, by its id, or by the folder OUT of jobs/embed.py or interpolate.py, it is the first task, or --job 81233_4.

    python jobs/logs.py demo                    the whole log of rank 0
    python jobs/logs.py s-vith14 -f --tail 20   its last 20 lines and what is added, until the job ends
    python jobs/logs.py s-vith14 --rank 5 --job 81233

Exit codes: 0 ok, 2 no such run, job or rank, 4 Slurm unreachable (-f), 130 Ctrl-C (the job goes on).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, Parser, add_runs_dir
from jobs.place.scheduler.commands import SlurmError
from jobs.standing.follow import Tail, watch
from jobs.standing.runs import SHOWN, log_path, state_of, submissions
from jobs.standing.shard_runs import find_runs
from vidmae.runs.record import RunFolder
from vidmae.settings.layers import ConfigError


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("run", metavar="RUN", help=RUN_HELP)
    what.add_argument("--rank", type=int, default=0, help="rank whose log is shown (default: %(default)s)")
    what.add_argument("--job", metavar="ID", help="job of the run, or task of the array (default: the newest, the first)")
    what.add_argument("-n", "--tail", type=int, metavar="N", help="only the last N lines (default: all)")
    control = parser.add_argument_group("run control")
    control.add_argument("-f", "--follow", action="store_true", help="go on with what is added, until the job ends")
    add_runs_dir(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        if args.tail is not None and args.tail < 0:
            raise ConfigError(f"--tail {args.tail} must be 0 or more lines")
        run, job_id = choose_job(find_runs(args.run, args.runs_dir), args.job)
        log = log_path(run, job_id, args.rank)
        if args.follow and job_id == job_ids(run)[-1]:
            follow(run, log, args.tail)
            return 0
        if not log.exists():
            raise ConfigError(missing(run, job_id, log))
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        sys.stdout.write("".join(lines if args.tail is None else lines[max(0, len(lines) - args.tail):]))
        return 0
    except SlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def job_ids(run: RunFolder) -> list[str]:
    """Ids of the run's jobs, oldest first."""
    return [str(s["job_id"]) for s in submissions(run) if s.get("job_id")]


def choose_job(runs: Sequence[RunFolder], given: str | None) -> tuple[RunFolder, str]:
    """The job whose log is meant, and its run: of several the first.

    Raises:
        ConfigError: There is no such job.
    """
    jobs = {job_id: run for run in runs for job_id in job_ids(run)}
    if not jobs:
        raise ConfigError(f"{runs[0].path.name} has no job yet")
    job_id = given or job_ids(runs[0])[-1]
    if job_id not in jobs:
        shown = ", ".join(list(jobs)[:SHOWN]) + (" ..." if len(jobs) > SHOWN else "")
        raise ConfigError(f"{runs[0].path.name} has no job {given}; its jobs: {shown} (--job)")
    return jobs[job_id], job_id


def missing(run: RunFolder, job_id: str, log: Path) -> str:
    """Why there is no log."""
    ranks = sorted(int(p.name.split("_")[-2]) for p in log.parent.glob(f"{job_id}_*_log.out"))
    if ranks:
        return f"job {job_id} has no such rank; its ranks: {ranks[0]} to {ranks[-1]} (--rank)"
    state = state_of(run)
    waits = f" {state.where}; -f waits for it" if state.active else ""
    return f"there is no log{' yet' if waits else ''}: job {job_id} is {state.state}{waits} ({log})"


def follow(run: RunFolder, log: Path, last_lines: int | None) -> None:
    """Print the log and what is added to it, until the job has ended."""
    tail, state = Tail(log, last_lines=last_lines), state_of(run)
    if state.active and not log.exists():
        print(f"job {state.job_id} is {state.state} {state.where}; waiting for its log", file=sys.stderr, flush=True)
    for _ in watch(run, state):
        for line in tail.lines():
            print(line, flush=True)
    for line in tail.lines() + tail.rest():
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
