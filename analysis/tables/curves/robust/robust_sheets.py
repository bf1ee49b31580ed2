"""Tables of robustness: one line per model and shift, accuracy under every condition, shape and texture, pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.tables.curves.robust.robust_numbers import Estimated
from analysis.tables.curves.robust.robust_runs import CLEAN, Tests
from analysis.tables.curves.robust.robust_study import (
    Consistency,
    CorruptionErrors,
    Fitted,
    Paired,
    chance_pct,
    clean_pct,
)
from analysis.tables.sheet import MISSING, Sheet

GENERATED = " (generated)"
OVER_IMAGES = "Intervals are 95 % over images (bootstrap), not over seeds or labelled clips."


def shifts_sheet(tests: Tests, fitted: Sequence[Fitted], errors: Mapping[str, CorruptionErrors]) -> Sheet:
    """A row per set, shift and model."""
    records = []
    for each in fitted:
        shift = each.shift
        chance = {str(model): chance_pct(tests, shift.test_set, model) for model in each.shifted.index}
        kept, above = each.kept(chance, above=False), each.kept(chance, above=True)
        of_set = errors.get(shift.test_set)
        for model in each.shifted.index:
            is_c = shift.name == "imagenet-c" and of_set is not None
            records.append({
                "set": shift.test_set, "shift": shift.name, "generated": shift.generated, "model": model,
                "conditions": len(shift.conditions), "clean_pct": each.clean[model], "pct": each.shifted[model],
                "kept_pct": kept[model], "kept_above_chance_pct": above[model], "effective_points": each.effective(model),
                "mce_pct": of_set.mce.get(model) if is_c and of_set else None,
                "relative_mce_pct": of_set.relative.get(model) if is_c and of_set else None, "chance_pct": chance[model]})
    frame = pd.DataFrame(records)
    shown = pd.DataFrame({
        "set": frame["set"], "shift": frame["shift"] + frame["generated"].map({True: GENERATED, False: ""}),
        "model": frame["model"], "conditions": frame["conditions"].map(str), "clean, %": _numbers(frame["clean_pct"]),
        "top-1, %": _numbers(frame["pct"]), "kept, %": _numbers(frame["kept_pct"]),
        "kept above chance, %": _numbers(frame["kept_above_chance_pct"]),
        "effective, points": _numbers(frame["effective_points"], "{:+.1f}"),
        "mCE, %": _numbers(frame["mce_pct"]), "relative mCE, %": _numbers(frame["relative_mce_pct"])})
    footer = ["Accuracies are means over the conditions of a shift and over seeds.",
              ("Kept: accuracy under the shift divided by clean accuracy, also with guessing taken off both; "
               "-- where clean accuracy is not above guessing (95 %). A less accurate model has less to lose: read it "
               "beside the effective robustness."),
              ("Effective: points above the line through clean and shifted accuracy of all models (logit axes, Taori et al. "
               "2020). Every model is on the line that it is compared with."),
              *(line for each in errors.values() for line in each.said),
              *dict.fromkeys(each.why for each in fitted if each.why)]
    if sets := [fit.shift.test_set for fit in fitted
                if fit.shift.conditions == (CLEAN,) or CLEAN not in tests.means(fit.shift.test_set).index]:
        footer.append(f"Clean accuracy is that on the model's own validation set for {', '.join(dict.fromkeys(sets))}.")
    for fit in fitted:
        facts = tests.facts(fit.shift.test_set).loc[list(fit.shift.conditions)]
        if not fit.shift.generated and (made := list(dict.fromkeys(facts["name"][facts["generated"].astype(bool)]))):
            footer.append(f"{fit.shift.test_set}, {fit.shift.name}: generated among its conditions: {', '.join(made)}")
    return Sheet("robustness-shifts", "Robustness", shown, 3, frame, footer)


def conditions_sheet(tests: Tests) -> Sheet:
    """A row per set and condition, a column per model."""
    parts = []
    for test_set in tests.sets:
        means, facts = tests.means(test_set), tests.facts(test_set)
        part = means.reindex(columns=tests.models)
        part.insert(0, "clips", facts["clips"].reindex(part.index))
        part.insert(0, "generated", facts["generated"].reindex(part.index).astype(bool))
        part.insert(0, "condition", list(part.index))
        part.insert(0, "set", test_set)
        parts.append(part.reset_index(drop=True))
    frame = pd.concat(parts, ignore_index=True)
    shown = pd.DataFrame({"set": frame["set"], "condition": frame["condition"]
                          + frame["generated"].map({True: GENERATED, False: ""}),
                          **{model: _numbers(frame[model]) for model in tests.models}})
    seeds = sorted(tests.rows["seed"].unique())
    return Sheet("robustness-conditions", "Top-1 accuracy under conditions, %", shown, 2, frame,
                 [f"Means over seeds ({', '.join(map(str, seeds))})."])


def errors_sheet(errors: Mapping[str, CorruptionErrors]) -> Sheet | None:
    """CE of every corruption; None where there is none."""
    if not errors:
        return None
    parts = [each.of_corruption.rename_axis("corruption").reset_index().assign(set=test_set)
             for test_set, each in errors.items()]
    frame = pd.concat(parts, ignore_index=True)
    models = [name for name in frame if name not in ("set", "corruption")]
    frame = frame[["set", "corruption", *models]]
    shown = frame[["set", "corruption"]].assign(**{model: _numbers(frame[model]) for model in models})
    return Sheet("robustness-corruption-error", "Corruption error, % of the reference", shown, 2, frame,
                 [line for each in errors.values() for line in each.said])


def shape_sheet(biases: Sequence[tuple[str, str, Estimated, float, float, int]],
                indices: Sequence[tuple[str, str, Estimated, float, float, int]]) -> Sheet | None:
    """Shape bias and shape-texture index; None where neither was tested."""
    records = [{"measure": measure, "set": test_set, "model": model, **_estimate(number), "shape_pct": shape,
                "texture_pct": texture, "images": images}
               for measure, found in (("shape bias", biases), (f"shape-texture index{GENERATED}", indices))
               for model, test_set, number, shape, texture, images in found]
    if not records:
        return None
    frame = pd.DataFrame(records)
    texts = [number.text(2) for found in (biases, indices) for _, _, number, *_ in found]
    shown = frame[["measure", "set", "model"]].assign(
        **{"value [95 %]": texts, "shape, %": _numbers(frame["shape_pct"]), "texture, %": _numbers(frame["texture_pct"]),
           "images": frame["images"].map(str)})
    return Sheet("robustness-shape", "Shape and texture", shown, 3, frame, [
        ("Shape bias: shape decisions / (shape + texture decisions) on images whose shape and texture differ (Geirhos et "
         "al. 2019); the columns are the decisions of each kind, in % of the images."),
        ("Shape-texture index: (S - T) / (S + T), S and T accuracies above chance on silhouettes and edges, and on shuffled "
         "patches, all made from the same images by rules; the columns are the accuracies."), OVER_IMAGES])


def paired_sheet(pairs: Sequence[Paired]) -> Sheet | None:
    """Differences of two models on the same images; None where there is none."""
    if not pairs:
        return None
    frame = pd.DataFrame([{"first": each.first, "second": each.second, "set": each.shift.test_set, "shift": each.shift.name,
                           "generated": each.shift.generated, **_estimate(each.difference), "images": each.images}
                          for each in pairs])
    shown = frame[["first", "second", "set"]].assign(
        shift=frame["shift"] + frame["generated"].map({True: GENERATED, False: ""}),
        **{"difference, points [95 %]": [each.difference.text() for each in pairs], "images": frame["images"].map(str)})
    return Sheet("robustness-paired", "Top-1 accuracy of the first minus the second, on the same images", shown, 4, frame,
                 [OVER_IMAGES, "An interval that holds 0 is no difference. They are not corrected for their number."])


def consistency_sheet(found: Sequence[Consistency]) -> Sheet | None:
    """Error consistency; None where there is none."""
    if not found:
        return None
    frame = pd.DataFrame([{"set": each.test_set, "first": each.first, "second": each.second, **_estimate(each.kappa),
                           "images": each.images} for each in found])
    shown = frame[["set", "first", "second"]].assign(
        **{"kappa [95 %]": [each.kappa.text(2) for each in found], "images": frame["images"].map(str)})
    return Sheet("robustness-consistency", "Error consistency", shown, 3, frame, [
        "Cohen's kappa of being right on the same images (Geirhos et al. 2020): 0 is chance, 1 the same errors.",
        "With people: the mean over persons, in brackets the lowest and the highest person. " + OVER_IMAGES])


def _estimate(number: Estimated) -> dict[str, Any]:
    return {"value": number.value, "low": number.low, "high": number.high}


def _numbers(values: pd.Series, form: str = "{:.1f}") -> pd.Series:
    """Numbers as texts; missing ones are `--`."""
    return pd.to_numeric(values).map(form.format, na_action="ignore").astype(object).fillna(MISSING)


def clean_of_sets(tests: Tests) -> pd.DataFrame:
    """Clean accuracy of every model (columns) on every set (rows)."""
    return pd.DataFrame({test_set: clean_pct(tests, test_set) for test_set in tests.sets}).T
