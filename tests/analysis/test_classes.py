"""Accuracy by class from stored predictions, against scikit-learn."""

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from analysis import classes
from vidmae.runs.predictions import from_probabilities

NAMES = ["put, down", "röll", "take"]


@pytest.fixture
def cells(tmp_path: Path) -> list[Path]:
    """Two cells tested on the same 60 clips; the first 20 of the second say what is true."""
    rng, label = np.random.default_rng(0), np.arange(60) % 3
    for i in range(2):
        prob = rng.random((60, 3))
        prob[np.arange(20 * i), label[:20 * i]] += 2
        (tmp_path / f"cell{i}").mkdir()
        from_probabilities(prob / prob.sum(1, keepdims=True), label, np.arange(60, dtype=np.uint64), NAMES).write(
            tmp_path / f"cell{i}/predictions.npz")
    return [tmp_path / "cell0", tmp_path / "cell1"]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open(encoding="utf-8")))


def test_by_class_and_confusion(cells, tmp_path, capsys):
    out = tmp_path / "out"
    assert classes.main([*map(str, cells), "--out", str(out)]) == 0
    assert capsys.readouterr().out.split() == [str(out / name) for name in (
        "classes.csv", "classes.md", "classes.tex", "confusion.csv", "confusion.png", "confusion.svg")]
    found = [classes.Predictions.read(cell / "predictions.npz") for cell in cells]
    recall = np.mean([recall_score(p.label, p.top5[:, 0], average=None) for p in found], axis=0)
    table = rows(out / "classes.csv")
    assert [float(row["top1_pct"]) for row in table] == sorted(float(row["top1_pct"]) for row in table)
    assert {row["class"]: float(row["top1_pct"]) for row in table} == pytest.approx(
        dict(zip(NAMES, 100 * recall, strict=True)), abs=6e-4)
    matrix = sum(confusion_matrix(p.label, p.top5[:, 0]) for p in found)
    assert [[int(row[name]) for name in NAMES] for row in rows(out / "confusion.csv")] == matrix.tolist()
    shares = [f"{100 * count / row.sum():.0f}" for row in matrix for count in row]
    words = ["".join(node.itertext()).strip() for node in ElementTree.parse(out / "confusion.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {*shares, *NAMES, "True class", "Class that was said"} <= set(words)
    worst = table[0]
    others = {name: count for name, count in zip(NAMES, matrix[NAMES.index(worst["class"])], strict=True) if name != worst["class"]}
    assert worst["taken_for"] == max(others, key=others.get)
    assert (out / "classes.csv").stat().st_mode & 0o777 == 0o600 and all(row["top5_pct"] == "100.0" for row in table)


def test_cells_of_other_clips_do_not_mix(cells, tmp_path, capsys):
    from_probabilities(np.eye(3), np.arange(3), np.arange(3, dtype=np.uint64), NAMES).write(cells[1] / "predictions.npz")
    assert classes.main([*map(str, cells), "--out", str(tmp_path / "no")]) == 2
    assert "tested on other clips" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert classes.main([str(tmp_path)]) == 2
    assert f"{tmp_path} has no predictions.npz: it is not the folder of a cell" in capsys.readouterr().err
    assert classes.main(["nowhere", "--runs-dir", str(tmp_path)]) == 2
    assert f"no run 'nowhere' in {tmp_path}" in capsys.readouterr().err
