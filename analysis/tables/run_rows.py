"""Few-shot runs -> rows. Runs meet in one cell only where nothing but the seed differs; what differs names the row.

A checkpoint is its content: what it is called may change from sweep to sweep (a signature is in its name only where two runs
share the rest), and its shortest name is shown. The settings of a run are method, selection rule, views, overrides, and
the validation set that it was tested on. Those that differ among the runs join the name: `s-vith14 linear`, `s-vith14 10x3`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from analysis.results.cell_record import Cell
from analysis.results.mae_st_logs import Task
from analysis.results.published import Version, versions_of_checkpoint
from analysis.results.scan import Run
from analysis.tables.lines import Line, Published, kind_of
from analysis.tables.result_table import Accuracies, some
from analysis.tables.stats import over_seeds

SELECTIONS = {
    "last": "last step; nothing is chosen on the validation set",
    "holdout": "best look on a held-out part of the training clips; nothing is chosen on the validation set",
    "val-best": "best look on the validation set itself, as in the paper: optimistic, since the same clips choose and test",
    "": "not known, as long as there is no result",
}
SUPERSEDED = "superseded"
MOST_DIGITS = 8  # of a checkpoint's content that a name shows

Settings = tuple[tuple[str, str], ...]  # name of a setting -> value, as a row's name shows it


@dataclass(frozen=True)
class Group:
    """The runs of one row.

    Attributes:
        name: Of the row.
        checkpoint: Name of the weights.
        select: Selection rule.
        cells: Task -> its runs by seed, one run per seed.
    """

    name: str
    checkpoint: str
    select: str
    cells: Mapping[Task, Sequence[Run]]


@dataclass(frozen=True)
class Grouped:
    """All few-shot runs.

    Attributes:
        groups: The rows, in order.
        superseded: Runs that do not count since another run of the same cell does.
        failed: Runs that do not say which cell they are.
    """

    groups: Sequence[Group]
    superseded: Sequence[Run]
    failed: Sequence[Run]

    @property
    def runs(self) -> list[tuple[str, Run]]:
        """Name of its row, and run, of those that count."""
        return [(group.name, run) for group in self.groups for runs in group.cells.values() for run in runs]


def task_of(cell: Cell) -> Task:
    """The column of a cell."""
    return Task(cell.data, f"-{cell.shots}shot", cell.shots) if cell.shots else Task(cell.data, "-all", None)


def group(runs: Iterable[Run], versions: list[Version]) -> Grouped:
    """Put every run into its row."""
    known: list[Run] = []
    failed: list[Run] = []
    for run in runs:
        (known if run.cell else failed).append(run)
    several, called = _with_several_validation_sets(known), _checkpoint_names(known)
    gathered: dict[tuple[str, Settings], dict[Task, dict[int, list[Run]]]] = {}
    for run in known:
        assert run.cell is not None
        row = gathered.setdefault((_identity(run.cell), _settings(run, run.cell, several)), {})
        row.setdefault(task_of(run.cell), {}).setdefault(run.cell.seed, []).append(run)
    names = _row_names(list(gathered), called)
    groups: list[Group] = []
    superseded: list[Run] = []
    for (identity, settings), by_task in gathered.items():
        cells = {task: [_newest(by_seed[seed], superseded) for seed in sorted(by_seed)] for task, by_seed in by_task.items()}
        groups.append(Group(names[identity, settings], called[identity], dict(settings)["select"], cells))
    return Grouped(sorted(groups, key=lambda group: _rank(group, versions)), superseded, failed)


def _row_names(rows: Sequence[tuple[str, Settings]], called: Mapping[str, str]) -> dict[tuple[str, Settings], str]:
    """The name of each row: the checkpoint's, its content where two are called alike, and the settings that differ."""
    differing = _differing([settings for _, settings in rows])
    alike = Counter(called.values())
    names = {}
    for identity, settings in rows:
        content = [_short(identity)] if alike[called[identity]] > 1 else []
        shown = [value for key, value in settings if value and key in differing]
        names[identity, settings] = " ".join([called[identity], *content, *shown])
    return names


def _short(identity: str) -> str:
    """As much of a checkpoint's content as a name needs: the shape of random weights, some digits of a hash."""
    kind, _, content = identity.rpartition(":")
    return content if kind == "scratch" else content[:MOST_DIGITS]


def _settings(run: Run, cell: Cell, several: set[str]) -> Settings:
    tested = f"{cell.data}:{run.result.clips}clips/{run.result.classes}" if run.result and cell.data in several else ""
    return (("method", cell.method), ("select", cell.select), ("views", cell.views),
            *((f"override {key}", f"{key}={value}") for key, value in cell.overrides), ("tested", tested))


def _with_several_validation_sets(runs: Sequence[Run]) -> set[str]:
    """The data sets whose runs were tested on different clips or classes."""
    found: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for run in runs:
        if run.cell and run.result:
            found[run.cell.data].add((run.result.clips, run.result.classes))
    return {data for data, sets in found.items() if len(sets) > 1}


def _differing(rows: Sequence[Settings]) -> set[str]:
    """The settings that are not the same in all rows; those that a row does not have are empty there."""
    given = [dict(settings) for settings in rows]
    return {key for key in {key for row in given for key in row} if len({row.get(key, "") for row in given}) > 1}


def _identity(cell: Cell) -> str:
    return cell.content or cell.checkpoint


def _checkpoint_names(runs: Sequence[Run]) -> dict[str, str]:
    """Identity of a checkpoint -> its shortest name."""
    names: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if run.cell:
            names[_identity(run.cell)].add(run.cell.checkpoint)
    return {identity: min(found, key=lambda name: (len(name), name)) for identity, found in names.items()}


def _newest(runs: Sequence[Run], superseded: list[Run]) -> Run:
    """Of the runs of one cell and seed the newest result, else one of them; the others go to `superseded`, and say so."""
    chosen = max(runs, key=lambda run: (run.result.finished if run.result else -1.0, run.path))
    superseded += [replace(run, status=SUPERSEDED, said=f"the cell's newest result is in {chosen.path}" if chosen.result else
                           f"the cell's run is {chosen.path}") for run in runs if run is not chosen]
    return chosen


def lines_of(grouped: Grouped, versions: list[Version]) -> list[Line]:
    """The rows for the tables."""
    lines = []
    for group in grouped.groups:
        known = [Published(model, version, model) for version, model in versions_of_checkpoint(group.checkpoint, versions)]
        lines.append(Line(group.name, group.checkpoint, "runs", SELECTIONS.get(group.select, group.select),
                          {task: _accuracies(runs) for task, runs in group.cells.items()}, known,
                          {task: _notes(runs) for task, runs in group.cells.items()}))
    return lines


def _accuracies(runs: Sequence[Run]) -> Accuracies:
    found = [run.result for run in runs if run.result]
    if not found:
        return None, None
    return over_seeds([result.top1_pct for result in found]), over_seeds([result.top5_pct for result in found])


def _notes(runs: Sequence[Run]) -> list[str]:
    without = [run for run in runs if not run.result and run.cell]
    if not without:
        return []
    seeds = some([f"seed {run.cell.seed} {run.status}" for run in without if run.cell])
    return [f"{len(runs) - len(without)} of {len(runs)} runs have a result ({seeds})"]


def footers(grouped: Grouped) -> dict[str, list[str]]:
    """Kind of table -> what its numbers have in common: views, validation clips, seeds, code."""
    cells: dict[str, list[list[Run]]] = defaultdict(list)
    for group in grouped.groups:
        for task, runs in group.cells.items():
            if found := [run for run in runs if run.result]:
                cells[kind_of(task)].append(found)
    return {kind: _footer(of_kind) for kind, of_kind in cells.items()}


def _footer(cells: Sequence[Sequence[Run]]) -> list[str]:
    found = [(run.cell, run.result) for runs in cells for run in runs if run.cell and run.result]
    views = sorted({cell.views for cell, _ in found})
    clips = sorted({(cell.data, result.clips) for cell, result in found})
    commits = Counter((result.commit[:7] or "unknown commit") + (" with uncommitted changes" if result.dirty else "")
                      for _, result in found)
    return [f"Views per clip: {', '.join(map(_view_words, views))}.",
            f"Validation clips: {some([f'{data} {number:,}' for data, number in clips])}.",
            f"Seeds per cell: {_span(sorted(set(map(len, cells))))}.",
            f"Code: {some([f'{commit} ({number} runs)' for commit, number in commits.most_common()])}."]


def classes_of(runs: Iterable[Run]) -> dict[str, int]:
    """Data set -> number of its classes, where all results agree on it."""
    found: dict[str, set[int]] = defaultdict(set)
    for run in runs:
        if run.cell and run.result:
            found[run.cell.data].add(run.result.classes)
    return {data: min(numbers) for data, numbers in found.items() if len(numbers) == 1}


def _view_words(views: str) -> str:
    if "x" in views:
        times, crops = views.split("x")
        return f"{views} ({times} times, {crops} crops, averaged)"
    return {"center": "center (one, in the middle)", "random": "random (one, drawn by a fixed seed)"}.get(views, views)


def _span(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _rank(group: Group, versions: list[Version]) -> tuple[int, str, str]:
    """The order of the published models; other checkpoints come after, by name."""
    place = [list(version.models).index(model) for version, model in versions_of_checkpoint(group.checkpoint, versions)]
    return min(place, default=10**6), group.checkpoint, group.name
