"""All runs of a folder as rows of one page, with what the page needs to lay some of them beside each other.

A folder with a damaged record, or without one, is a row that says so. Of a curve a bounded sample is read: a run of 300,000
steps has 100 MB of metrics, and a folder may hold a thousand runs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from analysis.page.chapters import facts_of
from analysis.page.dossier import Dossier
from analysis.page.html import TEMPLATES, to_html
from analysis.page.wording import discreet, moment, number
from vidmae.runs.attempts import totals
from vidmae.runs.nodes.usage import Rates, spent, uses_of
from vidmae.runs.record import RunFolder

COLUMNS = {  # what stands on the page -> whether it is a number
    "run": False, "state": False, "kind": False, "data": False, "model": False, "method": False, "steps": True,
    "loss": True, "top-1, %": True, "GPU-hours": True, "core-hours": True, "goodput, %": True, "begun": False, "note": False}
OWN_WORDS = ("run", "note")  # of this suite, which may name records of a run
DAMAGED = "damaged"
SCRIPT = TEMPLATES / "all_runs.js"
RUN_ID = re.compile(r"-[0-9a-f]{8}$")  # how the name of a run folder ends
SIGNS = ("run.json", "config.yaml", "result.json", "metrics.jsonl", "attempts.json", "checkpoints")  # of a run folder
POINTS = 60  # of a curve
WHOLE_BYTES = 2**18  # a shorter metrics.jsonl is read as a whole
BLOCK_BYTES = 2**12  # about ten lines; all blocks together are no more than a file that is read as a whole
MISSING = "--"


@dataclass(frozen=True)
class RunRow:
    """A run on the page.

    Attributes:
        name: Of its folder.
        state: See `Dossier.state`; DAMAGED where it has no record that says what it is.
        cells: Text of each column of COLUMNS, and the number that it is sorted by, or None.
        link: Of its own page, from the place of this one; empty where there is none.
        facts: Settings, data and code, by name; see `facts_of`.
        curve: Epochs seen and loss, [N] each.
    """

    name: str
    state: str
    cells: Sequence[tuple[str, float | None]]
    link: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    curve: tuple[np.ndarray, np.ndarray] = (np.empty(0), np.empty(0))


def run_folders(runs_dir: Path) -> list[Path]:
    """What looks like a run folder, by name: it has a sign of a run in it, or its name ends as that of one."""
    found = []
    for path in sorted(runs_dir.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            if RUN_ID.search(path.name) or any((path / sign).exists() for sign in SIGNS):
                found.append(path)
        except OSError:  # it may not be entered
            found.append(path)
    return found


def row_of(path: Path, place: Path) -> RunRow:
    """A run folder as a row; `place` is the folder of the page. Nothing that lies in the folder makes it fail."""
    try:
        return _row(Dossier(RunFolder(path)), place)
    except PermissionError:
        return _damaged(path, "the folder may not be read")
    except (ValueError, OSError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        known = any((path / name).is_file() for name in ("run.json", "config.yaml", "result.json"))
        return _damaged(path, f"its records cannot be read ({type(error).__name__})" if known else
                        "it has neither run.json nor config.yaml")


def _damaged(path: Path, why: str) -> RunRow:
    cells = {"run": path.name, "state": DAMAGED, "note": why}
    return RunRow(path.name, DAMAGED, [(cells.get(column, MISSING), None) for column in COLUMNS])


def _row(run: Dossier, place: Path) -> RunRow:
    notes, curve = list(run.damaged), sampled_losses(run.run.metrics)
    if run.run.metrics.exists() and run.run.metrics.stat().st_size and not len(curve[0]):
        notes.append("metrics.jsonl has no loss")
    if run.state == "failed":
        notes.append(f"{discreet(run.failure.get('error'))}: {discreet(run.failure.get('message'))}")
    steps, goodput = _steps(run), totals(run.attempts)["goodput"]
    last = curve[1][-1] if len(curve[1]) else run.result.get("last_loss")
    try:
        used = spent(uses_of(run.run), Rates())
        gpu_h, core_h = (used.gpu_h or None, used.core_h or None) if used.jobs else (None, None)
    except ValueError:
        gpu_h = core_h = None
        notes += [] if run.damaged else ["run.json or attempts.json is damaged"]
    created = str(run.record.get("created") or MISSING)[:16].replace("T", " ")
    begun = moment(run.attempts[0].started).removesuffix(" UTC") if run.attempts else created
    numbers = {"steps": steps, "loss": last, "top-1, %": run.result.get("top1_pct"), "GPU-hours": gpu_h,
               "core-hours": core_h, "goodput, %": None if goodput is None else 100 * goodput}
    texts = {"run": run.name, "state": run.state, "kind": run.kind or MISSING, "begun": begun,
             "data": run.record.get("data") or run.config.get("data.name") or MISSING,
             "model": run.config.get("model.name") or MISSING, "method": run.config.get("method") or MISSING,
             "note": "; ".join(notes)}
    cells = [_number(numbers[name]) if of_number else (texts[name] if name in OWN_WORDS else discreet(texts[name]), None)
             for name, of_number in COLUMNS.items()]
    page = run.run.path / "report.html"
    link = quote(os.path.relpath(page, place)) if page.is_file() else ""
    return RunRow(run.name, run.state, cells, link, facts_of(run), curve)


def _steps(run: Dossier) -> Any:
    return run.result.get("steps") or (run.attempts[-1].last_step if run.attempts else None) or run.heartbeat.get("step")


def _number(value: Any) -> tuple[str, float | None]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return MISSING, None
    return number(value), float(f"{value:.6g}")


def sampled_losses(path: Path, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Epochs seen and mean loss at places that are spread evenly over metrics.jsonl.

    Returns:
        float64 [N] each, N up to `points`. Of a short file a value is the mean of all steps of its span, of a long one
        that of the steps in BLOCK_BYTES; lines that are cut off or damaged are left out.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            spans = _spans_of_all(file.read(), points) if size <= WHOLE_BYTES else [
                list(_steps_in(_block(file, int(at)))) for at in np.linspace(0, size - BLOCK_BYTES, points)]
    except OSError:
        spans = []
    means = np.array([np.mean(span, axis=0) for span in spans if span]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def _spans_of_all(text: bytes, points: int) -> list[list[tuple[float, float]]]:
    steps = list(_steps_in(text.split(b"\n")))
    ends = np.linspace(0, len(steps), min(points, len(steps)) + 1).astype(int)
    return [steps[start:end] for start, end in pairwise(ends)]


def _block(file: Any, start: int) -> list[bytes]:
    """The whole lines of a block; what is cut at its ends is left out."""
    file.seek(start)
    lines = file.read(BLOCK_BYTES).split(b"\n")
    return list(lines[1 if start else 0:-1])


def _steps_in(lines: Sequence[bytes]) -> Iterator[tuple[float, float]]:
    for line in lines:
        try:
            record = json.loads(line)
            epoch, loss = float(record.get("epoch", record.get("step"))), float(record["loss"])
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            continue
        if math.isfinite(epoch) and math.isfinite(loss):
            yield epoch, loss


def told(rows: Sequence[RunRow]) -> dict[str, Any]:
    """What the script of the page lays beside each other: of settings that are not the same for all runs each value once."""
    names = dict.fromkeys(name for row in rows for name in row.facts)
    facts = []
    for name in names:
        values = dict.fromkeys(row.facts.get(name, MISSING) for row in rows)
        if len(values) > 1:
            places = {value: place for place, value in enumerate(values)}
            of = [places[row.facts.get(name, MISSING)] for row in rows]
            facts.append({"name": name, "values": list(values), "of": of})
    return {"runs": [row.name for row in rows], "facts": facts, "same": len(names) - len(facts),
            "curves": [[[float(f"{value:.5g}") for value in part] for part in row.curve] for row in rows]}


def page_of(rows: Sequence[RunRow], runs_dir: Path, made: str) -> str:
    """The page; the newest run comes first. Its policy lets the script run that comes with it, and no other."""
    begun = list(COLUMNS).index("begun")
    ordered = sorted(sorted(rows, key=lambda row: row.name), key=lambda row: str(row.cells[begun][0]), reverse=True)
    script = SCRIPT.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return to_html("all_runs.html", title=f"Runs in {runs_dir.name}", columns=COLUMNS, rows=ordered, told=told(ordered),
                   states=sorted({row.state for row in rows}), made=made, script=script, script_sha256=digest)
