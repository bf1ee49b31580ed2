"""The page of a run: read with a parser of its own and in a real browser, against the records that it was made from."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analysis import report
from analysis.page import charts
from analysis.page.finding_tables import verdicts
from analysis.page.findings import captions
from analysis.page.html import to_html
from analysis.page.wording import HIDDEN
from tests.support.html import Reader, browse
from tests.support.launching import cli
from vidmae.runs.attempts import Attempt
from vidmae.runs.cell_result import Learned, write_cell_result
from vidmae.runs.predictions import from_probabilities
from vidmae.runs.quarantine import COLUMNS
from vidmae.runs.record import RunFolder, make_private_folder
from vidmae.settings.finetune_config import FinetuneConfig

SIGNATURE = "0011aabb"
SECRET = "Anna birthday"
NAMED = f"/data/{SECRET}/S_20130502_0915_01.mp4"
EVIL = "<script>console.log('heard')</script><img src=http://127.0.0.1:9/seen.png>"
MARKUP = "<img src=x onerror=alert(1)>'\"&amp;"  # without a slash, so it is shown
STEPS = 300_000
TITLES = ["State and result", "What it is", "Training", "Where the seconds went", "Data left out", "Few-shot results",
          "Reconstruction", "Interpolation, center mask, 25 % hidden", "Embeddings"]


def attempt(number: int, started: float, parts: list[float], ended: str) -> dict[str, Any]:
    return asdict(Attempt(f"77_{number}", number, started, started + sum(parts), 100 * number, 100 * number + 100, *parts,
                          repeated_steps=number, slowest_save_s=1.5, ended=ended))


ATTEMPTS = [attempt(0, 1.79e9, [10, 600, 30, 0, 5], ""), attempt(1, 1.79e9 + 5000, [20, 1200, 60, 40, 10], "done")]


def losses() -> np.ndarray:
    step = np.arange(STEPS)
    return 0.5 + 0.8 * np.exp(-step / 40_000) + np.random.default_rng(0).normal(0, 0.02, STEPS)


def make_run(folder: Path) -> RunFolder:
    """A finished pretraining run of 300,000 steps, with whatever a page must not show."""
    run = RunFolder(make_private_folder(folder))
    run.record.write_text(json.dumps({
        "schema": 1, "kind": "pretrain", "name": "s", "signature": SIGNATURE, "created": "2026-11-24T11:13:20+00:00", "data": EVIL,
        "manifest": f"/data/{SECRET}/s.csv", "content_sha256": "ab" * 32, "videos": 10496, "commit": "0123456789abcdef",
        "dirty": True, "fraction": {"of": "s", "subset": "random", "share": 0.1, "has_hours": 19.4}, "plan": {"world_size": 8},
        "submissions": [{"job_id": "77", "command": ["python", NAMED]}]}))
    run.config.write_text(f"name: s\nmodel:\n  name: mae_vit_huge_patch14\n  mask_ratio: 0.9\ndata:\n  name: s\n  manifest: {NAMED}\n"
                          f"train:\n  phases:\n  - {{duration: 339 epochs, lr: 0.0001, schedule: cosine, warmup: 5 epochs}}\n"
                          f"  init: '/models/{SECRET}.pth'\n")
    run.result.write_text(json.dumps({"schema": 1, "kind": "pretrain", "steps": STEPS, "first_loss": 1.3, "last_loss": 0.512345,
                                      "clips_per_s": 251.5, "world_size": 8, "finished": 1.79e9}))
    rates = 1e-4 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)) / 2
    run.metrics.write_text("".join(f'{{"step": {n}, "loss": {loss:.6f}, "lr": {lr:.6g}, "clips_per_s": 250.0, "data_wait": 0.01, "mfu": null}}\n'
                                   for n, (loss, lr) in enumerate(zip(losses(), rates, strict=True), 1)) + '{"step": 30')
    run.attempts.write_text(json.dumps({"schema": 1, "attempts": ATTEMPTS}))
    run.quarantine.write_text("\n".join([",".join(COLUMNS), "3,0,5,12,13,16,moov atom not found", "9,1,5,12,13,16,moov atom not found",
                                         f"4,0,6,40,41,8,cannot open {NAMED}", ""]))
    run.nonfinite.write_text(json.dumps({"window": 41, "why": "loss is nan", "time": 1.79e9, "rows": [1, 2]}) + "\n")
    Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(run.picture)
    return run


def guesses(checkpoint: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels of 60 clips of 6 classes."""
    draw = np.random.default_rng([seed, len(checkpoint)])
    return draw.dirichlet(np.ones(6), 60), draw.integers(0, 6, 60)


def make_cell(folder: Path, checkpoint: str, content: str, seed: int) -> float:
    """A finished few-shot cell; its top-1 accuracy."""
    run = RunFolder(make_private_folder(folder / f"{checkpoint}-toys-10shot-seed{seed}-finetune-{content[-8:] or '0' * 8}"))
    cell = {"checkpoint": checkpoint, "checkpoint_content": content, "data": "toys", "shots": 10, "seed": seed,
            "method": "finetune", "overrides": {"train.layer_decay": MARKUP}, "sweep": "fewshot"}
    run.record.write_text(json.dumps({"schema": 1, "kind": "fewshot", "signature": "22334455", "commit": "f" * 40, "dirty": False,
                                      "cell": cell, "data": "toys", "videos": 60, "submissions": []}))
    prob, label = guesses(checkpoint, seed)
    predictions = from_probabilities(prob, label, np.arange(60), [f"class {n}" for n in range(6)])
    write_cell_result(run, FinetuneConfig(seed=seed), predictions, Learned(60, 150, 150, 14.0, 1.0, 1))
    return 100 * float((prob.argmax(1) == label).mean())


def make_results(folder: Path) -> None:
    """The tables of an interpolation, with names where a user asked for them, and a picture."""
    make_private_folder(folder / "pictures")
    (folder / "result.json").write_text(json.dumps({"schema": 1, "kind": "interpolate", "mask": "center", "ratio": 0.25, "clips": 7,
                                                    "sizes_from": NAMED, "note": NAMED, "methods": []}))
    (folder / "methods.csv").write_text("domain,motion,method,clips,psnr_db\nown,all,model,7,24.56789\nown,all,fade,7,22.1\n")
    (folder / "differences.csv").write_text("domain,motion,baseline,score,difference,ci_low,ci_high\nown,all,fade,psnr_db,2.46789,,\n"
                                            "own,most,fade,psnr_db,3.5,,\n")
    (folder / "tracking_summary.csv").write_text("mask,path,method,error_px\ncenter,turning,model,2.5\ncenter,turning,truth,0.1\n"
                                                  "center,turning,fade,4.5\n")
    (folder / "odd.csv").write_text(f"thing,value,Path\n{EVIL},1,{SECRET}\n{NAMED},2,\nS_20130502_0915_01,3,\n")
    for name in ("scores.csv", "videos-own.csv", "videos-own.unreadable.csv"):
        (folder / name).write_text(f"path\n{NAMED}\n")
    plots = make_private_folder(folder.parent / "embeddings")
    (plots / "embedding-scores.csv").write_text("feature,score,value,chance\ncls,silhouette,0.0625,\ncls,precision at 1,0.05,0.1\n")
    Image.fromarray(np.full((9, 9, 3), 99, np.uint8)).save(plots / "embedding-cls.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "pictures" / f"{SECRET}-row00001-0.png")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, two cells that start from it, one from scratch and one from elsewhere."""
    folder = tmp_path_factory.mktemp("runs")
    run = make_run(folder / f"s&<b>-{SIGNATURE}")
    make_results(run.path / "analysis" / "center")
    return folder


@pytest.fixture(scope="module")
def accuracies(runs: Path) -> dict[tuple[str, int], float]:
    found = {("s", seed): make_cell(runs, "s", f"run:{SIGNATURE}", seed) for seed in (0, 1)}
    make_cell(runs, "s", "run:99999999", 0)  # another run of this name
    return found | {("scratch", 1): make_cell(runs, "scratch", "", 1)}


@pytest.fixture(scope="module")
def page(runs: Path, accuracies: dict[tuple[str, int], float]) -> Path:
    assert report.main(["s&", "--runs-dir", str(runs)]) == 0
    return runs / f"s&<b>-{SIGNATURE}" / "report.html"


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    return Reader(page.read_text())


def test_a_thinned_curve_keeps_means_and_extremes() -> None:
    values = np.cumsum(np.random.default_rng(1).normal(size=12_345))
    values[[5, 700, 12_344]] = np.nan, np.inf, -np.inf
    curve = charts.thin(np.arange(1, 12_346), values)
    kept = [(step, value) for step, value in enumerate(values, 1) if math.isfinite(value)]
    assert len(curve.step) == charts.SPANS and curve.step[-1] == 12_344
    for first, last, mean, low, high in zip([0, *curve.step[:-1]], curve.step, curve.mean, curve.low, curve.high, strict=True):
        span = [value for step, value in kept if first < step <= last]
        assert 30 <= len(span) <= 31
        assert (mean, low, high) == (pytest.approx(math.fsum(span) / len(span)), min(span), max(span))


@pytest.mark.parametrize("count", [1, 2, 399, 400, 401])
def test_short_curves_keep_every_point(count: int) -> None:
    values = np.random.default_rng(2).normal(size=count)
    curve = charts.thin(np.arange(count), values)
    assert len(curve.step) == min(count, charts.SPANS) and curve.step[-1] == count - 1
    if count <= charts.SPANS:
        assert np.array_equal(curve.mean, values)


@pytest.mark.parametrize(("low", "high"), [(0.0, 380.0), (0.5168, 1.305), (1.5e-8, 8e-4), (-3.0, 7.0), (5.0, 5.0), (0.0, 0.0), (0, 3e5)])
def test_ticks_are_round_and_hold_the_range(low: float, high: float) -> None:
    ticks = charts.nice_ticks(low, high)
    size = ticks[1] - ticks[0]
    assert ticks[0] <= low and high <= ticks[-1] and 2 <= len(ticks) <= 8
    assert np.allclose(np.diff(ticks), size, rtol=1e-6)
    assert min(abs(size / 10 ** math.floor(math.log10(size * 1.0001)) - nice) for nice in (1, 2, 2.5, 5, 10)) < 1e-6
    assert charts.chart("", np.array([1.0]), np.array([np.nan])) is None


def test_a_curve_lies_where_its_axes_say(read: Reader) -> None:
    """Read the loss off the SVG with a ruler: by the places and texts of the ticks."""
    drawn = charts.chart("Loss", np.arange(1, STEPS + 1), losses())
    assert drawn is not None
    points = np.array(re.findall(r"([\d.]+),([\d.]+)", drawn.line), float)
    (x0, first), (x1, last) = drawn.x_ticks[0], drawn.x_ticks[-1]
    (y0, low), (y1, high) = drawn.y_ticks[0], drawn.y_ticks[-1]
    steps = np.interp(points[:, 0], [x0, x1], [float(text.replace(",", "")) for text in (first, last)])
    loss = float(low) + (points[:, 1] - y0) / (y1 - y0) * (float(high) - float(low))
    assert steps[-1] == STEPS and 0 < steps[0] < 2 * STEPS / charts.SPANS
    assert np.abs(loss - losses().reshape(charts.SPANS, -1).mean(1)).max() < 0.05 / 200 * (float(high) - float(low)) * 1.1
    assert drawn.line in {attrs.get("d") for tag, attrs in read.tags if tag == "path"}


def test_the_page_says_what_the_records_say(read: Reader, accuracies: dict[tuple[str, int], float]) -> None:
    assert read.headings == [("h1", f"s&<b>-{SIGNATURE}"), *(("h2", title) for title in TITLES)]
    facts = read.facts("Model, data and code")
    assert (facts["Model"], facts["Share of the tokens that is hidden"]) == ("mae_vit_huge_patch14", "0.9")
    assert facts["Phase 1"] == "339 epochs, lr 0.0001, cosine, warm-up 5 epochs"
    assert (facts["Videos"], facts["Hours of video"], facts["Fraction"]) == ("10,496", "19.4", "10 % of s, random")
    assert facts["Commit"].startswith("0123456789ab, with changes")
    assert read.facts("Numbers of the result")["Loss of the last step"] == "0.5123"
    assert f"loss, mean of the last 15,000 steps{losses()[-15_000:].mean():.4g}" in read.text
    parts = {row["part"]: (row["h:mm:ss"], row["share, %"]) for row in read.records("All attempts")}
    whole = 10 + 600 + 30 + 5 + 20 + 1200 + 60 + 40 + 10
    assert parts["useful"] == ("0:30:00", f"{100 * 1800 / whole:.1f}") and parts["repeated"][0] == "0:00:40"
    assert parts["in the queue between attempts"][0] == "1:12:35"  # 5000 s less the 645 of the first attempt
    assert f"{100 * 1800 / whole:.1f} %" in read.text and f"{whole * 8 / 3600:.4g}" in read.text
    assert [row["job"] for row in read.records("Attempts")] == ["77_0", "77_1"]
    why = read.records("Why videos were replaced")
    assert why[0] == {"reason": "moov atom not found", "videos": "1", "clips": "32"} and len(why) == 2
    assert {row["settings"] for row in read.records("Accuracy of the cells")} == {f"train.layer_decay={MARKUP}"}
    cells = [(row["seed"], row["top-1, %"], row["scratch, %"]) for row in read.records("Accuracy of the cells")]
    scratch = f"{accuracies['scratch', 1]:.2f}"
    assert cells == [("0", f"{accuracies['s', 0]:.2f}", "--"), ("1", f"{accuracies['s', 1]:.2f}", scratch)]


def test_results_of_looking_at_the_model(read: Reader) -> None:
    scores = next(read.records(caption) for caption in read.tables if caption.startswith("Scores of the hidden pixels"))
    assert [(row["method"], row["PSNR, dB"]) for row in scores] == [("model", "24.57"), ("fade", "22.1")]
    assert read.text.count("24.57") == 1 and read.bold == ["24.57", "2.5"], "the best of each table"
    assert ("On own the PSNR of the model is 2.47 dB above that of the best other method, fade; too few recordings for an "
            "interval") in read.text
    assert "Some precisions are below chance" in read.text
    assert {row["path"] for row in read.records(next(caption for caption in read.tables if caption.startswith("Tracking")))} == {"turning"}
    margins = next(read.records(caption) for caption in read.tables if caption.startswith("Model minus baseline"))
    assert [(row["motion"], row["difference"], row["95 % from"]) for row in margins] == [("all", "2.468", "--")]
    assert [tuple(row.values()) for row in read.records("Odd")] == [(HIDDEN, "1"), (HIDDEN, "2"), (HIDDEN, "3")]
    assert read.facts("What was done")["ratio"] == "0.25"


def test_a_cell_class_by_class(runs: Path, accuracies: dict[tuple[str, int], float], tmp_path: Path) -> None:
    assert report.main(["scratch", "--runs-dir", str(runs), "--out", str(tmp_path / "cell.html")]) == 0
    read = Reader((tmp_path / "cell.html").read_text())
    result = json.loads((next(runs.glob("scratch*")) / "result.json").read_text())
    low, high = result["top1_ci_pct"]
    assert read.facts("Numbers of the result")["Top-1 accuracy"] == (
        f"{accuracies['scratch', 1]:.4g} % (95 % interval over clips: {low:.4g} to {high:.4g})")
    assert read.facts("Numbers of the result")["Chance"] == "16.7 % (6 classes)"
    prob, label = guesses("scratch", 1)
    rows = read.records("Classes, the hardest first")
    shares = {name: 100 * np.mean([guess.argmax() == number for guess in prob[label == number]])
              for number, name in enumerate(f"class {n}" for n in range(6))}
    assert {row["class"]: row["top-1, %"] for row in rows} == {name: f"{share:.1f}" for name, share in shares.items()}
    assert [shares[row["class"]] for row in rows] == sorted(shares.values())
    for row in rows:
        wrong = [guess.argmax() for guess in prob[label == int(row["class"][-1])] if f"class {guess.argmax()}" != row["class"]]
        counts = np.bincount(wrong, minlength=6)
        assert (int(row["mistaken, clips"]), counts[int(row["mostly mistaken for"][-1])]) == (counts.max(), counts.max())


def test_nothing_private_and_nothing_alive(page: Path, read: Reader) -> None:
    text = page.read_text()
    assert not re.search(r"Anna|birthday|S_2013|\.mp4|/data/|\.pth", text)
    assert EVIL not in text
    assert {"script", "b", "link", "iframe"}.isdisjoint(tag for tag, _ in read.tags)
    assert all((attrs.get("href") or "#").startswith("#") for _, attrs in read.tags)
    assert page.stat().st_mode & 0o777 == 0o600
    assert len(text) < 300_000  # of 300,000 steps
    assert all("scope" in attrs for tag, attrs in read.tags if tag == "th")
    assert ("html", {"lang": "en"}) in read.tags


def pictures_of(read: Reader) -> list[bytes]:
    shown = [attrs for tag, attrs in read.tags if tag == "img"]
    assert all(attrs["alt"] for attrs in shown)
    return [base64.b64decode((attrs["src"] or "").removeprefix("data:image/png;base64,")) for attrs in shown]


def test_pictures_only_where_frames_are_asked_for(runs: Path, read: Reader, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read.text.count("Pictures that are left out") == 2
    plot = (runs / f"s&<b>-{SIGNATURE}/analysis/embeddings/embedding-cls.png").read_bytes()
    assert pictures_of(read) == [plot]  # it is not of footage
    out = tmp_path / "new" / "frames.html"
    run = runs / f"s&<b>-{SIGNATURE}"
    assert report.main([str(run), "--frames", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(out), "run": run.name, "state": "done", "sections": TITLES}
    assert pictures_of(Reader(out.read_text())) == [
        (run / "reconstruction.png").read_bytes(), next((run / "analysis/center/pictures").iterdir()).read_bytes(), plot]
    assert SECRET not in out.read_text()
    alts = [attrs["alt"] or "" for tag, attrs in Reader(out.read_text()).tags if tag == "img"]
    assert alts[0].startswith("A few clips: seen, filled in, truth, picture 1") and alts[1].endswith("what the model saw and filled in, recording 1, clip 1")
    assert out.parent.stat().st_mode & 0o777 == 0o700


def test_results_that_lie_elsewhere(runs: Path, accuracies: dict[tuple[str, int], float], tmp_path: Path) -> None:
    folder, out = runs / f"s&<b>-{SIGNATURE}/analysis/center", tmp_path / "two.html"
    assert report.main(["scratch", "--runs-dir", str(runs), "--with", str(folder), "--with", str(folder.parent), "--out", str(out)]) == 0
    text = out.read_text()
    title = "Interpolation, center mask, 25 % hidden"
    assert [text.count(f">{title}</h2>") for title in (title, f"{title} 2", "Embeddings")] == [1, 1, 1]
    assert 'id="section7"' in text and text.count("Scores of the hidden pixels") == 4  # a caption, and its name for who hears it


@pytest.mark.parametrize(("low", "high", "said"), [
    (0.5, 4.0, "2.00 dB above that of the best other method, flow (95 % interval of the difference: 0.50 to 4.00), which is more than chance"),
    (-1.0, 5.0, "interval of the difference: -1.00 to 5.00), so the two are not told apart")])
def test_a_verdict_names_the_best_other_method_and_whether_it_is_chance(low: float, high: float, said: str) -> None:
    lines = pd.DataFrame([("own", "hold", "psnr_db", "9", "8", "10"), ("own", "flow", "psnr_db", "2", low, high), ("own", "flow", "ssim", "0.1", "0", "1")],
                         columns=["domain", "baseline", "score", "difference", "ci_low", "ci_high"], dtype=str)
    verdict, = verdicts("differences.csv", lines)
    assert said in verdict and not verdicts("methods.csv", lines)


def test_captions_tell_pictures_apart_and_never_name_a_file() -> None:
    names = [f"{SECRET}-row00012-0", "row00003-1-heads", "row00003-1-rollout", "scene-turning-box", "scene-turning-center", SECRET]
    assert captions([Path(f"{name}.png") for name in names]) == [
        "recording 12, clip 1", "recording 3, clip 2, each head", "recording 3, clip 2, rollout", "scene 1 of 2", "scene 2 of 2", "picture 6 of 6"]


def test_what_is_noisy_is_smoothed_and_axes_have_names() -> None:
    step, value = np.arange(1, 4001), np.random.default_rng(4).normal(3, 1, 4000)
    noisy, plain = (charts.chart("Loss", step, value, "loss", noisy=flag) for flag in (True, False))
    assert noisy and plain and noisy.y_name == "loss" and not plain.smooth and noisy.line == plain.line
    heights = {name: np.std([float(y) for y in re.findall(r",([\d.]+)", path)]) for name, path in (("raw", noisy.line), ("smooth", noisy.smooth))}
    assert heights["smooth"] < heights["raw"] / 3
    assert f"{value[-200:].mean():.4g} on average over the last 200" in noisy.said and f"{value[-1]:.4g} at the last" in plain.said


def state_of(folder: Path) -> tuple[str, Reader]:
    assert report.main([str(folder)]) == 0
    read = Reader((folder / "report.html").read_text())
    return next(attrs["class"] or "" for tag, attrs in read.tags if tag == "span").partition(" ")[2], read


def test_runs_without_an_end_have_a_page(tmp_path: Path) -> None:
    run = RunFolder(make_private_folder(tmp_path / "new-00000000"))
    run.record.write_text(json.dumps({"schema": 1, "kind": "pretrain", "signature": "00000000"}))
    state, read = state_of(run.path)
    assert state == "not started" and "no step is recorded" in read.text and "There is no config.yaml" in read.text
    run.heartbeat.write_text(json.dumps({"job_id": "7", "time": 1.79e9, "step": 12, "total_steps": 4000}))
    state, read = state_of(run.path)
    assert state == "unfinished" and "Step 12 of 4,000, last sign of life 2026-09-21 14:13 UTC" in read.text
    run.attempts.write_text(json.dumps({"schema": 1, "attempts": [attempt(0, 1.79e9, [0.0] * 5, "preempted")]}))
    assert state_of(run.path)[0] == "interrupted"
    job_id = json.loads(run.attempts.read_text())["attempts"][-1]["job_id"]
    (make_private_folder(run.submit / job_id) / "cancelled").touch()
    state, read = state_of(run.path)
    assert state == "cancelled" and "preempted" not in read.text
    run.failure.write_text(json.dumps({"time": 1.79e9, "rank": 3, "kind": "error", "error": "OutOfMemoryError", "message": "no room"}))
    state, read = state_of(run.path)
    assert state == "failed" and "rank 3: OutOfMemoryError: no room" in read.text
    run.failure.write_text(json.dumps({"rank": 3, "error": "OSError", "message": f"{NAMED} is gone"}))
    assert "OSError: (not shown: it may name a file)" in state_of(run.path)[1].text


def test_hours_are_those_of_the_manifest_while_it_is_the_same(tmp_path: Path) -> None:
    run = RunFolder(make_private_folder(tmp_path / "h-00000000"))
    run.record.write_text(json.dumps({"schema": 1, "kind": "pretrain", "manifest": str(tmp_path / "s.csv"), "content_sha256": "ab"}))
    for content, hours in (("ab", "2.5"), ("cd", None)):
        (tmp_path / "s.json").write_text(json.dumps({"seconds": 9000.0, "content_sha256": content}))
        assert state_of(run.path)[1].facts("Model, data and code").get("Hours of video") == hours


@pytest.mark.parametrize("name", ["run.json", "result.json", "config.yaml", "metrics.jsonl", "attempts.json", "quarantine.csv",
                                  "evaluations.jsonl", "nonfinite.jsonl", "heartbeat.json", "failure.json"])
@pytest.mark.parametrize("content", [b"", b"{\"a\": [1,", b"\xff\xfe\x00", b"[1, 2]", b"{\"step\": {}, \"window\": [], \"attempts\": [{}]}\n"])
def test_damaged_records_are_said_and_survived(name: str, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "r-00000000")
    run.path.mkdir()
    run.record.write_text(json.dumps({"schema": 1, "kind": "fewshot", "signature": "00000000"}))
    (run.path / name).write_bytes(content)
    state_of(run.path)
    said = capsys.readouterr().err
    assert re.fullmatch(rf"(note: {re.escape(name)} cannot be read \(\w+\)\n)?", said)
    if content[:1] == b"\xff" or (name.endswith(".json") and content[-1:] != b"\n"):
        assert said


@pytest.mark.usefixtures("accuracies")
def test_what_cannot_be_is_refused(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, said in [(["nobody"], "no run 'nobody'"), (["s-toys"], "fits 3 runs"), ([str(tmp_path)], "is no run folder"),
                        (["s&", "--with", "nowhere"], "--with nowhere: no such folder"),
                        (["s&", "--with", str(tmp_path)], "there are no results in it")]:
        assert report.main([*flags, "--runs-dir", str(runs)]) == 2
        out, err = capsys.readouterr()
        assert not out and said in err
    done = cli("analysis/report.py", "nobody", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_browser_shows_it_and_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    dom, console, asked = browse(page, tmp_path, "--dump-dom")
    read = Reader(dom)
    assert [text for _, text in read.headings] == [f"s&<b>-{SIGNATURE}", *TITLES]
    assert read.facts("Numbers of the result")["Loss of the last step"] == "0.5123" and len(read.records("Accuracy of the cells")) == 2
    assert (console, asked) == ("", [])
    control = tmp_path / "control.html"
    control.write_text(f"<!DOCTYPE html><title>control</title>{EVIL}")
    _, console, asked = browse(control, tmp_path, "--dump-dom")
    assert "heard" in console and "http://127.0.0.1:9/seen.png" in asked


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it(dark: bool, page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    browse(page, tmp_path, f"--screenshot={shot}", "--window-size=1100,3000", f"--blink-settings=preferredColorScheme={int(not dark)}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    paper, ink, blue = ((20, 23, 26), (230, 233, 236), (86, 180, 233)) if dark else ((255, 255, 255), (27, 31, 36), (0, 114, 178))
    assert pixels.shape == (3000, 1100, 3) and tuple(pixels[0, 0]) == paper and pixels.std() > 10
    assert [(pixels == colour).all(2).sum() > 500 for colour in (ink, blue)] == [True, True]
    useful = (pixels == (0, 158, 115)).all(2)  # the bar: as wide as the share
    assert useful.sum(1).max() == pytest.approx(1800 / 1975 * 1052, abs=2)
    assert (pixels == blue).all(2)[:, 100:500].any(1).sum() > 100  # a curve is about as high as its field


PHONE_PX = 390


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of nearest clips: two clips that were looked for and ten of each, some without a picture, with long labels."""
    picture, folder = io.BytesIO(), tmp_path_factory.mktemp("neighbours")
    Image.fromarray(np.full((96, 96, 3), 120, np.uint8)).save(picture, "JPEG")
    rows = [{"feature": feature, "query": query, "content": "0", "neighbour": f"{place:x}", "place": place, "cosine": 0.5,
             "label": "Pushing_something_so_that_it_falls_off_the_table", "same_class": str(place % 2)}
            for feature in ("cls", "mean") for query in (0, 1) for place in range(11)]
    page = folder / "neighbours.html"
    page.write_text(to_html("neighbours.html", title="Nearest clips, toys", clips=pd.DataFrame(rows),
                            pictures={f"{place:x}": base64.b64encode(picture.getvalue()).decode() for place in range(8)}))
    return page


def test_nothing_is_wider_than_a_phone(page: Path, neighbours: Path, tmp_path: Path) -> None:
    """What is wider scrolls in its own field: the browser is asked how wide each page would be."""
    frames = "".join(f"<iframe id=f{i} src='{each.as_uri()}' width={PHONE_PX} height=800 style='border: 0'></iframe>"
                     for i, each in enumerate((page, neighbours)))
    asks = "[0, 1].map(i => document.getElementById('f' + i).contentDocument.documentElement.scrollWidth).join(' ')"
    (tmp_path / "both.html").write_text(f"<!DOCTYPE html>{frames}<p id=told></p><script>window.onload = () => "
                                        f"{{ document.getElementById('told').textContent = {asks} }}</script>")
    dom, _, _ = browse(tmp_path / "both.html", tmp_path, "--dump-dom", "--allow-file-access-from-files", "--window-size=1000,2000")
    told = re.search(r"<p id=\"told\">(.*?)</p>", dom)
    assert told and told[1].split() == [str(PHONE_PX)] * 2


def test_the_page_of_neighbours_follows_dark_and_narrow_screens(neighbours: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    browse(neighbours, tmp_path, f"--screenshot={shot}", f"--window-size={PHONE_PX},1200", "--blink-settings=preferredColorScheme=0")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    paper, ink, blue = (20, 23, 26), (230, 233, 236), (86, 180, 233)
    assert tuple(pixels[0, 0]) == paper and [(pixels == colour).all(2).sum() > 300 for colour in (ink, blue)] == [True, True]
    across = (np.diff((pixels == blue).all(2).astype(int), axis=1) == 1).sum(1).max()  # left edges of frames in one line
    assert 3 <= across <= 6, "three clips stand beside each other"
