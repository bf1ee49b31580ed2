"""Which checkpoints stay, and the room on disk that they need."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from vidmae.runs.record import make_private_folder, write_atomic
from vidmae.settings.keeping_config import CheckpointConfig

HEADROOM = 1.02  # headers of the files and whole blocks of the file system
GIB = 2**30


def free_bytes(folder: Path) -> int:
    """Room for this user on the disk that holds `folder`; quotas are not seen."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def superseded(steps: Iterable[int], keep: CheckpointConfig) -> list[int]:
    """Of the complete checkpoints of `steps`, those that may go."""
    return [s for s in sorted(steps)[:-keep.keep_last] if not keep.keep_every or s % keep.keep_every]


def most_at_once(have: Iterable[int], start: int, total_steps: int, keep: CheckpointConfig) -> int:
    """Checkpoints on disk at the worst moment of a run that goes on: the new one is complete before an old one goes.

    Args:
        have: Steps of the complete checkpoints that are there.
        start: Updates done.
        total_steps: Updates of the whole run.
        keep: Which ones stay.
    """
    there, most = set(have), 0
    for step in range(start + 1, total_steps + 1):
        if step % keep.every_steps == 0 or step == total_steps:
            there.add(step)
            most = max(most, len(there))
            there.difference_update(superseded(there, keep))
    return most


def why_no_room(folder: Path, have: list[int], each_bytes: int, start: int, total_steps: int,
                keep: CheckpointConfig) -> str | None:
    """What stands against keeping a run's checkpoints in `folder`, or None: it can be written and has the room.

    Args:
        have: Steps of the complete checkpoints there.
        each_bytes: Size of one.
    """
    try:
        probe = make_private_folder(folder) / ".probe"
        write_atomic(probe, b"a checkpoint can be written here")
        probe.unlink()
        free = free_bytes(folder)
    except OSError as error:
        return f"checkpoints cannot be written to {folder}: {error.strerror}; make it writable, or choose another --runs-dir"
    more = max(0, most_at_once(have, start, total_steps, keep) - len(have))
    need = more * each_bytes * HEADROOM
    if need <= free:
        return None
    fewer = [f"checkpoint.keep_last={keep.keep_last - 1}"] if keep.keep_last > 1 else []
    fewer += ["a larger checkpoint.keep_every"] if keep.keep_every else []
    return (f"{folder} has {free / GIB:.3g} GiB free, the run's checkpoints need {need / GIB:.3g} GiB more: {more} of "
            f"{each_bytes / GIB:.3g} GiB (checkpoint.keep_last {keep.keep_last} and the one being written"
            + (f", and one for good every {keep.keep_every} steps" if keep.keep_every else "")
            + "); free some, choose another --runs-dir" + (f", or keep fewer: --set {', '.join(fewer)}" if fewer else ""))
