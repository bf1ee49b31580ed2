"""Pretrain a video MAE in a run folder that the launcher made: `python -m vidmae.pretrain RUN` on every rank.

The state of a run is its step. Data order, crops, masks and learning rate are functions of (seed, step), so a run that
continues from a checkpoint draws what it would have drawn without the stop.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vidmae import checkpoint, dist, preempt, watchdog
from vidmae.attempts import AttemptLog
from vidmae.build import build_model, clip_loader, flops_per_clip, peak_flops
from vidmae.config import PretrainConfig
from vidmae.engine import Engine, NonFiniteError
from vidmae.groups import param_groups
from vidmae.layers import to_dict
from vidmae.manifest import Manifest
from vidmae.masking import mask_from_noise
from vidmae.metrics import MetricsWriter, peak_memory_gib, read_metrics
from vidmae.nonfinite import leave_out, skipped_windows, window_of
from vidmae.pictures import reconstruction, save_png
from vidmae.plan import Plan, make_plan
from vidmae.program import run_program, say
from vidmae.quarantine import Quarantine, Substitution
from vidmae.record import SCHEMA, RunFolder, job_id, read_json, touch_heartbeat, write_json
from vidmae.weights import load_weights, save_safetensors

SAMPLING = ("sampling_rate", "target_fps", "decoder")  # of the data settings: what a user of the weights must know
SHOWN_NORMS = 20  # gradient norms before a step that was not finite, in nonfinite.jsonl


def main(run_path: str) -> int:
    """Train the run to its end, or until a signal asks to stop; the exit code (see `program.run_program`)."""
    return run_program(run_path, train)


def train(run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, started: float) -> bool:
    """Train from the newest checkpoint on; go back to it where a step was not finite. Collective.

    Returns:
        True once the last step is done and exported, False where a signal asked to stop and the state is saved.
    """
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    log = None
    if ranks.is_main:
        touch_heartbeat(run, state="starting")
        log = AttemptLog(run, started=started, reached=max((m["step"] for m in read_metrics(run)), default=0))
    manifest = Manifest.read(Path(config.data.manifest))
    while True:
        trainer = Trainer(run, config, ranks, manifest, log)
        try:
            reached = trainer.run_to_end()
            break
        except BadWindowError as error:
            if len(trainer.skipped) >= config.recovery.max_skips:
                raise NonFiniteError(f"{error}; {len(trainer.skipped)} windows of data were left out before, which is all "
                                     "that recovery.max_skips allows") from error
            if ranks.is_main:
                note_bad_window(run, error)
            say(ranks, f"{error}; going back to the newest checkpoint and leaving its clips out")
        del trainer
        gc.collect()  # the engine holds itself in circles
        if ranks.device.type == "cuda":
            torch.cuda.empty_cache()
    if log is not None:
        log.write("done" if reached else "preempted")
        if reached:
            finish(run, config, trainer.plan, manifest, log)
    ranks.barrier()
    return reached


class Trainer:
    """A run from its newest checkpoint on: what a roll-back makes anew. All methods are collective.

    Args:
        run: The run folder.
        config: Its configuration.
        ranks: All ranks.
        manifest: The videos.
        log: Account of this attempt; on rank 0 alone.
    Attributes:
        plan: Derived numbers.
        skipped: Windows of data that are left out.
    """

    def __init__(self, run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, manifest: Manifest,
                 log: AttemptLog | None) -> None:
        watchdog.expect_within(config.recovery.start_limit_s)
        self.config, self.ranks, self.log, self.run = config, ranks, log, run
        self.plan = plan = make_plan(config, videos=len(manifest), world_size=ranks.world_size)
        self.total_steps = plan.schedule.total_steps
        self.skipped: tuple[int, ...] = ranks.from_main(skipped_windows(run))
        model = build_model(config)
        if config.train.init:
            load_weights(model, Path(config.train.init))
        self.engine = Engine(model, param_groups(model, config.train.weight_decay), config.train, ranks,
                             micro_batch=plan.micro_batch, grad_accum=plan.grad_accum)
        self.start = checkpoint.restore(self.engine, run, config.train, ranks, self.say)
        self.saver = checkpoint.Saver(self.engine, run, config.train, ranks, keep=config.checkpoint, say=self.say)
        self.saver.prepare(self.start, self.total_steps)
        peak = peak_flops(config, ranks)
        self.peak_clips_per_s = peak * ranks.world_size / flops_per_clip(config) if peak else None
        self.say(f"training on {ranks.world_size} x {device_name(ranks.device)}, {config.train.precision}, ZeRO "
                 f"{config.train.zero_stage}, {plan.micro_batch} clips x {plan.grad_accum} per rank and step"
                 + (f", peak {peak / 1e9:.0f} GFLOP/s per rank" if peak else ""))
        self.writer = None
        if log is not None:
            log.begin(self.start)
            self.writer = MetricsWriter(run, log, start_step=self.start, total_steps=self.total_steps,
                                        log_every_s=config.log.every_s, tensorboard=config.log.tensorboard)
        self.quarantine = Quarantine(run, start_step=self.start, max_bad_pct=config.data.max_bad_pct,
                                     videos_per_step=config.train.global_batch / config.data.repeat_aug,
                                     is_main=ranks.is_main, say=self.say)
        self.loader = iter(clip_loader(config, manifest, plan, rank=ranks.rank, start=self.start, stop=self.total_steps,
                                       skipped=self.skipped, unreadable=self.quarantine.unreadable,
                                       workers=config.data.workers,
                                       pin_memory=ranks.device.type == "cuda"))

    def say(self, text: str) -> None:
        """A line in rank 0's log."""
        say(self.ranks, text)

    def run_to_end(self) -> bool:
        """Train to the last step and export; False where a signal stopped it before, with everything saved.

        Raises:
            BadWindowError: A step was not finite; no weight has changed, and no save is under way.
        """
        limits, lost_s = self.config.recovery, 0.0
        try:
            for step in range(self.start, self.total_steps):
                record, stop, busy = self.train_step(step)
                watchdog.expect_within(limits.start_limit_s)
                if self.writer is not None:
                    self.writer.write({**record, "save_s": lost_s})
                lost_s = self.save(step + 1, stop=stop, busy=busy)
                if stop and step + 1 < self.total_steps:
                    self.say(f"stopping after step {step + 1}: {preempt.received() or 'another rank'} asked for it")
                    return False
                watchdog.expect_within(limits.step_limit_s)
        except BadWindowError:
            self.saver.finish()
            raise
        finally:
            if self.writer is not None:
                self.writer.close()
        watchdog.expect_within(limits.start_limit_s)
        export(self.engine, self.run, self.config, self.ranks, self.total_steps)
        return True

    def save(self, done: int, *, stop: bool, busy: float) -> float:
        """Save what is due after `done` updates; seconds that training lost."""
        lost_s = self.saver.settle(busy)
        if stop or done == self.total_steps:
            lost_s += self.saver.save(done)
        elif done % self.config.checkpoint.every_steps == 0:
            lost_s += self.saver.begin(done)
        if self.log is not None:
            self.log.saved(lost_s, self.saver.slowest_s)
        return lost_s

    def train_step(self, step: int) -> tuple[dict[str, Any], bool, float]:
        """One optimizer step.

        Returns:
            Its line of metrics.jsonl, whether a signal asked any rank to stop, and the share of ranks that still write a
            checkpoint.
        Raises:
            BadWindowError: Loss or gradient is not finite, on every rank alike; no weight has changed.
        """
        engine, plan, config, device = self.engine, self.plan, self.config, self.ranks.device
        phase = plan.schedule.phase_at(step)
        if step and step == plan.schedule.start_of(phase) and plan.schedule.phases[phase].reset_optimizer:
            engine.reset_optimizer()
        lr = plan.schedule.lr_at(step)
        engine.set_lr(lr)
        began, waited_s, rows = time.perf_counter(), 0.0, []
        replaced: list[Substitution] = []
        for _ in range(plan.grad_accum):
            asked = time.perf_counter()
            batch = next(self.loader)
            waited_s += time.perf_counter() - asked
            rows += batch.rows.tolist()
            replaced += batch.substituted
            clips, noise = (tensor.to(device, non_blocking=True) for tensor in (batch.clips, batch.noise))
            engine.backward(clips, mask_from_noise(noise, config.model.mask_ratio))
        losses, stop, clips_replaced = engine.losses, float(preempt.received() is not None), sum(s.clips for s in replaced)
        try:
            loss, grad_norm, (waited_s, stops, busy, substituted) = engine.update(
                extra=[waited_s, stop, self.saver.busy, clips_replaced])
        except NonFiniteError as error:
            mine = {"rank": self.ranks.rank, "rows": rows, "losses": [str(x) for x in losses.tolist()]}
            raise BadWindowError(str(error), step, window_of(step, self.skipped), self.ranks.gather(mine)) from error
        if substituted:
            self.quarantine.add(step + 1, self.ranks.gather(replaced))
        step_s = time.perf_counter() - began
        clips_per_s = config.train.global_batch / step_s
        return {
            "step": step + 1, "epoch": (step + 1) / plan.steps_per_epoch, "phase": phase, "loss": loss, "lr": lr,
            "grad_norm": grad_norm, "step_s": step_s, "data_wait": min(1.0, waited_s / step_s),
            "clips_per_s": clips_per_s, "mfu": clips_per_s / self.peak_clips_per_s if self.peak_clips_per_s else None,
            "peak_gib": peak_memory_gib(device), "skipped": engine.skipped_steps,
            "substituted": round(substituted * self.ranks.world_size),
        }, stops > 0, busy


class BadWindowError(NonFiniteError):
    """A step's loss or gradient is not finite.

    Attributes:
        step: Updates done before it.
        window: Its window of data.
        details: What each rank had: manifest rows, and the loss of each micro-batch as text.
    """

    def __init__(self, why: str, step: int, window: int, details: list[dict[str, Any]]) -> None:
        super().__init__(f"step {step + 1}, data window {window}: {why}")
        self.why, self.step, self.window, self.details = why, step, window, details


def note_bad_window(run: RunFolder, error: BadWindowError) -> None:
    """Write down what a step that was not finite was made of, and leave its window out from now on."""
    before = [{key: m[key] for key in ("step", "loss", "grad_norm")} for m in read_metrics(run)[-SHOWN_NORMS:]]
    leave_out(run, error.window, error.why, {"step": error.step + 1, "ranks": error.details, "before": before})


def finish(run: RunFolder, config: PretrainConfig, plan: Plan, manifest: Manifest, log: AttemptLog) -> None:
    """What rank 0 does once all steps are done; result.json comes last."""
    if config.log.picture:
        draw(run, config, manifest)
    write_result(run, config, plan, log)
    steps = plan.schedule.total_steps
    touch_heartbeat(run, state="done", step=steps, total_steps=steps)


def export(engine: Engine, run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, step: int) -> None:
    """Write the float32 weights under the released key names. Collective."""
    state = {name: tensor for name, tensor in engine.full_parameters() if ranks.is_main}
    if ranks.is_main:
        settings = to_dict(config)
        save_safetensors(state, run.weights, {"model": config.model.name, "step": str(step),
                                              "config": json.dumps(settings["model"]),
                                              "sampling": json.dumps({key: settings["data"][key] for key in SAMPLING})})


def draw(run: RunFolder, config: PretrainConfig, manifest: Manifest, *, videos: int = 3) -> None:
    """Write the reconstruction picture: one clip of each of the first videos that the run would show next."""
    model = build_model(config).eval()
    load_weights(model, run.weights)
    alone = replace(config, train=replace(config.train, global_batch=config.data.repeat_aug, micro_batch=10**9))
    plan = make_plan(alone, videos=len(manifest), world_size=1)
    batches = islice(clip_loader(alone, manifest, plan, rank=0, start=0, stop=videos, workers=0), videos)
    first = [(b.clips[:1], b.noise[:1]) for b in batches]
    clips, noise = (torch.cat(parts) for parts in zip(*first, strict=True))
    save_png(reconstruction(model, clips, mask_from_noise(noise, config.model.mask_ratio)), run.picture)


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
        "world_size": plan.world_size, "zero_stage": config.train.zero_stage, "precision": config.train.precision,
        "weights": run.weights.name, "commit": identity.get("commit"), "dirty": identity.get("dirty"),
        "job_id": job_id(), "finished": time.time(),
    })


def device_name(device: torch.device) -> str:
    """What people call the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidmae.pretrain RUN_FOLDER")
    watchdog.end_process(main(sys.argv[1]))
