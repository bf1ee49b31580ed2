"""The data of a scaling sweep: fractions of a data set by several subsets, and the whole of it."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from jobs.catalogue import DataSource
from vidmae.history import (
    Amount,
    Choice,
    FractionError,
    History,
    Subset,
    beginning,
    fraction_path,
    keep_fraction,
    parse_share,
    read_history,
)
from vidmae.layers import ConfigError
from vidmae.manifest import Summary


@dataclass(frozen=True)
class Portion:
    """The data of some pretraining runs.

    Attributes:
        amount: Share of the data set.
        subset: How it was chosen; empty for the whole.
        source: Its manifest.
        summary: Its totals.
        history: What it is the beginning of; None for the whole.
    """

    amount: Amount
    subset: str
    source: DataSource
    summary: Summary
    history: History | None = None

    def write(self) -> None:
        """Write the manifest where it is missing."""
        if self.history:
            keep_fraction(self.source.manifest, self.history, self.amount, write=True)


def parse_fractions(text: str) -> list[Amount]:
    """The fractions of --fractions, the smallest first.

    Raises:
        ConfigError: One stands twice.
        FractionError: One is no share.
    """
    amounts = sorted((parse_share(word.strip()) for word in text.split(",")), key=lambda amount: amount.share or 0)
    for one, other in itertools.pairwise(amounts):
        if one.share == other.share:
            raise ConfigError(f"--fractions {text}: {one.text} stands twice")
    return amounts


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


def portions(args: argparse.Namespace, data: DataSource, whole: Summary) -> Iterator[tuple[Portion, int]]:
    """Every portion and repeat, by fraction, subset and repeat; nothing is written.

    Args:
        args: Of sweeps/scaling.py.
        data: The whole data set.
        whole: Its totals.
    Raises:
        ConfigError: A fraction or a subset cannot be.
        FractionError: A fraction cannot be made, or two are the same videos.
    """
    amounts, subsets = parse_fractions(args.fractions), parse_subsets(args.subset)
    histories: dict[tuple[str, int | None], History] = {}
    made: dict[tuple[str, int | None, Amount], Portion] = {}
    for amount in amounts:
        if amount.share == 1:
            yield from ((Portion(amount, "", data, whole), repeat) for repeat in range(args.repeats))
            continue
        for subset in subsets:
            for repeat in range(args.repeats):
                seed = repeat if subset == "random" else None
                if (subset, seed) not in histories:
                    choice = Choice(subset, seed, args.pattern, args.born)
                    histories[subset, seed] = _history(data.manifest, choice, amounts)
                if (subset, seed, amount) not in made:
                    made[subset, seed, amount] = _portion(args, histories[subset, seed], amount)
                yield made[subset, seed, amount], repeat


def _history(manifest: Path, choice: Choice, amounts: Sequence[Amount]) -> History:
    """The order of a subset; refuse two fractions that are the same videos, which would be one point twice."""
    history = read_history(manifest, choice)
    counts: dict[int, Amount] = {}
    for amount in amounts:
        count = len(beginning(history.rows, amount))
        if count in counts:
            raise FractionError(f"--fractions {counts[count].text} and {amount.text} are the same {count} of "
                                f"{len(history.rows)} videos; leave one of them out")
        counts[count] = amount
    return history


def _portion(args: argparse.Namespace, history: History, amount: Amount) -> Portion:
    path = fraction_path(history.path, amount, history.choice)
    path = (args.manifests or path.parent).expanduser().absolute() / path.name
    summary = keep_fraction(path, history, amount, write=False)
    return Portion(amount, history.choice.subset, DataSource(path.stem, path, "the sweep"), summary, history)
