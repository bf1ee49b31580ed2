"""What is made of features: neighbours and scores against counting, pictures, and what is said of clips without labels."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis import embeddings
from analysis.tables.survey.neighbours.embedding_pictures import coloured
from analysis.tables.survey.neighbours.nearest import nearest, precisions, silhouette
from tests.support.runs import make_labelled
from vidmae.footage.manifest import Manifest, read_all
from vidmae.insight.embedding_files import Embeddings, file_path, make_folder
from vidmae.runs.record import write_json

RNG = np.random.default_rng(3)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def clips(per_class: int, classes: int, width: int = 12, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    label = np.repeat(np.arange(classes), per_class)
    features = RNG.normal(size=(classes, width))[label] + spread * RNG.normal(size=(len(label), width))
    return features.astype(np.float32), np.arange(100, 100 + len(label)).astype(np.uint64), label


def write(out: Path, features: np.ndarray, content: np.ndarray, label: np.ndarray, names: dict[str, str] | None = None) -> Path:
    make_folder(out)
    half = len(content) // 2
    for number, rows in enumerate((slice(0, half), slice(half, None))):
        Embeddings(content[rows], label[rows], features[rows], features[rows][:, ::-1]).write(file_path(out, number, 2))
    write_json(out / "result.json", {"schema": 1, "kind": "embed", "data": "toys", "clips": len(content), "files": 2,
                                     "classes": names or {}, "weights_content": "ab12", "unreadable": {}})
    return out


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_neighbours_and_precision_against_counting():
    features, content, label = clips(8, 5)
    features[7], content[7] = features[3], content[3]  # a copy
    found, alike = nearest(features, content, 10)
    hits = {k: [] for k in (1, 5, 10)}
    for i in range(len(label)):
        others = [j for j in range(len(label)) if content[j] != content[i]]
        others.sort(key=lambda j: -cosine(features[i], features[j]))
        assert found[i].tolist() == others[:10]
        assert alike[i] == pytest.approx([cosine(features[i], features[j]) for j in others[:10]], abs=1e-6)
        for k, of_k in hits.items():
            of_k.append(sum(label[j] == label[i] for j in others[:k]) / k)
    scores = {p.at: p for p in precisions(features, content, label)}
    assert {k: p.value for k, p in scores.items()} == pytest.approx({k: np.mean(v) for k, v in hits.items()})
    alone = [sum(label[j] == label[i] and content[j] != content[i] for j in range(40)) for i in range(40)]
    assert scores[1].chance == pytest.approx(np.mean([a / (38 if i in (3, 7) else 39) for i, a in enumerate(alone)]))
    assert scores[10].ceiling == pytest.approx(np.mean(alone) / 10) and scores[5].ceiling == 1
    some = np.array([2, 30])
    assert nearest(features, content, 4, some)[0].tolist() == found[some, :4].tolist()


def test_precision_is_one_for_classes_apart_and_chance_for_noise():
    features, content, label = clips(12, 4, spread=0.01)
    assert [p.value for p in precisions(features, content, label)] == [1, 1, 1]
    assert silhouette(features, label)[0] > 0.95
    mixed = RNG.permutation(np.repeat(np.arange(4), 100))
    noise = precisions(RNG.normal(size=(400, 8)).astype(np.float32), np.arange(400).astype(np.uint64), mixed)[2]
    assert noise.value == pytest.approx(noise.chance, abs=0.03) and noise.chance == pytest.approx(99 / 399)


def test_silhouette_against_its_definition():
    features, _, label = clips(6, 3)
    label[0] = 9  # alone in its class: scores 0
    apart = np.array([[1 - cosine(a, b) for b in features] for a in features])
    scores = []
    for i in range(len(label)):
        own = (label == label[i]) & (np.arange(len(label)) != i)
        near = min(apart[i, label == other].mean() for other in set(label) - {label[i]})
        scores.append((near - apart[i, own].mean()) / max(near, apart[i, own].mean()) if own.any() else 0.0)
    assert silhouette(features, label) == (pytest.approx(np.mean(scores), abs=1e-5), len(label))
    assert silhouette(features, np.zeros(18, int)) is None and silhouette(features, np.arange(18)) is None


def test_too_few_clips_have_no_score():
    features, content, label = clips(3, 2)
    assert [p.at for p in precisions(features, content, label)] == [1, 5]
    assert precisions(features[:1], content[:1], label[:1]) == [] and nearest(features[:1], content[:1], 5)[0].shape == (1, 0)
    places, alike = nearest(features[:3], np.array([1, 1, 2], np.uint64), 5)
    assert places.tolist() == [[2, -1], [2, -1], places[2].tolist()] and np.isnan(alike[0, 1])


def test_tables_and_pictures_of_more_classes_than_colours(tmp_path, capsys):
    features, content, label = clips(6, 23)
    label[label == 22] = -1
    folder = write(tmp_path / "in", features, content, label, {str(i): f"class {i}" for i in range(22)})
    args = [str(folder), "--out", str(tmp_path / "out"), "--points", "100", "--json"]
    assert embeddings.main(args) == 0
    said = capsys.readouterr()
    printed = json.loads(said.out)
    assert sorted(Path(f).name for f in printed["files"]) == sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "embedding-cls.png", "embedding-cls.svg", "embedding-mean.png", "embedding-mean.svg", "embedding-scores.csv",
        "neighbours.csv"]
    assert "the 20 largest classes are coloured, 2 others are grey" in said.err and "100 of 138 clips" in said.err
    assert "6 clips without a label are left out" in said.err
    scores = {(row["feature"], row["score"]): row for row in table(tmp_path / "out/embedding-scores.csv")}
    has = label >= 0
    for p in precisions(features[has], content[has], label[has]):
        row = scores["cls", f"precision at {p.at}"]
        assert (float(row["value"]), float(row["chance"]), row["clips"]) == (p.value, p.chance, "132")
    assert scores["mean", "silhouette"]["classes"] == "22"
    image = np.asarray(Image.open(tmp_path / "out/embedding-cls.png").convert("RGB"))
    assert (191, 191, 191) in {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}, "grey clips"
    svg = (tmp_path / "out/embedding-cls.svg").read_text()
    assert len(set(re.findall(r">(class \d+)<", svg))) == 20 and "2 other classes, no label" in svg and "t-SNE" in svg
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    assert embeddings.main([*args, "--no-pictures"]) == 0
    rows = table(tmp_path / "out/neighbours.csv")
    assert len(rows) == 2 * 20 * 10 and {row["same_class"] for row in rows} <= {"0", "1", ""}
    assert first["neighbours.csv"] == (tmp_path / "out/neighbours.csv").read_bytes()


def test_the_largest_classes_get_the_colours():
    label = np.repeat(np.arange(25), np.arange(1, 26))
    assert coloured(np.append(label, [-1] * 50)) == list(range(5, 25))


def test_without_labels_there_are_neighbours_alone(tmp_path, capsys):
    features, content, _ = clips(4, 3)
    folder = write(tmp_path / "in", features, content, np.full(12, -1))
    assert embeddings.main([str(folder), "--out", str(tmp_path / "out"), "--queries", "2"]) == 3
    said = capsys.readouterr()
    assert "the clips have no labels, so there is no picture by class" in said.err
    assert said.out.split() == [str(tmp_path / "out/neighbours.csv")] and [p.name for p in (tmp_path / "out").iterdir()] == [
        "neighbours.csv"]
    rows = [row for row in table(tmp_path / "out/neighbours.csv") if row["feature"] == "cls"]
    assert [row["content"] for row in rows] == [f"{content[0]:016x}"] * 10 + [f"{content[11]:016x}"] * 10
    assert [int(row["neighbour"], 16) for row in rows[:10]] == content[nearest(features, content, 10)[0][0]].tolist()


def test_folders_that_cannot_be_used(tmp_path, capsys):
    assert embeddings.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    write_json(tmp_path / "result.json", {"kind": "pretrain"})
    assert embeddings.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    folder = write(tmp_path / "in", *clips(4, 3))
    file_path(folder, 1, 2).write_bytes(file_path(folder, 0, 2).read_bytes())
    record = json.loads((folder / "result.json").read_text())
    write_json(folder / "result.json", {**record, "clips": 13})
    assert embeddings.main([str(folder), "--out", str(tmp_path / "out")]) == 2
    file_path(folder, 1, 2).unlink()
    assert embeddings.main([str(folder), "--out", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err
    for words in ("there is no result.json", "is of kind 'pretrain', not 'embed'", "holds 12 clips, its result.json says 13",
                  "00001-of-00002.npz is missing or damaged"):
        assert words in errors


def test_a_page_with_frames_of_real_clips(tmp_path, capsys):
    manifest = make_labelled(tmp_path / "set", train=1, val=1)[0]
    rows, videos = read_all(manifest)[1], Manifest.read(manifest)
    features = RNG.normal(size=(len(rows), 4)).astype(np.float32)
    names = {str(i): f"<{label}>" for i, label in enumerate(sorted({row.label for row in rows}))}
    folder = write(tmp_path / "in", features, videos.content, videos.class_index, names)
    args = [str(folder), "--out", str(tmp_path / "out"), "--no-pictures", "--frames"]
    assert embeddings.main([*args, str(manifest)]) == 0
    page = (tmp_path / "out/neighbours.html").read_text()
    pictures = re.findall(r"src='data:image/jpeg;base64,([^']+)'", page)
    assert len(pictures) == 2 * len(rows) * len(rows) and len(set(pictures)) == len(rows)
    assert not any(Path(row.path).stem in page for row in rows) and not re.search("https?:", page) and "&lt;clip" in page
    assert embeddings.main([*args, str(tmp_path / "none.csv")]) == 2
    other = write(tmp_path / "other", features, np.arange(len(rows), dtype=np.uint64), videos.class_index, names)
    assert embeddings.main([str(other), *args[1:], str(manifest)]) == 2
    errors = capsys.readouterr().err
    assert f"has none of these {len(rows)} clips; is it the one that they are of? (--frames)" in errors and "there is no manifest" in errors


def test_ctrl_c_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embeddings, "read_embeddings", interrupted)
    assert embeddings.main([str(tmp_path), "--out", str(tmp_path / "out")]) == 130
    assert capsys.readouterr().err.split() == ["interrupted;", "the", "same", "command", "does", "it", "anew"]
