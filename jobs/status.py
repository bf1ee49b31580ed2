"""Show where runs stand: queued, running, done or failed, and how far training is.

    python jobs/status.py                       all runs in runs/
    python jobs/status.py --failed              those that are over without a result; --active: those that wait or run
    python jobs/status.py 's-vith14-*' --watch  the runs of a pattern, again and again until all are over
    python jobs/status.py s-vith14 --json       one run, by its id, the start of it, its path or its Slurm job id; the id
                                                of an array stands for all of its cells
    python jobs/status.py results/s-ssv2        the folder OUT of jobs/embed.py or interpolate.py: its shards on Slurm,
                                                and for steps the clips done of those that were missing

The state is the first of: result.json, squeue, sacct, the process (local jobs), exit.json (local jobs, shards),
heartbeat.json; else UNKNOWN. ENDED means that the job is over and nobody knows how (no accounting). GOOD is goodput: the
share of all attempts' seconds that went into steps done for the first time and not into starting, waiting for clips, saving
or repeating. WAIT is the share of those steps' seconds in which training waited for clips. --json has the parts. RESULT is
the last loss; of a cell that is done it is its top-1 accuracy. A terminal that is too narrow for all columns gets those that
fit. Below the table, on standard error, stands what the nodes of an active run found wrong before the first step, and who
holds up a run that trains, and why; --json has them as checks and slow.

Exit codes: 0 ok, 2 no such run or folder, 130 Ctrl-C (--watch).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, RUNS, Parser, add_runs_dir
from jobs.place.scheduler.slurm import STATES
from jobs.standing.runs import State, all_runs, format_seconds, progress, states, why
from jobs.standing.shard_runs import find_runs
from vidmae.ranks.health.stragglers import Slow, read_slow
from vidmae.runs.attempts import read_attempts, totals
from vidmae.runs.nodes.check_log import checks_in_short
from vidmae.runs.record import read_json
from vidmae.settings.layers import ConfigError

HEADER = ("JOBID", "NAME", "ST", "TIME", "NODES", "STEP/TOTAL", "RESULT", "ETA", "GOOD", "WAIT", "NODELIST(REASON)")
LESS = ("GOOD", "WAIT", "NODES", "JOBID", "NODELIST(REASON)", "ETA", "TIME")  # what a narrow terminal lacks, the first first
WATCH_S = 5.0
SHORT = {"SUBMITTING": "SB", "NEW": "NEW", "ENDED": "END", "UNKNOWN": "?", "REFUSED": "REF"}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP} (default: all runs)")
    which = what.add_mutually_exclusive_group()
    which.add_argument("--active", action="store_true", help="only runs that wait or run")
    which.add_argument("--failed", action="store_true", help="only runs that are over without a result")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--watch", action="store_true", help=f"show the table every {WATCH_S:g} s until no run is active")
    out.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        return watch(args) if args.watch else show(*look(args), args)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def look(args: argparse.Namespace) -> tuple[list[State], list[str]]:
    """The states that are asked for, and what could not be asked.

    Raises:
        ConfigError: There is no such run or folder.
    """
    if args.runs_dir != RUNS and not args.runs_dir.is_dir():
        raise ConfigError(f"--runs-dir {args.runs_dir} is not a folder")
    chosen = [run for given in args.runs for run in find_runs(given, args.runs_dir)]
    found, problems = states(chosen if args.runs else all_runs(args.runs_dir.absolute()))
    if not found:
        problems.append(f"no runs in {args.runs_dir}; start one: python jobs/pretrain.py")
    if args.active or args.failed:
        found = [state for state in found if (is_over(state) if args.failed else state.active)]
    return found, problems


def is_over(state: State) -> bool:
    """Whether a run has ended, or never began, without a result."""
    return state.active is False and state.state not in ("COMPLETED", "NEW")


def show(found: list[State], problems: list[str], args: argparse.Namespace) -> int:
    """Print the table, or a line of JSON for each run; the exit code."""
    records = [record_of(state) for state in found]
    if args.json:
        for record in records:
            print(json.dumps(record))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
        print("\n".join(table([HEADER, *map(row_of, found, records)], width)), flush=True)
        for state, record in zip(found, records, strict=True):
            if state.active and record["checks"] and record["checks"]["findings"]:
                first, *more = record["checks"]["findings"]
                print(f"{state.run_id}: before the first step: {first}{f', and {len(more)} more' if more else ''} "
                      f"({record['checks']['action']})", file=sys.stderr)
            for slow in record["slow"]:
                print(f"{state.run_id}: {Slow(**slow)}", file=sys.stderr)
        for state in filter(is_over, found):
            print(f"{state.run_id}: {why(state)}", file=sys.stderr)
    for problem in problems:
        print(f"note: {problem}", file=sys.stderr)
    return 0


def watch(args: argparse.Namespace) -> int:
    """Print the table again and again, on a terminal in its place, until no run is active; the exit code."""
    while True:
        found, problems = look(args)
        if sys.stdout.isatty():
            print("\x1b[H\x1b[2J", end="")
        show(found, problems, args)
        if not any(state.active for state in found):
            return 0
        time.sleep(WATCH_S)


def record_of(state: State) -> dict[str, Any]:
    """A state as JSON, with the progress of the run."""
    beat, result, spent = progress(state.run), read_json(state.run.result), totals(read_attempts(state.run))
    said = read_json(state.run.record) or {}
    record: dict[str, Any] = {
        "job_id": state.job_id or None, "run": state.run_id, "path": str(state.run.path), "cluster": state.cluster or None,
        "state": state.state, "source": state.source, "active": state.active, "elapsed": state.elapsed or None,
        "nodes": state.nodes or None, "where": state.where or None, "exit_code": state.exit_code,
        "step": beat.get("step"), "total_steps": beat.get("total_steps"), "loss": beat.get("loss"), "eta_s": None,
        "top1_pct": None,
        "data": said.get("data"), "manifest_version": str(said.get("content_sha256") or "")[:8] or None,
        "heartbeat_age_s": round(time.time() - beat["time"], 1) if "time" in beat else None, "spent": spent,
        "staged": beat.get("staged"), "checks": checks_in_short(state.run), "slow": [],
    }
    if state.state == "RUNNING":
        record["slow"] = [asdict(slow) for slow in read_slow(state.run, state.job_id)]
    if state.active and beat.get("eta_s") is not None:
        record["eta_s"] = max(0.0, float(beat["eta_s"]) - (time.time() - float(beat["time"])))
    if result and "steps" in result:
        record |= {"step": result["steps"], "total_steps": result["steps"], "loss": result.get("last_loss"),
                   "top1_pct": result.get("top1_pct")}
    return record


def row_of(state: State, record: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    code = SHORT.get(state.state) or STATES.get(state.state, (state.state, True))[0]
    steps = f"{record['step']}/{record['total_steps']}" if record["step"] is not None else "-"
    accuracy = f"{record['top1_pct']:.1f} %" if record["top1_pct"] is not None else "-"
    loss = f"{record['loss']:.4f}" if record["loss"] is not None else accuracy
    good, wait = ("-" if (share := record["spent"][part]) is None else f"{share:.0%}" for part in ("goodput", "data_wait"))
    return (state.job_id or "-", state.run_id, code, state.elapsed or "-", state.nodes or "-", steps, loss,
            format_seconds(record["eta_s"]), good, wait, state.where or "-")


def table(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """Lines of the table: columns as wide as their widest cell, and those of LESS left out until it fits the width."""
    columns = list(range(len(HEADER)))
    widths = [max(len(row[i]) for row in rows) for i in columns]
    for name in LESS:
        if sum(widths[i] + 2 for i in columns) - 2 <= width:
            break
        columns.remove(HEADER.index(name))
    return ["  ".join(f"{row[i]:<{widths[i]}}" for i in columns).rstrip() for row in rows]


if __name__ == "__main__":
    sys.exit(main())
