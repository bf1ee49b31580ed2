"""What a few-shot command means: cells, how far they are, what they cost, and the arrays that are missing."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.place.avoided import avoided
from jobs.place.catalogue import environment_catalogue
from jobs.place.experiment import (
    Place,
    Setting,
    device_problems,
    folder_problems,
    partition_problems,
    read_profile,
)
from jobs.place.scheduler import slurm
from sweeps.grid.any_cell import AnyCell
from sweeps.grid.batches import Batch, Classes, make_batches, make_classes
from sweeps.grid.checkpoints import TAKEN, find_inits
from sweeps.grid.estimate import Estimate, check_batch, conv_said, estimate
from sweeps.grid.grid import KIND, PROBES, SEVERAL_FRAMES, Cell, Init, LabelledSet, Settings, make_grid, parse_vary
from sweeps.grid.labelled import find_sets, find_subsets, one_form_each
from sweeps.grid.states import Standing, chosen, look
from sweeps.run.array_submission import NO_LIMIT, Say, Sweep
from sweeps.run.show import ENDED, Unit
from vidmae.settings.finetune_config import FinetuneConfig
from vidmae.settings.layers import ConfigError, replacements
from vidmae.settings.recipe import read_recipe

FEATURES, CLIPS = "features", "clips"  # beside the runs


@dataclass(frozen=True)
class Plan:
    """A command, resolved.

    Attributes:
        sweep: What all arrays have in common.
        place: Where it runs.
        classes: What cells get.
        standings: All cells.
        batches: The arrays that this call submits.
        costs: Of every cell, by signature.
        unit: Of costs.
    """

    sweep: Sweep
    place: Place
    classes: Classes
    standings: list[Standing]
    batches: list[Batch]
    costs: dict[str, Estimate]
    unit: Unit

    @property
    def submits(self) -> set[str]:
        """Signatures of the cells that this call submits."""
        return {s.cell.signature for batch in self.batches for s in batch.cells}

    @property
    def gpu_h(self) -> float:
        """GPU-hours of the cells that this call submits; 0 on CPUs."""
        return sum(self.sweep.planned_gpu_h.get(signature, 0.0) for signature in self.submits)

    @property
    def ended(self) -> list[Standing]:
        """Cells that ended without a result and are not submitted again."""
        return [s for s in self.standings if s.kind in ENDED and s.cell.signature not in self.submits]


def resolve(args: argparse.Namespace, command: Sequence[str], place: Place, say: Say, inits: Sequence[Init] | None = None,
            choose: Callable[[Sequence[Standing]], list[Standing]] | None = None) -> Plan:
    """Everything that the command means.

    Args:
        args: Of sweeps/fewshot.py or sweeps/objects.py.
        command: What the user typed, for the record.
        place: Where it runs.
        say: Tells people.
        inits: Checkpoints in place of those that `args` name.
        choose: Which cells are submitted; None: the new ones, and those of --retry.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    where = read_profile(args, place)
    site, runs_dir = where[0], args.runs_dir.expanduser().absolute()
    if args.select and set(args.method) & set(PROBES) and args.select != "last":
        say(f"--select {args.select} is for finetuning; {', '.join(PROBES)} are tested at their end")
    if args.views and set(args.method) & set(PROBES) and args.views != "center":
        say(f"--views {args.views} is for finetuning; {', '.join(PROBES)} look at the centre view")
    settings = Settings(
        layers=(read_recipe(args.recipe, FinetuneConfig), *site.config), overrides=tuple(args.set),
        variants=parse_vary(args.vary), methods=args.method, select=args.select, views=args.views,
        features=str(runs_dir / FEATURES), clips="" if args.prepare is None else str(runs_dir / CLIPS),
        prepare_px=args.prepare or 0)
    inits = find_inits(args.checkpoints, args.after, runs_dir) if inits is None else inits
    for init in inits:
        if init.taken:
            say(TAKEN.format(name=init.name, taken=init.taken))
    sets = find_sets(args.data, site.catalogue | environment_catalogue())
    if args.prepare is not None:
        sets = _unprepared(sets, named=bool(args.data), say=say)
    elif not args.data:
        sets, chosen_forms = one_form_each(sets)
        for line in chosen_forms:
            say(line)
    subsets = find_subsets(sets, args.shots or args.fractions, args.seeds, listing=args.shot_list,
                           allow_fewer=args.allow_fewer, write=not args.dry_run)
    cells = make_grid(inits, subsets, settings)
    for line in dict.fromkeys(line for cell in cells for line in replacements(cell.origins)):
        say(f"  {line}")
    for line in dict.fromkeys(map(conv_said, cells)):
        if line:
            say(line)
    if several := _of_several_frames(cells):
        asked = f"--views {args.views}" if args.views else "evaluate.views framesN"
        say(f"{asked} is for models of single frames; {', '.join(several)} sees the frames of a clip at once, in the centre "
            "view")
    return plan_of(KIND, cells, estimate(cells), args, command, place, where, say, choose=choose,
                   problems=lambda classes: _problems(cells, classes))


def plan_of(
    kind: str, cells: Sequence[AnyCell], costs: Sequence[Estimate], args: argparse.Namespace, command: Sequence[str],
    place: Place, where: Setting, say: Say, *, problems: Callable[[Classes], list[str]] = lambda _: [],
    choose: Callable[[Sequence[Standing]], list[Standing]] | None = None,
) -> Plan:
    """How far cells are, and the arrays that are missing.

    Args:
        kind: Of the sweep.
        cells: All of them, one at least.
        costs: Of each.
        args: `runs_dir`, `max_parallel`, `retry` and `dry_run`.
        command: What the user typed, for the record.
        place: Where it runs.
        where: Of `read_profile`.
        say: Tells people.
        problems: What else cannot work with what cells get, one message each.
        choose: Which cells are submitted; None: the new ones, and those of --retry.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    _, profile, origins, partition = where
    runs_dir = args.runs_dir.expanduser().absolute()
    on_cpu = cells[0].config.train.device == "cpu"
    classes = make_classes(place, profile, origins, partition, on_cpu=on_cpu, max_parallel=args.max_parallel)
    asked = classes.trained if kind == KIND else classes.of(cells[0])
    found = partition_problems(partition, asked) if partition else []
    found += folder_problems(runs_dir / cells[0].run_id)
    found += device_problems_of(cells, classes, trains=kind == KIND)
    found += problems(classes)
    if found:
        raise ConfigError("\nerror: ".join(found))
    standings, notes = look(cells, runs_dir, write=not args.dry_run)
    for note in notes:
        say(f"note: {note}")
    most = slurm.max_array_size() if place.cluster == "slurm" and not place.unasked else NO_LIMIT
    submits = choose(standings) if choose else chosen(standings, args.retry)
    batches = make_batches(submits, standings, classes, most)
    started = [s.run for s in standings if s.kind != "new"] if submits else []
    avoids = avoided(started, profile, origins, partition, classes.trained)
    if avoids.said:
        say(f"note: {avoids.said}")
    profile = replace(profile, exclude=avoids.exclude)
    unit = Unit(on_cpu=on_cpu or not classes.trained.gpus_per_node, gpu_type=classes.trained.gpu_type)
    by_cell = dict(zip([c.signature for c in cells], costs, strict=True))
    planned = {signature: hours for signature, cost in by_cell.items() if (hours := unit.hours(cost.flops))}
    sweep = Sweep(kind, place.cluster, profile, runs_dir, tuple(command), classes.max_parallel, planned_gpu_h=planned)
    return Plan(sweep, place, classes, standings, batches, by_cell, unit)


def _of_several_frames(cells: Sequence[Cell]) -> list[str]:
    """Checkpoints that are not looked at frame by frame although the command, a recipe or a profile asks for it."""
    return list(dict.fromkeys(c.init.name for c in cells if c.origins.get("evaluate.views") == SEVERAL_FRAMES))


def _unprepared(sets: Sequence[LabelledSet], *, named: bool, say: Say) -> list[LabelledSet]:
    """The data sets that --prepare is for: prepared footage and pictures are left out, or refused where they are named."""
    ready = ", ".join(data.name for data in sets if data.prepared)
    pictures = ", ".join(data.name for data in sets if data.pictures)
    rest = [data for data in sets if not data.prepared and not data.pictures]
    if ready and (named or not rest):
        raise ConfigError(f"{ready}: these clips are prepared footage already; leave out --prepare, or them (--data)")
    if pictures and (named or not rest):
        raise ConfigError(f"{pictures}: pictures are read as they are, and nothing need be prepared; leave out --prepare, "
                          "or them (--data)")
    if ready:
        say(f"left out, since they are prepared footage already: {ready}")
    if pictures:
        say(f"left out, since pictures are read as they are: {pictures}")
    return rest


def _problems(cells: Sequence[Cell], classes: Classes) -> list[str]:
    for cell in {(c.config.train.global_batch, c.method): c for c in cells}.values():
        check_batch(cell, classes.of(cell).world_size)
    if any(c.subset.shots == 1 and c.config.select.rule == "holdout" for c in cells):
        return [("--shots 1 with select.rule holdout, which keeps one clip of each class back: none would be left to learn "
                 "from; allowed: 2 or more (--shots, or --select last)")]
    return []


def device_problems_of(cells: Sequence[AnyCell], classes: Classes, *, trains: bool = True) -> list[str]:
    """What some of the cells cannot do on the device that they get, each once.

    Args:
        cells: Of a sweep.
        classes: What they get.
        trains: They do not only test.
    """
    gpus = classes.trained.gpus_per_node
    sections = dict.fromkeys(cell.config.train for cell in cells)
    found = [device_problems(train, gpus=gpus, who="cells have", trains=trains) for train in sections]
    return list(dict.fromkeys(problem for problems in found for problem in problems))
