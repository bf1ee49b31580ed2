"""Takes withdrawn recordings out of prepared footage: out of its manifest first, so that no run that starts now asks for
them, then out of its archives. A call that is stopped on the way is repeated.

An archive is written anew without them. A run that has it open goes on with the old file; one that opens it between the new
tar file and its new index meets checksums that do not fit, and shows other recordings instead.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from vidmae.footage.archives.archive_layout import split_row_path
from vidmae.footage.archives.archive_writer import without
from vidmae.footage.known.unreadable import read_unreadable
from vidmae.footage.manifest import Check, read_all, write_manifest
from vidmae.preparing.archive_parts import record_path
from vidmae.preparing.preparation import Preparation, PrepareError
from vidmae.runs.record import read_json, write_json

WITHDRAWN = "withdrawn"
"""Why a recording is not in an archive, in its record."""


def take_out(manifest: Path, contents: Collection[str]) -> tuple[int, int]:
    """Take recordings out of a prepared data set.

    Args:
        manifest: Of the prepared footage.
        contents: Content hashes of the recordings as they were before, 16 hex digits each.
    Returns:
        Rows taken out of the manifest, and recordings out of archives.
    Raises:
        PrepareError: It is no manifest of archives, or nothing would be left of it.
        OSError: Something cannot be written.
    """
    summary, rows = read_all(manifest)
    made = summary.prepared or {}
    if made.get("form") != "archives":
        raise PrepareError(f"{manifest} is not made of archives; delete what it holds of them, and prepare it again")
    how = Preparation(**{field.name: made[field.name] for field in fields(Preparation)})
    keys = {how.key_of(content) for content in contents}
    archives = sorted({split_row_path(row.path)[0] for row in rows})
    kept = [row for row in rows if split_row_path(row.path)[1] not in keys]
    if not kept:
        raise PrepareError(f"all {len(rows)} recordings of {manifest} would be taken out; delete it and its archives")
    if len(kept) < len(rows):
        write_manifest(manifest, kept, read_unreadable(manifest), Check(summary.decoder, summary.verified), summary.fraction,
                       clip_cost=summary.clip_cost, prepared=made)
    beside = {archive for folder in {archive.parent for archive in archives} for archive in folder.glob("frames-*.tar")}
    return len(rows) - len(kept), sum(_out_of(archive, keys) for archive in sorted({*archives, *beside}))


def _out_of(archive: Path, keys: Collection[int]) -> int:
    """Write an archive anew without some recordings, and its record; how many there were."""
    record = read_json(record_path(archive)) or {}
    there = [name for name in record.get("recordings", {}) if int(name, 16) in keys]
    if there:
        size = without(archive, keys)
        record["recordings"] = {name: part for name, part in record["recordings"].items() if name not in there}
        write_json(record_path(archive), record | {"bytes": size, "lost": record["lost"] | dict.fromkeys(there, WITHDRAWN)})
    return len(there)
