"""Lists of videos as people write them: a line is `path, label` (mae_st), `path label` (VideoMAE, V-JEPA) or `path`.

Paths and class names may hold commas. A comma with a space is part of a class name, as in `Removing it, revealing another`;
a bare comma, a tab or a number after it begins a third column, which is refused: it would join the label. Stdlib only.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

EXTENSIONS = frozenset({".mp4", ".mkv", ".webm", ".avi", ".mov"})
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
"""Endings of pictures, which are listed as videos of one frame where they are asked for."""


class ListError(ValueError):
    """A list cannot be used; the message names the line and says how it is written."""


def read_list(listing: Path, extensions: Collection[str]) -> list[tuple[str, str]]:
    """Path and label (maybe empty) of every line; empty lines and a first line `path,label` are skipped.

    Args:
        listing: A text file, with or without a byte order mark.
        extensions: Of videos, lower case, such as `.mp4`.
    Raises:
        ListError: A line names no video or has a third column, or it is an annotation file of Kinetics.
    """
    lines = listing.read_bytes().decode("utf-8-sig", "surrogateescape").split("\n")
    first = 1 + _is_header(lines[0], listing)
    numbered = enumerate(lines[first - 1:], first)
    return [_parse_line(line, extensions, f"{listing}:{i}") for i, line in numbered if line.strip()]


def _is_header(line: str, source: Path) -> bool:
    """Whether the first line of a list is `path,label`, which is skipped; the header of Kinetics' annotations is refused."""
    names = [name.strip('" ').lower() for name in line.strip().replace("\t", ",").split(",")]
    if {"youtube_id", "time_start"} <= set(names):
        raise ListError(f"{source} is an annotation file of Kinetics, which has YouTube ids and no paths; sort the videos "
                        "into class folders and take `manifest FOLDER --labels folders`, or write `path, label` lines")
    return names == ["path", "label"]


def _parse_line(line: str, extensions: Collection[str], place: str) -> tuple[str, str]:
    """The path and the label: those of the first split that gives a video's path."""
    quoted = _quoted(line.strip())
    for path, label in [(quoted[0], "".join(quoted[1:]))] if quoted else _splits(line.strip()):
        if Path(path.strip()).suffix.lower() in extensions:
            if len(quoted) > 2 or (not quoted and _has_columns(label.strip())):
                raise ListError(f"{place} has more than two columns; write `path, label` alone, and a label that holds "
                                'commas in quotes: path,"one,two"')
            return path.strip(), label.strip()
    raise ListError(f"{place} is not `path, label`, `path label` or `path` of a video ({' '.join(sorted(extensions))}); "
                    "a header may only be `path,label`, and only in the first line")


def _quoted(line: str) -> list[str]:
    """The values of a line in which quotes stand around values; empty where they are part of a name, or there are none."""
    with contextlib.suppress(csv.Error):
        if re.search(r'(^|,)\s*"', line):
            return next(csv.reader([line], strict=True, skipinitialspace=True))
    return []


def _has_columns(label: str) -> bool:
    """Whether a label without quotes is two columns or more; `Removing it, revealing another` is a class name."""
    words = label.split(", ")
    return "\t" in label or any("," in word for word in words) or (len(words) > 1 and any(map(str.isdecimal, words)))


def _splits(line: str) -> Iterator[tuple[str, str]]:
    for separator in (", ", ",", "\t"):
        words = line.split(separator)  # both the path and a class name may hold commas
        yield from ((separator.join(words[:n]), separator.join(words[n:])) for n in range(len(words) - 1, 0, -1))
    path, _, label = line.rpartition(" ")
    yield path, label
    yield line, ""


def walk(folder: Path) -> Iterator[Path]:
    """Every file below a folder, links followed, each folder once; one that cannot be read is an OSError."""
    def refuse(error: OSError) -> None:
        raise error

    seen: set[tuple[int, int]] = set()
    for where, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        stat = Path(where).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for name in names:
            yield Path(where, name)


def other_files(sources: Sequence[Path], extensions: Collection[str] = EXTENSIONS) -> Counter[str]:
    """How many files of each other kind lie in those sources that are folders, by ending; hidden ones do not count."""
    return Counter(path.suffix.lower() for source in sources if source.is_dir() for path in walk(source)
                   if path.suffix.lower() not in extensions and not path.name.startswith("."))


def nothing_found(source: Path, extensions: Collection[str]) -> str:
    """That a source holds nothing with such an ending; and, where it holds the other kind, which flag takes that."""
    of_pictures = set(extensions) >= PICTURES
    left = other_files([source], extensions)
    others = sum(left[ending] for ending in (EXTENSIONS if of_pictures else PICTURES))
    kinds = ("picture", "videos: leave out --images") if of_pictures else ("video", "pictures: give --images")
    return (f"{source} holds no {kinds[0]} ({' '.join(sorted(extensions))})"
            + (f", but {others} {kinds[1]}" if others else ""))
