"""Files of published weights on this machine: put here by hand, in the hub's cache, or downloaded through huggingface_hub.

    fetch("eminorhan/hvm-1", ["hvm1@448_none.pth"])

A file that is here is taken without a question to the network. HF_HUB_OFFLINE=1 forbids one. huggingface_hub finds the
cache (HF_HOME, HF_HUB_CACHE) and a token by itself; neither a token nor an address with one is ever shown here. It is not
among the requirements: who puts files into VIDMAE_WEIGHTS does without it. No torch here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vidmae.model.formats.weight_files import FILES_OF_FOLDER

if TYPE_CHECKING:
    from types import ModuleType

HF = "hf://"
FOLDER = "VIDMAE_WEIGHTS"
CHUNK = 2**24
Say = Callable[[str], object]


class NotHereError(ValueError):
    """A file of weights is not on this machine and cannot be downloaded; the message says where to put it."""


def weights_folder() -> Path:
    """Where files lie that were put here by hand: $VIDMAE_WEIGHTS, or ~/.cache/vidmae/weights."""
    return Path(os.environ.get(FOLDER) or "~/.cache/vidmae/weights").expanduser()


def parse_address(text: str) -> tuple[str, str]:
    """Repository and file of `hf://owner/name/file`; the file may be in a folder of the repository.

    Raises:
        ValueError: It is not of that form.
    """
    match = re.fullmatch(rf"{HF}([\w.-]+/[\w.-]+)/((?:[^/]+/)*[^/]+)", text)
    if not match or ".." in text.split("/"):
        raise ValueError(f"{text!r} is not of the form hf://owner/name/file, such as "
                         "hf://eminorhan/hvm-1/hvm1@448_none.pth")
    return match[1], match[2]


def fetch(repo: str, files: Sequence[str], *, say: Say = lambda _: None, download: bool = True) -> Path:
    """A file of a repository of the hub.

    Args:
        repo: `owner/name`.
        files: Names of the file; the first that is there is taken.
        say: Told of a download.
        download: Ask the network where it is not here.
    Returns:
        Its path: where it was put by hand, or in the hub's cache.
    Raises:
        NotHereError: It is not here and cannot be downloaded, or a download is damaged.
    """
    put = [weights_folder() / repo.replace("/", "--") / name for name in files]
    if here := next((path for path in put if path.is_file()), None):
        return here
    hub = hub_library()
    if hub is not None:
        for name in files:
            if found := _in_cache(hub, repo, name):
                return found
    why = "huggingface_hub is not installed (pip install huggingface_hub)" if hub is None else \
        "HF_HUB_OFFLINE forbids it" if offline() else "" if download else \
        "python jobs/weights.py get does that (launchers download nothing)"
    if not why and hub is not None:
        for name in files:
            say(f"downloading {HF}{repo}/{name}")
            try:
                file = Path(hub.hf_hub_download(repo, name, cache_dir=_cache()))
            except Exception as error:  # each version of the library has another transport; a text may hold a signed address
                if _no_such_file(hub, error):
                    why = "the repository has no such file"
                    continue
                status = getattr(getattr(error, "response", None), "status_code", "")
                why = f"the hub cannot be asked ({type(error).__name__}{f', status {status}' if status else ''})"
                break
            return _checked(file)
    address = f"https://huggingface.co/{repo}/resolve/main/{files[0]}"
    raise NotHereError(not_here(f"{HF}{repo}/{files[0]}", address, put[0], why))


def not_here(what: str, address: str, put: Path, why: str) -> str:
    """What to say of a file that is not here: what to do by hand."""
    beside = ", with config.json beside it" if put.name in FILES_OF_FOLDER else ""
    return (f"{what} is not on this machine and was not downloaded: {why}. Or download {address} where there is a network, "
            f"and put it at {put}{beside} ({FOLDER} names another folder), or give its path")


def put_by_hand(url: str) -> Path:
    """Where a file belongs that is not on the hub."""
    return weights_folder() / url.rpartition("/")[2]


def check_md5(path: Path, start: str) -> None:
    """Compare a file with the first digits of its published MD5.

    Raises:
        ValueError: It is another file, or cut off.
    """
    if start and not (found := _digest(path, "md5")).startswith(start):
        raise ValueError(f"{path} has the MD5 {found[:len(start)]}..., published is {start}...: the download is cut off or "
                         "another file; download it again")


def hub_library() -> ModuleType | None:
    """huggingface_hub, or None where it is not installed."""
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        return None
    return huggingface_hub


def _no_such_file(hub: ModuleType, error: Exception) -> bool:
    """Whether the hub answered that; of a failed connection the library says that the file is not in the cache."""
    unknown = isinstance(error, hub.errors.LocalEntryNotFoundError)
    return isinstance(error, hub.errors.EntryNotFoundError) and not unknown


def _in_cache(hub: ModuleType, repo: str, name: str) -> Path | None:
    found = hub.try_to_load_from_cache(repo, name, cache_dir=_cache())
    return Path(found) if isinstance(found, str) else None


def _cache() -> str | None:
    """The hub's cache, asked of the environment at each call; None leaves it to the library."""
    home = os.environ.get("HF_HOME")
    return os.environ.get("HF_HUB_CACHE") or (str(Path(home) / "hub") if home else None)


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids to ask the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _checked(path: Path) -> Path:
    """A file that was just downloaded. The hub's cache names a large file by its SHA-256."""
    expected = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", expected) and (found := _digest(path, "sha256")) != expected:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise NotHereError(f"the download of {path.name} is damaged: its SHA-256 begins with {found[:12]}, the hub says "
                           f"{expected[:12]}; it was removed, try again")
    return path


def _digest(path: Path, kind: str) -> str:
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
