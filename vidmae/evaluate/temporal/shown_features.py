"""Features of the clips that the tasks show, extracted once over all ranks and kept by content (evaluate/feature_cache.py).

    tasks      halves  arrow  speed  first         many examples show the same clip of the same frames
    clips      each different one is decoded once, those of a window together
    seen by    an encoder, an encoder with random weights, each clip whole or four of its frames held still; and pixels

What a feature is kept under follows from the content of the video and the frame numbers in their order. So tasks, and cells
with the same recordings, share features, and a cell that was stopped goes on where it was. Features depend neither on the
number of ranks nor on that of loader workers.

Letters: M different clips, J features that are kept of a clip, T frames, S pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vidmae.clips.cutting import Output
from vidmae.clips.filling import fill_clips
from vidmae.clips.reading import Reader
from vidmae.clips.transforms import Box
from vidmae.clips.view_loader import refuse_unreadable
from vidmae.clips.views import ViewSpec, view_box
from vidmae.clips.workers import empty_batch, read_ahead
from vidmae.evaluate.extract import CLIPS_PER_SHARD, Tick, frozen_features
from vidmae.evaluate.feature_cache import FeatureSpec, FeatureStore
from vidmae.evaluate.temporal.time_tasks import TimeTask, still_places
from vidmae.footage.manifest import Manifest
from vidmae.footage.open_video import open_video
from vidmae.model.conv_net import Classifier
from vidmae.ranks.dist import Ranks
from vidmae.ranks.waiting import asked_to_stop
from vidmae.settings.programs.temporal_config import TemporalConfig

MOST_CLIPS = 16  # that are read at once
CHANNELS = 3
PIXELS = "pixels"


@dataclass(frozen=True)
class ShownClips:
    """The different clips that some tasks show, those of a video one after the other.

    Attributes:
        row: int64 [M], of the manifest.
        frames: int64 [M, T], frame numbers in the order in which they are shown.
        keys: uint64 [M], what a feature of the clip is kept under.
        of_task: int64 [E, K] of each task, by its name: places of its clips.
        content: uint64 [M], of the video.
    """

    row: np.ndarray
    frames: np.ndarray
    keys: np.ndarray
    of_task: Mapping[str, np.ndarray]
    content: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def still_keys(self, repeats: int) -> np.ndarray:
        """What features of single frames are kept under, each frame shown so many times: uint64 [M, still_places]."""
        places = still_places(self.frames.shape[1])
        return np.array([[key_of(content, [frame] * repeats) for frame in frames]
                         for content, frames in zip(self.content.tolist(), self.frames[:, places].tolist(), strict=True)],
                        dtype=np.uint64).reshape(len(self), len(places))


def key_of(content: int, frames: Sequence[int]) -> int:
    """64 bits for some frames of a video in their order."""
    data = content.to_bytes(8, "little") + np.array(frames, dtype="<i8").tobytes()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def shown_clips(tasks: Sequence[TimeTask], manifest: Manifest) -> ShownClips:
    """The different clips of some tasks."""
    rows = np.concatenate([task.row.reshape(-1) for task in tasks])
    frames = np.concatenate([task.shown.reshape(len(task.row) * task.row.shape[1], -1) for task in tasks])
    content = manifest.footage[rows]
    keys = np.array([key_of(*each) for each in zip(content.tolist(), frames.tolist(), strict=True)], dtype=np.uint64)
    _, first = np.unique(keys, return_index=True)
    first = first[np.lexsort((frames[first].min(axis=1), rows[first]))]  # of one video in the order of time
    by_key = np.argsort(keys[first])
    place = by_key[np.searchsorted(keys[first][by_key], keys)]
    ends = np.cumsum([task.row.size for task in tasks])
    of_task = {task.name: part.reshape(task.row.shape) for task, part in
               zip(tasks, np.split(place, ends[:-1]), strict=True)}
    return ShownClips(rows[first], frames[first], keys[first], of_task, content[first])


@dataclass(frozen=True)
class Seen:
    """One way to look at clips, and where its features are kept.

    Attributes:
        store: Of the features.
        keys: uint64 [M, J].
        inputs: From a clip [T, S, S, 3] to what the encoder gets for each of the J features; None: features are pixels'.
        model: Gives the encoder; called where something is missing.
    """

    store: FeatureStore
    keys: np.ndarray
    inputs: Callable[[Tensor], list[Tensor]] | None = None
    model: Callable[[], Classifier] | None = None


def seen_whole(store: FeatureStore, clips: ShownClips, model: Callable[[], Classifier]) -> Seen:
    """Whole clips, by an encoder of as many frames."""
    return Seen(store, clips.keys[:, None], lambda clip: [clip], model)


def seen_still(store: FeatureStore, clips: ShownClips, model: Callable[[], Classifier], frames: int) -> Seen:
    """Single frames of each clip (`still_places`), each of them shown `frames` times."""
    places = still_places(clips.frames.shape[1])

    def inputs(clip: Tensor) -> list[Tensor]:
        return [clip[place].expand(frames, *clip.shape[1:]) for place in places]

    return Seen(store, clips.still_keys(frames), inputs, model)


def seen_pixels(store: FeatureStore, clips: ShownClips) -> Seen:
    """What pixels alone say of whole clips (`measures`)."""
    return Seen(store, clips.keys[:, None])


def pixel_spec(spec: FeatureSpec, num_frames: int) -> FeatureSpec:
    """What the features of pixels are: those of clips of so many frames, as an encoder gets them; whatever it is."""
    return replace(spec, weights=PIXELS, model=PIXELS, pool="", num_frames=num_frames, t_patch_size=1, precision="fp32",
                   inflated="no", positions="learned", net="vit", temporal_positions=True,
                   embed_dim=CHANNELS + num_frames - 1)


def measures(clip: np.ndarray) -> np.ndarray:
    """Mean of each channel over all frames, and how much changes from each frame to the next.

    The mean comes from a sum of whole numbers, so it is the same to the last bit in whatever order the frames come.

    Args:
        clip: uint8 [T, S, S, 3].
    Returns:
        float32 [3 + T - 1]: means 0 to 255, and log(1 + mean absolute difference).
    """
    mean = clip.reshape(-1, CHANNELS).sum(axis=0, dtype=np.int64) / (clip.size // CHANNELS)
    change = [np.abs(after.astype(np.int16) - before).mean() for before, after in pairwise(clip)]
    return np.concatenate([mean, np.log1p(change)]).astype(np.float32)


@dataclass(frozen=True)
class ShownCutter:
    """Cuts clips of given frames out of the videos of a manifest, each the centred square."""

    manifest: Manifest
    spec: ViewSpec

    @property
    def decoders(self) -> tuple[str, ...]:
        """Those that read the videos."""
        return self.manifest.decoders

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What `cut` fills for each clip."""
        return ((self.spec.shape, np.uint8),)

    def cut(self, row: int, frames: Sequence[Sequence[int]], clips: np.ndarray) -> None:
        """Cut some clips out of one video, which is opened once.

        Args:
            row: The video.
            frames: Of each of n clips its frame numbers, in the order in which it shows them.
            clips: Filled: uint8 [n, T, S, S, 3].
        Raises:
            DecodeError: The video cannot be read.
        """
        content = int(self.manifest.source[row])
        with open_video(self.manifest.path(row), self.manifest.decoder(row)) as video:

            def look(_: int, height: int, width: int) -> tuple[Box, bool]:
                return view_box(self.spec, 0, content=content, height=height, width=width)

            fill_clips(video, np.array(frames, dtype=np.int64), clips, look, frame_bytes=self.manifest.frame_bytes(row))


@dataclass(frozen=True)
class ShownBatch:
    """Some clips of one video.

    Attributes:
        places: int64 [n], of ShownClips; empty where the video cannot be read.
        clips: uint8 [n, T, S, S, 3].
        measured: float32 [n, 3 + T - 1], see `measures`.
        unreadable: The row that cannot be read and why, or nothing.
    """

    places: np.ndarray
    clips: Tensor
    measured: np.ndarray
    unreadable: Mapping[int, str]

    def pin_memory(self) -> ShownBatch:
        """A copy in page-locked memory, from which a GPU reads while it computes."""
        return replace(self, clips=self.clips.pin_memory())


@dataclass(frozen=True)
class _Chunks(Dataset[ShownBatch]):
    """Item i is the i-th chunk: clips of one video that lie near each other."""

    clips: ShownClips
    spec: ViewSpec
    chunks: list[np.ndarray]
    reader: Reader

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> ShownBatch:
        places = self.chunks[index]
        row, out = int(self.clips.row[places[0]]), empty_batch((len(places), *self.spec.shape), torch.uint8)
        why = self.reader.read(row, self.clips.frames[places].tolist(), out.numpy())
        if why is not None:
            nothing = np.empty((0, CHANNELS + self.spec.num_frames - 1), np.float32)
            return ShownBatch(places[:0], out[:0], nothing, {row: why})
        return ShownBatch(places, out, np.stack([measures(clip) for clip in out.numpy()]), {})


def extract_shown(clips: ShownClips, ways: Sequence[Seen], manifest: Manifest, config: TemporalConfig, ranks: Ranks,
                  tick: Tick) -> bool:
    """See that all features are in their stores. Collective.

    Args:
        clips: What is shown.
        ways: How it is looked at.
        manifest: The videos.
        config: Of the cell.
        ranks: All ranks.
        tick: Called after every chunk.
    Returns:
        True once all are there; False where a signal asked to stop, with everything saved that was extracted.
    Raises:
        ValueError: Videos cannot be read, after the others are saved; or features are not finite.
    """
    encodings = [_Encoding(way, config, ranks.device) for way in ways]
    todo = ranks.from_main(np.flatnonzero(np.any([each.wanted for each in encodings], axis=0)))
    chunks = list(chunks_of(clips.row[todo], todo))
    spec = ViewSpec(config.clip_frames, config.data.sampling_rate, config.data.target_fps, config.model.img_size)
    reader = Reader(ShownCutter(manifest, spec), limit_s=config.data.read_limit_s, retries=config.data.read_retries,
                    unreadable={}, most_clips=MOST_CLIPS)
    mine = read_ahead(_Chunks(clips, spec, chunks[ranks.rank::ranks.world_size], reader), workers=config.data.workers,
                      pin_memory=ranks.device.type == "cuda")
    batches: Iterator[ShownBatch] = iter(mine) if chunks else iter(())
    unreadable: dict[int, str] = {}
    stop = False
    for first in range(0, len(chunks), ranks.world_size):
        if (batch := next(batches, None)) is not None:
            unreadable |= batch.unreadable
            for encoding in encodings:
                encoding.take(batch)
        tick("features", min(first + ranks.world_size, len(chunks)), len(chunks))
        if stop := asked_to_stop(ranks):
            break
    for encoding in encodings:
        encoding.finish()
    ranks.barrier()
    if stop:
        return False
    refuse_unreadable({row: why for of_rank in ranks.gather(unreadable) for row, why in of_rank.items()},
                      len(np.unique(clips.row)))
    return True


def chunks_of(rows: np.ndarray, places: np.ndarray) -> Iterator[np.ndarray]:
    """Places of clips that are read together: of one video, no more than MOST_CLIPS."""
    edges = np.flatnonzero(np.diff(rows, prepend=-1, append=-1))
    for begin, end in pairwise(edges.tolist()) if len(rows) else ():
        yield from (places[first:min(first + MOST_CLIPS, end)] for first in range(begin, end, MOST_CLIPS))


class _Encoding:
    """What is still to be computed of one way to look at clips. A feature that two clips share is computed once."""

    def __init__(self, way: Seen, config: TemporalConfig, device: torch.device) -> None:
        self._way, self._batch, self._precision, self._device = way, config.evaluate.batch, config.train.precision, device
        flat = way.keys.reshape(-1)
        self._missing = set(flat[way.store.missing(flat)].tolist())
        self.wanted = np.isin(way.keys, np.array(sorted(self._missing), dtype=np.uint64)).any(axis=1)
        self._waiting: list[tuple[int, Tensor]] = []
        self._done: list[tuple[np.ndarray, np.ndarray]] = []

    @cached_property
    def _model(self) -> Classifier:
        assert self._way.model is not None
        return self._way.model().eval()

    def take(self, batch: ShownBatch) -> None:
        for place, clip, measured in zip(batch.places.tolist(), batch.clips, batch.measured, strict=True):
            keys = self._way.keys[place].tolist()
            if not self._missing.isdisjoint(keys):
                self._take(keys, clip, measured)

    def _take(self, keys: list[int], clip: Tensor, measured: np.ndarray) -> None:
        if self._way.inputs is None:
            self._missing.difference_update(keys)
            self._keep(keys, measured[None])
            return
        for key, shown in zip(keys, self._way.inputs(clip), strict=True):
            if key in self._missing:
                self._missing.discard(key)
                self._waiting.append((key, shown))
            if len(self._waiting) == self._batch:
                self._encode()

    def _encode(self) -> None:
        keys, shown = zip(*self._waiting, strict=True)
        filled = torch.stack(shown)[torch.arange(self._batch) % len(shown)].to(self._device, non_blocking=True)
        self._keep(keys, frozen_features(self._model, filled, None, self._precision)[:len(keys)])
        self._waiting = []

    def _keep(self, keys: Sequence[int], features: np.ndarray) -> None:
        self._done.append((np.array(keys, dtype=np.uint64), features))
        if sum(len(some) for some, _ in self._done) >= CLIPS_PER_SHARD:
            self._save()

    def _save(self) -> None:
        if self._done:
            keys, features = zip(*self._done, strict=True)
            self._way.store.add(np.concatenate(keys), np.concatenate(features))
            self._done = []

    def finish(self) -> None:
        """Compute and save what waits."""
        if self._waiting:
            self._encode()
        self._save()
