"""The pretraining runs of a grid: one for every portion, every combination of the settings that vary, and every repeat.

Repeat r trains with the seed r. All runs see as much as the recipe as it is on the first data set (matching.py), so rows of
the tables differ in what varies and in nothing else. A run is called NAME-order.age-clip.frozen-r0; what is not as usual in
all of them stands in NAME.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import replace
from fractions import Fraction
from typing import Any

from jobs.place.catalogue import DataSource
from jobs.place.experiment import Experiment, Place, missing_tags
from jobs.place.found_data import FoundData, find_sources_of, turns_of
from sweeps.grid.axes import read_axes
from sweeps.pretraining.matching import PairMatch, Shown, as_long, steps_each, stretched
from sweeps.pretraining.points import Design, Frame, Kind, Point, experiment_of, read_frame
from sweeps.pretraining.portions import Portion, portions, what_amounts_hide
from sweeps.pretraining.scaling_points import refuse_twins, what_repeats_are
from sweeps.pretraining.variants import RECIPE, Variant, make_variants
from vidmae.footage.manifest import Manifest, Summary
from vidmae.mixtures.children import known_children
from vidmae.runs.cost import train_flops_per_clip
from vidmae.settings.config import FootageConfig, PretrainConfig
from vidmae.settings.layers import ConfigError, build, parse_set, to_dict
from vidmae.settings.recipe import read_recipe
from vidmae.settings.schedule import Phase, Schedule

CHILD = "data.without_child"
EVERY = "every"
"""What --leave-out-children takes where it names nobody."""
OF_PARTS = ("order", "age_months", "without_child")
"""Settings of data that read the rows of a manifest, which a part has only once it is written."""


def design(args: argparse.Namespace, place: Place) -> Design:
    """All runs, by portion, combination and repeat; nothing is written.

    Args:
        args: Of sweeps/pretrain.py.
        place: Where they run.
    Raises:
        ConfigError: Something cannot be used; the message says what would do.
        FractionError: A fraction cannot be made.
        SlurmError: Slurm does not answer.
    """
    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats} is not allowed: 1 or more")
    axes = read_axes(args.vary)
    _refuse_many(args, [len(values) for values in axes.values()])
    variants = make_variants(axes, lengths=args.match == "none")  # before anything is read
    frame, stands_in = _read_frame(args, place, variants[0])
    refuse_twins(frame.sets)
    if args.data is None and frame.sets:
        _refuse_other_data(frame.base.data, axes.get(RECIPE, ()))
    if args.leave_out_children is not None:
        axes[CHILD] = _children(args.leave_out_children, frame, CHILD in axes)
        _refuse_many(args, [len(values) for values in axes.values()])
        variants = make_variants(axes, lengths=args.match == "none")
    of = list(_portions(args, frame))
    if len(of) * len(variants) < 2:
        raise ConfigError("there is one run and nothing varies: give --vary, --leave-out-children, several --data, --hours "
                          "or --repeats; python jobs/pretrain.py trains one run")
    _refuse_many(args, [len(of) // args.repeats, len(variants)])
    several = len({_where(portion) for portion, _ in of}) > 1 or args.hours is not None
    points = [_point(frame, portion, variant, repeat, several=several)
              for portion, variant, repeat in _in_order(of, variants)]
    said: list[str] = []
    if args.match != "none":
        points, said = _matched(args.match, frame, points, several=several)
    _refuse_equal(points)
    portions_of = [point.portion for point in points if point.portion]
    said += [*stands_in, *what_amounts_hide(portions_of, steps=False), *(what_repeats_are(points) if portions_of else ())]
    keys = [key.rpartition(".")[2].upper().replace("_", " ") for key, _, _ in variants[0].settings]
    return Design(points, ("DATA", *(("AMOUNT", "SUBSET") if several else ()), *keys, "SEED"), said)


def commands(args: argparse.Namespace, _: Design) -> tuple[tuple[str, ...], ...]:
    """What makes the tables."""
    runs, out = (str(path.expanduser().absolute()) for path in (args.runs_dir, args.out))
    return (("analysis/collect.py", runs, "--out", out),)


GRID = Kind("sweeps/pretrain.py", "pretraining", scratch=True, design=design, commands=commands)


def _read_frame(args: argparse.Namespace, place: Place, first: Variant) -> tuple[Frame, list[str]]:
    """What all runs have in common; where the recipe is no experiment without what varies, as its first combination,
    which is said."""
    try:
        return read_frame(args, place), []
    except ConfigError as error:
        try:
            frame = read_frame(argparse.Namespace(**{**vars(args), "set": [*args.set, *first.items]}), place)
            return frame, [f"the recipe is taken with {', '.join(first.items)}; without that: {error}"]
        except ConfigError:
            raise error from None


def _refuse_many(args: argparse.Namespace, sizes: Sequence[int]) -> None:
    """Refuse a grid of more runs than --max-runs."""
    runs = args.repeats
    for size in sizes:
        runs *= size
    if runs > args.max_runs:
        parts = " x ".join(map(str, [*sizes, args.repeats]))
        raise ConfigError(f"the grid has {parts} = {runs:,} pretraining runs, allowed: up to {args.max_runs} (--max-runs, "
                          "or fewer values of --vary, --repeats)")


def _refuse_other_data(base: FootageConfig, recipes: Sequence[str]) -> None:
    """Refuse recipes on another data set: all runs are trained on that of the first, and would be named after the other."""
    for recipe in recipes:
        data = read_recipe(recipe, PretrainConfig).values.get("data", {})
        for key in ("name", "manifest") if not data.get("sources") else ():
            if (value := data.get(key, getattr(FootageConfig, key))) != (of := getattr(base, key)):
                raise ConfigError(f"--vary recipe: {recipe} has data.{key} {value}, allowed: {of or 'none'} as --recipe, on "
                                  "whose data all runs are trained; --data compares data sets (several, between commas)")


def _children(asked: str, frame: Frame, varies: bool) -> list[str]:
    """Values of data.without_child as YAML: nobody, then each child."""
    if varies:
        raise ConfigError(f"--leave-out-children and --vary {CHILD} say the same; leave one of them out")
    if len(frame.sets) != 1:
        raise ConfigError("--leave-out-children needs one data set with several children (--data); of a mixture: "
                          f"--vary {CHILD}=null,NAME,...")
    known = known_children(Manifest.read(frame.sets[0].source.manifest))
    named = known if asked == EVERY else list(dict.fromkeys(word.strip() for word in asked.split(",")))
    if len(known) < 2:
        raise ConfigError(f"--leave-out-children: {frame.sets[0].name} has recordings of {len(known)} known children, "
                          "allowed: 2 or more (python jobs/prepare.py manifest FOLDER --about table.csv adds children)")
    if unknown := [name for name in named if name not in known]:
        raise ConfigError(f"--leave-out-children {unknown[0]!r} is not in {frame.sets[0].name}, allowed: {', '.join(known)}")
    return ["null", *("'" + name.replace("'", "''") + "'" for name in named)]


def _portions(args: argparse.Namespace, frame: Frame) -> Iterator[tuple[Portion | None, int]]:
    """Portions and repeats; of a mixture none but all of it."""
    if frame.sets:
        yield from portions(args, frame.sets)
        return
    if args.hours is not None:
        raise ConfigError(f"--hours {args.hours} takes a part of a data set, and the recipe mixes several (data.sources), "
                          "which may have hours of their own")
    yield from ((None, repeat) for repeat in range(args.repeats))


def _where(portion: Portion | None) -> tuple[str, str, str]:
    return (portion.of.name, portion.amount.text, portion.subset) if portion else ("", "", "")


def _in_order(of: Sequence[tuple[Portion | None, int]], variants: Sequence[Variant],
              ) -> Iterator[tuple[Portion | None, Variant, int]]:
    """Everything, the repeats of a combination together."""
    groups: dict[tuple[str, str, str], list[tuple[Portion | None, int]]] = {}
    for portion, repeat in of:
        groups.setdefault(_where(portion), []).append((portion, repeat))
    for group in groups.values():
        for variant in variants:
            yield from ((portion, variant, repeat) for portion, repeat in group)


def _point(frame: Frame, portion: Portion | None, variant: Variant, repeat: int, *, several: bool,
           phases: Sequence[Any] = ()) -> Point:
    """A run; `several`: names and tables must say which portion it is trained on, `phases`: its length."""
    more, called = parse_set(variant.items, "--vary"), _name(frame, variant)
    if variant.recipe:
        frame = replace(frame, layers=[read_recipe(variant.recipe, PretrainConfig), *frame.layers[1:]])
    config = build(PretrainConfig, [*frame.layers, *more])[0]
    data, summary, mixed = _data_of(config, portion, frame, several=several)
    where = _where(portion)
    words = [where[0] if len(frame.sets) > 1 else "", *(where[1:] if several and where[1] != "1" else ())]
    name = "-".join([called, *filter(None, words), *variant.words, f"r{repeat}"])
    filled: dict[str, Any] = {"name": name, "seed": repeat, **({"train": {"phases": list(phases)}} if phases else {})}
    e = experiment_of(frame, more, filled, data, summary, mixed, tagged=False)
    place = [data.name if mixed or not portion else portion.of.name, *((where[1], where[2] or "whole") if several else ())]
    settings = {**({"data": place[0]} if len(frame.sets) > 1 else {}),
                **({"amount": "-".join(filter(None, where[1:]))} if several else {}), **variant.shown}
    e = replace(e, grid={"name": called, "settings": settings, "repeat": repeat, "of": _but_seed(e, portion)})
    return Point(e, portion=None if mixed else portion, repeat=repeat, variant=variant,
                 shown=(*place, *variant.shown.values(), str(repeat)))


def _but_seed(e: Experiment, portion: Portion | None) -> str:
    """Eight hex digits of what a run is, but for its seed and for what that draws: equal for its repeats alone."""
    signed = {key: value for key, value in to_dict(e.config, signed_only=True).items() if key not in ("name", "seed")}
    if portion and portion.history:  # a part, whose manifest is called after its draw
        signed["data"] = {key: value for key, value in signed["data"].items() if key != "name"}
    data = portion.choice if portion and not e.config.data.sources else e.summary.content_sha256
    return hashlib.blake2b(repr((signed, data)).encode(), digest_size=4).hexdigest()


def _data_of(config: PretrainConfig, portion: Portion | None, frame: Frame, *, several: bool,
             ) -> tuple[DataSource, Summary, Sequence[FoundData]]:
    """Manifest, totals, and of a mixture its sources."""
    if config.data.sources:
        if several:
            raise ConfigError("data.sources names the data of some runs, and --data or --hours those of all; allowed: one "
                              "of them (sources may have hours: [{name: s, hours: 10}])")
        found = find_sources_of(config, None, frame.setting[0].catalogue)
        whole = FoundData.joined(found)
        return whole.source, whole.summary, found
    if portion is None:
        raise ConfigError("data.sources is [] in some runs and the recipe mixes data sets; write each as a mixture, such as "
                          "[{name: s}]")
    parts = [f"data.{key}" for key in OF_PARTS if getattr(config.data, key) != getattr(PretrainConfig().data, key)]
    if portion.history and parts:
        raise ConfigError(f"{parts[0]} and --hours both take or order parts of a data set, allowed: one of them; python "
                          "jobs/prepare.py fraction makes a manifest of the hours, which --data takes")
    return portion.source, portion.summary, ()


def _name(frame: Frame, variant: Variant) -> str:
    """NAME with what is not as usual in all runs, but not of what varies. Nothing is checked: with usual values in place of
    what varies the recipe may be no experiment."""
    config, usual = copy(frame.base), PretrainConfig()
    for section in ("data", "model"):  # which have tags
        part, of_usual = copy(getattr(config, section)), getattr(usual, section)
        for key, _, _ in variant.settings:
            of, _, last = key.partition(".")
            if of == section and hasattr(of_usual, last):
                object.__setattr__(part, last, getattr(of_usual, last))
        object.__setattr__(config, section, part)
    return "-".join([config.name, *missing_tags(config)])


def _clips_per_epoch(e: Experiment) -> int | None:
    """Of a run; None where its data cannot be used, which `problems` says."""
    if not e.stocks:
        return None
    try:
        visits = sum(turns_of(e.config, e.stocks)) or e.summary.videos
    except ValueError:
        return None
    clips, batch = visits * e.config.data.repeat_aug, e.config.train.global_batch
    return clips // batch * batch if e.config.data.order == "single-pass" else clips


def _matched(match: PairMatch, frame: Frame, points: Sequence[Point], *, several: bool) -> tuple[list[Point], list[str]]:
    """The runs with their lengths, and what is said of them."""
    base = _base(frame)
    of_base = _clips_per_epoch(base)
    if not of_base:
        return list(points), []
    batch = base.config.train.global_batch
    reference = _schedule(base.config.train.phases, of_base, batch)
    of = _shown(base.config, reference.total_steps)
    clips = [_clips_per_epoch(point.experiment) for point in points]
    each = [steps_each(match, of, _shown(point.experiment.config, 1)) for point in points]
    once = [Fraction(most // point.experiment.config.train.global_batch) / (ratio * of.steps)
            for point, most, ratio in zip(points, clips, each, strict=True)
            if most and point.experiment.config.data.order == "single-pass"]
    part = min([Fraction(1), *once])
    found = []
    for point, most, ratio in zip(points, clips, each, strict=True):
        lengths = stretched(reference, ratio * part)
        if not all(lengths):
            raise ConfigError(f"--match {match}: phase {lengths.index(0)} of {point.experiment.config.name} would have 0 "
                              "steps (--match none, a smaller train.global_batch, or more footage)")
        phases, name = point.experiment.config.train.phases, point.experiment.config.name
        if len(phases) != len(lengths):
            raise ConfigError(f"--match {match}: {name} has {len(phases)} phases (train.phases), allowed: {len(lengths)} "
                              "as in the recipe (--match none: each run has a length of its own)")
        like = _schedule(phases, of_base, batch)
        found.append(point if most is None else _as_long(frame, point, most, like, lengths, several=several))
    what = "FLOPs" if match == "flops" else match
    if part < 1:
        said = (f"all runs have as many {what} as a single pass, which is {float(part):.3g} times what the recipe gives for "
                f"{base.data.name} and cannot be longer (--match none: each run has a length of its own)")
        return found, [said]
    return found, [f"all runs have as many {what} as the recipe gives for {base.data.name} (--match {match})"]


def _base(frame: Frame) -> Experiment:
    """The recipe as it is on the first data set, or on its mixture."""
    mixed = [] if frame.sets else find_sources_of(frame.base, None, frame.setting[0].catalogue)
    whole = FoundData(frame.sets[0].source, frame.sets[0].summary) if frame.sets else FoundData.joined(mixed)
    return experiment_of(frame, (), {"name": frame.base.name}, whole.source, whole.summary, mixed)


def _schedule(phases: Sequence[Phase], clips_per_epoch: int, global_batch: int) -> Schedule:
    try:
        return Schedule.plan(phases, clips_per_epoch=clips_per_epoch, global_batch=global_batch)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _shown(config: PretrainConfig, steps: int) -> Shown:
    return Shown(steps, config.train.global_batch, config.model.num_frames, train_flops_per_clip(config.model.shape()))


def _as_long(frame: Frame, point: Point, clips: int, like: Schedule, lengths: Sequence[int], *, several: bool) -> Point:
    """A run with phases of these lengths; `clips`: its own in an epoch."""
    train = point.experiment.config.train
    try:
        own = _schedule(train.phases, clips, train.global_batch)
    except ConfigError:  # a warm-up is longer than its phase, on these data
        own = None
    as_they_are = as_long(train.phases, own, like, lengths)
    if as_they_are == train.phases:
        return point
    return _point(frame, point.portion, point.variant, point.repeat, several=several,
                  phases=[to_dict(phase) for phase in as_they_are])


def _refuse_equal(points: Sequence[Point]) -> None:
    """Refuse two runs that are the same in all but the name, under which tables would show them as two."""
    seen: dict[str, Point] = {}
    for point in points:
        e = point.experiment
        key = repr((to_dict(replace(e.config, name="x"), signed_only=True), e.summary.content_sha256))
        if other := seen.get(key):
            names = [each.run.path.name.rpartition("-")[0] for each in (other, point)]
            raise ConfigError(f"{names[0]} and {names[1]} would be the same run under two names: leave one of the values "
                              "out (--vary)")
        seen[key] = point
