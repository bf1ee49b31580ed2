"""Fractions of a recording history: manifests of the first videos, of random recordings, or of all ages alike.

    manifests/s-0.01-contiguous.csv       and its .json, whose `fraction` says of what it is a fraction, and how
    manifests/s-0.01-random-seed0.csv
    manifests/s-10h-spread.csv

A subset is an order of all videos, and a fraction is its beginning: ceil(n * share) videos, or as many as make up the hours.
So smaller fractions lie within larger ones, and at the same share every subset has the same number of videos.

    contiguous   by file name, hence the earliest recordings first: the paper's; by child and date where the
                 manifest knows them (known/facts.py)
    random       recordings in a drawn order, the parts of each together; at most the last one is cut
    spread       at evenly spread ages, each time the video nearest to the next age

Videos with the same content count once. Source of `contiguous`: Orhan et al. 2024 (arXiv 2402.00300), released lists.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np

from vidmae.footage.known.facts import DAYS_PER_MONTH
from vidmae.footage.manifest import ManifestError, Row, Summary, read_all, read_summary, sum_part, write_part
from vidmae.footage.recordings import SAYCAM, Part, ages_days, all_named, known_parts

Subset = Literal["contiguous", "random", "spread"]


class FractionError(ValueError):
    """A fraction cannot be made; the message says why and what would do."""


@dataclass(frozen=True)
class Amount:
    """How much of a data set: a share of its videos or so many hours.

    Attributes:
        text: As in file names, such as `0.01` or `10h`.
        share: Exact, in (0, 1]; None where hours are given.
        hours: More than 0; None where a share is given.
    """

    text: str
    share: Fraction | None = None
    hours: float | None = None


@dataclass(frozen=True)
class Choice:
    """Which part of a recording history.

    Attributes:
        subset: How the videos are ordered.
        seed: Of the draw of `random`; None for the others.
        pattern: How names are read (vidmae/footage/recordings.py).
        born: Child to date of birth; the key "" stands for every child.
    """

    subset: Subset = "contiguous"
    seed: int | None = None
    pattern: str = SAYCAM
    born: Mapping[str, date] = field(default_factory=dict)


def parse_share(text: str) -> Amount:
    """A share such as `0.01`.

    Raises:
        FractionError: It is no number above 0 and up to 1.
    """
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise FractionError(f"--fractions {text} is not a number") from error
    if not 0 < share <= 1:
        raise FractionError(f"--fractions {text} is not allowed: more than 0 (else there are 0 videos), up to 1")
    return Amount(f"{float(share):.12f}".rstrip("0").rstrip("."), share=share)


def parse_hours(text: str) -> Amount:
    """Hours such as `10`.

    Raises:
        FractionError: It is no number above 0.
    """
    try:
        hours = float(text)
    except ValueError as error:
        raise FractionError(f"--hours {text} is not a number") from error
    if not 0 < hours < math.inf:
        raise FractionError(f"--hours {text} is not allowed: more than 0, up to the hours of the manifest")
    return Amount(f"{hours:.12f}".rstrip("0").rstrip(".") + "h", hours=hours)


@dataclass(frozen=True)
class History:
    """All videos of a manifest in the order of which fractions are the beginning.

    Attributes:
        path: The manifest.
        whole: Its totals.
        choice: What the order follows from.
        rows: In order; of rows with the same content the first by file name.
        parts: What the names say of them; None for each that does not match the pattern.
        ages: Of the child in days (`ages_days`); empty where not every name has a date.
        repeated: Rows that were left out since they repeat a content.
        born: Whether ages count from birth.
    """

    path: Path
    whole: Summary
    choice: Choice
    rows: Sequence[Row]
    parts: Sequence[Part | None]
    ages: Sequence[float]
    repeated: int
    born: bool


def read_history(manifest: Path, choice: Choice) -> History:
    """Read a manifest and put its videos in order; it depends on file names, facts, contents and the seed alone.

    Raises:
        ManifestError: It cannot be read.
        RecordingsError: Names do not say what the subset needs.
    """
    whole, found = read_all(manifest)
    kept: dict[str, Row] = {}
    for row in sorted(found, key=lambda row: (PurePath(row.path).name, row.path)):
        kept.setdefault(row.content, row)
    rows = list(kept.values())
    parts = known_parts([row.path for row in rows], [row.facts for row in rows], choice.pattern)
    if any(row.facts for row in rows):  # a name need not begin with the date
        by_date = sorted(range(len(rows)), key=lambda i: _date_key(parts[i]))
        rows, parts = [rows[i] for i in by_date], [parts[i] for i in by_date]
    ages, born = _ages(rows, parts, choice)
    order = _order(parts, ages, choice)
    return History(manifest, whole, choice, [rows[i] for i in order], [parts[i] for i in order],
                   [ages[i] for i in order] if ages else [], len(found) - len(rows), born)


def _date_key(part: Part | None) -> tuple[str, bool, str]:
    """By child, then by date, recordings without one last."""
    if part is None:
        return "", True, ""
    return part.child, part.when is None, part.when.isoformat() if part.when else ""


def _ages(rows: Sequence[Row], parts: Sequence[Part | None], choice: Choice) -> tuple[list[float], bool]:
    """Ages in days, none where one is not known, and whether they count from birth."""
    known = [row.facts.months for row in rows]
    if known and not choice.born and None not in known:
        return [months * DAYS_PER_MONTH for months in known if months is not None], True
    dated = [part for part in parts if part and part.when]
    return (ages_days(dated, choice.born) if len(dated) == len(rows) else []), bool(choice.born)


def _order(parts: Sequence[Part | None], ages: Sequence[float], choice: Choice) -> list[int]:
    """Places of the videos, which are sorted by file name, in the order of a subset."""
    if choice.subset == "contiguous":
        return list(range(len(parts)))
    good = all_named(parts, choice.pattern, f"--subset {choice.subset}", dated=choice.subset == "spread")
    if choice.subset == "random":
        seed = choice.seed or 0
        return sorted(range(len(good)), key=lambda i: (_lot(seed, good[i].recording), good[i].recording, good[i].part, i))
    by_age = sorted(range(len(good)), key=lambda i: (ages[i], good[i].recording, good[i].part, i))
    return [by_age[i] for i in spread_order(np.array([ages[i] for i in by_age]))]


def _lot(seed: int, recording: str) -> bytes:
    return hashlib.blake2b(f"{seed}\n{recording}".encode("utf-8", "surrogateescape"), digest_size=16).digest()


def beginning(order: Sequence[Row], amount: Amount) -> list[Row]:
    """As many rows as make up an amount, from the front.

    Raises:
        FractionError: More hours than there are.
    """
    if amount.share is not None:
        return list(order[:math.ceil(len(order) * amount.share)])
    assert amount.hours is not None
    ends = np.cumsum([row.seconds for row in order])
    if amount.hours * 3600 > ends[-1] + 1e-6:
        raise FractionError(f"--hours {amount.hours:g} is more than the {ends[-1] / 3600:.2f} h of the manifest")
    return list(order[:int(np.searchsorted(ends, amount.hours * 3600 - 1e-6)) + 1])


def spread_order(ages: np.ndarray) -> list[int]:
    """An order in which every beginning is spread over the range of ages: each time the free place nearest to the next age.

    The next ages are 1/2, 1/4, 3/4, 1/8, 5/8 ... of the range (van der Corput's sequence).

    Args:
        ages: [N], ascending.
    Returns:
        N places in `ages`, each once; of the same age the first.
    """
    n = len(ages)
    left, right = list(range(n + 1)), list(range(n + 1))  # the next free place; `left` counts from 1, and 0 is none
    order = []
    for i in range(1, n + 1):
        target = ages[0] + (ages[-1] - ages[0]) * _van_der_corput(i)
        beside = int(np.searchsorted(ages, target))
        place, before = _find(right, beside), _find(left, beside) - 1
        if place == n or (before >= 0 and target - ages[before] <= ages[place] - target):
            place = _find(right, int(np.searchsorted(ages, ages[before])))
        order.append(place)
        right[place], left[place + 1] = place + 1, place
    return order


def _van_der_corput(i: int) -> float:
    return int(f"{i:b}"[::-1], 2) / (1 << i.bit_length())


def _find(link: list[int], place: int) -> int:
    while link[place] != place:
        link[place] = link[link[place]]  # halves the way for the next search
        place = link[place]
    return place


def fraction_path(manifest: Path, amount: Amount, choice: Choice) -> Path:
    """Where a fraction lies beside its manifest."""
    seed = f"-seed{choice.seed or 0}" if choice.subset == "random" else ""
    return manifest.with_name(f"{manifest.stem}-{amount.text}-{choice.subset}{seed}.csv")


def write_fraction(out: Path, history: History, amount: Amount) -> Summary:
    """Write one fraction as a manifest.

    Args:
        out: The csv to write.
        history: From `read_history`.
        amount: How much of it.
    Returns:
        The totals; `fraction` has what was asked for and what the names say of the videos.
    """
    rows = beginning(history.rows, amount)
    return write_part(out, rows, history.whole, _record(history, amount, rows))


def keep_fraction(out: Path, history: History, amount: Amount, *, write: bool) -> Summary:
    """The totals of a fraction; it is written where it is missing or damaged, and left alone where it is there.

    Args:
        out: The csv.
        history: From `read_history`.
        amount: How much of it.
        write: False writes nothing at all.
    Raises:
        FractionError: Other videos are there.
    """
    rows = beginning(history.rows, amount)
    summary = sum_part(rows, history.whole, _record(history, amount, rows))
    try:
        there = read_summary(out)
    except ManifestError:
        there = None
    if there and there.content_sha256 != summary.content_sha256:
        raise FractionError(f"{out} holds other videos than {amount.text} of {history.path.name} has now: it was made from "
                            "an earlier state of it, or otherwise; delete it, or let new ones lie elsewhere (--manifests)")
    return write_fraction(out, history, amount) if write and there != summary else summary


def _record(history: History, amount: Amount, rows: Sequence[Row]) -> dict[str, Any]:
    """What a fraction's summary says of the choice."""
    choice = history.choice
    return {
        "of": history.path.stem, "of_content_sha256": history.whole.content_sha256, "of_videos": len(history.rows),
        "of_hours": sum(row.seconds for row in history.rows) / 3600, "has_hours": sum(row.seconds for row in rows) / 3600,
        "share": None if amount.share is None else float(amount.share), "hours": amount.hours, "subset": choice.subset,
        "seed": (choice.seed or 0) if choice.subset == "random" else None, **_said(history, len(rows))}


def _said(history: History, count: int) -> dict[str, Any]:
    """What the names say of the first videos; None where they do not say it."""
    parts, ages = [part for part in history.parts[:count] if part], history.ages[:count]
    named = len(parts) == count
    return {"children": sorted({part.child for part in parts}) if named else None,
            "recordings": len({part.recording for part in parts}) if named else None,
            "days": len({(part.child, part.when.date()) for part in parts if part.when}) if ages else None,
            "age_days": [min(ages), max(ages)] if ages else None,
            "age_since": ("birth" if history.born else "first recording") if ages else None}
