"""Result tables: rows are models, columns tasks, each with top-1 and top-5 accuracy in %.

A cell is a number, or `mean ± half (n)` over n seeds: half of the 95 % confidence interval; of two seeds, whose interval is
13 times as wide as their distance, it is `mean [lowest, highest] (2)`. A cell without a value is `--`. The best value of a
column is bold among the rows that were selected alike, unless its interval holds the second best; published numbers and
chance do not compete.
How the numbers were selected stands under every table; in the CSV, where there is no such place, in a column of its own.

Cells are a frame with a row per row of the table, task and metric, in the order of the rows:

    source, row, model      runs, logs or `published v3`; what was tested, unique in its source; the model alone
    selection               how the numbers were selected; missing for rows that do not compete
    task, data, which, shots    the column, and what it consists of; shots are missing where all labels were used, or a share
    pictures                    whether the data set has pictures and no videos
    metric                  top1 or top5
    pct, lower_pct, upper_pct, n    the value, its interval, seeds; all missing where there should be a number and is none
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from analysis.results.frames import METRICS, UNLABELLED
from analysis.results.mae_st_logs import CLASSES
from analysis.results.published import Version
from analysis.tables.sheet import MISSING, Sheet, some
from analysis.tables.stats import student_t

TITLES = {"fewshot": "Few-shot action recognition", "full": "Action recognition with all labels",
          "imagenet": "Object recognition", "unlabelled": "Clusters without labels, each named after a class"}
NAMED = ("Clusters are found without labels; the labels of the same clips then give each cluster the name of a class, so "
         "that most are right. Chance is that of shuffled labels, which name the same clusters in the same way. How well "
         "clusters agree with classes without names (NMI, purity): table protocols.")
HEADINGS = {"top1": "top-1", "top5": "top-5"}
UNIT = "Accuracy in %."
INTERVAL = ("Mean ± half of the 95 % confidence interval over seeds (Student t); in brackets the number of seeds. Of two "
            "seeds the lowest and the highest. Of one seed no interval is claimed.")
NOISE = "Where the interval of the best holds the second best, nothing is bold."
SHARE = r"^_(\d*\.\d+)$"  # of the labels, as a task's name ends
OWN_DRAWS = ("Released runs on a share of ImageNet drew it on each GPU by itself: those of four GPUs saw up to 7.76 % of "
             "the labels in place of 2 %; ours see what the column says.")
ONE_PCT = "What was published beside imagenet_0.01 is of 1.0147 % of the labels: 13 pictures of each class."
CSV_PARTS = ("pct", "lower_pct", "upper_pct", "n")
CELL = ("task", "data", "which", "shots", "pictures")
LINE = ("source", "row", "model", "selection")


@dataclass(frozen=True)
class Shown:
    """What stands in the tables beside and below the rows.

    Attributes:
        versions: Published numbers.
        published: `matching` those of the rows, `all`, or `none`.
        classes: Data set -> number of its classes, for chance.
        footers: Kind of table -> sentences under it.
        suffix: Of the tables' names.
        title: Of what the numbers are, where it is not the whole validation set.
        named_pct: Data set -> chance of top-1 of clusters that are named by the clips that they are tested on.
    """

    versions: Sequence[Version] = ()
    published: str = "matching"
    classes: Mapping[str, int] = field(default_factory=lambda: CLASSES)
    footers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    suffix: str = ""
    title: str = ""
    named_pct: Mapping[str, float] = field(default_factory=dict)


def kinds_of(cells: pd.DataFrame) -> pd.Series:
    """Which table each row of a frame with `data`, `which`, `shots` and `pictures` belongs to: a key of `TITLES`."""
    of_actions = np.where(cells["shots"].fillna(0) == 0, "full", "fewshot")
    pictures = cells["pictures"].fillna(False).astype(bool) | ((cells["data"] == "imagenet") & (of_actions == "full"))
    kinds = np.where(cells["which"] == UNLABELLED, "unlabelled", np.where(pictures, "imagenet", of_actions))
    return pd.Series(kinds, cells.index, dtype=object)


def missing(cells: pd.DataFrame) -> pd.DataFrame:
    """`row` and `task` of the places of the tables for which there is no number, and no run that should bring it."""
    parts = []
    for _, of_kind in cells.groupby(kinds_of(cells), sort=False):
        there = pd.MultiIndex.from_frame(of_kind[["source", "row", "task"]].drop_duplicates())
        lines, tasks = of_kind[["source", "row"]].drop_duplicates(), tasks_of(of_kind)[["task"]]
        every = pd.MultiIndex.from_frame(lines.merge(tasks, how="cross"))
        parts.append(every[~every.isin(there)].to_frame(index=False))
    return pd.concat(parts)[["row", "task"]] if parts else pd.DataFrame(columns=["row", "task"])


def make_tables(cells: pd.DataFrame, published: pd.DataFrame, notes: pd.DataFrame, shown: Shown) -> list[Sheet]:
    """One table for each kind of task.

    Args:
        cells: See above.
        published: `source`, `row` of a row, and the published `version`, `model` that it stands beside, called `label`.
        notes: What a reader of a number should know: `source`, `row`, `task`, `said`.
        shown: What stands beside and below.
    """
    kinds = kinds_of(cells)
    return [_make_table(kind, cells[kinds == kind], published, notes, shown) for kind in TITLES if (kinds == kind).any()]


def _make_table(kind: str, cells: pd.DataFrame, published: pd.DataFrame, notes: pd.DataFrame, shown: Shown) -> Sheet:
    tasks, lines = tasks_of(cells), cells[list(LINE)].drop_duplicates().reset_index(drop=True)
    place = lines.assign(place=lines.index)[["source", "row", "place"]]
    beside = _beside(place, published, list(tasks["task"]), shown)
    numbers = pd.concat([cells.merge(place, on=["source", "row"]).assign(below=0), beside,
                         chance_rows(tasks, len(lines), shown)])
    named = [NAMED] if kind == "unlabelled" else []
    footer = [*named, *shown.footers.get(kind, ()), *_footer(lines, tasks, beside, published, shown),
              *_notes(lines, tasks, notes)]
    return result_sheet(kind + shown.suffix, TITLES[kind] + shown.title, list(tasks["task"]),
                        numbers.sort_values(["place", "below"], kind="stable"), footer)


def result_sheet(name: str, title: str, tasks: Sequence[str], numbers: pd.DataFrame, footer: Sequence[str]) -> Sheet:
    """Lay numbers out.

    Args:
        name: Of the files.
        title: One line.
        tasks: The columns.
        numbers: Cells in the order of the rows; `place` and `below` number the rows.
        footer: Further sentences.
    """
    key = ["place", "below"]
    heads = numbers.drop_duplicates(key).set_index(key)
    columns = pd.MultiIndex.from_product([tasks, METRICS])
    wide = {part: numbers.pivot(index=key, columns=["task", "metric"], values=part).reindex(
        index=heads.index, columns=columns) for part in CSV_PARTS}
    texts_of = np.vectorize(printed, otypes=[object])(*(wide[part].astype(float) for part in CSV_PARTS))
    texts = pd.DataFrame(texts_of, heads.index, columns)
    selection = heads["selection"].fillna("")
    leading = texts.map(lambda text: np.nan if text == MISSING else float(text.split()[0])).where(selection != "", axis=0)
    bold = _clearly_best(leading, wide["lower_pct"].astype(float), selection)
    words = {("", "model"): heads["row"], ("", "source"): heads["source"]}
    shown = pd.concat([pd.DataFrame(words), texts.rename(columns=HEADINGS, level=1)], axis=1)
    marks = pd.concat([pd.DataFrame(False, heads.index, pd.MultiIndex.from_tuples(words)), bold], axis=1)
    parts = {f"{task} {metric}_{part}": wide[part][task, metric].map(
        "{:.0f}".format if part == "n" else "{:.3f}".format, na_action="ignore")
        for task in tasks for metric in METRICS for part in CSV_PARTS}
    records = pd.DataFrame({"model": heads["row"], "source": heads["source"], **parts,
                            "selection": selection.replace("", None)})
    of_seeds = [INTERVAL, NOISE] if numbers["n"].notna().any() else []
    said = [*_said_of_selection(heads["row"], selection), *of_seeds, *footer]
    return Sheet(name, title, shown, 2, records, said, marks, (selection == "").tolist())


def _clearly_best(values: pd.DataFrame, lower: pd.DataFrame, selection: pd.Series) -> pd.DataFrame:
    """Which values are the best of their column and selection, and have no interval that holds the second best."""
    best = values.eq(values.groupby(selection).transform("max"))
    second = values.groupby(selection).transform(lambda column: column.nlargest(2).min() if column.count() > 1 else np.nan)
    return best & ~(lower <= second)


def printed(pct: float, lower: float, upper: float, n: float) -> str:
    """A cell of a table: the mean over n seeds with its interval, see the module."""
    if np.isnan(pct):
        return MISSING
    if np.isnan(n):
        return f"{pct:.3f}"
    half = (upper - lower) / 2
    if n == 2:
        half /= student_t(1)  # half of the distance
        return f"{pct:.2f} [{pct - half:.2f}, {pct + half:.2f}] (2)"
    return f"{pct:.2f}{'' if np.isnan(half) else f' ± {half:.2f}'} ({n:.0f})"


def _said_of_selection(rows: pd.Series, selection: pd.Series) -> list[str]:
    selected = rows[selection != ""].groupby(selection[selection != ""], sort=False).agg(list)
    if len(selected) < 2:
        return [f"{UNIT} Selection: {''.join(selected.index)}. Bold: the best of what is not published."]
    return [f"{UNIT} Bold: the best among rows that were selected alike, of what is not published.",
            *(f"Selection of {some(names)}: {how}." for how, names in selected.items())]


def tasks_of(cells: pd.DataFrame) -> pd.DataFrame:
    """The columns of a table, in order, from a frame with those of `CELL`: known data sets first, few shots before many,
    small shares before large ones."""
    tasks = cells[list(CELL)].drop_duplicates("task")
    known = {data: rank for rank, data in enumerate(CLASSES)}
    share = tasks["which"].str.extract(SHARE, expand=False).astype(float).fillna(1.0)
    return tasks.assign(rank=tasks["data"].map(known).fillna(len(known)), few=tasks["shots"].fillna(0),
                        share=share).sort_values(["rank", "data", "few", "share", "which"])


def _beside(place: pd.DataFrame, published: pd.DataFrame, tasks: Sequence[str], shown: Shown) -> pd.DataFrame:
    """Published rows below the rows that they belong to, the last of these; at last those of no row."""
    if shown.published == "none":
        return pd.DataFrame(columns=["place"])
    wanted = place.merge(published, on=["source", "row"]).drop_duplicates(["label", "version", "model"], keep="last")
    numbers = {version.name: version for version in shown.versions}
    if shown.published == "all":
        others = pd.DataFrame([(len(place), model, version.name, model) for version in shown.versions
                               for model in version.models], columns=["place", "label", "version", "model"])
        taken = pd.MultiIndex.from_frame(wanted[["version", "model"]])
        wanted = pd.concat([wanted, others[~pd.MultiIndex.from_frame(others[["version", "model"]]).isin(taken)]])
    records = [{"place": line.place, "below": number, "row": line.label, "source": f"published {line.version}", "task": task,
                "metric": metric, "pct": pct}
               for number, line in enumerate(wanted.itertuples(), 1)
               for task, values in numbers[line.version].accuracies(line.model, tasks).items()
               for metric, pct in zip(METRICS, values, strict=True)]
    return pd.DataFrame(records, columns=["place", "below", "row", "source", "task", "metric", "pct"])


def chance_rows(tasks: pd.DataFrame, lines: int, shown: Shown) -> pd.DataFrame:
    """What guessing gives, as the last row.

    Args:
        tasks: From `tasks_of`.
        lines: Rows above it.
        shown: How many classes each data set has, and what naming clusters gives.
    """
    classes = tasks["data"].map(dict(shown.classes)).astype(float)
    named = tasks["which"] == UNLABELLED
    row = {"place": lines + 1, "below": 0, "row": "chance", "source": "shuffled labels" if named.all() else "1/classes",
           "task": tasks["task"]}
    of_naming = {"top1": tasks["data"].map(dict(shown.named_pct)).astype(float)}
    return pd.concat([pd.DataFrame({**row, "metric": metric, "pct": (100 * (guesses / classes).clip(upper=1)).where(
        ~named, of_naming.get(metric, np.nan))}) for metric, guesses in zip(METRICS, (1, 5), strict=True)])


def _footer(lines: pd.DataFrame, tasks: pd.DataFrame, beside: pd.DataFrame, published: pd.DataFrame,
            shown: Shown) -> list[str]:
    footer = []
    if shown.published != "none":
        footer += [f"Published {version.name}: {version.source}." for version in shown.versions
                   if (beside["source"] == f"published {version.name}").any()]
        footer += [OWN_DRAWS] if any(str(task).startswith("imagenet_") for task in beside["task"]) else []
        numbers, names = {version.name: version for version in shown.versions}, list(tasks["task"])
        known = {(line.source, line.row) for line in published.itertuples()
                 if numbers[line.version].accuracies(line.model, names)}
        footer += [ONE_PCT] if (beside["task"] == "imagenet_0.01").any() else []
        unpublished = [row for source, row in lines[["source", "row"]].itertuples(index=False) if (source, row) not in known]
        if unpublished:
            footer.append(f"Nothing published under this name: {some(unpublished)}.")
    if unknown := sorted(set(tasks.loc[tasks["which"] != UNLABELLED, "data"]) - set(shown.classes)):
        footer.append(f"Number of classes unknown, hence no chance level: {', '.join(unknown)}.")
    return footer


def _notes(lines: pd.DataFrame, tasks: pd.DataFrame, notes: pd.DataFrame) -> list[str]:
    column = pd.Series(range(len(tasks)), tasks["task"])
    found = lines.reset_index(names="place").merge(notes, on=["source", "row"])
    found = found.assign(column=found["task"].map(column)).dropna(subset="column")
    found = found.sort_values(["place", "column"], kind="stable")
    return [f"{note.row}, {note.task}: {note.said}." for note in found.itertuples()]
