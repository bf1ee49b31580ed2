"""Micro-batches for every rank, read ahead by worker processes.

Which clips come when stands in `order.py` and in mixtures/, how they are cut in `cutting.py`, how a broken video is
kept from doing harm in `reading.py`. A video that cannot be read is replaced by others of the manifest: the first that can
be read of a sequence that is drawn for its place in the data order. The clip's own draws (time window, crop, flip, mask
noise) stay those of the place. So what a run sees depends on the seed and on which files cannot be read, and on nothing
else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidmae.clips.cutting import ClipSpec, Cutter
from vidmae.clips.order import Order, Place, ShuffledVideos
from vidmae.clips.reading import Reader
from vidmae.clips.recheck import Recheck, Rechecker
from vidmae.clips.workers import empty_batch, read_ahead
from vidmae.footage.manifest import HOW_TO_MAKE, Manifest
from vidmae.footage.open_video import DecodeError, bytes_read
from vidmae.runs.nonfinite import window_of
from vidmae.runs.quarantine import Substitution

SUBSTITUTES = 10  # tried for one video; where more than a few fail, the disk is gone and not the video


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Attributes:
        clips: uint8 [m, T, S, S, 3].
        noise: float32 [m, L], uniform; its smallest values say which tokens are kept.
        rows: int64 [m], rows of the manifest that are shown.
        labels: int64 [m], class of each clip; -1 where the manifest has none.
        substituted: Videos that were replaced.
        rechecked: Clips that were read a second time.
        archive_bytes: Read for them of archives: from copies on a disk of the node, and from where the archives are.
    """

    clips: Tensor
    noise: Tensor
    rows: Tensor
    labels: Tensor
    substituted: tuple[Substitution, ...] = ()
    rechecked: tuple[Recheck, ...] = ()
    archive_bytes: tuple[int, int] = (0, 0)

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which a GPU reads while it computes."""
        return replace(self, clips=self.clips.pin_memory(), noise=self.noise.pin_memory(), labels=self.labels.pin_memory())


@dataclass(frozen=True)
class _MicroBatches(Dataset[Batch]):
    """Item i is the i-th micro-batch of this rank."""

    manifest: Manifest
    spec: ClipSpec
    seed: int
    global_batch: int
    micro_batch: int
    grad_accum: int
    rank: int
    start_step: int
    stop_step: int
    skipped: tuple[int, ...]
    order: Order
    reader: Reader
    rechecker: Rechecker

    def __len__(self) -> int:
        return (self.stop_step - self.start_step) * self.grad_accum

    def __getitem__(self, index: int) -> Batch:
        step, j = divmod(index, self.grad_accum)
        window = window_of(self.start_step + step, self.skipped)
        first = window * self.global_batch + (self.rank * self.grad_accum + j) * self.micro_batch
        places = [self.order.place(first + i) for i in range(self.micro_batch)]
        clips = empty_batch((self.micro_batch, *self.spec.shape), torch.uint8)
        noise = empty_batch((self.micro_batch, self.spec.num_tokens), torch.float32)
        rows: list[int] = []
        before = bytes_read()
        substituted, rechecked = [], []
        for _, group in groupby(places, key=lambda p: (p.epoch, p.slot, p.row, p.turn)):
            repeats = list(group)
            part = slice(len(rows), len(rows) + len(repeats))
            row, reason = self._read(repeats, clips[part].numpy(), noise[part].numpy())
            rows += [row] * len(repeats)
            rechecked += [self.rechecker.check(row, *pair) for pair in zip(repeats, clips[part].numpy(), strict=True)]
            if reason is not None:
                asked = repeats[0]
                substituted.append(Substitution(asked.epoch, asked.slot, asked.row, row, len(repeats), reason))
        return Batch(clips, noise, torch.tensor(rows), torch.from_numpy(self.manifest.class_index[rows]),
                     tuple(substituted), tuple(filter(None, rechecked)),
                     (bytes_read()[0] - before[0], bytes_read()[1] - before[1]))

    def _read(self, places: list[Place], clips: np.ndarray, noise: np.ndarray) -> tuple[int, str | None]:
        """The row that was read, and why it is not the one that was asked for."""
        asked = places[0].row
        why = self.reader.read(asked, places, clips, noise)
        if why is None:
            return asked, None
        for number in range(SUBSTITUTES):
            row = self.order.substitute(places[0], number)
            reason = self.reader.read(row, places, clips, noise)
            if reason is None:
                return row, why
        raise DecodeError(
            f"row {asked + 1} of the manifest cannot be read: {why}; nor can {SUBSTITUTES} substitutes, the last of them "
            f"row {row + 1}: {reason}; see that the recordings are where the manifest says, or make it again: {HOW_TO_MAKE}")


def make_loader(manifest: Manifest, spec: ClipSpec, *, seed: int, global_batch: int, micro_batch: int, grad_accum: int,
                rank: int, world_size: int, start_step: int, stop_step: int, workers: int, read_limit_s: float,
                read_retries: int, unreadable: Mapping[int, str] = MappingProxyType({}), pin_memory: bool = False,
                prefetch: int = 2, recheck_pct: float = 0.0, skipped: tuple[int, ...] = (),
                order: Order | None = None) -> DataLoader[Any]:
    """One rank's micro-batches of the steps `start_step` to `stop_step` (excluded), grad_accum of them a step.

    Args:
        manifest: The videos.
        spec: What a clip is.
        seed: Of the run.
        global_batch: Clips per step over all ranks: world_size * micro_batch * grad_accum.
        micro_batch: Clips of one item.
        grad_accum: Items per step.
        rank: This rank.
        world_size: Ranks.
        start_step: Steps done before.
        stop_step: Steps of the run.
        workers: Processes that read ahead; with 0 this process waits for each item.
        read_limit_s: Seconds for one video, see `Reader`.
        read_retries: Further tries to read a video before it is replaced.
        unreadable: Rows known to be unreadable, and why: replaced by what would have replaced them, but without a try.
        pin_memory: Hand over page-locked memory, for a GPU.
        prefetch: Items that each worker reads ahead.
        recheck_pct: Share of the clips that are read a second time, percent.
        skipped: Windows of data that are left out (nonfinite.py), ascending.
        order: Which clip comes when; None takes each video of the manifest once in an epoch, shuffled.
    Returns:
        An iterable of Batch, in order. The processes behind it end with the thread that iterates over it.
    Raises:
        DecodeError: While iterating: neither a video nor its substitutes can be read; the message gives their rows of the
            manifest, not their names.
    """
    assert global_batch == world_size * micro_batch * grad_accum and 0 <= rank < world_size
    reader = Reader(Cutter(manifest, spec, seed), limit_s=read_limit_s, retries=read_retries, unreadable=unreadable,
                    most_clips=min(micro_batch, spec.repeat_aug))
    items = _MicroBatches(manifest, spec, seed, global_batch, micro_batch, grad_accum, rank, start_step, stop_step, skipped,
                          order or ShuffledVideos(len(manifest), spec.repeat_aug, seed), reader,
                          Rechecker(manifest, spec, seed, recheck_pct, read_limit_s))
    return read_ahead(items, workers=workers, prefetch=prefetch, pin_memory=pin_memory)
