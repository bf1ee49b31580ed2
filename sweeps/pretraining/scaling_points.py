"""The pretraining runs of a scaling sweep: one for every portion of a data set and repeat.

Repeat r trains with the seed r. Of `random` it also draws its recordings with the seed r; `contiguous` and `spread` are the
same videos in every repeat. The whole data set (fraction 1) is the data set's own manifest, once for all subsets. Of several
data sets the first says how long all are trained, so that runs on equal hours are equal in steps, too.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from typing import Any

from jobs.place.catalogue import DataSource
from jobs.place.experiment import Experiment, Place
from jobs.place.found_data import FoundData, stock_or_problem, turns_of
from sweeps.pretraining.matching import match_phases
from sweeps.pretraining.points import Design, Frame, Kind, Point, experiment_of, read_frame
from sweeps.pretraining.portions import DataSet, Portion, parse_subsets, portions, what_amounts_hide
from vidmae.footage.manifest import Summary
from vidmae.runs.record import RunFolder
from vidmae.settings.config import PretrainConfig
from vidmae.settings.layers import ConfigError, load, to_dict
from vidmae.settings.schedule import Phase, Schedule

HEADINGS = ("DATA", "AMOUNT", "SUBSET", "SEED")


def design(args: argparse.Namespace, place: Place) -> Design:
    """All runs, by data set, the small amounts first; nothing is written.

    Args:
        args: Of sweeps/scaling.py.
        place: Where they run.
    Raises:
        ConfigError: Something cannot be used, or a run of another study is the same repeat.
        FractionError: A fraction cannot be made.
        SlurmError: Slurm does not answer.
    """
    frame = read_frame(args, place)
    _refuse_parts(frame.base)
    refuse_twins(frame.sets)
    points = _points(args, frame)
    return Design(points, HEADINGS, _said(points, args.match))


def commands(args: argparse.Namespace, of: Design) -> tuple[tuple[str, ...], ...]:
    """What makes the tables and the figures."""
    runs, out = str(args.runs_dir.expanduser().absolute()), str(args.out.expanduser().absolute())
    sets = list(dict.fromkeys(point.portion.of.name for point in of.points if point.portion))
    pairs = pair_list(sets, parse_subsets(args.subset), by_hours=args.hours is not None)
    compared = [word for pair in pairs for word in ("--compare", pair)]
    return (("analysis/collect.py", runs, "--out", out), ("analysis/scaling.py", "--runs", runs, "--out", out, *compared))


SCALING = Kind("sweeps/scaling.py", "scaling", scratch=False, design=design, commands=commands)


def pair_list(sets: Sequence[str], subsets: Sequence[str], *, by_hours: bool) -> list[str]:
    """The series that the analysis compares: the first subset with the second, and at equal hours the first data set with
    each other one.

    Args:
        sets: Names of the data sets.
        subsets: What --subset says.
        by_hours: Whether amounts are hours.
    Returns:
        Values of --compare.
    """
    series = [[f"{name} {subset}" for subset in subsets] for name in sets] if len(sets) > 1 else [subsets]
    pairs = [f"{of[0]},{of[1]}" for of in series if len(subsets) > 1]
    if by_hours:
        pairs += [f"{one},{other}" for of in series[1:] for one, other in zip(series[0], of, strict=True)]
    return pairs


def _refuse_parts(base: PretrainConfig) -> None:
    """Refuse settings that take a part of a data set themselves, or more than one; a sweep takes the parts."""
    names = [source.name for source in base.data.sources]
    for key, value, usual in (("sources", names, "[]"), ("age_months", base.data.age_months, "null"),
                              ("without_child", base.data.without_child, "null")):
        if value:
            raise ConfigError(f"data.{key} is {value!r}, allowed in a sweep over amounts of data: {usual} "
                              f"(--set data.{key}={usual}; jobs/pretrain.py trains one such run)")
    if base.data.order == "single-pass":
        raise ConfigError("data.order is 'single-pass', which is as long as its footage, allowed in a sweep over amounts of "
                          "data: shuffled, age, age-reversed, windows (--set data.order=...)")


def refuse_twins(sets: Sequence[DataSet]) -> None:
    """Refuse two data sets that are the same videos, or of one name."""
    for one, other in itertools.combinations(sets, 2):
        if one.summary.content_sha256 == other.summary.content_sha256:
            raise ConfigError(f"--data: {one.name} and {other.name} are the same videos; leave one of them out")
        if one.name == other.name:
            raise ConfigError(f"--data: {one.source.manifest} and {other.source.manifest} have one name, as their "
                              "fractions would: rename one of them")


def _points(args: argparse.Namespace, frame: Frame) -> list[Point]:
    if args.repeats < 1:
        raise ConfigError(f"--repeats {args.repeats} is not allowed: 1 or more")
    first = _visits(frame.base, frame.sets[0].source, frame.sets[0].summary)
    whole = Schedule.plan(frame.base.train.phases, clips_per_epoch=first * frame.base.data.repeat_aug,
                          global_batch=frame.base.train.global_batch)
    points = []
    for portion, repeat in portions(args, frame.sets):
        phases = match_phases(frame.base.train.phases, args.match, portion.amount, whole=whole,
                              videos=_visits(frame.base, portion.source, portion.summary), of_videos=first)
        shown = portion.of.name, portion.amount.text, portion.subset or "whole", str(repeat)
        points.append(Point(_experiment(frame, portion, repeat, phases), portion=portion, repeat=repeat, shown=shown))
    _refuse_others(points, frame)
    return points


def _visits(base: PretrainConfig, source: DataSource, summary: Summary) -> int:
    """Openings of a video in an epoch of a data set."""
    return sum(turns_of(base, stock_or_problem(base, [FoundData(source, summary)])[0])) or summary.videos


def _experiment(frame: Frame, portion: Portion, repeat: int, phases: tuple[Phase, ...]) -> Experiment:
    of = portion.of.name if len(frame.sets) > 1 else ""
    what = "-".join(filter(None, [of, portion.amount.text, portion.subset]))
    filled: dict[str, Any] = {"name": f"{frame.base.name}-{what}-seed{repeat}", "seed": repeat}
    if phases != frame.base.train.phases:
        filled["train"] = {"phases": [to_dict(phase) for phase in phases]}
    return experiment_of(frame, (), filled, portion.source, portion.summary)


def _refuse_others(points: Sequence[Point], frame: Frame) -> None:
    """Refuse a run on the same portion and seed with other settings: the analysis takes a repeat once."""
    ours = {point.run.path for point in points}
    places = {(point.portion.choice, point.repeat) for point in points if point.portion}
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


def _said(points: Sequence[Point], match: str) -> list[str]:
    """What is equal, and what repeats are."""
    portions_of = [point.portion for point in points if point.portion]
    said = []
    if repeated := max((portion.history.repeated for portion in portions_of if portion.history), default=0):
        said.append(f"{repeated} rows repeat the content of another: fractions leave them out, and the whole has them")
    said += what_amounts_hide(portions_of, steps=match == "steps")
    if match == "paper":
        batch = points[0].experiment.config.train.global_batch
        said.append(f"the released runs took 64 clips per step on fractions and 256 on the whole; these take {batch} on all")
    return said + what_repeats_are(points)


def what_repeats_are(points: Sequence[Point]) -> list[str]:
    """What differs between the repeats of an amount, in words."""
    if not max(point.repeat for point in points):
        return []
    drawn = {point.portion.subset for point in points if point.portion} - {""}
    same = " and ".join(sorted(drawn - {"random"}) or ["the whole"])
    return [f"repeats of {same} are the same videos under other seeds of training"
            + ("; those of random also draw other recordings" if "random" in drawn else "")]
