"""Everything that a run's folder says of it, read once. A run that failed, goes on or has not begun has fewer records.

A record that is damaged is said and passed over: a page about a broken run is worth most. metrics.jsonl is read line by line
and not by pandas.read_json: that refuses a file whose last line was cut off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from vidmae.runs.attempts import Attempt, read_attempts
from vidmae.runs.quarantine import read_quarantine
from vidmae.runs.record import CANCELLED, RunFolder, read_json

# texts are Python's own: pandas 3 would store them with pyarrow, which refuses names of files that are not UTF-8
pd.set_option("mode.string_storage", "python")

CURVES = ("loss", "target_std", "target_std_between", "lr", "clips_per_s", "data_wait")
COLUMNS = ["step", "epoch", *CURVES]
PRETRAIN, FEWSHOT = "pretrain", "fewshot"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe, too, and ten times as fast
Record = Mapping[str, Any]
T = TypeVar("T")


class Dossier:
    """The records of a run, read once; empty where there are none.

    Raises:
        ValueError: The folder is not that of a run.
    """

    def __init__(self, run: RunFolder) -> None:
        if not any(path.is_file() for path in (run.record, run.config, run.result)):
            raise ValueError(f"{run.path} is no run folder: it has neither run.json nor config.yaml")
        self.run, self.name = run, run.path.name
        self.damaged = list[str]()  # what cannot be read, and why
        self.record, self.result = (self._read(path, read_json) or {} for path in (run.record, run.result))
        self.kind = str(self.record.get("kind") or self.result.get("kind") or "")  # empty where nothing says it
        self.signature = str(self.record.get("signature") or "")  # of the experiment
        self.failure, self.heartbeat = (self._read(path, read_json) or {} for path in (run.failure, run.heartbeat))
        self.config: Record = self._read(run.config, read_config) or {}  # `train.precision` -> value
        self.attempts = self._read(run.attempts, lambda _: read_attempts(run)) or []  # every start of the job, oldest first
        self.looks = self._read(run.evaluations, lambda path: list(read_lines(path))) or []  # at the model between two steps
        self.replaced = self._read(run.quarantine, lambda _: read_quarantine(run)) or []  # videos, with their steps
        self.left_out = self._read(run.nonfinite, lambda path: list(read_lines(path))) or []  # batches after NaN or infinity

    @cached_property
    def curves(self) -> pd.DataFrame:
        """See `read_curves`; read where it is first asked for, since it may be 100 MB of text."""
        curves = self._read(self.run.metrics, read_curves)
        return pd.DataFrame(columns=COLUMNS, dtype=float) if curves is None else curves

    def _read(self, path: Path, read: Callable[[Path], T | None]) -> T | None:
        try:
            return read(path)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            self.damaged.append(f"{path.name} cannot be read ({type(error).__name__})")
            return None

    @property
    def state(self) -> str:
        """done, failed, cancelled, interrupted (it saved and left), unfinished or not started: by the run's own records."""
        if self.result or self.failure:
            return "done" if self.result else "failed"
        if self.attempts and (ended := self.ended(self.attempts[-1])) in ("cancelled", "preempted"):
            return ended if ended == "cancelled" else "interrupted"
        return "unfinished" if self.attempts or self.heartbeat or len(self.curves) else "not started"

    def ended(self, attempt: Attempt) -> str:
        """How an attempt ended: done, preempted, cancelled (by a person), or empty while it runs and where nobody knows."""
        by_hand = attempt.ended != "done" and (self.run.submit / attempt.job_id / CANCELLED).exists()
        return "cancelled" if by_hand else attempt.ended


def read_curves(path: Path) -> pd.DataFrame:
    """COLUMNS of metrics.jsonl, NaN where a step has no value; line by line, since 300,000 of them are 100 MB of text."""
    found = (line.get(name) for line in read_lines(path) for name in COLUMNS)
    values = np.fromiter((value if isinstance(value, int | float) else np.nan for value in found), float)
    return pd.DataFrame(values.reshape(-1, len(COLUMNS)), columns=COLUMNS)


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
