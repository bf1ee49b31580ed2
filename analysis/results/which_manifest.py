"""Which manifest a user means: the path of one, or a name in manifests/."""

from __future__ import annotations

from pathlib import Path

from vidmae.footage.manifest import HOW_TO_MAKE
from vidmae.settings.layers import ConfigError, nearest

MANIFESTS = Path("manifests")


def manifest_path(given: str) -> Path:
    """Where the manifest of a name or a path lies, whether it is there or not."""
    path = Path(given).expanduser()
    return path if path.suffix == ".csv" else MANIFESTS / f"{given}.csv"


def find_manifest(given: str) -> Path:
    """The manifest of a name or a path.

    Raises:
        ConfigError: There is none; the message names the nearest.
    """
    path = manifest_path(given)
    if not path.is_file():
        known = sorted(found.stem for found in MANIFESTS.glob("*.csv") if found.with_suffix(".json").exists())
        raise ConfigError(f"there is no manifest {path}{nearest(given, known)}; make it: {HOW_TO_MAKE}")
    return path.absolute()
