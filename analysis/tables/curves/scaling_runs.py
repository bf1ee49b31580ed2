"""Accuracies at growing amounts of data from finished runs: few-shot runs whose checkpoint was pretrained on a fraction.

A pretraining run's run.json says of what its data are a fraction (`fraction`, from the manifest's summary); one on the whole
of the same data is the point at 100 %, in every series. Few-shot runs name their checkpoint. Runs on the same fraction are
repeats, told apart by the seed in their config.yaml; of each, the mean over few-shot seeds is one point. Hours are what the
videos have, mean over repeats: what was asked for is made up by whole videos, and a draw gives others each time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd
import yaml

from analysis.tables.curves.series import Axis, Result, Results, tidy
from vidmae.runs.cell_record import WITHOUT_EFFECT
from vidmae.runs.record import read_json

CELL = {"checkpoint", "data", "shots", "method"}
FRACTION = ["of", "of_content_sha256", "of_hours", "subset", "share", "hours", "has_hours"]  # of a manifest's summary
REPEATS = ["of_content_sha256", "subset", "share", "hours"]  # what the repeats of a fraction have in common
Records = Mapping[Path, Mapping[str, Any]]


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
    fractions = find_fractions(records)
    pretrained = find_pretrained(records, fractions)
    cells = {run: record.get("cell") or {} for run, record in records.items() if record.get("kind") == "fewshot"}
    unclear = [run.name for run, cell in cells.items() if not set(cell) >= CELL]
    few = pd.DataFrame([few_shot(run, cell, pretrained) for run, cell in cells.items() if run.name not in unclear],
                       columns=["name", "run", "task", "top1", "top5", "why"])
    found = few[few["run"] != ""]
    if found.empty:
        raise ValueError(f"{folder} holds {len(few)} few-shot runs and {len(pretrained)} pretraining runs on fractions, and "
                         "none of the first starts from one of the others (--runs; --results takes a table)")
    data = dict(zip(fractions["series"], fractions["of"], strict=True)) if fractions["of"].nunique() > 1 else {}
    chosen: Axis = axis or ("hours" if data or pretrained["fraction"].isna().any() else "fraction")
    lost = [f"{line.name}: {line.why}" for _, of_run in found.groupby("run", sort=False)
            for line in of_run[of_run["why"] != ""].itertuples(index=False)]
    lost += [f"{run}: its fraction was chosen by hours and has no share (--axis hours)"
             for run in pretrained["run"][pretrained[chosen].isna()]]
    lost += [f"{name}: its run.json does not say which cell it is" for name in unclear]
    return Results(chosen, tidy(join(pretrained, found, chosen)), f"runs in {folder}", lost, data)


def find_fractions(records: Records) -> pd.DataFrame:
    """What pretraining runs on fractions say of them, by run folder, with the series and the mean hours of the repeats."""
    said = {run: record["fraction"] for run, record in records.items()
            if record.get("kind") == "pretrain" and record.get("fraction")}
    found = pd.DataFrame(list(said.values()), list(said), FRACTION)
    several = found["of"].nunique() > 1
    found["series"] = found["of"] + " " + found["subset"] if several else found["subset"]
    found["mean_hours"] = found.groupby(REPEATS, dropna=False)["has_hours"].transform(fmean)
    return found


def find_pretrained(records: Records, fractions: pd.DataFrame) -> pd.DataFrame:
    """The pretraining runs that are points: on fractions, and on the whole of what those are fractions of.

    Returns:
        Columns: name of the run, signature that few-shot runs know it by, the list of its series (several for the whole),
        fraction (NaN where it was chosen by hours), hours, seed.
    """
    found = []
    for run, record in records.items():
        if record.get("kind") != "pretrain":
            continue
        said = record.get("fraction") or {}
        content = said["of_content_sha256"] if said.get("share") == 1 else str(record.get("content_sha256"))
        parts = fractions[fractions["of_content_sha256"] == content]
        if len(parts):
            amounts = list(parts["series"].unique()), 1.0, parts["of_hours"].max()
        elif said:
            amounts = [fractions["series"][run]], said["share"], fractions["mean_hours"][run]
        else:
            continue
        found.append((run.name, str(record["signature"]), *amounts, _seed(run)))
    return pd.DataFrame(found, columns=["run", "signature", "series", "fraction", "hours", "seed"])


def few_shot(run: Path, cell: Mapping[str, Any], pretrained: pd.DataFrame) -> tuple[str | float | None, ...]:
    """Name of a few-shot run, the pretraining run that it starts from, task, top-1, top-5, and why there is no result."""
    start = run.name, _source(cell, pretrained), _task(cell)
    try:
        result = read_json(run / "result.json")
    except ValueError:
        return *start, None, None, "its result.json is damaged"
    if result is None:
        return *start, None, None, "it failed" if (run / "failure.json").exists() else "it has no result yet"
    top1, top5 = (_pct(result.get(name)) for name in ("top1_pct", "top5_pct"))
    return *start, top1, top5, "" if top1 is not None else "its accuracy is no number from 0 to 100"


def join(pretrained: pd.DataFrame, few: pd.DataFrame, axis: Axis) -> Iterator[Result]:
    """One result per pretraining run, series and task, by amount; without a value where there is none.

    Raises:
        ValueError: Two runs are the same repeat.
    """
    pct = few.astype({"top1": float, "top5": float}).groupby(["run", "task"])[["top1", "top5"]].agg(_mean)
    key = ["series", "task", axis, "seed"]
    rows = pretrained.dropna(subset=axis).explode("series").merge(pd.DataFrame({"task": few["task"].unique()}), how="cross")
    for _, second in rows[rows.duplicated(key)].iterrows():
        first = rows[(rows[key] == second[key]).all(axis="columns")].iloc[0]
        raise ValueError(f"{second['run']} and {first['run']} are both {axis} {second[axis]:g}, seed {second['seed']} of "
                         f"{second['series']}; a repeat counts once: keep the runs of one study in a folder of its own "
                         "(--runs)")
    rows = rows.merge(pct, how="left", on=["run", "task"]).sort_values(key)
    return map(Result._make, rows[[*key, "top1", "top5", "run"]].itertuples(index=False, name=None))


def _mean(column: pd.Series) -> float:
    """Mean of the values that there are, added one by one; pandas corrects for rounding, and differs in the last digit."""
    there = column.dropna().tolist()
    return sum(there) / len(there) if there else math.nan


def _task(cell: Mapping[str, Any]) -> str:
    """Data, shots, and whatever is not as usual."""
    share = float(cell.get("fraction") or 0)
    shots = f"-{cell['shots']}shot" if cell["shots"] else f"_{share:g}" if share else "-all"
    method = [] if cell["method"] == "finetune" else [str(cell["method"])]
    return " ".join([f"{cell['data']}{shots}", *method, *(f"{key}={value}" for key, value in sorted(
        (cell.get("overrides") or {}).items()) if key not in WITHOUT_EFFECT)])


def _source(cell: Mapping[str, Any], pretrained: pd.DataFrame) -> str:
    """The pretraining run a few-shot run starts from: by signature, else by its name if that is one run's, else empty."""
    content, name = str(cell.get("checkpoint_content") or ""), str(cell.get("checkpoint"))
    if content.startswith("run:"):
        named = list(pretrained["run"][pretrained["signature"] == content.removeprefix("run:")])[:1]
    else:
        named = [run for run in pretrained["run"] if name in (run, run.rpartition("-")[0])]
    return named[0] if len(named) == 1 else ""


def _seed(run: Path) -> int:
    try:
        return int(yaml.safe_load((run / "config.yaml").read_bytes())["seed"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run / 'config.yaml'} does not say the seed of the run ({error!r})") from error


def _pct(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 100 else None
