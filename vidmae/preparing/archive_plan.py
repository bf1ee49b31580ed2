"""Which recordings go into which archive: a pure function of the manifest and the settings, so that parts of the work may be
done anywhere, in any order, and give the same files."""

from __future__ import annotations

from collections.abc import Sequence
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


def plan_archives(rows: Sequence[Row], how: Preparation, folder: Path, archive_mib: float) -> list[ArchivePlan]:
    """Deal recordings out to archives in the order of the manifest; those with the same content once.

    Args:
        rows: Of the manifest.
        how: The settings.
        folder: Of the archives.
        archive_mib: About how large each becomes; a recording is never cut.
    """
    different = {how.key_of(row.content): as_recording(row) for row in rows}
    plans: list[ArchivePlan] = []
    left = 0.0
    for key, recording in different.items():
        size = estimated_bytes(recording, how)
        if not plans or size > left:
            plans.append(ArchivePlan(folder / f"frames-{len(plans):05d}.tar", {}))
            left = archive_mib * 2**20
        plans[-1].recordings[key] = recording
        left -= size
    return plans


def as_recording(row: Row) -> Recording:
    """What preparing needs to know of a row."""
    return Recording(row.path, row.content, row.frames, row.fps, row.height, row.width)


def estimated_bytes(recording: Recording, how: Preparation) -> float:
    """About how large a recording becomes: a fifth of a byte for each pixel at quality 90, as it was on real footage."""
    height, width = how.size_of(recording.height, recording.width)
    per_px = 0.063 / max(0.05, 1 - how.quality / 100) ** 0.5
    return float(recording.seconds * how.rate_of(recording.fps) * (height * width * per_px + 1024))
