"""The tables of a comparison of possible and impossible videos. No torch.

    OUT/                      0700
      config.yaml             what was asked for
      videos-pairs.csv        the pairs, with paths: the one place with file names
      videos-backgrounds.csv  of generated scenes: manifest of their backgrounds, where a folder was given
      parts/of_0004/0001.csv  rows of one part of the videos; 0001.json: how many could not be read, and why
      surprise.csv            a row per video, context length and window: its surprise by every method
      pairs.csv               a row per pair, context length, reduction and method: both numbers, and whether it is right
      concepts.csv            share of right pairs by concept, with 95 % intervals; concepts.md has the primary number alone
      surprise.png            the model's surprise over time, possible against impossible; no frames
      result.json             exists exactly when all parts are done
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidmae.insight.csv_rows import Row
from vidmae.insight.paired import paired_difference
from vidmae.insight.surprise.pair_list import ALL
from vidmae.insight.surprise.pair_scores import PRIMARY, auc, is_right, reduced, share_of

MODEL, UNTRAINED = "model", "untrained"
OWN, PIXEL = "", "_pixel"
"""Endings of a method's name: the loss that the model was trained with, and the plain error of pixels."""
KEYS = ("video", "context", "window", "start_frame")
PAIR_COLUMNS = ("pair", "set", "concept", "scene", "windows", "context", "reduction", "method", "possible", "impossible",
                "right")
CONCEPT_COLUMNS = ("set", "concept", "context", "reduction", "method", "pairs", "scenes", "accuracy_pct", "ci_low",
                   "ci_high", "auc", "above_untrained_pct", "above_low", "above_high")
AGAINST = {f"{MODEL}{ending}": f"{UNTRAINED}{ending}" for ending in (OWN, PIXEL)}

Windows = dict[int, np.ndarray]
"""Of each context length the surprise of a video's windows."""


@dataclass(frozen=True)
class Comparison:
    """A pair by the numbers of its videos, from 1.

    Attributes:
        possible, impossible: Its videos.
        dataset: Which set it is of.
        concept: Which law is broken.
        scene: Number of its scene.
    """

    possible: int
    impossible: int
    dataset: str
    concept: str
    scene: int


def by_video(rows: Sequence[Row], methods: Sequence[str]) -> dict[int, dict[str, Windows]]:
    """The rows of surprise.csv: of each video and method the windows of each context length, in their order."""
    found: dict[int, dict[str, dict[int, list[float]]]] = {}
    for row in sorted(rows, key=lambda row: int(row["window"])):
        video = found.setdefault(int(row["video"]), {method: {} for method in methods})
        for method in methods:
            video[method].setdefault(int(row["context"]), []).append(row[method])
    return {number: {method: {context: np.array(values) for context, values in windows.items()}
                     for method, windows in video.items()} for number, video in found.items()}


def pairs_table(videos: Mapping[int, Mapping[str, Windows]], pairs: Sequence[Comparison]) -> list[Row]:
    """A row per pair, context, reduction and method; of pairs whose videos could be read."""
    table: list[Row] = []
    for number, pair in enumerate(pairs, 1):
        if pair.possible not in videos or pair.impossible not in videos:
            continue
        for method in videos[pair.possible]:
            sides = [videos[video][method] for video in (pair.possible, pair.impossible)]
            count = min(len(values) for side in sides for values in side.values())
            possible, impossible = (reduced(side, count) for side in sides)
            table += [{"pair": number, "set": pair.dataset, "concept": pair.concept, "scene": pair.scene, "windows": count,
                       "context": key[0], "reduction": key[1], "method": method, "possible": possible[key],
                       "impossible": impossible[key], "right": is_right(possible[key], impossible[key])} for key in possible]
    return table


def concepts_table(rows: Sequence[Row]) -> list[Row]:
    """The share of right pairs, for all and by set and concept; of the model also minus that of the untrained one."""
    table = []
    groups = dict.fromkeys([(ALL, ALL), *((row["set"], row["concept"]) for row in rows)])
    cells: dict[tuple[str, str, str, str, str], list[Row]] = {}
    for row in rows:
        for group in ((ALL, ALL), (row["set"], row["concept"])):
            cells.setdefault((*group, row["context"], row["reduction"], row["method"]), []).append(row)
    for key, found in sorted(cells.items(), key=lambda cell: list(groups).index(cell[0][:2])):
        scenes = [row["scene"] for row in found]
        share = share_of([row["right"] for row in found], scenes)
        area = auc(*(np.array([row[side] for row in found]) for side in ("possible", "impossible")))
        above = [float("nan")] * 3
        if key[-1] in AGAINST:
            other = cells[(*key[:-1], AGAINST[key[-1]])]
            mine, theirs = (np.array([row["right"] for row in each]) for each in (found, other))
            apart = paired_difference(mine, theirs, np.array(scenes))
            above = [100 * apart.mean, 100 * apart.low, 100 * apart.high]
        values = (*key, share.pairs, share.scenes, share.pct, share.low, share.high, area, *above)
        table.append(dict(zip(CONCEPT_COLUMNS, values, strict=True)))
    return table


def primary(rows: Sequence[Row]) -> list[Row]:
    """The rows of concepts.csv that were fixed beforehand as the result."""
    return [row for row in rows if (row["context"], row["reduction"]) == PRIMARY]


def markdown(rows: Sequence[Row]) -> str:
    """The primary numbers as a table: a line per concept, a column per method."""
    chosen = primary(rows)
    methods = list(dict.fromkeys(row["method"] for row in chosen))
    lines = [["set", "concept", "pairs", *methods], ["---", "---", "---:", *["---:"] * len(methods)]]
    for group in dict.fromkeys((row["set"], row["concept"]) for row in chosen):
        cells = {row["method"]: row for row in chosen if (row["set"], row["concept"]) == group}
        lines.append([*group, str(next(iter(cells.values()))["pairs"]), *(share_text(cells[method]) for method in methods)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def share_text(row: Row) -> str:
    """A share and its interval: `62.5 [50.1, 73.4]`."""
    low, high = row["ci_low"], row["ci_high"]
    known = low is not None and low == low
    return f"{row['accuracy_pct']:.1f}" + (f" [{low:.1f}, {high:.1f}]" if known else "")


@dataclass(frozen=True)
class Curve:
    """The model's surprise over time, mean over the pairs of a concept and over the context lengths.

    Attributes:
        title: Set and concept.
        possible, impossible: float64 [windows].
    """

    title: str
    possible: np.ndarray
    impossible: np.ndarray


def curves(videos: Mapping[int, Mapping[str, Windows]], pairs: Iterable[Comparison]) -> list[Curve]:
    """A curve per set and concept, over the windows that all of its videos have."""
    groups: dict[str, list[Comparison]] = {}
    for pair in pairs:
        if pair.possible in videos and pair.impossible in videos:
            groups.setdefault(" ".join(filter(None, (pair.dataset, pair.concept))), []).append(pair)
    made = []
    for title, group in groups.items():
        sides = [[np.mean(list(videos[video][MODEL].values()), axis=0) for video in chosen]
                 for chosen in ([pair.possible for pair in group], [pair.impossible for pair in group])]
        count = min(len(line) for side in sides for line in side)
        possible, impossible = (np.mean([line[:count] for line in side], axis=0) for side in sides)
        made.append(Curve(title, possible, impossible))
    return made
