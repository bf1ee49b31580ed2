"""Which test clips of a replication show the same footage, so that they are no independent evidence: `OUT/groups.json`.

    {"motion": {"58853390acaa5539": 0, ...}, "actions": {...}}     data set -> content hash -> number of the group

Clip N of every motion of the camera is of one scene (demo_clips.py), and labelled clips of one recording show the same place
and people. A clip is listed by its own hash and by that of what was prepared from it. Pictures are independent and not
listed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from jobs.submit.example.replicate_plan import ACTIONS, FULL, MOTION
from vidmae.footage.manifest import read_all
from vidmae.runs.record import write_json

GROUPS = "groups.json"


def group_of(name: str, split_by: str) -> str | None:
    """What a file was recorded in; None where its name does not say it.

    Args:
        name: Of the file.
        split_by: Regular expression; its first group, or all that it matches.
    """
    found = re.search(split_by, name)
    return found and found[1 if found.re.groups else 0]


def write_groups(out: Path, split_by: str | None) -> None:
    """Number the groups of all test clips.

    Args:
        out: Folder of a replication, with its manifests.
        split_by: Of the labelled clips; None where there are none.
    """
    manifests = out / "manifests"
    found = {MOTION: _numbers(manifests, MOTION, lambda name: Path(name).stem)}
    if split_by is not None:
        found[ACTIONS] = _numbers(manifests, ACTIONS, lambda name: group_of(name, split_by) or "")
    write_json(out / GROUPS, found)


def _numbers(manifests: Path, data: str, of_name: Callable[[str], str]) -> dict[str, int]:
    """Content hash -> number of the group, of the test clips as they are and as they were prepared."""
    of_clip = {row.content: of_name(Path(row.path).name) for row in read_all(manifests / f"{data}{FULL}-val.csv")[1]}
    number = {name: i for i, name in enumerate(sorted(set(of_clip.values())))}
    found = {content: number[name] for content, name in of_clip.items()}
    return found | {row.content: found[row.source] for row in read_all(manifests / f"{data}-val.csv")[1]}
