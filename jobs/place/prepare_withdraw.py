"""`python jobs/prepare.py withdraw`: take recordings out of a data set (vidmae/labels/withdrawal.py)."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from jobs.place.catalogue import environment_catalogue, find_data
from jobs.place.speak import say
from vidmae.footage.known.withdrawn import versions_path, withdrawn_path
from vidmae.footage.manifest import ManifestError
from vidmae.labels.withdrawal import Had, Withdrawal, choose, who_had, withdraw, withdrawn_contents

HELP = """Take recordings out of a data set, since consent was withdrawn or they are under embargo.

    python jobs/prepare.py withdraw s --files list.txt --reason "consent withdrawn"
    python jobs/prepare.py withdraw s --files list.txt --archives
    python jobs/prepare.py withdraw s --embargoed --dry-run

The manifest gets a new version without them, and NAME.versions.jsonl a line: when, how many, why, the hashes of both.
NAME.withdrawn.csv keeps content hashes, so that a manifest that is made again leaves them out. No names are kept or shown.
The videos themselves are not touched. --archives takes what was withdrawn, now or before, out of footage that was prepared.
The command says which runs, fractions, subsets and prepared footage had them.
"""
MOST_SHOWN = 20


def add_options(p: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = p.add_argument_group("what")
    what.add_argument("manifest", metavar="MANIFEST", help="manifest, or name of a data set")
    what.add_argument("--files", type=Path, metavar="LIST.txt", help="a line per recording: a path, from the end, or a name")
    what.add_argument("--embargoed", action="store_true", help="those that are under embargo today (manifest --about)")
    what.add_argument("--reason", help="for the history (default: withdrawn, or embargo)")
    control = p.add_argument_group("run control")
    control.add_argument("--archives", action="store_true",
                         help="also take them, and what was withdrawn before, out of prepared footage; its archives are "
                              "written anew")
    control.add_argument("--dry-run", action="store_true", help="say what would be taken out and who had it; write nothing")
    control.add_argument("--runs-dir", type=Path, default=Path("runs"), metavar="FOLDER",
                         help="folder of the runs that may have seen it (default: %(default)s)")
    out = p.add_argument_group("output")
    out.add_argument("--show-names", action="store_true", help="show names that it does not have; they may be private")


def run(args: argparse.Namespace) -> int:
    """Take recordings out and say what had them; standard output is the manifest."""
    if not args.files and not args.embargoed and not args.archives:
        raise ManifestError("nothing is asked for: give --files list.txt or --embargoed or both; or --archives for what was "
                            "withdrawn before")
    path = find_data(args.manifest, args.manifest, environment_catalogue()).manifest
    today = date.today()
    chosen = choose(path, _lines(args.files) if args.files else [], embargoed_on=today if args.embargoed else None,
                    names_shown=args.show_names)
    if not chosen.rows and args.embargoed:
        say(f"nothing to withdraw: no recording of {path} is under embargo on {today}")
    had = who_had(chosen, args.runs_dir)
    if chosen.rows:
        _withdraw(chosen, path, args, today)
    takes_out = args.archives and not args.dry_run
    left = [each for each in had.prepared if not (takes_out and _taken_out(each, path))]
    if chosen.rows:
        for line in _had(replace(had, prepared=left), chosen):
            say(line)
        if args.dry_run:
            say("dry run: nothing was written")
    print(path)
    return 2 if takes_out and left and not chosen.rows else 0


def _withdraw(chosen: Withdrawal, path: Path, args: argparse.Namespace, today: date) -> None:
    """Take them out of the manifest, or say what would be taken out."""
    hours = sum(row.seconds for row in chosen.rows) / 3600
    what = f"{len(chosen.rows)} of {chosen.before.videos} videos, {hours:.2f} of {chosen.before.hours:.2f} h"
    if args.dry_run:
        say(f"would take out {what}")
        return
    after = withdraw(chosen, args.reason or ("withdrawn" if args.files else "embargo"), today)
    say(f"taken out: {what}; version {chosen.before.content_sha256[:8]} is now {after.content_sha256[:8]} "
        f"({versions_path(path).name}, {withdrawn_path(path).name})")


def _taken_out(prepared: Path, manifest: Path) -> bool:
    """Take everything that was ever withdrawn from a manifest out of footage that was prepared of it."""
    from vidmae.preparing.take_out import take_out

    try:
        rows, recordings = take_out(prepared, withdrawn_contents(manifest))
    except ManifestError as error:
        say(str(error))
        return False
    say(f"prepared footage {prepared.stem}: {rows} rows and {recordings} recordings taken out of manifest and archives")
    if recordings:
        say("note: copies of these archives on disks of nodes (data.stage) still hold them: remove STAGE/vidmae-UID there")
    return True


def _had(had: Had, chosen: Withdrawal) -> list[str]:
    """What is still to be done, in the order of its weight."""
    lines = [f"runs that saw a version with them: {len(had.runs)}"]
    lines += _first([f"  {name} (version {version})" for name, version in had.runs])
    for prepared in had.prepared:
        lines.append(f"prepared footage may hold them: {prepared}; take them out of it: "
                     f"python jobs/prepare.py withdraw {shlex.quote(chosen.manifest.stem)} --archives")
    if had.fractions:
        lines.append("fractions and other manifests that hold some of them; make these again:")
        lines += _first([f"  {path} ({count})" for path, count in had.fractions])
    if had.shots:
        lines.append("k-shot subsets that hold some of them; draw these again:")
        lines += _first([f"  {path}" for path in had.shots])
    lines.append("the videos are where they were; features and pictures of them lie in the folders of jobs/embed.py and "
                 "jobs/interpolate.py" + (f": see python jobs/status.py {shlex.quote(had.runs[0][0])}" if had.runs else ""))
    return lines


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], *([f"  and {more} more"] if more > 0 else [])]


def _lines(path: Path) -> list[str]:
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()]
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror} (--files)") from error
    if not any(found):
        raise ManifestError(f"{path} has no line (--files)")
    return [line for line in found if line]
