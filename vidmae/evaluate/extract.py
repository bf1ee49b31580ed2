"""Extract frozen features over all ranks into the cache (feature_cache.py): what is missing, once, whoever asks first.

    job 1   claims the lock   extracts ... a shard every 500 clips ...   gives the lock back
    job 2   waits ...................................................... finds everything there
    job 3   waits, and where job 1 dies takes the lock over and extracts what is still missing

Chunks of clips are fixed and dealt out to the ranks, and a chunk that is not full is filled up, so a feature depends neither
on the number of ranks nor on what else was missing. Features are those of the centre view, or of several views of a clip
(FeatureSpec.view), which are stored together.

Letters: B clips, K layers, L tokens, D width, T H W token grid.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vidmae.clips.view_loader import ViewBatch, batches_of_rank, refuse_unreadable, view_loader
from vidmae.evaluate.feature_cache import FeatureStore
from vidmae.evaluate.predict import GIVE_UP, view_spec
from vidmae.footage.manifest import Manifest
from vidmae.model.classifier import VideoClassifier
from vidmae.model.conv_net import Classifier
from vidmae.model.patches import as_frames
from vidmae.ranks import preempt
from vidmae.ranks.dist import Ranks
from vidmae.ranks.waiting import asked_to_stop
from vidmae.runs.record import RunLockedError, held
from vidmae.settings.finetune_config import FinetuneConfig

CLIPS_PER_SHARD = 500
BYTES_PER_SHARD = 2**29  # that wait in memory, at most: tokens of several views are large
POLL_S = 3.0

Tick = Callable[[str, int, int], object]
"""Takes a sign of life: what is done, clips done, clips in all."""


def extract(model: Callable[[], Classifier], manifest: Manifest, rows: np.ndarray, store: FeatureStore,
            config: FinetuneConfig, ranks: Ranks, tick: Tick) -> bool:
    """See that the features of some clips are in the store. Collective.

    Args:
        model: Gives the encoder, on the rank's device; called where something is missing.
        manifest: The videos.
        rows: int64 [N], those to extract.
        store: Where to put the features.
        config: Of the cell.
        ranks: All ranks.
        tick: Called after every chunk and while another job extracts.
    Returns:
        True once all are there; False where a signal asked to stop, with everything saved that was extracted.
    Raises:
        ValueError: Videos cannot be read, by number and row, after the others are saved; or features are not finite.
    """
    contents = manifest.footage[rows]
    waits = False
    with ExitStack() as lock:
        while isinstance(todo := ranks.from_main(_claim(store, contents, lock) if ranks.is_main else None), str):
            if ranks.is_main and not waits:
                print(f"{todo}; waiting for it", flush=True)
            waits = True
            tick("waiting for features", 0, len(rows))
            if asked_to_stop(ranks):
                return False
            time.sleep(POLL_S)
        if not len(todo):
            return True
        return _Extraction(model().eval(), manifest, store, config, ranks, tick).run(rows[todo])


def _claim(store: FeatureStore, contents: np.ndarray, lock: ExitStack) -> np.ndarray | str:
    """Places of the clips that this job has to extract now, or why it has to wait."""
    if not len(store.missing(contents)):
        return np.empty(0, dtype=np.int64)
    try:
        lock.enter_context(held(store.lock, heartbeat=store.lock, what=f"{store.folder} is being filled",
                                remedy="it is taken over after 10 minutes without one"))
    except RunLockedError as error:
        return str(error)
    return store.missing(contents)  # another job may have finished since; whoever has the lock sees all of its files


class _Extraction:
    """One pass over the clips that are missing. All ranks do the same number of rounds."""

    def __init__(self, model: Classifier, manifest: Manifest, store: FeatureStore, config: FinetuneConfig, ranks: Ranks,
                 tick: Tick) -> None:
        self._model, self._manifest, self._store, self._ranks, self._tick = model, manifest, store, ranks, tick
        self._config, self._batch = config, config.evaluate.batch
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._begun: dict[int, list[np.ndarray]] = {}  # clips of which some views are in a later chunk
        self._unreadable: dict[int, str] = {}

    def run(self, rows: np.ndarray) -> bool:
        d, ranks, views, gave_up = self._config.data, self._ranks, self._store.spec.views, False
        spec = replace(view_spec(self._config), views=self._store.spec.view)
        batches = iter(view_loader(self._manifest, rows, spec, rank=ranks.rank, world_size=ranks.world_size,
                                   batch=self._batch, workers=d.workers, read_limit_s=d.read_limit_s,
                                   read_retries=d.read_retries, pin_memory=ranks.device.type == "cuda"))
        rounds = len(batches_of_rank(len(rows), views, self._batch, 0, ranks.world_size))  # no rank has more than the first
        for number in range(1, rounds + 1):
            self._take(next(batches, None))
            stop, gave_up = (ranks_so > 0 for ranks_so in ranks.sum([
                preempt.received() is not None, len(self._unreadable) >= GIVE_UP]))
            if stop or gave_up or self._is_full():
                self._save()
            if stop:
                return False
            if gave_up:
                break
            if ranks.is_main:
                with suppress(FileNotFoundError):  # taken over while this rank stood still; the work is of use all the same
                    os.utime(self._store.lock)
            self._tick("features", min(number * self._batch * ranks.world_size // views, len(rows)), len(rows))
        self._save()
        unreadable = {row: why for of_rank in ranks.gather(self._unreadable) for row, why in of_rank.items()}
        refuse_unreadable(unreadable, len(rows), gave_up=gave_up)
        return True

    def _take(self, batch: ViewBatch | None) -> None:
        """The features of one chunk; a rank may have one chunk less than another."""
        if batch is None:
            return
        self._unreadable.update(batch.unreadable)
        if n := len(batch.rows):
            clips = batch.clips.to(self._ranks.device, non_blocking=True)
            features = frozen_features(self._model, clips[torch.arange(self._batch) % n], self._store.spec.token_grid,
                                       self._config.train.precision)
            if self._store.spec.views == 1:
                self._pending.append((self._manifest.footage[batch.rows], features[:n]))
            else:
                self._join(batch.rows, features[:n])

    def _join(self, rows: np.ndarray, features: np.ndarray) -> None:
        """Views of clips, in order; a clip is whole once its last view is there."""
        for row, of_view in zip(rows.tolist(), features, strict=True):
            views = self._begun.setdefault(row, [])
            views.append(of_view)
            if len(views) == self._store.spec.views:
                self._pending.append((self._manifest.footage[[row]], np.stack(self._begun.pop(row))[None]))

    def _is_full(self) -> bool:
        return (sum(len(contents) for contents, _ in self._pending) >= CLIPS_PER_SHARD
                or sum(features.nbytes for _, features in self._pending) >= BYTES_PER_SHARD)

    def _save(self) -> None:
        if self._pending:
            contents, features = zip(*self._pending, strict=True)
            self._store.add(np.concatenate(contents), np.concatenate(features))
            self._pending = []


@torch.inference_mode()
def frozen_features(model: Classifier, clips: Tensor, token_grid: tuple[int, int, int] | None,
                    precision: str) -> np.ndarray:
    """What a probe learns from.

    Args:
        model: In evaluation mode.
        clips: uint8 [B, T, H, W, C], on the model's device.
        token_grid: Of the tokens, which a convolutional net does not have; None gives the pooled vector.
        precision: bf16, fp16 or fp32 (train.precision).
    Returns:
        float32 [B, D] or [B, T*H*W, D].
    Raises:
        ValueError: fp16 without a GPU.
    """
    with arithmetic(precision, clips.device.type):
        if token_grid is None:
            features = model.features(clips)
        else:
            assert isinstance(model, VideoClassifier), "refused by feature_spec"
            features = average_tokens(model.tokens(clips), model.shape.grid, token_grid)
    return features.float().cpu().numpy()


@torch.inference_mode()
def pooled_features(model: VideoClassifier, clips: Tensor, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Both vectors that a head may see, from one forward pass.

    Args:
        model: In evaluation mode; whatever its `pool`.
        clips: uint8 [B, T, H, W, C], on the model's device.
        precision: bf16, fp16 or fp32.
    Returns:
        The class token and the mean of the patch tokens, each normed: float32 [B, D]. Where the model has no class token,
        the mean twice.
    Raises:
        ValueError: fp16 without a GPU.
    """
    with arithmetic(precision, clips.device.type):
        x = model.last_block(as_frames(clips, model.shape))
        first = model.shape.class_tokens
        mean = model.norm(x[:, first:].mean(1)).float().cpu().numpy()
        cls = model.norm(x[:, 0]).float().cpu().numpy() if first else mean
    return cls, mean


@dataclass(frozen=True)
class LayerFeatures:
    """What some blocks of an encoder give, normed by its last norm, as the features of the last block are.

    Attributes:
        cls: float32 [B, K, D], the class token; where the model has none, the mean.
        mean: float32 [B, K, D], the mean of the patch tokens.
        tokens: [B, K, L, D] on the CPU, the patch tokens in grid order; None unless asked for.
    """

    cls: np.ndarray
    mean: np.ndarray
    tokens: np.ndarray | None


@torch.inference_mode()
def layer_features(model: VideoClassifier, clips: Tensor, layers: Sequence[int], precision: str, *,
                   tokens: torch.dtype | None = None) -> LayerFeatures:
    """Features of several blocks, from one forward pass.

    Args:
        model: In evaluation mode.
        clips: uint8 [B, T, H, W, C], on the model's device.
        layers: Numbers of K blocks, from 1; the last one gives what `pooled_features` gives.
        precision: bf16, fp16 or fp32.
        tokens: Also give the tokens, as numbers of this type.
    Raises:
        ValueError: There is no such block, or fp16 without a GPU.
    Source: Oquab et al. 2023 (arXiv 2304.07193), whose features of inner blocks pass the last norm, too.
    """
    check_layers(layers, model.shape.depth)
    first = model.shape.class_tokens
    found, kept = list[tuple[np.ndarray, np.ndarray]](), list[np.ndarray]()
    with arithmetic(precision, clips.device.type), _outputs(model, layers) as outputs:
        model.last_block(as_frames(clips, model.shape))
        for layer in layers:
            x = outputs[layer]
            mean = model.norm(x[:, first:].mean(1)).float().cpu().numpy()
            found.append((model.norm(x[:, 0]).float().cpu().numpy() if first else mean, mean))
            if tokens is not None:
                kept.append(model.norm(x[:, first:]).to(tokens).cpu().numpy())
    cls, means = (np.stack(each, axis=1) for each in zip(*found, strict=True))
    return LayerFeatures(cls, means, np.stack(kept, axis=1) if kept else None)


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Refuse numbers of blocks that an encoder of this depth has not (ValueError)."""
    if wrong := [layer for layer in layers if not 1 <= layer <= depth]:
        raise ValueError(f"layer {wrong[0]} does not exist, allowed: 1 to {depth}, the blocks of this encoder (--layers)")


@contextmanager
def _outputs(model: VideoClassifier, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """What these blocks put out while it is entered, by their number."""
    found: dict[int, Tensor] = {}
    with ExitStack() as hooks:
        for layer in layers:
            handle = model.blocks[layer - 1].register_forward_hook(lambda _block, _x, out, at=layer: found.update({at: out}))
            hooks.callback(handle.remove)
        yield found


def arithmetic(precision: str, device: str) -> torch.autocast:
    """What matrix products are computed in while it is entered.

    Args:
        precision: bf16, fp16 or fp32.
        device: cpu or cuda.
    Raises:
        ValueError: fp16 without a GPU.
    """
    if precision == "fp16" and device == "cpu":
        raise ValueError("precision fp16 needs a GPU; on the CPU use bf16 or fp32 (--set train.precision=bf16, or "
                         "--precision bf16)")
    return torch.autocast(device, torch.float16 if precision == "fp16" else torch.bfloat16, enabled=precision != "fp32")


def average_tokens(tokens: Tensor, grid: tuple[int, int, int], token_grid: tuple[int, int, int]) -> Tensor:
    """Tokens [B, L, D] of a grid, averaged over the cells of a smaller one: float32 [B, T*H*W, D], in the same order."""
    assert tokens.shape[1] == math.prod(grid)
    cells = F.adaptive_avg_pool3d(tokens.float().unflatten(1, grid).movedim(-1, 1), token_grid)
    return cells.flatten(2).transpose(1, 2)
