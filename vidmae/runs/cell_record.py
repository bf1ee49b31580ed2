"""The records of one few-shot run: what its run.json announces, and what its result.json says; checked, never guessed.

A result that is cut off, of another schema, or whose numbers cannot be is no result: `read_result` says what is wrong.
Contract: vidmae/runs/record.py, and README, Run folder.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SCHEMA = 1
KIND = "fewshot"
PLACES = {"select": ("select", "rule"), "views": ("evaluate", "views")}  # where config.yaml has what a result.json names
ABOVE = {f"{section}.{name}" for section, name in PLACES.values()} | {"method"}  # overrides that have a name of their own
WITHOUT_EFFECT = {"keep_weights"}  # overrides that change no result
ACCURACY_CHANCE = "accuracy_chance_pct"
CLUSTERING = (  # of method cluster
    "nmi_pct", "purity_pct", "ari_pct", "nmi_chance_pct", "purity_chance_pct", ACCURACY_CHANCE)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # safe, too, and ten times as fast

Interval = tuple[float, float]


class ResultError(ValueError):
    """A record cannot be used; the message says why."""


class OtherKindError(ValueError):
    """A record of another kind of run, such as pretraining."""


@dataclass(frozen=True)
class Cell:
    """Which cell of a sweep a run is.

    Attributes:
        checkpoint: Name of the weights it starts from.
        content: `run:` and a signature, the hash of a file, or `scratch:` or `conv:` and the shape of the model.
        data: Data set.
        shots: Labelled clips per class; 0 for all clips, or a share of them.
        seed: Of the draw and of the training.
        method: finetune, linear, knn, attentive or cluster.
        overrides: Settings that differ from the recipe, sorted; without those that stand in this class or change no result.
        select: Selection rule; empty where nothing says it.
        views: Views of a clip; empty where nothing says it.
        fraction: Share of the labelled clips of each class; 0 where `shots` says how many.
        pictures: Whether the data set has pictures and no videos.
        pair: Of an image model that is matched to a video model: `frames of s-vith14-1a2b3c4d`; else empty.
        grid: Of a checkpoint of a pretraining grid: what the grid is called; else empty.
        grid_of: Equal for its repeats: what it is, but for the seed.
        grid_settings: Its settings that vary over the grid.
        repeat: Which repeat it is; None outside of grids.
    """

    checkpoint: str
    content: str
    data: str
    shots: int
    seed: int
    method: str
    overrides: tuple[tuple[str, str], ...]
    select: str
    views: str
    fraction: float = 0.0
    pictures: bool = False
    pair: str = ""
    grid: str = ""
    grid_of: str = ""
    grid_settings: tuple[tuple[str, str], ...] = ()
    repeat: int | None = None


@dataclass(frozen=True)
class Result:
    """What a run has found. Accuracies are in %, intervals the 95 % bootstrap over clips, None where there is none.

    Method cluster has found clusters, too: nmi_pct and the others say how well they agree with the classes, and what chance
    gives (vidmae/evaluate/clustering.py); None of other methods. The chance of top-1 is None in earlier results.
    """

    top1_pct: float
    top5_pct: float
    top1_ci_pct: Interval | None
    top5_ci_pct: Interval | None
    clips: int
    classes: int
    train_clips: int
    selected_step: int | None
    commit: str
    dirty: bool
    finished: float
    nmi_pct: float | None = None
    purity_pct: float | None = None
    ari_pct: float | None = None
    nmi_chance_pct: float | None = None
    purity_chance_pct: float | None = None
    accuracy_chance_pct: float | None = None


def amount_of(shots: int, fraction: float) -> str:
    """How much was learned from, in a table: shots per class, `2%` of each class, or `all`."""
    return f"{100 * fraction:g}%" if fraction else str(shots or "all")


def parse_object(text: bytes, name: str) -> dict[str, Any]:
    """One JSON object.

    Raises:
        ResultError: It is empty, cut off or something else.
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "is empty" if not text.strip() else "is cut off" if _ends_early(error, text) else "is no JSON"
        raise ResultError(f"{name} {what} ({error})") from error
    if not isinstance(record, dict):
        raise ResultError(f"{name} holds {type(record).__name__}, not an object")
    return record


def _ends_early(error: Exception, text: bytes) -> bool:
    if not isinstance(error, json.JSONDecodeError) or error.msg == "Extra data":
        return False
    return error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")


def read_result(text: bytes) -> tuple[Cell, Result]:
    """The cell and its numbers, from the content of a result.json.

    Raises:
        OtherKindError: Of another kind of run.
        ResultError: Damaged, or a number in it cannot be; the message names it.
    """
    record = parse_object(text, "result.json")
    if record.get("kind") != KIND:
        raise OtherKindError(str(record.get("kind")))
    _check_schema(record, "result.json")
    cell = _cell(record, "result.json", _text(record, "select"), _text(record, "views"))
    top1_pct, top5_pct = _pct(record, "top1_pct"), _pct(record, "top5_pct")
    if top1_pct > top5_pct:
        raise ResultError(f"top1_pct {top1_pct:g} is higher than top5_pct {top5_pct:g}")
    step = None if record.get("selected_step") is None else _count(record, "selected_step", 0)
    return cell, Result(
        top1_pct, top5_pct, _interval(record, "top1_ci_pct"), _interval(record, "top5_ci_pct"), _count(record, "clips", 1),
        _count(record, "classes", 1), _count(record, "train_clips", 0), step, str(record.get("commit") or ""),
        bool(record.get("dirty")), _number(record, "finished"), **_clustering(record))


def _clustering(record: Mapping[str, Any]) -> dict[str, float]:
    """How well clusters agree with classes; nothing of other methods."""
    found = record.get("clustering")
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ResultError(f"clustering is {_said(record, 'clustering')}, not an object")
    return {name: _number(found, name) if name == "ari_pct" else _pct(found, name) for name in CLUSTERING
            if name != ACCURACY_CHANCE or name in found}


def read_announced(text: bytes, config: Path) -> tuple[Cell, str]:
    """The cell of a run without a result, and how far it is, from the content of a run.json and the run's config.yaml.

    Raises:
        OtherKindError: Of another kind of run.
        ResultError: Damaged.
    """
    record = parse_object(text, "run.json")
    if record.get("kind") != KIND:
        raise OtherKindError(str(record.get("kind")))
    _check_schema(record, "run.json")
    last = (record.get("submissions") or [{}])[-1]
    if not isinstance(last, dict):
        raise ResultError("run.json: submissions are no objects")
    job = last.get("job_id")
    said = f"no result yet, submitted as job {job}" if job else "not submitted yet"
    return _cell(record, "run.json", **_settings(config)), said


def _settings(config: Path) -> dict[str, str]:
    """Selection rule and views, which run.json does not have."""
    try:
        record = yaml.load(config.read_bytes(), Loader=_Loader)
        return {name: str(record[section][key]) for name, (section, key) in PLACES.items()}
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return dict.fromkeys(PLACES, "")  # the run stays a cell, in a row of its own


def _cell(record: Mapping[str, Any], name: str, select: str, views: str) -> Cell:
    cell = record.get("cell")
    if not isinstance(cell, dict):
        raise ResultError(f"{name} does not say which cell it is (cell)")
    overrides = cell.get("overrides") or {}
    if not isinstance(overrides, dict):
        raise ResultError(f"{name}: cell.overrides is no object")
    shown = sorted((str(key), str(value)) for key, value in overrides.items() if key not in ABOVE | WITHOUT_EFFECT)
    return Cell(_text(cell, "checkpoint"), str(cell.get("checkpoint_content") or ""), _text(cell, "data"),
                _count(cell, "shots", 0), _count(cell, "seed", 0), _text(cell, "method"), tuple(shown), select, views,
                _share(cell), cell.get("pictures") is True, str(cell.get("pair") or ""), *_place_in_grid(cell))


def _place_in_grid(cell: Mapping[str, Any]) -> tuple[str, str, tuple[tuple[str, str], ...], int | None]:
    grid = cell.get("grid")
    if not grid:
        return "", "", (), None
    if not isinstance(grid, dict) or not isinstance(grid.get("settings"), dict):
        raise ResultError("cell.grid is no object with settings")
    settings = tuple((str(key), str(value)) for key, value in grid["settings"].items())
    return _text(grid, "name"), _text(grid, "of"), settings, _count(grid, "repeat", 0)


def _check_schema(record: Mapping[str, Any], name: str) -> None:
    if record.get("schema") != SCHEMA:
        raise ResultError(f"{name} has schema {record.get('schema')!r}, known is {SCHEMA}")


def _text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise ResultError(f"{key} is {_said(record, key)}, not a name")
    return value


def _number(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]
        raise ResultError(f"{key} is {_said(record, key)}, not a number")
    return float(value)  # type: ignore[arg-type]


def _share(cell: Mapping[str, Any]) -> float:
    value = _number(cell, "fraction") if "fraction" in cell else 0.0
    if not 0 <= value < 1:
        raise ResultError(f"fraction is {value:g}, not a number from 0 to below 1")
    return value


def _pct(record: Mapping[str, Any], key: str) -> float:
    value = record.get(key)
    if type(value) not in (int, float) or not 0 <= value <= 100:  # type: ignore[operator]  # NaN is not in the range
        raise ResultError(f"{key} is {_said(record, key)}, not a number from 0 to 100")
    return float(value)  # type: ignore[arg-type]


def _interval(record: Mapping[str, Any], key: str) -> Interval | None:
    value = record.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise ResultError(f"{key} is {_said(record, key)}, not two numbers")
    lower, upper = (_pct({key: end}, key) for end in value)
    return lower, upper


def _count(record: Mapping[str, Any], key: str, least: int) -> int:
    value = record.get(key)
    if type(value) is not int or value < least:
        raise ResultError(f"{key} is {_said(record, key)}, not a whole number from {least}")
    return value


def _said(record: Mapping[str, Any], key: str) -> str:
    return str(record[key])[:40] if key in record else "missing"
