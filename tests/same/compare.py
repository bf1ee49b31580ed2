"""Whether two run folders hold the same: every file by its content, times and the identity of the attempt aside.

What may differ stands in two tables: whole files (LEFT_OUT) and single keys of a file (KEYS), each with the reason. All else
is compared by its bytes, so a file of a kind that nobody thought of is red where it differs, and so is one that is in one
of the folders only.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

HOME = "HOME"  # stands for the folder that all runs of a leg lie in
SHOWN = 3  # differing keys of one file that are named
METRIC_TIMES = ("step_s", "save_s", "data_wait", "clips_per_s", "mfu", "peak_gib", "slowest_rank", "straggle")

LEFT_OUT: dict[str, str] = {
    "submit/*": "batch script, pickled call and logs of a job: named by its id, with times in them",
    "checks.jsonl": "speeds, free space and clocks of the nodes at each start",
    "attempts.json": "the seconds of every start of the job",
    "tensorboard/*": "the files are named by time and process; their curves are compared as one",
    "code/*/__pycache__/*": "holds the times of the sources",
    "slow.json": "who was slow when it was last looked at",
    ".*": "a draft that kill -9 left; nothing reads it",
}
"""Pattern of a file below the run folder -> why it is not compared. `*` also takes slashes."""

KEYS: dict[str, tuple[tuple[str, ...], str]] = {
    "config.yaml": (("data.workers",), "what the legs vary"),
    "run.json": (("created", "command", "submissions", "cell.overrides.data.workers"),
                 "when and by which words it was submitted; what the legs vary"),
    "heartbeat.json": (("job_id", "host", "time"), "who left the last sign of life, and when"),
    "result.json": (("train_s", "eval_s", "goodput", "clips_per_s", "data_wait", "job_id", "finished",
                     "cell.overrides.data.workers"), "times, and the job that ended it; what the legs vary"),
    "*metrics.jsonl": (METRIC_TIMES, "times and memory of a step"),
    "checkpoints/*/COMPLETE": (("save_s", "files.metrics.jsonl"), "a time, and the hash of a file with times in it"),
}
"""Pattern of a JSON, JSON lines, CSV or YAML file -> keys that may differ, dotted where nested, and why."""


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two run folders.

    Attributes:
        files: How many were compared; the curves of TensorBoard are one more.
        differing: `file: what differs`, sorted.
    """

    files: int
    differing: tuple[str, ...]


def compare(ours: Path, theirs: Path) -> Comparison:
    """Compare two run folders; paths inside their parent's parent (the leg's folder) count as the same."""
    mine, others = _files(ours), _files(theirs)
    found = [f"{name}: only in {'the first' if name in mine else 'the second'}" for name in mine ^ others]
    found += [f"{name}: {what}" for name in mine & others if (what := _difference(name, ours, theirs))]
    if (ours / "tensorboard").is_dir() or (theirs / "tensorboard").is_dir():
        curves = [_curves(folder / "tensorboard") for folder in (ours, theirs)]
        found += [f"tensorboard: {what}" for what in [_unequal(*curves)] if what]
        return Comparison(len(mine | others) + 1, tuple(sorted(found)))
    return Comparison(len(mine | others), tuple(sorted(found)))


def _files(run: Path) -> set[str]:
    """Files below a run folder that are compared; folders that are links are entered, as a cell's code is one."""
    found = {os.path.relpath(Path(folder) / name, run) for folder, _, names in os.walk(run, followlinks=True) for name in names}
    return {name for name in found if not any(fnmatchcase(name, pattern) for pattern in LEFT_OUT)}


def _difference(name: str, ours: Path, theirs: Path) -> str:
    """What differs in a file that both have; empty where nothing does."""
    data = [(run / name).read_bytes() for run in (ours, theirs)]
    if data[0] == data[1]:
        return ""
    keys = next((keys for pattern, (keys, _) in KEYS.items() if fnmatchcase(name, pattern)), None)
    if keys is None:
        return "other bytes"
    values = [_flat(_parse(name, _at_home(text, run)), keys) for text, run in zip(data, (ours, theirs), strict=True)]
    return _unequal(*values)


def _at_home(data: bytes, run: Path) -> str:
    return data.decode("utf-8", "surrogateescape").replace(str(run.absolute().parent.parent), HOME)


def _parse(name: str, text: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {
        ".jsonl": lambda text: [json.loads(line) for line in text.splitlines()],
        ".csv": lambda text: list(csv.DictReader(text.splitlines())), ".yaml": yaml.safe_load}
    return readers.get(Path(name).suffix, json.loads)(text)


def _flat(value: Any, left_out: Sequence[str], where: str = "", key: str = "") -> dict[str, Any]:
    """Leaves of nested JSON by their path. `left_out` are dotted keys; places in a list do not count in them."""
    if key in left_out:
        return {}
    if isinstance(value, (Mapping, list)) and value:
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        flat: dict[str, Any] = {}
        for name, part in pairs:
            inner = key if isinstance(value, list) else f"{key}.{name}".lstrip(".")
            flat |= _flat(part, left_out, f"{where}.{name}".lstrip("."), inner)
        return flat
    return {where: value}


def _unequal(ours: Mapping[Any, Any], theirs: Mapping[Any, Any]) -> str:
    """The keys at which two mappings differ; NaN is equal to NaN."""
    missing = object()
    keys = [key for key in {**ours, **theirs} if repr(ours.get(key, missing)) != repr(theirs.get(key, missing))]
    return ", ".join(map(str, keys[:SHOWN])) + (f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else "")


def _curves(folder: Path) -> dict[str, Any]:
    """`tag at step` -> value, as TensorBoard shows it: a job that continues replaces what comes after its first step."""
    points: dict[tuple[int, str], float] = {}
    for event in _events(folder):
        if event.HasField("session_log"):
            points = {(step, tag): value for (step, tag), value in points.items() if step < event.step}
        for value in event.summary.value:
            points[event.step, value.tag] = value.simple_value
    return {f"{tag} at step {step}": value for (step, tag), value in sorted(points.items()) if tag not in METRIC_TIMES}


def _events(folder: Path) -> Iterator[Any]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event

    for path in sorted(folder.glob("events.*"), key=lambda path: int(re.findall(r"tfevents\.(\d+)", path.name)[0])):
        for record in RawEventFileLoader(str(path)).Load():
            yield Event.FromString(record)
