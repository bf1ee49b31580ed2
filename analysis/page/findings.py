"""What was found out about a model later, from folders of results: interpolation, attention, embeddings and what may come.

A folder of results has tables as CSV and, where the job writes one, a result.json. Summaries become tables of the page; what
has a row per clip, and every column that may name files, stays where it is.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from analysis.page.html import Picture, Section, Table
from analysis.page.wording import discreet, number
from vidmae.runs.record import read_json

MOST_ROWS, MOST_PICTURES, MOST_OPEN = 200, 8, 30  # longer tables are folded
DEPTH = 2  # folders below the one that is named
TITLES = {"interpolate": "Interpolation", "attention": "Attention", "embed": "Embeddings", "embeddings": "Embeddings"}
CAPTIONS = {  # tables that are known, in this order
    "methods.csv": "Scores of the hidden pixels, mean over recordings; motion: thirds of the clips by how much moves",
    "differences.csv": "Model minus baseline on the same clips, with 95 % intervals over recordings",
    "tracking_summary.csv": "Tracking probe: where a completion shows the moving object, and whether once",
    "summary.csv": "Share of the attention on moving pixels by the share of the area that they are; 1: it does not care",
    "embedding-scores.csv": "Whether clips of a class lie together: silhouette, and classes of the nearest clips",
}
PLOTS = "embedding-*.png"  # of features, not of footage
PER_CLIP = {"scores.csv", "tracking.csv", "clips.csv", "neighbours.csv"}
SHOWS = {"interpolate": "original, what the model saw, completion", "attention": "frames and maps of attention"}
PRIVATE_COLUMNS = {"path", "paths", "file", "files", "filename", "file_name", "video", "video_name", "clip_name", "name",
                   "recording", "source"}
KEEP: dict[str, Callable[[Mapping[str, str]], bool]] = {"differences.csv": lambda row: row["motion"] == "all"}
HIDDEN_KEYS = {"schema", "kind", "job_id", "finished", "weights", "weights_content", "content_sha256", "sizes_from",
               "commit", "dirty"}


def folders_of_results(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """A folder and those below it that hold results, by name; parts of one result are not looked into."""
    try:
        entries = sorted(folder.iterdir())
    except NotADirectoryError:
        return
    if any(_is_summary(path) or path.name == "result.json" for path in entries):
        yield folder
    elif depth:
        for path in entries:
            if path.is_dir() and not path.name.startswith("."):
                yield from folders_of_results(path, depth - 1)


def section_of(folder: Path, *, frames: bool) -> Section:
    """A folder's tables, and its pictures where footage may be shown."""
    words: list[str] = []
    try:
        record = read_json(folder / "result.json") or {}
    except ValueError:
        record, words = {}, ["result.json is damaged, so what was done is not said."]
    plots = sorted(folder.glob(PLOTS))
    kind = str(record.get("kind") or ("embed" if plots else ""))
    title = TITLES.get(kind, discreet(kind).capitalize() or "Further results")
    facts = [(key.replace("_", " "), number(value)) for key, value in record.items()
             if key not in HIDDEN_KEYS and isinstance(value, str | int | float)]
    tables = [Table("What was done", (), facts)] if facts else []
    known = list(CAPTIONS)
    files = sorted(filter(_is_summary, folder.iterdir()), key=lambda path: path.name)
    for path in sorted(files, key=lambda path: known.index(path.name) if path.name in known else len(known)):
        try:
            tables.append(_table(path))
        except (ValueError, csv.Error, KeyError) as error:
            words.append(f"One table cannot be read ({type(error).__name__}).")
    footage = [path for path in (*folder.glob("*.png"), *folder.glob("pictures/*.png")) if path not in plots]
    pictures, said = pictures_of(footage, ": ".join(filter(None, (title, SHOWS.get(kind)))), frames=frames)
    drawn = [Picture(f"{title}: clips by class, plot {number} of {len(plots)}", path.read_bytes())
             for number, path in enumerate(plots, 1)]
    return Section(title, [*words, *said], tables=tables, pictures=[*drawn, *pictures])


def pictures_of(paths: Sequence[Path], what: str, *, frames: bool) -> tuple[list[Picture], list[str]]:
    """Pictures for the page, and a sentence about those that are not on it. Alternative texts have no file names."""
    paths = sorted(paths, key=lambda path: ("scene-" in path.name, path.name))  # real clips come first
    if not paths:
        return [], []
    if not frames:
        return [], [f"Pictures that are left out, since they may show private footage: {len(paths)} (--frames shows them)."]
    shown = [Picture(f"{what}, picture {number} of {len(paths)}", path.read_bytes())
             for number, path in enumerate(paths[:MOST_PICTURES], 1)]
    return shown, [f"Of {len(paths)} pictures, {MOST_PICTURES} are shown."] if len(paths) > MOST_PICTURES else []


def _is_summary(path: Path) -> bool:
    name = path.name
    return name.endswith(".csv") and name not in PER_CLIP and not name.startswith((".", "videos"))


def _table(path: Path) -> Table:
    keep = KEEP.get(path.name)
    with path.open(encoding="utf-8", errors="replace", newline="") as text:
        reader = csv.DictReader(text)
        columns = [name for name in reader.fieldnames or () if path.name in CAPTIONS or name.lower() not in PRIVATE_COLUMNS]
        rows = [[number(row[name]) if row[name] else "--" for name in columns]
                for row in islice(filter(keep, reader), MOST_ROWS + 1)]
    caption = CAPTIONS.get(path.name, discreet(path.stem).replace("_", " ").capitalize())
    if len(rows) > MOST_ROWS:
        caption += f" (the first {MOST_ROWS} rows)"
    shown = rows[:MOST_ROWS]
    numeric = [all(map(_is_number, cells)) for cells in zip(*shown, strict=True)]
    texts = numeric.index(True) if True in numeric else len(columns)
    return Table(caption, [name.replace("_", " ") for name in columns], shown, texts, folded=len(rows) > MOST_OPEN)


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"--|[-+\d.,e]+", cell) is not None
