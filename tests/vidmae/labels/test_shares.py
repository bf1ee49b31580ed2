"""Shares of every class: their size, nested, and the same on every rank, where the released code drew on each by itself."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from jobs import prepare
from tests.support.labelled import write_labelled
from tests.support.ranks import run_ranks
from vidmae.footage.manifest import Check, Row, write_manifest
from vidmae.labels.shots import ShotsError, draw_fractions, draw_shots, read_shots, rows_of, shots_path, write_shots
from vidmae.labels.splits import read_labelled
from vidmae.settings.config import ConfigError
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import build, parse_set, to_dict, to_yaml

SIZES = {"a": 1300, "b": 732, "c": 25, "d": 3}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    draw = random.Random(0)
    rows = [Row(f"/p/{label}/{i}.jpg", label, 1, 0.25, 4.0, 9, 4, 4, "jpeg", 0, 0, 0, f"{draw.randrange(2**64):016x}", 1, "pillow")
            for label, count in SIZES.items() for i in range(count)]
    write_manifest(tmp_path / "p.csv", sorted(rows, key=lambda row: row.path), [], Check("pillow", True))
    return tmp_path / "p.csv"


def test_a_share_is_rounded_of_each_class_and_lies_within_larger_ones(manifest: Path) -> None:
    labelled = read_labelled(manifest)
    shares = (0.01, 0.02, 0.05, 0.1)
    found = draw_fractions(labelled, shares, 0)
    assert [{label: len(clips) for label, clips in subset.clips.items()} for subset in found] == [
        {"a": 13, "b": 7, "c": 1, "d": 1}, {"a": 26, "b": 15, "c": 1, "d": 1}, {"a": 65, "b": 37, "c": 1, "d": 1},
        {"a": 130, "b": 73, "c": 3, "d": 1}]
    for few, many in pairwise(found):
        assert all(clips == many.clips[label][:len(clips)] for label, clips in few.clips.items())
    (shots,) = draw_shots(labelled, [3], 0)
    assert found[3].clips["c"] == shots.clips["c"], "one order for shots and shares"
    assert draw_fractions(labelled, [0.02], 1)[0].clips["a"] != found[1].clips["a"]
    assert len(rows_of(found[1], labelled)) == len(found[1]) == 43
    for wrong in (0.0, 1.0, -0.1, 1.5):
        with pytest.raises(ShotsError, match="above 0 and below 1"):
            draw_fractions(labelled, [wrong], 0)


def test_a_share_is_a_file_beside_the_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main(["shots", str(manifest), "--fractions", "0.02,0.010147", "--seed", "3"]) == 0
    told = capsys.readouterr()
    paths = [manifest.with_name(f"p.shots{amount}-seed3.json") for amount in ("2pct", "1.0147pct")]
    assert told.out.split() == list(map(str, paths)) and "2 %: 43 clips of 4 classes" in told.err
    subset = read_shots(paths[0])
    assert (subset.shots, subset.fraction, subset.seed) == (0, 0.02, 3) and shots_path(manifest, 0, 3, 0.02) == paths[0]
    for flags in (["--fractions", "2"], ["--fractions", "x"], [], ["--shots", "2", "--fractions", "0.1"]):
        try:
            code = prepare.main(["shots", str(manifest), *flags])
        except SystemExit as left:
            code = int(str(left.code))
        assert code == 2, flags


def test_four_ranks_learn_from_the_same_share_as_one(tmp_path: Path) -> None:
    """The regression: the released code's ranks drew each its own 2 %, so four of them saw 7.76 % of the labels."""
    manifest = write_labelled(tmp_path, per_class=500, val_per_class=2)
    labelled = read_labelled(manifest)
    (subset,) = draw_fractions(labelled, [0.02], 0)
    write_shots(path := shots_path(manifest, 0, 0, 0.02), subset)
    config = build(FinetuneConfig, parse_set([f"data.manifest={manifest}", f"data.val_manifest={tmp_path / 'toys-val.csv'}",
                                              f"data.subset={path}", "data.shots=0", "data.fraction=0.02"]))[0]
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    one, four = (run_ranks("tests.support.programs.shares", str(tmp_path / "config.yaml"), world_size=n) for n in (1, 4))
    assert all(rank == one[0] for rank in four) and sorted(one[0]) == sorted(c for clips in subset.clips.values() for c in clips)
    assert len(set().union(*four)) == 30 == 0.02 * len(labelled)


def test_a_share_of_nothing_leaves_signatures_alone() -> None:
    assert "fraction" not in to_dict(FinetuneConfig(), signed_only=True)["data"]
    signed = to_dict(build(FinetuneConfig, parse_set(["data.shots=0", "data.fraction=0.02"]))[0], signed_only=True)
    assert signed["data"]["fraction"] == 0.02
    for wrong in (["data.fraction=0.02"], ["data.shots=0", "data.fraction=1"]):
        with pytest.raises(ConfigError, match=r"data\.fraction"):
            build(FinetuneConfig, parse_set(wrong))
