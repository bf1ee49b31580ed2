"""Prepares a data set as archives: what is missing of it, in processes that can be killed, and then its manifest.

    OUT/prepared.json                 of which manifest, and how (prepared_folder.py); other settings are refused
    OUT/parts/KEY.*                   recordings whose archive is not complete yet (archive_parts.py)
    OUT/frames-00003.tar, .npy        an archive; .json beside it is written last and says what it holds and what is missing
    manifests/NAME.csv                written once all archives are there

A call that is stopped, however hard, loses the recordings that it was at. No name of a file of footage is in OUT.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from vidmae.footage.archives.archive_layout import DECODER, row_path
from vidmae.footage.archives.archive_writer import join
from vidmae.footage.killable import map_killable
from vidmae.footage.known.withdrawn import Version, add_version
from vidmae.footage.manifest import AUTO, Check, ManifestError, Row, Summary, read_all, write_manifest
from vidmae.preparing.archive_parts import Lost, Part, PartMaker, part_path, read_part, record_path, remove_part
from vidmae.preparing.archive_plan import ArchivePlan, source_of
from vidmae.preparing.kept_frames import Recording
from vidmae.preparing.preparation import PrepareError
from vidmae.preparing.prepared_folder import BUSY, SCHEMA, Order, settle
from vidmae.runs.record import held, make_private_folder, read_json, write_json

LEAST_LIMIT_S = 600.0  # for one recording; a long one gets as long as it lasts
SIGN_OF_LIFE_S = 60.0
Tell = Callable[[int, int], object]
"""Told how many seconds of footage are done of how many."""


@dataclass
class Report:
    """What came of it.

    Attributes:
        recordings: In all, copies not counted.
        done_before: Of these, what an earlier call had done.
        frames, bytes: Of all archives: frames, and bytes of the JPEGs.
        seconds: Of footage that is prepared.
        lost: Reason -> how many recordings could not be prepared.
        lost_s: Seconds of footage in them.
        cpu_s, cpu_footage_s: CPU time of this call, and the footage that it was for.
        psnr_db, ssim: Means over recordings.
        least_psnr_db: Of the worst recording.
    """

    recordings: int = 0
    done_before: int = 0
    frames: int = 0
    bytes: int = 0
    seconds: float = 0.0
    lost: Counter[str] = field(default_factory=Counter)
    lost_s: float = 0.0
    cpu_s: float = 0.0
    cpu_footage_s: float = 0.0
    psnr_db: float = 0.0
    ssim: float = 0.0
    least_psnr_db: float = 100.0


def prepare(order: Order, *, workers: int, time_limit_s: float, tell: Tell, shard: int = 0, shards: int = 1,
            ) -> tuple[Summary | None, Report]:
    """Prepare what is missing, and write the manifest when nothing is.

    Args:
        order: What is asked for.
        workers: Processes.
        time_limit_s: Seconds for one recording; 0: ten minutes, or as long as the recording lasts if that is more.
        tell: Told of the progress.
        shard, shards: Do every `shards`-th archive alone, from this one on.
    Returns:
        Totals of the new manifest, or None where other shards have still to do theirs; and a report.
    Raises:
        PrepareError: The folder belongs to other footage or settings, or nothing can be written.
        RunLockedError: Another call works on it.
    """
    summary, rows = read_all(order.source)
    make_private_folder(order.folder / "parts")
    plans = settle(order, summary, rows)
    report = Report(recordings=sum(len(plan.recordings) for plan in plans))
    with alone(order, shard, shards):
        _make_all(plans[shard::shards], order, workers, time_limit_s, tell, report)
    records = [read_json(record_path(plan.path)) for plan in plans]
    made = [record for record in records if record]
    _add_up(report, plans, records)
    if len(made) < len(plans):
        return None, report
    shutil.rmtree(order.folder / "parts", ignore_errors=True)  # another shard may be at the same
    return _write(order, summary, rows, plans, made), report


@contextmanager
def alone(order: Order, shard: int, shards: int) -> Iterator[None]:
    """One call at a time for each shard, with signs of life."""
    lock, ended = order.folder / f"lock-{shard}-{shards}.json", threading.Event()

    def live() -> None:
        while not ended.wait(SIGN_OF_LIFE_S):
            lock.touch()

    with held(lock, heartbeat=lock, what=f"{order.folder} is being filled", remedy=BUSY):
        thread = threading.Thread(target=live, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _make_all(plans: Sequence[ArchivePlan], order: Order, workers: int, time_limit_s: float, tell: Tell,
              report: Report) -> None:
    """Make the parts that are missing, and each archive when it has all of them."""
    parts = order.folder / "parts"
    open_plans = [plan for plan in plans if not record_path(plan.path).exists()]
    lost: dict[int, str] = {}
    todo: list[tuple[int, int, Recording]] = []
    left: list[int] = []
    for number, plan in enumerate(open_plans):
        missing = [(number, key, recording) for key, recording in plan.recordings.items()
                   if read_part(part_path(parts, key)) is None]
        left.append(len(missing))
        todo += missing
    total_s = sum(recording.seconds for plan in plans for recording in plan.recordings.values())
    done_s = total_s - sum(recording.seconds for _, _, recording in todo)
    report.done_before = sum(len(plan.recordings) for plan in plans) - len(todo)
    tell(int(done_s), int(total_s))
    for number, plan in enumerate(open_plans):
        if not left[number]:
            _seal(plan, parts, lost)
    for place, made in make_each(PartMaker(parts, order.how), [recording for _, _, recording in todo], order.folder, report,
                                 workers=workers, time_limit_s=time_limit_s):
        number, key, recording = todo[place]
        if isinstance(made, Lost):
            lost[key] = made.reason
        done_s += recording.seconds
        left[number] -= 1
        if not left[number]:
            _seal(open_plans[number], parts, lost)
        tell(int(done_s), int(total_s))


def make_each(maker: Callable[[Recording], tuple[Part | Lost, float]], recordings: Sequence[Recording], folder: Path,
              report: Report, *, workers: int, time_limit_s: float) -> Iterator[tuple[int, Part | Lost]]:
    """Prepare recordings in processes that can be killed.

    Args:
        maker: Prepares one: what came of it, and the CPU seconds that it took.
        recordings: What is to be done.
        folder: OUT, for a message.
        report: Told of CPU time and of the footage that it was for.
        workers: Processes.
        time_limit_s: Seconds for one recording; 0: ten minutes, or as long as the longest recording lasts if that is more.
    Yields:
        Place of a recording in the list, and what came of it, as they are done.
    Raises:
        PrepareError: Nothing can be written.
    """
    limit_s = time_limit_s or max([LEAST_LIMIT_S, *(recording.seconds for recording in recordings)])
    for outcome in map_killable(maker, recordings, workers=workers, time_limit_s=limit_s):
        made, cpu_s = outcome.value or (Lost(outcome.reason or ""), 0.0)
        if isinstance(made, Part):
            report.cpu_s += cpu_s
            report.cpu_footage_s += recordings[outcome.index].seconds
        elif made.stop:
            raise PrepareError(f"{made.reason} in {folder} (change --out); what is done is kept")
        yield outcome.index, made


def prepared_from(order: Order, summary: Summary) -> dict[str, Any]:
    """What the summary of the new manifest says of its source, whose totals are given, and of the settings."""
    return {"of": order.source.stem, "of_content_sha256": summary.content_sha256, "of_videos": summary.videos,
            "of_seconds": summary.seconds, **order.how.record()}


def _seal(plan: ArchivePlan, parts: Path, lost: Mapping[int, str]) -> None:
    """Make the archive of parts, its record last, and remove the parts."""
    made = {key: part for key in sorted(plan.recordings) if (part := read_part(part_path(parts, key)))}
    size = join([part_path(parts, key) for key in made], plan.path) if made else 0
    missing = {f"{key:016x}": lost[key] for key in plan.recordings if key not in made}
    write_json(record_path(plan.path), {"schema": SCHEMA, "bytes": size, "lost": missing,
                                        "recordings": {f"{key:016x}": asdict(part) for key, part in made.items()}})
    for key in made:
        remove_part(part_path(parts, key))


def _add_up(report: Report, plans: Sequence[ArchivePlan], records: Sequence[Mapping[str, Any] | None]) -> None:
    made: list[Part] = []
    for plan, record in zip(plans, records, strict=True):
        for key, recording in plan.recordings.items() if record else ():
            assert record is not None
            name = f"{key:016x}"
            if name in record["lost"]:
                report.lost[record["lost"][name]] += 1
                report.lost_s += recording.seconds
            else:
                made.append(Part(**record["recordings"][name]))
                report.seconds += recording.seconds
    report.frames, report.bytes = sum(part.frames for part in made), sum(part.bytes for part in made)
    if made:
        report.psnr_db, report.ssim = (sum(getattr(part, name) for part in made) / len(made) for name in ("psnr_db", "ssim"))
        report.least_psnr_db = min(part.psnr_db for part in made)


def _write(order: Order, summary: Summary, rows: Sequence[Row], plans: Sequence[ArchivePlan],
           records: Sequence[dict[str, Any]]) -> Summary:
    """The manifest: rows in the order of the source's, so that the same seed sees the same recordings in the same steps."""
    where = {key: (plan.path, record) for plan, record in zip(plans, records, strict=True) for key in plan.recordings}
    new, bad = [], []
    for row in rows:
        key = order.how.key_of(row.content)
        archive, record = where[key]
        if reason := record["lost"].get(f"{key:016x}"):
            bad.append((row.path, reason))
            continue
        part = Part(**record["recordings"][f"{key:016x}"])
        new.append(replace(
            row, path=row_path(archive.absolute(), key), frames=part.frames, fps=part.fps, seconds=part.frames / part.fps,
            bytes=part.bytes, width=part.width, height=part.height, codec="mjpeg", rotation=0, has_b_frames=0, vfr=0,
            content=f"{key:016x}", mtime_ns=0, decoder=DECODER, source=source_of(row)))
    earlier = _contents(order.manifest)
    written = write_manifest(order.manifest, new, bad, Check(AUTO, True), summary.fraction,
                             prepared=prepared_from(order, summary))
    contents = {row.content for row in new}
    if earlier and earlier[1] != contents:
        add_version(order.manifest, Version(
            datetime.now(timezone.utc).isoformat(timespec="seconds"), len(earlier[1] - contents),
            f"prepared again: {len(contents - earlier[1])} new recordings", earlier[0], written.content_sha256))
    return written


def _contents(manifest: Path) -> tuple[str, set[str]] | None:
    """Content hash of the manifest that is there before, and those of its recordings."""
    try:
        summary, rows = read_all(manifest)
    except ManifestError:
        return None
    return summary.content_sha256, {row.content for row in rows}
