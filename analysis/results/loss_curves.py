"""The training loss of a run, of a released log, or of a published run, over epochs: to see whether a loss is right.

A log is JSON lines with `train_loss` and `epoch`, as the code of Orhan et al. writes them (github.com/eminorhan/mae_st).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd
import yaml

from analysis.results.mae_st_logs import Problems, parse_lines

PUBLISHED = Path(__file__).parent / "published_losses.yaml"
USUAL = {"model.mask": "random", "model.target": "pixels", "model.feature_loss": "l1"}
MEASURE = ("model.mask_ratio", "model.norm_pix_loss", "model.decoder_mask_ratio", "model.pred_t_dim", *USUAL)
"""Settings without which two pretraining losses are not of one measure. Runs of before a setting had what is `USUAL`, and so
have logs of the original code, which know `train_mask_ratio` besides."""


@dataclass(frozen=True)
class LossCurve:
    """The mean loss of each epoch.

    Attributes:
        name: Of the run, or of the log.
        loss: Mean loss by epoch, which counts from 1: the first is the mean of all steps until one epoch was seen.
        measure: Settings that say what was measured, as far as they are known; see `MEASURE`.
        notes: What a reader of the numbers should know.
    """

    name: str
    loss: pd.Series
    measure: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def of_steps(name: str, epoch: np.ndarray, loss: np.ndarray, config: Mapping[str, Any]) -> LossCurve:
    """The curve of a run.

    Args:
        name: Of the run.
        epoch: Epochs seen after each step, float64 [N].
        loss: Of each step, float64 [N]; those that are not finite are left out.
        config: Settings under dotted names.
    """
    finite = np.isfinite(loss) & np.isfinite(epoch)
    number = np.maximum(1, np.ceil(epoch[finite] - 1e-6)).astype(int)
    means = pd.Series(loss[finite]).groupby(number).mean()
    said = {**USUAL, **config} if "model.mask_ratio" in config else {}  # a finetuned model hides nothing
    return LossCurve(name, means, measure={key: said[key] for key in MEASURE if key in said})


def of_log(path: Path) -> LossCurve:
    """The curve of a log.

    Where epochs go back to a number above 0, the run was started again from there, and the later lines count. Where they go
    back to 0, another phase begins, and epochs are counted on.

    Raises:
        ValueError: It cannot be read, or no line has both a loss and an epoch.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from None
    loss, mask_ratio = dict[int, float](), None
    problems: Problems = defaultdict(list)
    records = parse_lines([(number, line) for number, line in enumerate(lines, 1) if line.strip()], problems)
    before, again, phases, damaged = 0, 0, 1, sum(map(len, problems.values()))
    last = -1
    for _, record in records:
        epoch, value = record.get("epoch"), record.get("train_loss")
        if type(epoch) is not int or not _is_number(value):
            damaged += 1
            continue
        if epoch == 0 and last >= 0:
            before, phases = max(loss), phases + 1
        elif epoch <= last:
            again += 1
        last, place = epoch, before + epoch + 1
        loss[place] = float(value)
        mask_ratio = record.get("train_mask_ratio", mask_ratio)
    if not loss:
        raise ValueError(f"{path} has no line with train_loss and epoch: it is no log of pretraining or finetuning")
    notes = [*([f"{again} x started again from an earlier epoch; the later lines count"] if again else []),
             *([f"{phases} phases, whose epochs are counted on"] if phases > 1 else []),
             *([f"{damaged} lines without a loss or an epoch are left out"] if damaged else []),
             *([f"begins at epoch {min(loss)}"] if min(loss) > 1 else [])]
    measure = {"model.mask_ratio": round(mask_ratio, 6), **USUAL} if _is_number(mask_ratio) else {}
    return LossCurve(path.name.removesuffix("_log.txt"), pd.Series(loss).sort_index(), measure, tuple(notes))


def published_names() -> list[str]:
    """The runs whose losses come with this suite."""
    return sorted(_published())


def published(name: str) -> LossCurve:
    """The curve of a published run, of those epochs that are kept here.

    Raises:
        ValueError: No such name; the message lists those that there are.
    """
    known = _published()
    if name not in known:
        raise ValueError(f"{name}: no published losses of this name; there are: {', '.join(sorted(known))}")
    entry = known[name]
    return LossCurve(f"published {name}", pd.Series(entry["loss"], dtype=float).sort_index(),
                     measure={**USUAL, **entry["measure"]}, notes=(entry["source"],))


def _published() -> dict[str, Any]:
    return dict(yaml.safe_load(PUBLISHED.read_text()))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
