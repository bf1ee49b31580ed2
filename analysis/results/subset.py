"""Accuracy on some classes, recomputed from the predictions of every clip: the clips of those classes, guessed among all.

    name: developmental
    data: ssv2
    why: what the choice is and whose
    classes:
      "Opening [something]": the reason for this class
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from analysis.results.scan import Run
from vidmae.runs.accuracy import of_classes, topk_ci_pct, topk_pct
from vidmae.runs.predictions import Predictions

PREDICTIONS = "predictions.npz"
SHIPPED = Path(__file__).with_name("subsets")
KEYS = {"name", "data", "why", "classes"}


@dataclass(frozen=True)
class Subset:
    """A choice of classes.

    Attributes:
        name: Of the choice; part of the names of the tables.
        data: Data set that the classes are of.
        why: One sentence on the choice.
        classes: Name of a class, as the data set's manifest has it -> why it was chosen.
    """

    name: str
    data: str
    why: str
    classes: Mapping[str, str]


def read_subset(path: Path) -> Subset:
    """Read a choice of classes: a file, or the name of one in analysis/results/subsets.

    Raises:
        ValueError: The file cannot be read or is not of the form above.
    """
    shipped = SHIPPED / f"{path.name}.yaml"
    if not path.exists() and path.name == str(path) and shipped.exists():
        path = shipped
    try:
        record = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"cannot read {path}: {error} (--classes)") from error
    texts = KEYS - {"classes"}
    if not isinstance(record, dict) or set(record) != KEYS or not all(isinstance(record[key], str) for key in texts):
        raise ValueError(f"{path} must have exactly the keys name, data, why (texts) and classes (--classes)")
    classes = record["classes"]
    if not isinstance(classes, dict) or not classes or not all(isinstance(name, str) and isinstance(reason, str)
                                                               for name, reason in classes.items()):
        raise ValueError(f"{path}: classes must be names of classes, each with its reason (--classes)")
    return Subset(record["name"], record["data"], " ".join(record["why"].split()), classes)


def on_subset(runs: Iterable[Run], subset: Subset) -> list[Run]:
    """The runs on the subset's data set, with the accuracies of its classes; a run that cannot say them has failed."""
    return [_recomputed(run, subset) if run.result else run for run in runs
            if run.cell is None or run.cell.data == subset.data]


def _recomputed(run: Run, subset: Subset) -> Run:
    assert run.result is not None
    try:
        chosen = of_classes(Predictions.read(Path(run.path, PREDICTIONS)), list(subset.classes))
    except OSError as error:
        return replace(run, status="failed", result=None, said=f"{PREDICTIONS} cannot be read: {error.strerror}")
    except ValueError as error:
        return replace(run, status="failed", result=None, said=f"subset {subset.name}: {error}")
    return replace(run, result=replace(
        run.result, top1_pct=topk_pct(chosen, 1), top5_pct=topk_pct(chosen, 5), clips=len(chosen),
        top1_ci_pct=topk_ci_pct(chosen, 1), top5_ci_pct=topk_ci_pct(chosen, 5)))
