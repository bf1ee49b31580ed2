"""What a robustness command means: cells, how far they are, what they cost, and the arrays that are missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.place.catalogue import Catalogue, environment_catalogue, find_data
from jobs.place.experiment import Place, read_profile
from sweeps.grid.checkpoints import TAKEN
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
from sweeps.run.array_submission import Say
from sweeps.run.sweep_plan import Plan, plan_of
from vidmae.labels.set_layout import conditions_of
from vidmae.labels.splits import read_labelled, some
from vidmae.runs.cost import view_flops
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
    where = read_profile(args, place)
    site, runs_dir = where[0], args.runs_dir.expanduser().absolute()
    known = site.catalogue | environment_catalogue()
    data = _data_set(args, known)
    models = find_models(args.cells, runs_dir, data)
    for model in models:
        if model.taken:
            say(TAKEN.format(name=model.name, taken=model.taken))
    sets = find_sets(args)
    for line in conditions_by_folder(sets):
        say(line)
    sets_of = _sets_of(args, models, sets, data)
    cells = list({cell.signature: cell for cell in make_cells(models, sets_of, parse_set(args.set))}.values())
    return plan_of(KIND, cells, [estimate(cell) for cell in cells], args, command, place, where, say)


def find_sets(args: argparse.Namespace) -> list[TestSet]:
    """The sets that are tested as they are, of --sets and --cues.

    Raises:
        ConfigError: A name stands twice, or --label-map, --own-classes or --as-one names a set that is not there.
    """
    if not (args.conditions or args.sets or args.cues):
        raise ConfigError("nothing to test: give --conditions (clean alone is --conditions clean), --sets or --cues")
    given = [(name, path, False) for name, path in args.sets] + [(name, path, True) for name, path in args.cues]
    names, maps = [name for name, _, _ in given], dict(args.label_map)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two sets are called {twice[0]!r} (--sets, --cues), and tables could not tell them apart")
    for flag, named in (("--label-map", list(maps)), ("--own-classes", args.own_classes), ("--as-one", args.as_one)):
        known = [*names, *([_data_name(args.data)] if args.data and flag != "--as-one" else [])]
        if unknown := [name for name in named if name not in known]:
            raise ConfigError(f"{flag} {unknown[0]!r} is no set of this command, which has: {', '.join(known) or 'none'}")
    return [read_set(name, path, cues=cues, label_map=maps.get(name), by_folder=name not in args.as_one,
                     own_classes=name in args.own_classes or name in OWN_CLASSES) for name, path, cues in given]


def conditions_by_folder(sets: Sequence[TestSet]) -> list[str]:
    """What folders or names say was done to the images of sets that are tested as they are: a line for each such set.

    Raises:
        ConfigError: Some images of a set lie in such folders, and some do not.
    """
    said = []
    for each in sets:
        if each.cues or not each.by_folder:
            continue
        try:
            found = list(dict.fromkeys(conditions_of(read_labelled(each.manifest, paths=True).paths) or ()))
        except ValueError as error:
            raise ConfigError(f"--sets {each.name}: {error}; or test it as one set: --as-one {each.name}") from error
        if found:
            said.append(f"{each.name}: its folders or names are taken for {len(found)} conditions: "
                        f"{some(found)}; to test it as one set: --as-one {each.name}")
    return said


def _data_set(args: argparse.Namespace, known: Catalogue) -> TestSet | None:
    """The clips of --data; None without it."""
    if not args.data:
        return None
    name = _data_name(args.data)
    return read_set(name, _data_path(args.data, known), label_map=dict(args.label_map).get(name),
                    own_classes=name in args.own_classes)


def _sets_of(args: argparse.Namespace, models: Sequence[Model], more: Sequence[TestSet], data: TestSet | None,
             ) -> dict[str, list[tuple[TestSet, Parts]]]:
    """Of each model, by signature: the clips that conditions are applied to, and the sets that are tested as they are."""
    alone: list[tuple[TestSet, Parts]] = [(each, [(CLEAN, (CLEAN,))]) for each in more]
    if not args.conditions:
        return {model.signature: alone for model in models}
    parts = parts_of(args.conditions, args.part)
    own = {model.signature: Path(model.config.data.val_manifest) for model in models}
    read = {path: read_set(path.stem, path) for path in set(own.values())} if data is None else {}
    return {model.signature: [(data or read[own[model.signature]], parts), *alone] for model in models}


def _data_name(given: str) -> str:
    return Path(given).stem if given.endswith(".csv") else given


def _data_path(given: str, known: Catalogue) -> Path:
    return find_data(given, given, known).manifest


def estimate(cell: TestCell) -> Estimate:
    """What a cell computes: every clip, under every condition, in every view."""
    passes = cell.test_set.clips * len(cell.config.tested.conditions) * views_of(cell.config.evaluate.views)
    return Estimate(0, passes * view_flops(cell.config.model))
