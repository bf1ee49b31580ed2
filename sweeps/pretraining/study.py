"""What a study means: the pretraining runs, the few-shot cells on each, and the analysis at the end."""

from __future__ import annotations

import argparse
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.place.experiment import Place, problems
from jobs.standing.runs import submissions
from sweeps.grid.checkpoints import init_of, random_weights, short_names
from sweeps.grid.grid import Init
from sweeps.grid.states import Standing, chosen
from sweeps.pretraining.points import Design, Kind, Point
from sweeps.pretraining.pretrain_jobs import kinds_again
from sweeps.pretraining.pretraining_run import look_at
from sweeps.pretraining.study_flags import fewshot_args
from sweeps.run import sweep_plan
from sweeps.run.array_submission import Say
from sweeps.run.show import Unit
from sweeps.run.sweep_plan import Plan
from vidmae.runs.record import CANCELLED
from vidmae.settings.layers import ConfigError


@dataclass(frozen=True)
class Study:
    """A command, resolved.

    Attributes:
        kind: Which command it is of.
        place: Where it runs.
        design: All pretraining runs, with how far they are.
        cells: The few-shot sweep on them; what it submits are cells whose run is done, active or submitted by this call.
        unit: Of the cost of pretraining.
        again: Kinds of pretraining runs that this call submits.
        commands: Scripts of the analysis, with their arguments.
        fewshot: Flags of the few-shot sweep.
    """

    kind: Kind
    place: Place
    design: Design
    cells: Plan
    unit: Unit
    again: frozenset[str]
    commands: tuple[tuple[str, ...], ...]
    fewshot: argparse.Namespace

    @property
    def points(self) -> Sequence[Point]:
        """All pretraining runs."""
        return self.design.points

    @property
    def submits(self) -> list[Point]:
        """The pretraining runs that this call submits."""
        return [point for point in self.points if point.kind in self.again]

    @property
    def ended(self) -> list[Point]:
        """The pretraining runs that ended without a result, or of which nobody knows, and that are not submitted again."""
        return [point for point in self.points if point.kind not in ("done", "active", *self.again)]

    @property
    def signature(self) -> str:
        """Eight hex digits of all runs, all cells and what is made of them."""
        runs = sorted(point.experiment.signature for point in self.points)
        cells = sorted(s.cell.signature for s in self.cells.standings)
        return hashlib.blake2b(repr((runs, cells, self.commands)).encode(), digest_size=4).hexdigest()

    def cells_of(self, point: Point) -> list[Standing]:
        """The cells that start from a pretraining run."""
        return [s for s in self.cells.standings if s.cell.source == content_of(point)]


def resolve(args: argparse.Namespace, command: Sequence[str], place: Place, say: Say, kind: Kind,
            design: Design | None = None) -> Study:
    """Everything that the command means; of what it needs only k-shot subsets are written, and not in a dry run.

    Args:
        args: Of sweeps/scaling.py or sweeps/pretrain.py.
        command: What the user typed, for the record.
        place: Where it runs.
        say: Tells people.
        kind: Which command it is.
        design: All runs as they are once pretraining is submitted.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    again = kinds_again(args.retry) if design is None else frozenset[str]()
    if design is None:
        design = kind.design(args, place)
        looked, unasked = look_at(design.points)
        design = replace(design, points=looked)
        for problem in unasked:
            say(f"note: {problem}")
    found = list(design.points)
    if wrong := list(dict.fromkeys(problem for point in found for problem in problems(point.experiment))):
        raise ConfigError("\nerror: ".join(wrong))
    starts = {content_of(point): _submitted_s(point, again) for point in found} | {"": 0.0}  # random weights wait for none

    def choose(standings: Sequence[Standing]) -> list[Standing]:
        picked = chosen([_without_parent(s, starts[s.cell.source]) for s in standings], args.retry)
        return [s for s in picked if starts[s.cell.source] is not None]

    fewshot = fewshot_args(args, place)
    inits = _inits(found)
    cells = sweep_plan.resolve(fewshot, command, place, say, choose=choose,
                               inits=[*inits, *(random_weights(inits) if kind.scratch else ())])
    first = found[0].experiment
    unit = Unit(on_cpu=first.on_cpu, gpu_type=first.resources.gpu_type)
    return Study(kind, place, design, cells, unit, again, kind.commands(args, design), fewshot)


def content_of(point: Point) -> str:
    """What the cells of a pretraining run know it by."""
    return f"run:{point.experiment.signature}"


def _inits(points: Sequence[Point]) -> list[Init]:
    """The checkpoints, finished or not; of a run without a job the run's name stands for the job's id."""
    found = []
    for point in points:
        after = f"<{point.run.path.name}>"
        if point.kind == "done":
            after = ""
        elif point.kind == "active" and point.state:
            after = point.state.job_id
        e = point.experiment
        found.append(replace(init_of(point.run, e.signature, e.config, after), grid=e.grid))
    return short_names(found)


def _submitted_s(point: Point, again: frozenset[str]) -> float | None:
    """When a pretraining run was last submitted, in seconds since 1970; None where its cells cannot start."""
    if point.kind in again:
        return math.inf
    if point.kind not in ("done", "active"):
        return None
    return float((submissions(point.run) or [{}])[-1].get("submitted_at_s", 0.0))


def _without_parent(s: Standing, parent_s: float | None) -> Standing:
    """A cell that Slurm cancelled before it began, since the pretraining job that it waited for had failed, is as good as
    new once that run was submitted again."""
    state = s.state
    if s.kind != "missing" or not state or state.state != "CANCELLED" or state.log.exists() or parent_s is None:
        return s
    asked: Mapping[str, Any] = submissions(s.run)[-1]
    by_hand = (s.run.submit / state.job_id / CANCELLED).exists()
    return s if by_hand or float(asked.get("submitted_at_s", 0.0)) > parent_s else replace(s, kind="new")
