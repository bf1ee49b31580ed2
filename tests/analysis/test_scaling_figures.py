"""Data scaling from the command line: the known slopes, our own results, comparisons, figures, and bad input."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import stat
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis import scaling
from analysis.tables.curves.figures import draw, file_name
from analysis.tables.curves.fitted_curves import study_all, warnings
from analysis.tables.curves.results_csv import read_results
from analysis.tables.curves.series import Result, Results, published_results, tidy
from analysis.tables.curves.series_pairs import compare

SHARES = (0.001, 0.01, 0.1, 1.0)
# task -> slope per decade, fit at 100 %, x10, x100, R2; worked out from the released logs, top-1 and top-5
V3 = {"ssv2-10shot": ((4.72, 13.90, 18.6, 23.3, 0.903), (11.09, 35.61, 46.7, 57.8, 0.917)),
      "ssv2-50shot": ((9.98, 30.69, 40.7, 50.6, 0.951), (18.29, 64.02, 82.3, 100.6, 0.963)),
      "kinetics-10shot": ((3.48, 12.34, 15.8, 19.3, 0.958), (7.65, 29.82, 37.5, 45.1, 0.969)),
      "kinetics-50shot": ((7.78, 28.64, 36.4, 44.2, 0.971), (12.15, 52.95, 65.1, 77.3, 0.976))}
V1 = {"ssv2-10shot": (2.80, 6.91), "ssv2-50shot": (5.99, 11.48), "kinetics-10shot": (2.11, 4.61), "kinetics-50shot": (5.08, 7.89)}


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = scaling.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as lines:
        return list(csv.DictReader(lines))


def made(seeds: int = 1, series: tuple[str, ...] = ("contiguous",), shares: tuple[float, ...] = SHARES, sd: float = 0.5,
         ) -> list[dict[str, Any]]:
    """Results on a line: random subsets are 2 points better in top-1, and 1 in top-5."""
    rng = np.random.default_rng(11)
    return [{"fraction": share, "task": task, "seed": seed, "series": name,
             "top1_pct": round(15 + 4 * math.log10(share) + 2 * (name == "random") + rng.normal(0, sd), 3),
             "top5_pct": round(40 + 9 * math.log10(share) + (name == "random") + rng.normal(0, sd), 3)}
            for name in series for task in ("ssv2-10shot", "ours [1]") for share in shares for seed in range(seeds)]


def write(path: Path, rows: list[dict[str, Any]], columns: str = "fraction,task,seed,top1_pct,top5_pct,series") -> Path:
    names = columns.split(",")
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]], str, str]:
    """The folder of the tables, all fits, and what was printed to standard output and error."""
    folder, out, said = tmp_path_factory.mktemp("published") / "tables", io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        assert scaling.main(["--published", "--no-figures", "--json", "--out", str(folder)]) == 0
    return folder, rows_of(folder / "scaling.csv"), out.getvalue(), said.getvalue()


def test_published_slopes_and_extrapolations_are_the_known_ones(published) -> None:
    lines = {(row["series"], row["task"], row["metric"]): row for row in published[1] if row["fit"] == "log-linear"}
    assert len(lines) == 16
    for task, metrics in V3.items():
        for metric, (slope, whole, ten, hundred, r2) in zip(("top-1", "top-5"), metrics, strict=True):
            row = {key: float(value) for key, value in lines["published v3", task, metric].items() if key.endswith(("pct", "decade", "r2"))}
            assert row["slope_per_decade"] == pytest.approx(slope, abs=0.01) and row["r2"] == pytest.approx(r2, abs=0.001)
            assert row["x1_pct"] == pytest.approx(whole, abs=0.01) and row["x10_pct"] == pytest.approx(ten, abs=0.06)
            assert row["x100_unclipped_pct"] == pytest.approx(hundred, abs=0.06) and row["x100_pct"] == pytest.approx(min(hundred, 100), abs=0.06)
    for task, slopes in V1.items():
        found = [float(lines["published v1", task, metric]["slope_per_decade"]) for metric in ("top-1", "top-5")]
        assert found == pytest.approx(slopes, abs=0.01)


def test_what_four_points_say_of_twenty_points(published) -> None:
    row, = (row for row in published[1] if (row["series"], row["task"], row["metric"], row["fit"])
            == ("published v3", "ssv2-50shot", "top-1", "log-linear"))
    theirs = stats.linregress(np.log10(SHARES), [3.366, 6.567, 21.197, 31.747])
    half = 2 * stats.t.ppf(0.975, 2) * theirs.stderr
    assert [float(row[name]) for name in ("gain_x100", "gain_x100_low", "gain_x100_high")] == pytest.approx(
        [2 * theirs.slope, 2 * theirs.slope - half, 2 * theirs.slope + half])
    assert row["aicc"] == "--" and row["points"] == "4"


def test_the_claim_is_put_beside_the_intervals(published) -> None:
    *_, out, said = published
    assert "ssv2-50shot +20.0 [6.2, 33.7]" in said and "20 points lie within 2 of 4 intervals" in said
    assert "published v3 ssv2-50shot top-5: the log-linear fit passes 100 % at x92.7 of the data (100.6 % at x100)" in said
    assert "100.0*" in said and "One run per amount of data" in said and "n too small" in said
    record = json.loads(out)
    assert record["missing"] == [] and len(record["fits"]) == 48 and all(Path(path).is_file() for path in record["files"])


def test_a_power_law_and_a_logistic_stand_beside_every_line(published) -> None:
    for task in V3:
        fits = [row for row in published[1] if (row["series"], row["task"], row["metric"]) == ("published v3", task, "top-1")]
        assert [row["fit"] for row in fits] == ["log-linear", "power law", "logistic"]
        best = min(fits, key=lambda row: float(row["left_out_rms"]))
        assert [row["chosen_by"] for row in fits] == ["left out" if row is best else "--" for row in fits]
    left = rows_of(published[0] / "scaling-left-out.csv")
    assert len(left) == 16 * 3 * 4 and all(float(row["measured_pct"]) - float(row["foreseen_pct"]) == pytest.approx(float(row["error"])) for row in left)


def test_tables_have_their_forms(published) -> None:
    markdown, latex = ((published[0] / f"scaling.{suffix}").read_text() for suffix in ("md", "tex"))
    assert "| published v3 | ssv2-50shot | top-1 | log-linear | 4 | 9.98 [3.10, 16.85] | 30.69 |" in markdown
    assert r"9.98 [3.10, 16.85] & 30.69" in latex and latex.count(r"\\") == 49 and r"\begin{tabular}{llllrrrrrrrrrr}" in latex
    assert stat.S_IMODE(published[0].stat().st_mode) == 0o700


def test_repeats_show_what_seeds_change_and_aicc_becomes_a_number(capsys, tmp_path) -> None:
    path = write(tmp_path / "r.csv", made(seeds=3))
    code, _, said = run(capsys, "--results", path, "--no-figures", "--out", tmp_path / "t")
    assert code == 0 and "log-linear of means" in said and "One run per amount" not in said
    first = [row for row in rows_of(tmp_path / "t/scaling.csv") if (row["task"], row["metric"]) == ("ssv2-10shot", "top-1")]
    assert [(row["fit"], row["points"]) for row in first] == [("log-linear", "12"), ("power law", "12"), ("logistic", "12"), ("log-linear of means", "4")]
    assert float(first[0]["aicc"]) == min(float(row["aicc"]) for row in first[:3]) and "AICc" in first[0]["chosen_by"]
    seeds = [row for row in rows_of(tmp_path / "t/scaling-seeds.csv") if (row["task"], row["metric"]) == ("ssv2-10shot", "top-1")]
    rows = [row for row in made(seeds=3) if row["task"] == "ssv2-10shot"]
    slopes = [np.polyfit(np.log10(SHARES), [row["top1_pct"] for row in rows if row["seed"] == seed], 1)[0] for seed in range(3)]
    assert [float(row["slope_per_decade"]) for row in seeds] == pytest.approx([*slopes, np.mean(slopes)])
    assert (float(seeds[3]["slope_low"]), float(seeds[3]["slope_high"])) == pytest.approx(
        stats.t.interval(0.95, 2, np.mean(slopes), stats.sem(slopes)))
    assert seeds[0]["slope_low"] == "--"  # none is claimed for one seed


def test_repeats_that_agree_on_a_bend_do_not_make_the_line_certain() -> None:
    bend = {0.001: 2.0, 0.01: -2.0, 0.1: -2.0, 1.0: 2.0}
    rows = [Result("", "k", share, seed, 20 + 4 * math.log10(share) + bend[share] + 0.1 * seed, None) for share in SHARES for seed in range(3)]
    (found,), _ = study_all(Results("fraction", tidy(rows), "x"))
    assert found.bent and len(found.banded.points.x) == 4 and "repeats make its intervals too narrow" in warnings([found], 1.0)[-1]
    straight = [Result("", "k", row.amount, row.seed, 20 + 4 * math.log10(row.amount) + (row.seed - 1), None) for row in rows]
    (found,), _ = study_all(Results("fraction", tidy(straight), "x"))
    assert not found.bent and len(found.banded.points.x) == 12


def test_a_missing_fraction_is_said_with_the_points_that_are_left(capsys, tmp_path) -> None:
    rows = [row for row in made() if not (row["task"] == "ssv2-10shot" and row["fraction"] == 0.1)]
    rows[0]["top5_pct"] = ""
    code, _, said = run(capsys, "--results", write(tmp_path / "r.csv", rows), "--no-figures", "--out", tmp_path / "t")
    assert code == 3
    assert "missing: contiguous ssv2-10shot top-1: fraction 0.1 (seed 0) missing: the fits stand on 3 of 4 points" in said
    assert "no fit and no interval on 2 amounts of data, needed: 3" in said  # top-5
    found = {(row["task"], row["metric"], row["fit"]): row for row in rows_of(tmp_path / "t/scaling.csv")}
    assert found["ssv2-10shot", "top-1", "log-linear"]["points"] == "3" and ("ssv2-10shot", "top-5", "log-linear") not in found
    assert found["ssv2-10shot", "top-1", "power law"]["x100_low_pct"] == "--"  # as many parameters as points
    assert found["ours [1]", "top-1", "log-linear"]["points"] == "4"


def test_contiguous_against_random_is_paired(capsys, tmp_path) -> None:
    rows = made(seeds=2, series=("contiguous", "random"))
    rows = [row for row in rows if not (row["series"] == "random" and row["fraction"] == 0.01 and row["seed"] == 1)]
    code, _, said = run(capsys, "--results", write(tmp_path / "r.csv", rows), "--compare", "random,contiguous", "--no-figures",
                        "--out", tmp_path / "t")
    assert code == 3 and "random less contiguous" in said
    by = {(row["series"], row["task"], row["fraction"], row["seed"]): row["top1_pct"] for row in rows}
    pairs = [(by["random", task, share, seed], by["contiguous", task, share, seed]) for task in ("ssv2-10shot",) for share in SHARES[:3]
             for seed in (0, 1) if ("random", task, share, seed) in by]
    one, other = map(np.array, zip(*pairs, strict=True))
    theirs = stats.ttest_rel(one, other).confidence_interval()
    first = rows_of(tmp_path / "t/scaling-compare.csv")[0]
    assert (first["task"], first["metric"], first["pairs"], first["unpaired"]) == ("ssv2-10shot", "top-1", "5", "1")
    assert (float(first["difference"]), float(first["low"]), float(first["high"])) == pytest.approx(((one - other).mean(), *theirs))


def test_series_at_equal_hours_and_a_single_pair() -> None:
    rows = [Result(name, "k", hours, 0, 10.0 + hours / 10 + (name == "say"), None) for name in ("s", "say") for hours in (1.0, 10.0, 100.0)]
    three, = compare(Results("hours", tidy(rows), "x"), "say", "s")
    assert three.amounts == [1.0, 10.0, 100.0] and three.differences == pytest.approx([1, 1, 1])
    one, = compare(Results("hours", tidy(rows[:4]), "x"), "say", "s")
    assert one.interval() is None and one.mean == pytest.approx(1)
    for names, message in ((("s", "s"), "twice"), (("s", "a"), "'say'")):
        with pytest.raises(ValueError, match=message):
            compare(Results("hours", tidy(rows), "x"), *names)


def test_hours_count_from_the_most_there_are() -> None:
    rows = [Result("", "k", hours, 0, 5 * math.log10(hours) + shift, None) for hours, shift in ((1, 1), (10, 1.1), (50, 0.9), (200, 1))]
    results = Results("hours", tidy(rows), "x")
    (found,), failed = study_all(results)
    assert not failed and results.whole == 200 and not warnings([found], results.whole)
    assert found.line.gain(math.log10(200), math.log10(20_000))[0] == pytest.approx(2 * found.line.value("slope"))


def test_figures_are_pictures_and_the_same_again(capsys, tmp_path) -> None:
    path = write(tmp_path / "r.csv", made(seeds=2))
    code, out, _ = run(capsys, "--results", path, "--out", tmp_path / "a")
    assert code == 0
    (tmp_path / "b").mkdir()
    studies, _ = study_all(results := read_results(path))
    draw([study for study in studies if study.task == "ssv2-10shot"], results, tmp_path / "b", published_results().points)
    names = [Path(line).name for line in out.splitlines() if not line.endswith((".csv", ".md", ".tex"))]
    assert names == ["scaling-ssv2-10shot.png", "scaling-ssv2-10shot.svg", "scaling-ours--1-.png", "scaling-ours--1-.svg"]
    for name in names[:2]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / names[0]).read_bytes().startswith(b"\x89PNG")
    tree = ElementTree.parse(tmp_path / "a" / names[1])
    words = {"".join(node.itertext()).strip() for node in tree.iter("{http://www.w3.org/2000/svg}text")}
    assert {"Share of the recordings (%)", "Top-1 accuracy (%)", "Top-5 accuracy (%)", "log-linear", "power law", "logistic", "runs",
            "published v1", "published v3", "95 % confidence of the line", "95 % prediction", "10000"} <= words
    other = {"".join(node.itertext()).strip() for node in ElementTree.parse(tmp_path / "a" / names[3]).iter("{http://www.w3.org/2000/svg}text")}
    assert "published v3" not in other  # nothing published in this task


def test_names_of_figures_fit_on_a_disk_and_stay_apart(tmp_path) -> None:
    assert file_name("ssv2-10shot knn train.lr=1e-3") == "scaling-ssv2-10shot-knn-train.lr-1e-3"
    long = [file_name("ssv2-10shot " + "ä" * 300 + tail) for tail in "ab"]
    assert len(set(long)) == 2
    for name in long:
        (tmp_path / f".{name}.png.{10**7}.tmp").touch()


@pytest.mark.parametrize(("line", "message"), [
    ("0,k,0,1,2,s", "fraction 0 is not allowed"), ("-0.1,k,0,1,2,s", "fraction -0.1"), ("1.5,k,0,1,2,s", "up to 1"),
    ("nan,k,0,1,2,s", "finite"), ("x,k,0,1,2,s", "not a number"), ("0.1,k,-1,1,2,s", "seed '-1'"), ("0.1,k,0,101,2,s", "0 to 100"),
    ("0.1,k,0,nan,2,s", "finite"), ("0.1,,0,1,2,s", "task is empty"), ("0.1,k,0,1", "number of values"),
    ("0.1,k,0,1,2,s,9", "number of values"), ("0.10,k,0,3,4,s\n0.1,k,0,1,2,s", "is in line 2, too")])
def test_a_wrong_line_is_named(tmp_path, capsys, line, message) -> None:
    path = tmp_path / "r.csv"
    path.write_text(f"fraction,task,seed,top1_pct,top5_pct,series\n{line}\n")
    code, out, said = run(capsys, "--results", path, "--out", tmp_path / "t")
    assert code == 2 and message in said and f"r.csv:{2 + line.count(chr(10))}" in said and not out and not (tmp_path / "t").exists()


@pytest.mark.parametrize(("text", "message"), [
    ("", "needed: fraction or hours"), ("fraction,hours,task,seed,top1_pct\n", "one of them"), ("fraction,task,seed,top1_pct\n", "no line"),
    ("fraction,task,seed,accuracy\n0.1,k,0,1\n", "top1_pct"), ("fraction,task,seed,top1_pct\n0.1,k,0,--\n", "no accuracy"),
    ("fraction,task,seed,top1_pct\n0.1,k,0,1\n1,k,0,2\n", "no fit and no interval on 2 amounts")])
def test_a_file_without_results_is_refused(tmp_path, capsys, text, message) -> None:
    path = tmp_path / "r.csv"
    path.write_text(text)
    code, out, said = run(capsys, "--results", path, "--out", tmp_path / "t")
    assert code == 2 and message in said and not out


def test_no_file_and_no_such_series(tmp_path, capsys) -> None:
    assert run(capsys, "--results", tmp_path / "none.csv")[0] == 2
    for pair, message in (("a,b", "no series 'a'"), ("a", "not two series")):
        code, _, said = run(capsys, "--results", write(tmp_path / "r.csv", made()), "--compare", pair, "--out", tmp_path / "t")
        assert code == 2 and message in said


def test_optional_columns_may_be_left_out(tmp_path) -> None:
    results = read_results(write(tmp_path / "r.csv", made(), "seed,task,top1_pct,fraction"))
    assert results.series() == [""] and results.points["pct"].isna().tolist()[4] and results.points["metric"][4] == "top-5" and len(study_all(results)[0]) == 2
    assert set(published_results().points["amount"]) == set(SHARES)
