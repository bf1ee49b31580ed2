"""Test a classifier: what it says of every clip, the same numbers every time and on any number of ranks.

    rows -> view_loader -> model -> softmax -> mean over a clip's views -> gather -> Predictions
                                    mean over its frames -> softmax, with views framesN

Every clip counts once: nothing is padded and no rank sees a clip of another. Batches have the same views in them whatever
the number of ranks, and a clip's views are averaged in order on one rank in float64, so not even the last bit depends on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from vidmae.clips.view_loader import ViewBatch, batches_of_rank, refuse_unreadable, view_loader
from vidmae.clips.views import ViewSpec
from vidmae.footage.manifest import Manifest
from vidmae.ranks.dist import Ranks
from vidmae.ranks.kernels import HALF
from vidmae.runs.predictions import Predictions, concatenate, from_probabilities
from vidmae.settings.config import DataConfig
from vidmae.settings.finetune_config import EvaluateConfig, FinetuneConfig

GIVE_UP = 20  # clips of one rank that cannot be read: the disk is gone, and each may cost read_limit_s


def view_spec(config: FinetuneConfig) -> ViewSpec:
    """What a view of this configuration is."""
    m, d, e = config.model, config.data, config.evaluate
    return ViewSpec(num_frames=m.num_frames, sampling_rate=d.sampling_rate, target_fps=d.target_fps, img_size=m.img_size,
                    views=e.views, seed=e.seed)


def evaluate(model: nn.Module, manifest: Manifest, rows: np.ndarray, classes: Sequence[str], config: EvaluateConfig,
             spec: ViewSpec, ranks: Ranks, *, precision: str, data: DataConfig,
             progress: Callable[[int, int], bool] = lambda *_: False) -> Predictions:
    """What a model says of some clips. Collective: all ranks call it with the same arguments and get the same.

    Args:
        model: Clips uint8 [B, T, S, S, 3] to scores [B, C], on the device of `ranks`; weights may be sharded (ZeRO-3). Left
            as it was, whether it trains or not.
        manifest: The videos; its class indexes count in `classes`.
        rows: int64 [N], the clips: each once.
        classes: Names of the C classes in index order.
        config: Views, their seed, and how many of them make a batch.
        spec: What a clip is; its views and seed are set to those of `config`.
        ranks: From `dist.init`.
        precision: train.precision: what float32 weights are cast to in matrix products; others are taken as they are.
        data: Worker processes and limits of reading.
        progress: Told after each batch how many of this rank's batches are done, and of how many; True gives up.
    Returns:
        One row per clip, in the order of `rows`.
    Raises:
        StoppedError: `progress` gave up on some rank.
        ValueError: On every rank alike: clips cannot be read, have no class among `classes`, or get scores that are NaN.
    """
    spec = replace(spec, views=config.views, seed=config.seed)
    _check_labels(manifest, rows, len(classes))
    share = _Share(spec.views_per_clip, spec.by_frame)
    most, mine = (len(batches_of_rank(len(rows), spec.views_per_clip, config.batch, rank, ranks.world_size))
                  for rank in (0, ranks.rank))
    loader = view_loader(manifest, rows, spec, rank=ranks.rank, world_size=ranks.world_size, batch=config.batch,
                         workers=data.workers, read_limit_s=data.read_limit_s, read_retries=data.read_retries,
                         pin_memory=ranks.device.type == "cuda")
    with testing(model), arithmetic_of_test(model, precision, ranks.device):
        forwards, stop = 0, False
        for done, batch in enumerate(loader, 1):
            if len(batch.rows):
                share.add(batch, model(batch.clips.to(ranks.device, non_blocking=True)), len(classes))
                forwards += 1
            stop = progress(done, mine)
            share.unreadable |= dict(batch.unreadable)
            if stop or len(share.unreadable) >= GIVE_UP:
                break
        if _sharded(model):  # all ranks gather the weights in each forward pass: go on as long as rank 0, which has most
            for _ in range(most - forwards):
                model(torch.zeros(1, *spec.shape, dtype=torch.uint8, device=ranks.device))
    if any(ranks.gather(stop)):
        raise StoppedError
    return _gather(share, manifest, rows, classes, ranks)


class StoppedError(Exception):
    """A test was given up because somebody asked for it; on every rank alike."""


@dataclass
class _Share:
    """What one rank found: sums over the views of each of its clips, of softmax probabilities, or of scores before it."""

    views: int
    of_scores: bool = False
    sums: dict[int, np.ndarray] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)

    def add(self, batch: ViewBatch, scores: Tensor, classes: int) -> None:
        assert scores.shape == (len(batch.rows), classes), f"scores {tuple(scores.shape)} for {classes} classes"
        numbers = scores.cpu().double()
        for row, some in zip(batch.rows.tolist(), (numbers if self.of_scores else numbers.softmax(1)).numpy(), strict=True):
            self.sums[row] = self.sums[row] + some if row in self.sums else some

    def predictions(self, manifest: Manifest, classes: Sequence[str]) -> tuple[list[int], Predictions | None, int]:
        """Rows whose probabilities are numbers, what they say, and how many rows are left out."""
        rows = [row for row, prob in self.sums.items() if row not in self.unreadable and np.isfinite(prob).all()]
        bad = len(self.sums.keys() - self.unreadable.keys()) - len(rows)
        if not rows:
            return rows, None, bad
        prob = np.stack([self.sums[row] for row in rows]) / self.views
        if self.of_scores:
            prob = torch.from_numpy(prob).softmax(1).numpy()
        return rows, from_probabilities(prob, manifest.class_index[rows], manifest.source[rows], classes), bad


def _gather(share: _Share, manifest: Manifest, rows: np.ndarray, classes: Sequence[str], ranks: Ranks) -> Predictions:
    """The shares of all ranks, in the order of `rows`, or the same error on all of them."""
    found = ranks.gather((share.predictions(manifest, classes), share.unreadable))
    unreadable = {row: why for _, some in found for row, why in some.items()}
    refuse_unreadable(unreadable, len(rows), gave_up=any(len(some) >= GIVE_UP for _, some in found))
    if bad := sum(bad for (_, _, bad), _ in found):
        raise ValueError(f"the model's scores of {bad} of {len(rows)} clips are NaN or infinite: the weights are damaged, "
                         "or too large for this precision (train.precision fp32 or bf16)")
    read = np.array([row for (some, _, _), _ in found for row in some], dtype=np.int64)
    assert len(read) == len(rows), "every clip once"
    place = np.argsort(read)[np.argsort(np.argsort(rows))]
    return concatenate([part for (_, part, _), _ in found if part is not None]).take(place)


def _check_labels(manifest: Manifest, rows: np.ndarray, classes: int) -> None:
    if not len(rows):
        raise ValueError("there are 0 clips to test (data.val_manifest)")
    label = manifest.class_index[rows]
    outside = np.flatnonzero((label < 0) | (label >= classes))
    if len(outside):
        raise ValueError(f"{len(outside)} of {len(rows)} clips have a class index outside 0 to {classes - 1} (the first: "
                         f"row {rows[outside[0]] + 1} of the manifest, index {label[outside[0]]}; -1 is no label), so the "
                         "model was made for other classes")


@contextlib.contextmanager
def testing(model: nn.Module) -> Iterator[None]:
    """No dropout, no drop path; each module is then left as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextlib.contextmanager
def arithmetic_of_test(model: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """The numbers of training, see engine.py: float32 weights under autocast, 16-bit weights as they are."""
    cast = precision != "fp32" and next(model.parameters()).dtype == torch.float32
    # weights that ZeRO-3 gathers here would be inference tensors, which training could not use afterwards
    with (torch.no_grad() if _sharded(model) else torch.inference_mode(),
          torch.autocast(device.type, HALF.get(precision), enabled=cast)):
        yield


def _sharded(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in model.parameters())

