"""Lists of pairs: a possible video and an impossible one that are as alike as can be. A CSV file, no torch.

    possible,impossible,concept,set,scene
    01/1.mp4,01/3.mp4,permanence,mine,01
    01/4.mp4,01/2.mp4,permanence,mine,01

The first four columns must be there. A path is that of a video, or of a folder with its frames as pictures, and starts at
the folder of the list. More columns may be there, and their cells may be empty:

    scene                                       pairs of one scene are not independent: they are drawn again together
    start_s                                     where the part that counts begins in both videos
    possible_start_frame, impossible_start_frame    the same for one video, in its own frames
    fps                                         frames per second of a folder of frames, which must have it
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidmae.runs.record import write_atomic
from vidmae.settings.layers import ConfigError

NEEDED = ("possible", "impossible", "concept", "set")
COLUMNS = (*NEEDED, "scene", "start_s", "possible_start_frame", "impossible_start_frame", "fps")
PICTURES = (".png", ".jpg", ".jpeg")
ALL = "all"


@dataclass(frozen=True)
class Place:
    """Where a video is.

    Attributes:
        path: Of a video, or of a folder with its frames.
        start_s: Seconds that are left out at its beginning.
        start_frame: Frames that are left out, besides.
        fps: Of a folder of frames; 0 where the file says it.
    """

    path: str
    start_s: float = 0.0
    start_frame: int = 0
    fps: float = 0.0


@dataclass(frozen=True)
class Pair:
    """Two videos to compare.

    Attributes:
        possible: The one that follows the laws of physics.
        impossible: The one that breaks one.
        concept: Which one, such as permanence.
        dataset: Which set of videos it is from.
        scene: Pairs of one set with the same scene are not independent; unique where a list says nothing of it.
    """

    possible: Place
    impossible: Place
    concept: str
    dataset: str
    scene: str


def read_pairs(path: Path) -> list[Pair]:
    """Read a list.

    Args:
        path: The CSV file.
    Raises:
        ConfigError: It cannot be used; the message says which line, and not which video.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            table = csv.DictReader(file)
            names, rows = list(table.fieldnames or ()), list(table)
    except OSError as error:
        raise ConfigError(f"--pairs {path} cannot be read: {error.strerror}") from None
    wrong = [name for name in names if name not in COLUMNS] or [name for name in NEEDED if name not in names]
    if wrong:
        raise ConfigError(f"--pairs {path}: the columns are {', '.join(names)}; {wrong[0]!r} is "
                          f"{'unknown' if wrong[0] in names else 'missing'}. Needed: {', '.join(NEEDED)}; others that may "
                          f"be there: {', '.join(COLUMNS[len(NEEDED):])}")
    if not rows:
        raise ConfigError(f"--pairs {path} lists no pair")
    return [_pair(row, number, path) for number, row in enumerate(rows, 2)]


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write a list with absolute paths at once or not at all, readable by its owner alone."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for p in pairs:
        writer.writerow([Path(p.possible.path).absolute(), Path(p.impossible.path).absolute(), p.concept, p.dataset, p.scene,
                         repr(p.possible.start_s), p.possible.start_frame, p.impossible.start_frame,
                         repr(fps) if (fps := max(p.possible.fps, p.impossible.fps)) else ""])
    write_atomic(path, text.getvalue().encode("utf-8", "surrogateescape"))


def content_of(pairs: Sequence[Pair]) -> str:
    """A hash of what a list says and of the sizes of its files, so that results of other videos are not taken for these."""
    known = hashlib.sha256()
    for p in pairs:
        sizes = [sum(f.stat().st_size for f in files_of(place)) for place in (p.possible, p.impossible)]
        known.update(repr((p, sizes)).encode("utf-8", "surrogateescape"))
    return known.hexdigest()


def files_of(place: Place) -> list[Path]:
    """The file of a video, or its frames in the order of the numbers in their names."""
    path = Path(place.path)
    if not path.is_dir():
        return [path]
    return sorted((p for p in path.iterdir() if p.suffix.lower() in PICTURES), key=lambda p: _natural(p.name))


def videos_of(pairs: Sequence[Pair]) -> list[Place]:
    """Every video of a list once, in the order in which they come."""
    return list(dict.fromkeys(place for pair in pairs for place in (pair.possible, pair.impossible)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _pair(row: dict[str, str | None], number: int, path: Path) -> Pair:
    where = f"--pairs {path}, line {number}"
    if None in row or None in row.values():
        raise ConfigError(f"{where} has another number of cells than the first line")
    cells = {name: (value or "").strip() for name, value in row.items()}
    if not cells["concept"] or cells["concept"] == ALL:
        raise ConfigError(f"{where}: the concept is {cells['concept']!r}; give a name, other than {ALL!r}")
    start_s, fps = (_number(cells, name, where) for name in ("start_s", "fps"))
    places = []
    for side in ("possible", "impossible"):
        if not cells[side]:
            raise ConfigError(f"{where}: the cell of {side!r} is empty")
        start_frame = int(_number(cells, f"{side}_start_frame", where))
        place = Place(str(path.absolute().parent / Path(cells[side]).expanduser()), start_s, start_frame, fps)
        _check(place, f"{where}, {side}")
        places.append(place if Path(place.path).is_dir() else Place(place.path, start_s, place.start_frame))
    if places[0] == places[1]:
        raise ConfigError(f"{where}: both videos of the pair are the same")
    return Pair(places[0], places[1], cells["concept"], cells["set"], cells.get("scene", "") or f"line {number}")


def _check(place: Place, where: str) -> None:
    path = Path(place.path)
    if not path.exists():
        raise ConfigError(f"{where}: there is no such file or folder (paths start at the folder of the list)")
    if path.is_dir() and not place.fps:
        raise ConfigError(f"{where} is a folder of frames, which does not say how many a second there are: fill in the "
                          "column 'fps'")
    if path.is_dir() and not files_of(place):
        raise ConfigError(f"{where} is a folder without pictures ({', '.join(PICTURES)})")


def _number(cells: dict[str, str], name: str, where: str) -> float:
    text = cells.get(name, "")
    whole = name.endswith("_frame")
    if not re.fullmatch(r"\d+" if whole else r"\d+(\.\d+)?", text or "0"):
        raise ConfigError(f"{where}: {name} is {text!r}, allowed: a {'whole ' if whole else ''}number, 0 or more")
    return float(text or 0)
