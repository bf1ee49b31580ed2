"""Which recordings a data set's name stands for: a small YAML of names, or a path given directly.

    s: manifests/s.csv              a manifest; relative paths start at the folder of the catalogue
    say: /data/saycam/minute        a folder; its manifest is manifests/say.csv of the current folder
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vidmae.settings.layers import ConfigError, nearest, read_yaml

MANIFESTS = Path("manifests")


@dataclass(frozen=True)
class Catalogue:
    """Names of data sets.

    Attributes:
        entries: Name to manifest or folder, absolute.
        origins: Name to the file (and line) that says so.
        sources: The catalogues that were read.
    """

    entries: Mapping[str, Path] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __or__(self, other: Catalogue) -> Catalogue:
        """Both; where they differ, `other` is right."""
        return Catalogue({**self.entries, **other.entries}, {**self.origins, **other.origins},
                         self.sources + other.sources)


@dataclass(frozen=True)
class DataSource:
    """A data set that was found: its name, its manifest, and what said so."""

    name: str
    manifest: Path
    origin: str


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue file.

    Raises:
        ConfigError: It cannot be read, or an entry is not a path.
    """
    layer = read_yaml(path)
    bad = [name for name, value in layer.values.items() if not isinstance(value, str)]
    if bad:
        raise ConfigError(f"{layer.where(bad[0])}: {bad[0]} is {layer.values[bad[0]]!r}, allowed: the path of a "
                          "manifest (.csv) or of a folder of recordings")
    return make_catalogue(layer.values, path.resolve().parent, str(path),
                          {name: layer.where(name) for name in layer.values})


def make_catalogue(paths: Mapping[str, str], folder: Path, source: str, origins: Mapping[str, str]) -> Catalogue:
    """A catalogue from names and paths; relative paths start at `folder`."""
    entries = {str(name): folder / Path(path).expanduser() for name, path in paths.items()}
    return Catalogue(entries, {str(k): v for k, v in origins.items()}, (source,))


def find_data(given: str | None, default_name: str, known: Catalogue) -> DataSource:
    """The manifest of a data set.

    Args:
        given: What --data says: a name, a manifest (.csv), a catalogue (.yaml), a folder; None takes the name.
        default_name: Name in the recipe (data.name).
        known: Catalogues of the cluster profile and of VIDMAE_DATA.
    Raises:
        ConfigError: There is no such data set or no manifest of it; the message says what to do.
    """
    if given is None:
        return _by_name(default_name, known)
    path = Path(given).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return _by_name(default_name, known | read_catalogue(path))
    if path.suffix == ".csv":
        return DataSource(path.stem, _manifest(path.absolute(), path.stem), "--data")
    if given not in known.entries and ("/" in given or path.is_dir()):
        name = path.resolve().name
        return DataSource(name, _of_folder(path.absolute(), name, "--data"), "--data")
    return _by_name(given, known)


def environment_catalogue() -> Catalogue:
    """The catalogue that VIDMAE_DATA names, or an empty one."""
    path = os.environ.get("VIDMAE_DATA")
    return read_catalogue(Path(path).expanduser()) if path else Catalogue()


def _by_name(name: str, known: Catalogue) -> DataSource:
    if name in known.entries:
        path, origin = known.entries[name], known.origins.get(name, "")
        if path.suffix == ".csv":
            return DataSource(name, _manifest(path, name), origin)
        return DataSource(name, _of_folder(path, name, origin), origin)
    made = (MANIFESTS / f"{name}.csv").absolute()
    if made.is_file():
        return DataSource(name, _manifest(made, name), f"{MANIFESTS}/{name}.csv")
    there = f"the catalogue ({', '.join(known.sources)}) has: {', '.join(sorted(known.entries)) or 'nothing'}" \
        if known.sources else "no catalogue is set (cluster profile `data:`, VIDMAE_DATA or --data)"
    manifests = sorted(path.stem for path in MANIFESTS.glob("*.csv") if path.with_suffix(".json").exists())
    names = sorted({*known.entries, *manifests})
    raise ConfigError(
        f"data set {name!r} is not known{nearest(name, names)}; {MANIFESTS}/ has: {', '.join(manifests) or 'nothing'}; "
        f"{there}. To add it, make its manifest "
        f"once: {_command('FOLDER', name)} (writes {MANIFESTS}/{name}.csv, which is found by itself), or write the "
        f"line `{name}: /path/to/manifest.csv` into the catalogue")


def _of_folder(folder: Path, name: str, origin: str) -> Path:
    if not folder.is_dir():
        raise ConfigError(f"{origin}: {name}: {folder} does not exist, or is neither a folder nor a manifest (.csv)")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"{origin}: {name}: the folder {folder} is not readable for you (chmod, or ask its owner)")
    manifest = (MANIFESTS / f"{name}.csv").absolute()
    if not manifest.is_file():
        raise ConfigError(f"the folder {folder} has no manifest yet ({manifest} is missing); make it once: "
                          f"{_command(str(folder), name)}")
    return _manifest(manifest, name)


def _manifest(path: Path, name: str) -> Path:
    if not path.is_file():
        raise ConfigError(f"the manifest {path} does not exist; make it: {_command('FOLDER', name)} "
                          f"(writes {MANIFESTS}/{name}.csv)")
    if not os.access(path, os.R_OK):
        raise ConfigError(f"the manifest {path} is not readable for you")
    return path


def _command(folder: str, name: str) -> str:
    return f"python jobs/prepare.py manifest {shlex.quote(folder)} --name {shlex.quote(name)}"
