"""Tables from logs of mae_st: small logs with every oddity of the real ones, against values worked out by hand."""

from __future__ import annotations

import csv
import json
import random
import re
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import collect
from analysis.results.mae_st_logs import Best, LogResult, NoAccuracyError, Task, parse_name, read_log
from analysis.results.published import read_published
from analysis.tables.result_table import result_sheet
from analysis.tables.sheet import Sheet, to_csv, to_latex, to_markdown

Epoch = dict[str, Any]
PRETRAINING = [{"train_lr": 1e-4, "train_mask_ratio": 0.9, "train_loss": 0.9 - epoch / 10, "epoch": epoch} for epoch in range(3)]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No runs/ in the current folder."""
    monkeypatch.chdir(tmp_path)


def epoch(number: int | None, top1: Any, top5: Any, **more: Any) -> Epoch:
    line = {"train_lr": 1.5e-4, "train_loss": 5.1, "test_loss": 5.0, "test_acc1": top1, "test_acc5": top5}
    return line | ({} if number is None else {"epoch": number}) | more


def write_log(path: Path, epochs: list[Epoch], tail: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in epochs) + tail)
    return path


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = collect.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def rows_of(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="") as lines:
        return {(row["model"], row["source"]): row for row in csv.DictReader(lines)}


@pytest.mark.parametrize(("name", "model", "task"), [
    ("s_0.001_ssv2-10shot_log.txt", "s_0.001", Task("ssv2", "-10shot", 10)),
    ("kinetics_kinetics-50shot_log.txt", "kinetics", Task("kinetics", "-50shot", 50)),
    ("kinetics-200h_221ep_kinetics-10shot_log.txt", "kinetics-200h_221ep", Task("kinetics", "-10shot", 10)),
    ("mine_448_ssv2-all-reg_log.txt", "mine_448", Task("ssv2", "-all-reg", None)),
    ("ours_ucf101-5shot_log.txt", "ours", Task("ucf101", "-5shot", 5)),
    ("s_imagenet_log.txt", "s", Task("imagenet", "", None)),
    ("mine_448_imagenet_0.02_log.txt", "mine_448", Task("imagenet", "_0.02", None)),
    ("s_vith14_imagenet_0.01_0.010147_log.txt", "s_vith14", Task("imagenet", "_0.010147", None)),
])
def test_model_and_task_of_a_file_name(name: str, model: str, task: Task) -> None:
    assert parse_name(name) == (model, task)


@pytest.mark.parametrize("name", ["s_vith14_224_8_1_16_pixloss_m09_log.txt", "ssv2-10shot_log.txt", "s_ssv2-10shot.txt", "_log.txt"])
def test_a_name_without_a_task(name: str) -> None:
    assert parse_name(name) is None


def test_epochs_that_restart_best_values_at_different_epochs_and_keys_that_go_away(tmp_path: Path) -> None:
    first = [epoch(0, 1.0, 9.0, n_parameters=7), epoch(1, 30.5, 55.0, n_parameters=7), epoch(2, 12.0, 61.25, n_parameters=7)]
    path = write_log(tmp_path / "s_ssv2-50shot_log.txt", [*first, epoch(0, 2.0, 8.0), epoch(3, 30.5, 60.0)])
    log = read_log(path)
    assert log == LogResult(path, "s", Task("ssv2", "-50shot", 50), 5, 0, 3, 1, Best(30.5, 1), Best(61.25, 2), ())
    assert log.notes == ("epochs restart 1 x within the log: best over all 5 lines",)


def test_a_log_that_begins_at_epoch_31(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "s_imagenet_0.02_log.txt", [epoch(31, 50.0, 75.0), epoch(32, 49.0, 76.5)]))
    assert (log.first_epoch, log.last_epoch, log.top1, log.top5) == (31, 32, Best(50.0, 31), Best(76.5, 32))
    assert log.notes == ("begins at epoch 31",) and not log.problems


def test_a_log_without_epochs_counts_lines(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "s_imagenet_log.txt", [epoch(None, 4.0, 9.0), epoch(None, 5.0, 8.0)]))
    assert (log.first_epoch, log.last_epoch, log.resets, log.top1, log.top5) == (None, None, 0, Best(5.0, 1), Best(9.0, 0))
    assert log.notes == ("has no epochs: its lines are counted from 0",)


def test_what_is_damaged_is_left_out_and_said(tmp_path: Path) -> None:
    log = read_log(write_log(tmp_path / "s_ssv2-10shot_log.txt", [
        epoch(0, 3.0, 7.0), epoch(1, float("nan"), 99.0), epoch(2, 120.0, float("inf")), epoch(3, "9", True), {"epoch": 4, "test_acc1": 5.0},
    ], tail='{"train_lr": 1.5e-4, "test_acc1": 88.0, "te'))
    assert (log.top1, log.top5, log.lines, log.last_epoch, log.failed) == (Best(5.0, 4), Best(99.0, 1), 6, 4, False)
    assert log.problems == (
        "the last line is cut off (line 6)",
        "test_acc1 is not a number from 0 to 100 (line 2: nan, line 3: 120.0, line 4: 9)",
        "test_acc5 is not a number from 0 to 100 (line 3: inf, line 4: True)",
        "no test_acc5 (line 5)")


@pytest.mark.parametrize(("content", "why"), [
    (b"", "is empty"),
    (b"\n\n", "is empty"),
    (b'{"test_acc1": 5.0, "test_acc5": 9.0, "epo', "the last line is cut off (line 1)"),
    (b'{"test_acc1": NaN, "test_acc5": NaN, "epoch": 0}\n' * 5, "test_acc1 is not a number from 0 to 100 (line 1: nan, line 2: nan, line 3: nan and 2 more)"),
    (b'{"train_loss": 1.0, "epoch": 0}\n', "no line has an accuracy (test_acc1, test_acc5)"),
    (b"\x80\x04\x95", "is not text"),
    (b"epoch,acc\n0,5.0\n", "not a JSON object (line 1, line 2)"),
])
def test_a_log_without_a_value_has_failed(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "s_ssv2-10shot_log.txt"
    path.write_bytes(content)
    log = read_log(path)
    assert log.failed and why in log.problems


def test_other_logs_and_files_raise_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(NoAccuracyError, match="no accuracy in its 3 lines, as in logs of pretraining"):
        read_log(write_log(tmp_path / "s_vith14_pixloss_log.txt", PRETRAINING))
    with pytest.raises(NoAccuracyError):
        read_log(write_log(tmp_path / "image_log.txt", [{"train_loss": 0.5, "train_lr": 1e-4, "it": 10}]))
    with pytest.raises(ValueError, match=re.escape("does not say model and task: expected {model}_{task}_log.txt")):
        read_log(write_log(tmp_path / "result_log.txt", [epoch(0, 1.0, 2.0)]))
    with pytest.raises(ValueError, match="line 1 is not a JSON object: not a log"):
        read_log(write_log(tmp_path / "changes_log.txt", [], tail="Fixed a bug\n"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two generations in their folders by task and by model, a gap, and everything that is no result."""
    logs = tmp_path / "logs"
    write_log(logs / "old/ssv2-10shot/s_250ep_ssv2-10shot_log.txt", [epoch(0, 9.0, 20.0), epoch(1, 8.0, 25.5)])
    write_log(logs / "old/mine_448/mine_448_ssv2-10shot_log.txt", [epoch(0, 16.125, 40.0)])
    write_log(logs / "old/mine_448/mine_448_kinetics-50shot_log.txt", [epoch(0, 35.0, 61.0)])
    write_log(logs / "new/mine_448_ssv2-10shot_log.txt", [epoch(0, 16.125, 41.0)])
    write_log(logs / "new/mine_448_kinetics-50shot_log.txt", [epoch(0, float("nan"), float("nan"))])
    write_log(logs / "imagenet/new/kinetics_imagenet_0.02_log.txt", [epoch(31, 50.0, 76.0), epoch(32, 51.0, 75.0)], tail='{"tr')
    write_log(logs / "pretrain/s_vith14_log.txt", PRETRAINING)
    write_log(logs / "odd_log.txt", [epoch(0, 1.0, 2.0)])
    (logs / "notes.txt").write_text("bring milk\n")
    (logs / "private.mp4").write_bytes(b"0")
    return logs


def test_tables_of_a_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--logs", folder, "--out", tmp_path / "made/tables")
    assert code == 3
    names = ["fewshot.csv", "fewshot.md", "fewshot.tex", "imagenet.csv", "imagenet.md", "imagenet.tex", "logs.csv", "tidy.csv"]
    assert out.splitlines() == [str(tmp_path / "made/tables" / name) for name in names]
    assert stat.S_IMODE((tmp_path / "made/tables").stat().st_mode) == stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "made/tables").iterdir()) == sorted(names)

    fewshot = rows_of(tmp_path / "made/tables/fewshot.csv")
    keys = [f"{task} {metric}" for task in ("ssv2-10shot", "kinetics-50shot") for metric in ("top1_pct", "top5_pct")]
    assert {key: [row[name] for name in keys] for key, row in fewshot.items()} == {
        ("old/s_250ep", "logs"): ["9.000", "25.500", "--", "--"],
        ("old/s_250ep", "published v1"): ["9.391", "25.161", "19.243", "34.926"],
        ("old/mine_448", "logs"): ["16.125", "40.000", "35.000", "61.000"],
        ("new/mine_448", "logs"): ["16.125", "41.000", "--", "--"],
        ("chance", "1/classes"): ["0.575", "2.874", "0.143", "0.714"],  # 1 and 5 of 174, of 700
    }
    assert all("best epoch on the validation set" in row["selection"] for key, row in fewshot.items() if key[1] == "logs")
    imagenet = rows_of(tmp_path / "made/tables/imagenet.csv")
    assert imagenet["new/kinetics", "logs"]["imagenet_0.02 top1_pct"] == "51.000"
    assert imagenet["chance", "1/classes"]["imagenet_0.02 top5_pct"] == "0.500"

    for line in ("found 5, expected 7, missing 1, failed 2, damaged 1, skipped 2, superseded 0", "missing: old/s_250ep: kinetics-50shot",
                 f"failed: {folder}/new/mine_448_kinetics-50shot_log.txt: test_acc1 is not a number from 0 to 100 (line 1: nan)",
                 f"damaged: {folder}/imagenet/new/kinetics_imagenet_0.02_log.txt: the last line is cut off (line 3)",
                 f"failed: {folder}/odd_log.txt: its name does not say model and task",
                 f"skipped: {folder}/pretrain/s_vith14_log.txt: no accuracy in its 3 lines",
                 f"skipped: {folder}/notes.txt: not named *_log.txt", "skipped: files of other kinds: 1 .mp4"):
        assert f"\n{line}" in err
    assert re.search(r"old/mine_448 +logs +16\.125 +40\.000 +35\.000 +61\.000 ", err)  # never cut, also in a pipe
    assert "private" not in err


def test_below_each_table_stands_how_its_numbers_came_about(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, err = run(capsys, "--logs", folder, "--out", tmp_path / "t")
    rule = "Selection: best epoch on the validation set, top-1 and top-5 each at its own; no separate test set."
    assert err.count(rule) == 2  # two tables on the console
    for name in ("fewshot", "imagenet"):
        assert f"\n- Accuracy in %. {rule}" in (tmp_path / f"t/{name}.md").read_text()
        assert f"Accuracy in \\%. {rule}" in (tmp_path / f"t/{name}.tex").read_text()
    imagenet = (tmp_path / "t/imagenet.md").read_text()
    assert "- new/kinetics, imagenet_0.02: begins at epoch 31.\n" in imagenet
    assert "- new/kinetics, imagenet_0.02: the last line is cut off (line 3).\n" in imagenet
    assert "- Nothing published under this name: old/mine_448, new/mine_448.\n" in (tmp_path / "t/fewshot.md").read_text()


def test_a_complete_folder_ends_with_0_and_json_holds_every_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw, expected = random.Random(3), {}
    for model in ("a_0.1", "b"):
        for task in ("ssv2-10shot", "kinetics-10shot", "zoo-2shot"):
            log = [epoch(number, draw.uniform(0, 50), draw.uniform(50, 100)) for number in range(draw.randint(1, 30))]
            write_log(tmp_path / f"logs/{model}_{task}_log.txt", log)
            ranked = [sorted((-line[key], line["epoch"]) for line in log)[0] for key in ("test_acc1", "test_acc5")]
            expected[model, task] = [len(log), -ranked[0][0], ranked[0][1], -ranked[1][0], ranked[1][1]]
    code, out, err = run(capsys, "--logs", tmp_path / "logs", "--out", tmp_path / "t", "--json")
    said = json.loads(out)
    assert code == 0 and (said["found"], said["expected"], said["missing"], said["failed"]) == (6, 6, 0, 0)
    assert {(log["model"], log["task"]): [log[key] for key in ("lines", "top1_pct", "top1_epoch", "top5_pct", "top5_epoch")]
            for log in said["logs"]} == expected
    assert "Number of classes unknown, hence no chance level: zoo." in err
    assert rows_of(tmp_path / "t/fewshot.csv")["chance", "1/classes"]["zoo-2shot top1_pct"] == "--"


def test_logs_that_would_meet_in_a_cell_get_rows_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, top1 in (("lab/a/ssv2-10shot", 1.0), ("lab/b/ssv2-10shot", 2.0), ("lab/b/m", 3.0), ("old", 4.0), ("new", 5.0)):
        write_log(tmp_path / f"logs/{place}/m_ssv2-10shot_log.txt", [epoch(0, top1, 9.0)])
    run(capsys, "--logs", tmp_path / "logs", "--out", tmp_path / "t")
    found = {key[0]: row["ssv2-10shot top1_pct"] for key, row in rows_of(tmp_path / "t/fewshot.csv").items() if key[1] == "logs"}
    assert found == {"old/m": "4.000", "new/m": "5.000", "lab/a/m": "1.000", "lab/b/ssv2-10shot/m_ssv2-10shot_log.txt": "2.000",
                     "lab/b/m/m_ssv2-10shot_log.txt": "3.000"}


def test_every_family_of_released_logs_finds_its_row_and_its_published_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(5)
    for version in read_published():
        for tasks in version.models.values():
            for top1, top5, source in tasks.values():  # the best values anywhere among lower ones, at different epochs
                log = [epoch(number, top1 * draw.random(), top5 * draw.random()) for number in range(draw.randint(2, 9))]
                first, second = draw.sample(range(len(log)), 2)
                log[first]["test_acc1"], log[second]["test_acc5"] = top1 + 4e-4, top5 - 4e-4
                write_log(tmp_path / "logs" / source.split(":")[1], log)
    code, out, _ = run(capsys, "--logs", tmp_path / "logs", "--out", tmp_path / "t", "--json")
    said = json.loads(out)
    assert code == 3 and (said["found"], said["failed"], said["damaged"], said["skipped"]) == (99, 0, 0, 0)
    assert said["expected"] == 99 + said["missing"]
    compared = 0
    for name in ("fewshot", "full", "imagenet"):
        rows = rows_of(tmp_path / f"t/{name}.csv")
        for model in {model for model, source in rows if source == "logs"}:
            published = [row for (of, source), row in rows.items() if of == model and source.startswith("published")]
            for key, value in rows[model, "logs"].items():
                if "_pct" in key and value != "--":
                    assert any(row[key] == value for row in published), (model, key)
                    compared += 1
    assert compared == 2 * 99


def test_explain_lists_the_logs_behind_a_row(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "t"
    code, listed, _ = run(capsys, "--logs", folder, "--out", out, "--explain", "old/s_250ep")
    assert code == 0 and not out.exists()
    assert listed == ("old/s_250ep ssv2-10shot: top-1 9.000 at epoch 0, top-5 25.500 at epoch 1; 2 lines, epochs 0 to 1; "
                      f"{folder}/old/ssv2-10shot/s_250ep_ssv2-10shot_log.txt\n")
    _, listed, _ = run(capsys, "--logs", folder, "--explain", "mine_448", "--json")
    assert sorted((log["row"], log["task"], log["status"]) for log in map(json.loads, listed.splitlines())) == [
        ("new/mine_448", "kinetics-50shot", "failed"), ("new/mine_448", "ssv2-10shot", "found"),
        ("old/mine_448", "kinetics-50shot", "found"), ("old/mine_448", "ssv2-10shot", "found")]
    code, _, err = run(capsys, "--logs", folder, "--explain", "nobody")
    assert code == 2 and "no row 'nobody'; there are: old/s_250ep, old/mine_448, new/kinetics, new/mine_448 (--explain)" in err


def test_nothing_to_read_and_no_place_to_write(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--logs", tmp_path / "nowhere") == (2, "", f"error: {tmp_path}/nowhere is not a folder (--logs)\n")
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "--logs", tmp_path / "empty")
    assert code == 2 and "no logs below" in err and "*_log.txt" in err
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, "--logs", folder, "--out", tmp_path / "file")
    assert code == 2 and str(tmp_path / "file") in err


def test_no_folder_that_was_named_is_passed_over(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "--runs-dir", "rnus", "--logs", folder)
    assert (code, out, err) == (2, "", "error: --runs-dir rnus is not a folder\n")
    code, _, err = run(capsys, tmp_path, "--runs-dir", "runs")
    assert code == 2 and f"--runs-dir runs and folders ({tmp_path}) are both given" in err and not Path("tables").exists()


def test_a_log_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_log(tmp_path / "logs/m_ssv2-10shot_log.txt", [epoch(0, 1.0, 2.0)])
    (tmp_path / "logs/s_ssv2-10shot_log.txt").symlink_to(tmp_path / "gone")
    code, _, err = run(capsys, "--logs", tmp_path / "logs", "--out", tmp_path / "t")
    assert code == 3 and f"failed: {tmp_path}/logs/s_ssv2-10shot_log.txt: cannot be read: No such file or directory" in err
    fewshot = rows_of(tmp_path / "t/fewshot.csv")
    assert fewshot["s", "logs"]["ssv2-10shot top1_pct"] == "--" and fewshot["m", "logs"]["ssv2-10shot top1_pct"] == "1.000"


def small_table(*rows: tuple[str, str, float | None, float | None, str | None]) -> Sheet:
    numbers = [{"place": place, "below": 0, "row": row, "source": source, "selection": selection, "task": "x-1shot",
                "metric": metric, "pct": pct, "lower_pct": None, "upper_pct": None, "n": None}
               for place, (row, source, top1, top5, selection) in enumerate(rows) for metric, pct in (("top1", top1), ("top5", top5))]
    return result_sheet("t", "A & B_1: 50 %", ["x-1shot"], pd.DataFrame(numbers), ["note #1 {a} ~ ^ $ \\"])


def test_the_best_of_each_column_is_bold_and_published_numbers_do_not_compete() -> None:
    table = small_table(("a", "logs", 5.0001, 8.0, "rule"), ("b", "logs", 5.0, 9.0, "rule"), ("c", "logs", None, None, "rule"),
                        ("a", "published v1", 7.0, 10.0, None))
    assert [line[2:] for line in table.cells()] == [
        [("5.000", True), ("8.000", False)], [("5.000", True), ("9.000", True)], [("--", False)] * 2, [("7.000", False), ("10.000", False)]]
    markdown, latex = to_markdown(table).splitlines(), to_latex(table).splitlines()
    assert "| b | logs | **5.000** | **9.000** |" in markdown and "| c | logs | -- | -- |" in markdown
    assert r"b & logs & \textbf{5.000} & \textbf{9.000} \\" in latex and r"c & logs & -- & -- \\" in latex
    assert r"a & published v1 & 7.000 & 10.000 \\" in latex
    assert to_csv(table).splitlines()[3:] == ["c,logs,--,--,--,--,--,--,--,--,rule", "a,published v1,7.000,--,--,--,10.000,--,--,--,--"]
    assert table.footer[0] == "Accuracy in %. Selection: rule. Bold: the best of what is not published."


def test_latex_and_markdown_are_escaped() -> None:
    table = small_table(("s_0.1 & 50%|x\n*y*", "logs", 1.0, 2.0, "rule"))
    latex = to_latex(table)
    assert r"\caption{A \& B\_1: 50 \%}" in latex
    assert r"s\_0.1 \& 50\%|x *y* & logs & \textbf{1.000} & \textbf{2.000} \\" in latex.splitlines()
    assert r"note \#1 \{a\} \textasciitilde{} \textasciicircum{} \$ \textbackslash{}" in latex
    assert all(latex.count(rule) == 1 for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\usepackage{booktabs}"))
    assert r"| s_0.1 & 50%\|x \*y\* | logs | **1.000** | **2.000** |" in to_markdown(table).splitlines()


def test_published_numbers_have_their_sources() -> None:
    versions = {version.name: version for version in read_published()}
    entries = [(name, model, task, *value) for name, version in versions.items() for model, tasks in version.models.items()
               for task, value in tasks.items()]
    assert len(entries) == 99 and len({source for *_, source in entries}) == 99
    for name, model, task, top1, top5, source in entries:
        assert 0 < top1 < top5 < 100
        commit, path = source.split(":")
        assert re.fullmatch(r"[0-9a-f]{7}", commit) and ("/old/" in path) == (name == "v1")
        parsed = parse_name(Path(path).name)
        assert parsed is not None and (parsed[0], parsed[1].name) == (model, task)
    assert versions["v1"].models["s_250ep"]["ssv2-50shot"][:2] == [19.956, 42.684]
    assert versions["v3"].models["s"]["ssv2-50shot"][:2] == [31.747, 63.531]
    assert versions["v3"].models["s"]["imagenet_0.02"][:2] == [43.428, 68.96]
    assert versions["image"].models["s_vith14"]["imagenet_0.02"][:2] == [31.662, 56.964]
