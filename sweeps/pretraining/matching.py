"""How long runs are trained that shall be compared. Pure numbers.

Fractions of a data set (sweeps/scaling.py), of which the whole is the data set, of several the first:

    steps    as many optimizer steps as the recipe gives for the whole: the same compute, ever more epochs of less data
    epochs   as many epochs as the recipe gives for the whole: ever fewer steps
    paper    as many epochs as the released run on that fraction

An image model that is matched to a video model (sweeps/pair.py):

    frames   it sees as many frames          clips    it sees as many clips, of one frame each
    steps    as many optimizer steps         flops    its training takes as many FLOPs

The runs of a grid (sweeps/pretrain.py), which see as many frames or clips, train as many steps, or take as many FLOPs as the
recipe as it is on the first data set. A single pass is as long as its footage at most; a grid with one is as long as that.

All phases of a recipe stay, with their learning rates: a cool-down at a tenth of the rate keeps its part of the run.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from vidmae.footage.history import Amount
from vidmae.settings.layers import ConfigError
from vidmae.settings.schedule import Duration, Phase, Schedule

Match = Literal["steps", "epochs", "paper"]
PairMatch = Literal["frames", "clips", "steps", "flops"]
GridMatch = Literal["steps", "clips", "frames", "flops", "none"]

# Epochs of the two phases. Source: Orhan et al. 2024 (arXiv 2402.00300 v3), released pretraining logs of child S. Those on
# fractions began with the weights of v1 (first number) and cooled down at 1e-5; all of it at 64 clips per step, where the
# run on the whole took 256: a run here has one batch, the recipe's.
PAPER_EPOCHS = {Fraction(1): (339, 15), Fraction(1, 10): (1774, 20), Fraction(1, 100): (7589, 20),
                Fraction(1, 1000): (16529, 20)}


def match_phases(phases: Sequence[Phase], match: Match, amount: Amount, *, whole: Schedule, videos: int, of_videos: int,
                 ) -> tuple[Phase, ...]:
    """The phases of a run on a fraction; those of the recipe as they are where nothing has to change.

    Args:
        phases: Of the recipe.
        match: What is equal; see the module.
        amount: The fraction, or the hours.
        whole: The recipe's phases on the whole, in steps.
        videos: Of the fraction; where an epoch is counted in seconds, its visits of a video in an epoch.
        of_videos: The same of the whole.
    Raises:
        ConfigError: There is no released run on so much, or the recipe has not two phases.
    """
    if match == "paper":
        return _as_released(phases, amount)
    if amount.share == 1 and videos == of_videos:
        return tuple(phases)
    steps = _lengths(whole)
    if match == "steps":
        return in_steps(phases, steps, whole.warmups)
    part = Fraction(videos, of_videos)
    return tuple(replace(phase, duration=_epochs(phase.duration, length * part), warmup=_epochs(phase.warmup, warmup * part))
                 for phase, length, warmup in zip(phases, steps, whole.warmups, strict=True))


def in_steps(phases: Sequence[Phase], lengths: Sequence[int], warmups: Sequence[int]) -> tuple[Phase, ...]:
    """The phases with lengths and warm-ups in optimizer steps."""
    return tuple(replace(phase, duration=_steps(length), warmup=_steps(warmup))
                 for phase, length, warmup in zip(phases, lengths, warmups, strict=True))


@dataclass(frozen=True)
class Shown:
    """What a pretraining shows its model, and what that costs.

    Attributes:
        steps: Optimizer steps.
        global_batch: Clips per step.
        clip_frames: Frames of a clip.
        clip_flops: FLOPs of training on a clip.
    """

    steps: int
    global_batch: int
    clip_frames: int
    clip_flops: float

    @property
    def amounts(self) -> dict[PairMatch, float]:
        """All that two runs can be matched by."""
        clips = self.steps * self.global_batch
        return {"frames": clips * self.clip_frames, "clips": clips, "steps": self.steps, "flops": clips * self.clip_flops}


def matched_phases(phases: Sequence[Phase], match: PairMatch, video: Shown, image: Shown, schedule: Schedule,
                   ) -> tuple[Phase, ...]:
    """The phases of an image model that shall see as much as a video model.

    Args:
        phases: Of the video model.
        match: What is equal.
        video: What the video model sees.
        image: What the image model sees in one step; its `steps` are 1.
        schedule: Of the video model, in steps.
    Returns:
        Phases in steps; each ends at the step that is nearest to its share. Those of the video model as they are where
        batch and steps are equal.
    Raises:
        ConfigError: A phase would have no step.
    """
    ratio = steps_each(match, video, image)
    if ratio == 1 and image.global_batch == video.global_batch:
        return tuple(phases)
    lengths = stretched(schedule, ratio)
    if not all(lengths):
        raise ConfigError(f"--match {match}: phase {lengths.index(0)} of the image model would have 0 steps, since one of "
                          f"its steps is {float(1 / ratio):.4g} steps of the video model (--image-set train.global_batch)")
    warmups = [min(length, nearest(warmup * ratio)) for length, warmup in zip(lengths, schedule.warmups, strict=True)]
    return in_steps(phases, lengths, warmups)


def steps_each(match: PairMatch, of: Shown, one: Shown) -> Fraction:
    """How many steps of a run are as much as a step of another.

    Args:
        match: As much of what.
        of: The other run.
        one: The run; its `steps` are 1.
    """
    return Fraction(of.amounts[match]) / of.steps / Fraction(one.amounts[match])


def stretched(schedule: Schedule, ratio: Fraction) -> list[int]:
    """Lengths of the phases of a schedule that is so many times as long, each end at the nearest step."""
    ends = [0, *(nearest(end * ratio) for end in schedule.ends)]
    return [end - start for start, end in itertools.pairwise(ends)]


def as_long(phases: Sequence[Phase], own: Schedule | None, like: Schedule, lengths: Sequence[int]) -> tuple[Phase, ...]:
    """Phases with these lengths in steps; a warm-up keeps its part of its phase. As they are where they are such a schedule.

    Args:
        phases: Of a run.
        own: The same in steps, on the data and with the batch of the run; None: they are no schedule there.
        like: The same in steps, on the data and with the batch of the run that others are matched to. Warm-ups are parts of
            these: on its own data a phase may be much shorter or longer, and its warm-up would be another part.
        lengths: As many, in steps.
    """
    warmups = [nearest(Fraction(warmup * length, max(1, steps)))
               for warmup, length, steps in zip(like.warmups, lengths, _lengths(like), strict=True)]
    if own and (_lengths(own), list(own.warmups)) == (list(lengths), warmups):
        return tuple(phases)
    return in_steps(phases, lengths, warmups)


def _lengths(schedule: Schedule) -> list[int]:
    """Steps of each phase."""
    return [end - schedule.start_of(i) for i, end in enumerate(schedule.ends)]


def nearest(steps: Fraction) -> int:
    """The nearest whole number; of a half the higher one."""
    return math.floor(steps + Fraction(1, 2))


def _as_released(phases: Sequence[Phase], amount: Amount) -> tuple[Phase, ...]:
    if amount.share is None:
        raise ConfigError("--match paper is not allowed with --hours: released runs are on fractions; use steps or epochs")
    epochs = PAPER_EPOCHS.get(amount.share)
    if epochs is None:
        raise ConfigError(f"--fractions {amount.text} is no fraction of the released runs, allowed with --match paper: "
                          "0.001, 0.01, 0.1, 1")
    if len(phases) != len(epochs):
        raise ConfigError("--match paper needs a recipe of two phases, as the released runs have; this one has "
                          f"{len(phases)} (--recipe, --set train.phases=...)")
    return tuple(replace(phase, duration=Duration(length, "epochs")) for phase, length in zip(phases, epochs, strict=True))


def _steps(amount: int | Fraction) -> Duration:
    return Duration(math.ceil(amount), "steps")


def _epochs(duration: Duration, steps: Fraction) -> Duration:
    """Epochs stay as they are; steps and clips become the share of their steps that the data are of the whole."""
    return duration if duration.unit == "epochs" else _steps(steps)
