"""What the names of recordings say: which recording a video is a part of, of which child, and when it was made.

    S_20130417_0626_01_segment12.mp4     child S, 17 April 2013 at 6:26, recording 01, part 12

Names of SAYCam are read as they are; other names need a pattern of their own, a regular expression of the whole name without
its extension, with the groups `recording` and, where they are there, `child`, `date` (YYYYMMDD, any separators), `time`
(HHMM) and `part`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePath

SAYCAM = r"(?P<recording>(?P<child>[A-Za-z]+)_(?P<date>\d{8})_(?P<time>\d{4})_\d+)_segment(?P<part>\d+)"
ONE_EACH = "(?P<recording>.+)"
DAY_S = 86400.0


class RecordingsError(ValueError):
    """Names do not say what is asked of them; the message has the pattern and the flag, never a name."""


@dataclass(frozen=True)
class Part:
    """A video as a part of a recording.

    Attributes:
        recording: Name of the recording.
        child: Whose; empty where the name does not say it.
        when: Start of the recording; None where the name does not say it.
        part: Place within the recording.
    """

    recording: str
    child: str
    when: datetime | None
    part: int


def read_names(paths: Sequence[str], pattern: str = SAYCAM) -> list[Part | None]:
    """Read the names of videos; None for each that the pattern does not match, no date where it is not in the calendar.

    Raises:
        RecordingsError: The pattern is no regular expression or lacks its group.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise RecordingsError(f"'{pattern}' is no regular expression: {error} (--pattern)") from error
    if "recording" not in compiled.groupindex:
        raise RecordingsError(f"'{pattern}' has no group (?P<recording>...); '{ONE_EACH}' takes every video as a recording "
                              "of its own (--pattern)")
    found = [compiled.fullmatch(PurePath(path).stem) for path in paths]
    return [_part(match) if match else None for match in found]


def _part(match: re.Match[str]) -> Part:
    groups = {name: text or "" for name, text in match.groupdict().items()}
    day, clock, part = (re.sub(r"\D", "", groups.get(name, "")) for name in ("date", "time", "part"))
    return Part(groups["recording"], groups.get("child", ""), _moment(day, clock or "0000"), int(part or 0))


def _moment(day: str, clock: str) -> datetime | None:
    if (len(day), len(clock)) != (8, 4):  # strptime takes fewer digits, too
        return None
    try:
        return datetime.strptime(day + clock, "%Y%m%d%H%M")
    except ValueError:
        return None


def all_named(parts: Sequence[Part | None], pattern: str, why: str, *, dated: bool) -> list[Part]:
    """The parts themselves where every name says what is needed.

    Args:
        parts: From `read_names`.
        pattern: That they were read with.
        why: What needs it, for the message.
        dated: Dates are needed, too.
    Raises:
        RecordingsError: Some do not; the message counts them.
    """
    good = [part for part in parts if part and (part.when or not dated)]
    if len(good) < len(parts):
        need = "recording and date" if dated else "recording"
        hint = "" if dated else f"; '{ONE_EACH}' takes every video as a recording of its own"
        raise RecordingsError(f"{why} needs the {need} of every video; {len(parts) - len(good)} of {len(parts)} names do "
                              f"not say it when read by '{pattern}', made for S_20130417_0626_01_segment12.mp4; give the "
                              f"pattern of your names with --pattern{hint}")
    return good


def ages_days(parts: Sequence[Part], born: Mapping[str, date]) -> list[float]:
    """Age of the child at each part, in days; since the child's first recording where the date of birth is not known.

    Args:
        parts: With dates.
        born: Child to date of birth; the key "" stands for every child.
    Raises:
        RecordingsError: A recording is older than its child.
    """
    first: dict[str, datetime] = {}
    for part in parts:
        assert part.when is not None, "all_named(dated=True) comes first"
        first[part.child] = min(part.when, first.get(part.child, part.when))
    for child, earliest in first.items():
        birth = born.get(child, born.get(""))
        if birth and earliest.date() < birth:
            raise RecordingsError(f"child {child or '(not named)'} is recorded {(birth - earliest.date()).days} days before "
                                  f"{birth} (--born)")
        first[child] = datetime(birth.year, birth.month, birth.day) if birth else earliest
    return [(part.when - first[part.child]).total_seconds() / DAY_S for part in parts if part.when]
