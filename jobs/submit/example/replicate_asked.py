"""What a replication was asked at its first call and since: `OUT/asked.json`.

Settings and videos may not change between calls. The page says whether `claims.py` did: the first call notes its SHA-256 and
the commit, before there is any run. Every call notes how many seeds it asked for, since one who looks at verdicts and then
asks for more seeds will sooner or later see what he wants to see.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.submit.example.replicate_run import ROOT
from vidmae.footage.video_list import EXTENSIONS, walk
from vidmae.runs.record import make_private_folder, read_json, write_json
from vidmae.settings.layers import ConfigError

ASKED, CLAIMS = "asked.json", ROOT / "analysis/page/replication/claims.py"
FILES = {"footage_files": "--footage", "labelled_files": "--labelled"}
NOTED = ("first", "calls")


def note_call(out: Path, asked: Mapping[str, Any], *, footage: Path | None, labelled: Path | None, seeds: int,
              code: str) -> None:
    """Note a call in the folder, or refuse it.

    Args:
        out: Folder of the replication.
        asked: Settings that may not change.
        footage: Folder of videos to pretrain on.
        labelled: Folder of labelled videos.
        seeds: How many are asked for.
        code: The commit.
    Raises:
        ConfigError: The folder holds a replication with other settings or of other videos.
    """
    asked = {**asked, **dict(zip(FILES, (files_of(footage), files_of(labelled)), strict=True))}
    before = read_json(out / ASKED)
    _refuse_changes(out, asked, before or asked)
    first, calls = (before or {}).get("first"), (before or {}).get("calls", [])
    if first is None:
        late = before is not None or any(out.glob("seed-*"))
        if late:
            print(f"{out} was begun without notes of claims.py, of the videos and of calls; they are taken now, and the "
                  "page says so", file=sys.stderr)
        first = {"claims_sha256": claims_sha256(), "commit": code, "date": time.strftime("%d %B %Y"), "late": late}
    make_private_folder(out)
    write_json(out / ASKED, {**asked, "first": first, "calls": [*calls, seeds]})


def claims_sha256() -> str:
    """Of the file that says what is asked."""
    return hashlib.sha256(CLAIMS.read_bytes()).hexdigest()


def files_of(folder: Path | None) -> str | None:
    """SHA-256 of the relative paths and the sizes of all videos below a folder; None of no folder."""
    if folder is None:
        return None
    found = sorted(f"{path.relative_to(folder)}\0{path.stat().st_size}\n" for path in walk(folder)
                   if path.suffix.lower() in EXTENSIONS)
    return hashlib.sha256("".join(found).encode("utf-8", "surrogateescape")).hexdigest()


def _refuse_changes(out: Path, asked: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    changed = [key for key in dict.fromkeys([*asked, *before]) if key not in (*NOTED, *FILES)
               and (key not in before or key not in asked or before[key] != asked[key])]
    if changed:
        raise ConfigError(f"{out} holds a replication with other settings ({', '.join(changed)}); change --out, or remove "
                          "it")
    others = [flag for key, flag in FILES.items() if key in before and before[key] != asked[key]]
    if others:
        raise ConfigError(f"{out} holds a replication of other videos: those in {' and '.join(others)} were changed since "
                          "(by their paths and sizes); change --out, or remove it")
