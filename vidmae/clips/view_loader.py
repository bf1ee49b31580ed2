"""Views for every rank, read ahead by worker processes: each view of each clip once, in batches that no rank changes.

    clips     0 1 2 3 4 5 6 7 8 ...       batch 2, 3 views a clip: two clips are the least that fill whole batches
    batches   ab|cA|BC  ab|cA|BC          (a b c the views of a clip, A B C those of the next)
    ranks     |rank 0|  |rank 1|  ...     all views of a clip meet on one rank, in the same batches for any number of ranks

A video that cannot be read is not replaced: accuracy on other clips is another number. Its views are missing in the batch,
which says so; `refuse_unreadable` makes an error of them when everything else has been seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidmae.clips.reading import Reader
from vidmae.clips.view_cutting import ViewCutter
from vidmae.clips.views import ViewSpec
from vidmae.clips.workers import empty_batch, read_ahead
from vidmae.footage.manifest import HOW_TO_MAKE, Manifest
from vidmae.labels.splits import some_rows


@dataclass(frozen=True)
class ViewBatch:
    """Some views of some clips.

    Attributes:
        rows: int64 [n], rows of the manifest.
        view: int64 [n], which of the row's views.
        clips: uint8 [n, T, S, S, 3].
        unreadable: Rows whose views are missing here because the video cannot be read, and why; n may be 0.
    """

    rows: np.ndarray
    view: np.ndarray
    clips: Tensor
    unreadable: tuple[tuple[int, str], ...] = ()

    def pin_memory(self) -> ViewBatch:
        """A copy in page-locked memory, from which a GPU reads while it computes."""
        return replace(self, clips=self.clips.pin_memory())


def batches_of_rank(clips: int, views: int, batch: int, rank: int, world_size: int) -> list[range]:
    """The batches of a rank, as ranges of pairs: pair p is view p % views of clip p // views.

    Args:
        clips: Clips in all.
        views: Of each clip.
        batch: Pairs of one batch; the last one of all, and of nobody else, may have fewer.
        rank: This rank.
        world_size: Ranks.
    """
    group = views * batch // math.gcd(views, batch)  # pairs of the least number of clips that fill whole batches
    pairs = clips * views
    return [range(first, min(first + batch, pairs)) for begin in range(rank * group, pairs, world_size * group)
            for first in range(begin, min(begin + group, pairs), batch)]


@dataclass(frozen=True)
class _Batches(Dataset[ViewBatch]):
    """Item i is the i-th batch of this rank: some rows of `pairs`, which has the row and the view of each."""

    pairs: np.ndarray
    spec: ViewSpec
    batches: list[range]
    reader: Reader

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> ViewBatch:
        batch = self.batches[index]
        pairs = [(row, view) for row, view in self.pairs[batch.start:batch.stop].tolist()]
        clips = empty_batch((len(pairs), *self.spec.shape), torch.uint8)
        read: list[tuple[int, int]] = []
        unreadable = []
        for row, group in groupby(pairs, key=lambda pair: pair[0]):
            some = list(group)
            reason = self.reader.read(row, [view for _, view in some], clips[len(read):len(read) + len(some)].numpy())
            if reason is None:
                read += some
            else:
                unreadable.append((row, reason))
        rows, view = np.array(read, dtype=np.int64).reshape(-1, 2).T
        return ViewBatch(rows, view, clips[:len(read)], tuple(unreadable))


def view_loader(manifest: Manifest, rows: np.ndarray, spec: ViewSpec, *, rank: int, world_size: int, batch: int,
                workers: int, read_limit_s: float, read_retries: int, pin_memory: bool = False) -> Iterable[ViewBatch]:
    """One rank's share of all views of some clips.

    Args:
        manifest: The videos.
        rows: int64, the clips: each once.
        spec: What a view is.
        rank: This rank.
        world_size: Ranks; they change who reads a batch, never what is in it.
        batch: Views of one batch.
        workers: Processes that read ahead; with 0 this process waits for each batch.
        read_limit_s: Seconds for one video, see `Reader`.
        read_retries: Further tries to read a video.
        pin_memory: Hand over page-locked memory, for a GPU.
    Returns:
        An iterable of ViewBatch, which has a length. The processes behind it end with the thread that iterates over it.
    """
    assert 0 <= rank < world_size and batch > 0 and len(np.unique(rows)) == len(rows)
    views = spec.views_per_clip
    pairs = np.stack([np.repeat(rows, views), np.tile(np.arange(views), len(rows))], axis=1)
    batches = batches_of_rank(len(rows), views, batch, rank, world_size)
    return pair_loader(manifest, pairs, batches, spec, workers=workers, read_limit_s=read_limit_s, read_retries=read_retries,
                       pin_memory=pin_memory, most_clips=min(batch, views))


def pair_loader(manifest: Manifest, pairs: np.ndarray, batches: list[range], spec: ViewSpec, *, workers: int,
                read_limit_s: float, read_retries: int, most_clips: int, pin_memory: bool = False) -> Iterable[ViewBatch]:
    """Views in batches that the caller chooses; see `view_loader`.

    Args:
        manifest: The videos.
        pairs: int64 [P, 2], row and view of each; those of a row lie together.
        batches: Places in `pairs`, a range for each batch.
        spec: What a view is.
        workers: Processes that read ahead.
        read_limit_s: Seconds for the views of one video in a batch.
        read_retries: Further tries to read a video.
        most_clips: Views of one video in a batch, at most.
        pin_memory: Hand over page-locked memory, for a GPU.
    """
    reader = Reader(ViewCutter(manifest, spec), limit_s=read_limit_s, retries=read_retries, unreadable={},
                    most_clips=most_clips)
    return read_ahead(_Batches(pairs, spec, batches, reader), workers=workers, pin_memory=pin_memory)


def refuse_unreadable(unreadable: Mapping[int, str], clips: int, *, gave_up: bool = False) -> None:
    """Make an error of clips that could not be read.

    Args:
        unreadable: Row of the manifest -> why.
        clips: How many should have been read.
        gave_up: There may be more, which were not tried.
    Raises:
        ValueError: There are some; the message has their number, their rows (from 1) and the first reason, no names.
    """
    if not unreadable:
        return
    rows = sorted(unreadable)
    shown = some_rows([row + 1 for row in rows])
    number = f"at least {len(rows)}" if gave_up else f"{len(rows)}"
    raise ValueError(f"{number} of {clips} clips cannot be read (rows {shown} of the manifest; the first: "
                     f"{unreadable[rows[0]]}), and without them the result would be another one; see that the recordings "
                     f"are where the manifest says (data.read_limit_s is the time for one), or make it again: {HOW_TO_MAKE}")
