"""Views of clips under conditions, read ahead by worker processes: each clip is decoded once for all of its conditions.

    pairs     clean  noise:1  noise:2 | noise:3  blur:1  blur:2     of one clip: condition x view; all views of a condition
    batches   |        first          |        second         |     are in one batch, if they fit
    workers   both batches of a clip come from the same worker, which keeps the decoded clip until it has made them

Where a clip has few pairs, a batch has all pairs of several clips. What is in a batch depends neither on the number of ranks
nor on that of workers, and a condition's random numbers follow from the content of its recording and the condition alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
from vidmae.evaluate.corruptions.conditions import Condition, apply
from vidmae.footage.manifest import Manifest
from vidmae.settings.config import DataConfig

FRAMES = "frames"  # views framesN: a view is one frame of a clip
IN_TIME = "video"  # group of the conditions that do not treat all frames alike


@dataclass(frozen=True)
class ConditionBatch:
    """Some views of some clips, each under a condition.

    Attributes:
        rows: int64 [n], rows of the manifest.
        condition: int64 [n], places in the list of conditions.
        clips: uint8 [n, T, S, S, 3].
        unreadable: Rows that are missing here because the video cannot be read, and why; n may be 0.
    """

    rows: np.ndarray
    condition: np.ndarray
    clips: Tensor
    unreadable: tuple[tuple[int, str], ...] = ()

    def pin_memory(self) -> ConditionBatch:
        """A copy in page-locked memory, from which a GPU reads while it computes."""
        return replace(self, clips=self.clips.pin_memory())


@dataclass(frozen=True)
class Portion:
    """One batch: some consecutive pairs of each of some clips.

    Attributes:
        clips: Places of the clips in the list of rows.
        first: First pair.
        stop: After the last pair.
    """

    clips: range
    first: int
    stop: int


def units_of(clips: int, conditions: int, views: int, batch: int) -> list[range]:
    """Places of the clips that share their batches: one clip, or, where clips have few pairs, as many as fill a batch."""
    together = max(1, batch // (conditions * views))
    return [range(first, min(first + together, clips)) for first in range(0, clips, together)]


def portions_of_rank(clips: int, conditions: int, views: int, batch: int, *, rank: int, world_size: int, workers: int,
                     done: frozenset[int] = frozenset()) -> list[Portion]:
    """The batches of a rank, in an order in which all batches of a clip fall to the same of its workers.

    Args:
        clips: Clips in all.
        conditions: Of each clip.
        views: Of each clip under each condition.
        batch: Pairs of a batch, at most.
        rank: This rank.
        world_size: Ranks.
        workers: Processes that take turns, item by item; 0 is one.
        done: Places of clips that were seen before: units of nothing else are left out.
    """
    step = views if views <= batch else 1
    steps = conditions * views // step
    chunks = math.ceil(steps / (batch // step))
    edges = [steps * i // chunks * step for i in range(chunks + 1)]
    units = [unit for unit in units_of(clips, conditions, views, batch) if not done.issuperset(unit)][rank::world_size]
    turns = max(1, workers)
    blocks = [units[first:first + turns] for first in range(0, len(units), turns)]
    return [Portion(unit, edges[i], edges[i + 1]) for block in blocks for i in range(chunks) for unit in block]


def under(condition: Condition, frames: np.ndarray, content: int) -> np.ndarray:
    """A clip under a condition, the same every time.

    Args:
        condition: What is done.
        frames: uint8 [T, S, S, 3]. Of equal frames, as a picture has, one is changed, unless the condition plays with time.
        content: Content hash of the recording: the seed of what the condition draws.
    Returns:
        uint8 [T, S, S, 3].
    """
    still = len(frames) > 1 and condition.group != IN_TIME and bool((frames[1:] == frames[:1]).all())
    changed = apply(frames[:1] if still else frames, condition, content)
    if still:
        changed = np.broadcast_to(changed, frames.shape)
    assert changed.shape == frames.shape and changed.dtype == np.uint8, f"{condition.text}: {changed.shape} {changed.dtype}"
    return changed


def views_under(condition: Condition, views: np.ndarray, content: int, *, one_clip: bool) -> np.ndarray:
    """All views of a clip under a condition: uint8 [V, T, S, S, 3].

    Args:
        condition: What is done.
        views: uint8 [V, T, S, S, 3].
        content: Content hash of the recording.
        one_clip: The views are frames of one clip (views framesN): what happens in time happens across them.
    """
    if one_clip:
        return under(condition, views.reshape(-1, *views.shape[2:]), content).reshape(views.shape)
    return np.stack([under(condition, view, content) for view in views])


class _Portions(Dataset[ConditionBatch]):
    """Item i is the i-th batch of this rank. A worker keeps the clips of the batch before."""

    def __init__(self, rows: np.ndarray, cutter: ViewCutter, conditions: Sequence[Condition], portions: Sequence[Portion],
                 reader: Reader) -> None:
        self._rows, self._cutter, self._conditions, self._portions, self._reader = rows, cutter, conditions, portions, reader
        self._kept: dict[int, np.ndarray | str] = {}

    def __len__(self) -> int:
        return len(self._portions)

    def __getitem__(self, index: int) -> ConditionBatch:
        portion, views = self._portions[index], self._cutter.spec.views_per_clip
        rows = self._rows[portion.clips.start:portion.clips.stop].tolist()
        self._kept = {row: self._kept[row] if row in self._kept else self._read(row) for row in rows}
        read = {row: kept for row, kept in self._kept.items() if not isinstance(kept, str)}
        size = portion.stop - portion.first
        clips, which = empty_batch((len(read) * size, *self._cutter.spec.shape), torch.uint8), np.empty((0, 2), np.int64)
        one_clip = self._cutter.spec.views.startswith(FRAMES)
        for row, kept in read.items():
            content = int(self._cutter.manifest.source[row])
            for condition, group in groupby(range(portion.first, portion.stop), key=lambda pair: pair // views):
                wanted = [pair % views for pair in group]
                views_in = kept if one_clip else kept[wanted]
                done = views_under(self._conditions[condition], views_in, content, one_clip=one_clip)
                some = done[wanted] if one_clip else done
                clips[len(which):len(which) + len(some)] = torch.from_numpy(np.ascontiguousarray(some))
                which = np.concatenate([which, np.full((len(some), 2), (row, condition))])
        return ConditionBatch(which[:, 0], which[:, 1], clips,
                              tuple((row, why) for row, why in self._kept.items() if isinstance(why, str)))

    def _read(self, row: int) -> np.ndarray | str:
        """All views of a clip, or why it cannot be read."""
        spec = self._cutter.spec
        clips = np.empty((spec.views_per_clip, *spec.shape), dtype=np.uint8)
        return self._reader.read(row, range(spec.views_per_clip), clips) or clips


def condition_loader(manifest: Manifest, rows: np.ndarray, spec: ViewSpec, conditions: Sequence[Condition], *, rank: int,
                     world_size: int, batch: int, data: DataConfig, done: frozenset[int] = frozenset(),
                     pin_memory: bool = False) -> Iterable[ConditionBatch]:
    """One rank's share of all views of some clips under some conditions.

    Args:
        manifest: The videos or images.
        rows: int64, the clips: each once.
        spec: What a view is.
        conditions: What is done to each view.
        rank: This rank.
        world_size: Ranks; they change who reads a batch, never what is in it.
        batch: Views of one batch, at most.
        data: Worker processes and limits of reading.
        done: Places in `rows` that were seen before, see `portions_of_rank`.
        pin_memory: Hand over page-locked memory, for a GPU.
    Returns:
        An iterable of ConditionBatch, which has a length. All views of a clip under a condition follow each other.
    """
    assert 0 <= rank < world_size and batch > 0 and len(np.unique(rows)) == len(rows)
    cutter = ViewCutter(manifest, spec)
    reader = Reader(cutter, limit_s=data.read_limit_s, retries=data.read_retries, unreadable={},
                    most_clips=spec.views_per_clip)
    portions = portions_of_rank(len(rows), len(conditions), spec.views_per_clip, batch, rank=rank, world_size=world_size,
                                workers=data.workers, done=done)
    return read_ahead(_Portions(rows, cutter, conditions, portions, reader), workers=data.workers, pin_memory=pin_memory)
