"""The loss of a run in a few characters, and its newest step, from any metrics.jsonl in the same time.

A file of millions of lines is not read: a few lines at equal distances in it are, and its end.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

POINTS = 32
LINE_BYTES = 4096  # a line has a few hundred
WHOLE_BYTES = POINTS * LINE_BYTES  # a file that is no larger is read as a whole
BLOCKS = "▁▂▃▄▅▆▇█"


def newest_line(path: Path) -> dict[str, Any]:
    """The last whole line of metrics.jsonl; empty where there is none."""
    try:
        with path.open("rb") as f:
            f.seek(max(0, f.seek(0, os.SEEK_END) - 2 * LINE_BYTES))
            return next(filter(None, map(_record, reversed(f.read().split(b"\n")))), {})
    except FileNotFoundError:
        return {}


def sampled_losses(path: Path, points: int = POINTS) -> list[float]:
    """Finite losses at about equal distances in the run, oldest first; the last is that of the newest step.

    Args:
        path: metrics.jsonl, of any size.
        points: At most so many.
    """
    try:
        with path.open("rb") as f:
            size = f.seek(0, os.SEEK_END)
            lines = _all_lines(f) if size <= WHOLE_BYTES else [_line_at(f, size * i // points) for i in range(points)]
    except FileNotFoundError:
        return []
    if len(lines) > points:
        lines = [lines[round(i * (len(lines) - 1) / (points - 1))] for i in range(points)]
    found = {record["step"]: record["loss"] for line in lines if (record := _record(line))}
    if newest := newest_line(path):
        found[newest["step"]] = newest["loss"]
    losses = [loss for _, loss in sorted(found.items()) if isinstance(loss, int | float) and math.isfinite(loss)]
    return [float(loss) for loss in losses[-points:]]


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of blocks between their smallest and their largest; the newest `width` places are spread over all."""
    if not values or width < 1:
        return ""
    if len(values) > width:
        values = [values[round(i * (len(values) - 1) / max(1, width - 1))] for i in range(width)]
    low, high = min(values), max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def _all_lines(f: BinaryIO) -> list[bytes]:
    f.seek(0)
    return f.read().splitlines()


def _line_at(f: BinaryIO, place: int) -> bytes:
    """The first whole line that begins at or after a place; nothing where it is too long."""
    f.seek(max(0, place - 1))
    data = f.read(LINE_BYTES)
    begin = 0 if place == 0 else data.find(b"\n") + 1
    end = data.find(b"\n", begin)
    return data[begin:end] if end >= 0 and (begin or place == 0) else b""


def _record(line: bytes) -> dict[str, Any] | None:
    """A line with a step and a loss; None for anything else, such as a line that is being written."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "step" in record and "loss" in record else None
