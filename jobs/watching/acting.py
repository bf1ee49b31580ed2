"""What a key would do, said exactly before it is done: cancel jobs, or type the command of a run again with --retry."""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from jobs import cancel
from jobs.place.launch_flags import RUNS
from jobs.place.scheduler import slurm
from jobs.place.snapshot import ROOT
from jobs.standing.arrays import cells_of
from jobs.standing.runs import State, sure_states
from jobs.status import is_over
from jobs.watching.seen_runs import Seen

BLOCKING = ("--wait", "--follow", "--watch")  # a command that is typed again is not to stay until the jobs end
MASKED = "=***"  # jobs/place/launch_flags.py leaves secrets out of the record
KINDS = "--retry all"  # what the commands of sweeps/ take


def to_cancel(seen: Sequence[Seen]) -> list[State]:
    """The jobs of these runs that wait or run: exactly those that would be cancelled."""
    return [one.state for one in seen if one.state.active]


def is_whole_array(listed: Sequence[State], seen: Sequence[Seen]) -> bool:
    """Whether jobs that were listed are all active cells of one array, by its own list of cells and the runs seen."""
    by_run = {one.state.run: one for one in seen}
    wanted = {state.run for state in listed}
    arrays = {str(by_run[run].submission.get("array") or "") if run in by_run else "" for run in wanted}
    if len(arrays) != 1 or not (array := arrays.pop()):
        return False
    try:
        cells = cells_of(Path(array))
    except (OSError, ValueError):
        return False
    others = [by_run.get(run) for run in cells if run not in wanted]  # None: a watch by pattern does not know this cell
    return all(one and (not one.state.active or one.submission.get("array") != array) for one in others)


def cancel_listed(listed: Sequence[State], *, whole_array: bool) -> tuple[list[str], bool]:
    """Cancel jobs that were listed, as jobs/cancel.py does.

    A job that is over by now, or that was followed by another one, is left alone.

    Args:
        listed: See `to_cancel`.
        whole_array: They are all active cells of an array, which is then cancelled by one call.
    Returns:
        What was done, in words, and whether all of it could be done. It ends at the first job that could not be cancelled.
    """
    wanted, said = {state.run: state.job_id for state in listed}, list[str]()
    try:
        now = sure_states([state.run for state in listed])
        still = [state for state in now if state.active and state.job_id == wanted[state.run]]
        said += [f"{state.run_id}: left alone, job {state.job_id} is {state.state}" for state in now if state not in still]
        if whole_array and len({slurm.base_id(state.job_id) for state in still}) == 1 and len(still) > 1:
            said.append(cancel.cancel_array(still))
        else:
            for state in still:
                said.append(f"{state.run_id}: {cancel.cancel(state)}")  # one by one: what was done before an error is said
    except (slurm.SlurmError, ValueError, OSError) as error:
        return [*said, f"error: {error}"], False
    return said, True


@dataclass(frozen=True)
class Retry:
    """A command that continues a run.

    Attributes:
        words: The command, as one would type it.
        folder: Where it is typed.
        problem: Why it cannot be started from here, or empty.
        also: Other runs of the same command that are over without a result: it submits these again, too.
    """

    words: tuple[str, ...]
    folder: Path
    problem: str = ""
    also: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The command in one line."""
        return shlex.join(self.words)


def retry_of(one: Seen, everything: Sequence[Seen], folder: Path) -> Retry:
    """The command that submitted a run, with --retry.

    Args:
        one: The run.
        everything: All runs, of which others may have been submitted by the same command.
        folder: The current folder, from which the command would be started.
    """
    typed = [str(word) for word in one.submission.get("command") or []]
    sweeps = is_sweep(one)
    words = (*_without_flags(typed), *(KINDS.split() if sweeps else ["--retry"])) if typed else ()
    also = tuple(other.name for other in everything if sweeps and other.name != one.name and is_over(other.state)
                 and other.submission.get("command") == one.submission.get("command"))
    return Retry(words, folder, _problem(one, words, folder), also)


def is_sweep(one: Seen) -> bool:
    """Whether the command of a run submits many cells."""
    return any(str(word).startswith("sweeps/") for word in (one.submission.get("command") or [])[1:2])


def _without_flags(typed: Sequence[str]) -> list[str]:
    """A command without --retry and its value, and without what makes it wait."""
    kept: list[str] = []
    for before, word in zip(["", *typed], typed, strict=False):
        value_of_retry = before == "--retry" and not word.startswith("-")
        if word not in (*BLOCKING, "--retry") and not word.startswith("--retry=") and not value_of_retry:
            kept.append(word)
    return kept


def _problem(one: Seen, words: Sequence[str], folder: Path) -> str:
    """Why a command cannot be started from here, or nothing."""
    state, runs_dir = one.state, one.state.run.path.parent
    if state.active:
        return f"job {state.job_id} is {state.state}; there is nothing to retry"
    if state.state == "COMPLETED":
        return "the run is done; there is nothing to retry"
    if not words:
        return "its record has no command; type the launcher's command again with --retry"
    if words[0] != "python" or not (ROOT / words[1]).is_file():
        return f"{ROOT} has no {' '.join(words[:2])}; type the command where it is"
    if any(MASKED in word for word in words):
        return "its record leaves secrets out (***); type the command with them"
    if state.cluster == "local" and (host := one.submission.get("host")) != socket.gethostname():
        return f"its job ran on {host}; type the command there"
    if (folder / _runs_dir(words)).resolve() != runs_dir.resolve():
        return f"from {folder} the command finds another folder of runs than {runs_dir}; type it where it was typed first"
    return ""


def _runs_dir(words: Sequence[str]) -> Path:
    """The folder of the runs that a command names."""
    for before, word in pairwise(words):
        if before in ("--runs-dir", "--runs"):
            return Path(word)
        if word.startswith(("--runs-dir=", "--runs=")):
            return Path(word.partition("=")[2])
    return RUNS


def run_in_terminal(words: Sequence[str], folder: Path) -> int:
    """Run a command in the foreground; its exit code. Ctrl-C is its own to answer.

    Args:
        words: `python SCRIPT ...`, of this clone, or any other program.
        folder: Where it runs.
    """
    argv = [sys.executable, str(ROOT / words[1]), *words[2:]] if words[0] == "python" else list(words)
    before = signal.signal(signal.SIGINT, lambda *_: None)  # a handler, which the child does not inherit
    try:
        return subprocess.Popen(argv, cwd=folder).wait()
    finally:
        signal.signal(signal.SIGINT, before)
