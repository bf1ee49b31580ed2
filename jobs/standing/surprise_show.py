"""What came of a comparison of possible and impossible videos, for people: shares of right pairs by concept and method."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

NOTE = "chance is 50; by the loss, mean over windows and contexts; concepts.csv has more"
SHOWN = {"model": "model", "untrained": "untr.", "hold": "hold", "difference": "diff.", "flow": "flow",
         "brightness": "bright.", "oracle": "oracle"}
"""Methods that are shown, and their short names."""


def show(record: dict[str, Any], console: Console) -> None:
    """The primary numbers, and what was left out."""
    rows = record["primary"]
    methods = [name for name in SHOWN if any(row["method"] == name for row in rows)]
    groups = list(dict.fromkeys((row["set"], row["concept"]) for row in rows))
    several = len({name for name, _ in groups[1:]}) > 1  # the first is all
    table = Table(title=f"impossible surprises more, % of {record['pairs']} pairs", caption=NOTE, box=SIMPLE,
                  padding=(0, 1, 0, 0))
    for title in (*(["set"] if several else []), "concept"):
        table.add_column(title)
    for title in ("pairs", *(SHOWN[name] for name in methods)):
        table.add_column(title, justify="right", no_wrap=True)
    for group in groups:
        cells = {row["method"]: row for row in rows if (row["set"], row["concept"]) == group}
        table.add_row(*group[0 if several else 1:], str(cells["model"]["pairs"]),
                      *(_share(cells[name], whole=name == "model") for name in methods))
    console.print(table)
    if record["pairs_left_out"]:
        console.print(f"{record['pairs_left_out']} pairs are left out, since a video of theirs could not be read",
                      style="yellow", highlight=False)
    for reason, count in record["unreadable"].items():
        console.print(f"{count} videos could not be read: {reason}", style="yellow", highlight=False, markup=False)


def _share(row: dict[str, Any], *, whole: bool) -> str:
    return f"{row['accuracy_pct']:.1f}{_interval(row['ci_low'], row['ci_high']) if whole else ''}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.0f}, {high:.0f}]"
