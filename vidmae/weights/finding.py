"""Which file a user means: a path, a run, the name of published weights, or an address of the hub. No torch here.

    find("hvm1@448_none")                          published weights, by the name of the catalogue
    find("hf://eminorhan/hvm-1/hvm1_none.pth")     any file of the hub
    find("runs/s-vith14-1a2b3c4d")                 a run, or a folder, or a file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidmae.model.formats.file_model import file_in
from vidmae.model.formats.weight_files import ENDINGS, FILES_OF_FOLDER
from vidmae.runs.record import RunFolder, runs_that_fit
from vidmae.settings.layers import ConfigError
from vidmae.weights.hub import (
    HF,
    NotHereError,
    Say,
    check_md5,
    fetch,
    not_here,
    parse_address,
    put_by_hand,
    weights_folder,
)
from vidmae.weights.released_weights import Published, entry_of, unknown_name


@dataclass(frozen=True)
class Found:
    """A file of weights on this machine.

    Attributes:
        path: The file, or a run or another folder.
        name: What tables may call it.
        known: What is known of its model beside its tensors; see `formats.file_model`.
        entry: Of the catalogue, where it was named so.
    """

    path: Path
    name: str
    known: Mapping[str, Any] = field(default_factory=dict)
    entry: Published | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The numbers among what is known: img_size, num_frames, t_patch_size."""
        return {key: value for key, value in self.known.items() if isinstance(value, int)}

    @property
    def settings(self) -> tuple[str, ...]:
        """What the catalogue says of a masked autoencoder that its tensors do not, as `model.key=value`."""
        return self.entry.settings if self.entry else ()


def is_name(text: str) -> bool:
    """Whether a text is the name of published weights or an address of the hub, and not a path."""
    return text.startswith(HF) or (not Path(text).expanduser().exists() and entry_of(text) is not None)


def find(text: str | Path, *, runs_dir: Path = Path("runs"), say: Say = lambda _: None, download: bool = True) -> Found:
    """The file that a path, a name or an address means.

    Args:
        text: A path of a file or folder, a run's name, a name of the catalogue, or `hf://owner/name/file`.
        runs_dir: Where runs are looked for by name.
        say: Told of a download.
        download: Ask the network for what is not here.
    Raises:
        ValueError: There is none, or it is not here and cannot be downloaded; says what to do.
    """
    path = Path(text).expanduser()
    if str(text).startswith(HF):
        repo, name = parse_address(str(text))
        file = fetch(repo, [name], say=say, download=download)
        _beside(repo, Path(name), file, download)
        return Found(file, repo.partition("/")[2] if file.name in FILES_OF_FOLDER else file.stem)
    if path.exists():
        return Found(path.absolute(), path.stem if path.is_file() else path.name)
    if entry := entry_of(str(text)):
        return Found(_file_of(entry, say, download), entry.name, entry.sizes, entry)
    runs = [run.name for run in runs_dir.iterdir() if run.is_dir()] if runs_dir.is_dir() else []
    if len(fit := runs_that_fit(str(text), runs)) == 1:
        return Found(RunFolder(runs_dir / fit[0]).path.absolute(), fit[0])
    if fit:
        raise ValueError(f"{str(text)!r} fits {len(fit)} runs of {runs_dir}: {', '.join(sorted(fit)[:3])}; give more of the "
                         "name")
    if path.suffix in ENDINGS or len(path.parts) > 1:
        raise ValueError(f"{path} does not exist; give a .pth or .safetensors file, a folder, a run, or a name of published "
                         "weights")
    raise ValueError(f"{unknown_name(str(text))}; it is no file and no run of {runs_dir} either")


def weights_in(given: str, flag: str) -> tuple[Found, Path]:
    """Weights and what is known of them, and the file whose content names it; of a folder of a hub it is the one in it.

    Args:
        given: A path, a name of published weights, or an address of the hub.
        flag: That gave it.
    Raises:
        ConfigError: It is not here.
    """
    path = Path(given).expanduser().absolute()
    if not is_name(given) and not path.exists():
        raise ConfigError(f"{flag} {path} does not exist; give a .safetensors or .pth, a folder with one, or a name of "
                          "python jobs/weights.py list")
    try:
        found = find(given, download=False)
        return found, file_in(found.path)[0] if found.path.is_dir() else found.path
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from error


def _file_of(entry: Published, say: Say, download: bool) -> Path:
    if entry.repo:
        file = fetch(entry.repo, entry.files, say=say, download=download)
        _beside(entry.repo, Path(file.name), file, download)
        return file
    put = put_by_hand(entry.url)
    if not put.is_file():
        raise NotHereError(not_here(entry.name, entry.url, put, "it is not on the hub"))
    if download:
        check_md5(put, entry.md5_start)
    return put


def _beside(repo: str, name: Path, file: Path, download: bool) -> None:
    """Fetch config.json to a file of transformers: it says what clips the model takes. Who puts the file puts that, too."""
    if name.name not in FILES_OF_FOLDER or file.is_relative_to(weights_folder()):
        return
    try:
        fetch(repo, [str(name.with_name("config.json"))], download=download)
    except NotHereError:
        return  # then the sizes of the released models are taken, and the report says so
