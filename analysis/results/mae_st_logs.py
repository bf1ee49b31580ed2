"""One log of mae_st -> the best accuracies in it: JSON lines, one per epoch, named `{model}_{task}_log.txt`.

    {"train_lr": ..., "train_loss": ..., "test_loss": ..., "test_acc1": 15.1, "test_acc5": 37.5, "epoch": 16}

There is no other record of these runs, so their oddities are part of the format: epochs restart where a run was started
again into the same file, a file may begin at epoch 31, keys come and go, a crash cuts the last line. Accuracies are of the
validation set, in %. Top-1 and top-5 are each taken at their own best epoch, over all lines of the file.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

SELECTION = "best epoch on the validation set, top-1 and top-5 each at its own; no separate test set"
CLASSES = {"ssv2": 174, "kinetics": 700, "imagenet": 1000}
ACCURACIES = ("test_acc1", "test_acc5")
ENDING = "_log.txt"
MOST_PLACES = 3  # of a problem that are listed; the others are counted
EXPECTED_NAME = "expected {model}_{task}_log.txt, TASK being such as ssv2-10shot, kinetics-all, imagenet or imagenet_0.02"
_NAME = re.compile(  # models have underscores, too, hence: the last part that can be a task is the task
    r"(?P<model>.+)_(?:(?P<data>[a-z0-9]+)(?P<which>-(?:(?P<shots>\d+)shot|all)(?:-[a-z0-9]+)*)|(?P<image>imagenet)"
    r"(?:_[\d.]+)*?(?P<fraction>_[\d.]+)?)" + re.escape(ENDING), re.IGNORECASE)

Problems = dict[str, list[str]]  # a reason -> the places, such as `line 3`, counted from 1


class NoAccuracyError(ValueError):
    """A log of something else than a classification, such as pretraining."""


@dataclass(frozen=True)
class Task:
    """What was classified.

    Attributes:
        data: Data set: `ssv2`, `kinetics`, `imagenet` or another.
        which: The part of its labels: `-10shot`, `-all`, `_0.02`, or nothing where the name does not say.
        shots: Labelled clips per class, where it is a few-shot task.
    """

    data: str
    which: str
    shots: int | None

    @property
    def name(self) -> str:
        """Such as `ssv2-10shot`."""
        return self.data + self.which


@dataclass(frozen=True)
class Best:
    """The highest accuracy of a log, and the first epoch that reached it."""

    pct: float
    epoch: int


@dataclass(frozen=True)
class LogResult:
    """What one log says.

    Attributes:
        path: Of the log.
        model: As the file name calls it.
        task: What was classified.
        lines: That are not blank.
        first_epoch: Of the first line that has one; None where none has.
        last_epoch: Of the last line; where epochs restart it is not the highest.
        resets: How often an epoch is not higher than the one before it.
        top1: Best top-1 accuracy; None where no line has one.
        top5: Best top-5 accuracy; None where no line has one.
        problems: What could not be used, and why. Everything else counts.
    """

    path: Path
    model: str
    task: Task
    lines: int
    first_epoch: int | None
    last_epoch: int | None
    resets: int
    top1: Best | None
    top5: Best | None
    problems: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether there is no accuracy in it."""
        return self.top1 is None and self.top5 is None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its numbers should know although nothing is wrong."""
        found = []
        if self.resets:
            found.append(f"epochs restart {self.resets} x within the log: best over all {self.lines} lines")
        if self.first_epoch:
            found.append(f"begins at epoch {self.first_epoch}")
        if self.first_epoch is None and not self.failed:
            found.append("has no epochs: its lines are counted from 0")
        return tuple(found)


def parse_name(name: str) -> tuple[str, Task] | None:
    """Model and task of a file name; None where it says no task.

    `s_0.1_ssv2-10shot_log.txt` is model `s_0.1`; of several fractions, `imagenet_0.01_0.010147`, the last one counts.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    data = (match["data"] or match["image"]).lower()
    which = (match["which"] or match["fraction"] or "").lower()
    return match["model"], Task(data, which, int(match["shots"]) if match["shots"] else None)


def read_log(path: Path) -> LogResult:
    """The result in a log. What is damaged is left out and said in `problems`; the rest counts.

    Raises:
        NoAccuracyError: A log of something else, such as pretraining; the message says how it was told.
        ValueError: Its name does not say what it is the result of.
    """
    problems: Problems = defaultdict(list)
    text, unusable = "", "is empty"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        unusable = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        unusable = "is not text"
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    records = parse_lines(lines, problems)
    has_accuracy = any(key in record for _, record in records for key in ACCURACIES)
    named = parse_name(path.name)
    if named is None:
        if records and not has_accuracy:
            raise NoAccuracyError(f"no accuracy in its {len(lines)} lines, as in logs of pretraining")
        raise ValueError(f"its name does not say model and task: {EXPECTED_NAME}" if records else
                         f"line {lines[0][0]} is not a JSON object: not a log" if lines else unusable)
    epochs = [record["epoch"] for _, record in records if type(record.get("epoch")) is int]
    top1, top5 = (_best(records, key, problems) if has_accuracy else None for key in ACCURACIES)
    said = [f"{reason} ({_list_places(places)})" for reason, places in problems.items()]
    if not has_accuracy:
        said.append("no line has an accuracy (test_acc1, test_acc5)" if lines else unusable)
    return LogResult(path, *named, len(lines), epochs[0] if epochs else None, epochs[-1] if epochs else None,
                     sum(later <= earlier for earlier, later in pairwise(epochs)), top1, top5, tuple(said))


def parse_lines(lines: Sequence[tuple[int, str]], problems: Problems) -> list[tuple[int, dict[str, Any]]]:
    """The JSON objects among numbered lines that are not blank; what is none goes into `problems`."""
    records = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            records.append((number, record))
        else:
            cut = number == lines[-1][0] and line.lstrip().startswith("{")
            problems["the last line is cut off" if cut else "not a JSON object"].append(f"line {number}")
    return records


def _best(records: Sequence[tuple[int, dict[str, Any]]], key: str, problems: Problems) -> Best | None:
    best = None
    for index, (number, record) in enumerate(records):
        pct, epoch = record.get(key), record.get("epoch", index)
        if key not in record:
            problems[f"no {key}"].append(f"line {number}")
        elif isinstance(pct, bool) or not isinstance(pct, int | float) or not 0 <= pct <= 100:  # NaN is not in the range
            problems[f"{key} is not a number from 0 to 100"].append(f"line {number}: {str(pct)[:20]}")
        elif best is None or pct > best.pct:
            best = Best(float(pct), epoch if type(epoch) is int else index)
    return best


def _list_places(places: Sequence[str]) -> str:
    more = len(places) - MOST_PLACES
    return ", ".join(places[:MOST_PLACES]) + (f" and {more} more" if more > 0 else "")
