"""How old a child was at each recording of a manifest: from what the manifest says, else from the dates in the names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vidmae.footage.manifest import Manifest
from vidmae.footage.recordings import DAY_S, Part, ages_days, read_names

DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True)
class Ages:
    """Ages of all recordings of a manifest.

    Attributes:
        months: float64 [N]; NaN where neither manifest nor name says it.
        since: What they count from: `birth`, or `first recording` of the child where no row has an age.
    """

    months: np.ndarray
    since: str

    @property
    def unknown(self) -> int:
        """How many have none."""
        return int(np.isnan(self.months).sum())


def ages(manifest: Manifest) -> Ages:
    """The ages of a manifest: since birth where its column `age_months` has any, else since the child's first recording.

    Dates are those of its column `date`; without them those in names as SAYCam's, S_20130417_0626_01_segment12.mp4.
    """
    if not np.isnan(manifest.age_months).all():
        return Ages(manifest.age_months, "birth")
    if not np.isnat(manifest.date).all():
        return Ages(_since_first(manifest), "first recording")
    found = np.full(len(manifest), np.nan)
    parts: list[Part | None] = read_names([manifest.path(row) for row in range(len(manifest))])
    dated = [row for row, part in enumerate(parts) if part and part.when]
    found[dated] = np.array(ages_days([part for part in parts if part and part.when], {})) / DAYS_PER_MONTH
    return Ages(found, "first recording")


def _since_first(manifest: Manifest) -> np.ndarray:
    """Months since the first date of each child; of all where the manifest names no children."""
    seconds = np.where(np.isnat(manifest.date), np.nan, manifest.date.astype(np.float64))
    for one in np.unique(manifest.child):
        of_child = manifest.child == one
        if not np.isnan(seconds[of_child]).all():
            seconds[of_child] -= np.nanmin(seconds[of_child])
    return np.asarray(seconds / DAY_S / DAYS_PER_MONTH)
