"""One table of robustness beside the other result tables: models x sets and groups of conditions, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.results.frames import METRICS
from analysis.tables.curves.robust.robust_runs import CLEAN, Tests, only_some, read_tests, runs_below
from analysis.tables.curves.robust.robust_study import shifts_of
from analysis.tables.result_table import result_sheet
from analysis.tables.sheet import Sheet
from analysis.tables.stats import over_seeds

NAME, TITLE = "robustness", "Accuracy under conditions"
SELECTION = "that of the cells that are tested"
MADE = ", generated"
FOOTER = ("Each number is the mean over the conditions of its group. Accuracy kept, mCE, effective robustness, shape bias, "
          "and differences on the same images with their intervals: python analysis/robustness.py.")


def read_summary(folders: Sequence[Path]) -> tuple[list[Sheet], list[str]]:
    """The table of all robustness cells below folders, and what is missing; nothing where there is no such cell.

    Cells that were tested in ways that do not fit each other are no table, and are named as missing.
    """
    there = [folder for folder in folders if folder.is_dir() and next(runs_below(folder), None)]
    if not there:
        return [], []
    try:
        tests = read_tests(there)
    except ValueError as error:
        return [], [f"{NAME}: {error}"]
    if tests.rows.empty:
        return [], tests.lost
    every = by_seed(tests)
    values = every[every["whole"]]
    return [summary_sheet(tests, values)] if len(values) else [], [*tests.lost, *without_numbers(tests, every)]


def by_seed(tests: Tests) -> pd.DataFrame:
    """A row per model, seed, task and metric: the mean over the conditions of a task, `whole` where the seed has them all.

    A task is a set without a condition, `toys-val`, or under a group of conditions, `toys-val: video`.
    """
    shifts = [(shift.test_set, shift.name + (MADE if shift.generated else ""), shift.conditions)
              for shift in shifts_of(tests) if shift.conditions != (CLEAN,)]
    wanted: list[tuple[str, str, tuple[str, ...]]] = [
        (test_set, test_set, (CLEAN,)) for test_set in tests.sets if CLEAN in tests.facts(test_set).index]
    wanted += [(test_set, f"{test_set}: {name}", conditions) for test_set, name, conditions in shifts]
    order = {name: place for place, name in enumerate(tests.sets)}
    parts = []
    for test_set, task, conditions in sorted(wanted, key=lambda each: order[each[0]]):
        rows = tests.of(set=test_set)
        rows = rows[rows["condition"].isin(conditions)]
        for metric in METRICS:
            of_seed = rows.groupby(["model", "seed"], sort=False)[f"{metric}_pct"].agg(["mean", "count"]).reset_index()
            parts.append(of_seed.rename(columns={"mean": "pct"}).assign(
                task=task, metric=metric, set=test_set, whole=of_seed["count"] == len(conditions)))
    return pd.concat(parts, ignore_index=True)


def without_numbers(tests: Tests, every: pd.DataFrame) -> list[str]:
    """Places of the table for which there is no number, or one of some seeds: a model is expected in all columns of the sets
    that it was tested on."""
    tested = set(zip(tests.rows["model"], tests.rows["set"], strict=True))
    sets = every.drop_duplicates("task").set_index("task")["set"]
    seeds, whole = ({place: set(own["seed"]) for place, own in rows.groupby(["model", "task"])}
                    for rows in (every, every[every["whole"]]))
    said = []
    wanted = [(model, str(task)) for model in tests.models for task, test_set in sets.items() if (model, test_set) in tested]
    for place in wanted:
        if place not in whole:
            said.append(": ".join(place))
        elif whole[place] != seeds[place]:
            said.append(": ".join((*place, only_some(whole[place], seeds[place]))))
    return said


def summary_sheet(tests: Tests, values: pd.DataFrame) -> Sheet:
    """The table: a row per model, a column per task, with the interval over seeds."""
    places = {model: place for place, model in enumerate(tests.models)}
    cells = over_seeds(values, ["model", "task", "metric"])
    cells = cells.assign(place=cells["model"].map(places), below=0, row=cells["model"], source="runs", selection=SELECTION)
    answers = tests.rows.groupby("set")["answers"].agg(["nunique", "min"])
    tasks = values.drop_duplicates("task").set_index("task")["set"]
    guesses = [{"place": len(places), "below": 0, "row": "chance", "source": "1/classes", "task": task, "metric": metric,
                "pct": min(100.0, 100 * count / answers.loc[test_set, "min"])} for task, test_set in tasks.items()
               if answers.loc[test_set, "nunique"] == 1 for metric, count in zip(METRICS, (1, 5), strict=True)]
    numbers = pd.concat([cells, pd.DataFrame(guesses)]).sort_values("place", kind="stable")
    clips = tests.rows.drop_duplicates("set").set_index("set")["clips"]
    return result_sheet(NAME, TITLE, list(tasks.index), numbers, [
        FOOTER, f"Clips or images: {', '.join(f'{name} {int(number):,}' for name, number in clips.items())}."])
