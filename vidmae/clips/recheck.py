"""Reads a small share of the clips a second time, with another decoder, and says where the two differ (data.recheck_pct).

A decoder that was right when the manifest was made may be wrong on another machine, or now and then. Which clips are read
again follows from the seed and their place in the data order. The second read has a process of its own, and what it finds
changes nothing in training: it is counted in metrics.jsonl and named by row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vidmae.clips.cutting import ClipSpec, Cutter
from vidmae.clips.order import RECHECK, Place, rng
from vidmae.clips.reading import Reader
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import second_decoder

MOST_GREY_LEVELS = 1.0  # mean over a frame: what two conversions of the same picture to RGB may differ by


@dataclass(frozen=True)
class Recheck:
    """A clip that was read again.

    Attributes:
        row: Of the manifest, from 0.
        problem: How the two differ, or why the second could not be read; None where they are the same.
    """

    row: int
    problem: str | None


@dataclass(frozen=True)
class Rechecker:
    """Reads clips again for one process.

    Attributes:
        manifest: The videos.
        spec: What a clip is.
        seed: Of the run.
        pct: Share of the clips, 0 to 100.
        limit_s: Seconds for one video, see `Reader`.
    """

    manifest: Manifest
    spec: ClipSpec
    seed: int
    pct: float
    limit_s: float

    def check(self, row: int, place: Place, clip: np.ndarray) -> Recheck | None:
        """Read a clip again, if it is one of those.

        Args:
            row: The video that was read.
            place: Of the clip in the data order.
            clip: What came out, uint8 [T, S, S, 3].
        """
        if not self.pct or rng(RECHECK, self.seed, place.epoch, place.slot, place.repeat).random() >= self.pct / 100:
            return None
        other = replace(self.manifest, decoders=tuple(map(second_decoder, self.manifest.decoders)))
        cutter = Cutter(other, self.spec, self.seed)
        again, noise = (np.empty((1, *shape), dtype) for shape, dtype in cutter.outputs)
        reader = Reader(cutter, limit_s=self.limit_s, retries=0, unreadable={}, most_clips=1)  # ends with this call
        if reason := reader.read(row, [place], again, noise):
            return Recheck(row, f"the second decoder cannot read it: {reason}")
        levels = np.abs(again[0].astype(np.int16) - clip).mean(axis=(1, 2, 3)).max()
        if levels <= MOST_GREY_LEVELS:
            return Recheck(row, None)
        return Recheck(row, f"a frame differs by {levels:.1f} grey levels between {self.manifest.decoder(row)} and "
                            f"{other.decoder(row)}")
