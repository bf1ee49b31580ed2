"""Data windows that a run leaves out because the loss or a gradient became NaN or infinite on them.

A window is the global batch that one step takes from the data order. A step whose numbers are not finite changes no
weight; the run goes back to its newest complete checkpoint and takes the next window in place of the bad one:

    step              0 1 2 3 4 5 6
    window            0 1 2 3 5 6 7     window 4 is left out

nonfinite.jsonl keeps one line per window left out, with what is needed to look into it; rows are those of the manifest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vidmae.runs.record import RunFolder, job_id, write_atomic


def skipped_windows(run: RunFolder) -> tuple[int, ...]:
    """Windows that the run leaves out, ascending."""
    if not run.nonfinite.exists():
        return ()
    return tuple(sorted({int(json.loads(line)["window"]) for line in run.nonfinite.read_text("utf-8").splitlines()}))


def window_of(step: int, skipped: Sequence[int]) -> int:
    """The window that step (0-based) takes.

    Args:
        step: Updates done before.
        skipped: Windows left out, ascending.
    """
    window = step
    for left_out in skipped:
        window += left_out <= window
    return window


def leave_out(run: RunFolder, window: int, why: str, details: Mapping[str, Any]) -> None:
    """Note that a window is left out from now on. Atomic: the lines before stay whatever happens.

    Args:
        run: The run folder.
        window: Of the step that failed.
        why: What was not finite.
        details: Step, clips and norms, for whoever looks into it.
    """
    before = run.nonfinite.read_bytes() if run.nonfinite.exists() else b""
    line = json.dumps({"window": window, "why": why, "job_id": job_id(), "time": time.time(), **details})
    write_atomic(run.nonfinite, before + line.encode() + b"\n")
