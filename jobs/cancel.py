"""Stop the jobs of runs. Checkpoints stay; `python jobs/pretrain.py ... --retry` continues from the newest.

    python jobs/cancel.py s-vith14
    python jobs/cancel.py 81233 say-vith14-0a1b2c3d    a Slurm job; that of an array stands for all of its cells
    python jobs/cancel.py results/s-ssv2               the folder OUT of jobs/embed.py or interpolate.py: its shards;
                                                       the same command goes on with what is missing

Exit codes: 0 ok (also where nothing was active), 2 no such run, 4 Slurm refused or unreachable.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Sequence

from jobs import slurm
from jobs.options import RUN_HELP, Parser, add_runs_dir
from jobs.runs import CANCELLED, EXIT_RECORD, INTERRUPTED, State, process_birth, state_of, submissions, sure_states
from jobs.shard_runs import find_runs
from vidmae.layers import ConfigError
from vidmae.record import SCHEMA, make_private_folder, write_json

GRACE_S = 5.0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    parser.add_argument_group("what").add_argument("runs", nargs="+", metavar="RUN", help=RUN_HELP)
    add_runs_dir(parser.add_argument_group("output"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    try:
        found = [(given, find_runs(given, args.runs_dir)) for given in args.runs]
        for given, runs in found:
            if len(runs) > 1:
                print(f"{given}: {cancel_array(sure_states(runs))}", file=sys.stderr)
            else:
                print(f"{runs[0].path.name}: {cancel(state_of(runs[0]))}", file=sys.stderr)
        return 0
    except slurm.SlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def cancel(state: State) -> str:
    """Stop the run's newest job, if it is active; what was done, in words."""
    if not state.active:
        return f"nothing to cancel, {f'job {state.job_id} is ' if state.job_id else ''}{state.state}"
    if state.cluster == "slurm":
        (make_private_folder(state.run.submit / state.job_id) / CANCELLED).touch()  # first: it keeps the job from requeueing
        slurm.cancel(state.job_id)
        return f"cancelled Slurm job {state.job_id} (scancel), which was {state.state}"
    submission = submissions(state.run)[-1]
    if submission["host"] != socket.gethostname():
        raise ConfigError(f"job {state.job_id} runs on {submission['host']}: cancel it there")
    if slurm.base_id(state.job_id) != state.job_id:
        return _end_cell(state)
    return _end_group(state, int(state.job_id), submission["process_birth"])


def cancel_array(tasks: Sequence[State]) -> str:
    """Stop all tasks of an array that are active; what was done, in words."""
    active = sorted((s for s in tasks if s.active), key=lambda s: s.state == "RUNNING")  # those that wait start no more
    for state in active:
        if state.cluster == "slurm":
            (make_private_folder(state.run.submit / state.job_id) / CANCELLED).touch()
        else:
            cancel(state)
    if not active:
        return f"nothing to cancel, {', '.join(f'{n} {state}' for state, n in Counter(s.state for s in tasks).items())}"
    array_id = slurm.base_id(active[0].job_id)
    if active[0].cluster == "slurm":
        slurm.cancel(array_id)
    return f"cancelled {len(active)} of {len(tasks)} tasks of array {array_id}"


def _end_cell(state: State) -> str:
    """Let the process that runs a sweep on this machine end one of its cells."""
    folder = state.run.submit / state.job_id  # a link, into a folder that is made when the cell's turn comes
    (make_private_folder(folder.resolve()) / CANCELLED).touch()
    deadline = time.monotonic() + GRACE_S
    while state.state == "RUNNING" and not (folder / EXIT_RECORD).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return f"cancelled cell {state.job_id}, which was {state.state}"


def _end_group(state: State, pid: int, birth: int) -> str:
    """Interrupt the process group of a local job, and kill it where that is not enough."""
    os.killpg(pid, signal.SIGINT)
    deadline = time.monotonic() + GRACE_S
    while process_birth(pid) == birth and time.monotonic() < deadline:
        time.sleep(0.1)
    how = "interrupted"
    try:
        os.killpg(pid, signal.SIGKILL)  # what is left of the group: ranks and loader workers
        how = "interrupted and killed"
    except ProcessLookupError:
        pass
    ended = state.run.submit / state.job_id / EXIT_RECORD
    if not ended.exists():
        write_json(ended, {"schema": SCHEMA, "exit_code": INTERRUPTED[0], "time": time.time()})
    return f"{how} local job {pid} and its ranks"


if __name__ == "__main__":
    sys.exit(main())
