"""The robustness cells below folders, as one table: a row for every model, seed, set and condition.

A model is a few-shot cell without its seed. What was announced and has no result is named, and never counted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.results.scan import ARRAY, RESULT, RUN
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, read_json

# texts are Python's own: pandas 3 would store them with pyarrow, which refuses names of files that are not UTF-8
pd.set_option("mode.string_storage", "python")

KIND = "robustness"
CLEAN = "clean"
FIRST_WORD = "robust-"  # of every folder of such a cell, so that no few-shot cell need be opened
SEED = re.compile(r"-seed(\d+)(?=-|$)")
COLUMNS = ["model", "seed", "task", "set", "condition", "name", "level", "group", "generated", "imagenet_c", "clips",
           "answers", "top1_pct", "top5_pct", "cell_top1_pct", "num_frames", "cues", "own_set", "run", "file", "signature",
           "views", "how"]

HOW = ("answers", "how_answered", "views", "precision", "num_frames")
"""Entries of result.json in which cells of one model, seed and set must agree, beside the content of the clips."""


@dataclass(frozen=True)
class Tests:
    """What robustness cells found.

    Attributes:
        rows: COLUMNS; a row per model, seed, set and condition, each once.
        lost: What is missing, damaged or left out, a line each.
    """

    rows: pd.DataFrame
    lost: list[str]

    @cached_property
    def models(self) -> list[str]:
        """Names, in order of appearance."""
        return list(dict.fromkeys(self.rows["model"]))

    @cached_property
    def sets(self) -> list[str]:
        """Names of the sets."""
        return list(dict.fromkeys(self.rows["set"]))

    def of(self, **wanted: Any) -> pd.DataFrame:
        """The rows whose columns have these values."""
        rows = self.rows
        for column, value in wanted.items():
            rows = rows[rows[column] == value]
        return rows

    def means(self, test_set: str) -> pd.DataFrame:
        """Accuracies over seeds: a row per condition of a set, a column per model, in %; missing ones are NaN."""
        rows = self.of(set=test_set)
        found = rows.pivot_table(index="condition", columns="model", values="top1_pct", aggfunc="mean", sort=False)
        return found.reindex(columns=[model for model in self.models if model in found])

    def facts(self, test_set: str) -> pd.DataFrame:
        """What each condition of a set is, by its text."""
        return self.of(set=test_set).drop_duplicates("condition").set_index("condition")

    def said(self, model: str, test_set: str, condition: str) -> dict[int, Predictions]:
        """What the seeds of a model said, by seed."""
        rows = self.of(model=model, set=test_set, condition=condition)
        return {int(row.seed): Predictions.read(RunFolder(Path(row.run)).conditions / row.file) for row in rows.itertuples()}


def read_tests(folders: Sequence[Path], *, or_none: bool = False) -> Tests:
    """Read every robustness cell in folders of runs.

    Args:
        folders: Where to look.
        or_none: There need not be any.
    Raises:
        ValueError: There is no such folder, or no robustness cell in it, or cells of one model, seed and set were not tested
            alike.
    """
    found: list[dict[str, Any]] = []
    lost: list[str] = []
    count = 0
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        for run in runs_below(folder):
            count += 1
            try:
                record, result = read_json(run.record) or {}, read_json(run.result)
                if result is None:
                    lost.append(f"{run.path.name}: {why_missing(run)}")
                else:
                    found += _rows(run, record, result)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                lost.append(f"{run.path.name}: its records are damaged ({type(error).__name__}: {error})")
    if not count and not or_none:
        raise ValueError(f"there is no robustness cell in {', '.join(map(str, folders))}; make some: "
                         "python sweeps/robustness.py")
    rows = _named(pd.DataFrame(found, columns=COLUMNS))
    _check_alike(rows)
    return Tests(rows.drop_duplicates(["model", "seed", "set", "condition"], ignore_index=True), lost)


def runs_below(folder: Path, first_word: str = FIRST_WORD, kind: str = KIND) -> Iterator[RunFolder]:
    """The robustness cells in a folder of runs and below, or the folder itself where it is one; or cells of another kind,
    whose folders have another first word.

    As `scan` finds other runs: nothing is looked for in a run or in the folder of an array, and links are not followed. Only
    a link to a cell counts.
    """
    if _is_run(str(folder)):
        yield from _if_of_kind(folder, kind)
        return
    with os.scandir(folder) as entries:
        below = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    if any(entry.name == ARRAY for entry in below):
        return
    for entry in below:
        if entry.name.startswith(first_word) and _is_run(entry.path):
            yield from _if_of_kind(Path(entry.path), kind)
        elif entry.is_dir(follow_symlinks=False) and not _is_run(entry.path):
            yield from runs_below(Path(entry.path), first_word, kind)


def _is_run(path: str) -> bool:
    return any(os.path.exists(f"{path}/{name}") for name in (RUN, RESULT))  # noqa: PTH110 - of up to 100,000 runs


def _if_of_kind(path: Path, kind: str) -> Iterator[RunFolder]:
    run = RunFolder(path)
    try:
        if (read_json(run.record) or {}).get("kind") == kind:
            yield run
    except ValueError:
        pass  # damaged, so nobody knows of what kind it is: python analysis/collect.py names it


def why_missing(run: RunFolder) -> str:
    """Why a cell has no result."""
    try:
        failure = read_json(run.failure)
    except ValueError:
        failure = None
    return f"failed: {failure.get('error')}: {failure.get('message')}" if failure else "no result yet"


def _rows(run: RunFolder, record: dict[str, Any], result: dict[str, Any]) -> list[dict[str, Any]]:
    cell = record["cell"]
    name = str(cell["tested"]).removesuffix(f"-{cell['tested_signature']}")
    task = [str(cell.get(key)) for key in ("data", "shots", "fraction", "method", "overrides")]
    shared = {"model": SEED.sub("", name), "seed": int(cell.get("seed", 0)), "task": " ".join(task),
              "set": str(result["set"]), "answers": int(result["answers"]), "cell_top1_pct": result.get("cell_top1_pct"),
              "num_frames": int(result["num_frames"]), "cues": bool(result["cues"]), "own_set": bool(result["own_set"]),
              "views": result.get("views"),
              "run": str(run.path), "signature": str(cell["tested_signature"]),
              "how": repr((record.get("content_sha256"), *(result.get(key) for key in HOW)))}
    keys = ("name", "level", "group", "generated", "imagenet_c", "clips", "top1_pct", "top5_pct", "file")
    return [{**shared, "condition": each["text"], **{key: each[key] for key in keys}} for each in result["conditions"]]


def _named(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with signatures in the names of models that are called alike and are not the same."""
    cells = rows.drop_duplicates(["model", "seed", "signature"])
    alike = cells[cells.duplicated(["model", "seed"], keep=False)]["model"].unique()
    twice = rows["model"].isin(alike)
    return rows.assign(model=rows["model"].where(~twice, rows["model"] + " " + rows["signature"]))


def _check_alike(rows: pd.DataFrame) -> None:
    for (model, seed, test_set), cells in rows.groupby(["model", "seed", "set"], sort=False):
        ways = cells.drop_duplicates("how")
        if len(ways) > 1:
            folders = ", ".join(Path(run).name for run in ways["run"])
            raise ValueError(f"{model}, seed {seed}, was tested on {test_set} in {len(ways)} ways, which differ in the "
                             f"content of the clips, --label-map, --own-classes, views or precision: {folders}; take all "
                             "but one way out of the folders, or give the sets two names (--sets)")


def of_common_seeds(tests: Tests) -> Tests:
    """The tests without seeds that lack a condition which others of the model have on a set, so that accuracies under all
    conditions are of the same seeds; what is left out is in `lost`."""
    rows = tests.rows
    left_out, said = pd.Series(False, index=rows.index), []
    for (model, test_set), own in rows.groupby(["model", "set"], sort=False):
        common, every = common_seeds(own)
        if common == every:
            continue
        if common:
            left_out[own.index[~own["seed"].isin(common)]] = True
            what = only_some(common, every)
        else:
            what = (f"no seed of {_listed(every)} was tested under every condition, so the means are of different seeds and "
                    "cannot be compared")
        said.append(f"{model} on {test_set}: {what}")
    return Tests(rows[~left_out].reset_index(drop=True), tests.lost + said)


def common_seeds(rows: pd.DataFrame) -> tuple[set[int], set[int]]:
    """The seeds that have every condition of some rows, and those that have any."""
    seeds = [set(some) for _, some in rows.groupby("condition")["seed"]]
    return set.intersection(*seeds), set.union(*seeds)


def only_some(common: set[int], every: set[int]) -> str:
    """That some seeds do not count, in words."""
    return (f"of the seeds {_listed(every)} only {_listed(common)} counts, since the others were not tested under every "
            "condition")


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


@dataclass(frozen=True)
class Aligned:
    """What several observers said of the same images, image by image.

    Attributes:
        content: uint64 [N].
        right: For each observer bool [N].
        label: int [N], right answers.
        answer: For each observer int [N], what it said.
    """

    content: np.ndarray
    right: list[np.ndarray]
    label: np.ndarray
    answer: list[np.ndarray]


def align(said: Sequence[Predictions]) -> Aligned:
    """Keep the images that all observers saw, in one order; of images of one content the first counts.

    Raises:
        ValueError: They have no image in common, or other answers.
    """
    first = said[0]
    if any(not np.array_equal(each.classes, first.classes) for each in said):
        raise ValueError("the models answer in other classes, so their answers cannot be compared")
    common = first.content
    for each in said[1:]:
        common = np.intersect1d(common, each.content)
    if not len(common):
        raise ValueError("the models have no image in common")
    kept = []
    for each in said:
        contents, places = np.unique(each.content, return_index=True)
        kept.append(each.take(places[np.isin(contents, common)]))
    return Aligned(kept[0].content, [each.rank == 0 for each in kept], kept[0].label, [each.top5[:, 0] for each in kept])
