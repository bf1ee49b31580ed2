"""What a model said of every clip of a validation set, as one small file: accuracy on any classes or clips is a lookup.

    predictions.npz   content [N]  label [N]  top5 [N, 5]  rank [N]  prob [N]  classes [C]

Clips are named by the hash of their content (manifest.content_hash), never by a path. Numpy only, so that tables are made
where torch is not installed. Letters: N clips, C classes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from vidmae.runs.record import write_atomic

TOP = 5
NO_CLASS = -1  # in top5, where there are fewer than five classes
_SHAPES = {"content": "N", "label": "N", "top5": "NT", "rank": "N", "prob": "N", "classes": "C"}
_DTYPES = {"content": np.uint64, "label": np.int32, "top5": np.int32, "rank": np.int32, "prob": np.float32}


@dataclass(frozen=True)
class Predictions:
    """One row per clip.

    Attributes:
        content: uint64 [N], content hash of the clip.
        label: int32 [N], its true class.
        top5: int32 [N, 5], the classes with the highest scores, best first; -1 where there are fewer than five.
        rank: int32 [N], place of the true class by score, from 0; of equal scores the lower class index comes first.
        prob: float32 [N], softmax probability of the true class.
        classes: str [C], class names in index order.
    """

    content: np.ndarray
    label: np.ndarray
    top5: np.ndarray
    rank: np.ndarray
    prob: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> Predictions:
        """Some of the clips, by number or by a mask; the classes stay."""
        return Predictions(self.content[rows], self.label[rows], self.top5[rows], self.rank[rows], self.prob[rows],
                           self.classes)

    def check(self) -> None:
        """Refuse what no model can have said.

        Raises:
            ValueError: Shapes do not fit each other, or numbers are out of range or NaN; the message says which.
        """
        sizes = {"N": len(self.content), "C": len(self.classes), "T": TOP}
        for name, letters in _SHAPES.items():
            expected, found = tuple(sizes[letter] for letter in letters), getattr(self, name).shape
            if found != expected:
                raise ValueError(f"{name} has shape {found}, not {expected}")
        if not len(self) or not len(self.classes):
            raise ValueError(f"{len(self)} clips of {len(self.classes)} classes: there must be at least one of both")
        _check_range("prob", self.prob, 0, 1)
        for name in ("label", "rank"):
            _check_range(name, getattr(self, name), 0, len(self.classes) - 1)
        _check_range("top5", self.top5, NO_CLASS, len(self.classes) - 1)

    def write(self, path: Path) -> None:
        """Write the file at once or not at all, readable by its owner alone; equal predictions give equal bytes."""
        data = io.BytesIO()
        np.savez_compressed(data, **{f.name: getattr(self, f.name) for f in fields(self)})
        write_atomic(path, data.getvalue())

    @staticmethod
    def read(path: Path) -> Predictions:
        """Read a file that `write` has written.

        Raises:
            OSError: There is none, or it cannot be read.
            ValueError: It is damaged; the message names it.
        """
        data = io.BytesIO(path.read_bytes())
        try:
            with np.load(data, allow_pickle=False) as arrays:
                predictions = Predictions(**{f.name: arrays[f.name] for f in fields(Predictions)})
            for name, dtype in _DTYPES.items():
                if (found := getattr(predictions, name).dtype) != dtype:
                    raise ValueError(f"{name} is {found}, not {np.dtype(dtype)}")
            if predictions.classes.dtype.kind != "U":
                raise ValueError(f"classes is {predictions.classes.dtype}, not text")
            predictions.check()
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise ValueError(f"{path} is no file of predictions, or damaged: {error}; evaluate again") from error
        return predictions


def _check_range(name: str, values: np.ndarray, low: int, high: int) -> None:
    outside = ~((values >= low) & (values <= high))  # true of NaN, too
    if outside.any():
        raise ValueError(f"{name} holds {values[outside][0]} ({outside.sum()} of {values.size} are so); it must be "
                         f"{low} to {high}")


def from_probabilities(prob: np.ndarray, label: np.ndarray, content: np.ndarray, classes: Sequence[str]) -> Predictions:
    """What softmax probabilities say; of equal ones the lower class index comes first, on every machine.

    Args:
        prob: [N, C], softmax probabilities.
        label: [N], true class.
        content: uint64 [N], content hash of each clip.
        classes: Names of the C classes in index order.
    Raises:
        ValueError: A label has no class, a probability is NaN or out of range, or shapes do not fit.
    """
    if prob.shape != (len(label), len(classes)):
        raise ValueError(f"prob has shape {prob.shape}, not {(len(label), len(classes))}: clips, classes")
    _check_range("label", label, 0, len(classes) - 1)
    _check_range("prob", prob, 0, 1)
    best = np.argsort(-prob, axis=1, kind="stable")[:, :TOP]
    top5 = np.pad(best, ((0, 0), (0, TOP - best.shape[1])), constant_values=NO_CLASS)
    true = prob[np.arange(len(label)), label]
    before = np.arange(len(classes)) < label[:, None]
    rank = (prob > true[:, None]).sum(1) + ((prob == true[:, None]) & before).sum(1)
    predictions = Predictions(content.astype(np.uint64), label.astype(np.int32), top5.astype(np.int32),
                              rank.astype(np.int32), true.astype(np.float32), np.array(classes, dtype=np.str_))
    predictions.check()
    return predictions


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Predictions of several sets of clips, one after the other; at least one, all of the same classes."""
    assert all(np.array_equal(part.classes, parts[0].classes) for part in parts)
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _DTYPES}
    return Predictions(**columns, classes=parts[0].classes)
