"""Which step's weights are tested: the looks of select.rule holdout and val-best, kept in evaluations.jsonl. Stdlib only.

    {"step": 54, "epoch": 1.0, "on": "holdout", "top1_pct": 12.1, "top5_pct": 31.0}
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from vidmae.runs.record import RunFolder, write_atomic

Look = dict[str, Any]


def read_looks(run: RunFolder, *, up_to: int | None = None) -> list[Look]:
    """The looks of a run, oldest first; with `up_to` those after at most that many steps."""
    if not run.evaluations.exists():
        return []
    looks = [json.loads(line) for line in run.evaluations.read_text(encoding="utf-8").splitlines()]
    return [look for look in looks if up_to is None or look["step"] <= up_to]


def write_looks(run: RunFolder, looks: Sequence[Look]) -> None:
    """Write all looks of a run."""
    write_atomic(run.evaluations, "".join(json.dumps(look) + "\n" for look in looks).encode())


def best(looks: Sequence[Look]) -> Look | None:
    """The look with the highest top-1; of equal ones the first."""
    return max(looks, key=lambda look: (look["top1_pct"], -look["step"]), default=None)


def enough(looks: Sequence[Look], patience: int) -> bool:
    """Whether the last `patience` looks were no better than one before them; 0 never is."""
    chosen = best(looks)
    return bool(patience and chosen and sum(look["step"] > chosen["step"] for look in looks) >= patience)
