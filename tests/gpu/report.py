"""What a stage found: checks that hold or not, figures, and what was left out and why; written down as it is found."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vidmae.runs.record import write_atomic

PARTIAL, DEADLINE, RESULTS = "VIDMAE_GPU_PARTIAL", "VIDMAE_GPU_DEADLINE", "VIDMAE_GPU_RESULTS"
"""Set for a stage by run.py: the file that its report is kept in, when it must be done (seconds since 1970), all results."""


class Report:
    """The lines of one stage, in order. Each is in the file at once, so that a stage that is killed leaves what it had."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def check(self, what: str, value: float | str | bool, limit: float | str | bool, *, ok: bool | None = None,
              **more: Any) -> bool:
        """Hold a value against its limit.

        Args:
            what: Names it.
            value: What was found.
            limit: The largest that is right; for texts and truth values what it must be.
            ok: Whether it is right, where that is another question.
            more: Kept beside it.
        """
        if ok is None:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            ok = value <= limit if number else value == limit  # NaN is never right
        self._add({"kind": "check", "what": what, "value": value, "limit": limit, "ok": bool(ok), **more})
        return bool(ok)

    def figure(self, what: str, **numbers: Any) -> None:
        """Something measured, to look at."""
        self._add({"kind": "figure", "what": what, **numbers})

    def skip(self, what: str, why: str) -> None:
        """Something that was not done."""
        self._add({"kind": "skipped", "what": what, "why": why})

    @contextmanager
    def part(self, what: str) -> Iterator[None]:
        """A part that must not stop the others: an error in it becomes a check that failed."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self._add({"kind": "check", "what": what, "value": f"{type(error).__name__}: {error}"[:500], "limit": "no error",
                       "ok": False})

    def record(self) -> dict[str, Any]:
        """What `run` of a stage returns."""
        checks = [line for line in self.lines if line["kind"] == "check"]
        return {"ok": all(line["ok"] for line in checks), "lines": self.lines}

    def _add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)
        print(json.dumps(line), flush=True)
        if path := os.environ.get(PARTIAL):
            write_atomic(Path(path), json.dumps(self.record()).encode(), durable=False)


def seconds_left() -> float:
    """Until the stage is ended."""
    return float(os.environ.get(DEADLINE, "inf")) - time.time()


def earlier(stage: str) -> list[dict[str, Any]]:
    """The lines of a stage that ran before; none where it did not."""
    path = Path(os.environ.get(RESULTS, ""))
    stages = json.loads(path.read_text())["stages"] if path.is_file() else {}
    return list(stages.get(stage, {}).get("lines", []))


def table(stages: dict[str, dict[str, Any]]) -> str:
    """All stages as one Markdown table."""
    rows = ["| stage | what | result | limit | |", "|---|---|---|---|---|"]
    for name, stage in stages.items():
        rows.append(f"| **{name}** | {stage['why'] or 'whole stage'} | {stage['seconds']:.0f} s | {stage['limit_s']:.0f} s | "
                    f"{'ok' if stage['ok'] else '**FAILED**'} |")
        rows += [f"| {name} | {_cell(line['what'])} | {_cell(_result(line))} | {_cell(_text(line.get('limit', '')))} | "
                 f"{_verdict(line)} |" for line in stage["lines"]]
    return "\n".join(rows) + "\n"


def mfu_rows(card: str, versions: str, date: str, lines: list[dict[str, Any]]) -> str:
    """Rows for vidmae/runs/measured_mfu.yaml from the lines of fast_step: of each model and micro-batch the best way to train.

    Args:
        card: As torch names it.
        versions: That its figures belong to.
        date: The same.
        lines: Of the stage.
    """
    best: dict[tuple[str, int], float] = {}
    for line in lines:
        name, *how = line["what"].split(", ")
        if line.get("mfu_pct") and how[-1].startswith("micro-batch") and how[-2] in ("eager", "compiled") and len(how) < 5:
            best[name, line["batch"]] = max(line["mfu_pct"] / 100, best.get((name, line["batch"]), 0.0))
    return "".join(f"  - {{gpu: {card}, model: mae_{name}, micro_batch: {batch}, mfu: {mfu:.5f}, date: {date}, versions: {versions}}}\n"
                   for (name, batch), mfu in sorted(best.items()))


def _verdict(line: dict[str, Any]) -> str:
    if line["kind"] == "skipped":
        return "skipped"
    return "" if line["kind"] == "figure" else "ok" if line["ok"] else "**FAILED**"


def _result(line: dict[str, Any]) -> str:
    if line["kind"] == "skipped":
        return str(line["why"])
    shown = {key: value for key, value in line.items() if key not in ("kind", "what", "limit", "ok")}
    value = shown.pop("value", None)
    return ", ".join([*([] if value is None else [_text(value)]), *(f"{key} {_text(each)}" for key, each in shown.items())])


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
