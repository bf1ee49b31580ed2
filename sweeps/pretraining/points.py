"""A pretraining run of a study with its place in it, and what all runs of a study have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jobs.place.catalogue import DataSource
from jobs.place.experiment import KIND, Experiment, Place, Setting, assemble, config_layers, read_data, read_profile
from jobs.place.found_data import FoundData
from jobs.standing.runs import all_runs
from sweeps.pretraining.portions import DataSet, Portion
from sweeps.pretraining.pretraining_run import Pretraining
from sweeps.pretraining.variants import Variant
from vidmae.footage.manifest import Summary
from vidmae.runs.record import RunFolder, read_json
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, Layer, build, load, to_dict

FILLED_IN = {"seed": "--repeats", "name": "--name", "data.name": "--data", "data.manifest": "--data"}


@dataclass(frozen=True)
class Point(Pretraining):
    """A pretraining run.

    Attributes:
        repeat: Its seed.
        portion: What it is trained on; None: a mixture of data sets.
        variant: The settings in which it differs from others.
        shown: Its place in the study, as the table shows it.
    """

    repeat: int = field(kw_only=True)
    portion: Portion | None = field(kw_only=True)
    variant: Variant = field(kw_only=True, default=Variant())
    shown: tuple[str, ...] = field(kw_only=True, default=())

    @property
    def videos(self) -> int:
        """Recordings that it is trained on."""
        e = self.experiment
        return sum(stock.videos for stock in e.stocks) if e.stocks else e.summary.videos

    @property
    def hours(self) -> float:
        """Footage in them."""
        e = self.experiment
        return sum(stock.seconds for stock in e.stocks) / 3600 if e.stocks else e.summary.hours


@dataclass(frozen=True)
class Design:
    """All runs of a study.

    Attributes:
        points: The runs.
        headings: Of what the table shows of their places.
        said: What is equal between them, and what their names would hide.
    """

    points: Sequence[Point]
    headings: tuple[str, ...]
    said: Sequence[str]


@dataclass(frozen=True)
class Kind:
    """What tells the commands apart that pretrain a study.

    Attributes:
        script: What the user types.
        name: Of the last job.
        scratch: Random weights are tested, too.
        design: Finds the runs; nothing is written.
        commands: Scripts of the analysis, with their arguments.
    """

    script: str
    name: str
    scratch: bool
    design: Callable[[argparse.Namespace, Place], Design]
    commands: Callable[[argparse.Namespace, Design], tuple[tuple[str, ...], ...]]


@dataclass(frozen=True)
class Frame:
    """What all pretraining runs of a study have in common.

    Attributes:
        place: Where they run.
        setting: Profile and flags.
        layers: Recipe, cluster profile and --set, in this order.
        base: The configuration that these make.
        sets: The whole data sets; none where the recipe mixes several (data.sources).
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
        ConfigError: One of them cannot be used, or --set has what the study itself sets.
        SlurmError: Slurm does not answer.
    """
    for item in args.set:
        key = item.partition("=")[0].strip()
        if key in FILLED_IN:
            raise ConfigError(f"{key} cannot be set for a sweep over pretraining runs: {FILLED_IN[key]} decides it")
    setting = read_profile(args, place)
    layers = config_layers(args, setting[0])
    if args.name is not None:
        layers.append(Layer("--name", {"name": args.name}))
    base = build(PretrainConfig, layers)[0]
    words = [None] if args.data is None else [word.strip() for word in args.data.split(",")]
    sets = [] if base.data.sources else [DataSet(*read_data(given, base, setting[0])) for given in words]
    runs_dir = args.runs_dir.expanduser().absolute()
    records = {run.path: read_json(run.record) or {} for run in all_runs(runs_dir)}
    return Frame(place, setting, layers, base, sets, runs_dir,
                 {path: record for path, record in records.items() if record.get("kind") == KIND})


def experiment_of(frame: Frame, more: Sequence[Layer], filled: Mapping[str, Any], data: DataSource, summary: Summary,
                  mixed: Sequence[FoundData] = (), *, tagged: bool = True) -> Experiment:
    """The experiment of a point; under the name of a run that is there where that is the same in all but the name.

    Args:
        frame: Of the study.
        more: Layers above those of the frame.
        filled: What the study sets, with the name.
        data: What it is trained on.
        summary: Its totals.
        mixed: The sources of a mixture.
        tagged: Let the name end with what is not as usual in the settings (`FootageConfig.tag`), unless it says so already.
    """
    def made(name: str) -> Experiment:
        layers = [*frame.layers, *more, Layer("the sweep", {**filled, "name": name})]
        return assemble(frame.place, frame.setting, layers, data, summary, frame.runs_dir, mixed, tagged=tagged)

    experiment = made(filled["name"])
    signed = _signed(experiment.config)
    for path, record in frame.before.items() if experiment.run.path not in frame.before else ():
        if record.get("content_sha256") == summary.content_sha256:
            name, theirs = _config_of(path)
            if theirs == signed and (again := made(name)).run.path == path:
                return again
    return experiment


def _signed(config: PretrainConfig) -> dict[str, Any]:
    """What makes it another experiment, but the name."""
    return {key: value for key, value in to_dict(config, signed_only=True).items() if key != "name"}


@cache
def _config_of(path: Path) -> tuple[str, dict[str, Any]]:
    """Name and signed settings of a run, which do not change."""
    config = load(PretrainConfig, RunFolder(path).config)
    return config.name, _signed(config)
