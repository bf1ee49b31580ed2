"""What was found out about a model later, from folders of results: interpolation, attention, embeddings and what may come.

A folder of results has tables as CSV and, where the job writes one, a result.json. Summaries become tables of the page; what
has a row per clip stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from analysis.page.finding_tables import CAPTIONS, read_frame, table_of, verdicts
from analysis.page.html import Section, Table
from analysis.page.wording import discreet, number
from vidmae.runs.record import read_json

MOST_PICTURES = 8
DEPTH = 2  # folders below the one that is named
TITLES = {"interpolate": "Interpolation", "attention": "Attention", "embed": "Embeddings", "embeddings": "Embeddings",
          "surprise": "Surprise"}
PLOTS = {"surprise.png": "surprise over time, possible videos against impossible ones",
         "embedding-cls.png": "clips by class, by the class token",
         "embedding-mean.png": "clips by class, by the mean of the patch tokens",
         "confusion.png": "true classes, and the classes that were said"}
"""Pictures of numbers and not of footage."""
PER_CLIP = {"scores.csv", "tracking.csv", "clips.csv", "neighbours.csv", "surprise.csv", "pairs.csv"}
SHOWS = {"interpolate": "what the model saw and filled in", "attention": "frames, and maps of attention over them"}
CLIP = re.compile(r"row(\d+)-(\d+)(-heads|-rollout)?$")
SCENE = "scene-"  # first letters of the pictures of made scenes
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
    plots = [folder / name for name in PLOTS if (folder / name).is_file()]
    kind = str(record.get("kind") or ("embed" if any("embedding" in path.name for path in plots) else ""))
    title = TITLES.get(kind, discreet(kind).capitalize() or "Further results")
    if kind == "interpolate" and isinstance(record.get("mask"), str) and isinstance(record.get("ratio"), float):
        title += f", {discreet(record['mask'])} mask, {100 * record['ratio']:.3g} % hidden"
    facts = [(key.replace("_", " "), number(value)) for key, value in record.items()
             if key not in HIDDEN_KEYS and isinstance(value, str | int | float)]
    tables = [Table("What was done", pd.DataFrame(facts))] if facts else []
    for path in summaries(folder):
        try:
            found = read_frame(path)
            tables.append(table_of(path.name, found))
            words += verdicts(path.name, found)
        except (ValueError, KeyError) as error:
            words.append(f"One table cannot be read ({type(error).__name__}).")
    footage = [path for path in (*folder.glob("*.png"), *folder.glob("pictures/*.png")) if path not in plots]
    pictures, said = pictures_of(footage, ": ".join(filter(None, (title, SHOWS.get(kind)))), frames=frames)
    drawn = [(f"{title}: {PLOTS[path.name]}", path) for path in plots]
    return Section(title, [*words, *said], tables=tables, plots=drawn, pictures=pictures)


def pictures_of(paths: Sequence[Path], what: str, *, frames: bool) -> tuple[list[tuple[str, Path]], list[str]]:
    """Pictures for the page, and a sentence about those that are not on it. Alternative texts have no file names."""
    paths = sorted(paths, key=lambda path: ("scene-" in path.name, path.name))  # real clips come first
    if paths and not frames:
        return [], [f"Pictures that are left out, since they may show private footage: {len(paths)} (--frames shows them)."]
    shown = [(f"{what}, {name}", path) for name, path in zip(captions(paths), paths[:MOST_PICTURES], strict=False)]
    return shown, [f"Of {len(paths)} pictures, {MOST_PICTURES} are shown."] if len(paths) > MOST_PICTURES else []


def captions(paths: Sequence[Path]) -> list[str]:
    """What tells pictures apart: recording and clip, the number of a scene, or a number. Never a part of a file's name."""
    scenes = [path for path in paths if path.name.startswith(SCENE)]
    said = []
    for place, path in enumerate(paths, 1):
        if clip := CLIP.search(path.stem):
            what = {"-heads": ", each head", "-rollout": ", rollout"}.get(clip[3] or "", "")
            said.append(f"recording {int(clip[1])}, clip {int(clip[2]) + 1}{what}")
        elif path in scenes:
            said.append(f"scene {scenes.index(path) + 1} of {len(scenes)}")
        else:
            said.append(f"picture {place} of {len(paths)}")
    return said
