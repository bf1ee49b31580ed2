"""A scaling study from results to tables: what --compare names, all fits, what is missing, and what has to be said."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.tables.curves.curve_tables import fits_sheet, gain_to, left_out_sheet, paired_sheet, seeds_sheet
from analysis.tables.curves.fitted_curves import Study, study_all, warnings
from analysis.tables.curves.series import Results, missing
from analysis.tables.curves.series_pairs import compare, series_of
from analysis.tables.sheet import Sheet

CLAIM_POINTS = 20.0  # what the paper expects of a hundred times as much video


def analyse(results: Results, given: Sequence[str]) -> tuple[list[Study], list[Sheet], list[str]]:
    """All fits, their tables, and what is missing.

    Args:
        results: What to fit.
        given: What --compare says.
    Raises:
        ValueError: Not one task can be fitted, or the two series cannot be compared.
    """
    pairs = [(series_of(results, first), series_of(results, second)) for first, second in map(two_series, given)]
    compared = {pair: compare(results, *pair) for pair in pairs}
    alone = [f"{first} and {second} have no task, {results.axis} and seed in common: there is nothing to compare"
             for (first, second), found in compared.items() if not found]
    studies, failed = study_all(results)
    if not studies:
        raise ValueError("; ".join(failed or results.lost) or "there is no accuracy in the results")
    sheets = [fits_sheet(studies, results), left_out_sheet(studies, results)]
    if any(len(each.by_seed) > 1 for each in studies):
        sheets.append(seeds_sheet(studies, results.whole))
    if any(compared.values()):
        sheets.append(paired_sheet(results, compared))
    return studies, sheets, missing(results) + failed + alone


def two_series(given: str) -> tuple[str, str]:
    """What --compare names.

    Raises:
        ValueError: It does not name two.
    """
    first, comma, second = (word.strip() for word in given.partition(","))
    if not comma:
        raise ValueError(f"--compare {given} is not two series, such as contiguous,random")
    return first, second


def remarks(studies: Sequence[Study], results: Results) -> list[str]:
    """What the numbers alone would hide; of published ones also what the fits make of the paper's claim."""
    groups = dict.fromkeys((each.series, each.metric) for each in studies if each.series.startswith("published"))
    return warnings(studies, results.whole) + [
        on_the_claim([each for each in studies if (each.series, each.metric) == group]) for group in groups]


def on_the_claim(studies: Sequence[Study]) -> str:
    """The gains to x100 by the line in one metric, with their intervals, against the paper's about 20 points."""
    gains = {each.task: gain_to(each.line, 0.0) for each in studies}
    inside = sum(low <= CLAIM_POINTS <= high for _, low, high in gains.values())
    each = ", ".join(f"{task} {gain:+.1f} [{low:.1f}, {high:.1f}]" for task, (gain, low, high) in gains.items())
    return (f"{studies[0].series} {studies[0].metric}, points gained by x100 of the data on the line: {each}; "
            f"{CLAIM_POINTS:g} points lie within {inside} of {len(gains)} intervals")
