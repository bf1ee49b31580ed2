"""Copies of a run's shards in the memory of a node: files on tmpfs, which outlive the processes that wrote them.

    /dev/shm/vidmae-UID/NODE/RUN-KEY/        only you can enter it; KEY follows from the run folder and its token
      step_00000015-ATTEMPT/                 a generation: all ranks' copies of one step that one attempt has made
        rank_00003/state/...                 a rank's part of a checkpoint; of rank 0 the records, too
        rank_00003/COPY                      JSON: what it is, size and hash of every file; written last
        .rank_00003.tmp/                     one that is being written or was cut off; never read

A node holds the copies of its own ranks and those of its partner's, see `partner.py`. A generation counts where the copy of
every rank is whole on some node, so it needs no mark of its own. Copies of two attempts are never mixed: where kernels are
not deterministic, they may differ.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmae.ranks.saving.retention import GIB, free_bytes
from vidmae.ranks.shard_writer import hash_file
from vidmae.runs.nodes.left_out import node_name
from vidmae.runs.record import folder_of_user, is_private_folder, make_private_folder, read_json, write_json

FOLDER = "VIDMAE_MEMORY_DIR"  # in the environment: another folder than /dev/shm, on every node
COPY = "COPY"
STALE_S = 24 * 3600.0  # copies of other runs of the user that got nothing new for so long are removed
KEPT = 2  # generations in memory at the worst moment: the last whole one, and the one being written
HEADERS_BYTES = 2**17  # of a copy's files, and the record of it


@dataclass(frozen=True, order=True)
class Generation:
    """Copies of all ranks after one step.

    Attributes:
        step: Updates done.
        attempt: Of the job's starts, the one that made them.
    """

    step: int
    attempt: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"step_{self.step:08d}-{self.attempt}"


def rank_name(rank: int) -> str:
    """Name of a rank's copy in the folder of a generation."""
    return f"rank_{rank:05d}"


class NodeCopies:
    """The copies of one run that this node holds. Nothing is made before something is written.

    Args:
        run_path: The run folder.
        token: Of the run's checkpoints: a run that was begun anew in the same folder has another one.
    Attributes:
        folder: Where they are.
    """

    def __init__(self, run_path: Path, token: str) -> None:
        key = hashlib.blake2b(f"{run_path.resolve()}\n{token}".encode("utf-8", "surrogateescape"), digest_size=6).hexdigest()
        self._of_user = folder_of_user(Path(os.environ.get(FOLDER) or "/dev/shm"))
        self.folder = self._of_user / node_name() / f"{run_path.name}-{key}"

    def path(self, generation: Generation, name: str) -> Path:
        """Folder of a copy that is whole, by the name of its rank."""
        return self.folder / generation.name / name

    def held(self) -> list[dict[str, Any]]:
        """What COPY says of each copy here, less its files; what is not whole, or has an unreadable COPY, is left out."""
        if not is_private_folder(self._of_user):  # somebody else's, or none
            return []
        found = []
        for path in sorted(self.folder.glob(f"step_*/rank_*/{COPY}")):
            try:
                record = read_json(path)
            except (ValueError, OSError):
                continue
            if record and path.parent == self.path(Generation(record["step"], record["attempt"]), rank_name(record["rank"])):
                found.append({key: value for key, value in record.items() if key != "files"})
        return found

    def draft(self, generation: Generation, name: str, files: Iterable[str]) -> Path:
        """An empty folder for a copy, with the folders of its files.

        Raises:
            OSError: It cannot be made, or the folder of this user's copies is not this user's alone.
        """
        make_private_folder(self.folder / generation.name)
        if not is_private_folder(self._of_user):
            raise PermissionError(13, "is not a folder that only you can enter", str(self._of_user))
        tmp = self._tmp(generation, name)
        shutil.rmtree(tmp, ignore_errors=True)
        for folder in {(tmp / file).parent for file in files} | {tmp}:
            make_private_folder(folder)
        return tmp

    def publish(self, generation: Generation, name: str, record: Mapping[str, Any]) -> None:
        """Let a draft whose files are written appear as a whole copy."""
        tmp, final = self._tmp(generation, name), self.path(generation, name)
        write_json(tmp / COPY, record, durable=False)
        shutil.rmtree(final, ignore_errors=True)  # only a damaged one can stand here
        tmp.rename(final)

    def record_of(self, generation: Generation, name: str) -> dict[str, Any] | None:
        """What COPY says of a copy, or None: it is not here or not whole."""
        try:
            return read_json(self.path(generation, name) / COPY)
        except (ValueError, OSError):
            return None

    def problem(self, generation: Generation, name: str) -> str | None:
        """Why a copy cannot be used, or None: each of its files has the size and the hash that COPY says."""
        folder, record = self.path(generation, name), self.record_of(generation, name)
        if record is None:
            return f"{COPY} is missing or damaged"
        for file, seal in record["files"].items():
            try:
                if (folder / file).stat().st_size != seal["bytes"] or hash_file(folder / file) != seal["blake2b"]:
                    return f"{Path(file).name} has other content than was written"
            except OSError as error:
                return f"{Path(file).name}: {error.strerror}"
        return None

    def drop_before(self, generation: Generation) -> None:
        """Remove the generations that a whole one supersedes."""
        for path in self.folder.glob("step_*"):
            if path.name != generation.name and int(path.name[5:13]) <= generation.step:
                shutil.rmtree(path, ignore_errors=True)

    def drop_all_but(self, generation: Generation | None) -> None:
        """Remove all generations but one."""
        for path in self.folder.glob("step_*"):
            if generation is None or path.name != generation.name:
                shutil.rmtree(path, ignore_errors=True)

    def drop(self, generation: Generation) -> None:
        """Remove a generation."""
        shutil.rmtree(self.folder / generation.name, ignore_errors=True)

    def remove(self) -> None:
        """Remove all copies of the run from this node. Two empty folders stay: another run may just begin to use them."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_stale(self) -> list[str]:
        """Remove what other runs of this user have left on this node a day ago or longer; their names."""
        if not is_private_folder(self._of_user):
            return []
        gone = []
        for folder in self.folder.parent.glob("*"):
            try:
                newest = max(path.stat().st_mtime for path in (folder, *folder.glob("*"), *folder.glob("*/*")))
            except OSError:
                continue  # another job is at it
            if folder != self.folder and time.time() - newest > STALE_S:
                shutil.rmtree(folder, ignore_errors=True)
                gone.append(folder.name)
        return gone

    def why_no_room(self, need_bytes: int, job_bytes: int) -> str | None:
        """What stands against so many bytes of copies on this node, or None. The copies that are there count as room.

        Args:
            need_bytes: That all copies take at the worst moment.
            job_bytes: That the job takes besides, as far as it is known.
        """
        try:
            make_private_folder(self._of_user)
            if not is_private_folder(self._of_user):
                return f"{self._of_user} is not a folder that only you can enter; remove it, or name another with {FOLDER}"
            have = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
            free = free_bytes(self._of_user) + have
        except OSError as error:
            return f"{self._of_user} cannot be written: {error.strerror}; name another folder with {FOLDER}"
        if need_bytes > free:
            return f"{self._of_user} has room for {free / GIB:.3g} GiB; make it larger, or name another folder with {FOLDER}"
        if (available := available_bytes()) is not None and need_bytes > available + have:
            return f"the node has {(available + have) / GIB:.3g} GiB of memory left"
        if (limit := limit_bytes()) is not None and need_bytes + job_bytes > limit:
            return (f"the job may take {limit / GIB:.3g} GiB of memory, {job_bytes / GIB:.3g} are taken or needed for "
                    "copies on their way; ask for more (--mem)")
        return None

    def _tmp(self, generation: Generation, name: str) -> Path:
        return self.folder / generation.name / f".{name}.tmp"


def available_bytes() -> int | None:
    """Memory of this machine that programs can still take; None where it does not say."""
    return _meminfo(Path("/proc/meminfo"), "MemAvailable")


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not say."""
    return _meminfo(Path("/proc/self/status"), "VmRSS") or 0


def _meminfo(path: Path, name: str) -> int | None:
    try:
        found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(), re.M)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def limit_bytes() -> int | None:
    """What Slurm lets the job take of this node's memory; None: all of it, or this is no job of Slurm. Files on tmpfs
    count, where Slurm holds jobs to it with control groups."""
    of_node, of_cpu, cpus = (os.environ.get(f"SLURM_{name}", "") for name in ("MEM_PER_NODE", "MEM_PER_CPU", "CPUS_ON_NODE"))
    if of_node.isdigit() and int(of_node):
        return int(of_node) * 2**20
    return int(of_cpu) * int(cpus) * 2**20 if of_cpu.isdigit() and cpus.isdigit() and int(of_cpu) else None
