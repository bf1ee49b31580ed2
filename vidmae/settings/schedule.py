"""How long a run trains and at which learning rate: pure numbers, converted to steps in this one place.

A run is a list of phases. The learning rate of a step is a function of the step alone:

    lr   ______________            constant        /\\                warm-up, then cosine
        |   phase 0    |________   phase 1        /  `-.__
        0            n_0       n_0+n_1           0  w     n_0
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

EITHER = (("lr", "blr"),)
"""Settings of which one says what the other would say: the one that was given last counts (vidmae/settings/layers.py)."""


@dataclass(frozen=True)
class Duration:
    """A length of training: `1000 steps`, `339 epochs` or `2e6 clips`.

    A step is one optimizer update. An epoch shows every video `repeat_aug` times; with data.weight seconds it shows as many
    seconds as the footage has.
    """

    amount: float
    unit: str

    @staticmethod
    def parse(text: str) -> Duration:
        """Read `<number> steps|epochs|clips`.

        Raises:
            ValueError: The text is of another form; the message shows the form.
        """
        match = re.fullmatch(r"\s*([0-9.eE+_]+)\s*(step|epoch|clip)s?\s*", text)
        try:
            if match is None:
                raise ValueError
            return Duration(float(match[1]), match[2] + "s")
        except ValueError:
            raise ValueError(f"{text!r} is no duration; write for example 1000 steps, 339 epochs, 2e6 clips") from None

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) else self.amount
        return f"{amount} {self.unit}"

    def steps(self, *, clips_per_epoch: int, global_batch: int) -> int:
        """Whole optimizer steps that cover this length.

        Args:
            clips_per_epoch: See `runs.plan.Plan`.
            global_batch: Clips per step.
        """
        if self.unit == "steps":
            return math.ceil(self.amount)
        clips = self.amount * (clips_per_epoch if self.unit == "epochs" else 1)
        return math.ceil(round(clips / global_batch, 9))


@dataclass(frozen=True)
class Phase:
    """A stretch of training under one learning-rate schedule.

    Attributes:
        duration: How long it lasts.
        lr: Peak learning rate as it is; exactly one of lr and blr is set.
        blr: Peak learning rate per 256 clips: lr = blr * global_batch / 256.
        schedule: What follows the warm-up.
        warmup: Linear rise from 0, counted from the start of the phase.
        min_lr: Where cosine ends.
        reset_optimizer: Start the phase with a fresh optimizer state (the released two-phase recipe does).
    """

    duration: Duration = Duration(100, "epochs")
    lr: float | None = 1e-4
    blr: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: Duration = Duration(0, "steps")
    min_lr: float = 0.0
    reset_optimizer: bool = False

    def __post_init__(self) -> None:
        if (self.lr is None) == (self.blr is None):
            raise ValueError(f"lr is {self.lr} and blr is {self.blr}: set exactly one, the other is null (lr: null); on the "
                             "command line --set lr=... takes the place of the recipe's blr, and --set blr=... of its lr")
        if not (self.lr or 0) >= 0 or not (self.blr or 0) >= 0 or self.min_lr < 0:
            raise ValueError(f"lr {self.lr}, blr {self.blr} and min_lr {self.min_lr} must be 0 or more")
        if self.duration.amount <= 0:
            raise ValueError(f"duration is {self.duration}, allowed: more than 0")

    def peak_lr(self, global_batch: int) -> float:
        """The learning rate after the warm-up."""
        return self.lr if self.lr is not None else self.blr * global_batch / 256  # type: ignore[operator]


@dataclass(frozen=True)
class Schedule:
    """All phases of a run in steps.

    Attributes:
        phases: As in the recipe.
        ends: Per phase, the step at which it ends (excluded).
        warmups: Per phase, its warm-up in steps.
        peaks: Per phase, its peak learning rate.
    """

    phases: tuple[Phase, ...]
    ends: tuple[int, ...]
    warmups: tuple[int, ...]
    peaks: tuple[float, ...]

    @staticmethod
    def plan(phases: Sequence[Phase], *, clips_per_epoch: int, global_batch: int) -> Schedule:
        """Convert every duration to steps.

        Raises:
            ValueError: A warm-up is longer than its phase.
        """
        ends, warmups, total = [], [], 0
        for i, phase in enumerate(phases):
            steps = phase.duration.steps(clips_per_epoch=clips_per_epoch, global_batch=global_batch)
            warmup = phase.warmup.steps(clips_per_epoch=clips_per_epoch, global_batch=global_batch)
            if warmup > steps:
                raise ValueError(f"train.phases.{i}.warmup is {phase.warmup} = {warmup} steps, longer than its phase: "
                                 f"{phase.duration} = {steps} steps")
            total += steps
            ends.append(total)
            warmups.append(warmup)
        peaks = tuple(phase.peak_lr(global_batch) for phase in phases)
        return Schedule(tuple(phases), tuple(ends), tuple(warmups), peaks)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.ends[-1]

    def phase_at(self, step: int) -> int:
        """Index of the phase that step (0-based) belongs to."""
        return next(i for i, end in enumerate(self.ends) if step < end)

    def start_of(self, phase: int) -> int:
        """First step of a phase."""
        return self.ends[phase - 1] if phase else 0

    def lr_at(self, step: int) -> float:
        """Learning rate of the update that step (0-based) makes."""
        i = self.phase_at(step)
        done, length = step - self.start_of(i), self.ends[i] - self.start_of(i)
        warmup, peak, phase = self.warmups[i], self.peaks[i], self.phases[i]
        if done < warmup:
            return peak * (done + 1) / warmup
        if phase.schedule == "constant":
            return peak
        share = (done - warmup) / max(1, length - warmup)
        return phase.min_lr + (peak - phase.min_lr) * 0.5 * (1 + math.cos(math.pi * share))
