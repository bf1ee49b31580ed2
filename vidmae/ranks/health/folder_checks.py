"""The folders that a run writes to, as this node sees them: room, and whether and how fast they take a file.

A file system that hangs is the usual end of a node, so a thread does the work and nobody waits longer than a limit for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from vidmae.ranks.health.node_facts import FolderFacts
from vidmae.runs.record import RunFolder, folder_of_user, make_private_folder

ANSWER_S = 60.0
WRITE_S = 0.5  # a slow disk is known to be slow before all is written
BLOCK = 2**22
LITTLE = 2**16  # bytes that show whether a folder takes a file at all
ALL_OF_IT = {"run": 4 * BLOCK, "stage": 16 * BLOCK}  # bytes whose time says how fast it is
SHARED_MEMORY = Path("/dev/shm")  # loader workers hand clips over in it


class FolderChecks:
    """Looks at folders in the background.

    Args:
        folders: What -> where.
        speed: Whether to write enough to say how fast they are.
    """

    def __init__(self, folders: Mapping[str, Path], *, speed: bool) -> None:
        self._folders, self._found = folders, dict[str, FolderFacts]()
        self._speed, self._began = speed, time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True, name="folder-checks")
        self._thread.start()

    def _run(self) -> None:
        for what, folder in self._folders.items():
            self._found[what] = look_at(what, folder, size=ALL_OF_IT.get(what, LITTLE) if self._speed else LITTLE)

    def facts(self, limit_s: float = ANSWER_S) -> tuple[FolderFacts, ...]:
        """What was found; of a folder that does not answer that it does not."""
        self._thread.join(max(0.0, limit_s - (time.monotonic() - self._began)))
        silent = f"no answer within {limit_s:g} s"
        return tuple(self._found.get(what) or FolderFacts(what, problem=silent) for what in self._folders)


def folders_of(run: RunFolder, stage: str) -> dict[str, Path]:
    """What a run writes to on this node -> where. `stage` is data.stage; one that is no absolute path is left out."""
    found = {"run": run.path, "tmp": _temporary()}
    where = Path(os.path.expandvars(stage)).expanduser() if stage else None
    if where and where.is_absolute():
        found["stage"] = folder_of_user(where)
    return found | ({"shm": SHARED_MEMORY} if SHARED_MEMORY.is_dir() else {})


def bytes_below(folder: Path) -> int:
    """Bytes of the files in a folder and below; one that goes away meanwhile does not count."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += Path(where, name).lstat().st_size
    return total


def _temporary() -> Path:
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError:  # it has tried to write to all that there are
        return Path("/tmp")


def look_at(what: str, folder: Path, *, size: int) -> FolderFacts:
    """The facts of one folder.

    Args:
        what: See `FolderFacts`.
        folder: Where it is; of stage it is made.
        size: Bytes to write, and flush where they are more than a little.
    """
    probe = folder / f".check-{os.uname().nodename}-{os.getpid()}"
    free_gib = None
    try:
        if what == "stage":
            make_private_folder(folder)
        copies = bytes_below(folder_of_user(folder) if what == "shm" else folder) if what in ("stage", "shm") else 0
        free_gib = (shutil.disk_usage(folder).free + copies) / 2**30
        began = time.perf_counter()
        with probe.open("xb") as file:
            probe.unlink()  # whoever is killed now leaves nothing behind
            written, took_s = 0, 0.0
            while written < size and took_s < WRITE_S:
                written += file.write(bytes(min(size, BLOCK)))
                file.flush()
                if size > LITTLE:
                    os.fdatasync(file.fileno())
                took_s = time.perf_counter() - began
        return FolderFacts(what, free_gib, written / 2**20 / took_s if size > LITTLE else None)
    except OSError as error:
        return FolderFacts(what, free_gib, problem=error.strerror or str(error))
