"""What the paths of test images say beside their class: the corruption and its severity, or the texture.

    gaussian_noise/3/n01440764/x.JPEG     a corruption of a severity (the layout of ImageNet-C)
    0007_cop_dnn_c30_knife_10_x.png       a condition, here 30 % contrast (model-vs-human, sets of graded distortions)
    cat/cat4-elephant2.png                the shape of the first, the texture of the second (model-vs-human, cue conflicts)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from vidmae.labels.splits import some, some_rows

SEVERITIES = ("1", "2", "3", "4", "5")
NO_TEXTURE = -1
_SESSIONS = re.compile(r"\d+_[^_]+_[^_]+_([^_]+)_[^_]+_.+")
_CUES = re.compile(r"(?:.*_)?([a-z]+)\d*-([a-z]+)\d*")


def conditions_of(paths: Sequence[str]) -> list[str] | None:
    """The condition of each image, such as gaussian_noise:3, or c30; None where neither folders nor names say several.

    Raises:
        ValueError: Some lie in folders of corruptions, and some do not.
    """
    found = [_condition(PurePath(path).parts) for path in paths]
    without = [row for row, condition in enumerate(found, 1) if condition is None]
    if len(without) == len(paths):
        return _by_name(paths)
    if without:
        raise ValueError(f"{len(paths) - len(without)} of {len(paths)} images lie in folders corruption/severity/class, and "
                         f"{len(without)} do not (rows {some_rows(without)}); make a manifest of each kind")
    return [condition for condition in found if condition]


def _by_name(paths: Sequence[str]) -> list[str] | None:
    named = [match[1] for path in paths if (match := _SESSIONS.fullmatch(PurePath(path).stem))]
    return named if len(named) == len(paths) and len(set(named)) > 1 else None


def _condition(parts: Sequence[str]) -> str | None:
    if len(parts) < 4 or parts[-3] not in SEVERITIES:
        return None
    return f"{parts[-4]}:{parts[-3]}"


def textures_of(paths: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """The texture of each image, from the end of its file's name.

    Args:
        paths: Of the images.
        classes: Names of the classes, by index.
    Returns:
        int64 [N], index in `classes`.
    Raises:
        ValueError: A name says none, or one that is no class; the message has row numbers (from 1), no file names.
    """
    known = {name: place for place, name in enumerate(classes)}
    said = [match[2] if (match := _CUES.fullmatch(PurePath(path).stem)) else "" for path in paths]
    wrong = [row for row, texture in enumerate(said, 1) if texture not in known]
    if wrong:
        unknown = sorted({texture for texture in said if texture and texture not in known})
        no_class = f"; no classes: {some(unknown)}" if unknown else ""
        raise ValueError(f"{len(wrong)} of {len(paths)} images do not say their texture by their name, as in "
                         f"cat4-elephant2.png (rows {some_rows(wrong)}{no_class}); the classes are "
                         f"{some(list(classes))} (--cues)")
    return np.array([known[texture] for texture in said], dtype=np.int64)
