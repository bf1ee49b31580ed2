"""What the names of recordings say: which recording a video is a part of, of which child, and when it was made.

    S_20130417_0626_01_segment12.mp4     SAYCam: child S, 17 April 2013 at 6:26, recording 01, part 12
    00220001_GX010011_03.11.2024-03.17.2024_03.06.2024-1:59pm.MP4
                                         BabyView: child 00220001, chapter 01 of the camera's recording 0011, the week in
                                         which it was handed in, 6 March 2024 at 13:59

Names of SAYCam are read as they are, those of BabyView with --names babyview. Others need a pattern of their own: a regular
expression of the whole name without its extension. Its groups are `recording` and, where they are there, `child`, `date`
(YYYYMMDD, any separators) or `year`, `month` and `day`, `time` (HHMM) or `hour`, `minute` and `half` (am or pm), and `part`.
Groups `recording1`, `recording2` ... stand for a recording whose name has a part in its middle. What a manifest knows of a
recording (vidmae/footage/known/facts.py) goes before its name.

Source of the letters and numbers of a camera's file: GoPro's file naming convention (G, codec, chapter, number).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePath

from vidmae.footage.known.facts import NO_FACTS, Facts

SAYCAM = r"(?P<recording>(?P<child>[A-Za-z]+)_(?P<date>\d{8})_(?P<time>\d{4})_\d+)_segment(?P<part>\d+)"
BABYVIEW = (r"(?P<recording1>(?P<child>\d+))_G[A-Z](?P<part>\d\d)(?P<recording2>\d{4}_[\d.]+-[\d.]+)_"
            r"(?P<month>\d{1,2})\.(?P<day>\d{1,2})\.(?P<year>\d{4})-"
            r"(?P<hour>\d{1,2})[:._-]?(?P<minute>\d\d) ?(?P<half>[AaPp][Mm])")
NAMINGS = {"saycam": SAYCAM, "babyview": BABYVIEW}
"""Patterns by the name of the collection (--names)."""
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
    if not any(name.startswith("recording") for name in compiled.groupindex):
        raise RecordingsError(f"'{pattern}' has no group (?P<recording>...); '{ONE_EACH}' takes every video as a recording "
                              "of its own (--pattern)")
    found = [compiled.fullmatch(PurePath(path).stem) for path in paths]
    return [_part(match) if match else None for match in found]


def _part(match: re.Match[str]) -> Part:
    groups = {name: text or "" for name, text in match.groupdict().items()}
    day, clock, part = (re.sub(r"\D", "", groups.get(name, "")) for name in ("date", "time", "part"))
    if "year" in groups:
        day = f"{groups['year']}{groups['month']:0>2}{groups['day']:0>2}"
    if "hour" in groups:
        clock = f"{_hour(groups['hour'], groups.get('half', ''))}{groups['minute']:0>2}"
    recording = "_".join(groups[name] for name in sorted(groups) if name.startswith("recording"))
    return Part(recording, groups.get("child", ""), _moment(day, clock or "0000"), int(part or 0))


def _hour(text: str, half: str) -> str:
    """Of the day, two digits; 12am is 00, 12pm is 12. Anything else than 1 to 12 with `half` is no hour."""
    if not half:
        return f"{text:0>2}"
    return f"{int(text) % 12 + 12 * (half.lower() == 'pm'):02d}" if 1 <= int(text) <= 12 else "99"


def _moment(day: str, clock: str) -> datetime | None:
    if (len(day), len(clock)) != (8, 4):  # strptime takes fewer digits, too
        return None
    try:
        return datetime.strptime(day + clock, "%Y%m%d%H%M")
    except ValueError:
        return None


def known_parts(paths: Sequence[str], known: Sequence[Facts], pattern: str = SAYCAM) -> list[Part | None]:
    """What is known of videos: the facts of their rows, and where nothing is known what their names say.

    Args:
        paths: Of the videos.
        known: Facts of each.
        pattern: How names are read.
    Raises:
        RecordingsError: See `read_names`.
    """
    return [_known(path, part, facts) for path, part, facts in zip(paths, read_names(paths, pattern), known, strict=True)]


def _known(path: str, part: Part | None, facts: Facts) -> Part | None:
    if not facts:
        return part
    named = part or Part(PurePath(path).stem, "", None, 0)
    child = facts.child or named.child
    recording = f"{child}/{facts.session}" if facts.session else named.recording
    return Part(recording, child, facts.when or named.when, named.part)


def facts_of(part: Part | None) -> Facts:
    """What a name says, as facts of a manifest."""
    if part is None:
        return NO_FACTS
    return Facts(child=part.child, date=part.when.isoformat(timespec="seconds") if part.when else "", session=part.recording)


def all_named(parts: Sequence[Part | None], pattern: str, why: str, *, dated: bool) -> list[Part]:
    """The parts themselves where every name says what is needed.

    Args:
        parts: From `known_parts`.
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
                              f"pattern of your names with --names or --pattern, or a table with manifest --about{hint}")
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
