"""The file of predictions: what it holds by a slow definition, what it refuses, and that it is private and the same twice."""

import stat
import zipfile
from dataclasses import fields

import numpy as np
import pytest

from vidmae.runs.predictions import NO_CLASS, Predictions, from_probabilities

NAMES = ["a b", "[x] 'y'", "子供", "d", "e", "f", "g"]


def some(clips=40, classes=7, seed=0, levels=None):
    """Random predictions; with `levels` there are ties."""
    g = np.random.default_rng(seed)
    prob = g.dirichlet(np.ones(classes), size=clips) if levels is None else g.integers(levels, size=(clips, classes)) / levels
    label = g.integers(classes, size=clips)
    content = g.integers(2**64, size=clips, dtype=np.uint64)
    return prob, label, content, NAMES[:classes]


def same(a, b):
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(Predictions))


@pytest.mark.parametrize(("classes", "levels"), [(7, None), (7, 3), (3, 2), (1, 2)])
def test_order_of_classes_by_the_slow_definition(classes, levels):
    prob, label, content, names = some(classes=classes, levels=levels)
    found = from_probabilities(prob, label, content, names)
    for i, row in enumerate(prob):
        order = sorted(range(classes), key=lambda c: (-row[c], c))
        assert found.top5[i].tolist() == (order + [NO_CLASS] * 5)[:5]
        assert found.rank[i] == order.index(label[i])
        assert found.prob[i] == np.float32(row[label[i]])
    assert levels is None or classes == 1 or any(len(set(row)) < classes for row in prob), "ties"


def test_a_file_brings_back_what_was_written_and_is_private_and_the_same_twice(tmp_path):
    predictions = from_probabilities(*some())
    predictions.write(tmp_path / "a.npz")
    predictions.write(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]
    back = Predictions.read(tmp_path / "a.npz")
    for name, dtype in {"content": "uint64", "label": "int32", "top5": "int32", "rank": "int32", "prob": "float32"}.items():
        assert getattr(back, name).dtype == dtype
    assert same(back, predictions) and back.classes.tolist() == NAMES
    assert all(info.date_time == (1980, 1, 1, 0, 0, 0) for info in zipfile.ZipFile(tmp_path / "a.npz").infolist())


def test_some_clips_keep_all_classes():
    predictions = from_probabilities(*some())
    taken = predictions.take(np.array([3, 1]))
    assert taken.label.tolist() == predictions.label[[3, 1]].tolist() and taken.classes.tolist() == NAMES
    assert np.array_equal(taken.top5, predictions.top5[[3, 1]]) and np.array_equal(taken.content, predictions.content[[3, 1]])


@pytest.mark.parametrize(("change", "said"), [
    ({"prob": np.full(40, np.nan, np.float32)}, "prob holds nan (40 of 40"),
    ({"prob": np.full(40, 1.5, np.float32)}, "prob holds 1.5"),
    ({"label": np.full(40, 7, np.int32)}, "label holds 7 (40 of 40 are so); it must be 0 to 6"),
    ({"rank": np.full(40, -1, np.int32)}, "rank holds -1"),
    ({"top5": np.full((40, 5), 9, np.int32)}, "top5 holds 9"),
    ({"top5": np.zeros((40, 4), np.int32)}, "top5 has shape (40, 4), not (40, 5)"),
    ({"label": np.zeros(39, np.int32)}, "label has shape (39,), not (40,)"),
    ({"label": np.zeros(40, np.float64)}, "label is float64, not int32"),
    ({"classes": np.arange(7)}, "classes is int64, not text"),
    ({"classes": np.array(NAMES, dtype=object)}, "allow_pickle=False"),
])
def test_a_file_with_impossible_content_is_refused_by_name(tmp_path, change, said):
    predictions = from_probabilities(*some())
    arrays = {name: getattr(predictions, name) for name in ("content", "label", "top5", "rank", "prob", "classes")}
    np.savez(tmp_path / "p.npz", **{**arrays, **change})
    with pytest.raises(ValueError) as error:
        Predictions.read(tmp_path / "p.npz")
    assert said in str(error.value) and str(tmp_path / "p.npz") in str(error.value)


def test_a_damaged_file_is_refused_by_name_wherever_it_is_cut_or_changed(tmp_path):
    path = tmp_path / "p.npz"
    predictions = from_probabilities(*some())
    predictions.write(path)
    whole = path.read_bytes()
    np.savez(path, content=np.zeros(3, np.uint64))
    for data in (b"", b"text\n", path.read_bytes(), *(whole[:size] for size in range(1, len(whole), 97)), whole[:-1]):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"p\.npz is no file of predictions, or damaged"):
            Predictions.read(path)
    refused = 0
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1:])
        try:
            assert same(Predictions.read(path), predictions), "a byte that means nothing, such as a date"
        except ValueError:
            refused += 1
    assert refused > 100


def test_probabilities_that_do_not_fit_are_refused():
    prob, label, content, names = some()
    with pytest.raises(ValueError, match=r"prob holds nan \(1 of 280"):
        from_probabilities(np.where(prob == prob[2, 3], np.nan, prob), label, content, names)
    with pytest.raises(ValueError, match="label holds 7"):
        from_probabilities(prob, np.where(np.arange(40) == 5, 7, label), content, names)
    with pytest.raises(ValueError, match=r"prob has shape \(40, 7\), not \(40, 6\)"):
        from_probabilities(prob, label, content, names[:6])
    with pytest.raises(ValueError, match="0 clips of 7 classes"):
        from_probabilities(prob[:0], label[:0], content[:0], names)
