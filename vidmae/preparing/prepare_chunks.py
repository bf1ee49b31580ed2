"""Prepares a data set as chunks: small mp4 files of at most ten minutes, for whoever wants to keep videos.

    OUT/prepared.json              as of archives
    OUT/KEY-000.mp4, KEY-001.mp4   H.264 with a key frame every 16 frames; KEY.json is written last and says how many
    manifests/NAME.csv             made of the chunks like that of any footage: each is decoded in full

A clip of an archive costs a third to read; chunks take half of the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from vidmae.footage.encode import write_chunk
from vidmae.footage.manifest import Check, Source, Summary, read_all, write_manifest
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import open_video
from vidmae.preparing.archive_parts import Lost, Part, psnr_db, read_part, record_path, timed
from vidmae.preparing.archive_plan import as_recording, source_of
from vidmae.preparing.kept_frames import Recording, kept_frames
from vidmae.preparing.preparation import Preparation
from vidmae.preparing.prepare_archives import LEAST_LIMIT_S, Report, Tell, alone, make_each, prepared_from
from vidmae.preparing.prepared_folder import Order, sign
from vidmae.runs.record import make_private_folder, write_json

CHUNK_S = 600.0  # of footage, at most


@dataclass(frozen=True)
class ChunkMaker:
    """Makes the chunks of one recording: picklable, called in a process of its own."""

    folder: Path
    how: Preparation

    def __call__(self, recording: Recording) -> tuple[Part | Lost, float]:
        """Make them; and the CPU seconds that it took."""
        return timed(lambda skip: self._make(recording, skip))

    def _make(self, recording: Recording, skip: bool) -> Part:
        key = self.how.key_of(recording.content)
        numbers, fps, pictures = kept_frames(recording, self.how, skip=skip)
        each = max(1, int(CHUNK_S * fps))
        first: list[np.ndarray] = []
        size = 0
        paths = [chunk_path(self.folder, key, chunk) for chunk in range(-(-len(numbers) // each))]
        for path in paths:
            write_chunk(_noting(islice(pictures, each), first), path, fps, crf=crf_of(self.how.quality))
            size += path.stat().st_size
        with open_video(paths[0], "pyav") as video:
            again = video.read([0])[0]
        height, width = again.shape[:2]
        part = Part(len(numbers), fps, height, width, size, psnr_db(first[0][:height, :width], again), 0.0)
        write_json(record_path(self.folder / f"{key:016x}"), asdict(part))
        return part


def chunk_path(folder: Path, key: int, number: int) -> Path:
    """A chunk of a recording."""
    return folder / f"{key:016x}-{number:03d}.mp4"


def crf_of(quality: int) -> int:
    """x264's crf for a quality of 1 to 100: 18 at 90."""
    return min(51, round(12 + (100 - quality) * 0.6))


def _noting(pictures: Iterator[tuple[int, np.ndarray]], first: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The pictures alone; the very first one is kept, to compare with."""
    for _, picture in pictures:
        if not first:
            first.append(picture)
        yield picture


def prepare_chunks(order: Order, *, workers: int, time_limit_s: float, tell: Tell) -> tuple[Summary, Report]:
    """Prepare what is missing, and make the manifest of it.

    Args:
        order: What is asked for; `archive_mib` is not used.
        workers: Processes.
        time_limit_s: Seconds for one recording; 0: ten minutes, or as long as the recording lasts if that is more.
        tell: Told of the progress.
    Raises:
        PrepareError: The folder belongs to other footage or settings, or nothing can be written.
        RunLockedError: Another call works on it.
    """
    summary, rows = read_all(order.source)
    make_private_folder(order.folder)
    of = {order.how.key_of(row.content): row for row in rows}
    sign(order, summary, of)
    recordings = {order.how.key_of(row.content): as_recording(row) for row in rows}
    report = Report(recordings=len(recordings))
    lost: list[tuple[str, str]] = []
    with alone(order, 0, 1):
        _make_all(recordings, order, workers, time_limit_s, tell, report, lost)
    made = {key: part for key in recordings if (part := _made(order.folder, key))}
    sources = [Source(str(path), of[key].label, of[key].facts)
               for key in made for path in sorted(order.folder.glob(f"{key:016x}-*.mp4"))]
    report.seconds = sum(recordings[key].seconds for key in made)
    report.frames, report.bytes = (sum(getattr(part, name) for part in made.values()) for name in ("frames", "bytes"))
    if made:
        report.psnr_db = sum(part.psnr_db for part in made.values()) / len(made)
        report.least_psnr_db = min(part.psnr_db for part in made.values())
    check = Check("pyav", True)
    build(sources, order.manifest, check, workers=workers, time_limit_s=max(LEAST_LIMIT_S, time_limit_s),
          progress=lambda *_: None)
    new = [replace(row, source=source_of(of[int(Path(row.path).name[:16], 16)]))
           for row in (read_all(order.manifest)[1] if sources else [])]
    return write_manifest(order.manifest, new, lost, check, summary.fraction, prepared=prepared_from(order, summary)), report


def _made(folder: Path, key: int) -> Part | None:
    return read_part(folder / f"{key:016x}.tar")


def _make_all(recordings: dict[int, Recording], order: Order, workers: int, time_limit_s: float, tell: Tell, report: Report,
              lost: list[tuple[str, str]]) -> None:
    todo = [recording for key, recording in recordings.items() if _made(order.folder, key) is None]
    total_s = sum(recording.seconds for recording in recordings.values())
    done_s = total_s - sum(recording.seconds for recording in todo)
    report.done_before = len(recordings) - len(todo)
    tell(int(done_s), int(total_s))
    for place, made in make_each(ChunkMaker(order.folder, order.how), todo, order.folder, report, workers=workers,
                                 time_limit_s=time_limit_s):
        recording = todo[place]
        if isinstance(made, Lost):
            lost.append((recording.path, made.reason))
            report.lost[made.reason] += 1
            report.lost_s += recording.seconds
        done_s += recording.seconds
        tell(int(done_s), int(total_s))
