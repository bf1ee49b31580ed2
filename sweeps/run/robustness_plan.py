"""What a robustness command means: cells, how far they are, what they cost, and the arrays that are missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.place.catalogue import Catalogue, environment_catalogue, find_data
from jobs.place.experiment import Place, folder_problems, partition_problems, read_profile
from jobs.scheduler import slurm
from sweeps.grid.batches import make_batches, make_classes
from sweeps.grid.estimate import Estimate, views_of
from sweeps.grid.robustness_cells import (
    CLEAN,
    KIND,
    OWN_CLASSES,
    Model,
    Parts,
    TestCell,
    TestSet,
    find_models,
    make_cells,
    parts_of,
    read_set,
)
from sweeps.grid.states import chosen, look
from sweeps.run.array_submission import NO_LIMIT, Say, Sweep
from sweeps.run.show import Unit
from sweeps.run.sweep_plan import Plan
from vidmae.runs.cost import encoder_flops_per_clip
from vidmae.settings.layers import ConfigError, parse_set


def resolve(args: argparse.Namespace, command: Sequence[str], place: Place, say: Say) -> Plan:
    """Everything that the command means.

    Args:
        args: Of sweeps/robustness.py.
        command: What the user typed, for the record.
        place: Where it runs.
        say: Tells people.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        SlurmError: Slurm does not answer.
    """
    site, profile, origins, partition = read_profile(args, place)
    runs_dir = args.runs_dir.expanduser().absolute()
    models = find_models(args.cells, runs_dir)
    sets_of = _sets_of(args, models, find_sets(args), site.catalogue | environment_catalogue())
    cells = list({cell.signature: cell for cell in make_cells(models, sets_of, parse_set(args.set))}.values())
    device = cells[0].config.train.device
    classes = make_classes(place, profile, origins, partition, on_cpu=device == "cpu", max_parallel=args.max_parallel)
    found = partition_problems(partition, classes.trained) if partition else []
    found += folder_problems(runs_dir / cells[0].run_id)
    if device == "cuda" and not classes.trained.gpus_per_node:
        found.append("train.device is cuda, but cells have no GPU (--gpus-per-node, or --set train.device=auto)")
    if found:
        raise ConfigError("\nerror: ".join(found))
    standings, problems = look(cells, runs_dir, write=not args.dry_run)
    for problem in problems:
        say(f"note: {problem}")
    most = slurm.max_array_size() if place.cluster == "slurm" and not place.unasked else NO_LIMIT
    batches = make_batches(chosen(standings, args.retry), standings, classes, most)
    sweep = Sweep(KIND, place.cluster, profile, runs_dir, tuple(command), classes.max_parallel)
    unit = Unit(on_cpu=device == "cpu" or not classes.trained.gpus_per_node, gpu_type=classes.trained.gpu_type)
    return Plan(sweep, place, classes, standings, batches, {cell.signature: estimate(cell) for cell in cells}, unit)


def find_sets(args: argparse.Namespace) -> list[TestSet]:
    """The sets that are tested as they are, of --sets and --cues.

    Raises:
        ConfigError: A name stands twice, or --label-map or --own-classes names a set that is not there.
    """
    if not (args.conditions or args.sets or args.cues):
        raise ConfigError("nothing to test: give --conditions (clean alone is --conditions clean), --sets or --cues")
    given = [(name, path, False) for name, path in args.sets] + [(name, path, True) for name, path in args.cues]
    names, maps = [name for name, _, _ in given], dict(args.label_map)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two sets are called {twice[0]!r} (--sets, --cues), and tables could not tell them apart")
    for flag, named in (("--label-map", list(maps)), ("--own-classes", args.own_classes)):
        known = [*names, *([_data_name(args.data)] if args.data else [])]
        if unknown := [name for name in named if name not in known]:
            raise ConfigError(f"{flag} {unknown[0]!r} is no set of this command, which has: {', '.join(known) or 'none'}")
    return [read_set(name, path, cues=cues, label_map=maps.get(name), by_folder=True,
                     own_classes=name in args.own_classes or name in OWN_CLASSES) for name, path, cues in given]


def _sets_of(args: argparse.Namespace, models: Sequence[Model], more: Sequence[TestSet], known: Catalogue,
             ) -> dict[str, list[tuple[TestSet, Parts]]]:
    """Of each model, by signature: the clips that conditions are applied to, and the sets that are tested as they are."""
    alone: list[tuple[TestSet, Parts]] = [(each, [(CLEAN, (CLEAN,))]) for each in more]
    if not args.conditions:
        return {model.signature: alone for model in models}
    parts = parts_of(args.conditions, args.part)
    paths = {model.signature: _data_path(args.data, known) if args.data else Path(model.config.data.val_manifest)
             for model in models}
    name = _data_name(args.data) if args.data else ""
    listed = dict(args.label_map).get(name)
    read = {path: read_set(name or path.stem, path, label_map=listed, own_classes=name in args.own_classes)
            for path in set(paths.values())}
    return {model.signature: [(read[paths[model.signature]], parts), *alone] for model in models}


def _data_name(given: str) -> str:
    return Path(given).stem if given.endswith(".csv") else given


def _data_path(given: str, known: Catalogue) -> Path:
    return find_data(given, given, known).manifest


def estimate(cell: TestCell) -> Estimate:
    """What a cell computes: every clip, under every condition, in every view."""
    passes = cell.test_set.clips * len(cell.config.tested.conditions) * views_of(cell.config.evaluate.views)
    return Estimate(0, passes * encoder_flops_per_clip(cell.config.model.shape()))
