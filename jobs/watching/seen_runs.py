"""Look at many runs again and again: only what may have changed is read, and Slurm is asked about what is not over.

A run that is over is judged again when its folder changes, which each record that is written there does, and once a minute:
Slurm may have been told to run its job again. A run that waits or runs is judged at every look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.place.scheduler import slurm
from jobs.standing.runs import Answer, State, ask_slurm, newest_submission, state_by, why
from jobs.standing.shard_runs import ShardRun
from jobs.status import is_over, record_of, row_of
from jobs.watching.curve import newest_line
from vidmae.runs.record import RunFolder

REASK_S = 60.0
SETTLED_S = 2.0  # a folder that changed so shortly before it was read may change again within the same tick of its clock
NOT_ASKED = Answer({}, False, ("Slurm was not asked yet",))


@dataclass(frozen=True)
class Seen:
    """A run as it was seen last.

    Attributes:
        name: The run's id; of a shard of an output with its number.
        state: Of its newest job.
        record: As `status --json` has it.
        row: As `status` shows it.
        array: Name of the array that its newest job is a task of, or empty.
        submitted_s: When its newest job was submitted, seconds since 1970; 0 where that is not known.
        newest: Its newest line of metrics.jsonl; empty where there is none.
        submission: What run.json says of its newest job.
        why: Why it is over without a result, or empty.
    """

    name: str
    state: State
    record: Mapping[str, Any]
    row: tuple[str, ...]
    array: str
    submitted_s: float
    newest: Mapping[str, Any]
    submission: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class Picture:
    """All runs at one moment.

    Attributes:
        seen: The runs, the oldest first.
        queue: What waits in Slurm's queue.
        notes: What could not be asked or read.
        time_s: When it was made, seconds since 1970.
        read: How many runs were read anew for it.
        away: Whether squeue was asked and did not answer.
    """

    seen: tuple[Seen, ...] = ()
    queue: tuple[slurm.Waiting, ...] = ()
    notes: tuple[str, ...] = ()
    time_s: float = 0.0
    read: int = 0
    away: bool = False


@dataclass
class _Known:
    """What is kept of a run between two looks."""

    stamp: float = -1.0  # when its folder changed last; negative: it is to be read
    judged: float = -REASK_S
    submission: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen | None = None


class Watcher:
    """Keeps what was seen of runs.

    Args:
        find: The runs, the oldest first; called at every look.
    Raises:
        ConfigError: `find` finds none that was asked for.
    """

    def __init__(self, find: Callable[[], Sequence[RunFolder]]) -> None:
        self._find, self._answer = find, NOT_ASKED
        self._known: dict[RunFolder, _Known] = {}

    def look(self, *, ask: bool = True) -> Picture:
        """Look at all runs.

        Args:
            ask: Ask Slurm, too, which may take half a minute where it is away; else its last answer counts.
        """
        runs, now = self._find(), time.monotonic()
        known = self._known = {run: self._known.get(run) or _Known() for run in runs}
        notes: list[str] = []
        changed = {run for run in runs if _changed(run, known[run]) and _readable(run, known[run], notes)}
        open_ones = [run for run in runs if run in changed or _is_open(known[run], now)]
        answer = self._answer
        if ask:
            answer = self._answer = ask_slurm(known[run].submission for run in open_ones)
        asks = self._asks(open_ones)
        notes += answer.problems if asks else ()
        read = sum(self._judge(run, known[run], answer, notes, changed=run in changed) for run in open_ones)
        if ask:  # a run that was only looked at is asked about at the next look
            for run in open_ones:
                known[run].judged = now
        seen = tuple(one.seen for one in known.values() if one.seen)
        queue, problems = _queue(seen) if ask and answer.gone else ((), ())  # a cluster may have no accounting
        away = ask and (bool(problems) or (asks and not answer.gone))
        return Picture(seen, queue, (*notes, *problems), time.time(), read, away)

    def _asks(self, runs: Sequence[RunFolder]) -> bool:
        """Whether the state of any of these runs is Slurm's to know."""
        return any(self._known[run].submission.get("cluster") == "slurm" for run in runs)

    def _judge(self, run: RunFolder, known: _Known, answer: Answer, notes: list[str], *, changed: bool) -> bool:
        """See a run anew, where there is anything new about it; whether its files were read."""
        try:
            state = state_by(run, known.submission, answer)
            before = known.seen
            if before and not changed and before.state == state and state.active is False:
                return False
            record = record_of(state)
            name = f"{state.run_id}/{run.number}" if isinstance(run, ShardRun) else state.run_id
            said, array = known.submission, Path(str(known.submission.get("array") or "")).name
            known.seen = Seen(name, state, record, row_of(state, record), array, float(said.get("submitted_at_s") or 0),
                              newest_line(run.metrics), said, why(state) if is_over(state) else "")
        except (ValueError, OSError, TypeError, KeyError) as error:  # a folder that was removed meanwhile, a damaged record
            notes.append(f"{run.path.name} cannot be read: {error}")
            known.stamp = -1.0
        return True


def _changed(run: RunFolder, known: _Known) -> bool:
    """Whether the folder of a run has changed since it was read; it is taken as read from now on."""
    try:
        changed_s = run.path.stat().st_mtime
    except OSError:
        return True
    before, settled = known.stamp, time.time() - changed_s > SETTLED_S
    known.stamp = changed_s if settled else -1.0
    return changed_s != before


def _readable(run: RunFolder, known: _Known, notes: list[str]) -> bool:
    """Read the newest submission of a run; whether that could be done."""
    try:
        known.submission = newest_submission(run)
    except (ValueError, OSError) as error:
        notes.append(str(error))
        known.stamp = -1.0
        return False
    return True


def _is_open(known: _Known, now: float) -> bool:
    """Whether a run that was not written to may stand elsewhere than before."""
    if known.seen is None:
        return False  # its record cannot be read
    if known.seen.state.active is not False:
        return True
    return known.seen.state.state != "COMPLETED" and now - known.judged >= REASK_S


def _queue(seen: Sequence[Seen]) -> tuple[tuple[slurm.Waiting, ...], tuple[str, ...]]:
    """What waits in the queue, and what could not be asked; not asked where nothing of these runs waits there."""
    if not any(one.state.active and one.state.cluster == "slurm" and one.state.state != "RUNNING" for one in seen):
        return (), ()
    try:
        return tuple(slurm.waiting()), ()
    except slurm.SlurmError as error:
        return (), (str(error),)
