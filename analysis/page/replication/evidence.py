"""What the runs of a replication found: for every model and task a matrix of seeds x test clips.

    OUT/replication.json           scale, seeds, tasks, amounts of footage, films and roles, cost; the command writes it
    OUT/asked.json                 what the first call was asked, SHA-256 of claims.py, and seeds that each call asked for
    OUT/groups.json                data set -> content hash of a test clip -> number of its scene or recording
    OUT/seed-0/models.json         role of each pretrained model -> its run folder
    OUT/seed-0/runs/               run folders: pretraining, few-shot cells, robustness cells
    OUT/seed-0/fill/scores.csv     what is filled in, a row per clip and method

A seed counts once all its parts are done. Clips are matched by content, so all seeds and models are compared on the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.page.replication.claims import DECIBEL, SLOPE, Part
from analysis.page.replication.two_level import Effect, averaged, effect_of
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, read_json

RECORD, MODELS, DONE = "replication.json", "models.json", "done.json"
ASKED, GROUPS = "asked.json", "groups.json"
SCRATCH, SCRATCH_IMAGE, CHANCE = "scratch", "scratch-image", "chance"
CLEAN, CORRUPTED = "clean", "corrupted"
PSNR, CONTENT = "psnr_db", "content"


@dataclass
class SeedFound:
    """What one seed found.

    Attributes:
        number: The seed.
        right: Model and task -> share right of every clip, float64 by content hash.
        filled: Way to fill in -> PSNR in dB of every clip, by the clip's key.
        classes: Task -> number of classes.
    """

    number: int
    right: dict[tuple[str, str], pd.Series] = field(default_factory=dict)
    filled: dict[str, pd.Series] = field(default_factory=dict)
    classes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """All seeds that are done.

    Attributes:
        record: replication.json.
        seeds: In order of their number.
        groups: Data set -> content hash -> number of the unit that a clip is of; clips of other data sets are units.
        asked: asked.json; empty where there is none.
    """

    record: Mapping[str, Any]
    seeds: list[SeedFound]
    groups: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    def right(self, model: str, task: str) -> np.ndarray:
        """Whether each clip was right, 0 to 1, float64 [S, C]; the same clips in the same order for every model.

        Raises:
            KeyError: A seed has no such test.
        """
        if model == CHANCE:
            first = next(series for (_, tested), series in self.seeds[0].right.items() if tested == task)
            return np.full((len(self.seeds), len(first)), 1 / self.seeds[0].classes[task])
        return _matrix([seed.right[model, task] for seed in self.seeds])

    def filled(self, method: str) -> np.ndarray:
        """PSNR in dB, float64 [S, C]."""
        return _matrix([seed.filled[method] for seed in self.seeds])

    def effect(self, part: Part) -> Effect | None:
        """The effect of a comparison, in its unit; None where it was not tested.

        Raises:
            ValueError: Clips are in no group, though others of their data set are.
        """
        try:
            if part.unit == DECIBEL:
                clips = self.seeds[0].filled[part.better].index
                apart = self.filled(part.better) - self.filled(part.worse)
                return effect_of(averaged(apart, self._units("actions", clips)))
            apart = self._slopes(part.task) if part.unit == SLOPE else self._apart(part.better, part.worse, part.task)
            if part.beyond:
                apart = apart - self._apart(*part.beyond, part.task)
        except (KeyError, StopIteration, IndexError):
            return None
        clips = next(series.index for (_, tested), series in self.seeds[0].right.items() if tested == part.task)
        apart = averaged(apart, self._units(part.task, clips))
        return effect_of(100 * apart, least=100 / apart.size)

    def _units(self, task: str, clips: pd.Index) -> np.ndarray:
        """Which unit each clip is of, int64 [C]."""
        known = self.groups.get(self.record["tasks"].get(task, ""))
        if known is None:
            return np.arange(len(clips))
        hashes = [int(text, 16) for text in clips.get_level_values(CONTENT)] if clips.nlevels > 1 else clips.tolist()
        if missing := sum(content not in known for content in hashes):
            raise ValueError(f"{missing} of {len(hashes)} test clips are in no group of {GROUPS}: they are other clips than "
                             "those of the manifests; the same command of replicate.py groups them anew")
        return np.array([known[content] for content in hashes])

    def _apart(self, better: str, worse: str, task: str) -> np.ndarray:
        return np.asarray(self.right(better, task) - self.right(worse, task))

    def _slopes(self, task: str) -> np.ndarray:
        """Of every seed and clip the slope of the least-squares line through what models of more footage say of it."""
        amounts = self.record["amounts"]  # model -> seconds of footage
        if len(amounts) < 2:
            raise KeyError("one amount of footage has no slope")
        tenfold = np.log10([float(seconds) for seconds in amounts.values()])
        weights = (tenfold - tenfold.mean()) / ((tenfold - tenfold.mean()) ** 2).sum()
        return np.asarray(sum(weight * self.right(model, task) for weight, model in zip(weights, amounts, strict=True)))


def read_evidence(out: Path) -> Evidence:
    """Read a folder of `replicate.py`.

    Raises:
        ValueError: It is none, or seeds were tested on other clips.
    """
    record = read_json(out / RECORD)
    if record is None:
        raise ValueError(f"{out / RECORD} is missing: {out} is no folder of a replication (make replicate)")
    found = []
    for number in record["seeds"]:
        folder = out / f"seed-{number}"
        if (folder / DONE).is_file():
            found.append(read_seed(folder, number, record["tasks"]))
    groups = {data: {int(content, 16): number for content, number in clips.items()}
              for data, clips in (read_json(out / GROUPS) or {}).items()}
    return Evidence(record, found, groups, read_json(out / ASKED) or {})


def read_seed(folder: Path, number: int, tasks: Mapping[str, str]) -> SeedFound:
    """Read one seed.

    Args:
        folder: OUT/seed-N.
        number: N.
        tasks: Task of a claim -> name of the data set of its cells.
    """
    models = {Path(path).name.rpartition("-")[2]: role for role, path in (read_json(folder / MODELS) or {}).items()}
    found = SeedFound(number)
    for run, cell in _cells(folder / "runs"):
        role, named = _role(cell, models), [task for task, name in tasks.items() if name == cell.get("data")]
        if role is None or not named:
            continue
        if run.conditions.is_dir():
            said = [Predictions.read(path) for path in sorted(run.conditions.glob("*.npz")) if path.stem != CLEAN]
            found.right[role, CORRUPTED] = pd.concat([_right(each) for each in said], axis=1).mean(axis=1)
            continue
        told = Predictions.read(run.predictions)
        for task in named:
            found.right[role, task], found.classes[task] = _right(told), len(told.classes)
    scores = folder / "fill/scores.csv"
    if scores.is_file():
        rows = pd.read_csv(scores, dtype={CONTENT: str, "row": str, "clip": str})
        for method, part in rows.groupby("method"):
            found.filled[str(method)] = part.set_index([CONTENT, "row", "clip"])[PSNR].sort_index()
    return found


def _cells(runs: Path) -> Iterator[tuple[RunFolder, Mapping[str, Any]]]:
    """The finished cells in a folder of runs, and what they say they are."""
    for path in sorted(runs.glob("*/result.json")):
        run = RunFolder(path.parent)
        cell = (read_json(run.record) or {}).get("cell")
        if cell:
            yield run, cell


def _role(cell: Mapping[str, Any], models: Mapping[str, str]) -> str | None:
    """Which model of the replication a cell has; None: of another one."""
    content = str(cell.get("checkpoint_content", ""))
    if content.startswith("scratch"):
        return SCRATCH_IMAGE if content.endswith("-1x1") else SCRATCH
    return models.get(content.removeprefix("run:"))


def _right(said: Predictions) -> pd.Series:
    """Whether each clip was right; clips of equal content count once."""
    return pd.Series((said.rank == 0).astype(np.float64), index=said.content).groupby(level=0).mean()


def _matrix(rows: list[pd.Series]) -> np.ndarray:
    """A row for each seed.

    Raises:
        ValueError: The seeds were tested on other clips.
    """
    if any(not row.index.equals(rows[0].index) for row in rows):
        raise ValueError("the seeds were tested on other clips, so they cannot be compared; remove the folders of the seeds "
                         "that are older than the data")
    return np.stack([row.to_numpy(dtype=np.float64) for row in rows])
