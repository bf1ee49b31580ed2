"""A table of what a laboratory knows of its recordings, joined to the videos by their names.

    file,child,date,birth_date,session,licence,embargo
    S/S_20130417_0626_01.mp4,S,2013-04-17 06:26,2012-10-01,1,databrary,
    A/A_20130501_1010_01.mp4,A,2013-05-01,2012-11-20,1,databrary,2027-01-01

`file` is needed: a name with or without its ending, and maybe the last folders before it. Of the others those that are
there: `child`, `date`, `age_months` or `birth_date`, `session`, `licence`, `embargo` (yes, no, or the first day on which the
recording may be used). Columns are told apart by commas, semicolons or tabs. Messages give rows by number and no names.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path, PurePath

from vidmae.footage.known.facts import DAYS_PER_MONTH, Facts, iso_date
from vidmae.footage.manifest import ManifestError, Source
from vidmae.footage.recordings import NAMINGS, facts_of, read_names

OTHER_NAMES = {"license": "licence", "age": "age_months", "path": "file", "filename": "file", "birthdate": "birth_date"}
COLUMNS = ("file", "child", "date", "age_months", "birth_date", "session", "licence", "embargo")
NO_EMBARGO = frozenset({"", "no", "none", "false", "0"})
EMBARGO = frozenset({"yes", "true", "1"})
MOST_MONTHS = 1500.0
MOST_SHOWN = 5
AGREES_MONTHS = 1.0


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        row: Its number in the file; that of the header is 1.
        file: What it names.
        facts: What it says.
        born: Date of birth, for an age where only the video's name has a date.
    """

    row: int
    file: str
    facts: Facts
    born: date | None


@dataclass(frozen=True)
class Joined:
    """Videos with what is known of them.

    Attributes:
        sources: In the order of the table's videos as they were given.
        unknown_columns: Columns of the table that are not used.
        problems: What does not fit, each with rows by number; with names where these may be shown.
    """

    sources: list[Source]
    unknown_columns: list[str]
    problems: list[str]


def read_table(path: Path) -> tuple[list[Entry], list[str]]:
    """The rows of a table, and the names of columns that are not used.

    Raises:
        ManifestError: It cannot be read, has no column `file`, or a value is of another kind; the message gives the row.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise ManifestError(f"cannot read {path}: {error.strerror} (--about)") from error
    marks = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=marks)
    names = [OTHER_NAMES.get(word, word) for word in (cell.strip().lower().replace(" ", "_") for cell in next(reader, []))]
    if "file" not in names:
        raise ManifestError(f"{path} has no column `file`; its first line must name the columns, of {', '.join(COLUMNS)} "
                            "(--about)")
    if repeated := sorted({name for name in names if names.count(name) > 1 and name in COLUMNS}):
        raise ManifestError(f"{path} has the column {repeated[0]} twice (--about)")
    entries = []
    for number, cells in enumerate(reader, 2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) > len(names):
            raise ManifestError(f"{path} row {number}: {len(cells)} values for {len(names)} columns (--about)")
        values = dict(zip(names, (cell.strip() for cell in cells), strict=False))
        try:
            entries.append(_entry(number, values))
        except ValueError as error:
            raise ManifestError(f"{path} row {number}: {error} (--about)") from error
    return entries, [name for name in names if name not in COLUMNS]


def _entry(number: int, values: Mapping[str, str]) -> Entry:
    def value(name: str, kind: Callable[[str], str], allowed: str) -> str:
        text = values.get(name, "")
        try:
            return kind(text) if text else ""
        except ValueError as error:
            raise ValueError(f"{name} {text!r} is not allowed: {allowed}") from error

    if not values.get("file"):
        raise ValueError("file is empty")
    when = value("date", iso_date, "a date such as 2013-04-17 or 2013-04-17 06:26")
    birth = value("birth_date", iso_date, "a date such as 2012-10-01")
    age = value("age_months", _months, f"months from 0 to {MOST_MONTHS:g}, such as 13.5")
    embargo = value("embargo", _embargo, "yes, no, or the first day of use such as 2027-01-01")
    facts = Facts(values.get("child", ""), when, age, values.get("session", ""), values.get("licence", ""), embargo)
    born = date.fromisoformat(birth[:10]) if birth else None
    return Entry(number, values["file"], _aged(facts, born), born)


def _months(text: str) -> str:
    if not 0 <= float(text) <= MOST_MONTHS:
        raise ValueError(text)
    return f"{float(text):.6g}"


def _embargo(text: str) -> str:
    word = text.lower()
    if word in NO_EMBARGO:
        return ""
    return "yes" if word in EMBARGO else iso_date(text)[:10]


def _aged(facts: Facts, born: date | None) -> Facts:
    """With the age that follows from the dates of recording and of birth."""
    if born is None or facts.when is None:
        return facts
    days = (facts.when.date() - born).days
    if days < 0:
        raise ValueError(f"date {facts.date} is {-days} days before birth_date")
    months = days / DAYS_PER_MONTH
    if facts.months is not None and abs(facts.months - months) > AGREES_MONTHS:
        raise ValueError(f"age_months {facts.age_months} does not fit date and birth_date, which give {months:.1f}")
    return facts if facts.age_months else replace(facts, age_months=f"{months:.6g}")


def join(sources: Sequence[Source], about: Path | None, naming: str | None, *, names_shown: bool = False) -> Joined:
    """Give every video what a table and its name say; the table goes before the name.

    Args:
        sources: The videos.
        about: The table, if there is one.
        naming: Key of `recordings.NAMINGS`: how names are read; None does not read them.
        names_shown: Problems may show names of files.
    Raises:
        ManifestError: The table cannot be read.
    """
    paths, problems, unknown = [source.path for source in sources], list[str](), list[str]()
    named = [source.facts for source in sources]
    if naming:
        named = [facts_of(part) for part in read_names(paths, NAMINGS[naming])]
        other = [(place, path) for place, (path, facts) in enumerate(zip(paths, named, strict=True), 1) if not facts]
        problems += problem(f"videos have other names than --names {naming}", len(sources), other, names_shown)
    facts = list(named)
    if about:
        entries, unknown = read_table(about)
        matched = match([entry.file for entry in entries], paths)
        found = {place: entries[number] for place, number in matched.found.items()}
        for place, entry in found.items():
            try:
                facts[place] = _aged(entry.facts.filled_in(named[place]), entry.born)
            except ValueError as error:
                raise ManifestError(f"{about} row {entry.row}: {error} (--about)") from error
        rows = "rows of the table (its header is row 1)"
        for what, wrong in ((f"{rows} name no video of the sources", matched.lost),
                            (f"{rows} name several videos, or one that another row names", matched.double)):
            problems += problem(what, len(entries), [(entries[n].row, entries[n].file) for n in wrong], names_shown)
        left = [(place + 1, path) for place, path in enumerate(paths) if place not in found]
        problems += problem("videos are not in the table", len(sources), left, names_shown)
    return Joined([replace(source, facts=each) for source, each in zip(sources, facts, strict=True)], unknown, problems)


def problem(what: str, of: int, found: Sequence[tuple[int, str]], names_shown: bool) -> list[str]:
    """A sentence with the numbers of the first few that were found, and their names where these may be shown; or nothing."""
    if not found:
        return []
    first = ", ".join(f"{number} ({name})" if names_shown else str(number) for number, name in found[:MOST_SHOWN])
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return [f"{len(found)} of {of} {what}: {first}{more}"]


@dataclass(frozen=True)
class Matched:
    """Which names of a list mean which videos.

    Attributes:
        found: Place of a video to the place of its name in the list.
        lost: Places of names that mean no video.
        double: Places of names that mean several, or one that has a name.
    """

    found: dict[int, int]
    lost: list[int]
    double: list[int]


def match(names: Sequence[str], paths: Sequence[str]) -> Matched:
    """Find the videos that names mean: a name with or without its ending, and maybe the last folders before it."""
    by_name: dict[str, list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        pure = PurePath(path)
        for name in {pure.name, pure.stem}:
            by_name[name].append(place)
    matched = Matched({}, [], [])
    for number, name in enumerate(names):
        parts = PurePath(name.replace("\\", "/")).parts
        folders = tuple(part for part in parts[:-1] if part not in (".", "/"))
        places = [place for place in by_name.get(parts[-1], ())
                  if not folders or PurePath(paths[place]).parts[-1 - len(folders):-1] == folders]
        if not places:
            matched.lost.append(number)
        elif len(places) > 1 or places[0] in matched.found:
            matched.double.append(number)
        else:
            matched.found[places[0]] = number
    return matched
