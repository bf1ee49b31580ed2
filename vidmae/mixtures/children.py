"""Whose recordings those of a manifest are: from what the manifest says, else from names as SAYCam's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vidmae.footage.manifest import Manifest, ManifestError
from vidmae.footage.recordings import read_names

MOST_NAMED = 12


def children(manifest: Manifest) -> np.ndarray:
    """The child of each recording: str [N], empty where neither manifest nor name says it."""
    found: np.ndarray = np.array([*manifest.children, ""], dtype=object)[manifest.child]  # -1 is the last
    unknown = np.flatnonzero(manifest.child < 0).tolist()
    for row, part in zip(unknown, read_names([manifest.path(row) for row in unknown]), strict=True):
        found[row] = part.child if part else ""
    return found


def known_children(manifest: Manifest) -> list[str]:
    """All children of a manifest, in alphabetical order."""
    return sorted(set(children(manifest)) - {""})


def refuse_unknown(child: str | None, manifests: Sequence[Manifest]) -> None:
    """Refuse to leave out a child that no manifest has: the run would be the one with everybody under another name.

    Args:
        child: Of data.without_child; None leaves nobody out.
        manifests: Of all sources.
    Raises:
        ManifestError: No recording is of this child; the message names those that there are.
    """
    if child is None:
        return
    known = sorted({name for manifest in manifests for name in known_children(manifest)})
    if child not in known:
        named = ", ".join(known[:MOST_NAMED]) + (f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else "")
        raise ManifestError(f"data.without_child is {child!r}, allowed: {named or 'nobody, since no child is known'}, or "
                            "null (the children of the manifest; a name of digits stands in quotes: \"'00220001'\"; python "
                            "jobs/prepare.py manifest FOLDER --about table.csv adds children)")
