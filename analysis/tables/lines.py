"""Lines -> tables. A line is a row before it is laid out: what was tested, where its numbers are from, and its cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.results.mae_st_logs import CLASSES, Task
from analysis.results.published import Version
from analysis.tables.result_table import Accuracies, Row, Table, some
from analysis.tables.stats import Estimate

TITLES = {"fewshot": "Few-shot action recognition", "full": "Action recognition with all labels",
          "imagenet": "Object recognition"}
NOTHING: Accuracies = (None, None)


@dataclass(frozen=True)
class Published:
    """A published model beside a line.

    Attributes:
        label: What its row is called.
        version: Its generation.
        model: Its name there.
    """

    label: str
    version: Version
    model: str


@dataclass(frozen=True)
class Line:
    """One row.

    Attributes:
        name: What was tested; unique among the lines of a source.
        model: The name of the model alone.
        source: `logs` or `runs`.
        selection: How its numbers were selected.
        cells: Task -> accuracies; also tasks of which there should be a number and is none.
        published: The published models that it stands beside.
        notes: Task -> what a reader of the number should know.
    """

    name: str
    model: str
    source: str
    selection: str
    cells: Mapping[Task, Accuracies]
    published: Sequence[Published] = ()
    notes: Mapping[Task, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """What stands in the tables beside and below the lines.

    Attributes:
        versions: Published numbers.
        published: `matching` those of the lines, `all`, or `none`.
        classes: Data set -> number of its classes, for chance.
        footers: Kind of table -> sentences under it.
        suffix: Of the tables' names.
        title: Of what the numbers are, where it is not the whole validation set.
    """

    versions: Sequence[Version] = ()
    published: str = "matching"
    classes: Mapping[str, int] = field(default_factory=lambda: CLASSES)
    footers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    suffix: str = ""
    title: str = ""


def kind_of(task: Task) -> str:
    """Which table a task belongs to: a key of `TITLES`."""
    if task.shots is not None:
        return "fewshot"
    return "imagenet" if task.data == "imagenet" else "full"


def grids(lines: Sequence[Line]) -> dict[str, tuple[list[Line], list[Task]]]:
    """Kind of table -> its lines and its columns; kinds without a cell are left out."""
    found = {}
    for kind in TITLES:
        of_kind = [line for line in lines if any(kind_of(task) == kind for task in line.cells)]
        tasks = {task for line in of_kind for task in line.cells if kind_of(task) == kind}
        if of_kind:
            found[kind] = of_kind, sorted(tasks, key=_task_rank)
    return found


def missing(lines: Sequence[Line]) -> list[tuple[Line, Task]]:
    """Lines and tasks of their tables for which there is nothing at all: neither a number nor a run that should bring it."""
    return [(line, task) for of_kind, tasks in grids(lines).values() for line in of_kind for task in tasks
            if task not in line.cells]


def make_tables(lines: Sequence[Line], shown: Shown) -> list[Table]:
    """One table for each kind of task."""
    return [_make_table(kind, of_kind, tasks, shown) for kind, (of_kind, tasks) in grids(lines).items()]


def _make_table(kind: str, lines: list[Line], tasks: list[Task], shown: Shown) -> Table:
    names = [task.name for task in tasks]
    beside = _beside(lines, names, shown)
    rows = []
    for line in lines:
        cells = {task.name: line.cells[task] for task in tasks if task in line.cells}
        rows += [Row(line.name, line.source, cells, line.selection), *beside.pop(line.source + line.name, [])]
    rows += [row for others in beside.values() for row in others]
    rows.append(Row("chance", "1/classes", {task.name: _chance(task, shown.classes) for task in tasks}))
    return Table(kind + shown.suffix, TITLES[kind] + shown.title, names, rows,
                 [*shown.footers.get(kind, ()), *_footer(lines, tasks, rows, shown)])


def _beside(lines: list[Line], names: list[str], shown: Shown) -> dict[str, list[Row]]:
    """Published rows by the line they stand below, the last of those that they belong to; at last those of no line."""
    if shown.published == "none":
        return {}
    place = {(known.label, known.version.name, known.model): line.source + line.name for line in lines
             for known in line.published}
    if shown.published == "all":
        taken = {(version, model) for _, version, model in place}
        place |= {(model, version.name, model): "" for version in shown.versions for model in version.models
                  if (version.name, model) not in taken}
    versions = {version.name: version for version in shown.versions}
    beside: dict[str, list[Row]] = {}
    for (label, version, model), below in place.items():
        if found := versions[version].accuracies(model, names):
            cells = {task: (Estimate(top1), Estimate(top5)) for task, (top1, top5) in found.items()}
            beside.setdefault(below, []).append(Row(label, f"published {version}", cells))
    return beside


def _footer(lines: list[Line], tasks: list[Task], rows: list[Row], shown: Shown) -> list[str]:
    sources = {row.source for row in rows}
    footer = []
    if shown.published != "none":
        footer += [f"Published {version.name}: {version.source}." for version in shown.versions
                   if f"published {version.name}" in sources]
        if unpublished := [line.name for line in lines if not _has_published(line, tasks)]:
            footer.append(f"Nothing published under this name: {some(unpublished)}.")
    if unknown := sorted({task.data for task in tasks if task.data not in shown.classes}):
        footer.append(f"Number of classes unknown, hence no chance level: {', '.join(unknown)}.")
    return [*footer, *_notes(lines, tasks)]


def _notes(lines: list[Line], tasks: list[Task]) -> Iterator[str]:
    for line in lines:
        for task in tasks:
            yield from (f"{line.name}, {task.name}: {said}." for said in line.notes.get(task, ()))


def _has_published(line: Line, tasks: list[Task]) -> bool:
    names = [task.name for task in tasks]
    return any(known.version.accuracies(known.model, names) for known in line.published)


def _chance(task: Task, classes: Mapping[str, int]) -> Accuracies:
    if task.data not in classes:
        return NOTHING
    top1, top5 = (Estimate(100 * min(1, guesses / classes[task.data])) for guesses in (1, 5))
    return top1, top5


def _task_rank(task: Task) -> tuple[int, str, int, str]:
    known = list(CLASSES)
    return known.index(task.data) if task.data in CLASSES else len(known), task.data, task.shots or 0, task.which
