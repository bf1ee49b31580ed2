"""Data scaling read from run folders: what run.json, config.yaml and result.json say, and what is missing or damaged."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import scaling
from analysis.tables.curves.scaling_runs import read_runs
from analysis.tables.curves.series import Results, missing
from analysis.tables.curves.series_pairs import compare

SHARES = (0.001, 0.01, 0.1)


def fraction(share: float | None, subset: str = "contiguous", of: str = "s", hours: float | None = None) -> dict[str, Any]:
    return {"of": of, "of_content_sha256": f"all of {of}", "of_videos": 10_496, "of_hours": 174.9, "share": share, "hours": hours,
            "has_hours": hours or round(174.9 * (share or 0), 4), "subset": subset, "seed": None}


def pretrain(runs: Path, name: str, said: dict[str, Any] | None, seed: int = 0, content: str = "other") -> str:
    folder = runs / name
    folder.mkdir(parents=True)
    record = {"schema": 1, "kind": "pretrain", "name": name, "signature": f"sig-{name}", "content_sha256": content, "fraction": said}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "config.yaml").write_text(f"name: {name}\nseed: {seed}\n")
    return f"run:sig-{name}"


def few(runs: Path, name: str, content: str, top1: float | None, *, shots: int = 10, seed: int = 0, **more: Any) -> Path:
    folder = runs / f"few-{name}-{shots}-{seed}-{more.get('method', '')}"
    folder.mkdir(parents=True)
    cell = {"checkpoint": name, "checkpoint_content": content, "data": "ssv2", "shots": shots, "seed": seed, "method": "finetune",
            "overrides": {}} | more
    (folder / "run.json").write_text(json.dumps({"schema": 1, "kind": "fewshot", "name": name, "cell": cell}))
    if top1 is not None:
        result = {"schema": 1, "kind": "fewshot", "cell": cell, "top1_pct": top1, "top5_pct": min(2 * top1, 100)}
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def top1(results: Results) -> list[Any]:
    return list(results.points[results.points["metric"] == "top-1"].itertuples())


def study(runs: Path) -> dict[tuple[str, float, int], float]:
    """Two subsets, two repeats, two few-shot seeds each, and the whole, which both share; the expected means."""
    truth = {}
    for subset in ("contiguous", "random"):
        for share in SHARES:
            for seed in (0, 1):
                name = f"s-{share}-{subset}-{seed}"
                content = pretrain(runs, name, fraction(share, subset), seed)
                pct = 20 + 5 * math.log10(share) + seed + (subset == "random")
                few(runs, name, content, pct - 0.25, seed=0)
                few(runs, name, content, pct + 0.25, seed=1)
                truth[subset, share, seed] = pct
    few(runs, "s-1", pretrain(runs, "s-1", None, 0, "all of s"), 20.0)
    for subset in ("contiguous", "random"):
        truth[subset, 1.0, 0] = 20.0
    pretrain(runs, "elsewhere", None)  # other data, no point of the study
    few(runs, "scratch", "", 1.0)
    return truth


def test_points_are_means_over_few_shot_seeds_and_the_whole_is_in_every_series(tmp_path) -> None:
    truth = study(tmp_path)
    results = read_runs(tmp_path)
    assert (results.axis, results.whole, results.lost, results.series()) == ("fraction", 1.0, [], ["contiguous", "random"])
    assert {(row.series, row.amount, row.seed): row.pct for row in top1(results)} == pytest.approx(truth)
    assert set(results.points["task"]) == {"ssv2-10shot"}


def test_the_command_reads_runs_and_says_what_is_missing(tmp_path, capsys) -> None:
    study(tmp_path / "runs")
    code = scaling.main(["--runs", str(tmp_path / "runs"), "--no-figures", "--out", str(tmp_path / "t"), "--compare", "random,contiguous"])
    said = capsys.readouterr().err
    assert code == 3 and "fraction 1 (seed 1) missing: the fits stand on 7 of 8 points" in said
    with (tmp_path / "t/scaling.csv").open(newline="") as lines:
        slopes = {row["series"]: float(row["slope_per_decade"]) for row in csv.DictReader(lines) if row["fit"] == "log-linear"
                  and row["metric"] == "top-1"}
    x = np.log10([*np.repeat(SHARES, 2), 1.0])
    y = [20 + 5 * math.log10(share) + seed + 1 for share in SHARES for seed in (0, 1)]
    assert slopes["random"] == pytest.approx(np.polyfit(x, [*y, 20.0], 1)[0])
    with (tmp_path / "t/scaling-compare.csv").open(newline="") as lines:
        first = next(csv.DictReader(lines))
    assert (first["pairs"], float(first["difference"])) == ("6", pytest.approx(1.0))  # the whole is one run, no pair


def test_what_has_no_usable_result_is_said(tmp_path) -> None:
    study(tmp_path)
    (tmp_path / "few-s-0.1-random-1-10-0-/result.json").write_text('{"top1_pct": 3')
    (tmp_path / "few-s-0.1-random-1-10-1-/result.json").write_text('{"top1_pct": NaN, "top5_pct": 9.0}')
    (tmp_path / "few-s-0.01-random-0-10-1-/result.json").unlink()
    (tmp_path / "few-s-0.01-random-0-10-1-/failure.json").write_text("{}")
    few(tmp_path, "odd", "", 3.0, seed=7)
    (tmp_path / "few-odd-10-7-/run.json").write_text('{"kind": "fewshot", "cell": {"data": "ssv2"}}')
    results = read_runs(tmp_path)
    assert sorted(line.partition(": ")[2] for line in results.lost) == [
        "it failed", "its accuracy is no number from 0 to 100", "its result.json is damaged", "its run.json does not say which cell it is"]
    assert any("random ssv2-10shot top-1: fraction 0.1 (seed 1), 1 (seed 1) missing" in line for line in missing(results))


def test_methods_shots_and_overrides_are_tasks_of_their_own(tmp_path) -> None:
    content = pretrain(tmp_path, "a", fraction(0.1))
    few(tmp_path, "a", content, 1.0)
    few(tmp_path, "a", content, 2.0, shots=0)
    few(tmp_path, "a", content, 3.0, method="knn")
    few(tmp_path, "b", content, 4.0, overrides={"train.layer_decay": "0.9", "keep_weights": "true"})  # the weights change nothing
    assert {row.task: row.pct for row in top1(read_runs(tmp_path))} == {
        "ssv2-10shot": 1.0, "ssv2-all": 2.0, "ssv2-10shot knn": 3.0, "ssv2-10shot train.layer_decay=0.9": 4.0}


def test_checkpoints_are_known_by_name_too(tmp_path) -> None:
    pretrain(tmp_path, "s-tenth-0123abcd", fraction(0.1))
    few(tmp_path, "s-tenth", "", 5.0)
    assert [row.pct for row in top1(read_runs(tmp_path))] == [5.0]


def test_children_at_equal_hours(tmp_path) -> None:
    for of in ("s", "say"):
        for hours in (1.0, 10.0):
            name = f"{of}-{hours:g}h"
            few(tmp_path, name, pretrain(tmp_path, name, fraction(None, of=of, hours=hours)), 10.0 + hours + (of == "say"))
    results = read_runs(tmp_path)
    assert results.axis == "hours" and results.series() == ["s contiguous", "say contiguous"]
    found, _ = compare(results, "say contiguous", "s contiguous")
    assert found.amounts == [1.0, 10.0] and found.differences == pytest.approx([1.0, 1.0])
    assert read_runs(tmp_path, "fraction").points.empty


def two_sets(runs: Path, share: float | None = None) -> None:
    """Two data sets, two draws each; whole videos make up 1, 10 and 100 hours, and say's last are too many."""
    has = {"s": {1.0: (1.000, 1.016), 10.0: (10.0, 10.01), 100.0: (100.0, 100.0)},
           "say": {1.0: (1.012, 1.02), 10.0: (10.02, 10.0), 100.0: (102.5, 102.5)}}
    for of, amounts in has.items():
        for asked, hours in amounts.items():
            for seed in (0, 1):
                said = fraction(None, "random", of, asked) | {"has_hours": hours[seed]}
                said |= {"share": asked / 1000, "hours": None} if share else {}
                few(runs, f"{of}-{asked}-{seed}", pretrain(runs, f"{of}-{asked}-{seed}", said, seed),
                    10.0 + 5 * math.log10(asked) + (of == "say") * (2 + seed))


@pytest.mark.parametrize("share", [None, 0.1])
def test_two_data_sets_are_paired_at_equal_hours_however_they_were_chosen(tmp_path, capsys, share) -> None:
    two_sets(tmp_path / "runs", share)
    code = scaling.main(["--runs", str(tmp_path / "runs"), "--no-figures", "--out", str(tmp_path / "t"), "--compare", "say,s"])
    said = capsys.readouterr().err
    assert code == 0 and "Differences, paired by hours (within 2 %) and seed" in said and "say random less s random" in said
    with (tmp_path / "t/scaling-compare.csv").open(newline="") as lines:
        first = next(csv.DictReader(lines))
    assert (first["paired_by"], first["amounts"], first["pairs"], first["unpaired"]) == ("hours", "1.016, 10.01", "4", "4")
    assert float(first["difference"]) == pytest.approx((2 + 3 + 2 + 3) / 4)
    with (tmp_path / "t/scaling.csv").open(newline="") as lines:
        fits = {row["series"]: row for row in csv.DictReader(lines) if row["fit"] == "log-linear" and row["metric"] == "top-1"}
    assert {name: (row["points"], row["amounts"]) for name, row in fits.items()} == {"s random": ("6", "3"), "say random": ("6", "3")}
    slope = np.polyfit(np.log10([1.008, 10.005, 100]), [10, 15, 20], 1)[0]
    assert float(fits["s random"]["slope_per_decade"]) == pytest.approx(slope), "at the hours that the videos have"


def test_shares_of_two_data_sets_are_no_pairs_and_of_several_series_one_must_be_named(tmp_path, capsys) -> None:
    two_sets(tmp_path, 0.1)
    args = ["--runs", str(tmp_path), "--no-figures", "--out", str(tmp_path / "t")]
    assert scaling.main([*args, "--axis", "fraction", "--compare", "s,say"]) == 2
    assert "the same share is not the same amount" in capsys.readouterr().err
    for hours in (1.0, 10.0, 100.0):
        name = f"s-{hours:g}h-contiguous"
        few(tmp_path, name, pretrain(tmp_path, name, fraction(None, of="s", hours=hours)), 10.0 + hours / 10)
    assert scaling.main([*args, "--compare", "s,say"]) == 2
    assert "'s' has several series, name one: 's contiguous', 's random'" in capsys.readouterr().err
    assert scaling.main([*args, "--compare", "s random,say", "--compare", "s contiguous,s random"]) == 0
    capsys.readouterr()
    with (tmp_path / "t/scaling-compare.csv").open(newline="") as lines:
        assert [(row["first"], row["second"], row["pairs"]) for row in csv.DictReader(lines) if row["metric"] == "top-1"] == [
            ("s random", "say random", "4"), ("s contiguous", "s random", "3")]
    for path in tmp_path.glob("few-say-*/result.json"):
        path.unlink()
    assert scaling.main([*args, "--compare", "s random,say"]) == 3 and (tmp_path / "t/scaling.csv").exists()
    assert "missing: s random and say random have no task, hours and seed in common" in capsys.readouterr().err


def test_the_same_repeat_twice_is_refused(tmp_path) -> None:
    for name in ("a", "b"):
        few(tmp_path, name, pretrain(tmp_path, name, fraction(0.1)), 1.0)
    with pytest.raises(ValueError, match=r"b and a are both fraction 0.1, seed 0 of contiguous"):
        read_runs(tmp_path)


def test_a_folder_without_such_runs_is_refused(tmp_path, capsys) -> None:
    few(tmp_path, "scratch", "", 1.0)
    pretrain(tmp_path, "whole", None)
    assert scaling.main(["--runs", str(tmp_path)]) == 2
    assert "holds 1 few-shot runs and 0 pretraining runs on fractions" in capsys.readouterr().err
    assert scaling.main(["--runs", str(tmp_path / "none")]) == 2
