"""Clips for every rank; what comes when is a pure function of (seed, epoch, step, rank, world size).

All clips of a run stand in one row. Step s takes the positions [s * G, (s + 1) * G), G = global batch; a rank takes a
contiguous part of them, micro-batch by micro-batch, so repeats of one video meet in one rank and share one open file:

    position   0 1 2 3 4 5 6 7 8 9 ...           repeat_aug = 4
    video      a a a a b b b b c c ...           the epoch's permutation of the manifest
    G = 8      |--- step 0 --| |--- step 1
    2 ranks    |rank 0|rank 1| |rank 0|...       the same clips in the same steps whatever the number of ranks

Time window, crop, flip and mask noise of a clip are drawn from a generator that is seeded by (seed, epoch, place in the
epoch, repeat): no worker, rank or restart changes them.
"""

from __future__ import annotations

import multiprocessing.context
import multiprocessing.popen_fork
import signal
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vidmae.clips import clip_indices, random_start, span_frames
from vidmae.decode import DecodeError, open_video
from vidmae.manifest import Manifest
from vidmae.nonfinite import window_of
from vidmae.transforms import crop_resize, sample_crop

PERMUTATION, WINDOW, CLIP = 0, 1, 2  # first word of a seed: streams of different purpose never meet
READ_BYTES = 2**28  # of decoded frames that a worker holds at a time; a repeat is read whole however large


@dataclass(frozen=True)
class ClipSpec:
    """What a clip is and how it is cut; the meaning of each value stands in config.DataConfig and ModelConfig."""

    num_frames: int
    sampling_rate: int
    target_fps: float
    img_size: int
    crop_area: tuple[float, float]
    crop_aspect: tuple[float, float]
    flip_prob: float
    repeat_aug: int
    repeat_window: str
    backend: str
    num_tokens: int


@dataclass(frozen=True)
class Batch:
    """One micro-batch of one rank.

    Attributes:
        clips: uint8 [m, T, S, S, 3].
        noise: float32 [m, L], uniform; its smallest values say which tokens are kept.
        rows: int64 [m], rows of the manifest.
        labels: int64 [m], class of each clip; -1 where the manifest has none.
    """

    clips: Tensor
    noise: Tensor
    rows: Tensor
    labels: Tensor

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, from which a GPU reads while it computes."""
        return Batch(self.clips.pin_memory(), self.noise.pin_memory(), self.rows, self.labels)


@dataclass(frozen=True)
class Place:
    """Where a clip stands in the data order.

    Attributes:
        epoch: Passes over the manifest before this one.
        slot: Place of the video in the epoch.
        row: The video's row in the manifest.
        repeat: Which of the video's repeat_aug clips.
    """

    epoch: int
    slot: int
    row: int
    repeat: int


def place_of(position: int, *, videos: int, repeat_aug: int, seed: int) -> Place:
    """The clip at a position of the row of all clips."""
    epoch, slot = divmod(position // repeat_aug, videos)
    return Place(epoch, slot, int(_permutation(videos, seed, epoch)[slot]), position % repeat_aug)


@lru_cache(maxsize=4)
def _permutation(videos: int, seed: int, epoch: int) -> np.ndarray:
    return _rng(PERMUTATION, seed, epoch).permutation(videos)


def _rng(*words: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


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

    def __len__(self) -> int:
        return (self.stop_step - self.start_step) * self.grad_accum

    def __getitem__(self, index: int) -> Batch:
        step, j = divmod(index, self.grad_accum)
        window = window_of(self.start_step + step, self.skipped)
        first = window * self.global_batch + (self.rank * self.grad_accum + j) * self.micro_batch
        places = [place_of(first + i, videos=len(self.manifest), repeat_aug=self.spec.repeat_aug, seed=self.seed)
                  for i in range(self.micro_batch)]
        clips = [clip for _, group in groupby(places, key=lambda p: (p.epoch, p.slot))
                 for clip in self._clips_of_video(list(group))]
        rows = [place.row for place in places]
        return Batch(torch.stack([pixels for pixels, _ in clips]), torch.from_numpy(np.stack([n for _, n in clips])),
                     torch.tensor(rows), torch.from_numpy(self.manifest.class_index[rows]))

    def _clips_of_video(self, places: list[Place]) -> list[tuple[Tensor, np.ndarray]]:
        """Pixels and mask noise of some repeats of one video, which is opened once."""
        spec, row = self.spec, places[0].row
        height, width = int(self.manifest.height[row]), int(self.manifest.width[row])
        span = span_frames(num_frames=spec.num_frames, sampling_rate=spec.sampling_rate, target_fps=spec.target_fps,
                           fps=float(self.manifest.fps[row]))
        rngs = [_rng(CLIP, self.seed, p.epoch, p.slot, p.repeat) for p in places]
        clips: dict[int, tuple[Tensor, np.ndarray]] = {}
        try:
            with open_video(self.manifest.path(row), spec.backend) as video:
                starts = [random_start(self._window_rng(place, rng), span, video.num_frames)
                          for place, rng in zip(places, rngs, strict=True)]
                by_time = np.argsort(starts, kind="stable").tolist()
                at_once = max(1, READ_BYTES // (spec.num_frames * height * width * 3))
                for some in (by_time[i:i + at_once] for i in range(0, len(by_time), at_once)):
                    indices = np.stack([clip_indices(starts[i], span, spec.num_frames, video.num_frames) for i in some])
                    needed, where = np.unique(indices, return_inverse=True)
                    frames = video.read(needed)  # a frame that several repeats share is decoded once
                    for i, which in zip(some, where.reshape(indices.shape), strict=True):
                        clips[i] = self._cut(frames, which, rngs[i])
        except DecodeError as error:
            raise DecodeError(
                f"row {row + 1} of the manifest cannot be read: {error}; check the recordings again with: "
                "python jobs/prepare.py manifest FOLDER --name NAME") from error
        return [clips[i] for i in range(len(places))]

    def _window_rng(self, place: Place, own: np.random.Generator) -> np.random.Generator:
        if self.spec.repeat_window == "shared":
            return _rng(WINDOW, self.seed, place.epoch, place.slot)
        return own

    def _cut(self, frames: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, np.ndarray]:
        spec = self.spec
        box = sample_crop(rng, frames.shape[1], frames.shape[2], spec.crop_area, spec.crop_aspect)
        flip = bool(rng.random() < spec.flip_prob)
        return (crop_resize(frames, which, box, spec.img_size, flip=flip),
                rng.random(spec.num_tokens, dtype=np.float32))


def make_loader(manifest: Manifest, spec: ClipSpec, *, seed: int, global_batch: int, micro_batch: int, grad_accum: int,
                rank: int, world_size: int, start_step: int, stop_step: int, workers: int, pin_memory: bool = False,
                prefetch: int = 2, skipped: tuple[int, ...] = ()) -> DataLoader[Any]:
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
        workers: Processes that read ahead; 0 reads in this process.
        pin_memory: Hand over page-locked memory, for a GPU.
        prefetch: Items that each worker reads ahead.
        skipped: Windows of data that are left out (nonfinite.py), ascending.
    Returns:
        An iterable of Batch, in order.
    Raises:
        DecodeError: While iterating: a video cannot be read; the message gives its manifest row, not its name.
    """
    assert global_batch == world_size * micro_batch * grad_accum and 0 <= rank < world_size
    items = _MicroBatches(manifest, spec, seed, global_batch, micro_batch, grad_accum, rank, start_step, stop_step,
                          skipped)
    return DataLoader(
        items, batch_size=None, shuffle=False,
        num_workers=workers, pin_memory=pin_memory, prefetch_factor=prefetch if workers else None,
        worker_init_fn=_start_worker, multiprocessing_context=_Fork() if workers else None)


class _Popen(multiprocessing.popen_fork.Popen):
    """Workers ignore SIGTERM and may hang in a decoder that holds the interpreter lock: only SIGKILL ends them."""

    def terminate(self) -> None:
        self.kill()


class _ForkProcess(multiprocessing.context.ForkProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> _Popen:
        return _Popen(process_obj)


class _Fork(multiprocessing.context.ForkContext):
    Process = _ForkProcess


def _start_worker(_: int) -> None:
    """One thread per worker; Slurm's signals reach every process of a step, and the parent needs its workers to save."""
    torch.set_num_threads(1)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
