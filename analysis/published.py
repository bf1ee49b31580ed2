"""The published numbers in published.yaml, found by the name that a log gives to its model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PUBLISHED = Path(__file__).with_name("published.yaml")


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
        """Top-1 and top-5 of a model in those of the tasks that have published numbers."""
        found = self.models[model]
        return {task: (found[task][0], found[task][1]) for task in tasks if task in found}


def read_published() -> list[Version]:
    """All generations, in the order of the file."""
    return [Version(name, **entry) for name, entry in yaml.safe_load(PUBLISHED.read_text(encoding="utf-8")).items()]


def generation(path: Path, versions: list[Version]) -> Version | None:
    """The generation that the nearest telling folder of a log names; None where no folder does."""
    by_folder = {version.folder: version for version in versions if version.folder}
    return next((by_folder[part] for part in reversed(path.parent.parts) if part in by_folder), None)


def versions_of(model: str, known: Version | None, versions: list[Version]) -> list[Version]:
    """The generations that have numbers for a model: of the known one, else of all."""
    return [version for version in ([known] if known else versions) if model in version.models]
