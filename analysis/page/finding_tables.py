"""Tables of results as the page shows them: names with units, what is best, and what a table comes to.

Columns that may name files stay where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.page.html import Table
from analysis.page.wording import discreet, number

MOST_ROWS, MOST_OPEN = 200, 30  # longer tables are folded
CAPTIONS = {  # tables that are known, in this order
    "methods.csv": "Scores of the hidden pixels, mean over recordings; motion: thirds of the clips by how much moves",
    "differences.csv": "Model minus baseline on the same clips, with 95 % intervals over recordings",
    "domains.csv": "Model minus baseline in one domain, minus the same in the other, with 95 % intervals over recordings",
    "tracking_summary.csv": "Tracking probe: where a completion shows the moving object, and whether once",
    "summary.csv": "Share of the attention on moving pixels, divided by their share of the area; 1: no preference",
    "concepts.csv": "Share of pairs in which the impossible video surprises more, by concept; 50 % is chance",
    "embedding-scores.csv": "Whether clips of a class lie together: silhouette, and classes of the nearest clips",
}
BY_MOTION = {"differences.csv", "domains.csv"}  # of these the page has the rows of all clips
PRIVATE_COLUMNS = {"path", "paths", "file", "files", "filename", "file_name", "video", "video_name", "clip_name", "name",
                   "recording", "source"}
NAMES = {  # columns of these tables, with their units; others get a comma before a unit that their name ends in
    "psnr_db": "PSNR, dB", "ssim": "SSIM", "mse": "squared error", "norm_mse": "squared error, normed",
    "mc_mse": "squared error, bent", "flow_error_px": "error of motion, px", "profile_mse": "squared error, in time",
    "motion_px": "motion, px a frame", "ci_low": "95 % from", "ci_high": "95 % to", "better_pct": "model better, % of clips",
    "error_px": "distance from the truth, px", "objects": "places found", "one_object_pct": "found once, %",
    "ratio_low": "95 % from", "ratio_high": "95 % to", "others_ratio": "ratio, others' map",
    "other_difference": "difference, other", "apart": "difference of the differences",
    "difference_low": "95 % from", "difference_high": "95 % to"}
UNITS = {"pct": "%", "px": "px", "s": "s", "db": "dB", "h": "h"}
WORDS = {"map": {"mean": "mean over heads", "rollout": "rollout through all blocks"}}
"""Values of a column that are better said in other words."""
BEST = {  # table -> columns in which rows are equal that compete; methods that do not; where more is better; where less is
    "methods.csv": (["domain", "motion"], (), ["psnr_db", "ssim"],
                    ["mse", "norm_mse", "mc_mse", "flow_error_px", "profile_mse"]),
    "tracking_summary.csv": (["mask", "path"], ("truth",), ["one_object_pct"], ["error_px"])}
BELOW_CHANCE = ("Some precisions are below chance: the nearest clips are more often of other classes than clips drawn "
                "at random. The features then follow what clips of different classes share, such as the place or the film.")
"""Said below scores of features, too."""


def read_frame(path: Path) -> pd.DataFrame:
    """The texts of a table of results, without columns that may name files."""
    known, every = path.name in CAPTIONS, path.name in BY_MOTION
    try:
        found = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding_errors="replace",
            nrows=None if every else MOST_ROWS + 1,
            usecols=lambda name: known or name.lower().partition(".")[0] not in PRIVATE_COLUMNS)  # the second path is path.1
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return found[found["motion"] == "all"] if every else found


def table_of(name: str, found: pd.DataFrame) -> Table:
    """The first rows of a table of results; `name` is that of its file."""
    first = found[:MOST_ROWS]
    shown = first.assign(**{column: first[column].replace(words) for column, words in WORDS.items() if column in first}).map(
        lambda text: number(text) if text else "--")
    numeric = [len(shown) > 0 and shown[column].str.fullmatch(r"--|[-+\d.,e]+").all() for column in shown]
    caption = CAPTIONS.get(name, discreet(Path(name).stem).replace("_", " ").capitalize())
    caption += f" (the first {MOST_ROWS} rows)" if len(found) > MOST_ROWS else ""
    best = _best(first, *BEST[name]) if name in BEST else None
    return Table(caption + ("; bold: the best" if best is not None else ""), shown.rename(columns=heading),
                 [*numeric, True].index(True) if numeric else None, folded=len(found) > MOST_OPEN, best=best)


def heading(column: str) -> str:
    """A column's name for people, with its unit."""
    words, _, unit = column.rpartition("_")
    if column in NAMES or column.startswith("Unnamed: "):
        return NAMES.get(column, "")
    return f"{words.replace('_', ' ')}, {UNITS[unit]}" if words and unit in UNITS else column.replace("_", " ")


def _best(found: pd.DataFrame, alike: list[str], others: Sequence[str], more: list[str], less: list[str]) -> pd.DataFrame:
    """Which values are the best among the rows that compete; of one row none is."""
    marks = pd.DataFrame(False, found.index, found.columns)
    if not {*alike, "method"} <= set(found):
        return marks
    compete = found[~found["method"].isin(others)]
    groups = [compete[column] for column in alike]
    several = compete.groupby(groups, sort=False)["method"].transform("size") > 1
    for column in (*more, *less):
        if column in found:
            values = pd.to_numeric(compete[column], errors="coerce")
            best = values.groupby(groups).transform("max" if column in more else "min")
            marks.loc[compete.index, column] = several & values.eq(best)
    return marks


def verdicts(name: str, found: pd.DataFrame) -> list[str]:
    """What a table comes to, a sentence for each set of videos."""
    if name == "embedding-scores.csv" and {"value", "chance"} <= set(found):
        value, chance = (pd.to_numeric(found[column], errors="coerce") for column in ("value", "chance"))
        return [BELOW_CHANCE] if (value < chance).any() else []
    if name != "differences.csv" or not {"domain", "baseline", "score", "difference", "ci_low", "ci_high"} <= set(found):
        return []
    scores = found[found["score"] == "psnr_db"].copy()
    for column in ("difference", "ci_low", "ci_high"):
        scores[column] = pd.to_numeric(scores[column], errors="coerce")
    closest = scores.sort_values("difference").drop_duplicates("domain")  # the best of the other methods
    return [_verdict(line.domain, line.baseline, line.difference, line.ci_low, line.ci_high)
            for line in closest.itertuples()]


def _verdict(domain: str, baseline: str, difference: float, low: float, high: float) -> str:
    """Whether the model fills in better than the best other method, by PSNR."""
    above = f"{abs(difference):.2f} dB {'above' if difference > 0 else 'below'}"
    what = f"On {discreet(domain)} the PSNR of the model is {above} that of the best other method, {discreet(baseline)}"
    if np.isnan(low) or np.isnan(high):
        return f"{what}; too few recordings for an interval, so this is no evidence."
    apart = "which is more than chance" if low > 0 or high < 0 else "so the two are not told apart"
    return f"{what} (95 % interval of the difference: {low:.2f} to {high:.2f}), {apart}."
