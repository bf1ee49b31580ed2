"""Whose a folder of archives is, what goes into which of them, and how it grows with its manifest.

    OUT/prepared.json    of which manifest, and how; `grown` has later manifests of the same footage, the newest last, each
                         with the number of the first archive that is its own

A later manifest leaves the archives that are there as they are: its new recordings go into further ones. What goes where
follows from the manifest, the settings and the archives before `first`, so the shards of a job agree about it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidmae.footage.manifest import Row, Summary, read_all
from vidmae.preparing.archive_parts import record_path
from vidmae.preparing.archive_plan import ArchivePlan, archive_path, as_recording, plan_archives
from vidmae.preparing.kept_frames import Recording
from vidmae.preparing.preparation import Preparation, PrepareError
from vidmae.runs.record import held, read_json, write_json

SCHEMA = 1
BUSY = "wait for it, or stop it"
_NUMBER = re.compile(r"frames-(\d+)\.")
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        source: Manifest of the footage.
        how: The settings.
        folder: OUT, for the archives.
        manifest: The csv to write.
        archive_mib: About how large an archive becomes.
    """

    source: Path
    how: Preparation
    folder: Path
    manifest: Path
    archive_mib: float = 1024.0


def settle(order: Order, summary: Summary, rows: Sequence[Row]) -> list[ArchivePlan]:
    """Say whose folder it is, and what goes into which archive: first those of earlier manifests that have any of it.

    Args:
        order: What is asked for.
        summary: Totals of its source.
        rows: Of its source.
    Raises:
        PrepareError: The folder is another's.
        RunLockedError: It would grow, and another call is at work in it.
    """
    recordings = {order.how.key_of(row.content): as_recording(row) for row in rows}
    plans = _plans(order, recordings, sign(order, summary, recordings))
    if all(_fits(plan) for plan in plans):
        return plans
    return _plans(order, recordings, _grow(order, summary))  # somebody has removed a record: what it had is made anew


def sign(order: Order, summary: Summary, keys: Collection[int]) -> int:
    """Say whose folder it is.

    Args:
        order: What is asked for.
        summary: Totals of its source.
        keys: Of the recordings of its source.
    Returns:
        Number of the first archive that is its own.
    Raises:
        PrepareError: The folder holds footage that was prepared otherwise, or none of this manifest's.
        RunLockedError: It would grow, and another call is at work in it.
    """
    path = order.folder / "prepared.json"  # beside config.yaml, where an array makes the archives
    mine = {"schema": SCHEMA, "of_content_sha256": summary.content_sha256, "archive_mib": order.archive_mib,
            **order.how.record()}
    there = read_json(path)
    if there is None:
        write_json(path, mine)
        return 0
    wrong = [key for key in mine if key != "of_content_sha256" and there.get(key) != mine[key]]
    newest = _newest(there)
    if not wrong and newest["of_content_sha256"] == summary.content_sha256:
        return int(newest["first"])
    if not wrong and not _held_keys(order.folder) & set(keys):
        wrong = ["of_content_sha256"]
    if wrong:
        said = ", ".join(f"{key} {there.get(key)}, now {mine[key]}" for key in wrong)
        raise PrepareError(f"{order.folder} holds footage that was prepared otherwise ({said}); choose another --out, or "
                           "remove it")
    return _grow(order, summary)


def reopen(order: Order) -> None:
    """Where archives are there of an earlier manifest, say that this one follows. It is called before the jobs of an array
    start, which must agree about it. The result of an earlier array goes.

    Raises:
        PrepareError: See `sign`.
        RunLockedError: See `sign`.
    """
    if not (order.folder / "prepared.json").exists():
        return
    summary, rows = read_all(order.source)
    sign(order, summary, [order.how.key_of(row.content) for row in rows])
    result = order.folder / "result.json"
    if result.exists() and (read_json(result) or {}).get("of_content_sha256") != summary.content_sha256:
        result.unlink()


def _newest(there: Mapping[str, Any]) -> Mapping[str, Any]:
    first = {"of_content_sha256": there["of_content_sha256"], "first": 0}
    newest: Mapping[str, Any] = [first, *there.get("grown", [])][-1]
    return newest


def _grow(order: Order, summary: Summary) -> int:
    """Note a later manifest, whose own archives come behind all that are there; the number of the first."""
    path = order.folder / "prepared.json"
    with ExitStack() as alone:
        for lock in [*order.folder.glob("lock-*.json"), order.folder / "lock-grow.json"]:
            alone.enter_context(held(lock, heartbeat=lock, what=f"{order.folder} is being filled", remedy=BUSY))
        there = read_json(path) or {}
        numbers = [int(found[1]) for each in order.folder.iterdir() if (found := _NUMBER.match(each.name))]
        first = 1 + max(numbers, default=-1)
        grown = [*there.get("grown", []), {"of_content_sha256": summary.content_sha256, "first": first}]
        write_json(path, {**there, "grown": grown})
    return first


def _plans(order: Order, recordings: Mapping[int, Recording], first: int) -> list[ArchivePlan]:
    left = dict(recordings)
    before = []
    for number in range(first):
        archive = archive_path(order.folder, number)
        mine = {key: left.pop(key) for key in _keys_of(archive) if key in left}
        if mine:
            before.append(ArchivePlan(archive, mine))
    return before + plan_archives(left, order.how, order.folder, order.archive_mib, first=first)


def _keys_of(archive: Path) -> list[int]:
    """Recordings that an archive holds or has lost; empty where it is not complete."""
    record = read_json(record_path(archive)) or {}
    return [int(name, 16) for name in (*record.get("recordings", ()), *record.get("lost", ()))]


def _fits(plan: ArchivePlan) -> bool:
    keys = _keys_of(plan.path)
    return not keys or plan.recordings.keys() <= set(keys)


def _held_keys(folder: Path) -> set[int]:
    """Recordings that are there: in archives, as parts, or as chunks."""
    archives = [path for path in folder.glob("frames-*.json") if _NUMBER.match(path.name)]
    alone = [path.stem for path in (*folder.glob("*.json"), *folder.glob("parts/*.json")) if _KEY.fullmatch(path.stem)]
    return {key for archive in archives for key in _keys_of(archive)} | {int(stem, 16) for stem in alone}
