"""Reads videos so that one which is unreadable, cut off or hanging costs its clips and not the job.

    DataLoader worker                          its reader process (forked, killed with SIGKILL)
    asks for some repeats of a row    ---->    opens, decodes, crops: `Cutter.cut`
    waits read_limit_s at most        <----    clips in memory that both share; or why it cannot be read

A decoder that hangs, mostly while it holds the interpreter lock, or that crashes is lost with its process, and the next
read starts another. So is one whose memory grows.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch

from vidmae.cutting import Cutter
from vidmae.decode import DecodeError, import_backend
from vidmae.killable import KillableProcess
from vidmae.order import Place

MAX_GROWTH_BYTES = 2**26  # of a reader's own memory since its first videos


class Reader:
    """Reads clips for one process, and remembers which videos it could not read.

    Args:
        cutter: What is done with a video.
        limit_s: Seconds for one video, all its repeats; 0 sets no limit and reads in the calling process.
        retries: Further tries after one that failed.
        unreadable: Rows that need no try, and why.
        most_clips: Clips of one call, at most.
    """

    def __init__(self, cutter: Cutter, *, limit_s: float, retries: int, unreadable: Mapping[int, str],
                 most_clips: int) -> None:
        self._cutter, self._limit_s, self._retries, self._most_clips = cutter, limit_s, retries, most_clips
        self._unreadable = dict(unreadable)
        self._process: KillableProcess[tuple[int, Sequence[Place]], str | None] | None = None

    def read(self, row: int, places: Sequence[Place], clips: np.ndarray, noise: np.ndarray) -> str | None:
        """Fill `clips` and `noise` as `Cutter.cut` does.

        Returns:
            None, or the reason why the video cannot be read, without its name.
        """
        if row in self._unreadable:
            return self._unreadable[row]
        for _ in range(1 + self._retries):
            reason = self._try(row, places, clips, noise)
            if reason is None:
                return None
        self._unreadable[row] = str(reason)
        return reason

    def _try(self, row: int, places: Sequence[Place], clips: np.ndarray, noise: np.ndarray) -> str | None:
        if not self._limit_s:
            return _cut(self._cutter, clips, noise, (row, places))
        if self._process is None:
            self._start()
        assert self._process is not None
        unreadable, lost = self._process((row, places))
        reason = lost or unreadable
        if reason is None:
            clips[:], noise[:] = self._shared_clips[:len(places)], self._shared_noise[:len(places)]
        return reason

    def _start(self) -> None:
        """In the process that reads, and not before it is forked: each has its own memory to share with its reader."""
        spec = self._cutter.spec
        self._shared_clips = _shared((self._most_clips, *spec.shape), np.uint8)
        self._shared_noise = _shared((self._most_clips, spec.num_tokens), np.float32)
        self._process = KillableProcess(
            partial(_cut, self._cutter, self._shared_clips, self._shared_noise), time_limit_s=self._limit_s,
            max_growth_bytes=MAX_GROWTH_BYTES, set_up=partial(_set_up, spec.backend))


def _set_up(backend: str) -> None:
    torch.set_num_threads(1)
    import_backend(backend)


def _shared(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Memory that this process and those it forks from now on see alike; it has no name that could be left behind."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype=dtype, count=int(np.prod(shape))).reshape(shape)


def _cut(cutter: Cutter, clips: np.ndarray, noise: np.ndarray, what: tuple[int, Sequence[Place]]) -> str | None:
    row, places = what
    try:
        cutter.cut(row, places, clips[:len(places)], noise[:len(places)])
    except DecodeError as error:
        return str(error)
    except Exception as error:
        return type(error).__name__  # its text may hold the file's name
    return None
