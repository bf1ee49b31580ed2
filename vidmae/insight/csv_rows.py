"""Rows of named values as CSV files: what the programs write that look at clips."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidmae.runs.record import write_atomic

Row = dict[str, Any]


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write named columns atomically, readable by the owner alone; numbers with seven digits, NaN as nothing."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(row[key]) for key in columns} for row in rows)
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def read_csv(path: Path, numbers: Collection[str]) -> list[Row]:
    """Rows as `write_csv` wrote them; the columns `numbers` are read as such."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [{key: float(value) if key in numbers else value for key, value in row.items()}
                for row in csv.DictReader(file)]


def without_nan(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The rows for JSON, which has no NaN: an interval that there is not is null."""
    return [{key: None if value != value else value for key, value in row.items()} for row in rows]


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.7g}"
    return value
