"""Copies of archives on a disk of the node, which readers take in place of those on the network as soon as they are there.

    STAGE/vidmae-UID/NAME.tar         a copy; NAME follows from the archive's path, size and time of change
    STAGE/vidmae-UID/NAME.tar.part    one under way; the next run goes on with it

The folder must belong to the user and be closed to all others; else nothing is copied to it and nothing read from it.
One thread of each node copies one archive after the other while the run trains from the network. What other runs have left
is removed, the oldest first, where there is no room. A disk that is full or breaks ends the copying and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from vidmae.runs.record import folder_of_user, is_private_folder, make_private_folder

COPY_BYTES = 2**24
KEPT_FREE = 0.1  # of the disk, where nobody says how much the copies may take

_folder: Path | None = None
_names: dict[Path, str] = {}
_distrusted: set[Path] = set()
_read = [0, 0]


def use(stage: Path | None) -> None:
    """Let readers of this process, and of those that it forks, look for copies below a folder; None: no more."""
    global _folder
    _folder = stage and folder_of_user(stage)
    _distrusted.clear()
    _names.clear()


def copy_of(archive: Path) -> Path | None:
    """The copy of an archive, where there is one that is whole."""
    if _folder is None or archive in _distrusted:
        return None
    if archive not in _names:
        _names[archive] = name_of(archive)
    copy = _folder / _names[archive]
    return copy if is_private_folder(_folder) and copy.exists() else None


def distrust(archive: Path) -> None:
    """Read an archive from where it is from now on: its copy is damaged."""
    _distrusted.add(archive)


def count(size: int, *, staged: bool) -> None:
    """Note so many bytes as read, from a copy or from where the archive is."""
    _read[not staged] += size


def bytes_read() -> tuple[int, int]:
    """Bytes that this process has read: from copies, and from where archives are."""
    return _read[0], _read[1]


def name_of(archive: Path) -> str:
    """Name of a copy."""
    now = archive.stat()
    text = f"{archive.absolute()}\n{now.st_size}\n{now.st_mtime_ns}"
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest() + ".tar"


class Stager:
    """Copies archives in a thread that ends with the process.

    Args:
        archives: What to copy, in this order.
        stage: Folder on a disk of the node.
        most_gib: That all copies may take; 0: what the disk has room for, less a tenth of it.
        say: Told how it ended.
    """

    def __init__(self, archives: Callable[[], Iterable[Path]], stage: Path, most_gib: float,
                 say: Callable[[str], object]) -> None:
        self._archives, self._folder, self._most_gib, self._say = archives, folder_of_user(stage), most_gib, say
        self.thread = threading.Thread(target=self._run, daemon=True, name="staging")
        self.thread.start()

    def _run(self) -> None:
        try:
            make_private_folder(self._folder)
            if not is_private_folder(self._folder):
                self._say(f"{self._folder} is not a folder that only you can enter (data.stage): archives are read where "
                          "they are")
                return
            with (self._folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # the disk is the node's own: one run at a time copies to it
                self._copy_all(list(self._archives()))
        except OSError as error:
            self._say(f"copying archives to {self._folder} has ended: {error.strerror} (data.stage); the others are read "
                      "where they are")

    def _copy_all(self, archives: list[Path]) -> None:
        mine = {archive: name_of(archive) for archive in archives}
        done = 0
        for archive, name in mine.items():
            size = archive.stat().st_size
            if not (self._folder / name).exists():
                if not self._make_room(size, set(mine.values())):
                    break
                self._copy(archive, self._folder / name)
            done += 1
        whole = sum(archive.stat().st_size for archive in archives)
        self._say(f"{done} of {len(mine)} archives ({whole / 2**30:.1f} GiB in all) have a copy in {self._folder}")

    def _make_room(self, size: int, mine: set[str]) -> bool:
        """Whether there is room for so many bytes more, where copies that are not this run's may go."""
        while True:
            copies = [path for path in self._folder.iterdir() if path.suffix in (".tar", ".part")]
            used = sum(path.stat().st_size for path in copies)
            disk = shutil.disk_usage(self._folder)
            most = self._most_gib * 2**30 or used + disk.free - KEPT_FREE * disk.total
            if used + size <= min(most, used + disk.free):
                return True
            others = [path for path in copies if path.name.removesuffix(".part") not in mine]
            if not others:
                return False
            min(others, key=lambda path: path.stat().st_mtime).unlink()

    def _copy(self, archive: Path, copy: Path) -> None:
        draft = copy.with_name(f"{copy.name}.part")
        with archive.open("rb") as source, draft.open("ab") as out:
            source.seek(out.tell())
            while block := source.read(COPY_BYTES):
                out.write(block)
            out.flush()
            os.fsync(out.fileno())
            whole = out.tell() == os.fstat(source.fileno()).st_size
        if whole:
            draft.replace(copy)
        else:
            draft.unlink()  # it was of something else
