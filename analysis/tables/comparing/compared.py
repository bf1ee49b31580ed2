"""What differs between runs, and their numbers beside each other, as tables.

Letters of the columns: the first run is A, the next B; below each table stands which is which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from analysis.page.beside import unlike
from analysis.page.chapters import facts_of
from analysis.page.charts import last_steps
from analysis.page.dossier import Dossier
from analysis.page.wording import number
from analysis.results.loss_curves import LossCurve
from analysis.tables.sheet import MISSING, Sheet, texts
from vidmae.runs.attempts import PARTS, totals

EPOCHS = [round(power * digit) for power in 10.0 ** np.arange(6) for digit in (1, 1.5, 2, 3, 5, 7)]
"""At which losses are listed, beside the last one of each: close together at the start, where losses fall."""


def settings_sheet(runs: Mapping[str, Dossier]) -> Sheet:
    """Settings and facts that are not the same for all runs, by letter of the run."""
    facts = {name: facts_of(run) for name, run in runs.items()}
    keys = list(dict.fromkeys(key for of_run in facts.values() for key in of_run))
    rows = [{"setting": key, **{name: of_run.get(key, MISSING) for name, of_run in facts.items()}} for key in keys
            if len({of_run.get(key, MISSING) for of_run in facts.values()}) > 1]
    frame = pd.DataFrame(rows, columns=["setting", *runs], dtype=object)
    same = "" if len(frame) else "All settings, the data and the code are the same. "
    return Sheet("compare-settings", "What differs", frame, 1 + len(runs), frame,
                 [f"{same}{len(keys) - len(frame)} settings and facts are the same and not shown.", legend(runs)])


def losses_sheet(curves: Mapping[str, LossCurve]) -> Sheet:
    """Mean loss of some epochs, and each divided by that of the first, by letter of the run or log."""
    whole = pd.DataFrame({letter: curve.loss for letter, curve in curves.items()}).sort_index()
    last = {int(curve.loss.index[-1]) for curve in curves.values()}
    rare = {int(epoch) for curve in curves.values() if len(curve.loss) <= len(EPOCHS) for epoch in curve.loss.index}
    frame = whole[[epoch in last | rare | set(EPOCHS) for epoch in whole.index]]
    first = next(iter(curves))
    ratios = {f"{letter} / {first}": frame[letter] / frame[first] for letter in curves if letter != first}
    numbers = frame.assign(**ratios).rename_axis("epoch").reset_index()
    shown = pd.DataFrame({"epoch": numbers["epoch"].map("{:,}".format),
                          **{letter: texts(numbers[letter], ".4f") for letter in curves},
                          **{name: texts(numbers[name], ".2f") for name in ratios}})
    footer = [*unlike(curves), *(f"{letter}: {note}." for letter, curve in curves.items() for note in curve.notes),
              "An epoch is one pass over the videos, so losses of other amounts of video are not of equal training.",
              legend(curves)]
    return Sheet("compare-losses", "Training loss, mean of an epoch", shown, 0, numbers, footer)


def results_sheet(runs: Mapping[str, Dossier]) -> Sheet:
    """What came of each run and what it took, by letter of the run."""
    numbers = pd.DataFrame({letter: _results(run) for letter, run in runs.items()}, dtype=float)
    numbers = numbers.dropna(how="all").rename_axis("number").reset_index()
    shown = numbers.assign(**{letter: [number(value) for value in numbers[letter]] for letter in runs})
    states = "; ".join(f"{letter} is {run.state}" for letter, run in runs.items())
    return Sheet("compare-results", "Results and cost", shown, 1, numbers, [f"State: {states}.", legend(runs)])


def legend(named: Mapping[str, Dossier] | Mapping[str, LossCurve]) -> str:
    """Which letter is which."""
    return "; ".join(f"{letter} = {each.name}" for letter, each in named.items()) + "."


def _results(run: Dossier) -> dict[str, Any]:
    losses, spent, result = run.curves["loss"].dropna(), totals(run.attempts), run.result
    count = last_steps(len(losses))
    ranks = result.get("world_size") or (run.record.get("plan") or {}).get("world_size")
    used_s = sum(spent[part] for part in PARTS)
    return {"top-1 accuracy, %": result.get("top1_pct"), "top-5 accuracy, %": result.get("top5_pct"),
            "loss, mean of the last 5 % of the steps": losses.tail(count).mean() if len(losses) else None,
            "steps": result.get("steps") or (run.attempts[-1].last_step if run.attempts else None),
            "epochs": run.curves["epoch"].max() if len(run.curves) else None,
            "clips per second, median": run.curves["clips_per_s"].median() if len(run.curves) else None,
            "share of a step spent waiting for clips, %": 100 * run.curves["data_wait"].mean() if len(run.curves) else None,
            "goodput, %": None if spent["goodput"] is None else 100 * spent["goodput"],
            "hours on the machines, of all ranks": used_s * ranks / 3600 if ranks and run.attempts else None}


def lettered(things: Sequence[Any]) -> dict[str, Any]:
    """A, B, C ... for runs and logs, in the order of the command line.

    Raises:
        ValueError: There are more than letters.
    """
    if len(things) > len(ascii_uppercase):
        raise ValueError(f"{len(things)} runs and logs are given, allowed: up to {len(ascii_uppercase)}")
    return dict(zip(ascii_uppercase, things, strict=False))
