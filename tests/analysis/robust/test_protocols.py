"""Protocols side by side: the table of models, and rank agreement against scipy and against orders that are known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis import collect
from analysis.tables.agreement import agreement, rank_correlations
from tests.analysis.test_collect_runs import make_cell, write_run

CLUSTERS = {"clusters": 6, "nmi_pct": 40.0, "purity_pct": 50.0, "ari_pct": 20.0, "nmi_chance_pct": 9.0, "purity_chance_pct": 25.0,
            "accuracy_chance_pct": 26.0}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(name: str) -> list[dict[str, str]]:
    with Path("tables", f"{name}.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def cluster(checkpoint: str, seed: int, nmi: float, **more: Any) -> None:
    """A cell of method cluster, at shots 0."""
    cell = make_cell(checkpoint, "toys", 0, seed, "cluster")
    write_run(cell, 30.0, 60.0, more={"clustering": CLUSTERS | {"nmi_pct": nmi, "purity_pct": nmi + 5}, "train_clips": 0, "selected_step": None, **more})


def test_correlations_are_those_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for n in (3, 5, 12):
        x, y = rng.normal(size=n), rng.integers(4, size=n).astype(float)
        y[0] = 9  # else all may be equal
        rho, tau = rank_correlations(x, y)
        assert (rho, tau) == pytest.approx((stats.spearmanr(x, y).statistic, stats.kendalltau(x, y).statistic))
    many = rank_correlations(rng.normal(size=(50, 6)), rng.normal(size=(50, 6)))
    assert many[0].shape == (50,) and np.isnan(rank_correlations(np.ones(4), np.arange(4.0))[0])


def test_agreement_over_models_and_seeds() -> None:
    rng = np.random.default_rng(1)
    truth = np.arange(8.0)
    alike, noise = [[v + e for e in rng.normal(0, 0.1, 3)] for v in truth], [[v] for v in rng.normal(size=8)]
    found = agreement(alike, [[v] for v in truth])
    assert found is not None and found.resampled == "models and seeds"
    assert (found.spearman, found.kendall) == pytest.approx((1, 1))
    assert np.isnan([*found.kendall_ends, *found.spearman_ends]).all(), "one order in all resamples is no [1.00, 1.00]"
    other = [[v] for v in (0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0)]
    nearly = agreement(alike, other)
    assert nearly is not None and 0 < nearly.kendall_ends[0] < nearly.kendall < 1
    five = agreement([[v] for v in truth[:5]], other[:5])
    assert five is not None and five.resampled == ""
    unlike = agreement(alike, noise)
    assert unlike is not None and unlike.spearman_ends[0] < 0 < unlike.spearman_ends[1], "eight models say little of nothing"
    assert agreement(alike[:2], noise[:2]) is None, "of two models ranks say nothing"
    few = agreement(alike[:4], [[v] for v in truth[:4]])
    assert few is not None and few.resampled == "seeds" and few.spearman == pytest.approx(1)
    alone = agreement([[1.0], [2.0], [3.0]], [[3.0], [2.0], [1.0]])
    assert alone is not None and alone.resampled == "" and alone.kendall == -1 and np.isnan(alone.kendall_ends[0])
    assert agreement(alike, noise) == unlike, "equal values give equal draws"


@pytest.mark.slow
def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(2), []
    rho = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman's of a normal pair whose Pearson's is 0.7
    for _ in range(60):
        x = rng.normal(size=(2, 25))
        found = agreement([[v] for v in x[0]], [[v] for v in 0.7 * x[0] + np.sqrt(1 - 0.7**2) * x[1]], resamples=200)
        assert found is not None and found.resampled == "models"
        held.append(found.spearman_ends[0] <= rho <= found.spearman_ends[1])
    assert np.mean(held) > 0.8, np.mean(held)


def test_the_table_of_protocols_and_who_ranks_models_alike(capsys: pytest.CaptureFixture[str]) -> None:
    models = ("a", "b", "c", "scratch")
    top = {"knn": (20, 30, 40, 10), "linear": (22, 33, 44, 11), "finetune": (40, 30, 20, 10)}
    for place, model in enumerate(models):
        for method, values in top.items():
            for seed in (0, 1):
                write_run(make_cell(model, "toys", 10, seed, method), float(values[place] + seed), 60.0)
        write_run(make_cell(model, "toys", 2, 0, "knn"), float(top["knn"][place] / 2), 50.0)
        for seed in (0, 1):
            cluster(model, seed, 10.0 * (place + 1) + seed)
    assert collect.main([]) == 3, "of 2 shots there is one method alone"
    out, err = capsys.readouterr()
    assert {"tables/protocols.csv", "tables/protocol-agreement.csv", "tables/unlabelled.csv", "tables/fewshot.csv"} <= set(out.splitlines())
    table = {(row["labels"], row["protocol"]): row for row in rows("protocols")}
    assert list(table) == [("no labels", "cluster NMI"), ("no labels", "cluster purity"), ("2 shots", "knn"), ("10 shots", "knn"),
                           ("10 shots", "linear"), ("10 shots", "finetune")]
    assert float(table["10 shots", "linear"]["b pct"]) == 33.5 and table["10 shots", "linear"]["b n"] == "2.0"
    assert float(table["no labels", "cluster NMI"]["c pct"]) == 30.5 and float(table["no labels", "cluster NMI"]["chance pct"]) == 9
    assert float(table["2 shots", "knn"]["chance pct"]) == pytest.approx(100 / 6)
    pairs = {(row["a"], row["b"]): row for row in rows("protocol-agreement")}
    assert len(pairs) == 15 and float(pairs["knn, 10 shots", "linear, 10 shots"]["kendall"]) == 1
    assert float(pairs["linear, 10 shots", "finetune, 10 shots"]["spearman"]) == pytest.approx(
        stats.spearmanr(top["linear"], top["finetune"]).statistic)
    assert pairs["cluster NMI", "knn, 2 shots"]["resampled"] == "seeds" and pairs["cluster NMI", "knn, 2 shots"]["models"] == "4"
    assert "Do protocols rank models alike?" in err and "seeds alone" in err
    unlabelled = rows("unlabelled")
    assert [row["model"] for row in unlabelled][:4] == ["scratch cluster", "a cluster", "b cluster", "c cluster"]
    assert (unlabelled[-1]["source"], unlabelled[-1]["toys-unlabelled top1_pct"], unlabelled[-1]["toys-unlabelled top5_pct"]) == (
        "shuffled labels", "26.000", "--"), "not 1 of 6: the clips that are tested have named the clusters"
    assert "toys-unlabelled top1_pct" in unlabelled[0] and "the name of a class" in Path("tables/unlabelled.md").read_text()
    listed = {(row["method"], row["checkpoint"], row["seed"]): row for row in rows("results") if row["method"] in ("cluster", "linear")}
    assert listed["cluster", "b", "1"]["nmi_pct"] == "21.0" and listed["linear", "b", "1"]["nmi_pct"] == "--"
    tidy = [row for row in rows("tidy") if row["metric"] in ("nmi", "purity", "ari")]
    assert len(tidy) == 4 * 2 * 3 and {row["task"] for row in tidy} == {"toys-unlabelled"}


def test_of_two_models_no_agreement_is_claimed_and_of_one_method_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    for model, value in (("a", 20.0), ("b", 30.0)):
        write_run(make_cell(model, "toys", 10, 0, "finetune"), value, 60.0)
    assert collect.main([]) == 0 and "protocols" not in capsys.readouterr().out
    for model, value in (("a", 20.0), ("b", 30.0)):
        write_run(make_cell(model, "toys", 10, 0, "knn", {"probe.neighbors": "5"}), value, 60.0)
    assert collect.main([]) == 0
    out, err = capsys.readouterr()
    assert "tables/protocols.csv" in out and "protocol-agreement" not in out
    assert "Rank agreement of protocols is undefined: it takes 3 models" in " ".join(err.split()) and "there are 2 at most" in " ".join(err.split())


def test_settings_that_differ_are_protocols_of_their_own_and_models_called_alike_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for place, (content, neighbors) in enumerate([("1111111111", "5"), ("1111111111", "9"), ("2222222222", "5"), ("2222222222", "9")]):
        cell = make_cell("same", "toys", 10, 0, "knn", {"probe.neighbors": neighbors}) | {"checkpoint_content": content}
        write_run(cell, 10.0 + place, 50.0, sign=f"{place:08x}")
    write_run(make_cell("same", "toys", 10, 0, "linear") | {"checkpoint_content": "1111111111"}, 50.0, 60.0)
    assert collect.main([]) == 0
    table = {row["protocol"]: row for row in rows("protocols")}
    assert list(table) == ["knn probe.neighbors=5", "knn probe.neighbors=9", "linear"]
    assert [table["knn probe.neighbors=9"][f"same {name} pct"] for name in ("11111111", "22222222")] == ["11.0", "13.0"]
    assert table["linear"]["same 22222222 pct"] == "--"


def test_a_damaged_clustering_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    cluster("a", 0, 40.0)
    cluster("b", 0, 400.0)
    earlier = {key: value for key, value in CLUSTERS.items() if key != "accuracy_chance_pct"}
    cluster("c", 0, 40.0, clustering=earlier)
    assert collect.main(["--json"]) == 3
    out, err = capsys.readouterr()
    assert "nmi_pct is 400.0, not a number from 0 to 100" in err and json.loads(out)["failed"] == 1, "results from before the chance of top-1 was said are read"
