"""Accuracies at growing amounts of data from finished runs: few-shot runs whose checkpoint was pretrained on a fraction.

A pretraining run's run.json says of what its data are a fraction (`fraction`, from the manifest's summary); one on the whole
of the same data is the point at 100 %, in every series. Few-shot runs name their checkpoint. Runs on the same fraction are
repeats, told apart by the seed in their config.yaml; of each, the mean over few-shot seeds is one point. Hours are what the
videos have, mean over repeats: what was asked for is made up by whole videos, and a draw gives others each time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from analysis.curves.series import Axis, Result, Results
from analysis.results.cell_record import WITHOUT_EFFECT
from vidmae.runs.record import read_json

CELL = ("checkpoint", "data", "shots", "method")
Pct = tuple[float | None, float | None]


@dataclass(frozen=True)
class Pretrained:
    """A pretraining run on a fraction, or on the whole of what others are fractions of.

    Attributes:
        name: Of its folder.
        signature: What few-shot runs know it by.
        series: The subsets that it is a point of; several for the whole.
        share: Of the data; None where the fraction was chosen by hours.
        hours: Of the data, mean over repeats.
        seed: Of the run.
    """

    name: str
    signature: str
    series: tuple[str, ...]
    share: float | None
    hours: float
    seed: int


@dataclass(frozen=True)
class FewShot:
    """A few-shot run.

    Attributes:
        name: Of its folder.
        cell: As in its run.json.
        pct: Top-1 and top-5; None without a usable result.
        why: Why there is none.
    """

    name: str
    cell: Mapping[str, Any]
    pct: Pct
    why: str = ""

    @property
    def task(self) -> str:
        """Data, shots, and whatever is not as usual."""
        shots = f"{self.cell['shots']}shot" if self.cell["shots"] else "all"
        method = [] if self.cell["method"] == "finetune" else [str(self.cell["method"])]
        return " ".join([f"{self.cell['data']}-{shots}", *method,
                         *(f"{key}={value}" for key, value in sorted((self.cell.get("overrides") or {}).items())
                           if key not in WITHOUT_EFFECT)])


def read_runs(folder: Path, axis: Axis | None = None) -> Results:
    """Gather the runs of a folder.

    Args:
        folder: Holds the run folders.
        axis: What amounts are; None takes shares where all are of one data set and were chosen by share, else hours.
    Raises:
        ValueError: There is no such folder, or no few-shot run on a fraction in it; or two runs are the same repeat.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder of runs {folder} (--runs)")
    records = {path.parent: read_json(path) or {} for path in sorted(folder.glob("*/run.json"))}
    pretrained = find_pretrained(records)
    cells = {run: record for run, record in records.items() if record.get("kind") == "fewshot"}
    unclear = [run.name for run, record in cells.items() if not set(CELL) <= set(record.get("cell") or ())]
    few = [few_shot(run, record) for run, record in cells.items() if run.name not in unclear]
    by_run: dict[str, list[FewShot]] = defaultdict(list)
    for each in few:
        if source := _source(each, pretrained):
            by_run[source.name].append(each)
    if not by_run:
        raise ValueError(f"{folder} holds {len(few)} few-shot runs and {len(pretrained)} pretraining runs on fractions, and "
                         "none of the first starts from one of the others (--runs; --results takes a table)")
    data = _data_sets(records)
    shares = len(set(data.values())) < 2 and all(run.share is not None for run in pretrained)
    chosen: Axis = axis or ("fraction" if shares else "hours")
    rows, lost = _rows(pretrained, by_run, chosen)
    return Results(chosen, rows, f"runs in {folder}",
                   [*lost, *(f"{name}: its run.json does not say which cell it is" for name in unclear)], data)


def find_pretrained(records: Mapping[Path, Mapping[str, Any]]) -> list[Pretrained]:
    """The pretraining runs that are points: on fractions, and on the whole of what those are fractions of."""
    runs = {path: record for path, record in records.items() if record.get("kind") == "pretrain"}
    fractions = _fractions(records)
    several = len({said["of"] for said in fractions}) > 1
    has_hours: dict[tuple[Any, ...], list[float]] = {}
    for said in fractions:
        has_hours.setdefault(_choice(said), []).append(said["has_hours"])
    wholes: dict[str, dict[str, float]] = {}  # content of a whole data set -> series of its fractions -> its hours
    for said in fractions:
        wholes.setdefault(said["of_content_sha256"], {})[_series(said, several)] = said["of_hours"]
    found = []
    for path, record in runs.items():
        said = record.get("fraction") or {}
        whole = wholes.get(said["of_content_sha256"] if said.get("share") == 1 else str(record.get("content_sha256")))
        if whole:
            series, share, hours = tuple(whole), 1.0, max(whole.values())
        elif said:
            series, share, hours = (_series(said, several),), said["share"], fmean(has_hours[_choice(said)])
        else:
            continue
        found.append(Pretrained(path.name, str(record["signature"]), series, share, hours, _seed(path)))
    return found


def few_shot(run: Path, record: Mapping[str, Any]) -> FewShot:
    """A few-shot run and what it has found."""
    try:
        result = read_json(run / "result.json")
    except ValueError:
        return FewShot(run.name, record["cell"], (None, None), "its result.json is damaged")
    if result is None:
        why = "it failed" if (run / "failure.json").exists() else "it has no result yet"
        return FewShot(run.name, record["cell"], (None, None), why)
    top1, top5 = (_pct(result.get(name)) for name in ("top1_pct", "top5_pct"))
    why = "" if top1 is not None else "its accuracy is no number from 0 to 100"
    return FewShot(run.name, record["cell"], (top1, top5), why)


def _rows(pretrained: Sequence[Pretrained], by_run: Mapping[str, Sequence[FewShot]], axis: Axis,
          ) -> tuple[list[Result], list[str]]:
    """One result per pretraining run and task, without a value where there is none, and what runs lack."""
    rows: dict[tuple[str, str, float, int], Result] = {}
    lost = [f"{each.name}: {each.why}" for few in by_run.values() for each in few if each.why]
    tasks = {task: None for few in by_run.values() for task in (each.task for each in few)}
    for run in pretrained:
        amount = run.hours if axis == "hours" else run.share
        if amount is None:
            lost.append(f"{run.name}: its fraction was chosen by hours and has no share (--axis hours)")
            continue
        for series in run.series:
            for task in tasks:
                pct = _mean([each.pct for each in by_run.get(run.name, ()) if each.task == task])
                row = Result(series, task, amount, run.seed, pct, run.name)
                if row.key in rows:
                    raise ValueError(f"{run.name} and {rows[row.key].run} are both {axis} {amount:g}, seed {run.seed} of "
                                     f"{series}; a repeat counts once: keep the runs of one study in a folder of its own "
                                     "(--runs)")
                rows[row.key] = row
    return sorted(rows.values(), key=lambda row: row.key), lost


def _mean(values: Iterable[Pct]) -> Pct:
    columns = [[value for value in column if value is not None] for column in zip(*values, strict=True)] or [[], []]
    top1, top5 = (sum(column) / len(column) if column else None for column in columns)
    return top1, top5


def _source(each: FewShot, pretrained: Sequence[Pretrained]) -> Pretrained | None:
    """The pretraining run that a few-shot run starts from: by signature, else by its name if that is one run's."""
    content, name = str(each.cell.get("checkpoint_content") or ""), str(each.cell.get("checkpoint"))
    if content.startswith("run:"):
        return next((run for run in pretrained if run.signature == content.removeprefix("run:")), None)
    named = [run for run in pretrained if name in (run.name, run.name.rpartition("-")[0])]
    return named[0] if len(named) == 1 else None


def _fractions(records: Mapping[Path, Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [record["fraction"] for record in records.values() if record.get("kind") == "pretrain" and record.get("fraction")]


def _data_sets(records: Mapping[Path, Mapping[str, Any]]) -> dict[str, str]:
    """The data set of each series; empty where all are of one."""
    fractions = _fractions(records)
    several = len({said["of"] for said in fractions}) > 1
    return {_series(said, several): said["of"] for said in fractions} if several else {}


def _choice(said: Mapping[str, Any]) -> tuple[Any, ...]:
    """What the repeats of a fraction have in common."""
    return tuple(said[key] for key in ("of_content_sha256", "subset", "share", "hours"))


def _series(said: Mapping[str, Any], several: bool) -> str:
    return f"{said['of']} {said['subset']}" if several else str(said["subset"])


def _seed(run: Path) -> int:
    try:
        return int(yaml.safe_load((run / "config.yaml").read_bytes())["seed"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run / 'config.yaml'} does not say the seed of the run ({error!r})") from error


def _pct(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 100 else None
