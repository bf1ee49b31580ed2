"""Reads videos so that one which is unreadable, cut off or hanging costs its clips and not the job.

    DataLoader worker                          its reader process (forked, killed with SIGKILL)
    asks for some clips of a row      ---->    opens, decodes, crops: `Cuts.cut`
    waits read_limit_s at most        <----    clips in memory that both share; or why it cannot be read

A decoder that hangs, mostly while it holds the interpreter lock, or that crashes is lost with its process, and the next
read starts another. So is one whose memory grows. Recordings in archives of JPEG frames are read in the worker itself: a
worker that reads nothing else has no second process.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from vidmae.clips.cutting import Output
from vidmae.footage.killable import KillableProcess
from vidmae.footage.manifest import HOW_TO_MAKE, Manifest
from vidmae.footage.open_video import DecodeError, import_decoder, is_installed, may_hang

MAX_GROWTH_BYTES = 2**26  # of a reader's own memory since its first videos


class Cuts(Protocol):
    """What is done with a video: `cutting.Cutter` for training, `view_cutting.ViewCutter` for evaluation."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """Those that it uses."""

    @property
    def manifest(self) -> Manifest:
        """The videos."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Shape and type of what it fills for each clip."""

    @property
    def cut(self) -> Callable[..., None]:
        """`cut(row, clips, *out)` fills `out`, one array [n, *shape] for each of `outputs`, with n clips of a video.

        Raises:
            DecodeError: The video cannot be read.
        """


class Reader:
    """Reads clips for one process, and remembers which videos it could not read.

    Args:
        cutter: What is done with a video.
        limit_s: Seconds for one video, all its clips of one call; 0 sets no limit and reads in the calling process, as
            recordings in archives always are.
        retries: Further tries after one that failed.
        unreadable: Rows that need no try, and why.
        most_clips: Clips of one call, at most.
    Raises:
        ValueError: The manifest names a decoder that is not installed.
    """

    def __init__(self, cutter: Cuts, *, limit_s: float, retries: int, unreadable: Mapping[int, str],
                 most_clips: int) -> None:
        self._cutter, self._limit_s, self._retries, self._most_clips = cutter, limit_s, retries, most_clips
        self._unreadable = dict(unreadable)
        if gone := [decoder for decoder in cutter.decoders if not is_installed(decoder)]:
            raise ValueError(f"the manifest gives files to {' and '.join(gone)}, not installed here: pip install it, or "
                             f"make the manifest again, which then gives them to other decoders: {HOW_TO_MAKE}")
        self._process: KillableProcess[tuple[int, Sequence[Any]], str | None] | None = None

    def read(self, row: int, clips: Sequence[Any], *out: np.ndarray) -> str | None:
        """Fill `out` as the cutter's `cut` does.

        Returns:
            None, or the reason why the video cannot be read, without its name.
        """
        if row in self._unreadable:
            return self._unreadable[row]
        for _ in range(1 + self._retries):
            reason = self._try(row, clips, out)
            if reason is None:
                return None
        self._unreadable[row] = str(reason)
        return reason

    def _try(self, row: int, clips: Sequence[Any], out: Sequence[np.ndarray]) -> str | None:
        if not self._limit_s or not may_hang(self._cutter.manifest.decoder(row)):
            return _cut(self._cutter, out, (row, clips))
        if self._process is None:
            self._start()
        assert self._process is not None
        unreadable, lost = self._process((row, clips))
        reason = lost or unreadable
        if reason is None:
            for mine, shared in zip(out, self._shared, strict=True):
                mine[:] = shared[:len(clips)]
        return reason

    def _start(self) -> None:
        """In the process that reads, and not before it is forked: each has its own memory to share with its reader."""
        self._shared = [_shared((self._most_clips, *shape), dtype) for shape, dtype in self._cutter.outputs]
        self._process = KillableProcess(
            partial(_cut, self._cutter, self._shared), time_limit_s=self._limit_s, max_growth_bytes=MAX_GROWTH_BYTES,
            set_up=partial(_set_up, self._cutter.decoders))


def _set_up(decoders: Sequence[str]) -> None:
    torch.set_num_threads(1)
    for decoder in decoders:
        import_decoder(decoder)


def _shared(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """Memory that this process and those it forks from now on see alike; it has no name that could be left behind."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(1, size)), dtype=dtype, count=int(np.prod(shape))).reshape(shape)


def _cut(cutter: Cuts, out: Sequence[np.ndarray], what: tuple[int, Sequence[Any]]) -> str | None:
    row, clips = what
    try:
        cutter.cut(row, clips, *(array[:len(clips)] for array in out))
    except DecodeError as error:
        return str(error)
    except Exception as error:
        return type(error).__name__  # its text may hold the file's name
    return None
