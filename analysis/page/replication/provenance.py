"""What the page says of how its verdicts came about: whether claims were fixed, how often was asked, what was counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.page.replication import claims as claims_file
from analysis.page.replication.evidence import Evidence


def claims_said(asked: Mapping[str, Any]) -> str:
    """Whether claims.py is that of before the runs.

    Args:
        asked: asked.json.
    """
    first = asked.get("first")
    if first is None:
        return ("whether claims.py was changed after runs had begun is not known: no call noted its SHA-256; the same "
                "command of replicate.py does")
    if first["claims_sha256"] != hashlib.sha256(Path(claims_file.__file__).read_bytes()).hexdigest():
        return (f"the claims were changed after runs had begun: claims.py is not that of the first call (commit "
                f"{first['commit']})")
    if first["late"]:
        return f"claims.py is as it was on {first['date']}, when its SHA-256 was first noted; runs had begun before"
    return f"claims.py is as it was at the first call, before the runs ({first['date']}, commit {first['commit']})"


def calls_said(asked: Mapping[str, Any]) -> str:
    """How often the command was called, and for how many seeds."""
    calls = asked.get("calls")
    if not calls:
        return ""
    later = f", later for up to {max(calls)}" if max(calls) > calls[0] else ""
    noted = "; earlier calls were not noted" if asked["first"]["late"] else ""
    return f"; called {len(calls)} time{'s' * (len(calls) > 1)}, first for {calls[0]} seeds{later}{noted}"


def units_said(evidence: Evidence) -> str:
    """Of how many units the test clips are."""
    if not evidence.groups:
        return ("every clip, as if clips of one scene were independent, which makes intervals too narrow: the folder has no "
                "groups.json; the same command of replicate.py writes it")
    return ", ".join(f"{data}: {len(set(clips.values()))} scenes or recordings" for data, clips in evidence.groups.items()
                     ) + "; pictures: every picture"
