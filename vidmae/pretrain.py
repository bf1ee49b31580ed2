"""Pretrain a video MAE in a run folder that the launcher made: `python -m vidmae.pretrain RUN` on every rank.

The state of a run is its step. Data order, crops, masks and learning rate are functions of (seed, step), so a run that
continues from a checkpoint draws what it would have drawn without the stop.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from vidmae import checkpoint, dist
from vidmae.build import build_model, clip_loader, flops_per_clip, peak_flops
from vidmae.config import PretrainConfig
from vidmae.engine import Engine
from vidmae.layers import load, to_dict
from vidmae.loader import Batch
from vidmae.manifest import Manifest
from vidmae.masking import mask_from_noise
from vidmae.metrics import MetricsWriter, peak_memory_gib, read_metrics
from vidmae.model import param_groups
from vidmae.pictures import reconstruction, save_png
from vidmae.plan import Plan, make_plan
from vidmae.record import (
    SCHEMA,
    RunFolder,
    RunLockedError,
    job_id,
    locked,
    read_json,
    touch_heartbeat,
    write_json,
)
from vidmae.weights import load_weights, save_safetensors

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(run_path: str) -> int:
    """Train the run to its end.

    Args:
        run_path: The run folder.
    Returns:
        0 done, 1 failed, 2 another job writes here or the configuration cannot run.
    """
    run = RunFolder(Path(run_path))
    ranks = None
    try:
        config = load(PretrainConfig, run.config)
        ranks = dist.init(config.train.device)
        if ranks.from_main(run.result.exists()):
            say(ranks, f"{run.result} exists: this run is done")
            return EXIT_OK
        _with_lock(run, config, ranks)
        return EXIT_OK
    except RunLockedError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USAGE
    except Exception as error:
        _record_failure(run, error, ranks)
        return EXIT_USAGE if isinstance(error, ValueError) else EXIT_FAILED
    finally:
        dist.close()


def _with_lock(run: RunFolder, config: PretrainConfig, ranks: dist.Ranks) -> None:
    """Rank 0 holds the lock for all; the others learn whether it got it."""
    if not ranks.is_main:
        if problem := ranks.from_main(None):
            raise RunLockedError(problem)
        return train(run, config, ranks)
    told = False
    try:
        with locked(run):
            run.failure.unlink(missing_ok=True)
            ranks.from_main(None)
            told = True
            train(run, config, ranks)
    except RunLockedError as error:
        if not told:
            ranks.from_main(str(error))
        raise


def train(run: RunFolder, config: PretrainConfig, ranks: dist.Ranks) -> None:
    """Set up, train from the newest checkpoint to the last step, export. Collective."""
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    if ranks.is_main:
        touch_heartbeat(run, state="starting")
    manifest = Manifest.read(Path(config.data.manifest))
    plan = make_plan(config, videos=len(manifest), world_size=ranks.world_size)
    total_steps = plan.schedule.total_steps
    model = build_model(config)
    if config.train.init:
        load_weights(model, Path(config.train.init))
    engine = Engine(model, param_groups(model, config.train.weight_decay), config.train, ranks,
                    micro_batch=plan.micro_batch, grad_accum=plan.grad_accum)
    start = checkpoint.restore(engine, run, config.train, ranks, lambda text: say(ranks, text))
    peak = peak_flops(config, ranks)
    peak_clips_per_s = peak * ranks.world_size / flops_per_clip(config) if peak else None
    say(ranks, f"training on {ranks.world_size} x {device_name(ranks.device)}, {config.train.precision}, ZeRO "
               f"{config.train.zero_stage}, {plan.micro_batch} clips x {plan.grad_accum} per rank and step"
               + (f", peak {peak / 1e9:.0f} GFLOP/s per rank" if peak else ""))
    writer = MetricsWriter(run, start_step=start, total_steps=total_steps, log_every_s=config.log.every_s,
                           tensorboard=config.log.tensorboard) if ranks.is_main else None
    loader = iter(clip_loader(config, manifest, plan, rank=ranks.rank, start=start, stop=total_steps,
                              workers=config.data.workers, pin_memory=ranks.device.type == "cuda"))
    started, save_s = time.monotonic(), 0.0
    for step in range(start, total_steps):
        record = train_step(step, loader, engine, config, plan, ranks, peak_clips_per_s)
        if writer is not None:
            writer.write({**record, "save_s": save_s})
        done, save_s = step + 1, 0.0
        if done % config.checkpoint.every_steps == 0 or done == total_steps:
            save_s = checkpoint.save(engine, run, done, config.train, ranks, keep=config.checkpoint)
            say(ranks, f"saved step {done} in {save_s:.1f} s")
    if writer is not None:
        writer.close()
    export(engine, run, config, ranks, total_steps)
    if ranks.is_main:
        if config.log.picture:
            draw(run, config, manifest)
        write_result(run, config, plan, wall_s=time.monotonic() - started)
        touch_heartbeat(run, state="done", step=total_steps, total_steps=total_steps)
    ranks.barrier()


def train_step(step: int, loader: Iterator[Batch], engine: Engine, config: PretrainConfig, plan: Plan,
               ranks: dist.Ranks, peak_clips_per_s: float | None) -> dict[str, Any]:
    """One optimizer step; its line of metrics.jsonl."""
    schedule = plan.schedule
    phase = schedule.phase_at(step)
    if step and step == schedule.start_of(phase) and schedule.phases[phase].reset_optimizer:
        engine.reset_optimizer()
    lr = schedule.lr_at(step)
    engine.set_lr(lr)
    began, waited_s = time.perf_counter(), 0.0
    for _ in range(plan.grad_accum):
        asked = time.perf_counter()
        batch = next(loader)
        waited_s += time.perf_counter() - asked
        clips = batch.clips.to(ranks.device, non_blocking=True)
        noise = batch.noise.to(ranks.device, non_blocking=True)
        engine.backward(clips, mask_from_noise(noise, config.model.mask_ratio))
    loss, grad_norm, (waited_s,) = engine.update(extra=[waited_s])
    step_s = time.perf_counter() - began
    clips_per_s = config.train.global_batch / step_s
    return {
        "step": step + 1, "epoch": (step + 1) / plan.steps_per_epoch, "phase": phase, "loss": loss, "lr": lr,
        "grad_norm": grad_norm, "step_s": step_s, "data_wait": min(1.0, waited_s / step_s),
        "clips_per_s": clips_per_s, "mfu": clips_per_s / peak_clips_per_s if peak_clips_per_s else None,
        "peak_gib": peak_memory_gib(ranks.device), "skipped": engine.skipped_steps,
    }


def export(engine: Engine, run: RunFolder, config: PretrainConfig, ranks: dist.Ranks, step: int) -> None:
    """Write the float32 weights under the released key names. Collective."""
    state = {name: tensor for name, tensor in engine.full_parameters() if ranks.is_main}
    if ranks.is_main:
        save_safetensors(state, run.weights, {"model": config.model.name, "step": str(step),
                                              "config": json.dumps(to_dict(config)["model"])})


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


def write_result(run: RunFolder, config: PretrainConfig, plan: Plan, *, wall_s: float) -> None:
    """Write result.json: the run is done."""
    metrics = read_metrics(run)
    identity = read_json(run.record) or {}
    write_json(run.result, {
        "schema": SCHEMA, "kind": "pretrain", "name": config.name, "data": config.data.name,
        "steps": plan.schedule.total_steps, "epochs": metrics[-1]["epoch"], "clips": plan.total_clips,
        "first_loss": metrics[0]["loss"], "last_loss": metrics[-1]["loss"],
        "train_s": sum(m["step_s"] + m["save_s"] for m in metrics), "last_attempt_s": wall_s,
        "clips_per_s": sorted(m["clips_per_s"] for m in metrics)[len(metrics) // 2],
        "data_wait": sum(m["data_wait"] * m["step_s"] for m in metrics) / sum(m["step_s"] for m in metrics),
        "world_size": plan.world_size, "zero_stage": config.train.zero_stage, "precision": config.train.precision,
        "weights": run.weights.name, "commit": identity.get("commit"), "dirty": identity.get("dirty"),
        "job_id": job_id(), "finished": time.time(),
    })


def device_name(device: torch.device) -> str:
    """What people call the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def say(ranks: dist.Ranks, text: str) -> None:
    """A line in rank 0's log."""
    if ranks.is_main:
        print(text, flush=True)


def _record_failure(run: RunFolder, error: Exception, ranks: dist.Ranks | None) -> None:
    rank = ranks.rank if ranks else int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))
    traceback.print_exc()
    print(f"error: rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    if not run.failure.exists():  # the first rank that fails knows why; the others fail because of it
        write_json(run.failure, {"schema": SCHEMA, "job_id": job_id(), "time": time.time(), "rank": rank,
                                 "error": type(error).__name__, "message": str(error)})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m vidmae.pretrain RUN_FOLDER")
    sys.exit(main(sys.argv[1]))
