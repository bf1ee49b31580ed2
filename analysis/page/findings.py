"""What was found out about a model later, from folders of results: interpolation, attention, embeddings and what may come.

A folder of results has tables as CSV and, where the job writes one, a result.json. Summaries become tables of the page; what
has a row per clip, and every column that may name files, stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.page.html import Section, Table
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
HIDDEN_KEYS = {"schema", "kind", "job_id", "finished", "weights", "weights_content", "content_sha256", "sizes_from",
               "commit", "dirty"}


def folders_of_results(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """A folder and those below it that hold results, by name; parts of one result are not looked into."""
    if summaries(folder) or (folder / "result.json").exists():
        yield folder
    elif depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith("."):
                yield from folders_of_results(path, depth - 1)


def summaries(folder: Path) -> list[Path]:
    """The tables of a folder that have no row per clip: those that are known first, the others by name."""
    known, found = list(CAPTIONS), [path for path in folder.glob("[!.]*.csv") if not path.name.startswith("videos")]
    return sorted((path for path in found if path.name not in PER_CLIP),
                  key=lambda path: (known.index(path.name) if path.name in known else len(known), path.name))


def results_section(folder: Path, *, frames: bool) -> Section:
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
    tables = [Table("What was done", pd.DataFrame(facts))] if facts else []
    for path in summaries(folder):
        try:
            tables.append(read_table(path))
        except (ValueError, KeyError) as error:
            words.append(f"One table cannot be read ({type(error).__name__}).")
    footage = [path for path in (*folder.glob("*.png"), *folder.glob("pictures/*.png")) if path not in plots]
    pictures, said = pictures_of(footage, ": ".join(filter(None, (title, SHOWS.get(kind)))), frames=frames)
    drawn = [(f"{title}: clips by class, plot {number} of {len(plots)}", path) for number, path in enumerate(plots, 1)]
    return Section(title, [*words, *said], tables=tables, pictures=[*drawn, *pictures])


def pictures_of(paths: Sequence[Path], what: str, *, frames: bool) -> tuple[list[tuple[str, Path]], list[str]]:
    """Pictures for the page, and a sentence about those that are not on it. Alternative texts have no file names."""
    paths = sorted(paths, key=lambda path: ("scene-" in path.name, path.name))  # real clips come first
    if paths and not frames:
        return [], [f"Pictures that are left out, since they may show private footage: {len(paths)} (--frames shows them)."]
    shown = [(f"{what}, picture {number} of {len(paths)}", path) for number, path in enumerate(paths[:MOST_PICTURES], 1)]
    return shown, [f"Of {len(paths)} pictures, {MOST_PICTURES} are shown."] if len(paths) > MOST_PICTURES else []


def read_table(path: Path) -> Table:
    """The first rows of a table of results, without columns that may name files."""
    differences, known = path.name == "differences.csv", path.name in CAPTIONS
    try:
        found = pd.read_csv(
            path, dtype=str, keep_default_na=False, index_col=False, encoding_errors="replace",
            nrows=None if differences else MOST_ROWS + 1,
            usecols=lambda name: known or name.lower().partition(".")[0] not in PRIVATE_COLUMNS)  # the second path is path.1
    except pd.errors.EmptyDataError:
        found = pd.DataFrame()
    if differences:
        found = found[found["motion"] == "all"]
    shown = found[:MOST_ROWS].map(lambda text: number(text) if text else "--")
    numeric = [len(shown) > 0 and shown[name].str.fullmatch(r"--|[-+\d.,e]+").all() for name in shown]
    shown = shown.rename(columns=lambda name: "" if name.startswith("Unnamed: ") else name.replace("_", " "))
    caption = CAPTIONS.get(path.name, discreet(path.stem).replace("_", " ").capitalize())
    caption += f" (the first {MOST_ROWS} rows)" if len(found) > MOST_ROWS else ""
    return Table(caption, shown, [*numeric, True].index(True) if numeric else None, folded=len(found) > MOST_OPEN)
