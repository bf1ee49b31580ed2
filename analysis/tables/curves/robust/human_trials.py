"""What people said of the images of a set, from a CSV: the columns of model-vs-human, or plain ones.

    subject,image,response,label              ours
    subj,imagename,object_response,category   github.com/bethgelab/model-vs-human, raw-data

Images are found by the name of their file, or, as there, by its end: what stands behind the last underscore, and before that
the WordNet id of a picture of ImageNet. What comes before differs among observers:

    0007_cop_s01_c30_knife_10_n03041632_7380.png      a trial of a person
    0007_cop_dnn_c30_knife_10_n03041632_7380.png      the file
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from vidmae.footage.manifest import COLUMNS, read_rows

NAMES = {"subject": "subj", "image": "imagename", "response": "object_response", "label": "category"}


def read_humans(path: Path) -> pd.DataFrame:
    """Trials with the columns subject, image, response and label.

    Raises:
        ValueError: It cannot be read, or a column is missing.
    """
    try:
        trials = pd.read_csv(path, dtype=str, keep_default_na=False).rename(columns=str.lower)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"--humans {path} cannot be read: {error}") from error
    trials = trials.rename(columns={other: name for name, other in NAMES.items() if name not in trials})
    missing = [name for name in NAMES if name not in trials]
    if missing:
        raise ValueError(f"--humans {path} has no column {missing[0]} (or {NAMES[missing[0]]}); its columns: "
                         f"{', '.join(trials.columns)}")
    return trials[list(NAMES)]


def end_of_name(name: str) -> str:
    """What tells an image from others, whoever saw it: `n03041632_7380`, `cat4-elephant2`."""
    words = PurePath(name).stem.split("_")
    return "_".join(words[-2:] if len(words) > 1 and words[-2].startswith("n0") else words[-1:])


def contents_by_name(manifest: Path) -> dict[str, int]:
    """Content hash of each image by its file's name without suffix, and by the end of it; names that come twice are left
    out."""
    place = COLUMNS.index("content")
    rows = [(row[0], int(row[place], 16)) for row in read_rows(manifest)[1]]
    return {**_once([(end_of_name(path), content) for path, content in rows]),
            **_once([(PurePath(path).stem, content) for path, content in rows])}


def _once(named: Sequence[tuple[str, int]]) -> dict[str, int]:
    counts = Counter(name for name, _ in named)
    return {name: content for name, content in named if counts[name] == 1}


def right_by_subject(trials: pd.DataFrame, contents: Mapping[str, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Content hashes of the images that each person saw, ascending, and where the person was right.

    Raises:
        ValueError: Not one image is in the set.
    """
    stems = trials["image"].map(lambda name: PurePath(name).stem)
    known = stems.where(stems.isin(list(contents)), stems.map(end_of_name))
    there = known.isin(list(contents))  # chosen before the numbers: a column with gaps would be rounded to floats
    if not there.any():
        raise ValueError(f"not one of {len(trials)} trials of --humans is of an image of the set: {len(contents)} "
                         "images are known by the names of their files")
    seen = trials.assign(right=trials["response"] == trials["label"])[there]
    seen["content"] = np.array([contents[name] for name in known[there]], dtype=np.uint64)
    found = {}
    for subject, own in seen.drop_duplicates(["subject", "content"]).groupby("subject", sort=True):
        order = np.argsort(own["content"].to_numpy(), kind="stable")
        found[str(subject)] = own["content"].to_numpy()[order], own["right"].to_numpy(dtype=bool)[order]
    return found
