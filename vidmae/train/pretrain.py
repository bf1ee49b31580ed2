"""Pretrain a video MAE in a run folder that the launcher made: `python -m vidmae.train.pretrain RUN` on every rank."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from vidmae.clips.loader import Batch
from vidmae.insight.pictures import reconstruction, save_png
from vidmae.mixtures.mixture import Footage, read_footage
from vidmae.model.feature_prediction import features_of, follow, make_teacher, momentum_at, spread
from vidmae.model.groups import param_groups
from vidmae.model.mae import MaskedAutoencoder
from vidmae.model.masking import training_mask
from vidmae.model.weights import load_weights, save_safetensors
from vidmae.ranks import dist, watchdog
from vidmae.ranks.engine import load_deepspeed
from vidmae.ranks.kernels import HALF, AttentionShape
from vidmae.ranks.program import run_program, say
from vidmae.runs.attempts import AttemptLog
from vidmae.runs.cost import train_flops_per_clip
from vidmae.runs.metrics import read_metrics
from vidmae.runs.nonfinite import window_of
from vidmae.runs.plan import Plan, make_plan
from vidmae.runs.record import SCHEMA, RunFolder, job_id, read_json, touch_heartbeat, write_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import to_dict
from vidmae.train.build import build_model, clip_loader, footage_order, footage_plan, mixture_order
from vidmae.train.trainer import Trainer, train_to_end

SAMPLING = ("sampling_rate", "target_fps", "decoder")  # of the data settings: what a user of the weights must know


def main(run_path: str) -> int:
    """Train the run to its end, or until a signal asks to stop; the exit code (see `program.run_program`)."""
    return run_program(run_path, PretrainConfig, train)


def load_before_fork(device_type: str) -> None:
    """Import what every rank needs and loads late, in a process from which ranks are forked."""
    load_deepspeed(device_type)


def train(run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, started: float) -> bool:
    """Train to the last step and write result.json; False where a signal asked to stop and the state is saved."""
    # rank 0 makes what is missing of a large manifest; of all ranks each would make it
    footage = ranks.main_first(lambda: read_footage(config.data, num_frames=config.in_window, seed=config.seed))
    trainer, reached, log = train_to_end(run, config, ranks, started,
                                         lambda log: Pretrainer(run, config, ranks, footage, log))
    if log is not None:
        log.write("done" if reached else "preempted")
        if reached:
            finish(run, config, trainer.plan, footage, log)
    ranks.barrier()
    return reached


class Pretrainer(Trainer[PretrainConfig]):
    """Trains a masked autoencoder; see `Trainer`, to which the footage brings the manifest."""

    teacher: MaskedAutoencoder | None = None  # of features
    spreads: list[torch.Tensor]  # of the features of this step's micro-batches

    def __init__(self, run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, footage: Footage,
                 log: AttemptLog | None) -> None:
        self.footage = footage
        super().__init__(run, config, ranks, footage.manifest, log)
        if self.teacher is not None:
            follow(self.teacher, self.engine.averaged(self.number))  # the average may be that of a checkpoint

    def make_plan(self) -> Plan:
        """See `footage_plan`."""
        return footage_plan(self.config, self.footage, self.ranks.world_size)

    @property
    def averages(self) -> bool:
        """The average is the teacher of features."""
        return self.config.model.target == "features"

    @property
    def number(self) -> torch.dtype:
        """Of the weights that compute; in stage 0 they stay float32, and autocast computes in 16 bits."""
        return HALF.get(self.config.train.precision, torch.float32) if self.config.train.zero_stage else torch.float32

    def updated(self, step: int) -> None:
        """The teacher follows the student."""
        if self.teacher is not None:
            self.engine.move_average(momentum_at(step, self.total_steps, self.config.model.teacher_momentum))
            follow(self.teacher, self.engine.averaged(self.number))

    def watched(self) -> list[torch.Tensor]:
        """How much the features of the step's clips differ."""
        spreads, self.spreads = self.spreads, []
        return [torch.stack(spreads).mean(0)] if spreads else []

    def more_metrics(self, step: int, watched: Sequence[float]) -> dict[str, Any]:
        """Where features are predicted how much they differ; of a mixture clips of each source, where unreadable videos are
        replaced by others of their source."""
        names = "target_std", "target_std_between"
        spreads = {name: value if isfinite(value) else None for name, value in zip(names, watched, strict=False)}
        return spreads | self._seen(step)

    def _seen(self, step: int) -> dict[str, Any]:
        mixture = self.mixture
        if not self.config.data.sources or mixture is None:
            return {}
        taken = window_of(step - 1, self.skipped) + 1

        def seen(windows: int) -> np.ndarray:
            clips, of_turn = windows * self.config.train.global_batch, self.config.data.window_clips
            turns, rest = divmod(clips, of_turn) if of_turn else (0, clips)
            found: np.ndarray = turns * np.array(mixture.seen(of_turn)) + np.array(mixture.seen(rest))
            return found

        counts = seen(taken) - sum(seen(left_out + 1) - seen(left_out) for left_out in self.skipped if left_out < taken)
        return {"seen": {source.name: int(count) for source, count in zip(self.config.data.sources, counts, strict=True)}}

    def build(self) -> tuple[nn.Module, list[dict[str, Any]]]:
        """The model with its weights, and who of them decays."""
        model = build_model(self.config)
        if self.config.train.init:
            report = load_weights(model, Path(self.config.train.init), resize_positions=self.config.train.resize_positions)
            say(self.ranks, f"start: {report}")
        self.spreads = []
        self.teacher = make_teacher(model, self.ranks.device, self.number) if self.averages else None
        return model, param_groups(model, self.config.train.weight_decay)

    def clips(self, *, start: int, unreadable: Mapping[int, str]) -> Iterable[Batch]:
        """Clips and mask noise."""
        self.mixture = mixture_order(self.config, self.footage, self.plan)
        return clip_loader(self.config, self.manifest, self.plan, rank=self.ranks.rank, start=start, stop=self.total_steps,
                           skipped=self.skipped, unreadable=unreadable, workers=self.config.data.workers,
                           noise=self.config.model.shape().num_tokens, pin_memory=self.ranks.device.type == "cuda",
                           footage=self.footage, order=footage_order(self.config, self.footage, self.plan))

    def inputs(self, batch: Batch, position: int) -> tuple[Any, ...]:  # noqa: ARG002
        """Clips and their masks, and where features are predicted those that the teacher makes of the whole clips."""
        device, train = self.ranks.device, self.config.train
        clips, noise = (tensor.to(device, non_blocking=True) for tensor in (batch.clips, batch.noise))
        mask = training_mask(noise, self.config.model.shape())
        if self.teacher is None:
            return clips, mask
        half = HALF.get(train.precision)
        with torch.autocast(device.type, dtype=half, enabled=half is not None and train.zero_stage == 0):
            features = features_of(self.teacher, clips)
        self.spreads.append(spread(features))
        return clips, mask, features

    def flops_per_clip(self) -> float:
        """See `cost.train_flops_per_clip`."""
        return train_flops_per_clip(self.config.model.shape())

    def attention_shapes(self) -> Sequence[AttentionShape]:
        """Of the encoder, which sees the kept tokens, and of the decoder; a teacher sees all."""
        s = self.config.model.shape()
        teacher = [(s.num_heads, s.num_tokens + 1, s.embed_dim // s.num_heads)] if self.averages else []
        return [(s.num_heads, s.num_kept + 1, s.embed_dim // s.num_heads),
                (s.decoder_num_heads, s.num_tokens + 1, s.decoder_embed_dim // s.decoder_num_heads), *teacher]

    def export(self) -> None:
        """Write the float32 weights under the released key names; where features are predicted those of the teacher, which
        V-JEPA tests, too."""
        weights = self.engine.averaged(torch.float32) if self.averages else self.engine.full_parameters()
        state = {name: tensor.to("cpu", copy=self.averages) for name, tensor in weights if self.ranks.is_main}
        if self.ranks.is_main:
            if self.teacher is not None:  # buffers, such as a fixed table of positions
                state = {name: value.float().cpu() for name, value in self.teacher.state_dict().items()} | state
            model, data = self.config.model, to_dict(self.config.data)
            save_safetensors(state, self.run.weights, {"model": model.name, "step": str(self.step),
                                                       "config": json.dumps(to_dict(model)),
                                                       "sampling": json.dumps({key: data[key] for key in SAMPLING}),
                                                       **weights_said(self.config)})


def weights_said(config: PretrainConfig) -> dict[str, str]:
    """Whose the exported weights are, where they are not simply the model's."""
    return {"weights_of": "teacher"} if config.model.target == "features" else {}


def finish(run: RunFolder, config: PretrainConfig, plan: Plan, footage: Footage, log: AttemptLog) -> None:
    """What rank 0 does once all steps are done; result.json comes last."""
    if config.log.picture:
        draw(run, config, plan, footage)
    write_result(run, config, plan, log)
    steps = plan.schedule.total_steps
    touch_heartbeat(run, state="done", step=steps, total_steps=steps)


def draw(run: RunFolder, config: PretrainConfig, plan: Plan, footage: Footage, *, videos: int = 3) -> None:
    """Write the reconstruction picture: one clip of each of the first videos that the run would show next."""
    model = build_model(config).eval()
    load_weights(model, run.weights)
    alone = replace(config, train=replace(config.train, global_batch=config.data.repeat_aug, micro_batch=10**9))
    one_rank = make_plan(alone, videos=len(footage.manifest), world_size=1)
    batches = islice(clip_loader(alone, footage.manifest, one_rank, rank=0, start=0, stop=videos, workers=0, footage=footage,
                                 order=footage_order(config, footage, plan), noise=config.model.shape().num_tokens), videos)
    first = [(b.clips[:1], b.noise[:1]) for b in batches]
    clips, noise = (torch.cat(parts) for parts in zip(*first, strict=True))
    save_png(reconstruction(model, clips, training_mask(noise, model.shape)), run.picture)


def write_result(run: RunFolder, config: PretrainConfig, plan: Plan, log: AttemptLog) -> None:
    """Write result.json: the run is done."""
    metrics = read_metrics(run)
    identity = read_json(run.record) or {}
    write_json(run.result, {
        "schema": SCHEMA, "kind": "pretrain", "name": config.name, "data": config.data.name,
        "steps": plan.schedule.total_steps, "epochs": metrics[-1]["epoch"], "clips": plan.total_clips,
        "first_loss": metrics[0]["loss"], "last_loss": metrics[-1]["loss"],
        "train_s": sum(m["step_s"] + m["save_s"] for m in metrics), "goodput": log.totals(),
        "clips_per_s": sorted(m["clips_per_s"] for m in metrics)[len(metrics) // 2],
        "data_wait": sum(m["data_wait"] * m["step_s"] for m in metrics) / sum(m["step_s"] for m in metrics),
        **({"seen": metrics[-1]["seen"]} if "seen" in metrics[-1] else {}),
        "world_size": plan.world_size, "zero_stage": config.train.zero_stage, "precision": config.train.precision,
        "weights": run.weights.name, **weights_said(config), "commit": identity.get("commit"),
        "dirty": identity.get("dirty"), "job_id": job_id(), "finished": time.time(),
    })


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidmae.train.pretrain RUN_FOLDER")
    watchdog.end_process(main(sys.argv[1]))
