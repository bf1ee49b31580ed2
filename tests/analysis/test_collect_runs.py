"""Tables of few-shot runs: run folders as a sweep leaves them, whole and damaged, against numbers worked out another way."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from analysis import collect
from analysis.results.published import read_published, versions_of_checkpoint
from analysis.results.scan import KnownRecords, scan
from analysis.results.subset import read_subset
from analysis.tables.stats import over_seeds
from tests.support.launching import ROOT
from vidmae.runs.cell_record import ResultError, read_result
from vidmae.runs.cell_result import Learned, write_cell_result
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.record import RunFolder
from vidmae.settings.finetune_config import FinetuneConfig, FinetuneTrainConfig

Run = dict[str, Any]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = collect.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def make_cell(checkpoint: str = "s-vith14", data: str = "ssv2", shots: int = 10, seed: int = 0, method: str = "finetune",
              overrides: dict[str, str] | None = None) -> Run:
    return {"checkpoint": checkpoint, "checkpoint_content": "" if checkpoint == "scratch" else f"of {checkpoint}", "data": data,
            "shots": shots, "seed": seed, "method": method, "overrides": overrides or {}, "sweep": "fewshot"}


def make_result(cell: Run, top1: Any, top5: Any, more: Run) -> Run:
    clips, classes = {"ssv2": (24_777, 174), "kinetics": (33_960, 700)}.get(cell["data"], (60, 6))
    return {"schema": 1, "kind": "fewshot", "name": cell["checkpoint"], "cell": cell, "select": "last", "selected_step": 540,
            "views": "center", "top1_pct": top1, "top5_pct": top5, "top1_ci_pct": [10.0, 12.0], "top5_ci_pct": [30.0, 32.5],
            "clips": clips, "classes": classes, "train_clips": 1740, "steps": 1080, "train_s": 9.5, "eval_s": 1.5, "world_size": 1,
            "precision": "bf16", "commit": "0123456789abcdef", "dirty": False, "job_id": "123_4", "finished": 1.79e9} | more


def write_run(cell: Run, top1: Any = None, top5: Any = None, *, runs: str = "runs", record: bool = True, sign: str = "0" * 8,
              more: Run | None = None, **others: Any) -> Path:
    """A run folder with a result, or without one where no accuracy is given; `more` and `others` change the result."""
    folder = Path(runs, f"{cell['checkpoint']}-{cell['data']}-{cell['shots']}shot-seed{cell['seed']}-{cell['method']}-{sign}")
    folder.mkdir(parents=True)
    if record:
        (folder / "run.json").write_text(json.dumps({"schema": 1, "kind": "fewshot", "cell": cell, "submissions": [{"job_id": "7_1"}]}))
        (folder / "config.yaml").write_text("select:\n  rule: last\nevaluate:\n  views: center\n")
    if top1 is not None:
        (folder / "result.json").write_text(json.dumps(make_result(cell, top1, top5, {**(more or {}), **others})))
    return folder


def rows_of(path: str) -> dict[tuple[str, str], dict[str, str]]:
    with Path(path).open(newline="") as lines:
        return {(row["model"], row["source"]): row for row in csv.DictReader(lines)}


def over(values: list[float]) -> pd.Series:
    return over_seeds(pd.DataFrame({"cell": "a", "pct": values}), ["cell"]).iloc[0]


@pytest.mark.parametrize("values", [[31.2, 31.9, 32.0], [5.0, 5.0], [0.5, 99.5, 3.25, 47.0, 12.5, 12.5, 80.0]])
def test_mean_and_interval_over_seeds(values: list[float]) -> None:
    found, n = over(values), len(values)
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    assert (found.pct, found.n) == (pytest.approx(mean), n)
    if error:
        lower, upper = scipy_stats.t.interval(0.95, n - 1, loc=mean, scale=error)
        assert (found.lower_pct, found.upper_pct) == (pytest.approx(lower), pytest.approx(upper))
    assert (found.upper_pct - found.lower_pct) / 2 == pytest.approx({2: 12.7062, 3: 4.30265, 7: 2.44691}[n] * error, rel=1e-5)  # printed tables of t


def test_an_interval_over_seeds_holds_the_truth_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(30, 2, size=(1000, 3))
    cells = pd.DataFrame({"cell": np.repeat(np.arange(1000), 3), "pct": draws.ravel()})
    assert 930 <= over_seeds(cells, ["cell"]).eval("lower_pct <= 30 <= upper_pct").sum() <= 970


def test_of_one_seed_no_interval_is_claimed() -> None:
    assert over([4.0]).pct == 4 and np.isnan(over([4.0]).lower_pct) and np.isnan(over([4.0]).upper_pct)


def grid() -> dict[tuple[str, str], list[float]]:
    """200 runs: 2 checkpoints x 2 data sets x (2, 10, 50 shots, all) with different numbers of seeds; the top-1 of each cell."""
    draw, expected, written = np.random.default_rng(1), {}, 0
    for checkpoint in ("scratch", "s-vith14-0011aabb"):
        Path("runs/arrays/1-fewshot/code").mkdir(parents=True, exist_ok=True)
        Path("runs/arrays/1-fewshot/cells.txt").write_text("")
        Path("runs/arrays/1-fewshot/code/result.json").write_text("no run")
        for data in ("ssv2", "kinetics"):
            for shots, seeds in ((2, 30), (10, 16), (50, 3), (0, 1)):
                values = draw.uniform(0, 40, seeds) + (20 if (checkpoint, data) == ("scratch", "kinetics") else 0)  # clearly better
                expected[checkpoint, f"{data}-{shots}shot" if shots else f"{data}-all"] = values.tolist()
                for seed, value in enumerate(values):
                    write_run(make_cell(checkpoint, data, shots, seed), float(value), float(value) + 40)
                    written += 1
    assert written == 200
    return expected


def test_every_number_of_200_runs_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    expected = grid()
    code, out, err = run(capsys)
    assert code == 0 and "found 200, expected 200, missing 0, failed 0" in err
    assert out.splitlines() == [f"tables/{name}" for name in ("fewshot.csv", "fewshot.md", "fewshot.tex", "full.csv", "full.md",
                                                              "full.tex", "results.csv", "tidy.csv")]
    ranked = {of: sorted((float(np.mean(v)) for (_, task), v in expected.items() if task == of), reverse=True) for _, of in expected}
    marked = set()
    for (checkpoint, task), values in expected.items():
        kind, n, mean = "full" if task.endswith("-all") else "fewshot", len(values), np.mean(values)
        row = rows_of(f"tables/{kind}.csv")[checkpoint, "runs"]
        for metric, shift in (("top1", 0), ("top5", 40)):
            assert float(row[f"{task} {metric}_pct"]) == pytest.approx(mean + shift, abs=6e-4) and row[f"{task} {metric}_n"] == str(n)
        half = "--" if n == 1 else scipy_stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)
        assert row[f"{task} top1_lower_pct"] == "--" if n == 1 else float(row[f"{task} top1_lower_pct"]) == pytest.approx(mean - half, abs=6e-4)
        assert row[f"{task} top1_upper_pct"] == "--" if n == 1 else float(row[f"{task} top1_upper_pct"]) == pytest.approx(mean + half, abs=6e-4)
        text = f"{mean:.2f} ({n})" if n == 1 else f"{mean:.2f} ± {half:.2f} ({n})"
        bold = mean == ranked[task][0] and (n == 1 or mean - half > ranked[task][1])
        marked.add((task.partition("-")[0], n > 3, bold))
        markdown = [line for line in Path(f"tables/{kind}.md").read_text().splitlines() if line.startswith(f"| {checkpoint} | runs")]
        latex = [line for line in Path(f"tables/{kind}.tex").read_text().splitlines() if line.startswith(f"{checkpoint} & runs")]
        columns = [key.removesuffix("_pct") for key in row if re.fullmatch(r".* top[15]_pct", key)]
        place = columns.index(f"{task} top1")
        assert len(markdown) == len(latex) == 1
        assert markdown[0].split(" | ")[2 + place].removesuffix(" |") == (f"**{text}**" if bold else text)
        tex = text.replace("±", r"$\pm$")
        assert latex[0].removesuffix(r" \\").split(" & ")[2 + place] == (rf"\textbf{{{tex}}}" if bold else tex)
        assert text in err
    assert {("kinetics", True, True), ("ssv2", True, False)} <= marked and ("ssv2", True, True) not in marked
    listed = list(csv.DictReader(Path("tables/results.csv").read_text().splitlines()))
    assert len(listed) == 200 and all(line["top1_clips_lower_pct"] == "10.0" and line["status"] == "found" for line in listed)


def test_published_numbers_and_chance_stand_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    grid()
    run(capsys)
    table = rows_of("tables/fewshot.csv")
    assert list(table) == [("scratch", "runs"), ("random", "published v1"), ("s-vith14-0011aabb", "runs"), ("s", "published v3"),
                           ("chance", "1/classes")]
    assert table["s", "published v3"]["ssv2-50shot top1_pct"] == "31.747" and table["s", "published v3"]["ssv2-2shot top1_pct"] == "--"
    assert table["chance", "1/classes"]["kinetics-10shot top5_pct"] == "0.714"
    run(capsys, "--published", "all")
    everything = rows_of("tables/fewshot.csv")
    assert set(table) < set(everything) and everything["sayavakepicutego4d_448", "published v3"]["ssv2-10shot top5_pct"] == "41.723"
    run(capsys, "--published", "none")
    assert {source for _, source in rows_of("tables/fewshot.csv")} == {"runs", "1/classes"}


@pytest.mark.parametrize(("checkpoint", "found"), [
    ("scratch", ("v1", "random")), ("s-vith14", ("v3", "s")), ("kinetics-200h-vith14-0123abcd", ("v3", "kinetics_128")),
    ("mae_say_none", ("v3", "say")), ("hvm1@448_none", ("v3", "sayavakepicutego4d_448")),
    ("s-vith14-448", None), ("s-vith14-half", None), ("demo", None), ("s_ssv2-10shot", None),
])
def test_which_published_numbers_belong_to_a_checkpoint(checkpoint: str, found: tuple[str, str] | None) -> None:
    known = [(version.name, model) for version, model in versions_of_checkpoint(checkpoint, read_published())]
    assert known == ([found] if found else [])
    assert all(model in version.models for version, model in versions_of_checkpoint(checkpoint, read_published()))


def test_unlike_runs_never_meet_in_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        write_run(make_cell("m", seed=seed), 10.0, 30.0)
        write_run(make_cell("m", seed=seed, method="linear"), 8.0, 20.0, selected_step=None)
        write_run(make_cell("m", seed=seed), 12.0, 33.0, select="val-best", sign="1" * 8)
        write_run(make_cell("m", seed=seed), 11.0, 31.0, views="10x3", sign="2" * 8)
        write_run(make_cell("m", seed=seed, overrides={"train.layer_decay": "0.9"}), 9.0, 29.0, sign="3" * 8)
        write_run(make_cell("m", seed=seed) | {"checkpoint_content": "cd" * 8}, 7.0, 27.0, sign="4" * 8)
    code, *_ = run(capsys)
    rows = {model: row["ssv2-10shot top1_pct"] for (model, source), row in rows_of("tables/fewshot.csv").items() if source == "runs"}
    assert code == 0 and rows == {
        "m of m finetune last center": "10.000", "m of m linear last center": "8.000", "m of m finetune val-best center": "12.000",
        "m of m finetune last 10x3": "11.000", "m of m finetune last center train.layer_decay=0.9": "9.000",
        "m cdcdcdcd finetune last center": "7.000"}
    markdown = Path("tables/fewshot.md").read_text()
    assert markdown.count("**12.00 [12.00, 12.00] (2)**") == markdown.count("**11.00 [11.00, 11.00] (2)**") == 1  # val-best competes with its like only
    assert "Selection of m of m finetune val-best center: best look on the validation set itself, as in the paper: optimistic" in markdown
    assert "Views per clip: 10x3 (10 times, 3 crops, averaged), center (one, in the middle)." in markdown
    assert {row["selection"].split(";")[0].split(":")[0] for row in rows_of("tables/fewshot.csv").values()} == {
        "last step", "best look on the validation set itself, as in the paper", "--"}


def test_two_seeds_show_what_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in ((0, 50.0), (1, 100.0)):
        write_run(make_cell("m", seed=seed), value, value)
        write_run(make_cell("n", seed=seed), value - 1, value)
    assert run(capsys)[0] == 0
    row = rows_of("tables/fewshot.csv")["m", "runs"]
    assert float(row["ssv2-10shot top1_upper_pct"]) == pytest.approx(75 + 25 * scipy_stats.t.ppf(0.975, 1), abs=6e-4)
    markdown = Path("tables/fewshot.md").read_text()
    assert "75.00 [50.00, 100.00] (2)" in markdown and "**75.00" not in markdown, "its interval holds the second best"


def test_a_checkpoint_is_its_content_whatever_it_is_called(capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name, content in ((0, "m", "run:01234567"), (1, "m-01234567", "run:01234567"), (0, "n", "run:00000000"),
                                (0, "n-11111111", "run:11111111"), (1, "n", "run:11111111"), (0, "scratch", ""), (1, "scratch", "")):
        write_run(make_cell(name, seed=seed) | {"checkpoint_content": content}, 10.0, 30.0, sign=content[-8:])
    run(capsys)
    table = rows_of("tables/fewshot.csv")
    assert {model: row["ssv2-10shot top1_n"] for (model, source), row in table.items() if source == "runs"} == {
        "m": "2", "n 00000000": "1", "n 11111111": "2", "scratch": "2"}


def test_a_setting_that_all_runs_share_is_not_in_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    for checkpoint in ("a", "b"):
        write_run(make_cell(checkpoint, method="knn", overrides={"probe.neighbors": "5"}), 10.0, 30.0, dirty=checkpoint == "b", clips=24_000)
    run(capsys)
    assert [model for model, source in rows_of("tables/fewshot.csv") if source == "runs"] == ["a", "b"]
    markdown = Path("tables/fewshot.md").read_text()
    for line in ("- Validation clips: ssv2 24,000.", "- Seeds per cell: 1.",
                 "- Code: 0123456 (1 runs), 0123456 with uncommitted changes (1 runs).", "- Nothing published under this name: a, b."):
        assert f"\n{line}\n" in markdown


def test_keeping_the_weights_makes_no_row_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("m", seed=0), 10.0, 30.0)
    write_run(make_cell("m", seed=1, overrides={"keep_weights": "true"}), 20.0, 40.0)
    run(capsys)
    table = rows_of("tables/fewshot.csv")
    assert {model: row["ssv2-10shot top1_n"] for (model, source), row in table.items() if source == "runs"} == {"m": "2"}


def test_runs_on_other_validation_clips_are_rows_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("m", seed=0), 10.0, 30.0)
    write_run(make_cell("m", seed=1), 20.0, 40.0, clips=1_000)
    run(capsys)
    assert {model for model, source in rows_of("tables/fewshot.csv") if source == "runs"} == {
        "m ssv2:24777clips/174", "m ssv2:1000clips/174"}


def test_of_two_results_of_a_cell_and_seed_the_newer_counts(capsys: pytest.CaptureFixture[str]) -> None:
    old = write_run(make_cell("m"), 10.0, 30.0, finished=1.0, sign="f" * 8)
    new = write_run(make_cell("m"), 20.0, 40.0, finished=2.0, sign="0" * 8)
    failed = write_run(make_cell("m"), sign="e" * 8)
    code, _, err = run(capsys)
    assert code == 0 and "found 1, expected 1, missing 0, failed 0, damaged 0, skipped 0, superseded 2" in err
    assert rows_of("tables/fewshot.csv")["m", "runs"]["ssv2-10shot top1_pct"] == "20.000"
    for run_folder in (old, failed):
        assert f"superseded: {run_folder}: the cell's newest result is in {new}" in err


def test_what_is_missing_and_what_has_failed(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("m", seed=0), 10.0, 30.0)
    waiting = write_run(make_cell("m", seed=1))
    broken = write_run(make_cell("m", seed=2))
    (broken / "failure.json").write_text(json.dumps({"schema": 1, "kind": "error", "error": "ValueError", "message": "k is too large"}))
    lost = write_run(make_cell("m", seed=3))
    (lost / "failure.json").write_text(json.dumps({"schema": 1, "kind": "lost", "error": "RuntimeError", "message": "node gone"}))
    never = write_run(make_cell("n", shots=50))
    (never / "run.json").write_text(json.dumps({"schema": 1, "kind": "fewshot", "cell": make_cell("n", shots=50)}))
    pretrained = Path("runs/s-vith14-00000000")
    pretrained.mkdir()
    (pretrained / "run.json").write_text(json.dumps({"schema": 1, "kind": "pretrain"}))
    (pretrained / "result.json").write_text(json.dumps({"schema": 1, "kind": "pretrain", "last_loss": 0.1}))
    code, out, err = run(capsys, "--json")
    said = json.loads(out)
    assert code == 3 and {name: said[name] for name in ("found", "expected", "missing", "failed")} == {
        "found": 1, "expected": 7, "missing": 5, "failed": 1}  # m: seeds 1, 3 and ssv2-50shot; n: ssv2-50shot and ssv2-10shot
    for line in (f"missing: {waiting}: no result yet, submitted as job 7_1", f"failed: {broken}: ValueError: k is too large",
                 f"missing: {lost}: lost: RuntimeError: node gone", f"missing: {never}: not submitted yet",
                 "missing: m: ssv2-50shot", "missing: n: ssv2-10shot"):
        assert f"\n{line}\n" in f"{err}\n"
    assert "s-vith14" not in err and sorted(entry["status"] for entry in said["results"]) == ["failed", "found", "missing", "missing", "missing"]
    rows = rows_of("tables/fewshot.csv")
    assert rows["m", "runs"]["ssv2-10shot top1_n"] == "1" and set(list(rows["n", "runs"].values())[2:-1]) == {"--"}
    assert "m, ssv2-10shot: 1 of 4 runs have a result (seed 1 missing, seed 2 failed, seed 3 missing)." in err


@pytest.mark.parametrize(("damage", "why"), [
    ({"top1_pct": float("nan")}, "top1_pct is nan, not a number from 0 to 100"),
    ({"top5_pct": None}, "top5_pct is None, not a number from 0 to 100"),
    ({"top1_pct": 120.0}, "top1_pct is 120.0, not a number from 0 to 100"),
    ({"top1_pct": True}, "top1_pct is True, not a number from 0 to 100"),
    ({"top1_pct": 50.0}, "top1_pct 50 is higher than top5_pct 30"),
    ({"top1_ci_pct": [float("nan"), 3.0]}, "top1_ci_pct is nan, not a number from 0 to 100"),
    ({"schema": 2}, "result.json has schema 2, known is 1"),
    ({"schema": None}, "result.json has schema None, known is 1"),
    ({"kind": "other"}, "result.json is of kind other"),
    ({"cell": None}, "result.json does not say which cell it is (cell)"),
    ({"clips": 0}, "clips is 0, not a whole number from 1"),
    ({"views": ""}, "views is , not a name"),
])
def test_a_result_that_cannot_be_is_named_and_never_counted(damage: Run, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("m", seed=0), 11.0, 31.0)
    bad = write_run(make_cell("m", seed=1), 10.0, 30.0, more=damage)
    code, _, err = run(capsys)
    assert code == 3 and "found 1, expected 2, missing 0, failed 1" in err and f"\nfailed: {bad}: {why}\n" in err
    assert rows_of("tables/fewshot.csv")["m", "runs"]["ssv2-10shot top1_pct"] == "11.000"


@pytest.mark.parametrize("length", [0, 1, 100, -2])
def test_a_result_that_is_cut_off(length: int, capsys: pytest.CaptureFixture[str]) -> None:
    bad = write_run(make_cell("m"), 10.0, 30.0)
    whole = (bad / "result.json").read_text()
    (bad / "result.json").write_text(whole[:length])
    code, _, err = run(capsys)
    assert code == 3 and f"failed: {bad}: result.json {'is cut off' if length else 'is empty'}" in err
    alone = write_run(make_cell("n"), 10.0, 30.0, record=False)
    (alone / "result.json").write_text(whole[:length])
    assert f"failed: {alone}: result.json is" in run(capsys)[2]


@pytest.mark.parametrize(("text", "what"), [(b"[1]", "holds list, not an object"), (b"\x80\x04", "is no JSON"), (b"{} x", "is no JSON"),
                                            (b'{"a": nope, "b": 1}', "is no JSON"), (b"[" * 10**5, "is")])
def test_what_is_no_result(text: bytes, what: str) -> None:
    with pytest.raises(ResultError, match=f"result.json {what}"):
        read_result(text)


def test_a_second_call_reads_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_run(make_cell("m", seed=seed), 10.0 + seed, 30.0) for seed in range(5)]
    waiting = write_run(make_cell("m", seed=5))
    cache = Path("known.json")

    def look() -> tuple[int, list[float | None]]:
        known = KnownRecords(cache)
        runs = scan([Path("runs")], known)
        known.write()
        assert runs == scan([Path("runs")], KnownRecords(None))
        return known.read, [run.result.top1_pct if run.result else None for run in runs]

    assert look() == (6, [10, 11, 12, 13, 14, None])
    assert look() == (0, [10, 11, 12, 13, 14, None])
    changed = make_result(make_cell("m", seed=1), 21.0, 30.0, {})  # of the same size
    old = (folders[1] / "result.json").stat()
    (folders[1] / "new").write_text(json.dumps(changed))
    (folders[1] / "new").rename(folders[1] / "result.json")
    os.utime(folders[1] / "result.json", ns=(old.st_atime_ns, old.st_mtime_ns))  # nor can its time tell
    assert look() == (1, [10, 21, 12, 13, 14, None])
    (waiting / "result.json").write_text(json.dumps(make_result(make_cell("m", seed=5), 15.0, 30.0, {})))
    (folders[4] / "result.json").unlink()
    assert look() == (2, [10, 21, 12, 13, None, 15])
    (folders[3] / "result.json").unlink()
    (folders[3] / "run.json").unlink()
    assert look() == (0, [10, 21, 12, None, 15])
    assert str(folders[3]) not in cache.read_text()
    cache.write_text(cache.read_text()[:-9])
    assert look()[0] == 5
    cache.write_text('{"schema": 0, "records": {}}')
    assert look()[0] == 5


def test_folders_of_folders_and_folders_in_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("m"), 10.0, 30.0, runs="lab/a")
    inner = write_run(make_cell("n"), 20.0, 40.0, runs="lab/b/c")
    write_run(make_cell("hidden"), 1.0, 2.0, runs="lab/.old")
    write_run(make_cell("snapshot"), 1.0, 2.0, runs=str(inner / "code"))
    code, _, err = run(capsys, "lab", "lab/a", inner)
    assert code == 0 and "found 2, expected 2" in err
    code, _, err = run(capsys, inner)
    assert code == 0 and "found 1, expected 1" in err


def test_runs_and_logs_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_cell("mine"), 10.0, 30.0)
    Path("logs").mkdir()
    Path("logs/s_ssv2-10shot_log.txt").write_text('{"test_acc1": 15.1, "test_acc5": 37.5, "epoch": 0}\n')
    code, out, err = run(capsys, "--logs", "logs")
    rows = rows_of("tables/fewshot.csv")
    assert code == 0 and "found 2, expected 2" in err and "tables/logs.csv" in out and "tables/results.csv" in out
    assert rows["mine", "runs"]["ssv2-10shot top1_pct"] == "10.000" and rows["s", "logs"]["ssv2-10shot top1_pct"] == "15.100"
    assert "**10.00 (1)**" in Path("tables/fewshot.md").read_text() and "**15.100**" in Path("tables/fewshot.md").read_text()
    assert "Selection of s: best epoch on the validation set" in err and "Selection of mine: last step" in err


def test_explain_lists_the_runs_behind_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    first = write_run(make_cell("m", seed=0), 10.0, 30.0, dirty=True)
    second = write_run(make_cell("m", seed=1))
    write_run(make_cell("other"), 10.0, 30.0)
    code, out, _ = run(capsys, "--explain", "m")
    assert code == 0 and not Path("tables").exists()
    ran = "step 540, commit 0123456 with uncommitted changes"
    assert out.splitlines() == [
        f"m ssv2-10shot seed 0: top-1 10.000 [10.000, 12.000], top-5 30.000 [30.000, 32.500] on 24777 clips; {ran}; {first}",
        f"m ssv2-10shot seed 1: missing: no result yet, submitted as job 7_1; {second}"]
    _, out, _ = run(capsys, "--explain", "m", "--json")
    assert [(line["run"], line["seed"], line["top1_pct"]) for line in map(json.loads, out.splitlines())] == [
        (str(first), 0, 10.0), (str(second), 1, None)]
    code, _, err = run(capsys, "--explain", "nobody")
    assert code == 2 and "no row 'nobody'; there are: m, other (--explain)" in err


def test_nothing_to_collect(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert (code, out) == (2, "") and err == ("error: there is no folder runs here; name the folders that hold run folders, or logs with --logs\n")
    Path("runs").mkdir()
    code, _, err = run(capsys)
    assert code == 2 and "no few-shot run below runs; start some (python sweeps/fewshot.py), or name other folders" in err
    code, _, err = run(capsys, "nowhere")
    assert code == 2 and "nowhere is not a folder" in err and not Path("tables").exists()


CLASSES = ["Opening [something]", "Closing [something]", "a", "b", "c", "d"]


def write_subset(*classes: str) -> Path:
    path = Path("classes.yaml")
    path.write_text(json.dumps({"name": "few", "data": "toys", "why": "a test", "classes": dict.fromkeys(classes, "seen")}))
    return path


def write_predicted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A run with predictions of 60 clips; probabilities and labels."""
    draw = np.random.default_rng(seed)
    prob = draw.dirichlet(np.ones(6), 60)
    label = np.random.default_rng(9).integers(0, 6, 60)  # one validation set
    folder = write_run(make_cell("m", "toys", seed=seed), 50.0, 90.0)
    from_probabilities(prob, label, np.arange(60), CLASSES).write(folder / "predictions.npz")
    return prob, label


def test_accuracy_on_some_classes(capsys: pytest.CaptureFixture[str]) -> None:
    predicted = [write_predicted(seed) for seed in range(3)]
    write_run(make_cell("m", "ssv2"), 10.0, 30.0)
    code, out, err = run(capsys, "--subset", write_subset(*CLASSES[:2]))
    assert code == 0 and {"tables/fewshot-few.csv", "tables/results-few.csv", "tables/gap-few.csv"} <= set(out.split())
    row = rows_of("tables/fewshot-few.csv")["m", "runs"]
    for k, metric in ((1, "top1"), (5, "top5")):
        hits = [np.mean([true in np.argsort(-p)[:k] for p, true in zip(prob, label, strict=True) if true < 2]) for prob, label in predicted]
        assert float(row[f"toys-10shot {metric}_pct"]) == pytest.approx(100 * np.mean(hits), abs=6e-4)
    assert "left out: 1 runs on other data sets than toys (--classes)" in err
    assert not any("ssv2" in key for key in row) and "Only clips of 2 classes, guessed among all: a test." in err
    assert rows_of("tables/fewshot-few.csv")["chance", "1/classes"]["toys-10shot top1_pct"] == "16.667"


def test_a_result_as_a_cell_itself_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(4)
    for seed in (0, 1):
        predictions = from_probabilities(draw.dirichlet(np.ones(6), 60), np.arange(60) % 6, np.arange(60), CLASSES)
        folder = RunFolder(Path(f"runs/cell{seed}"))
        folder.path.mkdir(parents=True)
        config = FinetuneConfig(seed=seed, method="knn", train=FinetuneTrainConfig(init_name="mine", init_content="12" * 8))
        write_cell_result(folder, config, predictions, Learned(12, None, None, 0.5, 0.25, 1))
    code, *_ = run(capsys)
    assert code == 0 and rows_of("tables/fewshot.csv")["mine", "runs"]["ssv2-10shot top1_n"] == "2"
    listed = list(csv.DictReader(Path("tables/results.csv").read_text().splitlines()))
    assert [(line["method"], line["selected_step"], line["clips"], line["train_clips"]) for line in listed] == [("knn", "--", "60", "12")] * 2


def test_a_subset_that_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    write_predicted(0)
    code, _, err = run(capsys, "--subset", write_subset("Opening something", "a"))
    assert code == 3 and "subset few: 1 of 2 classes are not among the 6 of the predictions: 'Opening something' (did you mean" in err
    Path("runs/m-toys-10shot-seed0-finetune-00000000/predictions.npz").unlink()
    code, _, err = run(capsys, "--classes", write_subset("a"))
    assert code == 3 and "predictions.npz cannot be read: No such file" in err
    code, _, err = run(capsys, "--classes", write_subset("a"), "--logs", ".")
    assert code == 2 and "leave out --logs" in err
    for text in ("classes: [a]", "{", "name: few\ndata: toys\nwhy: x\nclasses: {a: 1}"):
        Path("classes.yaml").write_text(text)
        code, _, err = run(capsys, "--classes", "classes.yaml")
        assert code == 2 and "classes.yaml" in err and "--classes" in err
    code, _, err = run(capsys, "--classes", "ssv2_developmental")
    assert code == 2 and "no few-shot run on ssv2 (--classes) below runs" in err


def test_the_shipped_classes_are_classes_of_something_something() -> None:
    known = [line for line in (ROOT / "tests/vidmae/labels/ssv2_classes.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(known) == len(set(known)) == 174 and known == sorted(known)
    subset = read_subset(Path("ssv2_developmental"))
    assert set(subset.classes) < set(known) and 40 <= len(subset.classes) <= 70 and "our own choice" in subset.why
    assert f"{len(subset.classes)} classes" in subset.why and all(len(reason) > 10 for reason in subset.classes.values())


def test_a_folder_whose_name_is_not_utf_8(capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.fsdecode(b"runs\xff\xfe")
    write_run(make_cell("m"), 10.0, 30.0, runs=folder)
    failed = write_run(make_cell("m", seed=1), runs=folder)
    (failed / "result.json").write_text("{")
    done = subprocess.run([sys.executable, str(ROOT / "analysis/collect.py"), folder], capture_output=True)
    assert done.returncode == 3 and b"failed: runs\\udcff\\udcfe" in done.stderr.replace(b"runs\xff\xfe", b"runs\\udcff\\udcfe"), done.stderr
    assert r"runs\udcff\udcfe/m-ssv2" in Path("tables/results.csv").read_text()


def test_rows_that_would_be_called_alike_stay_two(capsys: pytest.CaptureFixture[str]) -> None:
    for number, top1 in ((1, 10.0), (2, 20.0)):
        write_run(make_cell("m") | {"checkpoint_content": f"aaaaaaaa{number:08d}"}, top1, 30.0, sign=f"{number:08d}")
    code, _, err = run(capsys)
    assert code == 0 and "found 2, expected 2, missing 0, failed 0, damaged 0, skipped 0, superseded 0" in err
    rows = {model: row["ssv2-10shot top1_pct"] for (model, source), row in rows_of("tables/fewshot.csv").items() if source == "runs"}
    assert rows == {"m aaaaaaaa": "10.000", "m aaaaaaaa (2)": "20.000"}
