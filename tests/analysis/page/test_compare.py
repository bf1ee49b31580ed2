"""Runs beside each other and beside released logs: against numbers that were written down by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from analysis import compare, report
from analysis.page.beside import read, unlike
from analysis.page.charts import Frame, overlay
from analysis.results.loss_curves import PUBLISHED, of_log, of_steps, published, published_names
from vidmae.runs.record import RunFolder, make_private_folder

SECRET = "/data/Anna/S_20130502_0915_01.mp4"


def make_run(folder: Path, losses: list[float], *, mask_ratio: float = 0.9, seed: int = 0) -> RunFolder:
    """A run of two steps an epoch."""
    run = RunFolder(make_private_folder(folder))
    run.record.write_text(json.dumps({"schema": 1, "kind": "pretrain", "data": "s", "commit": "0" * 40, "dirty": False,
                                      "manifest": SECRET, "content_sha256": "ab" * 32, "videos": 11, "submissions": []}))
    run.config.write_text(yaml.safe_dump({
        "name": folder.name, "seed": seed, "model": {"mask_ratio": mask_ratio, "norm_pix_loss": False},
        "data": {"name": "s", "manifest": SECRET}, "train": {"init": SECRET if seed else ""}}))
    rest = {"lr": 1e-4, "clips_per_s": 8.0, "data_wait": 0.1}
    steps = [{"step": n, "epoch": n / 2, "loss": loss, **rest} for n, loss in enumerate(losses, 1)]
    run.metrics.write_text("".join(json.dumps(step) + "\n" for step in steps))
    return run


def log_of(path: Path, *epochs_and_losses: tuple[int, float]) -> Path:
    lines = [{"train_mask_ratio": 0.9000000000000038, "train_loss": loss, "epoch": epoch} for epoch, loss in epochs_and_losses]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_losses_settings_and_results_of_two_runs_and_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs" / "s-one", [1.0, 0.8, 0.6, 0.4])
    make_run(tmp_path / "runs" / "s-two", [2.0, 1.6, float("nan"), 0.9], mask_ratio=0.75, seed=3)
    log = log_of(tmp_path / "s_log.txt", (0, 1.8), (1, 0.25))
    out = tmp_path / "tables"
    assert compare.main(["s-one", "s-two", str(log), "--runs-dir", str(tmp_path / "runs"), "--out", str(out)]) == 0
    shown, said = capsys.readouterr()
    assert len(shown.splitlines()) == 11 and all(Path(line).is_file() for line in shown.splitlines())
    losses = pd.read_csv(out / "compare-losses.csv")
    assert losses.to_dict("list") == {"epoch": [1, 2], "A": [pytest.approx(0.9), 0.5], "B": [1.8, 0.9], "C": [1.8, 0.25],
                                      "B / A": [pytest.approx(2), 1.8], "C / A": [pytest.approx(2), 0.5]}
    assert "These losses are not of one measure: model.mask_ratio is 0.9 for A, 0.75 for B, 0.9 for C." in said
    settings = pd.read_csv(out / "compare-settings.csv", keep_default_na=False).set_index("setting")
    assert settings.loc["model.mask_ratio"].tolist() == ["0.9", "0.75"] and settings.loc["seed"].tolist() == ["0", "3"]
    assert set(settings.index) == {"seed", "model.mask_ratio", "train.init"}
    results = pd.read_csv(out / "compare-results.csv").set_index("number")
    assert results.loc["loss, mean of the last 5 % of the steps"].tolist() == [0.4, 0.9]
    assert "Anna" not in said + "".join(path.read_text(errors="replace") for path in out.iterdir())


def test_a_log_that_was_started_again_and_one_of_two_phases(tmp_path: Path) -> None:
    again = of_log(log_of(tmp_path / "s_log.txt", (0, 4.0), (1, 3.0), (2, 2.0), (1, 2.9), (2, 1.9), (3, 1.5)))
    assert again.loss.to_dict() == {1: 4.0, 2: 2.9, 3: 1.9, 4: 1.5} and "1 x started again" in again.notes[0]
    phases = of_log(log_of(tmp_path / "s_log.txt", (0, 4.0), (1, 3.0), (0, 2.0), (1, 1.0)))
    assert phases.loss.to_dict() == {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0} and "2 phases" in phases.notes[0]
    late = log_of(tmp_path / "s_log.txt", (31, 2.0))
    late.write_text(late.read_text() + '{"train_loss": 1.0, "epo')
    assert of_log(late).loss.to_dict() == {32: 2.0} and of_log(late).notes == (
        "1 lines without a loss or an epoch are left out", "begins at epoch 32")


def test_the_mean_of_an_epoch_is_that_of_its_steps() -> None:
    epoch, loss = np.arange(1, 31) / 8, np.random.default_rng(0).random(30)
    curve = of_steps("s", epoch, loss, {"model.mask_ratio": 0.9, "seed": 1})
    assert curve.loss.to_dict() == pytest.approx({1: loss[:8].mean(), 2: loss[8:16].mean(), 3: loss[16:24].mean(), 4: loss[24:].mean()})
    assert curve.measure == {"model.mask_ratio": 0.9, "model.mask": "random", "model.target": "pixels", "model.feature_loss": "l1"}


def test_published_losses_say_where_they_are_from() -> None:
    text = PUBLISHED.read_text()
    assert "github.com/eminorhan/mae_st" in text and set(published_names()) == {"s", "s_0.1", "say", "kinetics"}
    for name in published_names():
        curve = published(name)
        assert curve.loss.is_monotonic_decreasing and curve.loss.between(0.1, 1.5).all() and "released log" in curve.notes[0]


@pytest.mark.parametrize(("words", "message"), [
    (["s-one", "nothing"], ("no run 'nothing' in {runs}, which has 2 (--runs-dir names another folder); nor is it a log or a "
                            "published run (kinetics, s, s_0.1, say)")),
    (["s_0.1", "s-one"], "s_0.1 is no run of yours; the first one must be, and the others are compared with it"),
    (["s-one", "{log}"], "{log} has no line with train_loss and epoch: it is no log of pretraining or finetuning"),
])
def test_what_cannot_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    make_run(tmp_path / "runs" / "s-one", [1.0])
    make_run(tmp_path / "runs" / "t-two", [1.0])
    (tmp_path / "log.txt").write_text("hello\n")
    names = {"runs": tmp_path / "runs", "log": tmp_path / "log.txt"}
    given = [*(word.format(**names) for word in words), "--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "t")]
    assert compare.main(given) == 2
    assert capsys.readouterr().err == f"error: {message.format(**names)}\n"


def test_runs_of_another_objective_are_named_beside_published_ones(tmp_path: Path) -> None:
    log = log_of(tmp_path / "s_log.txt", (0, 1.0))
    run = of_steps("s", np.ones(1), np.ones(1), {"model.mask_ratio": 0.9, "model.target": "features", "model.mask": "tube"})
    assert unlike({"A": run, "B": published("s")}) == unlike({"A": run, "B": of_log(log)}) == [
        "These losses are not of one measure: model.mask is tube for A, random for B.",
        "These losses are not of one measure: model.target is features for A, pixels for B."]
    earlier = of_steps("s", np.ones(1), np.ones(1), {"model.mask_ratio": 0.9})
    assert unlike({"A": earlier, "B": published("s")}) == []


def test_a_published_name_is_not_the_start_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "s-one", [1.0])
    assert read("s", tmp_path / "runs").name == "published s" and read("s-o", tmp_path / "runs").name == "s-one"


def test_a_run_without_a_loss_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs" / "s-one", [1.0])
    make_run(tmp_path / "runs" / "t-two", [])
    assert compare.main(["s-one", "t-two", "--runs-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "t"), "--json"]) == 3
    shown, said = capsys.readouterr()
    assert "missing: t-two has no loss yet" in said and json.loads(shown)["losses"] == [{"epoch": 1, "A": 1.0}]


def test_a_page_draws_other_losses_beside_those_of_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs" / "s-one", [1.0, 0.8, 0.6, 0.4])
    log = log_of(tmp_path / "other_log.txt", (0, 1.8), (1, 0.25))
    words = ["s-one", "--beside", str(log), "--beside", "say", "--runs-dir", str(tmp_path / "runs"), "--json"]
    assert report.main(words) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["sections"][2:4] == ["Training", "Losses beside others"]
    page = Path(made["file"]).read_text()
    assert "A: s-one: 0.5 in epoch 2; B: a log: 0.25 in epoch 2; C: published say: 0.1096 in epoch 120." in page
    assert page.count('<path class="line stroke1"') == 2  # the line, and its sign in the legend


def test_lines_lie_where_their_numbers_say() -> None:
    drawn = overlay("Loss", {"a": pd.Series({1: 1.0, 10: 0.5, 100: 0.0})}, "loss")
    places = [tuple(map(float, point.split(","))) for point in drawn.lines[0][1][1:].split("L")]
    middle = (Frame.left + Frame.right) / 2
    assert places == [(Frame.left, Frame.top), (middle, (Frame.top + Frame.bottom) / 2), (Frame.right, Frame.bottom)]
    assert [text for _, text in drawn.x_ticks] == ["1", "10", "100"]
