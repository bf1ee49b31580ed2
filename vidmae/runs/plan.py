"""Derived numbers of a run: computed once here, shown by the launcher, used by the training loop. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass

from vidmae.settings.config import RunConfig
from vidmae.settings.schedule import Schedule


def divisors(n: int) -> list[int]:
    """All divisors of n, ascending."""
    return [d for d in range(1, n + 1) if n % d == 0]


def split_batch(global_batch: int, world_size: int, max_micro_batch: int) -> tuple[int, int]:
    """Share a global batch among ranks.

    Args:
        global_batch: Clips per optimizer step over all ranks.
        world_size: Ranks (GPUs).
        max_micro_batch: Clips that a rank takes at a time, at most.
    Returns:
        micro_batch and grad_accum with world_size * micro_batch * grad_accum == global_batch; micro_batch is the
        largest divisor of the rank's share that is no larger than `max_micro_batch`.
    Raises:
        ValueError: The global batch does not divide by the ranks; the message gives the nearest that do.
    """
    if global_batch % world_size:
        below = global_batch // world_size * world_size
        nearest = [n for n in (below, below + world_size) if n > 0]
        ranks = [d for d in divisors(global_batch) if d < world_size][-1:] + \
                [d for d in divisors(global_batch) if d > world_size][:1]
        raise ValueError(
            f"{world_size} ranks (nodes x GPUs per node) do not divide train.global_batch {global_batch}; nearest "
            f"batches: {', '.join(map(str, nearest))} (--set train.global_batch=...), nearest rank counts: "
            f"{', '.join(map(str, ranks))} (--nodes, --gpus-per-node)")
    share = global_batch // world_size
    micro_batch = max(d for d in divisors(share) if d <= max_micro_batch)
    return micro_batch, share // micro_batch


@dataclass(frozen=True)
class Plan:
    """What a configuration means for a number of videos and ranks.

    Attributes:
        world_size: Ranks.
        micro_batch: Clips per rank and forward pass.
        grad_accum: Forward passes per optimizer step.
        videos: Videos of the manifest.
        clips_per_epoch: Visits of an epoch times repeat_aug; a visit is one opening of a video.
        schedule: Phases in steps.
        steps_per_epoch: Optimizer steps of an epoch; need not be whole.
        total_clips: Clips seen by the whole run.
    """

    world_size: int
    micro_batch: int
    grad_accum: int
    videos: int
    clips_per_epoch: int
    schedule: Schedule
    steps_per_epoch: float
    total_clips: int


def make_plan(config: RunConfig, *, videos: int, world_size: int, visits: int | None = None, once: bool = False) -> Plan:
    """Work out the derived numbers.

    Args:
        config: The settings.
        videos: Of the manifest.
        world_size: Ranks.
        visits: Openings of a video in an epoch; None is one for each.
        once: The run may show no more than one epoch, which is rounded down to whole steps (data.order single-pass).
    Raises:
        ValueError: The batch does not divide by the ranks, the manifest is empty, or more than one epoch is asked for where
            there is only one.
    """
    if videos < 1:
        raise ValueError("the manifest has 0 videos; make one with: python jobs/prepare.py manifest FOLDER")
    micro_batch, grad_accum = split_batch(config.train.global_batch, world_size, config.train.most_per_pass)
    global_batch, clips_per_epoch = config.train.global_batch, (visits or videos) * config.data.repeat_aug
    if once:
        clips_per_epoch = clips_per_epoch // global_batch * global_batch
        if not clips_per_epoch:
            raise ValueError(f"data.order single-pass: the footage has fewer clips than train.global_batch {global_batch}")
    schedule = Schedule.plan(config.train.phases, clips_per_epoch=clips_per_epoch, global_batch=global_batch)
    if once and schedule.total_steps * global_batch > clips_per_epoch:
        raise ValueError("data.order single-pass shows each stretch of footage once: train.phases are "
                         f"{schedule.total_steps} steps in all, allowed: up to {clips_per_epoch // global_batch}, 1 epoch")
    return Plan(
        world_size=world_size, micro_batch=micro_batch, grad_accum=grad_accum, videos=videos,
        clips_per_epoch=clips_per_epoch, schedule=schedule, steps_per_epoch=clips_per_epoch / global_batch,
        total_clips=schedule.total_steps * global_batch)
