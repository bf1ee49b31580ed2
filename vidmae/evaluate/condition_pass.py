"""What a model says of every clip under every condition: one pass, the same numbers on any number of ranks and workers.

    rows -> condition_loader -> probabilities -> mean over a clip's views -> the data set's labels -> gather -> Predictions
                                scores        -> mean over its frames -> softmax, with views framesN

Clips are kept no longer than their views need, and of the probabilities only what Predictions has.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidmae.clips.view_loader import refuse_unreadable
from vidmae.clips.views import ViewSpec
from vidmae.evaluate.condition_loader import FRAMES, ConditionBatch, condition_loader, units_of
from vidmae.evaluate.corruptions.conditions import Condition
from vidmae.evaluate.predict import GIVE_UP, StoppedError
from vidmae.footage.manifest import Manifest
from vidmae.labels.label_map import NO_ANSWER, LabelMap
from vidmae.ranks.dist import Ranks
from vidmae.runs.predictions import Predictions, concatenate, from_probabilities
from vidmae.runs.record import write_atomic
from vidmae.settings.config import DataConfig

Says = Callable[[Tensor], np.ndarray]
"""Clips uint8 [B, T, S, S, 3] on the rank's device -> probabilities of the model's classes, float64 [B, C]; with views
framesN the scores before the softmax."""


def evaluate_under(says: Says, manifest: Manifest, rows: np.ndarray, labels: LabelMap, conditions: Sequence[Condition],
                   spec: ViewSpec, ranks: Ranks, *, batch: int, data: DataConfig, partial: Path | None = None,
                   progress: Callable[[int, int], bool] = lambda *_: False) -> list[Predictions]:
    """What a model says of some clips under some conditions. Collective: all ranks get the same.

    Args:
        says: The model.
        manifest: The clips; its class indexes count the labels that `labels` was made for.
        rows: int64 [N], the clips: each once, and each of a label for which there is an answer.
        labels: How the model answers.
        conditions: What is done to the clips.
        spec: What a view is.
        ranks: From `dist.init`.
        batch: Views of one forward pass, at most.
        data: Worker processes and limits of reading.
        partial: File for what was said so far, where the test is given up; the next one goes on from it, with the same bits.
        progress: Told after each batch how many of this rank's batches are done, and of how many; True gives up.
    Returns:
        For each condition one row per clip, in the order of `rows`.
    Raises:
        StoppedError: `progress` gave up on some rank.
        ValueError: On every rank alike: clips cannot be read or have no answer, or the model's probabilities are NaN. A kNN
            or linear probe refuses features that are not finite before that, on the rank alone that meets them.
    """
    _check_answers(manifest, rows, labels)
    units = units_of(len(rows), len(conditions), spec.views_per_clip, batch)
    done_before, before = ranks.from_main(_read_partial(partial, rows, len(conditions), units) if ranks.is_main else None)
    loader = condition_loader(manifest, rows, spec, conditions, rank=ranks.rank, world_size=ranks.world_size, batch=batch,
                              data=data, done=done_before, pin_memory=ranks.device.type == "cuda")
    share = _Share(manifest, labels, spec.views_per_clip, of_scores=spec.views.startswith(FRAMES))
    share.found += [before] if before and ranks.is_main else []
    stop, total = False, len(loader)  # type: ignore[arg-type]
    for done, some in enumerate(loader, 1):
        if len(some.rows):
            share.add(some, says(some.clips.to(ranks.device, non_blocking=True)))
        share.unreadable |= dict(some.unreadable)
        stop = progress(done, total)
        if stop or len(share.unreadable) >= GIVE_UP:
            break
    if any(ranks.gather(stop)):
        columns = ranks.gather(share.columns())
        if ranks.is_main and partial:
            _write_partial(partial, [each for each in columns if each[2] is not None])
        raise StoppedError
    return _gather(share, rows, conditions, ranks)


@dataclass
class _Share:
    """What one rank found."""

    manifest: Manifest
    labels: LabelMap
    views: int
    of_scores: bool
    unreadable: dict[int, str] = field(default_factory=dict)
    bad: int = 0
    found: list[tuple[np.ndarray, np.ndarray, Predictions]] = field(default_factory=list)
    _open: dict[tuple[int, int], tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(self, batch: ConditionBatch, prob: np.ndarray) -> None:
        """Take the probabilities of a batch, and keep what is said of clips all of whose views were seen."""
        assert len(prob) == len(batch.rows)
        whole: list[tuple[int, int, np.ndarray]] = []
        for row, condition, one in zip(batch.rows.tolist(), batch.condition.tolist(), prob, strict=True):
            seen, total = self._open.pop((row, condition), (0, np.zeros_like(one)))
            if seen + 1 == self.views:
                whole.append((row, condition, (total + one) / self.views))
            else:
                self._open[row, condition] = seen + 1, total + one
        if whole:
            rows, conditions = (np.array([each[i] for each in whole], dtype=np.int64) for i in (0, 1))
            self._keep(rows, conditions, np.stack([each[2] for each in whole]))

    def _keep(self, rows: np.ndarray, conditions: np.ndarray, prob: np.ndarray) -> None:
        finite = np.isfinite(prob).all(axis=1)
        self.bad += int((~finite).sum())
        if finite.any():
            prob = torch.from_numpy(prob[finite]).softmax(1).numpy() if self.of_scores else prob[finite]
            answers = np.clip(self.labels.apply(prob), 0, 1)
            rows, conditions = rows[finite], conditions[finite]
            right = self.labels.of_label[self.manifest.class_index[rows]]
            self.found.append((rows, conditions, from_probabilities(answers, right, self.manifest.source[rows],
                                                                    self.labels.answers)))

    def columns(self) -> tuple[np.ndarray, np.ndarray, Predictions | None]:
        """Rows, conditions, and what is said of them."""
        if not self.found:
            return np.empty(0, np.int64), np.empty(0, np.int64), None
        rows, conditions, said = zip(*self.found, strict=True)
        return np.concatenate(rows), np.concatenate(conditions), concatenate(said)


def _gather(share: _Share, rows: np.ndarray, conditions: Sequence[Condition], ranks: Ranks) -> list[Predictions]:
    """The shares of all ranks by condition, in the order of `rows`, or the same error on all of them."""
    of_ranks = ranks.gather((share.columns(), share.unreadable, share.bad))
    unreadable = {row: why for _, some, _ in of_ranks for row, why in some.items()}
    refuse_unreadable(unreadable, len(rows), gave_up=any(len(some) >= GIVE_UP for _, some, _ in of_ranks))
    if bad := sum(bad for _, _, bad in of_ranks):
        raise ValueError(f"the model's scores of {bad} of {len(rows) * len(conditions)} clips are NaN or infinite: the "
                         "weights are damaged, or too large for this precision (train.precision fp32 or bf16)")
    read, which = (np.concatenate([columns[i] for columns, _, _ in of_ranks]) for i in (0, 1))
    said = concatenate([columns[2] for columns, _, _ in of_ranks if columns[2] is not None])
    assert len(read) == len(rows) * len(conditions), "every clip once under every condition"
    place = np.empty(int(rows.max()) + 1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    order = np.lexsort((place[read], which))
    return [said.take(order[i * len(rows):(i + 1) * len(rows)]) for i in range(len(conditions))]


Columns = tuple[np.ndarray, np.ndarray, Predictions]
"""Rows, conditions, and what is said of each row under its condition."""


def _write_partial(path: Path, columns: Sequence[tuple[np.ndarray, np.ndarray, Predictions | None]]) -> None:
    """Keep what was said so far."""
    said = [each for _, _, each in columns if each is not None]
    if said:
        whole, data = concatenate(said), io.BytesIO()
        rows, conditions = (np.concatenate([each[i] for each in columns]) for i in (0, 1))
        np.savez(data, rows=rows, conditions=conditions, **vars(whole))
        write_atomic(path, data.getvalue())


def _read_partial(path: Path | None, rows: np.ndarray, conditions: int, units: Sequence[range],
                  ) -> tuple[frozenset[int], Columns | None]:
    """Places of the clips that need not be seen again, and what was said of them; of units that are whole alone."""
    if path is None or not path.exists():
        return frozenset(), None
    with np.load(path, allow_pickle=False) as arrays:
        found = dict(arrays)
    seen = Counter(found["rows"].tolist())
    whole = [unit for unit in units if all(seen[row] == conditions for row in rows[unit.start:unit.stop].tolist())]
    done = {place for unit in whole for place in unit}
    kept = np.isin(found["rows"], rows[sorted(done)])
    if not kept.any():
        return frozenset(), None
    said = Predictions(**{each.name: found[each.name] for each in fields(Predictions)}).take(kept)
    return frozenset(done), (found["rows"][kept], found["conditions"][kept], said)


def _check_answers(manifest: Manifest, rows: np.ndarray, labels: LabelMap) -> None:
    if not len(rows):
        raise ValueError("there are 0 clips to test (--data, --sets, --cues)")
    label = manifest.class_index[rows]
    if label.min() < 0 or label.max() >= len(labels.of_label) or (labels.of_label[label] == NO_ANSWER).any():
        raise ValueError(f"the clips have class indexes {label.min()} to {label.max()}, and the model can answer for "
                         f"{int((labels.of_label != NO_ANSWER).sum())} of {len(labels.of_label)} labels")
