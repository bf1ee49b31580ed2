"""A pretraining run of a study, as jobs/pretrain.py would have it, and how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.place.experiment import Experiment
from jobs.standing.runs import State, states
from sweeps.grid.states import kind_of
from vidmae.runs.cost import train_flops_per_clip
from vidmae.runs.record import RunFolder


@dataclass(frozen=True)
class Pretraining:
    """A pretraining run.

    Attributes:
        experiment: All of it.
        kind: How far it is; see `sweeps.grid.states.Standing`.
        state: Of its newest job; None where it never had one.
    """

    experiment: Experiment
    kind: str = "new"
    state: State | None = None

    @property
    def run(self) -> RunFolder:
        """Its folder."""
        return self.experiment.run

    @property
    def steps(self) -> int:
        """Optimizer steps; 0 where the configuration cannot run."""
        return self.experiment.plan.schedule.total_steps if self.experiment.plan else 0

    @property
    def epochs(self) -> float:
        """How often it sees its data."""
        plan = self.experiment.plan
        return plan.total_clips / plan.clips_per_epoch if plan else 0.0

    @property
    def flops(self) -> float:
        """Of the whole run."""
        plan = self.experiment.plan
        return plan.total_clips * train_flops_per_clip(self.experiment.config.model.shape()) if plan else 0.0


P = TypeVar("P", bound=Pretraining)


def look_at(runs: Sequence[P]) -> tuple[list[P], list[str]]:
    """The runs with how far each is, and what could not be asked."""
    found, problems = states([one.run for one in runs if one.run.record.exists()])
    known = {state.run.path: state for state in found}
    return [replace(one, kind=kind_of(known.get(one.run.path)), state=known.get(one.run.path)) for one in runs], problems
