"""What may make a class hard, measured: means over the test clips of each class, and how many clips it was learned from.

    moving_pct_per_s   how much moves by itself: optical flow without that of the camera, % of the short side per second
    camera_pct_per_s   how much the camera moves, in the same unit
    seconds            length of the clips
    in_hand            whether a hand is at a thing, by the grammar of the label (label_grammar.py)
    train_clips        clips of the class that the cells learned from, without those held out
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.tables.curves.classwise.label_grammar import in_hand
from vidmae.footage.manifest import Manifest, ManifestError
from vidmae.labels.shots import ShotsError, draw_shots, hold_out, read_shots
from vidmae.labels.splits import read_labelled
from vidmae.runs.predictions import Predictions
from vidmae.settings.finetune_config import FinetuneConfig

SUBSET = "subset"
WORDS = {
    "moving_pct_per_s": "motion of things, % of the short side per s",
    "camera_pct_per_s": "motion of the camera, % of the short side per s", "seconds": "length of the clips, s",
    "in_hand": "a hand at the thing, by the label", "train_clips": "clips to learn from", SUBSET: "in the subset"}
MEASURED = ("moving_pct_per_s", "camera_pct_per_s")


@dataclass(frozen=True)
class ClassFactors:
    """Factors of the classes that have clips.

    Attributes:
        table: A row per class, indexed by its name: WORDS that are known, `clips`.
        said: What is missing or left out.
    """

    table: pd.DataFrame
    said: list[str]


def class_factors(manifest: Path, features: Path, found: Predictions, cells: Sequence[FinetuneConfig],
                  subset: Sequence[str] | None = None) -> ClassFactors:
    """Factors of every class that has test clips.

    Args:
        manifest: Of the test clips.
        features: Moments of its videos, a csv of `vidmae.insight.footage_survey`.
        found: What a cell said of them: which clips were tested, and their classes.
        cells: Those whose accuracy is explained: what they learned from.
        subset: Names of classes; adds whether a class is one of them.
    Raises:
        ValueError: The features lack a column, or no measured clip was tested.
    """
    videos, moments = Manifest.read(manifest), pd.read_csv(features, usecols=lambda name: name in ("row", *MEASURED))
    if missing := [name for name in MEASURED if name not in moments]:
        raise ValueError(f"{features} has no column {missing[0]}: earlier code made it; delete it, and it is measured again")
    clips = moments.groupby("row").mean().reindex(range(len(videos))).assign(seconds=videos.seconds)
    tested = dict(zip(found.content.tolist(), found.label.tolist(), strict=True))
    label = pd.Series([tested.get(content, -1) for content in videos.source.tolist()], clips.index)
    seen = label >= 0
    whole = seen & clips[list(MEASURED)].notna().all(axis=1)
    if not whole.any():
        raise ValueError(f"not one of {len(tested)} tested clips is among the {len(videos)} of {manifest.name} that were "
                         "measured; was the cell tested on another set?")
    said = [f"{int((seen & ~whole).sum())} of {int(seen.sum())} tested clips could not be measured and are left out"
            ] if (seen & ~whole).any() else []
    table = clips[whole].groupby(label[whole]).mean()
    names = [str(found.classes[place]) for place in table.index]
    table = table.assign(clips=label[whole].value_counts().reindex(table.index)).set_axis(names)
    held = in_hand([*map(str, found.classes)])
    if held is None:
        said.append("no label names a thing in brackets, so the grammar of the labels says nothing of hands")
    else:
        table["in_hand"] = [float(held[found.classes.tolist().index(name)]) for name in names]
    sources = {(cell.data.manifest, cell.data.subset, cell.select.holdout if cell.select.rule == "holdout" else 0.0)
               for cell in cells}
    try:
        learned = [train_clips(*source, names) for source in sources]
        if all(each == learned[0] for each in learned):
            table["train_clips"] = learned[0]
        else:
            said.append("clips to learn from: left out, since the cells learned from other numbers of clips than each other")
    except (OSError, ManifestError, ShotsError) as error:
        said.append(f"clips to learn from: {error}")
    if subset is not None:
        table[SUBSET] = [float(name in set(subset)) for name in names]
    return ClassFactors(table[[*(name for name in WORDS if name in table), "clips"]], said)


def train_clips(manifest: str, subset: str, holdout: float, names: Sequence[str]) -> list[float]:
    """Clips of each class that a cell learns from, as `read_cell_data` takes them.

    Args:
        manifest: That of the training clips.
        subset: The file of its k-shot subset or share; empty where it learned from all clips.
        holdout: Share of each class that was held out to select; 0 for none.
        names: The classes.
    Raises:
        OSError: A file is gone.
        ManifestError: The manifest is damaged.
        ShotsError: The subset is gone or damaged.
    """
    if subset:
        learn = read_shots(Path(subset))
    else:
        labelled = read_labelled(Path(manifest))
        (learn,) = draw_shots(labelled, [len(labelled)], 0, allow_fewer=True)
    if holdout:
        learn, _ = hold_out(learn, holdout)
    return [float(len(learn.clips.get(name, ()))) for name in names]
