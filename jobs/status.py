"""Show where runs stand: queued, running, done or failed, and how far training is.

    python jobs/status.py                       all runs in runs/
    python jobs/status.py s-vith14 --json       one run, by its id, the start of it, its path or its Slurm job id; the id
                                                of an array stands for all of its cells
    python jobs/status.py results/s-ssv2        the folder OUT of jobs/embed.py or interpolate.py: its shards on Slurm,
                                                and for steps the clips done of those that were missing

The state is the first of: result.json, squeue, sacct, the process (local jobs), exit.json (local jobs, shards),
heartbeat.json; else UNKNOWN. ENDED means that the job is over and nobody knows how (no accounting). GOOD is goodput: the
share of all attempts' seconds that went into steps done for the first time and not into starting, waiting for clips, saving
or repeating; --json has the parts.

Exit codes: 0 ok, 2 no such run or folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, RUNS, Parser, add_runs_dir
from jobs.scheduler.slurm import STATES
from jobs.standing.runs import State, all_runs, format_seconds, progress, states, why
from jobs.standing.shard_runs import find_runs
from vidmae.runs.attempts import read_attempts, totals
from vidmae.runs.record import read_json
from vidmae.settings.layers import ConfigError

HEADER = ("JOBID", "NAME", "ST", "TIME", "NODES", "STEP/TOTAL", "LOSS", "ETA", "GOOD", "NODELIST(REASON)")
SHORT = {"SUBMITTING": "SB", "NEW": "NEW", "ENDED": "END", "UNKNOWN": "?"}


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP} (default: all runs)")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        if args.runs_dir != RUNS and not args.runs_dir.is_dir():
            raise ConfigError(f"--runs-dir {args.runs_dir} is not a folder")
        chosen = [run for given in args.runs for run in find_runs(given, args.runs_dir)]
        runs = chosen if args.runs else all_runs(args.runs_dir.absolute())
        found, problems = states(runs)
        records = [record_of(state) for state in found]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        for record in records:
            print(json.dumps(record))
    else:
        print_table([HEADER, *(row_of(state, record) for state, record in zip(found, records, strict=True))])
        for state in found:
            if state.state not in ("COMPLETED", "NEW") and state.active is False:
                print(f"{state.run_id}: {why(state)}", file=sys.stderr)
    for problem in problems:
        print(f"note: {problem}", file=sys.stderr)
    if not runs:
        print(f"no runs in {args.runs_dir}; start one: python jobs/pretrain.py", file=sys.stderr)
    return 0


def record_of(state: State) -> dict[str, Any]:
    """A state as JSON, with the progress of the run."""
    beat, result, spent = progress(state.run), read_json(state.run.result), totals(read_attempts(state.run))
    record = {
        "job_id": state.job_id or None, "run": state.run_id, "path": str(state.run.path), "cluster": state.cluster or None,
        "state": state.state, "source": state.source, "active": state.active, "elapsed": state.elapsed or None,
        "nodes": state.nodes or None, "where": state.where or None, "exit_code": state.exit_code,
        "step": beat.get("step"), "total_steps": beat.get("total_steps"), "loss": beat.get("loss"), "eta_s": None,
        "heartbeat_age_s": round(time.time() - beat["time"], 1) if "time" in beat else None, "spent": spent,
    }
    if state.active and beat.get("eta_s") is not None:
        record["eta_s"] = max(0.0, float(beat["eta_s"]) - (time.time() - float(beat["time"])))
    if result and "steps" in result:
        record |= {"step": result.get("steps"), "total_steps": result.get("steps"), "loss": result.get("last_loss")}
    return record


def row_of(state: State, record: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table."""
    code = SHORT.get(state.state) or STATES.get(state.state, (state.state, True))[0]
    steps = f"{record['step']}/{record['total_steps']}" if record["step"] is not None else "-"
    loss = f"{record['loss']:.4f}" if record["loss"] is not None else "-"
    good = record["spent"]["goodput"]
    return (state.job_id or "-", state.run_id, code, state.elapsed or "-", state.nodes or "-", steps, loss,
            format_seconds(record["eta_s"]), "-" if good is None else f"{good:.0%}", state.where or "-")


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
