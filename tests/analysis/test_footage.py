"""Tables and figures of footage: numbers of hand-made recordings, the same bytes twice, and no name or frame in them."""

import csv
import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import footage
from analysis.tables.survey.moments import Group, above, mean, quantiles, resampled
from analysis.tables.survey.repeated_views import Repeats, distance, repeats
from tests.support.facilities import need
from tests.support.launching import cli
from tests.support.videos import X264, ffmpeg
from vidmae.footage.manifest import Check, read_all, write_manifest

WINGS = ("--workers", "1", "--sample", "6")


def group(hashes: list[str], of: list[int], second: list[float], contrast: list[float] | None = None) -> Group:
    seconds = np.full(max(of) + 1, 60.0)
    moments = pd.DataFrame({"hash": hashes, "second": second, "contrast": contrast or [50.0] * len(hashes)})
    counts = np.bincount(of)
    return Group("s", "all", seconds, np.full(len(seconds), np.nan), np.arange(len(seconds), dtype=np.uint64), moments,
                 (seconds / counts)[of], np.array(of))


def test_repeats_are_counted_by_brute_force():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    flips = [sum(1 << int(bit) for bit in rng.choice(64, n, replace=False)) for n in (0, 3, 6, 7, 9)]
    hashes = [int(each) for each in base] + [int(base[i]) ^ flip for i, flip in enumerate(flips)] + [int(base[6])]
    of = [i % 4 for i in range(40)] + [0, 1, 2, 3, 0, 2]
    second = [float(i) for i in range(40)] + [100.0] * 5 + [9.0]
    found = repeats(group([f"{h:016x}" for h in hashes], of, second), 0)
    alike = {(i, j) for i, j in itertools.permutations(range(len(hashes)), 2) if f"{hashes[i] ^ hashes[j]:b}".count("1") <= 6}
    within = {i for i, j in alike if of[i] == of[j] and abs(second[i] - second[j]) >= 10}
    across = {i for i, j in alike if of[i] != of[j]}
    counts = np.bincount(of)
    share = {name: 100 * sum(1 / counts[of[i]] for i in hits) / 4 for name, hits in (("within", within), ("across", across))}
    assert within == {0, 40, 1, 41, 2, 42} and not across, "0, 3 and 6 bits are near, 7 and 9 are not; 3 s are not apart enough"
    assert found == Repeats(pytest.approx(share["within"]), pytest.approx(share["across"]), 0.0, 0)


def test_copies_dark_moments_and_bits():
    dark = repeats(group(["0" * 16] * 4, [0, 0, 1, 1], [0, 30, 0, 30], [2.0, 2.0, 50.0, 50.0]), 0)
    assert dark == Repeats(100.0, 0.0, 50.0, 0), "dark moments are neither repeats nor counted"
    numbers = np.random.default_rng(3).integers(0, 2**63, 50, dtype=np.uint64)
    by_text = [[f"{int(a) ^ int(b):b}".count("1") for b in numbers] for a in numbers]
    assert distance(numbers[:, None], numbers[None]).tolist() == by_text


def test_a_second_counts_as_a_second():
    values, weight = np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 8.0])
    assert quantiles(values, weight, np.array([0.05, 0.1, 0.2, 0.21, 0.5])).tolist() == [1, 1, 2, 3, 3]
    two = group(["0" * 16] * 3, [0, 0, 1], [0, 1, 2])
    assert mean(np.array([0.0, 0.0, 1.0]), two) == 0.5
    assert above(np.array([2.0]), np.ones(1), np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 2.0])) == pytest.approx(0.375)
    assert np.isnan(resampled(np.ones(3), two, 0)).all(), "two recordings say nothing of others"
    many = group(["0" * 16] * 40, list(range(40)), [0.0] * 40)
    drawn = resampled(np.arange(40.0), many, 0)
    assert drawn.mean() == pytest.approx(19.5, abs=0.3) and drawn.std() == pytest.approx(np.arange(40).std() / 40**0.5, rel=0.15)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """Child A: a moving and a still recording and its copy; child B: a still one. And the demo's clips."""
    need("ffmpeg")
    folder = tmp_path_factory.mktemp("footage")
    (folder / "secret").mkdir()
    source = ["-f", "lavfi", "-i", "testsrc2=size=160x120:rate=30:duration=12"]
    ffmpeg(*source, "-vf", "scroll=h=0.02", *X264, folder / "secret/moving.mp4")
    ffmpeg(*source, "-vf", "select=eq(n\\,7),loop=loop=359:size=1:start=0,setpts=N/30/TB", *X264, folder / "secret/still.mp4")
    ffmpeg("-i", folder / "secret/still.mp4", "-vf", "eq=brightness=0.05", *X264, folder / "secret/alike.mp4")
    (folder / "about.csv").write_text("file,child,age_months\nmoving,A,7.5\nstill,A,9\nalike,B,30\n")
    made = cli("prepare.py", "manifest", "secret", "--name", "s", "--about", "about.csv", "--workers", "1", cwd=folder)
    assert made.returncode == 0, made.stderr
    return folder


def test_the_tables_say_what_was_made(here, monkeypatch, capsys):
    done = cli("analysis/footage.py", "s", "--out", "tables", *WINGS, cwd=here)
    assert done.returncode == 0, done.stderr
    lines = {line["child"]: line for line in csv.DictReader((here / "tables/footage.csv").open())}
    assert list(lines) == ["all", "A", "B"]
    number = {child: {name: float(value) for name, value in line.items() if name not in ("data", "child") and value != "--"} for child, line in lines.items()}
    assert number["all"]["recordings"] == 3 and number["A"]["hours"] == pytest.approx(24 / 3600) and number["A"]["age_from_months"] == 7.5
    assert number["A"]["static_pct"] == 50 and number["B"]["static_pct"] == 100 and number["all"]["static_pct"] == pytest.approx(200 / 3)
    assert number["all"]["repeats_across_pct"] == pytest.approx(200 / 3), "the still one and that which was made brighter"
    assert number["A"]["repeats_across_pct"] == 0 and number["B"]["brightness"] > number["A"]["brightness"]
    assert number["B"]["repeats_within_pct"] == pytest.approx(100 * 2 / 6), "the first and the last moment are 10 s apart"
    every = list((here / "tables").iterdir())
    assert {path.stem for path in every if path.suffix == ".png"} == {f"footage-{name}" for name in (
        "motion", "change", "sharpness", "brightness", "contrast", "length", "hours", "repeats", "age")}
    assert not any(b"secret" in path.read_bytes() or b"<image" in path.read_bytes() for path in every) and "secret" not in done.stderr
    assert all(struct.unpack(">II", path.read_bytes()[16:24])[0] > 300 for path in every if path.suffix == ".png")
    before = {path.name: path.read_bytes() for path in every}
    monkeypatch.chdir(here)
    assert footage.main(["s", "--out", "tables", *WINGS]) == 0
    assert "recordings" not in capsys.readouterr().err.split("footage by")[0], "nothing is looked at twice"
    assert footage.main(["s", "--out", "anew", *WINGS, "--no-figures", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 6
    assert {path.name: path.read_bytes() for path in (here / "tables").iterdir()} == before
    assert {path.name: path.read_bytes() for path in (here / "anew").iterdir()}.items() <= before.items()


def test_two_data_sets_beside_each_other_and_misuse(here, monkeypatch, capsys):
    rows = read_all(here / "manifests/s.csv")[1]
    write_manifest(here / "manifests/films.csv", [row for row in rows if "moving" in row.path], [], Check("auto", True))
    done = cli("analysis/footage.py", "s", "films", "--out", "both", "--no-figures", *WINGS, cwd=here)
    assert done.returncode == 0, done.stderr
    lines = {line["measure"]: line for line in csv.DictReader((here / "both/footage-difference.csv").open())}
    assert float(lines["static_pct"]["s"]) == pytest.approx(200 / 3, abs=0.01) and float(lines["static_pct"]["films"]) == 0
    assert lines["motion_pct_per_s"]["low"] == "--", "three recordings claim no interval"
    for words, said in ((["nothing"], "there is no manifest"), (["s", "s", "s"], "3 data sets"), (["s", "s"], "both data sets are called s"),
                        (["s", "--sample", "0"], "--sample 0")):
        monkeypatch.chdir(here)
        assert footage.main([*words, "--out", "wrong"]) == 2 and said in capsys.readouterr().err
