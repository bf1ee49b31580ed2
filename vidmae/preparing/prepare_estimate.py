"""What preparing will cost, from a sample: the beginnings of some recordings are prepared and thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vidmae.footage.killable import map_killable
from vidmae.footage.manifest import Row
from vidmae.preparing.archive_parts import Part, PartMaker
from vidmae.preparing.archive_plan import as_recording
from vidmae.preparing.preparation import Preparation, PrepareError

RECORDINGS, SECONDS = 6, 20.0  # how many are sampled, and how much of each


@dataclass(frozen=True)
class Estimate:
    """What preparing will cost.

    Attributes:
        hours: Of footage in all.
        cpu_hours: To prepare all of it.
        bytes: That it will take.
        sampled_s: Seconds of footage that were tried.
        failed: Recordings of the sample that could not be read.
    """

    hours: float
    cpu_hours: float
    bytes: float
    sampled_s: float
    failed: int


def estimate(rows: Sequence[Row], how: Preparation, *, workers: int, time_limit_s: float) -> Estimate:
    """Prepare a sample.

    Raises:
        PrepareError: Not one recording of the sample can be read.
    """
    places = np.unique(np.linspace(0, len(rows) - 1, RECORDINGS).astype(int)).tolist()
    sample = [as_recording(rows[place]) for place in places]
    cpu_s = tried_s = size = 0.0
    failed = 0
    with TemporaryDirectory() as folder:
        maker = PartMaker(Path(folder), how, SECONDS)
        for outcome in map_killable(maker, sample, workers=workers, time_limit_s=time_limit_s):
            part, spent_s = outcome.value or (None, 0.0)
            if isinstance(part, Part):
                cpu_s, tried_s, size = cpu_s + spent_s, tried_s + part.frames / part.fps, size + part.bytes
            else:
                failed += 1
    if not tried_s:
        raise PrepareError(f"not one of {len(sample)} recordings that were tried can be read")
    seconds = sum(row.seconds for row in rows)
    return Estimate(seconds / 3600, cpu_s / tried_s * seconds / 3600, size / tried_s * seconds, tried_s, failed)
