"""How long each fraction of a data set is trained, so that runs on little and on much can be compared. Pure numbers.

    steps    as many optimizer steps as the recipe gives for the whole: the same compute, ever more epochs of less data
    epochs   as many epochs as the recipe gives for the whole: ever fewer steps
    paper    as many epochs as the released run on that fraction

The whole is the data set, of several the first. All phases of a recipe stay, with their learning rates: a cool-down at a
tenth of the rate keeps its part of the run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from vidmae.footage.history import Amount
from vidmae.settings.layers import ConfigError
from vidmae.settings.schedule import Duration, Phase, Schedule

Match = Literal["steps", "epochs", "paper"]

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
    steps = [end - whole.start_of(i) for i, end in enumerate(whole.ends)]
    if match == "steps":
        return tuple(replace(phase, duration=_steps(length), warmup=_steps(warmup))
                     for phase, length, warmup in zip(phases, steps, whole.warmups, strict=True))
    part = Fraction(videos, of_videos)
    return tuple(replace(phase, duration=_epochs(phase.duration, length * part), warmup=_epochs(phase.warmup, warmup * part))
                 for phase, length, warmup in zip(phases, steps, whole.warmups, strict=True))


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
