"""The published numbers in published.yaml, found by the name that a log gives to its model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")

_RUN = r"(-[0-9a-f]{8})?"  # a run's id is its name and its signature
_KEPT = r"(mae_|vit_)?{}_none"  # released files before any finetuning: mae_s_none.pth, s_none.pth
_OURS = {"s": "s", "say": "say", "kinetics": "kinetics", "kinetics-200h": "kinetics_128"}
CHECKPOINTS: Sequence[tuple[str, str, str]] = (
    # name of a checkpoint -> generation, model. Clear cases only: a recipe that repeats the paper's, or the file itself.
    ("scratch", "v1", "random"),  # random weights; the retrained models (v3) have no such control
    *((re.escape(name) + "-vith14" + _RUN, "v3", model) for name, model in _OURS.items()),  # recipes follow v3
    *((_KEPT.format(re.escape(name)), "v3", model) for name, model in _OURS.items()),  # files were replaced by v3's
    (_KEPT.format("hvm1"), "v3", "sayavakepicutego4d"),  # HVM-1: SAYCam, AVA, Kinetics, EPIC, UCF101 and Ego4D
    (_KEPT.format("hvm1@448"), "v3", "sayavakepicutego4d_448"),
    ("s-image-vith14" + _RUN, "image", "s_vith14"),  # an image MAE on frames of S; ours has the video model's steps
    ("scratch-vit_huge_patch14-1x1", "image", "random_vith14"),  # random weights of an image model
)


SAME_SHARE = {"imagenet_0.01": "imagenet_0.010147"}  # 13 pictures of a class, which 1 % of most classes are, too


@dataclass(frozen=True)
class Version:
    """One generation of models.

    Attributes:
        name: Such as `v3`.
        source: Where its logs are.
        folder: The folder in a log's path that tells the generation; empty where there is none.
        models: Model -> task -> top-1 and top-5 in %, and the log as commit:path.
    """

    name: str
    source: str
    folder: str
    models: dict[str, dict[str, list[Any]]]

    def accuracies(self, model: str, tasks: Iterable[str]) -> dict[str, tuple[float, float]]:
        """Top-1 and top-5 of a model in those of the tasks that have published numbers; see SAME_SHARE."""
        found = self.models[model]
        places = {task: task if task in found else SAME_SHARE.get(task, task) for task in tasks}
        return {task: (found[place][0], found[place][1]) for task, place in places.items() if place in found}


def read_published() -> list[Version]:
    """All generations, in the order of the file."""
    return [Version(name, **entry) for name, entry in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).items()]


def generation(path: Path, versions: Sequence[Version]) -> Version | None:
    """The generation that the nearest telling folder of a log names; None where no folder does."""
    by_folder = {version.folder: version for version in versions if version.folder}
    return next((by_folder[part] for part in reversed(path.parent.parts) if part in by_folder), None)


def versions_of(model: str, known: Version | None, versions: Sequence[Version]) -> list[Version]:
    """The generations that have numbers for a model: of the known one, else of all."""
    return [version for version in ([known] if known else versions) if model in version.models]


def versions_of_checkpoint(name: str, versions: Sequence[Version]) -> list[tuple[Version, str]]:
    """The generations and models whose published numbers belong beside results of a checkpoint; mostly one, or none."""
    for pattern, version, model in CHECKPOINTS:
        if re.fullmatch(pattern, name):
            return [(found, model) for found in versions if found.name == version]
    return []
