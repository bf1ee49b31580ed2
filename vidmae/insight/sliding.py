"""Windows that slide over long recordings: which there are, and which row of the features each is. Numpy only.

    recording    |--------------------------------------------|
    windows      |=========|                                      window_s long, one every every_s
                     |=========|                                  the last one ends within the recording
                         |=========| ...

A recording that is shorter than a window has one, whose last frames are its last frame again and again.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROUNDING_S = 1e-6  # a recording of exactly so many windows has the last one, too


def windows_of(seconds: np.ndarray | Sequence[float], window_s: float, every_s: float) -> np.ndarray:
    """How many windows each recording has, one at least.

    Args:
        seconds: Floating [N], length of each recording.
        window_s: Of a window.
        every_s: From the start of one to that of the next.
    Returns:
        int64 [N].
    """
    spare = np.maximum(np.asarray(seconds, dtype=np.float64) - window_s, 0)
    return np.asarray(np.floor((spare + ROUNDING_S) / every_s).astype(np.int64) + 1)


def window_pairs(counts: np.ndarray) -> np.ndarray:
    """Row of the manifest and number of the window, int64 [P, 2], of all windows: recording after recording, in time.

    Args:
        counts: int64 [N], windows of each recording.
    """
    first = np.cumsum(counts) - counts
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.stack([rows, np.arange(len(rows)) - first[rows]], axis=1)
