"""The videos of a run that could not be read and were replaced: quarantine.csv, and when there are too many. Stdlib only.

    step        update, as in metrics.jsonl      row         that cannot be read, in the manifest, from 1
    epoch       passes over the data before      substitute  row that was shown in its stead, from 1
    slot        the video's place in the epoch   clips       replaced in this step
    reason      why; file names are never written

A video counts each time that its turn comes. Too many is a share of the videos whose turn has come so far, but of 1,000 at
least: with the default of 1 % ten may fail at any time, so one among the first ten stops nothing.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vidmae.runs.record import RunFolder, write_atomic

COLUMNS = ("step", "epoch", "slot", "row", "substitute", "clips", "reason")
LEAST_VIDEOS = 1000


class QuarantineError(ValueError):
    """More videos cannot be read than the settings allow."""


@dataclass(frozen=True)
class Substitution:
    """One video that was replaced; rows count from 0.

    Attributes:
        epoch: Passes over the manifest before this one.
        slot: Place of the video in the epoch.
        row: Row that was asked for.
        substitute: Row that was read.
        clips: How many clips it gave.
        reason: Why the row could not be read, without the file's name.
    """

    epoch: int
    slot: int
    row: int
    substitute: int
    clips: int
    reason: str


class Quarantine:
    """Lists the substitutions of a run and counts them; every rank holds one, and all of them count alike.

    Args:
        run: The run folder.
        before: Of `read_quarantine`: lines of earlier attempts.
        start_step: Updates done at the start; later lines of an earlier attempt are dropped, for they come again.
        max_bad_pct: Share that may be replaced, percent (data.max_bad_pct).
        videos_per_step: Videos whose turn comes in a step: global_batch / repeat_aug.
        is_main: This rank writes.
        say: Takes a line for the log; called once for each unreadable row.
    """

    def __init__(self, run: RunFolder, before: Iterable[tuple[int, Substitution]], *, start_step: int, max_bad_pct: float,
                 videos_per_step: float, is_main: bool, say: Callable[[str], object]) -> None:
        self._run, self._is_main, self._say = run, is_main, say
        self._max_bad_pct, self._videos_per_step = max_bad_pct, videos_per_step
        kept = [(step, s) for step, s in before if step <= start_step]
        self.unreadable: dict[int, str] = {s.row: s.reason for _, s in kept}
        """Rows that could not be read so far, and why."""
        self._turns = {(s.epoch, s.slot) for _, s in kept}
        if is_main:
            write_atomic(run.quarantine, (_csv([COLUMNS]) + _lines(kept)).encode())

    def add(self, step: int, replaced: Iterable[Substitution]) -> None:
        """Take in the substitutions of one step. Call it on every rank with the same.

        Args:
            step: Updates done with this one, as in metrics.jsonl.
            replaced: What all ranks have replaced, in rank order.
        Raises:
            QuarantineError: More were replaced than the settings allow; on every rank alike.
        """
        new = _merged(replaced)
        if self._is_main and new:
            with self._run.quarantine.open("a", encoding="utf-8") as f:
                f.write(_lines((step, s) for s in new))
        for s in new:
            self._turns.add((s.epoch, s.slot))
            if s.row not in self.unreadable:
                self.unreadable[s.row] = s.reason
                self._say(f"step {step}: row {s.row + 1} of the manifest cannot be read ({s.reason}); "
                          f"row {s.substitute + 1} stands in for it")
        self._stop_if_too_many(step)

    def _stop_if_too_many(self, step: int) -> None:
        turns = max(math.ceil(step * self._videos_per_step), LEAST_VIDEOS)
        allowed = self._max_bad_pct / 100 * turns
        if len(self._turns) > allowed:
            raise QuarantineError(
                f"{len(self._turns)} videos could not be read and were replaced by step {step}, {allowed:g} are allowed "
                f"(data.max_bad_pct {self._max_bad_pct:g} % of {turns}); {self._run.quarantine} lists them by row of the "
                "manifest. Check the recordings again with python jobs/prepare.py manifest FOLDER --name NAME, or allow "
                "more with --set data.max_bad_pct=...")


def read_quarantine(run: RunFolder) -> list[tuple[int, Substitution]]:
    """Step and substitution of every whole line of quarantine.csv; a last line that was cut off is left out."""
    if not run.quarantine.exists():
        return []
    whole, _, _ = run.quarantine.read_text(encoding="utf-8").rpartition("\n")
    lines = []
    for record in csv.DictReader(io.StringIO(whole)):
        step, epoch, slot, row, substitute, clips = (int(record[name]) for name in COLUMNS[:-1])
        lines.append((step, Substitution(epoch, slot, row - 1, substitute - 1, clips, record["reason"])))
    return lines


def _merged(parts: Iterable[Substitution]) -> list[Substitution]:
    """Repeats of one video may be spread over ranks and micro-batches: one line for all of them, in data order."""
    found: dict[tuple[int, int, int], Substitution] = {}
    for s in parts:
        key = (s.epoch, s.slot, s.substitute)
        found[key] = replace(s, clips=s.clips + found[key].clips) if key in found else s
    return [found[key] for key in sorted(found)]


def _lines(steps: Iterable[tuple[int, Substitution]]) -> str:
    return _csv((step, s.epoch, s.slot, s.row + 1, s.substitute + 1, s.clips, " ".join(s.reason.split()))
                for step, s in steps)


def _csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
