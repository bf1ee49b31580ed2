"""The checkpoint interval and the goodput against published numbers, a grid, numeric integration and plain loops."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import statistics
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from analysis import goodput
from tests.support.launching import ROOT

Setting = tuple[float, float, float, float]  # M, C, R, tau, all in seconds
SETTINGS: list[Setting] = [
    (36_000, 40, 300, 1700),   # a failure in ten hours, at the best interval
    (36_000, 40, 300, 9000),   # saved too seldom
    (3600, 40, 300, 500),
    (3600, 600, 1200, 1500),   # slow saves and restarts: failures during both count
    (600, 100, 400, 300),      # more failures than not
]


# Daly 2006, captions of figures 3 to 5: a save takes 5 minutes
@pytest.mark.parametrize(("mtbf_min", "published_min", "digits"), [(24 * 60, 117, 0), (6 * 60, 57, 0), (15, 9.1, 1)])
def test_daly_as_published(mtbf_min: float, published_min: float, digits: int) -> None:
    assert round(goodput.daly(mtbf_min * 60, 300) / 60, digits) == published_min


def test_young_by_hand() -> None:
    assert goodput.young(37.5 * 3600, 40) == pytest.approx(3286.335, abs=1e-3)  # sqrt(2 * 40 * 135000)
    assert goodput.young(3600, 50) == 600


@pytest.mark.parametrize(("save_s", "mtbf_s"), [(40, 4e6), (40, 36_000), (300, 3600), (600, 1200), (1000, 500), (5000, 500)])
def test_the_best_interval_is_the_best(save_s: float, mtbf_s: float) -> None:
    grid = np.geomspace(1, 50 * mtbf_s, 200_000)
    w = (grid + save_s) / mtbf_s
    reached = np.log(grid) - w - np.log(-np.expm1(-w))  # log of goodput, without what does not depend on the interval
    best = goodput.goodput(mtbf_s, save_s, 0, float(grid[reached.argmax()]))
    assert 0.995 * best <= goodput.goodput(mtbf_s, save_s, 0, goodput.daly(mtbf_s, save_s)) <= best * (1 + 1e-8)
    assert goodput.daly(mtbf_s, save_s) == pytest.approx(grid[reached.argmax()], rel=0.01 if save_s < mtbf_s / 2 else 0.25)


def test_where_a_save_takes_twice_the_time_between_failures() -> None:
    assert goodput.daly(100, 200) == 100 and goodput.daly(100, 1e6) == 100
    assert goodput.daly(100, 199.999) == pytest.approx(200 * (1 + 1 / 3 + 1 / 9) - 200, rel=1e-4)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_formula_against_numeric_integration(setting: Setting) -> None:
    mtbf_s, save_s, restart_s, interval_s = setting

    def first_attempt(length_s: float) -> tuple[float, float]:
        """Expected time and chance to fail of one attempt, by the midpoint rule."""
        t = (np.arange(200_000) + 0.5) * length_s / 200_000
        density = np.exp(-t / mtbf_s) / mtbf_s * length_s / 200_000
        return float((t * density).sum()) + length_s * math.exp(-length_s / mtbf_s), float(density.sum())

    again_s, again_fails = first_attempt(restart_s + interval_s + save_s)
    once_s, once_fails = first_attempt(interval_s + save_s)
    wall_s = once_s + once_fails * again_s / (1 - again_fails)  # geometric number of further attempts
    assert goodput.goodput(*setting) == pytest.approx(interval_s / wall_s, rel=1e-6)


def play(nodes: int, setting: Setting, segments: int, rng: random.Random) -> float:
    """Wall time of one run, second by second of a clock that all nodes share; every node has a failure time of its own."""
    mtbf_s, save_s, restart_s, interval_s = setting
    clock_s = 0.0
    failures = [rng.expovariate(1 / (mtbf_s * nodes)) for _ in range(nodes)]

    def passes(length_s: float) -> bool:
        """Let time go by; False where a node fails first, which is then replaced."""
        nonlocal clock_s
        node = min(range(nodes), key=failures.__getitem__)
        if failures[node] < clock_s + length_s:
            clock_s = failures[node]
            failures[node] += rng.expovariate(1 / (mtbf_s * nodes))
            return False
        clock_s += length_s
        return True

    saved, running = 0, True
    while saved < segments:
        if not running:
            running = passes(restart_s)
        elif passes(interval_s) and passes(save_s):
            saved += 1
        else:
            running = False
    return clock_s


def played(nodes: int, setting: Setting, *, segments: int, runs: int, seed: int) -> tuple[float, float]:
    rng = random.Random(seed)
    walls = [play(nodes, setting, segments, rng) for _ in range(runs)]
    ratio = segments * setting[3] / statistics.mean(walls)
    return ratio, ratio * statistics.stdev(walls) / statistics.mean(walls) / math.sqrt(runs)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_simulation_and_plain_loops_agree_with_the_formula(setting: Setting) -> None:
    expected = goodput.goodput(*setting)
    ratio, error, _ = goodput.simulate(*setting, segments=100, runs=2000, generator=np.random.default_rng(1))
    assert abs(ratio - expected) < 3 * error < 0.02 * expected
    ratio, error = played(3, setting, segments=100, runs=200, seed=2)
    assert abs(ratio - expected) < 3 * error < 0.05 * expected


WRONG: dict[str, Callable[[float, float, float, float], float]] = {
    "no failure during restarts": lambda m, c, r, t: t / (math.expm1((t + c) / m) * (m + r)),
    "no failure during saves": lambda m, c, r, t: t / (m * math.exp(r / m) * math.expm1(t / m) + c),
    "half an interval lost per failure": lambda m, c, r, t: t / (t + c + (t + c) / m * ((t + c) / 2 + r)),
    "saves are free": lambda m, c, r, t: t / (m * math.exp(r / m) * math.expm1(t / m)),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_the_comparison_can_fail(wrong: Callable[[float, float, float, float], float]) -> None:
    setting = SETTINGS[3]
    ratio, error, _ = goodput.simulate(*setting, segments=100, runs=2000, generator=np.random.default_rng(1))
    assert abs(ratio - wrong(*setting)) > 6 * error


def test_without_failures_only_saves_cost() -> None:
    assert goodput.goodput(1e15, 40, 300, 3600) == pytest.approx(3600 / 3640, rel=1e-9)
    ratio, error, failures = goodput.simulate(1e15, 40, 300, 3600, segments=50, runs=10, generator=np.random.default_rng(0))
    assert ratio == pytest.approx(3600 / 3640, rel=1e-12) and error < 1e-12 and failures == 0


def test_where_nothing_is_ever_saved_there_is_no_goodput() -> None:
    assert goodput.goodput(1, 1e4, 1e6, 1e4) == 0.0


def rows(capsys: pytest.CaptureFixture[str], *args: str) -> list[dict[str, float]]:
    assert goodput.main([*args, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_more_nodes_save_more_often_and_reach_less(capsys: pytest.CaptureFixture[str]) -> None:
    found = rows(capsys, "--mtbf-h", "1000", "--runs", "200")
    assert [row["nodes"] for row in found] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    for key in ("goodput", "simulated", "daly_s", "young_s", "mtbf_s"):
        assert all(a[key] > b[key] for a, b in pairwise(found)), key
    assert all(abs(row["goodput"] - row["simulated"]) < 4 * row["standard_error"] for row in found)


def test_a_given_interval_is_judged_in_whole_steps(capsys: pytest.CaptureFixture[str]) -> None:
    (best,), (given,) = rows(capsys, "--nodes", "8", "--mtbf-h", "300"), rows(
        capsys, "--nodes", "8", "--mtbf-h", "300", "--interval-s", "100", "--step-s", "7")
    assert best["every_steps"] is None and best["interval_s"] == best["daly_s"] == given["daly_s"]
    assert given["every_steps"] == 14 and given["interval_s"] == 98 and given["goodput"] < best["goodput"]
    assert given["goodput"] == goodput.goodput(300 * 3600 / 8, 40, 300, 98)
    (slow,) = rows(capsys, "--nodes", "8", "--interval-s", "1", "--step-s", "7")
    assert slow["every_steps"] == 1 and slow["interval_s"] == 7


def test_a_line_depends_on_the_seed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    alone, among = rows(capsys, "--nodes", "64"), rows(capsys, "--nodes", "2", "64")
    assert alone[0] == among[1] != rows(capsys, "--nodes", "64", "--seed", "1")[0]


def test_the_table_and_what_is_not_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert goodput.main(["--nodes", "1", "1024", "--mtbf-h", "1"]) == 0
    out, err = capsys.readouterr()
    head, *lines = [re.split(r"  +", line.strip()) for line in out.splitlines()]
    assert tuple(head) == goodput.HEADER and [len(line) for line in lines] == [len(head)] * 2
    assert lines[0][-2] != "-" and lines[1][-2:] == ["-", "-"]
    assert err.startswith("note: 1024 nodes are not simulated: the job fails about every 3.52 s") and err.count("\n") == 1


@pytest.mark.parametrize(("args", "said"), [
    (["--nodes", "0"], "argument --nodes: 0 is not allowed: a whole number, 1 to 1,000,000 nodes"),
    (["--nodes", "8.5"], "argument --nodes: 8.5 is not allowed"), (["--mtbf-h", "0"], "argument --mtbf-h: 0 is not allowed: a number, 0.001 to 1,000,000,000 h"),
    (["--save-s", "-1"], "argument --save-s: -1 is not allowed: a number, 0.001 to 1,000,000,000 s"),
    (["--restart-s", "-0.5"], "argument --restart-s: -0.5 is not allowed"), (["--interval-s", "0"], "argument --interval-s: 0 is"),
    (["--interval-s", "nan"], "argument --interval-s: nan is"), (["--hours", "inf"], "argument --hours: inf is"),
    (["--step-s", "x"], "argument --step-s: x is not"), (["--runs", "1"], "argument --runs: 1 is not"),
    (["--interval-s", "0.001"], "are 604,800,000 segments, allowed: up to 10,000,000 (--hours, --interval-s)"),
    (["--nodez", "2"], "--nodez"),
])
def test_what_cannot_be_is_refused_in_one_line(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: object = goodput.main(args)
    except SystemExit as ended:
        code = ended.code
    out, err = capsys.readouterr()
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_lacks_columns_and_no_number(width: int) -> None:
    row = ("1024", "0.3", "3286", "3260", "3261", "1019", "97.37%", "97.39% ± 0.02%", "104.5")
    lines = goodput.table([goodput.HEADER, row], width)
    assert max(map(len, lines)) <= width and {"1024", "3261", "97.37%"} <= set(lines[1].split())
    assert (len(lines[0].split()) == len(goodput.HEADER)) == (width == 120)


def test_the_commands_in_the_help_run(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    python analysis/goodput\.py (.*)$", goodput.__doc__ or "", re.M)
    assert len(commands) == 2
    for command in commands:
        assert goodput.main(shlex.split(command)) == 0
        assert capsys.readouterr().out


def test_the_readme_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "analysis/README.md").read_text()
    shown = re.search(r"^    \$ python analysis/goodput\.py (.*)\n((?:    .*\n)+)", text, re.M)
    assert shown and goodput.main(shlex.split(shown[1])) == 0
    assert capsys.readouterr().out == re.sub(r"^    ", "", shown[2], flags=re.M)
