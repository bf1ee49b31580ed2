"""The pretraining runs of a scaling sweep: one for every portion of a data set and repeat, and how far they are.

Repeat r trains with the seed r. Of `random` it also draws its recordings with the seed r; `contiguous` and `spread` are the
same videos in every repeat. The whole data set (fraction 1) is the data set's own manifest, once for all subsets. Of several
data sets the first says how long all are trained, so that runs on equal hours are equal in steps, too.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.place.catalogue import DataSource
from jobs.place.experiment import KIND, Experiment, Place, Setting, assemble, config_layers, read_data, read_profile
from jobs.place.found_data import FoundData, stock_or_problem, turns_of
from jobs.standing.runs import all_runs
from sweeps.grid.matching import match_phases
from sweeps.grid.portions import DataSet, Portion, portions
from sweeps.grid.pretraining import Pretraining
from vidmae.footage.manifest import Summary
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, Layer, build, load, to_dict
from vidmae.settings.schedule import Phase, Schedule

FILLED_IN = {"seed": "--repeats", "name": "--name", "data.name": "--data", "data.manifest": "--data"}


@dataclass(frozen=True)
class Point(Pretraining):
    """A pretraining run.

    Attributes:
        portion: What it is trained on.
        repeat: Its seed.
    """

    portion: Portion = field(kw_only=True)
    repeat: int = field(kw_only=True)


@dataclass(frozen=True)
class Frame:
    """What all pretraining runs of a sweep have in common.

    Attributes:
        place: Where they run.
        setting: Profile and flags.
        layers: Recipe, cluster profile and --set.
        base: The configuration that these make.
        sets: The whole data sets.
        runs_dir: Folder of the runs.
        before: The pretraining runs that are there, with their records.
    """

    place: Place
    setting: Setting
    layers: Sequence[Layer]
    base: PretrainConfig
    sets: Sequence[DataSet]
    runs_dir: Path
    before: Mapping[Path, Mapping[str, Any]] = field(default_factory=dict)


def read_frame(args: argparse.Namespace, place: Place) -> Frame:
    """Read recipe, profile and data sets.

    Raises:
        ConfigError: One of them cannot be used, or --set has what the sweep itself sets.
        SlurmError: Slurm does not answer.
    """
    for item in args.set:
        key = item.partition("=")[0].strip()
        if key in FILLED_IN:
            raise ConfigError(f"{key} cannot be set for a sweep over amounts of data: {FILLED_IN[key]} decides it")
    setting = read_profile(args, place)
    layers = config_layers(args, setting[0])
    if args.name is not None:
        layers.append(Layer("--name", {"name": args.name}))
    base = build(PretrainConfig, layers)[0]
    _refuse_parts(base)
    sets = [DataSet(*read_data(given, base, setting[0])) for given in _words(args.data)]
    _refuse_twins(sets)
    runs_dir = args.runs_dir.expanduser().absolute()
    records = {run.path: read_json(run.record) or {} for run in all_runs(runs_dir)}
    return Frame(place, setting, layers, base, sets, runs_dir,
                 {path: record for path, record in records.items() if record.get("kind") == KIND})


def _refuse_parts(base: PretrainConfig) -> None:
    """Refuse settings that take a part of a data set themselves, or more than one; a sweep takes the parts."""
    names = [source.name for source in base.data.sources]
    for key, value, usual in (("sources", names, "[]"), ("age_months", base.data.age_months, "null")):
        if value:
            raise ConfigError(f"data.{key} is {value!r}, allowed in a sweep over amounts of data: {usual} "
                              f"(--set data.{key}={usual}; jobs/pretrain.py trains one such run)")
    if base.data.order == "single-pass":
        raise ConfigError("data.order is 'single-pass', which is as long as its footage, allowed in a sweep over amounts of "
                          "data: shuffled, age, age-reversed, windows (--set data.order=...)")


def _visits(base: PretrainConfig, source: DataSource, summary: Summary) -> int:
    """Openings of a video in an epoch of a data set."""
    return sum(turns_of(base, stock_or_problem(base, [FoundData(source, summary)])[0])) or summary.videos


def _words(data: str | None) -> list[str | None]:
    return [None] if data is None else [word.strip() for word in data.split(",")]


def _refuse_twins(sets: Sequence[DataSet]) -> None:
    """Refuse two data sets that are the same videos, or of one name."""
    for one, other in itertools.combinations(sets, 2):
        if one.summary.content_sha256 == other.summary.content_sha256:
            raise ConfigError(f"--data: {one.name} and {other.name} are the same videos; leave one of them out")
        if one.name == other.name:
            raise ConfigError(f"--data: {one.source.manifest} and {other.source.manifest} have one name, as their "
                              "fractions would: rename one of them")


def make_points(args: argparse.Namespace, frame: Frame) -> list[Point]:
    """All runs, by data set, the small amounts first; nothing is written.

    Raises:
        ConfigError: An amount or the number of repeats cannot be, or a run of another study is the same repeat.
        FractionError: A fraction cannot be made.
    """
    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats} is not allowed: 1 or more")
    first = _visits(frame.base, frame.sets[0].source, frame.sets[0].summary)
    whole = Schedule.plan(frame.base.train.phases, clips_per_epoch=first * frame.base.data.repeat_aug,
                          global_batch=frame.base.train.global_batch)
    points = []
    for portion, repeat in portions(args, frame.sets):
        phases = match_phases(frame.base.train.phases, args.match, portion.amount, whole=whole,
                              videos=_visits(frame.base, portion.source, portion.summary), of_videos=first)
        points.append(Point(_experiment(frame, portion, repeat, phases), portion=portion, repeat=repeat))
    _refuse_others(points, frame)
    return points


def _experiment(frame: Frame, portion: Portion, repeat: int, phases: tuple[Phase, ...]) -> Experiment:
    """The experiment of a point; under the name of a run that is there where that is the same in all but the name."""
    of = portion.of.name if len(frame.sets) > 1 else ""
    what = "-".join(filter(None, [of, portion.amount.text, portion.subset]))
    filled: dict[str, Any] = {"name": f"{frame.base.name}-{what}-seed{repeat}", "seed": repeat}
    if phases != frame.base.train.phases:
        filled["train"] = {"phases": [to_dict(phase) for phase in phases]}

    def made(name: str) -> Experiment:
        layers = [*frame.layers, Layer("the sweep", {**filled, "name": name})]
        return assemble(frame.place, frame.setting, layers, portion.source, portion.summary, frame.runs_dir)

    experiment = made(filled["name"])
    for path, record in frame.before.items():
        if record.get("content_sha256") == portion.summary.content_sha256 and path != experiment.run.path:
            config = load(PretrainConfig, RunFolder(path).config)
            again = made(config.name)
            if again.run.path == path:
                return again
    return experiment


def _refuse_others(points: Sequence[Point], frame: Frame) -> None:
    """Refuse a run on the same portion and seed with other settings: the analysis takes a repeat once."""
    ours = {point.run.path for point in points}
    places = {(point.portion.choice, point.repeat) for point in points}
    wholes = {data.summary.content_sha256 for data in frame.sets}
    for path, record in frame.before.items():
        said, content = record.get("fraction") or {}, record.get("content_sha256")
        if path in ours or not wholes & {content, said.get("of_content_sha256")}:
            continue
        choice = ((content, "", 1.0, None) if content in wholes else
                  (said["of_content_sha256"], said["subset"], said["share"], said["hours"]))
        seed = load(PretrainConfig, RunFolder(path).config).seed
        if (choice, seed) in places:
            raise ConfigError(f"{path.name} is the same fraction with the seed {seed} under other settings, and the "
                              "analysis takes a repeat once: keep this study in a folder of its own (--runs-dir)")
