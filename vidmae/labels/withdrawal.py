"""Taking recordings out of a data set: a new version of its manifest, and what had the earlier ones.

The list of what is withdrawn is written first, then the line of the history, then the manifest: a call that was stopped on
the way is repeated. Names of files are in none of the records that stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

from vidmae.footage.known.unreadable import read_unreadable
from vidmae.footage.known.withdrawn import Version, Withdrawn, add_version, add_withdrawn, read_versions, read_withdrawn
from vidmae.footage.manifest import (
    Check,
    ManifestError,
    Row,
    Summary,
    read_all,
    read_summary,
    sum_part,
    write_manifest,
)
from vidmae.labels.side_table import match, problem
from vidmae.runs.record import read_json


@dataclass(frozen=True)
class Withdrawal:
    """What is to be taken out of a manifest.

    Attributes:
        manifest: The csv.
        before: Its totals.
        rows: Those to be taken out, copies of them by content included.
        kept: The others.
    """

    manifest: Path
    before: Summary
    rows: list[Row]
    kept: list[Row]

    @property
    def contents(self) -> frozenset[str]:
        """Hashes of the contents that are to be taken out."""
        return frozenset(row.content for row in self.rows)


@dataclass(frozen=True)
class Had:
    """Runs, other manifests and subsets that had what is withdrawn.

    Attributes:
        runs: Ids of runs, and the first 8 digits of the version that each saw.
        fractions: Manifests in the same folder that hold some of it, and how many recordings.
        prepared: Manifests of footage that was prepared from an earlier version, or for a sweep, with some of it.
        shots: Files of k-shot subsets that hold some of it.
    """

    runs: list[tuple[str, str]]
    fractions: list[tuple[Path, int]]
    prepared: list[Path]
    shots: list[Path]


def withdrawn_contents(manifest: Path) -> frozenset[str]:
    """Content hashes of all recordings that were ever withdrawn from a manifest: for taking them out of prepared footage."""
    return frozenset(each.content for each in read_withdrawn(manifest))


def choose(manifest: Path, names: Sequence[str], *, embargoed_on: date | None, names_shown: bool = False) -> Withdrawal:
    """Find what is to be taken out.

    Args:
        manifest: The csv.
        names: Of recordings, see `side_table.match`.
        embargoed_on: Also those that are under embargo on this day.
        names_shown: Messages may show names.
    Raises:
        ManifestError: A name means no recording or several, nothing would be left, or the manifest is a part of another.
    """
    before, rows = read_all(manifest)
    if before.fraction:
        raise ManifestError(f"{manifest} is a fraction of {before.fraction['of']}: withdraw from that, and make it again")
    matched = match(names, [row.path for row in rows])
    wrong = [*problem("lines of the list name no recording of the manifest", len(names),
                      [(n + 1, names[n]) for n in matched.lost], names_shown),
             *problem("lines of the list name several recordings, or one that another line names", len(names),
                      [(n + 1, names[n]) for n in matched.double], names_shown)]
    if wrong:
        raise ManifestError("; ".join(wrong) + " (--files; --show-names shows the names)")
    contents = {rows[place].content for place in matched.found}
    if embargoed_on:
        contents |= {row.content for row in rows if row.facts.embargoed(embargoed_on)}
    chosen = Withdrawal(manifest, before, [row for row in rows if row.content in contents],
                        [row for row in rows if row.content not in contents])
    if not chosen.kept:
        raise ManifestError(f"all {len(rows)} recordings of {manifest} would be withdrawn; delete it instead")
    return chosen


def withdraw(chosen: Withdrawal, reason: str, day: date) -> Summary:
    """Write the new version of the manifest, and note what was taken out; the new totals."""
    before, check = chosen.before, Check(chosen.before.decoder, chosen.before.verified)
    after = sum_part(chosen.kept, before, {})
    add_withdrawn(chosen.manifest, [Withdrawn(row.content, row.bytes, day.isoformat(), reason) for row in chosen.rows])
    known = {(each.before_content_sha256, each.after_content_sha256) for each in read_versions(chosen.manifest)}
    if (before.content_sha256, after.content_sha256) not in known:  # a call that was stopped wrote it
        add_version(chosen.manifest, Version(datetime.now(timezone.utc).isoformat(timespec="seconds"), len(chosen.contents),
                                             reason, before.content_sha256, after.content_sha256))
    bad = read_unreadable(chosen.manifest)
    return write_manifest(chosen.manifest, chosen.kept, bad, check, clip_cost=before.clip_cost, prepared=before.prepared)


def who_had(chosen: Withdrawal, runs_dir: Path) -> Had:
    """What had the recordings that are to be taken out: found by the versions of the manifest and by contents.

    Args:
        chosen: Before or after it is done.
        runs_dir: Folder of the runs.
    """
    versions = {chosen.before.content_sha256, *(each.before_content_sha256 for each in read_versions(chosen.manifest))}
    fractions, prepared = list[tuple[Path, int]](), list[Path]()
    gone = chosen.contents | withdrawn_contents(chosen.manifest)
    for path in (*sorted(chosen.manifest.parent.glob("*.csv")), *sorted(runs_dir.glob("clips/*/clips.csv"))):
        if path == chosen.manifest or path.name.endswith((".unreadable.csv", ".withdrawn.csv")):
            continue
        try:
            record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            made = record.get("prepared") or {}
            if made.get("of_content_sha256") in versions or (made and gone & {row.source for row in read_all(path)[1]}):
                prepared.append(path)
                versions.add(record["content_sha256"])
            elif count := len({row.content for row in read_all(path)[1]} & chosen.contents):
                fractions.append((path, count))
                versions.add(read_summary(path).content_sha256)
        except (OSError, ValueError):
            continue  # no manifest
    shots = [path for path in sorted(chosen.manifest.parent.glob(f"{chosen.manifest.stem}.shots*.json"))
             if any(content in text for text in [path.read_text(encoding="utf-8")] for content in chosen.contents)]
    return Had(_runs(runs_dir, versions.__contains__), fractions, prepared, shots)


def _runs(runs_dir: Path, is_version: Callable[[object], bool]) -> list[tuple[str, str]]:
    found = []
    for path in sorted(runs_dir.glob("*/run.json")):
        try:
            record = read_json(path) or {}
        except ValueError:
            continue  # jobs/status.py says so
        seen = [record.get("content_sha256"), record.get("val_content_sha256"),
                (record.get("fraction") or {}).get("of_content_sha256")]
        if version := next(filter(is_version, seen), None):
            found.append((path.parent.name, str(version)[:8]))
    return found
