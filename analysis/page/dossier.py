"""Everything that a run's folder says of it, read once. A run that failed, goes on or has not begun has fewer records.

A record that is damaged is said and passed over: a page about a broken run is worth most.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml

from vidmae.runs.attempts import Attempt, read_attempts
from vidmae.runs.quarantine import Substitution, read_quarantine
from vidmae.runs.record import CANCELLED, RunFolder, read_json

CURVES = ("loss", "lr", "clips_per_s", "data_wait")
PRETRAIN, FEWSHOT = "pretrain", "fewshot"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe, too, and ten times as fast
Record = Mapping[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Dossier:
    """The records of a run; empty where there are none.

    Attributes:
        run: Its folder.
        kind: pretrain, fewshot, or empty where nothing says it.
        record, result, failure, heartbeat: The JSON records.
        config: Settings, `train.precision` -> value.
        data: Totals of the manifest, where it is still the one of the run.
        attempts: Every start of the job, oldest first.
        step: Steps in metrics.jsonl, float64 [N].
        curves: Name -> value at each of them, NaN where there is none.
        evaluations: Looks at a model between two steps.
        replaced: Step and video that could not be read.
        left_out: Global batches left out after NaN or infinity.
        damaged: What cannot be read, and why.
    """

    run: RunFolder
    kind: str
    record: Record
    result: Record
    failure: Record
    heartbeat: Record
    config: Record
    data: Record
    attempts: list[Attempt]
    step: np.ndarray
    curves: Mapping[str, np.ndarray]
    evaluations: list[Record]
    replaced: list[tuple[int, Substitution]]
    left_out: list[Record]
    damaged: list[str]

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.run.path.name

    @property
    def signature(self) -> str:
        """Of the experiment; empty where run.json does not say it."""
        return str(self.record.get("signature") or "")

    @property
    def state(self) -> str:
        """done, failed, cancelled, interrupted (it saved and left), unfinished or not started: by the run's own records."""
        if self.result:
            return "done"
        if self.failure:
            return "failed"
        if self.attempts and (ended := self.ended(self.attempts[-1])) in ("cancelled", "preempted"):
            return ended if ended == "cancelled" else "interrupted"
        return "unfinished" if self.attempts or self.heartbeat or len(self.step) else "not started"

    def ended(self, attempt: Attempt) -> str:
        """How an attempt ended: done, preempted, cancelled (by a person), or empty while it runs and where nobody knows."""
        by_hand = attempt.ended != "done" and (self.run.submit / attempt.job_id / CANCELLED).exists()
        return "cancelled" if by_hand else attempt.ended


def read_dossier(run: RunFolder) -> Dossier:
    """Read all records of a run.

    Raises:
        ValueError: The folder is not that of a run.
    """
    if not any(path.is_file() for path in (run.record, run.config, run.result)):
        raise ValueError(f"{run.path} is no run folder: it has neither run.json nor config.yaml")
    damaged: list[str] = []

    def attempt(read: Callable[[], T], otherwise: T, name: str) -> T:
        try:
            return read()
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            damaged.append(f"{name} cannot be read ({type(error).__name__})")
            return otherwise

    def record_of(path: Path) -> Record:
        return attempt(lambda: read_json(path), None, path.name) or {}

    record, result = record_of(run.record), record_of(run.result)
    nothing: tuple[np.ndarray, dict[str, np.ndarray]] = (np.zeros(0), {})
    step, curves = attempt(lambda: read_curves(run.metrics), nothing, run.metrics.name)
    return Dossier(
        run, str(record.get("kind") or result.get("kind") or ""), record, result, record_of(run.failure),
        record_of(run.heartbeat), attempt(lambda: read_config(run.config), {}, run.config.name), data_of(record),
        attempt(lambda: read_attempts(run), [], run.attempts.name), step, curves,
        attempt(lambda: list(read_lines(run.evaluations)), [], run.evaluations.name),
        attempt(lambda: read_quarantine(run), [], run.quarantine.name),
        attempt(lambda: list(read_lines(run.nonfinite)), [], run.nonfinite.name), damaged)


def read_curves(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps and curves of metrics.jsonl, line by line: 300,000 of them are 100 MB of text."""
    columns = {name: array("d") for name in ("step", *CURVES)}
    for line in read_lines(path):
        for name, column in columns.items():
            value = line.get(name)
            column.append(value if isinstance(value, int | float) else np.nan)
    step, *curves = (np.array(column) for column in columns.values())
    return step, dict(zip(CURVES, curves, strict=True))


def read_lines(path: Path) -> Iterator[Record]:
    """JSON objects, one a line; none where there is no file, and none after a line that was cut off."""
    if not path.exists():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                return
            if isinstance(record, dict):
                yield record


def read_config(path: Path) -> dict[str, Any]:
    """Settings under dotted names."""
    return flat(yaml.load(path.read_bytes(), Loader=_Loader)) if path.exists() else {}


def flat(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Settings of settings under dotted names; lists stay whole."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, dict) else {f"{above}{key}": value}
    return found


def data_of(record: Record) -> Record:
    """Totals of the run's manifest, from the JSON beside it; nothing where that is gone or has changed since."""
    try:
        totals = read_json(Path(record["manifest"]).with_suffix(".json")) or {}
    except (KeyError, TypeError, ValueError, OSError):
        return {}
    return totals if totals.get("content_sha256") == record.get("content_sha256") else {}
