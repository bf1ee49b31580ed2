"""Which recordings go into which archive: a pure function of the manifest and the settings, so that parts of the work may be
done anywhere, in any order, and give the same files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vidmae.footage.manifest import Row
from vidmae.preparing.kept_frames import Recording
from vidmae.preparing.preparation import Preparation


@dataclass(frozen=True)
class ArchivePlan:
    """One archive.

    Attributes:
        path: `frames-00003.tar`.
        recordings: By key, in the order of the manifest.
    """

    path: Path
    recordings: dict[int, Recording]


def archive_path(folder: Path, number: int) -> Path:
    """The archive of a number."""
    return folder / f"frames-{number:05d}.tar"


def plan_archives(recordings: Mapping[int, Recording], how: Preparation, folder: Path, archive_mib: float, *,
                  first: int = 0) -> list[ArchivePlan]:
    """Deal recordings out to archives in their order.

    Args:
        recordings: By key.
        how: The settings.
        folder: Of the archives.
        archive_mib: About how large each becomes; a recording is never cut.
        first: Number of the first one.
    """
    plans: list[ArchivePlan] = []
    left = 0.0
    for key, recording in recordings.items():
        size = estimated_bytes(recording, how)
        if not plans or size > left:
            plans.append(ArchivePlan(archive_path(folder, first + len(plans)), {}))
            left = archive_mib * 2**20
        plans[-1].recordings[key] = recording
        left -= size
    return plans


def as_recording(row: Row) -> Recording:
    """What preparing needs to know of a row."""
    return Recording(row.path, row.content, row.frames, row.fps, row.height, row.width)


def source_of(row: Row) -> str:
    """Content hash of the recording that a row was prepared from; of one that was not prepared, its own."""
    return row.source or row.content


def estimated_bytes(recording: Recording, how: Preparation) -> float:
    """About how large a recording becomes: a fifth of a byte for each pixel at quality 90, as it was on real footage."""
    height, width = how.size_of(recording.height, recording.width)
    per_px = 0.063 / max(0.05, 1 - how.quality / 100) ** 0.5
    return float(recording.seconds * how.rate_of(recording.fps) * (height * width * per_px + 1024))
