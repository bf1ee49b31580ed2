"""Similarity of representations against plain numpy, and against representations whose likeness is known."""

from __future__ import annotations

import csv
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis import embeddings
from analysis.tables.survey.similarity import Grams, Ranked, dissimilarity, pearson, similarities
from analysis.tables.survey.similarity_sheets import _keys
from vidmae.insight.embedding_files import Embeddings, file_path, make_folder, read_embeddings
from vidmae.runs.record import write_json

RNG = np.random.default_rng(7)
N = 12


def song(x: np.ndarray, y: np.ndarray) -> float:
    """HSIC without bias as Song et al. write it, of clips that are all different."""
    n, (k, m) = len(x), (v @ v.T for v in (x, y))
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    return float((np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / (n - 1) / (n - 2) - 2 / (n - 2) * one @ k @ m @ one) / n / (n - 3))


def counted(k: np.ndarray, m: np.ndarray, drawn: list[int]) -> float:
    """The same of clips of which some were drawn several times: means over pairs, triples and quadruples of different clips, one by one."""
    pairs, triples, quadruples = [], [], []
    for i, j in itertools.permutations(range(len(drawn)), 2):
        a, b = drawn[i], drawn[j]
        if a == b:
            continue
        pairs.append(k[a, b] * m[a, b])
        for q in range(len(drawn)):
            c = drawn[q]
            if q in (i, j) or c in (a, b):
                continue
            triples.append(k[a, b] * m[a, c])
            quadruples += [k[a, b] * m[c, drawn[r]] for r in range(len(drawn)) if r not in (i, j, q) and drawn[r] not in (a, b, c)]
    return float(np.mean(pairs) + np.mean(quadruples) - 2 * np.mean(triples))


def test_cka_is_that_of_song_and_nguyen() -> None:
    x, y = RNG.normal(1, 1, (N, 5)), RNG.normal(size=(N, 3))
    y[:, 0] += x[:, 0]
    found = Grams([x, y]).cka(np.ones(N))
    expected = song(x, y) / np.sqrt(song(x, x) * song(y, y))
    np.testing.assert_allclose(found, [[1, expected], [expected, 1]], atol=1e-10)


def test_a_clip_that_was_drawn_twice_is_no_pair_with_itself() -> None:
    x, y = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 4))
    drawn = [0, 1, 1, 2, 3, 5, 5]
    weight = np.bincount(drawn, minlength=7).astype(float)
    grams = Grams([x, y])
    k, m = grams._full
    assert grams.hsic(weight)[0, 1] == pytest.approx(counted(k, m, drawn))
    a, b = dissimilarity(x), dissimilarity(y)
    pairs = [(i, j) for i, j in itertools.combinations(drawn, 2) if i != j]
    expected = spearmanr([a[p] for p in pairs], [b[p] for p in pairs]).statistic
    first, second = np.triu_indices(7, 1)
    of_pairs = weight[first] * weight[second]
    found = pearson(np.stack([Ranked(v).ranks(of_pairs) for v in (a, b)]), of_pairs)
    assert found[0, 1] == pytest.approx(expected)
    zeros = [(i, j) for i, j in itertools.combinations(drawn, 2)]
    assert spearmanr([a[p] for p in zeros], [b[p] for p in zeros]).statistic > expected + 0.05, "their zero distances make all alike"


def test_dissimilarity_is_one_less_the_correlation() -> None:
    x = RNG.normal(3, 2, (N, 9)).astype(np.float32)
    np.testing.assert_allclose(dissimilarity(x), 1 - np.corrcoef(x), atol=1e-6)


def test_equal_representations_are_1_and_independent_ones_are_0_in_the_mean() -> None:
    clips, width = 60, 40
    x = RNG.normal(size=(clips, width))
    turned = 3 * x @ np.linalg.qr(RNG.normal(size=(width, width)))[0] + 5
    noisy, other = x + 0.7 * RNG.normal(size=x.shape), RNG.normal(size=(clips, 200))
    found = similarities([x, turned, noisy, other], resamples=60)
    assert found[0, 1]["cka"].value == pytest.approx(1) and found[0, 1]["cka"].lower > 0.999
    assert 0.3 < found[0, 2]["cka"].value < 0.95 and found[0, 2]["cka"].lower < found[0, 2]["cka"].value < found[0, 2]["cka"].upper
    assert abs(found[0, 3]["cka"].value) < 0.15 and abs(found[0, 3]["rsa"].value) < 0.15
    k, m = (v - v.mean(0) for v in (x, other))
    biased = np.linalg.norm(k.T @ m) ** 2 / np.linalg.norm(k.T @ k) / np.linalg.norm(m.T @ m)
    assert biased > 0.3, "without the correction, few clips of many numbers look alike whatever they are"
    same = similarities([x, x.copy()], resamples=5)[0, 1]
    assert same["rsa"] == pytest.approx((1, 1, 1)) and same["cka"] == pytest.approx((1, 1, 1))
    with pytest.raises(ValueError, match="3 clips are too few"):
        similarities([x[:3], x[:3]])


def test_windows_of_a_recording_say_no_more_than_one() -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 12, 5))
    recording = np.repeat(np.arange(12), 4)
    both = [v[recording] + 0.05 * rng.normal(size=(48, 5)) for v in (x, x + noise)]
    ends = {name: similarities(both, recording=of, resamples=60)[0, 1]["cka"] for name, of in (("recordings", recording), ("windows", None))}
    widths = {name: found.upper - found.lower for name, found in ends.items()}
    assert ends["recordings"].value == ends["windows"].value and widths["recordings"] > 1.4 * widths["windows"], widths
    few = similarities([v[:20] for v in both], recording=recording[:20], resamples=20)[0, 1]
    assert np.isfinite(few["rsa"].value) and np.isnan([few["rsa"].lower, few["cka"].upper]).all(), "five recordings"


@pytest.mark.slow
def test_the_interval_holds_the_likeness_of_many_clips() -> None:
    def pair(clips: int, seed: int) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(clips, 6))
        return [x, 0.8 * x + 0.6 * rng.normal(size=x.shape)]

    truth = similarities(pair(600, 0), resamples=0)[0, 1]
    held = [[found[m].lower <= truth[m].value <= found[m].upper for m in ("cka", "rsa")]
            for seed in range(1, 26) for found in [similarities(pair(50, seed), resamples=80)[0, 1]]]
    assert (np.mean(held, axis=0) > 0.7).all(), np.mean(held, axis=0)


def write(out: Path, content: np.ndarray, features: np.ndarray, layers: list[int], **windows: np.ndarray) -> Path:
    make_folder(out)
    of_layers = {f"layer_{kind}": features for kind in ("cls", "mean")} if layers else {}
    last = features[:, -1]
    Embeddings(content, np.full(len(content), -1), last, last, **of_layers, **windows).write(file_path(out, 0, 1))
    write_json(out / "result.json", {"schema": 1, "kind": "embed", "data": "toys", "clips": len(content), "files": 1, "classes": {},
                                     "weights_content": "ab12", "unreadable": {}, **({"layers": layers} if layers else {})})
    return out


def test_the_command_compares_layers_and_models_over_the_clips_that_all_have(tmp_path, capsys) -> None:
    content = np.arange(40, dtype=np.uint64)
    first = RNG.normal(size=(40, 2, 5)).astype(np.float32)
    a = write(tmp_path / "a", content, first, [2, 4])
    order = RNG.permutation(40)[:30]
    b = write(tmp_path / "b", content[order], first[order], [])
    args = [str(a), str(b), "--similarity", "--out", str(tmp_path / "out"), "--json"]
    assert embeddings.main(args) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["similarity.csv", "similarity.png", "similarity.svg"] == sorted(
        Path(f).name for f in printed["files"])
    with (tmp_path / "out/similarity.csv").open() as lines:
        rows = {(r["a"], r["b"], r["measure"]): r for r in csv.DictReader(lines)}
    assert len(rows) == 3 * 2 and rows["a mean 4", "b mean", "cka"]["clips"] == "30"
    assert [float(rows["a mean 4", "b mean", m]["value"]) for m in ("cka", "rsa")] == pytest.approx([1, 1]), "its last block, clip by clip"
    assert float(rows["a mean 2", "a mean 4", "cka"]["value"]) < 0.5
    svg = (tmp_path / "out/similarity.svg").read_text()
    assert all(name in svg for name in ("a mean 2", "b mean", "linear CKA", "RSA"))
    assert embeddings.main([*args, "--clips", "20", "--feature", "both", "--no-pictures"]) == 0
    said = capsys.readouterr()
    assert "20 of 30 common clips" in said.err and len(json.loads(said.out)["similarity"]) == 15 * 2
    apart = write(tmp_path / "c", content + np.uint64(100), first, [2, 4])
    for wrong, words in (([str(a), str(apart), *args[2:]], "no clip in common"), ([str(b), *args[2:]], "nothing to compare"),
                         ([str(a), str(b), "--out", str(tmp_path / "out")], "one at a time"), ([*args, "--clips", "3"], "--clips 3 must be")):
        assert embeddings.main(wrong) == 2 and words in capsys.readouterr().err


def test_windows_of_a_recording_are_told_apart_by_their_start(tmp_path, capsys) -> None:
    content, starts = np.repeat(np.arange(4, dtype=np.uint64), 5), np.tile(np.arange(5.0), 4)
    features = RNG.normal(size=(20, 2, 3)).astype(np.float32)
    where = {"row": np.repeat(np.arange(4), 5), "start_s": starts}
    a = write(tmp_path / "a", content, features, [1, 2], **where)
    assert embeddings.main([str(a), "--similarity", "--no-pictures", "--out", str(tmp_path / "out")]) == 0
    assert "\na mean 1,a mean 2,cka" in (tmp_path / "out/similarity.csv").read_text() and ",20\n" in (tmp_path / "out/similarity.csv").read_text()
    said = " ".join(capsys.readouterr().err.split())
    assert "95 % interval over 4 recordings" in said and "[" not in said.split("interval", 1)[1].split("cka: linear")[0]
    clips = write(tmp_path / "b", np.arange(4, dtype=np.uint64), features[::5], [1, 2])
    with_length = json.loads((a / "result.json").read_text()) | {"window_s": 4.0}
    write_json(a / "result.json", with_length)
    assert embeddings.main([str(a), str(clips), "--similarity", "--no-pictures", "--out", str(tmp_path / "out")]) == 2
    assert "the windows of the folders differ in length: a 4 s, b none; allowed: one length" in capsys.readouterr().err
    assert not set(_keys(read_embeddings(a)[0])) & set(_keys(read_embeddings(clips)[0])), "a clip is not its first window"
    args = [str(a), "--no-pictures", "--out", str(tmp_path / "near"), "--queries", "2"]
    assert embeddings.main(args) == 3
    with (tmp_path / "near/neighbours.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert {row["start_s"] for row in rows} == {"0", "4"} and {row["neighbour_start_s"] for row in rows} <= {"0", "1", "2", "3", "4"}
    capsys.readouterr()
    assert embeddings.main([*args, "--frames", "toys.csv"]) == 2 and "holds windows; allowed: features without" in capsys.readouterr().err
    found = replace(read_embeddings(a)[0], label=np.repeat([0, 0, 1, 1], 5).astype(np.int32))
    sheet = embeddings.scores_sheet(found, {"data": "toys", "weights_content": "ab12"})
    assert sheet.records.set_index(["feature", "score"])["value"]["mean"].isna()["silhouette"] and any("windows" in each for each in sheet.footer)
