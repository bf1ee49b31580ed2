"""Protocols x models: what each way of testing says of each model, and whether the ways rank the models alike.

A protocol is a data set, an amount of labels and a method with its settings: `knn` from 2 shots, `finetune` from 10. Method
cluster learned from no label and has two: NMI and purity. Models are checkpoints; means are over seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.results.frames import UNLABELLED
from analysis.tables.agreement import FEWEST, FEWEST_RESAMPLED, RESAMPLES, agreement
from analysis.tables.result_table import printed
from analysis.tables.run_rows import short
from analysis.tables.sheet import MISSING, Sheet, some, texts
from analysis.tables.stats import over_seeds

NAME, AGREEMENT = "protocols", "protocol-agreement"
METHODS = ("cluster", "knn", "linear", "attentive", "finetune")  # from no training to all weights
MEASURES = {"nmi": "NMI", "purity": "purity"}
KEY = ["data", "which", "protocol"]
NO_LABELS = "no labels"
CHANCE = "chance"
FOOTER = (
    "Accuracy (top-1) in %, mean over seeds as in the other tables. Clusters of test clips without labels: NMI and purity "
    "in %, whose chance is that of shuffled labels. The three kinds of numbers have no common scale; ranks of models can be "
    "compared.")
OF_AGREEMENT = (
    f"Over the models that both protocols of one data set have tested, at least {FEWEST}: rank correlations of means over "
    f"seeds, 1 the same order, 0 none, -1 the reverse. 95 % intervals by the bootstrap ({RESAMPLES} resamples): models "
    f"where there are {FEWEST_RESAMPLED} or more, and seeds; with fewer models seeds alone, so that such an interval says "
    "nothing of other models. With so few models intervals are rough; where all resamples say the same there is none.")


def protocol_sheets(runs: pd.DataFrame, suffix: str = "") -> list[Sheet]:
    """The tables of runs in rows (run_rows.in_rows); none where one method alone was used, and that with labels.

    Args:
        runs: With columns of `frames.of_runs`, `row` and `model`.
        suffix: Of the tables' names.
    """
    values = values_of(runs)
    if values.empty or (values["method"].nunique() < 2 and "cluster" not in set(values["method"])):
        return []
    pairs = agreements(values)
    return [table_of(values, pairs, suffix), *([agreement_sheet(pairs, suffix)] if pairs["spearman"].notna().any() else [])]


def values_of(runs: pd.DataFrame) -> pd.DataFrame:
    """A row per result and measure: data, which (amount of labels), protocol, method, model, seed, pct, chance_pct.

    In the order of the tables: data sets as they come, few labels before many, methods as in METHODS.
    """
    found = runs[runs["row"].notna() & runs["top1_pct"].notna()]
    if found.empty:
        return pd.DataFrame(columns=[*KEY, "method", "model", "seed", "pct", "chance_pct"])
    found = found.assign(model=_model_names(found))
    accuracy = found[found["method"] != "cluster"]
    parts = [accuracy.assign(protocol=accuracy["method"] + _settings(accuracy), pct=accuracy["top1_pct"].astype(float),
                             chance_pct=100 / accuracy["classes"].astype(float))]
    clusters = found[(found["method"] == "cluster") & found["nmi_pct"].notna()]
    for measure, name in MEASURES.items():
        parts.append(clusters.assign(
            protocol=f"cluster {name}" + _settings(clusters), pct=clusters[f"{measure}_pct"].astype(float),
            chance_pct=clusters[f"{measure}_chance_pct"].astype(float)))
    values = pd.concat(parts)
    few = values["shots"].astype("Float64").where(values["shots"].fillna(0) > 0).astype(float).fillna(np.inf)
    share = values["which"].str.extract(r"^_(\d*\.\d+)$", expand=False).astype(float).fillna(1.0)
    rank = values["method"].map({name: place for place, name in enumerate(METHODS)}).fillna(len(METHODS))
    few = few.where(values["which"] != UNLABELLED, -1.0)
    values = values.assign(few=few, share=share, rank=rank).sort_values(
        ["data", "few", "share", "rank", "protocol"], kind="stable")
    return values[[*KEY, "method", "model", "seed", "pct", "chance_pct"]].reset_index(drop=True)


def agreements(values: pd.DataFrame) -> pd.DataFrame:
    """A row per pair of protocols of one data set: how many models both have, and the rank correlations over these."""
    rows = []
    for data, of_data in values.groupby("data", sort=False):
        scores = {key: {model: own["pct"].tolist() for model, own in of_protocol.groupby("model", sort=False)}
                  for key, of_protocol in of_data.groupby(["protocol", "which"], sort=False)}
        for a, b in itertools.combinations(scores, 2):
            common = [model for model in scores[a] if model in scores[b]]
            found = agreement([scores[a][model] for model in common], [scores[b][model] for model in common])
            row = {"data": data, "a": _words(*a), "b": _words(*b), "models": len(common)}
            if found:
                row |= {"spearman": found.spearman, "spearman_lower": found.spearman_ends[0],
                        "spearman_upper": found.spearman_ends[1], "kendall": found.kendall,
                        "kendall_lower": found.kendall_ends[0], "kendall_upper": found.kendall_ends[1],
                        "resampled": found.resampled or None}
            rows.append(row)
    return pd.DataFrame(rows, columns=["data", "a", "b", "models", "spearman", "spearman_lower", "spearman_upper", "kendall",
                                       "kendall_lower", "kendall_upper", "resampled"])


def table_of(values: pd.DataFrame, pairs: pd.DataFrame, suffix: str = "") -> Sheet:
    """The table: a row per protocol, a column per model, and chance."""
    cells = over_seeds(values, [*KEY, "model"])
    models = list(dict.fromkeys(values["model"]))
    lines = values.drop_duplicates(KEY)[KEY].reset_index(drop=True)
    wide = {part: cells.pivot(index=KEY, columns="model", values=part).reindex(
        index=pd.MultiIndex.from_frame(lines), columns=models) for part in ("pct", "lower_pct", "upper_pct", "n")}
    shown = pd.DataFrame({"data": lines["data"], "labels": lines["which"].map(_amount), "protocol": lines["protocol"]})
    records = shown.copy()
    for model in models:
        parts = {part: wide[part][model].astype(float).array for part in wide}
        shown[model] = [printed(*each) for each in zip(*parts.values(), strict=True)]
        for part, numbers in parts.items():
            records[f"{model} {part}"] = numbers
    chance = values.groupby(KEY, sort=False)["chance_pct"].mean()
    records[f"{CHANCE} pct"] = chance.to_numpy()
    shown[CHANCE] = texts(records[f"{CHANCE} pct"], ".2f")
    return Sheet(NAME + suffix, "Protocols x models", shown, 3, records, [FOOTER, *_said_of_pairs(pairs)])


def agreement_sheet(pairs: pd.DataFrame, suffix: str = "") -> Sheet:
    """Which protocols rank the models alike: the pairs that have enough models."""
    known = pairs[pairs["models"] >= FEWEST].reset_index(drop=True)
    shown = pd.DataFrame({"data": known["data"], "protocol": known["a"], "and": known["b"],
                          "models": known["models"].astype(str)})
    for name, heading in (("spearman", "Spearman"), ("kendall", "Kendall")):
        numbers = known[[name, f"{name}_lower", f"{name}_upper"]].astype(float).to_numpy()
        shown[heading] = [_with_ends(*each) for each in numbers]
    shown["resampled"] = known["resampled"].fillna(MISSING)
    left_out = len(pairs) - len(known)
    said = [f"{left_out} pairs with fewer than {FEWEST} common models are left out."] if left_out else []
    return Sheet(AGREEMENT + suffix, "Do protocols rank models alike?", shown, 3, known, [OF_AGREEMENT, *said])


def _said_of_pairs(pairs: pd.DataFrame) -> Sequence[str]:
    if pairs.empty:
        return []
    most = int(pairs["models"].max())
    if most < FEWEST:
        said = (f"Rank agreement of protocols is undefined: it takes {FEWEST} models that two protocols of a data set have "
                f"tested, and there are {most} at most.")
        return [said]
    few = pairs.loc[pairs["models"] < FEWEST, "data"].unique().tolist()
    if not few:
        return []
    return [f"Rank agreement is undefined for some protocols of {some(few)}: fewer than {FEWEST} common models."]


def _model_names(runs: pd.DataFrame) -> pd.Series:
    """The name of the checkpoint of each run, with its content where two are called alike."""
    identity = runs["checkpoint_content"].fillna(runs["checkpoint"])
    alike = identity.groupby(runs["model"]).transform("nunique") > 1
    return runs["model"].where(~alike, runs["model"] + " " + identity.map(short))


def _settings(runs: pd.DataFrame) -> pd.Series:
    """What runs of one method and data set differ in, as words behind the method's name."""
    columns = runs[["select", "views", "overrides"]].astype(object).fillna("")
    columns["tested"] = runs["clips"].astype(str) + "clips/" + runs["classes"].astype(str)
    several = columns.groupby([runs["method"], runs["data"]]).transform("nunique") > 1
    words = columns.where(several, "")
    return words.apply(lambda line: "".join(f" {word}" for word in line if word), axis=1).astype(object) \
        if len(words) else pd.Series([], dtype=object)


def _amount(which: str) -> str:
    """How much was learned from, by the end of a task's name."""
    if which == UNLABELLED:
        return NO_LABELS
    if which.startswith("_"):
        return f"{100 * float(which[1:]):g}%"
    words = which.removeprefix("-")
    return f"{words.removesuffix('shot')} shots" if words.endswith("shot") else words


def _words(protocol: str, which: str) -> str:
    return protocol if which == UNLABELLED else f"{protocol}, {_amount(which)}"


def _with_ends(value: float, low: float, high: float) -> str:
    if np.isnan(value):
        return MISSING
    return f"{value:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")
