"""From what robustness cells found to numbers: by model and set, and for pairs of models on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.results.guessing import above_guessing
from analysis.tables.curves.robust.human_trials import contents_by_name, read_humans, right_by_subject
from analysis.tables.curves.robust.robust_numbers import (
    EffectiveRobustness,
    Estimated,
    effective_robustness,
    error_consistency,
    kept_pct,
    mean_corruption_error,
    paired_difference,
    relative_corruption_error,
    shape_bias,
    shape_texture_index,
)
from analysis.tables.curves.robust.robust_runs import CLEAN, Tests, align
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder, read_json

SHAPE_ONLY, TEXTURE_ONLY = ("silhouette", "edges"), ("patch_shuffle",)
CORRUPTIONS, LEVELS = 15, 5  # of ImageNet-C
IMAGENET_C = "imagenet-c"
HUMANS = "humans"


@dataclass(frozen=True)
class Shift:
    """Some conditions of a set, taken together.

    Attributes:
        test_set: The set.
        name: imagenet-c, a group of conditions, or the set itself.
        conditions: Their texts.
        generated: All of them are made by rules where no published set is at hand.
    """

    test_set: str
    name: str
    conditions: tuple[str, ...]
    generated: bool


def shifts_of(tests: Tests) -> list[Shift]:
    """All groups of conditions, and the sets that were tested as they are."""
    found = []
    for test_set in tests.sets:
        facts = tests.facts(test_set)
        groups: dict[str, list[str]] = {}
        for text, fact in facts.iterrows():
            if text != CLEAN:
                groups.setdefault(IMAGENET_C if fact["imagenet_c"] else str(fact["group"]), []).append(str(text))
        found += [Shift(test_set, name, tuple(texts), bool(facts.loc[texts, "generated"].all()))
                  for name, texts in groups.items()]
        if not groups and not facts["cues"].any() and not facts["own_set"].all():
            found.append(Shift(test_set, test_set, (CLEAN,), False))
    return found


def clean_pct(tests: Tests, test_set: str, shift: Shift | None = None) -> pd.Series:
    """Accuracy of each model without a shift, the mean over seeds: on the set itself, or, of a set that is tested as it
    is or has no clean images, on the model's own validation set."""
    means = tests.means(test_set)
    if CLEAN in means.index and (shift is None or shift.conditions != (CLEAN,)):
        return means.loc[CLEAN].astype(float)
    cells = tests.of(set=test_set).drop_duplicates(["model", "seed"])  # not its rows: a seed may have more of them
    found = pd.to_numeric(cells["cell_top1_pct"]).groupby(cells["model"], sort=False).mean().astype(float)
    if found.notna().all():
        return found
    own = tests.of(own_set=True, condition=CLEAN).groupby("model")["top1_pct"].mean()  # a file was no cell before
    return found.fillna(own.reindex(found.index))


def shifted_pct(tests: Tests, shift: Shift) -> pd.Series:
    """Mean accuracy of each model over the conditions of a shift; a model that was not tested under all of them has none."""
    means = tests.means(shift.test_set).reindex(list(shift.conditions))
    return means.mean(axis="index", skipna=False)


def chance_pct(tests: Tests, test_set: str, model: str) -> float:
    """Accuracy of guessing among the answers that a model has on a set."""
    return 100 / float(tests.of(set=test_set, model=model)["answers"].iloc[0])


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors against a reference model.

    Attributes:
        mce: mCE of each model, in %.
        relative: Relative mCE of each, in %; NaN where it is not defined.
        of_corruption: CE of each corruption (rows) and model (columns).
        said: What the numbers are of, and what could not be computed.
    """

    mce: pd.Series
    relative: pd.Series
    of_corruption: pd.DataFrame
    said: list[str]


def corruption_errors(tests: Tests, test_set: str, reference: str) -> CorruptionErrors | None:
    """mCE of every model on a set, against a reference; None where no corruption of ImageNet-C was tested.

    Raises:
        ValueError: The reference was not tested on the set, or nothing can be divided by its errors.
    """
    facts, means = tests.facts(test_set), tests.means(test_set)
    facts = facts[facts["imagenet_c"].astype(bool)]
    if facts.empty:
        return None
    if reference not in means:
        raise ValueError(f"--reference {reference!r} was not tested on {test_set}; there are: {', '.join(means)}")
    clean, texts = clean_pct(tests, test_set), list(facts.index)
    tables = {model: {name: {int(facts.loc[text, "level"]): float(means.loc[text, model]) for text in group.index}
                      for name, group in facts.groupby("name", sort=False)}
              for model in means if means.loc[texts, model].notna().all()}
    said = [f"{test_set}: {model} was not tested under all corruptions of the others and has no mCE" for model in means
            if model not in tables]
    if reference not in tables:
        raise ValueError(f"--reference {reference!r} was not tested under all corruptions on {test_set}")
    mce, of_corruption, relative = {}, {}, {}
    for model, table in tables.items():
        mce[model], of_corruption[model] = mean_corruption_error(table, tables[reference])
        try:
            relative[model], _ = relative_corruption_error(table, tables[reference], clean[model], clean[reference])
        except ValueError as error:
            relative[model] = float("nan")
            said.append(f"{test_set}: no relative mCE: {error}")
    names, levels = facts["name"].nunique(), facts["level"].nunique()
    whole = "" if (names, levels) == (CORRUPTIONS, LEVELS) else f" (the definition has {CORRUPTIONS} and {LEVELS})"
    said.insert(0, f"mCE on {test_set}: {names} corruptions at {levels} severities{whole}, errors divided by those of "
                   f"{reference}")
    return CorruptionErrors(pd.Series(mce), pd.Series(relative), pd.DataFrame(of_corruption), list(dict.fromkeys(said)))


@dataclass(frozen=True)
class Fitted:
    """A shift against clean accuracy: a point for each model, and the line through all.

    Attributes:
        shift: The shift.
        clean: Clean accuracy of each model, in %.
        shifted: Accuracy under the shift.
        line: The regression; None where it cannot be made.
        why: Why not.
        images: How many were seen under each condition.
    """

    shift: Shift
    clean: pd.Series
    shifted: pd.Series
    line: EffectiveRobustness | None
    why: str
    images: int

    def kept(self, chance: Mapping[str, float], *, above: bool) -> pd.Series:
        """Share of the clean accuracy that each model keeps, in %; NaN where that is not clearly above chance.

        Args:
            chance: Accuracy of guessing of each model, in %.
            above: Take what guessing gives off both.
        """
        found = {}
        for model in self.shifted.index:
            clear = above_guessing(self.clean[model], self.images, chance[model])
            off = chance[model] if above else 0.0
            found[model] = kept_pct(self.shifted[model], self.clean[model], off) if clear else float("nan")
        return pd.Series(found, dtype=float)

    def effective(self, model: str) -> float:
        """Percentage points of a model above the line; NaN without one."""
        return float(self.line.effective_pct[list(self.shifted.index).index(model)]) if self.line else float("nan")


def fit_shift(tests: Tests, shift: Shift) -> Fitted:
    """The points and the line of a shift; models without all of its conditions are left out."""
    shifted = shifted_pct(tests, shift).dropna()
    clean = clean_pct(tests, shift.test_set, shift).reindex(shifted.index)
    shifted = shifted[clean.notna()]
    clean = clean.dropna()
    images = int(tests.of(set=shift.test_set)["clips"].iloc[0])
    try:
        line = effective_robustness(clean.to_numpy(float), shifted.to_numpy(float), images)
    except ValueError as error:
        return Fitted(shift, clean, shifted, None, f"{shift.test_set}, {shift.name}: {error}", images)
    return Fitted(shift, clean, shifted, line, "", images)


def shape_biases(tests: Tests) -> list[tuple[str, str, Estimated, float, float, int]]:
    """Of every model on every set of cue conflicts: model, set, bias, shape and texture decisions in %, images.

    Images whose shape and texture are of one class are left out. Seeds of a model are averaged image by image.
    """
    found = []
    for test_set in tests.sets:
        rows = tests.of(set=test_set, condition=CLEAN)
        for model in dict.fromkeys(rows[rows["cues"]]["model"]):
            texture = _textures(rows[rows["model"] == model])
            seen = align(list(tests.said(model, test_set, CLEAN).values()))
            textures = np.array([texture[content] for content in seen.content.tolist()])
            conflict = textures != seen.label
            if not conflict.any():
                continue
            by_shape = np.mean([answer == seen.label for answer in seen.answer], axis=0)[conflict]
            by_texture = np.mean([answer == textures for answer in seen.answer], axis=0)[conflict]
            found.append((model, test_set, shape_bias(by_shape, by_texture), 100 * float(by_shape.mean()),
                          100 * float(by_texture.mean()), int(conflict.sum())))
    return found


def _textures(rows: pd.DataFrame) -> dict[int, int]:
    """Texture of every image by its content."""
    with np.load(RunFolder(Path(rows["run"].iloc[0])).cues, allow_pickle=False) as arrays:
        return dict(zip(arrays["content"].tolist(), arrays["texture"].tolist(), strict=True))


def shape_texture_indices(tests: Tests) -> list[tuple[str, str, Estimated, float, float, int]]:
    """The index of every model on every set with shapes alone and textures alone: model, set, index, both accuracies in %,
    images."""
    found = []
    for test_set in tests.sets:
        facts = tests.facts(test_set)
        kinds = [[str(text) for text in facts.index[facts["name"].isin(names)]] for names in (SHAPE_ONLY, TEXTURE_ONLY)]
        for model in tests.means(test_set):
            there = set(tests.of(model=model, set=test_set)["condition"])
            if not all(kinds) or not there.issuperset(kinds[0] + kinds[1]):
                continue
            shape, texture = right_shares(tests, test_set, [(model, kinds[0]), (model, kinds[1])])
            found.append((model, test_set, shape_texture_index(shape, texture, chance_pct(tests, test_set, model) / 100),
                          100 * float(shape.mean()), 100 * float(texture.mean()), len(shape)))
    return found


def right_shares(tests: Tests, test_set: str, wanted: Sequence[tuple[str, Sequence[str]]]) -> list[np.ndarray]:
    """For each model and its conditions, share of conditions and seeds in which each image was recognised.

    Only seeds that all of the models have count, where there are any; images are those that all were tested on.
    """
    said = [[tests.said(model, test_set, text) for text in texts] for model, texts in wanted]
    seeds = set.intersection(*(set(by_seed) for each in said for by_seed in each))
    flat: list[Predictions] = []
    sizes = []
    for each in said:
        mine = [by_seed[seed] for by_seed in each for seed in sorted(seeds or by_seed)]
        flat += mine
        sizes.append(len(mine))
    right = align(flat).right
    ends = np.cumsum([0, *sizes])
    return [np.mean(right[first:end], axis=0) for first, end in pairwise(ends)]


def video_image_pairs(tests: Tests) -> list[tuple[str, str]]:
    """Every model of several frames with every model of one that learned the same task from as many clips, alike."""
    facts = tests.rows.drop_duplicates("model").set_index("model")
    frames, task = facts["num_frames"], facts["task"]
    images = [model for model in frames.index if frames[model] == 1]
    return [(video, image) for video in frames.index if frames[video] > 1 for image in images if task[video] == task[image]]


@dataclass(frozen=True)
class Paired:
    """Two models on the same images: the accuracy of the first minus that of the second, in percentage points."""

    first: str
    second: str
    shift: Shift
    difference: Estimated
    images: int


def paired_differences(tests: Tests, pairs: Sequence[tuple[str, str]], shifts: Sequence[Shift],
                       ) -> tuple[list[Paired], list[str]]:
    """Differences of pairs under clean and every shift, and why some are missing."""
    found, why = [], []
    for first, second in pairs:
        clean = [Shift(test_set, CLEAN, (CLEAN,), False) for test_set in tests.sets]
        for shift in [*clean, *(each for each in shifts if each.conditions != (CLEAN,))]:
            means = tests.means(shift.test_set)
            wanted = means.reindex(index=list(shift.conditions), columns=[first, second])
            if wanted.isna().any(axis=None):
                continue
            try:
                one, other = right_shares(tests, shift.test_set, [(first, shift.conditions), (second, shift.conditions)])
            except (ValueError, OSError) as error:
                why.append(f"{first} and {second} on {shift.test_set}, {shift.name}: {error}")
                continue
            found.append(Paired(first, second, shift, paired_difference(one, other), len(one)))
    return found, why


@dataclass(frozen=True)
class Consistency:
    """Two observers on the same images."""

    first: str
    second: str
    test_set: str
    kappa: Estimated
    images: int


def consistencies(tests: Tests, humans: Path | None) -> tuple[list[Consistency], list[str]]:
    """Error consistency of all pairs of models without a condition, and of each with people; and why some are missing.

    One seed stands for a model, the lowest. With people it is the mean over persons, and over the conditions that folders or
    names of a set say.

    Raises:
        ValueError: The file of people cannot be used.
    """
    trials = read_humans(humans) if humans else None
    found, why, met = [], [], False
    for test_set in tests.sets:
        facts = tests.facts(test_set)
        said = {model: next(iter(sorted(by_seed.items())))[1] for model in tests.means(test_set)
                if (by_seed := tests.said(model, test_set, CLEAN))}
        for first, second in combinations(said, 2):
            try:
                seen = align([said[first], said[second]])
            except ValueError as error:
                why.append(f"{first} and {second} on {test_set}: {error}")
                continue
            found.append(Consistency(first, second, test_set, error_consistency(*seen.right), len(seen.content)))
        if trials is None:
            continue
        try:
            people = right_by_subject(trials, contents_by_name(_manifest(tests, test_set)))
        except ValueError as error:
            why.append(f"{test_set}: {error}")
            continue
        met = True
        texts = [CLEAN] if CLEAN in facts.index else list(facts.index)
        for model in tests.means(test_set):
            shown = [by_seed[min(by_seed)] for text in texts if (by_seed := tests.said(model, test_set, str(text)))]
            if each := _with_people(model, test_set, shown, people):
                found.append(each)
    if trials is not None and not met:
        raise ValueError("; ".join(why) or "--humans: there is no set that people saw")
    return found, why


def _with_people(model: str, test_set: str, shown: Sequence[Predictions], people: dict[str, tuple[np.ndarray, np.ndarray]],
                 ) -> Consistency | None:
    """Mean kappa of a model with every person, of each the mean over conditions; the interval is the lowest and the highest
    of a person.

    Args:
        model: Its name.
        test_set: The set.
        shown: What the model said under each condition.
        people: From `right_by_subject`.
    """
    kappas, images = [], np.empty(0, np.uint64)
    said = [(*np.unique(each.content, return_index=True), each.rank == 0) for each in shown]
    for seen, correct in people.values():
        of_conditions = []
        for contents, places, right in said:
            common, mine, theirs = np.intersect1d(contents, seen, return_indices=True)
            if len(mine):
                of_conditions.append(error_consistency(right[places][mine], correct[theirs]).value)
                images = np.union1d(images, common)
        if of_conditions:
            kappas.append(float(np.mean(of_conditions)))
    if not kappas:
        return None
    mean = Estimated(float(np.mean(kappas)), min(kappas), max(kappas))
    return Consistency(model, f"{HUMANS} ({len(kappas)})", test_set, mean, len(images))


def _manifest(tests: Tests, test_set: str) -> Path:
    """Where the images of a set are listed."""
    run = RunFolder(Path(tests.of(set=test_set)["run"].iloc[0]))
    return Path(str((read_json(run.record) or {})["manifest"]))
