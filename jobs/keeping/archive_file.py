"""An archive as a file: one tar, written whole or not at all, that says the SHA-256 of everything in it.

    NAME/MANIFEST.sha256   a line for every other file: unpacked, `sha256sum -c MANIFEST.sha256` checks it
    NAME/contents.json     what is in it, the links between its folders, what was left out and why
    NAME/...

The same things give the same bytes: members are sorted, belong to nobody, and have one time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from jobs.keeping.whole_weights import Reader, damage_in
from vidmae.runs.record import fsync_folder
from vidmae.settings.layers import ConfigError

MANIFEST, CONTENTS = "MANIFEST.sha256", "contents.json"
ENDINGS = (".tar.gz", ".tgz", ".tar")
CHUNK_BYTES = 2**20


@dataclass(frozen=True)
class Member:
    """A file of an archive: its bytes, or the file that has them."""

    data: bytes | Path

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size

    def open(self) -> BinaryIO:
        """To be read."""
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data.open("rb")


def ending_of(path: Path) -> str:
    """The ending that says how an archive is packed.

    Raises:
        ConfigError: It has another one.
    """
    found = next((ending for ending in ENDINGS if path.name.endswith(ending)), "")
    if not found or path.name == found:
        raise ConfigError(f"--out is {path.name}, allowed: a name that ends in {' or '.join(ENDINGS)}")
    return found


def write_archive(path: Path, members: Mapping[str, Member], links: Mapping[str, str], *, time_s: int,
                  tell: Callable[[str], object] = lambda _: None) -> None:
    """Write an archive, unless there is one.

    Args:
        path: Its name ends in one of ENDINGS; the folder in the archive has the name without it.
        members: Name in that folder -> file; MANIFEST is added.
        links: Name -> where it leads, relative to the folder that it lies in.
        time_s: Of all members, seconds since 1970.
        tell: Told of every large file.
    Raises:
        ConfigError: Something of that name exists.
        OSError: It cannot be written.
    """
    top = path.name.removesuffix(ending_of(path))
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists, and nothing is overwritten (--out)")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        sums = {}
        with _to_write(draft, path, time_s) as tar:
            for name in sorted([*members, *links]):
                if name in links:
                    tar.addfile(_info(f"{top}/{name}", time_s, link=links[name]))
                    continue
                if members[name].size >= 100 * 2**20:
                    tell(f"packing {name}")
                with members[name].open() as file:
                    reader = _Hashed(file)
                    tar.addfile(_info(f"{top}/{name}", time_s, size=members[name].size), reader)
                sums[name] = reader.hexdigest
            listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()
            tar.addfile(_info(f"{top}/{MANIFEST}", time_s, size=len(listed)), io.BytesIO(listed))
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        os.link(draft, path)  # which fails where another call has made one meanwhile
        fsync_folder(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} exists, and nothing is overwritten (--out)") from None
    finally:
        draft.unlink(missing_ok=True)


class _Hashed:
    """Hashes what is read through it."""

    def __init__(self, file: Reader) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data

    @property
    def hexdigest(self) -> str:
        return self._digest.hexdigest()


@contextmanager
def _to_write(draft: Path, path: Path, time_s: int) -> Iterator[tarfile.TarFile]:
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
        if ending_of(path) == ".tar":
            with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield tar
            return
        with gzip.GzipFile("", "wb", 6, raw, mtime=time_s) as packed, \
                tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            yield tar


def _info(name: str, time_s: int, *, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mtime, info.size, info.mode = time_s, size, 0o644
    if link:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, link, 0o777
    return info


@dataclass
class Verified:
    """What was found in an archive.

    Attributes:
        files: Whose hash is right.
        weights: Files of weights among them, which open.
        problems: What is damaged, missing or extra, a line each.
    """

    files: int
    weights: int
    problems: list[str]


def verify_archive(path: Path) -> Verified:
    """Read all of an archive: every hash, nothing missing or extra, no member that leads out of it, weights that open.

    Raises:
        ConfigError: It is no archive of this suite, or none at all.
    """
    found, links, sums, said, weights = dict[str, str](), dict[str, str](), dict[str, str](), dict[str, str](), 0
    result, tops = Verified(0, 0, []), set[str]()
    try:
        with tarfile.open(path) as tar:
            for info in tar:
                top, _, name = info.name.partition("/")
                tops.add(top)
                if not name or top in ("", ".", "..") or name.startswith("/") or ".." in PurePosixPath(name).parts:
                    result.problems.append(f"{info.name}: leads out of the archive")
                elif name in found or name in links:
                    result.problems.append(f"{name}: is in it twice")
                elif info.issym():
                    links[name] = info.linkname
                elif not info.isfile():
                    result.problems.append(f"{name}: neither a file nor a link")
                else:
                    file = tar.extractfile(info)
                    assert file is not None
                    reader = _Hashed(file)
                    if name.endswith(".safetensors"):
                        weights += 1
                        if damage := damage_in(reader, info.size):
                            result.problems.append(f"{name}: {damage}")
                    if name == MANIFEST:
                        sums = _read_sums(reader.read())
                    if name == CONTENTS:
                        said = dict(json.loads(reader.read())["links"])
                    while reader.read(CHUNK_BYTES):
                        pass
                    found[name] = reader.hexdigest
            while tar.fileobj is not None and tar.fileobj.read(CHUNK_BYTES):
                pass  # to the end, where gzip has a checksum of its own
    except FileNotFoundError:
        raise
    except (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, KeyError, TypeError) as error:
        result.problems.append(f"the archive is cut off or damaged: {error}")
        if not found:
            raise ConfigError(f"{path} is no archive that can be read: {error}") from error
    if MANIFEST not in found:
        result.problems.append(f"{MANIFEST} is missing, so nothing can be checked")
    elif not sums:
        result.problems.append(f"{MANIFEST} is empty, so nothing can be checked")
    if CONTENTS not in found:
        result.problems.append(f"{CONTENTS} is missing, so links cannot be checked")
    if len(tops) != 1:
        result.problems.append(f"it has {len(tops)} top folders, allowed: one")
    there = {name: digest for name, digest in found.items() if name != MANIFEST}
    result.problems += [f"{name}: missing" for name in sorted(sums.keys() - there.keys())]
    result.problems += [f"{name}: not in {MANIFEST}" for name in sorted(there.keys() - sums.keys()) if sums]
    result.problems += [f"{name}: has other content than was packed (SHA-256)" for name in sorted(sums.keys() & there.keys())
                        if sums[name] != there[name]]
    result.problems += [f"{name}: is another link than {CONTENTS} says, or none"
                        for name in sorted(links.keys() | said.keys()) if links.get(name) != said.get(name)]
    result.problems += [f"{name}: leads nowhere in the archive" for name, to in sorted(links.items())
                        if not _leads_inside(name, to, there)]
    result.files, result.weights = sum(sums.get(name) == digest for name, digest in there.items()), weights
    return result


def _leads_inside(name: str, target: str, files: Mapping[str, str]) -> bool:
    path = os.path.normpath(PurePosixPath(name).parent / target)
    return not path.startswith(("..", "/")) and any(file.startswith(f"{path}/") for file in files)


def _read_sums(text: bytes) -> dict[str, str]:
    lines = [line.partition("  ") for line in text.decode().splitlines()]
    return {name: digest for digest, _, name in lines}
