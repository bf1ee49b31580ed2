"""Finetune a pretrained encoder on the labelled clips of a cell, choose a step by the recipe's rule, test it.

    train   Finetuner: the loop of trainer.py with labels, layer-wise decay, looks for select.rule holdout and val-best
    select  the weights of the last step, or of the best look, in weights.safetensors
    test    on every validation clip; predictions.npz, result.json
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidmae.clips.augment import Augment
from vidmae.clips.loader import Batch
from vidmae.clips.order import CLIP, rng
from vidmae.evaluate.predict import StoppedError, evaluate, view_spec
from vidmae.footage.manifest import Manifest
from vidmae.labels.cell_data import CellData, check_files, read_cell_data
from vidmae.model.conv_net import Classifier, ConvClassifier
from vidmae.model.groups import layer_decay_groups, param_groups
from vidmae.model.weights import load_weights, save_safetensors
from vidmae.ranks import watchdog
from vidmae.ranks.dist import Ranks
from vidmae.ranks.kernels import AttentionShape
from vidmae.ranks.program import say
from vidmae.ranks.pulse import Pulse
from vidmae.ranks.saving.checkpoint import complete_steps
from vidmae.ranks.waiting import on_main
from vidmae.runs.accuracy import cross_entropy, topk_pct
from vidmae.runs.attempts import AttemptLog
from vidmae.runs.cell_result import Learned, write_cell_result
from vidmae.runs.cost import step_flops
from vidmae.runs.metrics import read_metrics
from vidmae.runs.predictions import Predictions
from vidmae.runs.record import RunFolder
from vidmae.runs.selection import Look, best, enough, read_looks, write_looks
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.train.build import build_classifier_for, clip_loader
from vidmae.train.trainer import Trainer, free_memory, train_to_end

PREFIX = "classifier."  # of the parameters inside Labelled


def finetune(run: RunFolder, config: FinetuneConfig, ranks: Ranks, started: float) -> bool:
    """Train, select and test. Collective.

    Returns:
        True once result.json is written, False where a signal asked to stop and the state is saved.
    """
    data = read_cell_data(config)
    pulse = Pulse(run, config, ranks)
    if not on_main(partial(check_files, config, data), ranks, partial(pulse, "looking for clips", 0, 0))[0]:
        return False
    try:
        trainer, reached, log = train_to_end(run, config, ranks, started,
                                             lambda log: Finetuner(run, config, ranks, data, log))
        if reached:
            step, plan = trainer.step, trainer.plan
            del trainer
            free_memory(ranks.device)
            chosen = select(run, config, ranks, step)
            began = time.monotonic()
            classifier = build_classifier_for(config, len(data.classes), start=False).to(ranks.device)
            load_weights(classifier, run.weights)
            predictions = test(run, config, ranks, data.val, data.classes, classifier)
    except StoppedError:
        say(ranks, "stopping while the model is tested; its training is saved")
        return False
    if log is not None:
        log.write("done" if reached else "preempted")
    if reached and ranks.is_main:
        metrics = read_metrics(run)
        write_cell_result(run, config, predictions, Learned(
            train_clips=len(data.train), steps=step, selected_step=chosen, world_size=plan.world_size,
            train_s=sum(m["step_s"] + m["save_s"] for m in metrics), eval_s=time.monotonic() - began))
        clean_up(run, config)
    ranks.barrier()
    return reached


class Labelled(nn.Module):
    """A classifier with its loss: what the engine trains."""

    def __init__(self, classifier: Classifier, label_smoothing: float) -> None:
        super().__init__()
        self.classifier, self._label_smoothing = classifier, label_smoothing

    def forward(self, clips: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy; targets are int64 [B] classes or float [B, N] shares of classes."""
        return F.cross_entropy(self.classifier(clips).float(), targets, label_smoothing=self._label_smoothing)


class Finetuner(Trainer[FinetuneConfig]):
    """Trains a classifier. All methods are collective.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
        data: The clips.
        log: Account of this attempt; on rank 0 alone.
    """

    def __init__(self, run: RunFolder, config: FinetuneConfig, ranks: Ranks, data: CellData, log: AttemptLog | None) -> None:
        self.data = data
        super().__init__(run, config, ranks, data.train, log)
        if (config.data.mixup or config.data.cutmix) and self.plan.micro_batch < 2:
            raise ValueError(f"data.mixup and data.cutmix blend clips of a micro-batch, which has {self.plan.micro_batch} "
                             "here; allowed: 2 or more (--set train.micro_batch=..., fewer ranks, a larger global batch)")

    def build(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        """The classifier with its weights and loss; the nearer a layer is to the pixels, the slower it learns. All layers of
        a convolutional net learn alike."""
        train = self.config.train
        self.classifier = classifier = build_classifier_for(self.config, len(self.data.classes), say=self.say)
        self.augment = Augment(self.config.data, len(self.data.classes), mean=classifier.mean, std=classifier.std) \
            if Augment.wanted(self.config.data) else None
        labelled = Labelled(classifier, train.label_smoothing)
        if not isinstance(classifier, ConvClassifier):
            return labelled, layer_decay_groups(classifier, train.weight_decay, train.layer_decay)
        if train.layer_decay != 1:
            self.say(f"train.layer_decay {train.layer_decay:g} is for transformers; all layers of a convolutional net learn "
                     "alike")
        return labelled, param_groups(labelled, train.weight_decay)

    def clips(self, *, start: int, unreadable: Mapping[int, str]) -> Iterable[Batch]:
        """Clips and labels."""
        return clip_loader(self.config, self.manifest, self.plan, rank=self.ranks.rank, start=start, stop=self.total_steps,
                           skipped=self.skipped, unreadable=unreadable, workers=self.config.data.workers,
                           pin_memory=self.ranks.device.type == "cuda")

    def inputs(self, batch: Batch, position: int) -> tuple[Any, ...]:
        """Clips and targets; dropout, drop path and augmentation draw from a seed of this rank's position."""
        torch.manual_seed(int(rng(CLIP, self.config.seed, self.ranks.rank, position).integers(2**63)))
        clips, labels = (t.to(self.ranks.device, non_blocking=True) for t in (batch.clips, batch.labels))
        return self.augment(clips, labels) if self.augment else (clips, labels)

    def flops_per_clip(self) -> float:
        """See `cost.step_flops`."""
        return step_flops(self.config.model)

    def attention_shapes(self) -> Sequence[AttentionShape]:
        """Of the encoder, which sees all tokens; a convolutional net has none."""
        s = self.config.model.shape()
        shape = s.num_heads, s.num_tokens + s.class_tokens, s.embed_dim // s.num_heads
        return [] if self.config.model.net == "conv" else [shape]

    def look(self) -> bool:
        """Where it is time to, test the model on what the rule looks at; True once patience is over."""
        rule = self.config.select
        every = rule.every.steps(clips_per_epoch=self.plan.clips_per_epoch, global_batch=self.config.train.global_batch)
        if rule.rule == "last" or (self.step % every and self.step < self.total_steps):
            return False
        watchdog.expect_within(self.config.recovery.start_limit_s)
        looks = self.ranks.from_main(read_looks(self.run, up_to=self.step))
        if all(look["step"] != self.step for look in looks):
            looks = [*looks, self._test_now()]
            if best(looks) is looks[-1]:
                self._write_weights(look_path(self.run, self.step))
            self._keep(looks)
        return enough(looks, rule.patience)

    def export(self) -> None:
        """The weights of the last step; for the rules that look, a look at it if there was none."""
        if self.config.select.rule == "last":
            self._write_weights(self.run.weights)
        else:
            self.look()

    def _test_now(self) -> Look:
        on, manifest = ("val", self.data.val) if self.config.select.rule == "val-best" else ("holdout", self.data.held_out)
        found = test(self.run, self.config, self.ranks, manifest, self.data.classes, self.classifier)
        look = {"step": self.step, "epoch": self.step / self.plan.steps_per_epoch, "on": on,
                "top1_pct": topk_pct(found, 1), "top5_pct": topk_pct(found, 5), "loss": cross_entropy(found)}
        self.say(f"step {self.step}: {on} top-1 {look['top1_pct']:.3f} %, top-5 {look['top5_pct']:.3f} %")
        return look

    def _keep(self, looks: list[Look]) -> None:
        """Write the looks; drop weights that are the best neither of all looks nor of those up to a checkpoint."""
        if self.ranks.is_main:
            write_looks(self.run, looks)
            steps = [*complete_steps(self.run), self.step]
            if every := self.config.checkpoint.memory_steps:  # copies in memory are of one of the last few steps
                steps += range(max(1, self.step - 3 * every), self.step)
            kept = {look_path(self.run, chosen["step"]) for step in steps
                    if (chosen := best([look for look in looks if look["step"] <= step]))}
            for path in self.run.looks.glob("*.safetensors"):
                if path not in kept:
                    path.unlink()
        self.ranks.barrier()

    def _write_weights(self, path: Path) -> None:
        state = {name.removeprefix(PREFIX): tensor for name, tensor in self.engine.full_parameters() if self.ranks.is_main}
        if self.ranks.is_main:
            model = self.config.model
            more = {"config": json.dumps(model.unsaid)} if model.unsaid else {}
            save_safetensors(state, path, {"model": model.name, "step": str(self.step),
                                           "classes": str(len(self.data.classes)), **more})
        self.ranks.barrier()


def look_path(run: RunFolder, step: int) -> Path:
    """Where the weights of a look are while they may be the best."""
    return run.looks / f"step_{step:08d}.safetensors"


def select(run: RunFolder, config: FinetuneConfig, ranks: Ranks, last_step: int) -> int:
    """Put the chosen weights in weights.safetensors; the step that they are of."""
    step = last_step
    if config.select.rule != "last":
        chosen = best(ranks.from_main(read_looks(run)))
        assert chosen is not None
        step = chosen["step"]
        if ranks.is_main and (path := look_path(run, step)).exists():  # else it was done before a restart
            path.replace(run.weights)
    ranks.barrier()
    return step


def test(run: RunFolder, config: FinetuneConfig, ranks: Ranks, manifest: Manifest, classes: tuple[str, ...],
         classifier: nn.Module) -> Predictions:
    """What a classifier says of every clip of a manifest.

    Raises:
        StoppedError: A signal asked to stop.
    """
    return evaluate(classifier, manifest, np.arange(len(manifest)), classes, config.evaluate, view_spec(config), ranks,
                    precision=config.train.precision, data=config.data,
                    progress=partial(Pulse(run, config, ranks), "testing"))


def clean_up(run: RunFolder, config: FinetuneConfig) -> None:
    """Remove what a finished cell needs no more: checkpoints, and, unless they are to stay, the weights."""
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.rmtree(run.looks, ignore_errors=True)
    if not config.keep_weights:
        run.weights.unlink(missing_ok=True)
