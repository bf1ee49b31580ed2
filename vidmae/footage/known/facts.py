"""What a laboratory knows of a recording beside its pixels: optional columns of a manifest, behind its others.

    child       whose recording it is
    date        2013-04-17, or 2013-04-17T06:26:00 where the time of day is known
    age_months  of the child, as 13.5
    session     what the laboratory recorded at once; the parts of a session have one name
    licence     as the laboratory names it
    embargo     `yes`, or the first day on which the recording may be used, as 2027-01-01

Everything is text as it stands in the csv; what is not known is empty. Where nothing is known there are no such columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import date as Date
from datetime import datetime

DAYS_PER_MONTH = 365.25 / 12


@dataclass(frozen=True)
class Facts:
    """What is known of one recording; see above."""

    child: str = ""
    date: str = ""
    age_months: str = ""
    session: str = ""
    licence: str = ""
    embargo: str = ""

    def __bool__(self) -> bool:
        return any(astuple(self))

    @property
    def when(self) -> datetime | None:
        """Start of the recording, at midnight where only the day is known."""
        return datetime.fromisoformat(self.date) if self.date else None

    @property
    def months(self) -> float | None:
        """Age of the child in months of 30.44 days."""
        return float(self.age_months) if self.age_months else None

    def embargoed(self, today: Date) -> bool:
        """Whether the recording may not be used on a day."""
        return self.embargo == "yes" or (self.embargo != "" and Date.fromisoformat(self.embargo) > today)

    def filled_in(self, others: Facts) -> Facts:
        """What is known here, and where nothing is, what `others` say."""
        return Facts(*(mine or theirs for mine, theirs in zip(astuple(self), astuple(others), strict=True)))


NO_FACTS = Facts()
FACT_COLUMNS = tuple(f.name for f in fields(Facts))


def facts_sha256(known: Iterable[Facts]) -> str:
    """Hash of the facts of all rows of a manifest, in their order."""
    digest = hashlib.sha256()
    for facts in known:
        digest.update("\0".join((*astuple(facts), "\n")).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def iso_date(text: str) -> str:
    """A date, with or without a time of day, as it stands in a manifest.

    Args:
        text: ISO 8601, such as 2013-04-17, 2013-04-17 06:26 or 20130417.
    Raises:
        ValueError: It is something else.
    """
    text = text.strip()
    if len(text) == 8 and text.isdecimal():
        text = f"{text[:4]}-{text[4:6]}-{text[6:]}"
    when = datetime.fromisoformat(text)
    if when.tzinfo is not None:
        raise ValueError(f"{text!r} has a time zone; give the local time")
    return when.date().isoformat() if len(text) == 10 else when.isoformat(timespec="seconds")
