"""What came of a comparison of possible and impossible videos, for people: shares of right pairs by concept and method."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

NOTE = "chance is 50 %; surprise is the loss, its mean over windows and context lengths; 95 % intervals over scenes"
SHOWN = ("model", "model_pixel", "untrained", "hold", "difference", "flow", "brightness", "oracle")
INTERVALS = ("model", "untrained")
"""Methods whose intervals are shown; concepts.csv has all."""


def show(record: dict[str, Any], console: Console) -> None:
    """The primary numbers, and what was left out."""
    rows = record["primary"]
    methods = [name for name in SHOWN if any(row["method"] == name for row in rows)]
    table = Table(title=f"impossible surprises more, % of {record['pairs']} pairs", caption=NOTE)
    for title in ("set", "concept"):
        table.add_column(title)
    for title in ("pairs", *(name.replace("_", " ") for name in methods), "model minus untrained"):
        table.add_column(title, justify="right")
    for group in dict.fromkeys((row["set"], row["concept"]) for row in rows):
        cells = {row["method"]: row for row in rows if (row["set"], row["concept"]) == group}
        model = cells["model"]
        table.add_row(*group, str(model["pairs"]), *(_share(cells[name], whole=name in INTERVALS) for name in methods),
                      f"{model['above_untrained_pct']:+.1f}{_interval(model['above_low'], model['above_high'])}")
    console.print(table)
    if record["pairs_left_out"]:
        console.print(f"{record['pairs_left_out']} pairs are left out, since a video of theirs could not be read",
                      style="yellow", highlight=False)
    for reason, count in record["unreadable"].items():
        console.print(f"{count} videos could not be read: {reason}", style="yellow", highlight=False, markup=False)


def _share(row: dict[str, Any], *, whole: bool) -> str:
    return f"{row['accuracy_pct']:.1f}{_interval(row['ci_low'], row['ci_high']) if whole else ''}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.1f}, {high:.1f}]"
