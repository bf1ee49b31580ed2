"""The table of pretraining grids: the repeats of a combination of settings are a row, beside random weights.

A value is a pretraining run: the mean over its few-shot seeds. So the interval says what another pretraining run of the same
settings would give, and few-shot seeds of one run do not count as evidence of their own.
"""

from __future__ import annotations

import pandas as pd

from analysis.results.frames import METRICS
from analysis.tables.result_table import Shown, chance_rows, result_sheet, tasks_of
from analysis.tables.run_rows import SELECTIONS
from analysis.tables.sheet import Sheet
from analysis.tables.stats import over_seeds

NAME, TITLE = "pretraining", "Pretraining compared: a row is a combination of settings"
REPEATS = ("In this table a value is a pretraining run, the mean over its few-shot seeds, and the number in brackets counts "
           "repeats of pretraining. Of random weights a value is a seed.")
RANDOM = "scratch:"  # a content that begins so is of random weights


def of_grids(runs: pd.DataFrame | None, shown: Shown) -> list[Sheet]:
    """The table of all pretraining grids; none where there is no grid.

    Args:
        runs: From `run_rows.in_rows`; None: there are none.
        shown: What else stands in the tables.
    """
    if runs is None or not runs["grid_of"].notna().any():
        return []
    rows = runs[runs["row"].notna()]
    random = rows["checkpoint_content"].fillna("").str.startswith(RANDOM)
    rows = rows[rows["grid_of"].notna() | random]
    names, repeats, seeds = _names(rows), rows["repeat"].astype(object), rows["seed"].astype(object)
    rows = rows.assign(line=names, unit=repeats.where(rows["grid_of"].notna(), seeds))
    last = random.reindex(names.index)
    ordered = list(dict.fromkeys([*names[~last], *names[last]]))
    lines = pd.DataFrame({"line": ordered}).reset_index(names="place")
    expected = rows.drop_duplicates(["line", "task"]).merge(lines, on="line")
    columns = expected[["place", "task"]].assign(
        below=0, row=expected["line"], source="runs",
        selection=expected["select"].fillna("").map(lambda rule: SELECTIONS.get(rule, rule)))
    tasks = tasks_of(rows)
    parts = []
    for metric in METRICS:
        found = rows.assign(pct=rows[f"{metric}_pct"].astype(float)).dropna(subset="pct")
        of_unit = found.groupby(["line", "task", "unit"], sort=False)["pct"].mean().reset_index()
        values = over_seeds(of_unit, ["line", "task"]).rename(columns={"line": "row"})
        parts.append(columns.assign(metric=metric).merge(values, on=["row", "task"], how="left"))
    numbers = pd.concat([*parts, chance_rows(tasks, len(ordered), shown)]).sort_values(["place", "below"], kind="stable")
    return [result_sheet(NAME + shown.suffix, TITLE + shown.title, list(tasks["task"]), numbers, [REPEATS])]


def _names(rows: pd.DataFrame) -> pd.Series:
    """The name of each run's row: the grid's, its settings, and how it learned and was tested where that differs.

    A grid that is extended by a setting names it, and the runs that are there do not: a combination has its longest name."""
    of_grid = rows["grid_of"].notna()
    name = (rows["grid"].fillna("") + " " + rows["grid_settings"].fillna("")).str.strip().where(of_grid, rows["row"])
    longest = name[of_grid].groupby(rows.loc[of_grid, "grid_of"]).agg(lambda names: max(names, key=len))
    name = rows["grid_of"].map(longest).where(of_grid, name)
    alike = pd.DataFrame({"name": name, "of": rows["grid_of"]})[of_grid].drop_duplicates()
    twice = set(alike.loc[alike["name"].duplicated(keep=False), "name"])
    content = rows["grid_of"].where(name.isin(twice) & of_grid, "").fillna("")
    how = rows["how"].where(of_grid, "").fillna("")
    return pd.concat([name, content, how], axis=1).agg(lambda line: " ".join(filter(None, line)), axis=1)
