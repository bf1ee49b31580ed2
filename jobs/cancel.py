"""Stop the jobs of runs. They save first; `python jobs/pretrain.py ... --retry` continues from the newest checkpoint.

    python jobs/cancel.py s-vith14
    python jobs/cancel.py 81233 say-vith14-0a1b2c3d    a Slurm job; that of an array stands for all of its cells
    python jobs/cancel.py 's-vith14-*'                 the runs of a pattern, of an array only the cells that fit
    python jobs/cancel.py results/s-ssv2               the folder OUT of jobs/embed.py or interpolate.py: its shards;
                                                       the same command goes on with what is missing

A job on this machine gets the run's signal, and --signal-delay-s seconds (300, at most a quarter of its time limit) to
save and leave before it is killed. The same command again kills it at once.

Exit codes: 0 ok (also where nothing was active), 2 no such run, 4 Slurm refused or unreachable, 130 Ctrl-C (the job still
ends).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, Parser, add_runs_dir
from jobs.place.scheduler import slurm
from jobs.standing.runs import EXIT_RECORD, INTERRUPTED, State, process_birth, state_of, submissions, sure_states
from jobs.standing.shard_runs import ShardRun, find_runs
from vidmae.runs.record import CANCELLED, SCHEMA, make_private_folder, write_json
from vidmae.settings.layers import ConfigError

GRACE_S = 5.0
AT_ONCE = 500  # jobs of one scancel


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
                array = given.isdecimal() or isinstance(runs[0], ShardRun)  # else a pattern, which may fit a part of one
                print(f"{given}: {(cancel_array if array else cancel_several)(sure_states(runs))}", file=sys.stderr)
            else:
                print(f"{runs[0].path.name}: {cancel(state_of(runs[0]))}", file=sys.stderr)
        return 0
    except slurm.SlurmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 4
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped waiting; what was asked to end still ends; the same command again kills it", file=sys.stderr)
        return 130


def cancel(state: State) -> str:
    """Stop the run's newest job, if it is active; what was done, in words."""
    if not state.active:
        return f"nothing to cancel, {f'job {state.job_id} is ' if state.job_id else ''}{state.state}"
    if state.cluster == "slurm":
        _mark(state)  # first: it keeps the job from requeueing
        slurm.cancel(state.job_id)
        return f"cancelled Slurm job {state.job_id} (scancel), which was {state.state}"
    return _wait(state, ask(state))


def cancel_array(tasks: Sequence[State]) -> str:
    """Stop all tasks of an array that are active; what was done, in words."""
    array_id = slurm.base_id(tasks[0].job_id)
    return _cancel_active(tasks, [array_id]) or f"cancelled {_count(tasks)} tasks of array {array_id}"


def cancel_several(jobs: Sequence[State]) -> str:
    """Stop those of these jobs that are active, and no other task of their arrays; what was done, in words."""
    job_ids = [state.job_id for state in _active(jobs) if state.cluster == "slurm"]
    return _cancel_active(jobs, job_ids) or f"cancelled {_count(jobs)} jobs"


def _active(jobs: Sequence[State]) -> list[State]:
    """Those that wait come first: they are to start no more."""
    return sorted((s for s in jobs if s.active), key=lambda s: s.state == "RUNNING")


def _count(jobs: Sequence[State]) -> str:
    return f"{len(_active(jobs))} of {len(jobs)}"


def _cancel_active(jobs: Sequence[State], job_ids: Sequence[str]) -> str:
    """Stop the active ones of these jobs, of which Slurm is told these ids; why there was nothing to do, or nothing."""
    if not (active := _active(jobs)):
        return f"nothing to cancel, {', '.join(f'{n} {state}' for state, n in Counter(s.state for s in jobs).items())}"
    asked = [(state, _mark(state) if state.cluster == "slurm" else ask(state)) for state in active]
    if any(state.cluster == "slurm" for state in active):
        for i in range(0, len(job_ids), AT_ONCE):
            slurm.cancel(*job_ids[i:i + AT_ONCE])
    for state, first in asked:
        if state.cluster != "slurm":
            _wait(state, first)
    return ""


def ask(state: State) -> bool:
    """Ask a local job to save and leave, or, where it was asked before, to end at once; True the first time.

    Raises:
        ConfigError: It runs on another machine.
    """
    host = submissions(state.run)[-1]["host"]
    if host != socket.gethostname():
        raise ConfigError(f"job {state.job_id} runs on {host}: cancel it there")
    return _mark(state)


def _mark(state: State) -> bool:
    """Leave the file that says what a person wants; True where it was not there."""
    folder = state.run.submit / state.job_id  # of a cell a link, into a folder that is made when the cell's turn comes
    mark = make_private_folder(folder.resolve()) / CANCELLED
    if mark.exists():
        mark.write_text("at once\n")
        return False
    mark.touch()
    return True


def _wait(state: State, first: bool) -> str:
    """Wait until a local job that was asked has ended, and kill it where that is not enough; what was done, in words."""
    submission, is_cell = submissions(state.run)[-1], slurm.base_id(state.job_id) != state.job_id
    if state.state != "RUNNING":
        return f"cancelled cell {state.job_id}, which was {state.state}"
    delay_s = submission.get("signal_delay_s", 0) if first else 0  # a job of older code has none, and does not know the file
    if delay_s:
        print(f"{state.run_id}: job {state.job_id} is to save and leave, in {delay_s} s at most; the same command "
              "again kills it at once", file=sys.stderr, flush=True)
    if first or is_cell:  # its controller does what was asked
        _until_over(state, submission, delay_s + GRACE_S)
    if is_cell:
        return f"cancelled cell {state.job_id}, which was {state.state}"
    return _end_group(state, submission)


def _until_over(state: State, submission: Mapping[str, Any], within_s: float) -> None:
    """Wait until a local job has left its exit code, or its controller is gone."""
    ended, pid = state.run.submit / state.job_id / EXIT_RECORD, int(slurm.base_id(state.job_id))
    deadline = time.monotonic() + within_s
    while not ended.exists() and process_birth(pid) == submission["process_birth"] and time.monotonic() < deadline:
        time.sleep(0.1)


def _end_group(state: State, submission: Mapping[str, Any]) -> str:
    """Kill what is left of the process group of a local job."""
    ended, pid = state.run.submit / state.job_id / EXIT_RECORD, int(state.job_id)
    how = "cancelled" if ended.exists() else "killed"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # ranks and loader workers
    deadline = time.monotonic() + GRACE_S
    while process_birth(pid) == submission["process_birth"] and time.monotonic() < deadline:
        time.sleep(0.1)
    if not ended.exists():
        write_json(ended, {"schema": SCHEMA, "exit_code": INTERRUPTED[0], "time": time.time()})
    return f"{how} local job {pid} and its ranks"


if __name__ == "__main__":
    sys.exit(main())
