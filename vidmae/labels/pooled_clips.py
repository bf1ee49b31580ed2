"""Labelled clips by way of the frames that a sweep has prepared of them (vidmae/preparing/clip_pool.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from vidmae.footage.manifest import Manifest, ManifestError

CLIPS = "clips.csv"


def pooled(manifest: Manifest, folder: Path) -> Manifest:
    """The same rows in the same order, with the same labels; their frames are those in the archives of a folder.

    Args:
        manifest: Of the files.
        folder: Of the archives.
    Raises:
        ManifestError: Some are not there; the message has their number, no names.
    """
    pool = Manifest.read(folder / CLIPS)
    known, first = np.unique(pool.source, return_index=True)
    place = np.minimum(np.searchsorted(known, manifest.content), len(known) - 1)
    if missing := int((known[place] != manifest.content).sum()):
        raise ManifestError(f"{missing} of {len(manifest)} clips are not in {folder}: preparing them has not come to its "
                            "end, or they cannot be decoded; the sweep's command with --retry prepares what is missing. "
                            "Clips that could not be decoded (clips.unreadable.csv there) are not tried again; without "
                            "--prepare cells read the files themselves")
    return replace(pool.take(first[place]), summary=manifest.summary, class_index=manifest.class_index, child=manifest.child,
                   date=manifest.date, age_months=manifest.age_months, children=manifest.children)
