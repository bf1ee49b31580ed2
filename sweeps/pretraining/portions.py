"""The data of a study: fractions or hours of data sets by several subsets, and the whole of each."""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import get_args

from jobs.place.catalogue import DataSource
from vidmae.footage.history import (
    Amount,
    Choice,
    FractionError,
    History,
    Subset,
    beginning,
    fraction_path,
    keep_fraction,
    parse_hours,
    parse_share,
    read_history,
)
from vidmae.footage.manifest import Summary
from vidmae.settings.layers import ConfigError

WHOLE = parse_share("1")
NEAR = 1.02  # footage by what was asked for: videos are whole, and a minute in an hour is 1.7 %


@dataclass(frozen=True)
class DataSet:
    """A whole data set.

    Attributes:
        source: Its manifest.
        summary: Its totals.
    """

    source: DataSource
    summary: Summary

    @property
    def name(self) -> str:
        """As in the manifests of its fractions, and hence in the analysis."""
        return self.source.manifest.stem


@dataclass(frozen=True)
class Portion:
    """The data of some pretraining runs.

    Attributes:
        of: The data set.
        amount: Share or hours of it.
        subset: How it was chosen; empty for the whole.
        source: Its manifest.
        summary: Its totals.
        history: What it is the beginning of; None for the whole.
    """

    of: DataSet
    amount: Amount
    subset: str
    source: DataSource
    summary: Summary
    history: History | None = None

    @property
    def choice(self) -> tuple[str, str, float | None, float | None]:
        """What tells it from others but a draw: content of the data set, subset, share, hours."""
        share = self.amount.share
        return self.of.summary.content_sha256, self.subset, None if share is None else float(share), self.amount.hours

    def said(self) -> list[str]:
        """What its amount alone would hide, without a name of a file."""
        if not self.history:
            return []
        name, hours, asked = self.source.manifest.stem, self.summary.hours, self.amount.hours
        found = [f"{name} has {hours:.2f} h, since videos are whole"] if asked and hours > NEAR * asked else []
        here = (self.summary.fraction or {})["children"]
        everyone = {part.child for part in self.history.parts if part}
        if here and len(here) < len(everyone):
            why = ": contiguous goes by file name (--subset random, spread)" if self.subset == "contiguous" else ""
            found.append(f"{name} has videos of {len(here)} of {len(everyone)} children only{why}")
        return found

    def write(self) -> None:
        """Write the manifest where it is missing."""
        if self.history:
            keep_fraction(self.source.manifest, self.history, self.amount, write=True)


def parse_amounts(fractions: str, hours: str | None) -> list[Amount]:
    """What --hours, else --fractions asks for, the least first.

    Raises:
        ConfigError: One stands twice.
        FractionError: One is no share, or no hours.
    """
    flag, text, parse = ("--fractions", fractions, parse_share) if hours is None else ("--hours", hours, parse_hours)
    amounts = sorted((parse(word.strip()) for word in text.split(",")), key=_size)
    for one, other in itertools.pairwise(amounts):
        if _size(one) == _size(other):
            raise ConfigError(f"{flag} {text}: {one.text} stands twice")
    return amounts


def _size(amount: Amount) -> Fraction | float:
    return amount.share or amount.hours or 0


def parse_subsets(text: str) -> list[Subset]:
    """The subsets of --subset.

    Raises:
        ConfigError: There is no such subset, or one stands twice.
    """
    words = [word.strip() for word in text.split(",")]
    if unknown := [word for word in words if word not in get_args(Subset)]:
        raise ConfigError(f"--subset {unknown[0]!r} is no subset, allowed: {', '.join(get_args(Subset))}")
    if len(set(words)) < len(words):
        raise ConfigError(f"--subset {text}: one stands twice")
    return [subset for word in words for subset in get_args(Subset) if subset == word]


def portions(args: argparse.Namespace, sets: Sequence[DataSet]) -> Iterator[tuple[Portion, int]]:
    """Every portion and repeat, by data set, amount, subset and repeat; nothing is written.

    Args:
        args: Of sweeps/scaling.py or sweeps/pretrain.py.
        sets: The whole data sets.
    Raises:
        ConfigError: An amount or a subset cannot be.
        FractionError: A fraction cannot be made, or two are the same videos.
    """
    amounts, subsets = parse_amounts(args.fractions, args.hours), parse_subsets(args.subset)
    for data in sets:
        try:
            yield from _of(args, data, [_whole_or(amount, data) for amount in amounts], subsets)
        except FractionError as error:
            raise FractionError(f"{data.name}: {error}") from error


def _whole_or(amount: Amount, data: DataSet) -> Amount:
    """All the hours of a data set are the whole, once for all subsets."""
    every = amount.hours is not None and math.isclose(amount.hours, data.summary.hours, rel_tol=1e-9)
    return WHOLE if every else amount


def _of(args: argparse.Namespace, data: DataSet, amounts: Sequence[Amount], subsets: Sequence[Subset],
        ) -> Iterator[tuple[Portion, int]]:
    histories: dict[tuple[str, int | None], History] = {}
    made: dict[tuple[str, int | None, Amount], Portion] = {}
    for amount in amounts:
        if amount.share == 1:
            yield from ((Portion(data, amount, "", data.source, data.summary), repeat) for repeat in range(args.repeats))
            continue
        for subset in subsets:
            for repeat in range(args.repeats):
                seed = repeat if subset == "random" else None
                if (subset, seed) not in histories:
                    choice = Choice(subset, seed, args.pattern, args.born)
                    histories[subset, seed] = _history(data.source.manifest, choice, amounts)
                if (subset, seed, amount) not in made:
                    made[subset, seed, amount] = _portion(args, data, histories[subset, seed], amount)
                yield made[subset, seed, amount], repeat


def _history(manifest: Path, choice: Choice, amounts: Sequence[Amount]) -> History:
    """The order of a subset; refuse two fractions that are the same videos, which would be one point twice."""
    history = read_history(manifest, choice)
    counts: dict[int, Amount] = {}
    for amount in amounts:
        count = len(beginning(history.rows, amount))
        if count in counts:
            raise FractionError(f"{counts[count].text} and {amount.text} are the same {count} of {len(history.rows)} "
                                "videos; leave one of them out (--fractions, --hours)")
        counts[count] = amount
    return history


def _portion(args: argparse.Namespace, data: DataSet, history: History, amount: Amount) -> Portion:
    path = fraction_path(history.path, amount, history.choice)
    path = (args.manifests or path.parent).expanduser().absolute() / path.name
    summary = keep_fraction(path, history, amount, write=False)
    return Portion(data, amount, history.choice.subset, DataSource(path.stem, path, "the sweep"), summary, history)


def what_amounts_hide(of: Sequence[Portion], *, steps: bool) -> list[str]:
    """What the amounts of a study alone would hide, and what is equal between several data sets.

    Args:
        of: All portions.
        steps: All are trained as many steps.
    """
    said = [line for portion in of for line in portion.said()]
    wholes = list({portion.of.name: portion.of.summary for portion in of}.items())
    if len(wholes) > 1:
        shares = {portion.amount.share for portion in of}
        if None not in shares:
            each = ", ".join(f"{summary.hours:,.2f} h of {name}" for name, summary in wholes)
            said.append(f"the same share of several data sets is not the same amount (1 is {each}), so they are not "
                        "compared; --hours gives equal amounts")
        if steps:
            said.append(f"all data sets train as many steps as the recipe gives for {wholes[0][0]}, the first of them")
    return list(dict.fromkeys(said))
