"""Which outputs of a model answer for the labels of another data set, and how its probabilities become theirs.

    every label is a class of the model     all of the model's classes compete; with `own`, those of the labels alone
    the labels are numbers                  they are ranks of the model's classes, all of which compete
    16 classes, and a model of ImageNet     the mean probability of the classes that belong to each (sixteen_classes.py)
    a CSV with the columns label, class     the mean probability of the classes that the file names; only they compete

Letters: N clips, C classes of the model, L labels of the data set, A answers.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vidmae.labels.sixteen_classes import SIXTEEN, class_key, is_imagenet
from vidmae.labels.splits import some
from vidmae.settings.command_line import nearest, text_of

COLUMNS = ("label", "class")
NO_ANSWER = -1


class LabelMapError(ValueError):
    """Labels and classes do not fit each other; the message says which, and what would do."""


@dataclass(frozen=True)
class LabelMap:
    """How a model answers in the labels of a data set.

    Attributes:
        answers: Names of the A answers, in order.
        members: Classes of the model whose mean probability each answer has; empty: the answers are the model's classes.
        of_label: int64 [L]; the right answer of each label, -1 where the model has none.
        own: Probabilities are shared among the answers alone, so that they sum to 1.
        said: How it came about, in one sentence.
    """

    answers: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]
    of_label: np.ndarray
    own: bool
    said: str

    def apply(self, prob: np.ndarray) -> np.ndarray:
        """Probabilities of the answers, float64 [N, A], from those of the model's classes [N, C]."""
        if not self.members:
            return prob
        mean = np.stack([prob[:, list(members)].mean(axis=1) for members in self.members], axis=1)
        if not self.own:
            return mean
        total = mean.sum(axis=1, keepdims=True)
        shared: np.ndarray = np.divide(mean, total, out=np.full_like(mean, 1 / mean.shape[1]), where=total > 0)
        return shared


def make_label_map(labels: Sequence[str], classes: Sequence[str], *, own: bool = False, listed: Path | None = None,
                   ) -> LabelMap:
    """Fit the labels of a data set to the classes of a model.

    Args:
        labels: Names of the L labels, by index.
        classes: Names of the C classes, by index.
        own: The model chooses among the labels alone.
        listed: A CSV with the columns label and class.
    Raises:
        LabelMapError: They do not fit.
    """
    known = {class_key(name): place for place, name in enumerate(classes)}
    if listed is not None:
        found = _listed(labels, known, listed)
        return replace(found, own=True, said=f"{found.said}; shared among the answers alone") if own else found
    if all(class_key(label) in known for label in labels):
        places = np.array([known[class_key(label)] for label in labels], dtype=np.int64)
        if own and len(labels) < 2:
            raise LabelMapError(f"the clips have 1 label, {labels[0]!r}: with its own classes alone every answer is right; "
                                "2 or more are needed (--own-classes)")
        if own:
            return LabelMap(tuple(labels), tuple((int(place),) for place in places), np.arange(len(labels)), True,
                            f"the model chooses among the {len(labels)} classes of the clips alone")
        return LabelMap(tuple(classes), (), places, False, f"the model chooses among all of its {len(classes)} classes")
    if is_imagenet(classes) and all(label in SIXTEEN for label in labels):
        names = list(SIXTEEN)
        return LabelMap(tuple(names), tuple(SIXTEEN.values()), np.array([names.index(label) for label in labels]), False,
                        "16 classes: the mean probability of the ImageNet classes that belong to each")
    if list(labels) == [str(i) for i in range(len(classes))]:
        return LabelMap(tuple(classes), (), np.arange(len(labels)), False,
                        f"the labels are numbers: ranks of the model's {len(classes)} classes")
    unknown = [label for label in labels if class_key(label) not in known]
    raise LabelMapError(f"{len(unknown)} of {len(labels)} labels are no classes of the model, which has {len(classes)}: "
                        f"{some(unknown)}{nearest(unknown[0], list(known))}; say which classes stand for them: --label-map "
                        f"NAME=FILE.csv with the columns {', '.join(COLUMNS)}")


def read_label_map(path: Path) -> dict[str, list[str]]:
    """Classes by label, as a CSV with the columns label and class lists them: a row for each class.

    Raises:
        LabelMapError: It cannot be read, or a class stands for two labels.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise LabelMapError(f"--label-map {path} cannot be read: {text_of(error)}") from error
    if not rows or any(row.get(column) in (None, "") for row in rows for column in COLUMNS):
        raise LabelMapError(f"--label-map {path}: the columns {' and '.join(COLUMNS)} must be there and filled in every row")
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row["label"], []).append(row["class"])
    listed = [name for names in found.values() for name in names]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise LabelMapError(f"--label-map {path}: {len(twice)} classes stand in two rows: {some(twice)}; a class stands for "
                            "one label")
    return found


def _listed(labels: Sequence[str], known: Mapping[str, int], path: Path) -> LabelMap:
    found = read_label_map(path)
    unknown = [name for names in found.values() for name in names if class_key(name) not in known]
    if unknown:
        raise LabelMapError(f"--label-map {path} names {len(unknown)} classes that the model, which has {len(known)}, does "
                            f"not have: {some(unknown)}{nearest(unknown[0], list(known))}")
    there = [label for label in labels if label in found]
    if len(there) < 2:
        raise LabelMapError(f"--label-map {path} has {len(there)} of the {len(labels)} labels of the clips, and 2 or more "
                            f"are needed; its labels: {some(list(found))}; those of the clips: {some(list(labels))}")
    answers = list(found)
    of_label = np.array([answers.index(label) if label in found else NO_ANSWER for label in labels])
    missing = [label for label in labels if label not in found]
    left = f"; clips of {len(missing)} labels are left out: {some(missing)}" if missing else ""
    members = tuple(tuple(known[class_key(name)] for name in names) for names in found.values())
    return LabelMap(tuple(answers), members, of_label, False,
                    f"{len(answers)} answers from a list: the mean probability of the classes that it names{left}")
