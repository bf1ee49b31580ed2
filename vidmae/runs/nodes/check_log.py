"""What the nodes measured of themselves before the first step: checks.jsonl in the run folder, a line a start. Stdlib only.

    time, job_id   of the start              mode       warn or enforce
    nodes, ranks   every measured number     findings   what was found, of which node
    left_out       nodes that the job leaves out because of it
    action         none, warned, requeued or failed
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from vidmae.runs.record import SCHEMA, RunFolder, job_id


def note_checks(run: RunFolder, record: Mapping[str, Any]) -> None:
    """Add the line of this start."""
    line = json.dumps({"schema": SCHEMA, "time": time.time(), "job_id": job_id(), **record}, allow_nan=False) + "\n"
    with os.fdopen(os.open(run.checks, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
        file.write(line)


def newest_checks(run: RunFolder) -> dict[str, Any] | None:
    """The line of the newest start that left a whole one, or None."""
    found = None
    if run.checks.exists():
        with run.checks.open(encoding="utf-8") as file:
            for line in file:
                try:
                    found = json.loads(line)
                except json.JSONDecodeError:
                    continue
    return found


def checks_in_short(run: RunFolder) -> dict[str, Any] | None:
    """What `status` says of the newest start: when, what was found of whom, what was done; None where nothing is known."""
    record = newest_checks(run)
    if record is None:
        return None
    found = [f"{each['node']}: {each['text']}" for each in record["findings"]]
    return {"time": record["time"], "job_id": record["job_id"], "mode": record["mode"], "action": record["action"],
            "left_out": record["left_out"], "findings": found}
