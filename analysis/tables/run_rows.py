"""Few-shot runs -> rows. Runs meet in one cell only where nothing but the seed differs; what differs names the row.

A checkpoint is its content: what it is called may change from sweep to sweep (a signature is in its name only where two runs
share the rest), and its shortest name is shown. The settings of a run are method, selection rule, views, overrides, and
the validation set that it was tested on. Those that differ among the runs join the name: `s-vith14 linear`, `s-vith14 10x3`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.results.frames import METRICS
from analysis.results.published import Version, versions_of_checkpoint
from analysis.tables.result_table import CELL, kinds_of
from analysis.tables.sheet import some
from analysis.tables.stats import over_seeds
from vidmae.runs.cell_record import ACCURACY_CHANCE

SELECTIONS = {
    "last": "last step; nothing is chosen on the validation set",
    "holdout": "best look on a held-out part of the training clips; nothing is chosen on the validation set",
    "val-best": "best look on the validation set itself, as in the paper: optimistic, since the same clips choose and test",
    "": "not known, as long as there is no result",
}
SUPERSEDED = "superseded"
MOST_DIGITS = 8  # of a checkpoint's content that a name shows


def in_rows(runs: pd.DataFrame, versions: Sequence[Version]) -> pd.DataFrame:
    """Runs of `frames.of_runs` with `row`, the name of their row, `model`, that of its checkpoint, `how`, the other words.

    In the order of the rows, in a row by task and seed. Of several runs of a cell and seed the newest result counts; the
    others are `superseded`, have no row, and come last, with those that do not say which cell they are.
    """
    known = runs[runs["checkpoint"].notna()]
    identity = known["checkpoint_content"].fillna(known["checkpoint"])
    settings = _settings(known)
    row = known.groupby([identity, *(settings[name] for name in settings)], sort=False).ngroup()
    first = ~row.duplicated()
    called = known["checkpoint"].groupby(identity).agg(_shortest)
    names = pd.Series(_row_names(identity[first], called, settings[first]).array, row[first])
    how = [" ".join(filter(None, line)) for line in _differing(settings[first]).to_numpy(dtype=object)]
    known = known.assign(row=row.map(names), model=identity.map(called),
                         how=row.map(pd.Series(how, row[first], dtype=object)),
                         task_rank=known.groupby([row, "task"], sort=False).ngroup())
    known = known.sort_values(["seed", "finished", "run"], na_position="first", kind="stable")
    chosen = known.drop_duplicates(["row", "task", "seed"], keep="last")
    others = known.drop(chosen.index)
    winner = others.merge(chosen, on=["row", "task", "seed"], how="left", suffixes=("", "_chosen"))
    said = ["the cell's newest result is in " + run if status == "found" else "the cell's run is " + run
            for run, status in zip(winner["run_chosen"], winner["status_chosen"], strict=True)]
    chosen = chosen.assign(rank=chosen["model"].map(_rank(chosen["model"].unique(), versions))).sort_values(
        ["rank", "model", "row", "task_rank", "seed"], kind="stable")
    superseded = others.assign(status=SUPERSEDED, row=None, said=said)
    return pd.concat([chosen, superseded, runs[runs["checkpoint"].isna()].assign(row=None)])


def cells_of(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells of the tables, from runs that have a row: means over seeds."""
    selection = runs["select"].fillna("").map(lambda rule: SELECTIONS.get(rule, rule))
    expected = runs.assign(source="runs", selection=selection).drop_duplicates(["row", "task"])
    columns = ["source", "row", "model", "selection", *CELL]
    parts = [expected[columns].assign(metric=metric).merge(
        over_seeds(runs.assign(pct=runs[f"{metric}_pct"].astype(float)).dropna(subset="pct"), ["row", "task"]),
        on=["row", "task"], how="left") for metric in METRICS]
    return pd.concat(parts)


def published_of(runs: pd.DataFrame, versions: Sequence[Version]) -> pd.DataFrame:
    """The published models that each row stands beside."""
    rows = runs[["row", "model"]].drop_duplicates()
    return pd.DataFrame([("runs", row, model, version.name, model) for row, checkpoint in rows.itertuples(index=False)
                         for version, model in versions_of_checkpoint(checkpoint, versions)],
                        columns=["source", "row", "label", "version", "model"])


def notes_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Cells of which runs have no result."""
    without = runs[runs["top1_pct"].isna()]
    seeds = "seed " + without["seed"].astype(str) + " " + without["status"]
    counts = runs.groupby(["row", "task"])["top1_pct"].agg(["count", "size"])
    said = [("runs", *cell, "{} of {} runs have a result ({})".format(*counts.loc[cell], some(list(those))))
            for cell, those in seeds.groupby([without["row"], without["task"]], sort=False)]
    return pd.DataFrame(said, columns=["source", "row", "task", "said"])


def footers(runs: pd.DataFrame) -> dict[str, list[str]]:
    """Kind of table -> what its numbers have in common: views, validation clips, seeds, code."""
    found = runs[runs["top1_pct"].notna()]
    return {str(kind): _footer(of_kind) for kind, of_kind in found.groupby(kinds_of(found), sort=False)}


def report(runs: pd.DataFrame) -> list[str]:
    """What did not become a number, and why, for people."""
    without = runs[runs["top1_pct"].isna() | (runs["status"] == SUPERSEDED)]
    without = pd.concat([without[without["row"].notna()], without[without["checkpoint"].isna()],
                         without[without["status"] == SUPERSEDED]])
    return [f"{status}: {run}: {said}" for status, run, said in without[["status", "run", "said"]].itertuples(index=False)]


def described(runs: pd.DataFrame) -> list[str]:
    """A line for each run: what `--explain` prints; intervals are over clips."""
    lines = []
    for run in runs.itertuples():
        name = f"{run.row} {run.task} seed {run.seed}"
        if pd.isna(run.top1_pct):
            lines.append(f"{name}: {run.status}: {run.said}; {run.run}")
            continue
        top1, top5 = (f"{pct:.3f}" if pd.isna(low) else f"{pct:.3f} [{low:.3f}, {high:.3f}]" for pct, low, high in (
            (run.top1_pct, run.top1_clips_lower_pct, run.top1_clips_upper_pct),
            (run.top5_pct, run.top5_clips_lower_pct, run.top5_clips_upper_pct)))
        step = "no steps" if pd.isna(run.selected_step) else f"step {run.selected_step}"
        commit = f"{run.commit[:7] if run.commit else 'unknown'}{' with uncommitted changes' if run.dirty else ''}"
        lines.append(f"{name}: top-1 {top1}, top-5 {top5} on {run.clips} clips; {step}, commit {commit}; {run.run}")
    return lines


def classes_of(runs: pd.DataFrame) -> dict[str, int]:
    """Data set -> number of its classes, where all results agree on it."""
    numbers = runs.groupby("data")["classes"].agg(["nunique", "min"])
    return {str(data): int(least) for data, least in numbers.loc[numbers["nunique"] == 1, "min"].items()}


def named_pct_of(runs: pd.DataFrame) -> dict[str, float]:
    """Data set -> chance of top-1 of clusters that are named by their own clips, in %: the mean over results that say it."""
    known = runs[runs[ACCURACY_CHANCE].notna()]
    return {str(data): float(pct) for data, pct in known.groupby("data")[ACCURACY_CHANCE].mean().items()}


def _settings(runs: pd.DataFrame) -> pd.DataFrame:
    """What a row may differ in, a column each, as its name shows it; empty where a run has it not."""
    overrides = pd.DataFrame([{key: f"{key}={value}" for key, value in pairs} for pairs in runs["settings"]], runs.index)
    tested = runs["data"] + ":" + runs["clips"].astype(str) + "clips/" + runs["classes"].astype(str)
    sets = tested[runs["clips"].notna()].groupby(runs["data"]).nunique()
    several = runs["data"].isin(sets[sets > 1].index) & runs["clips"].notna()
    tested = tested.where(several).rename("tested")
    return pd.concat([runs[["method", "select", "views"]], overrides[sorted(overrides)], tested], axis=1).fillna("")


def _row_names(identity: pd.Series, called: pd.Series, settings: pd.DataFrame) -> pd.Series:
    """The name of each row: the checkpoint's, its content where two are called alike, and the settings that differ."""
    alike = called[called.duplicated(keep=False)].index
    content = identity.map(short).where(identity.isin(alike), "")
    words = pd.concat([identity.map(called), content, _differing(settings)], axis=1)
    names: pd.Series = words.agg(lambda line: " ".join(filter(None, line)), axis=1)
    again = names.groupby(names, sort=False).cumcount()  # rows are told apart by their names alone
    return names.where(again == 0, names + " (" + (again + 1).astype(str) + ")")


def _differing(settings: pd.DataFrame) -> pd.DataFrame:
    return settings.loc[:, settings.nunique() > 1]


def _shortest(names: pd.Series) -> str:
    return str(min(names.unique(), key=lambda name: (len(name), name)))


def short(identity: str) -> str:
    """As much of a checkpoint's content as a name needs: the shape of random weights, some digits of a hash."""
    kind, _, content = identity.rpartition(":")
    return content if kind in ("scratch", "conv") else content[:MOST_DIGITS]


def _rank(models: Sequence[str], versions: Sequence[Version]) -> dict[str, int]:
    """The order of the published models; other checkpoints come after."""
    return {name: min((list(version.models).index(model) for version, model in versions_of_checkpoint(name, versions)),
                      default=10**6) for name in models}


def _footer(found: pd.DataFrame) -> list[str]:
    views = sorted(found["views"].fillna("").unique())
    clips = found[["data", "clips"]].drop_duplicates().sort_values(["data", "clips"])
    seeds = sorted(found.groupby(["row", "task"]).size().unique())
    code = found["commit"].fillna("unknown commit").map(lambda commit: commit if commit == "unknown commit" else commit[:7])
    code = code + found["dirty"].map({True: " with uncommitted changes", False: ""})
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return [f"Views per clip: {', '.join(map(_view_words, views))}.",
            f"Validation clips: {some([f'{data} {number:,}' for data, number in clips.itertuples(index=False)])}.",
            f"Seeds per cell: {span}.", *_pair_words(found),
            f"Code: {some([f'{commit} ({number} runs)' for commit, number in code.value_counts().items()])}."]


def _pair_words(found: pd.DataFrame) -> list[str]:
    """Which image model is matched to which video model, by the names of their rows' models; the run where that has none."""
    paired = found.loc[found["pair"].notna(), ["model", "pair"]].drop_duplicates()
    models = found["checkpoint_content"].map(str).str.removeprefix("run:")
    called = dict(zip(models, found["model"], strict=True))
    said = []
    for model, pair in paired.itertuples(index=False):
        match, _, run = str(pair).partition(" of ")
        said.append(f"{model} is matched to {called.get(run.rpartition('-')[2], run)} by {match}")
    return [f"Pairs of image and video model: {some(said)}."] if said else []


def _view_words(views: str) -> str:
    if views.startswith("frames"):
        return f"{views} ({views.removeprefix('frames')} frames one by one, scores averaged before the softmax)"
    if "x" in views:
        times, crops = views.split("x")
        return f"{views} ({times} times, {crops} crops, averaged)"
    return {"center": "center (one, in the middle)", "random": "random (one, drawn by a fixed seed)"}.get(views, views)
