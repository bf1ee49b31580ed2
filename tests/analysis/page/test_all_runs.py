"""The page of all runs: read without a script by a parser of its own, and used in a real browser."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from analysis import report
from analysis.page.all_runs import BLOCK_BYTES, POINTS, WHOLE_BYTES, row_of, sampled_losses
from tests.support.html import Reader, browse
from vidmae.runs.record import RunFolder, make_private_folder

SECRET = "/data/Anna/S_20130502_0915_01.mp4"
MARKUP = "<img src=x onerror=console.log(1)>"  # without a slash, so it is shown
FAST, SLOW, FAILED, EMPTY = "fast-00000001", "slow-00000002", f"b&{MARKUP}-00000003", "cut-00000004"
ATTEMPT = {"job_id": "7", "restart": 0, "started": 1.79e9, "updated": 1.79e9 + 7200, "useful_s": 5400.0, "saving_s": 1800.0, "last_step": 40}


def write_metrics(run: RunFolder, epochs: np.ndarray, losses: np.ndarray) -> None:
    lines = [json.dumps({"step": n, "epoch": float(epoch), "loss": float(loss), "lr": 1e-4, "filled": "x" * 200})
             for n, (epoch, loss) in enumerate(zip(epochs, losses, strict=True), 1)]
    run.metrics.write_text("\n".join([*lines, '{"step": 9, "los']))


def make_run(folder: Path, losses: list[float], *, mask_ratio: float = 0.9, data: str = "s", **more: Any) -> RunFolder:
    """A run of four steps an epoch on two nodes of four GPUs."""
    run = RunFolder(make_private_folder(folder))
    job = {"state": "submitted", "job_id": "7", "cluster": "slurm", "nodes": 2, "gpus_per_node": 4, "tasks_per_node": 4, "cpus_per_task": 8}
    run.record.write_text(json.dumps({"schema": 1, "kind": "pretrain", "data": data, "commit": "0" * 40, "dirty": False,
                                      "created": "2026-11-01T08:00:00+00:00", "manifest": SECRET, "submissions": [job]}))
    run.config.write_text(yaml.safe_dump({"name": folder.name, "seed": 0, "model": {"name": "mae_vit_huge_patch14", "mask_ratio": mask_ratio},
                                          "data": {"manifest": SECRET}, "train": {"lr": 1e-4}}))
    write_metrics(run, np.arange(1, len(losses) + 1) / 4, np.array(losses))
    for name, record in more.items():
        (run.path / f"{name}.json").write_text(json.dumps(record))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that are done, of which one has a page, one that failed, and folders that are broken in their ways."""
    folder = tmp_path_factory.mktemp("all") / "runs"
    fast = make_run(folder / FAST, [2.0, 1.0, 0.5, 0.25], attempts={"schema": 1, "attempts": [ATTEMPT]},
                    result={"schema": 1, "kind": "pretrain", "steps": 40, "last_loss": 0.25})
    (fast.path / "report.html").touch()
    make_run(folder / SLOW, [4.0, 3.0, 2.0, 1.5, 1.25, 1.0, 0.75, 0.5], mask_ratio=0.75, result={"schema": 1, "steps": 8})
    make_run(folder / FAILED, [9.0], data=MARKUP, failure={"error": "OSError", "message": f"{SECRET} is gone"})
    make_run(folder / "torn-00000005", [3.0]).record.write_text('{"schema": 1, "kind"')
    make_private_folder(folder / EMPTY / "submit" / "7")
    (make_private_folder(folder / "array-00000006") / "run.json").write_text("[1, 2]")
    make_private_folder(folder / "arrays" / "20261124T101701-fewshot")
    (folder / "notes-00000007").write_text("no folder")
    return folder


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    assert report.main(["--all", "--runs-dir", str(runs)]) == 0
    return runs / "index.html"


def test_without_a_script_the_table_says_what_the_records_say(page: Path) -> None:
    read = Reader(page.read_text())
    caption, = read.tables
    rows = {row["run"] or FAST: row for row in read.records(caption)}  # the name of one is a link, whose text is not read
    assert caption.startswith("6 runs.") and set(rows) == {FAST, SLOW, FAILED, EMPTY, "torn-00000005", "array-00000006"}
    fast = rows[FAST]
    assert {name: fast[name] for name in ("state", "data", "model", "steps", "loss", "GPU-hours", "core-hours", "goodput, %", "begun", "note")} == {
        "state": "done", "data": "s", "model": "mae_vit_huge_patch14", "steps": "40", "loss": "0.25", "GPU-hours": "16", "core-hours": "128",
        "goodput, %": "75", "begun": "2026-09-21 14:13", "note": ""}
    assert [attrs["href"] for tag, attrs in read.tags if tag == "a"] == [f"{FAST}/report.html"]
    assert rows[FAILED]["state"] == "failed" and rows[FAILED]["note"] == "OSError: (not shown: it may name a file)" and rows[FAILED]["data"] == MARKUP
    assert (rows[EMPTY]["state"], rows[EMPTY]["loss"]) == ("damaged", "--") and "neither run.json nor config.yaml" in rows[EMPTY]["note"]
    assert rows["torn-00000005"]["state"] == "unfinished" and rows["torn-00000005"]["note"].startswith("run.json cannot be read (ValueError)")
    assert "run.json cannot be read" in rows["array-00000006"]["note"]
    assert page.stat().st_mode & 0o777 == 0o600
    assert not re.search(r"Anna|S_2013|\.mp4|/data/|<img", page.read_text())
    assert {"link", "iframe", "img"}.isdisjoint(tag for tag, _ in read.tags)


def test_of_a_long_curve_a_sample_is_read_and_of_a_short_one_all(tmp_path: Path) -> None:
    run, steps = RunFolder(tmp_path), np.arange(1, 20_001)
    losses = 1 / np.sqrt(steps)
    write_metrics(run, steps / 100, losses)
    assert run.metrics.stat().st_size > 10 * WHOLE_BYTES
    epoch, loss = sampled_losses(run.metrics)
    assert len(epoch) == POINTS and epoch[0] < 1 and epoch[-1] > 199
    assert np.ptp(np.diff(epoch)) < 0.3, "the places are evenly spread"
    half = BLOCK_BYTES / 200 / 2  # steps: lines have 260 to 290 bytes
    for at, value in zip(epoch, loss, strict=True):
        near = losses[(steps >= 100 * at - half) & (steps <= 100 * at + half)]
        assert near.min() <= value <= near.max()
    write_metrics(run, steps[:200] / 100, losses[:200])
    epoch, loss = sampled_losses(run.metrics)
    assert len(epoch) == POINTS and np.average(loss, weights=np.diff(np.linspace(0, 200, POINTS + 1).astype(int))) == pytest.approx(losses[:200].mean())
    write_metrics(run, np.array([0.5, 1.0, 1.5]), np.array([3.0, np.nan, 1.0]))
    assert [part.tolist() for part in sampled_losses(run.metrics)] == [[0.5, 1.5], [3.0, 1.0]]
    run.metrics.write_bytes(b"\xff\x00" * 300_000)
    assert not len(sampled_losses(run.metrics)[0]) and not len(sampled_losses(tmp_path / "none")[0])


USE = """
const d = document.getElementById('page').contentDocument, said = {}, all = (what) => Array.from(d.querySelectorAll(what));
const names = () => all('#runs tbody tr').filter((row) => !row.hidden).map((row) => row.cells[1].textContent);
const head = (name) => all('#runs thead th').find((each) => each.textContent === name);
const change = (id, value, event) => { d.getElementById(id).value = value; d.getElementById(id).dispatchEvent(new Event(event)); };
const tick = (name) => {
  const box = all('#runs tbody tr').find((row) => row.cells[1].textContent === name).querySelector('input');
  box.checked = true; box.dispatchEvent(new Event('change', {bubbles: true}));
};
head('loss').querySelector('button').click(); said.up = names();
head('loss').querySelector('button').click(); said.down = names(); said.sorted = head('loss').getAttribute('aria-sort');
change('words', 'mae_vit SLOW', 'input'); said.found = names(); said.count = d.getElementById('count').textContent;
change('words', '', 'input'); change('state', 'damaged', 'change'); said.damaged = names(); change('state', '', 'change');
tick('%(fast)s'); said.alone = d.getElementById('beside').hidden;
tick('%(slow)s'); said.beside = d.getElementById('beside').hidden;
said.legend = all('#legend li').map((item) => item.textContent);
said.facts = all('#facts tr').map((row) => Array.from(row.cells).map((cell) => cell.textContent));
said.lines = all('#curves path[data-run]').map((path) => [path.dataset.run, path.getAttribute('d')]);
said.ticks = all('#curves text').map((text) => [text.getAttribute('x'), text.getAttribute('y'), text.textContent]);
said.injected = all('img').length; said.width = d.documentElement.scrollWidth;
d.getElementById('clear').click(); said.cleared = d.getElementById('beside').hidden;
document.getElementById('told').textContent = JSON.stringify(said);
"""


def test_a_browser_sorts_filters_and_lays_runs_beside_each_other(page: Path, tmp_path: Path) -> None:
    script = USE % {"fast": FAST, "slow": SLOW}
    (tmp_path / "use.html").write_text(f"<!DOCTYPE html><iframe id=page src='{page.as_uri()}' width=390 height=800 style='border: 0'></iframe>"
                                       f"<pre id=told></pre><script>window.onload = () => {{ {script} }}</script>")
    dom, console, asked = browse(tmp_path / "use.html", tmp_path, "--dump-dom", "--allow-file-access-from-files")
    assert (console, asked) == ("", [])
    told = re.search(r"<pre id=\"told\">(.*?)</pre>", dom, re.DOTALL)
    assert told
    said = json.loads(html.unescape(told[1]))
    order = [FAST, SLOW, "torn-00000005", FAILED]
    assert said["up"][:4] == order and said["down"][:4] == order[::-1] and said["sorted"] == "descending", "no number stays last"
    assert said["found"] == [SLOW] and said["count"] == "1 of 6 runs" and said["damaged"] == [EMPTY]
    assert (said["alone"], said["beside"], said["cleared"], said["injected"], said["width"]) == (True, False, True, 0, 390)
    letters = {text.partition(": ")[2]: text.partition(": ")[0] for text in said["legend"]}
    assert set(letters) == {FAST, SLOW} and set(letters.values()) == {"A", "B"}
    head, *facts = said["facts"]
    assert head == ["setting", "A", "B"]
    column = {name: 1 if letter == "A" else 2 for name, letter in letters.items()}
    assert {fact[0]: (fact[column[FAST]], fact[column[SLOW]]) for fact in facts} == {"model.mask_ratio": ("0.9", "0.75")}
    for name, epochs, losses in ((FAST, [0.25, 0.5, 0.75, 1], [2, 1, 0.5, 0.25]), (SLOW, np.arange(1, 9) / 4, [4, 3, 2, 1.5, 1.25, 1, 0.75, 0.5])):
        places = np.array(re.findall(r"([\d.]+),([\d.]+)", dict(said["lines"])[letters[name]]), float)
        y = sorted((float(text), float(at) - 4) for x, at, text in said["ticks"] if x == "62")  # read off with a ruler: loss and px
        assert np.interp(places[:, 1], *reversed(list(zip(*y[::-1], strict=True)))) == pytest.approx(losses, abs=0.02)
        across = np.diff(np.log10(epochs)) / np.log10(8) * (740 - 70)  # the epochs go from 1/4 to 2
        assert np.diff(places[:, 0]) == pytest.approx(across, abs=0.11)


def test_what_does_not_go_together_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, said in [([], "name a RUN, or give --all"), (["fast", "--all"], "RUN and --all are both given"),
                        (["--all", "--frames", "--with", "x"], "--with, --frames and --all are both given"),
                        (["--all", "--runs-dir", str(tmp_path / "none")], "is not a folder")]:
        assert report.main(["--runs-dir", str(runs), *flags]) == 2
        assert said in capsys.readouterr().err
    out = tmp_path / "elsewhere" / "all.html"
    assert report.main(["--all", "--runs-dir", str(runs), "--out", str(out), "--json"]) == 0
    told, said = capsys.readouterr()
    assert json.loads(told) == {"file": str(out), "runs": 6, "states": {"done": 2, "failed": 1, "unfinished": 1, "not started": 1, "damaged": 1}}
    assert "damaged or half-written: 1 of 6 folders" in said and out.parent.stat().st_mode & 0o777 == 0o700
    link, = (attrs["href"] for tag, attrs in Reader(out.read_text()).tags if tag == "a")
    assert link and (out.parent / link).resolve() == (runs / FAST / "report.html").resolve()


@pytest.mark.parametrize("number", ["1e300", "1" * 400, "1" * 5000, "[" * 100_000])
def test_a_number_or_nesting_that_nothing_can_hold_stops_no_page(number: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "odd-00000001", [1.0])
    run.metrics.write_text(f'{{"epoch": {number}, "loss": {number}}}\n{{"epoch": 1, "loss": 2}}\n')
    for name in ("attempts", "result", "run"):
        (run.path / f"{name}.json").write_text(json.dumps({"schema": 1, "attempts": [{**ATTEMPT, "started": 7, "updated": 8}], "steps": 7}).replace("7", number))
        assert row_of(run.path, tmp_path).name == run.path.name
    assert sampled_losses(run.metrics)[1][-1] == 2
