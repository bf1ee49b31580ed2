"""Fractions of a recording history: the known counts, nested, whole recordings, ages spread, and manifests like any other."""

import json
import math
import random
import re
from collections import Counter
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.support.launching import cli
from vidmae.footage import manifest as m
from vidmae.footage.history import Choice, beginning, fraction_path, parse_hours, parse_share, read_history, spread_order
from vidmae.footage.manifest import Check, Manifest, Row, read_summary
from vidmae.footage.recordings import ONE_EACH, SAYCAM, read_names

SHARES = ["0.001", "0.01", "0.1", "1"]
START = datetime(2013, 4, 17, 6, 26)


def saycam_names(videos: int, child: str = "S", parts: int = 60, every_days: int = 3) -> list[str]:
    """Names of the form of SAYCam's: recordings of up to an hour, a minute each, every few days."""
    names, rng = [], random.Random(videos)
    for number in range(10**6):
        start = START + timedelta(days=every_days * number, minutes=rng.randrange(600))
        for part in range(min(parts, videos - len(names))):
            names.append(f"{child}_{start:%Y%m%d_%H%M}_{number % 3 + 1:02d}_segment{part}.mp4")
        if len(names) == videos:
            return names
    raise AssertionError


def write(folder: Path, names: list[str], seconds: float = 60.0, name: str = "s") -> Path:
    rows = [Row(f"/data/{text}", "", 1800, 30.0, seconds, 1000, 64, 48, "h264", 0, 1, 0, f"{i:016x}", 17, "decord")
            for i, text in enumerate(names, 1)]
    out = folder / f"{name}.csv"
    m.write_manifest(out, sorted(rows, key=lambda row: row.path), [], Check("decord", True))
    return out


@pytest.fixture(scope="module")
def child_s(tmp_path_factory) -> Path:
    """As many segments as child S has, in a list that is not in order."""
    names = saycam_names(10_496)
    random.Random(1).shuffle(names)
    return write(tmp_path_factory.mktemp("s"), names)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("small"), saycam_names(300, parts=7))


def names_of(rows) -> list[str]:
    return [Path(row.path).name for row in rows]


def test_the_known_counts_of_child_s_and_the_earliest_recordings(child_s):
    history = read_history(child_s, Choice())
    found = [names_of(beginning(history.rows, parse_share(share))) for share in SHARES]
    assert [len(names) for names in found] == [11, 105, 1050, 10_496]
    everything = sorted(saycam_names(10_496))
    assert all(names == everything[:len(names)] for names in found)


@pytest.mark.parametrize(("share", "videos", "count"), [("0.07", 100, 7), ("0.1", 1000, 100), ("1e-9", 100, 1), ("1/3", 100, 34)])
def test_a_share_is_exact_and_never_nothing(share, videos, count):
    assert len(beginning([None] * videos, parse_share(share))) == count  # in floating point 0.07 * 100 is more than 7


@pytest.mark.parametrize("subset", ["contiguous", "random", "spread"])
def test_smaller_fractions_lie_within_larger_ones_and_all_have_their_share(child_s, subset):
    history = read_history(child_s, Choice(subset))
    found = [set(names_of(beginning(history.rows, parse_share(share)))) for share in SHARES]
    assert [len(names) for names in found] == [11, 105, 1050, 10_496]
    assert found[0] < found[1] < found[2] < found[3]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_random_keeps_recordings_together_and_cuts_at_most_the_last(small, seed):
    order = read_history(small, Choice("random", seed))
    parts = [part for part in order.parts if part]
    whole = Counter(part.recording for part in parts)
    for share in ("0.01", "0.1", "0.5"):
        count = len(beginning(order.rows, parse_share(share)))
        drawn = Counter(part.recording for part in parts[:count])
        assert sum(drawn[name] < whole[name] for name in drawn) <= 1
    assert [part.part for part in parts[:7]] == list(range(7))
    names = names_of(order.rows)
    assert names != names_of(read_history(small, Choice("random", seed + 1)).rows) and sorted(names) == sorted(saycam_names(300, parts=7))


def test_the_draw_depends_on_names_alone(small, tmp_path):
    moved = write(tmp_path, list(reversed(saycam_names(300, parts=7))))
    rows = [replace(row, path=row.path.replace("/data", "/else/where")) for row in m.read_all(moved)[1]]
    m.write_manifest(moved, rows, [], Check("decord", True))
    for subset in ("contiguous", "random", "spread"):
        assert names_of(read_history(moved, Choice(subset)).rows) == names_of(read_history(small, Choice(subset)).rows)


def test_every_recording_is_as_likely(small):
    first = Counter(read_history(small, Choice("random", seed)).parts[0].recording for seed in range(60))
    assert len(first) > 20 and max(first.values()) < 10  # of 43 recordings


def brute_force_spread(ages: list[float]) -> list[int]:
    """What `spread_order` says, word for word."""
    free, order = list(range(len(ages))), []
    for i in range(1, len(ages) + 1):
        target = ages[0] + (ages[-1] - ages[0]) * sum((i >> bit & 1) / 2 ** (bit + 1) for bit in range(40))
        order.append(min(free, key=lambda j: (abs(ages[j] - target), ages[j], j)))
        free.remove(order[-1])
    return order


@pytest.mark.parametrize("seed", range(6))
def test_spread_is_its_definition(seed):
    rng = random.Random(seed)
    ages = sorted(rng.randrange(8 * 10**seed) / 8 for _ in range(200))
    assert spread_order(np.array(ages)) == brute_force_spread(ages)


def test_spread_covers_all_ages_where_recordings_crowd_at_the_start(tmp_path):
    names = saycam_names(3000, parts=1000) + saycam_names(300, parts=1, every_days=9)
    history = read_history(write(tmp_path, sorted(set(names))), Choice("spread"))
    ages = np.array(history.ages)
    first = ages[:len(beginning(history.rows, parse_share("0.01")))]
    assert len(first) == math.ceil(len(set(names)) * 0.01)
    counts, _ = np.histogram(first, bins=4, range=(ages.min(), ages.max()))
    assert counts.min() >= 7  # nine in ten videos are of the first week
    gaps = np.diff(np.sort(np.concatenate([first, [ages.min(), ages.max()]])))
    assert gaps.max() < 2.5 * (ages.max() - ages.min()) / len(first)


def test_hours_take_as_many_videos_as_make_them_up(small):
    history = read_history(small, Choice())
    for hours, count in ((1, 60), (1.001, 61), (0.0001, 1), (5, 300)):
        assert len(beginning(history.rows, parse_hours(str(hours)))) == count
    with pytest.raises(ValueError, match=re.escape("--hours 5.1 is more than the 5.00 h")):
        beginning(history.rows, parse_hours("5.1"))


def test_a_content_counts_once(tmp_path):
    rows = m.read_all(write(tmp_path, saycam_names(100)))[1]
    twice = [*rows, *(replace(row, path=f"/data/zz{i}.mp4") for i, row in enumerate(rows[:50]))]
    path = tmp_path / "twice.csv"
    m.write_manifest(path, twice, [], Check("decord", True))
    history = read_history(path, Choice())
    assert history.repeated == 50 and len(beginning(history.rows, parse_share("0.1"))) == 10
    assert not any("zz" in row.path for row in history.rows)


def test_what_names_say():
    good, bare, wrong, other = read_names(["/a/b/S_20130417_0626_01_segment12.mp4", "x.mp4", "S_20131317_0626_01_segment1.mp4",
                                           "A_20130417_2630_01_segment1.webm"])
    assert (good.recording, good.child, good.when, good.part) == ("S_20130417_0626_01", "S", datetime(2013, 4, 17, 6, 26), 12)
    assert bare is None and wrong.when is None and other.when is None
    day, = read_names(["kid7 2020-02-29 take3.mkv"], r"(?P<recording>kid(?P<child>\d) (?P<date>[-\d]+)) take(?P<part>\d)")
    assert (day.when, day.child, day.part) == (datetime(2020, 2, 29), "7", 3)


def test_ages_are_of_each_child(tmp_path):
    path = write(tmp_path, saycam_names(60, parts=2) + saycam_names(40, "A", parts=2, every_days=1))
    ages = dict(zip(names_of(read_history(path, Choice()).rows), read_history(path, Choice()).ages, strict=True))
    assert min(ages.values()) == 0 and min(age for name, age in ages.items() if name[0] == "A") == 0
    born = read_history(path, Choice(born={"S": date(2012, 1, 1), "A": date(2013, 4, 17)}))
    known = dict(zip(names_of(born.rows), born.ages, strict=True))
    name = saycam_names(60, parts=2)[0]
    assert int(known[name]) == (date(2013, 4, 17) - date(2012, 1, 1)).days == 472
    with pytest.raises(ValueError, match=r"child A is recorded 1 days before 2013-04-18 \(--born\)"):
        read_history(path, Choice(born={"": date(2013, 4, 18)}))


def run(*words: object, cwd: Path) -> tuple[int, list[str], str]:
    done = cli("prepare.py", "fraction", *map(str, words), cwd=cwd)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_the_command_writes_manifests_that_are_read_as_any_other(small, tmp_path):
    code, out, said = run(small, "--fractions", "0.01,0.1,1", "--hours", "1", "--out", tmp_path / "m", cwd=tmp_path)
    assert code == 0, said
    names = ["s-0.01-contiguous.csv", "s-0.1-contiguous.csv", "s-1-contiguous.csv", "s-1h-contiguous.csv"]
    assert out == [str(tmp_path / "m" / name) for name in names]
    assert "0.1: 30 of 300 videos, 0.50 of 5.00 h, 5 recordings, 5 recording days, 0 to 12 days since first recording" in said
    assert "S_2013" not in said  # names are private
    manifest, whole = Manifest.read(Path(out[1])), read_summary(small)
    assert [Path(manifest.path(i)).name for i in range(30)] == sorted(saycam_names(300, parts=7))[:30]
    assert read_summary(Path(out[2])).content_sha256 == whole.content_sha256
    assert read_summary(Path(out[3])).hours == pytest.approx(1) and len(Manifest.read(Path(out[3]))) == 60
    record = json.loads(Path(out[1]).with_suffix(".json").read_text())
    assert record["verified"] and record["decoder"] == "decord" and record["decoders"] == {"decord": record["videos"]}
    assert record["fraction"] == {
        "of": "s", "of_content_sha256": whole.content_sha256, "of_videos": 300, "of_hours": 5.0, "has_hours": 0.5, "share": 0.1, "hours": None,
        "subset": "contiguous", "seed": None, "children": ["S"], "recordings": 5, "days": 5, "age_since": "first recording",
        "age_days": [0.0, pytest.approx(12, abs=0.5)]}
    assert "fraction" not in json.loads(small.with_suffix(".json").read_text())
    launched = cli("pretrain.py", "--recipe", "demo", "--data", out[1], "--dry-run", "--cluster", "local", "--gpus-per-node", "0",
                   "--cpus-per-task", "1", cwd=tmp_path)
    assert launched.returncode == 0 and "s-0.1-contiguous" in launched.stderr, launched.stderr


def test_random_has_its_seed_in_the_name(small, tmp_path):
    code, out, said = run(small, "--fractions", "0.1", "--subset", "random", "--seed", "3", "--out", tmp_path, cwd=tmp_path)
    assert code == 0, said
    assert out == [str(tmp_path / "s-0.1-random-seed3.csv")]
    assert read_summary(Path(out[0])).fraction["seed"] == 3
    assert fraction_path(small, parse_share("0.10"), Choice("random")).name == "s-0.1-random-seed0.csv"


def test_other_names(tmp_path):
    path = write(tmp_path, [f"clip {i}.mp4" for i in range(40)], name="k")
    code, out, said = run(path, "--fractions", "0.5", cwd=tmp_path)
    assert code == 0 and read_summary(Path(out[0])).fraction["recordings"] is None and "recordings" not in said
    for subset in ("random", "spread"):
        code, out, said = run(path, "--fractions", "0.5", "--subset", subset, cwd=tmp_path)
        assert code == 2 and not out and "40 of 40 names" in said and SAYCAM in said and "--pattern" in said
        assert "clip" not in said
    code, out, said = run(path, "--fractions", "0.5", "--subset", "random", "--pattern", ONE_EACH, cwd=tmp_path)
    assert code == 0 and len(Manifest.read(Path(out[0]))) == 20


@pytest.mark.parametrize(("words", "said"), [
    ([], "--fractions 0.001"), (["--fractions", "0"], "--fractions 0 "), (["--fractions", "1.5"], "up to 1"),
    (["--fractions", "nan"], "nan"), (["--fractions", "-0.1"], "--fractions"), (["--fractions", "a"], "not a number"),
    (["--hours", "0"], "--hours 0"), (["--hours", "99"], "5.00 h"), (["--hours", "inf"], "--hours inf"),
    (["--fractions", "0.1", "--seed", "1"], "--subset random"),
    (["--fractions", "0.1", "--subset", "random", "--seed", "-1"], "--seed -1"),
    (["--fractions", "0.1", "--subset", "random", "--pattern", "("], "regular expression"),
    (["--fractions", "0.1", "--pattern", ".*"], "(?P<recording>"), (["--fractions", "0.1", "--born", "2013"], "2012-01-01")])
def test_misuse_is_exit_2_and_says_why(small, tmp_path, capsys, words, said):
    from jobs import prepare

    try:
        code = prepare.main(["fraction", str(small), *words, "--out", str(tmp_path)])
    except SystemExit as left:
        code = int(left.code)
    out, err = capsys.readouterr()
    assert code == 2 and said in err and not out and not list(tmp_path.iterdir())


def test_a_fraction_of_hours_counts_what_the_videos_last(tmp_path):
    rng = random.Random(0)
    rows = [replace(row, seconds=rng.uniform(5, 200)) for row in m.read_all(write(tmp_path, saycam_names(200)))[1]]
    path = tmp_path / "u.csv"
    m.write_manifest(path, rows, [], Check("decord", True))
    history = read_history(path, Choice("random", 5))
    chosen = beginning(history.rows, parse_hours("2"))
    total = math.fsum(row.seconds for row in chosen)
    assert total >= 7200 > total - chosen[-1].seconds
