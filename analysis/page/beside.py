"""The losses of a run beside those of other runs, of released logs, and of published runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase

from analysis.page.charts import overlay
from analysis.page.dossier import Dossier
from analysis.page.html import Section
from analysis.results.loss_curves import LossCurve, of_log, of_steps, published, published_names
from analysis.results.which_run import find_run
from vidmae.runs.record import RunFolder


def read(word: str, runs_dir: Path) -> Dossier | LossCurve:
    """What a word of the command line means: a published run by its name, else a log where it is a file, else a run.

    Raises:
        ValueError: It is none of these.
    """
    if word in published_names():  # before runs that begin with such a letter; `./s` is a file or folder
        return published(word)
    if Path(word).is_file():
        return of_log(Path(word))
    try:
        return Dossier(RunFolder(find_run(word, runs_dir)))
    except ValueError as error:
        raise ValueError(f"{error}; nor is it a log or a published run ({', '.join(published_names())})") from None


def curve_of(run: Dossier) -> LossCurve:
    """The losses of a run.

    Raises:
        ValueError: It has none.
    """
    curve = of_steps(run.name, run.curves["epoch"].to_numpy(), run.curves["loss"].to_numpy(), run.config)
    if curve.loss.empty:
        raise ValueError(f"{run.name} has no loss yet: no step is recorded in its metrics.jsonl")
    return curve


def unlike(curves: Mapping[str, LossCurve]) -> list[str]:
    """Sentences on losses that do not measure the same thing."""
    found = []
    for key in dict.fromkeys(key for curve in curves.values() for key in curve.measure):
        values = {name: curve.measure[key] for name, curve in curves.items() if key in curve.measure}
        if len(set(map(str, values.values()))) > 1:
            said = ", ".join(f"{value} for {name}" for name, value in values.items())
            found.append(f"These losses are not of one measure: {key} is {said}.")
    return found


def beside(run: Dossier, words: Sequence[str], runs_dir: Path) -> Section:
    """The section of a run's page.

    Raises:
        ValueError: The run, or one of the others, has no losses, a word means nothing, or there are too many.
    """
    if len(words) >= len(ascii_uppercase):
        raise ValueError(f"--beside is given {len(words)} times, allowed: up to {len(ascii_uppercase) - 1}")
    found = [read(word, runs_dir) for word in words]
    curves = [curve_of(run), *(curve_of(each) if isinstance(each, Dossier) else each for each in found)]
    names = [run.name, *(each.name if isinstance(each, Dossier) or word in published_names() else "a log"
                         for word, each in zip(words, found, strict=True))]  # files are not named on a page
    named = {f"{letter}: {name}": curve for letter, name, curve in zip(ascii_uppercase, names, curves, strict=False)}
    notes = [f"{name}: {note}." for name, curve in named.items() for note in curve.notes]
    return Section("Losses beside others", [
        "Mean loss of each epoch. An epoch is one pass over the videos.", *unlike(named), *notes],
        overlay=overlay("Loss", {name: curve.loss for name, curve in named.items()}, "loss"))
