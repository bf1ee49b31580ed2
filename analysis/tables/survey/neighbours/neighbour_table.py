"""Clips and those most alike as a table, and a picture of each.

Pictures come from a process of vidmae/insight/thumbnails.py, which decodes; nothing here does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.tables.survey.neighbours.nearest import AT, nearest
from vidmae.insight.embedding_files import FEATURES, NO_LABEL, Embeddings
from vidmae.ranks.local_program import ROOT

PROGRAM = "vidmae.insight.thumbnails"


def neighbour_table(found: Embeddings, names: Mapping[int, str], queries: np.ndarray) -> pd.DataFrame:
    """The nearest clips of some, by each feature; `queries` are their rows.

    Returns:
        A row for each clip that was looked for, at place 0, and for each that is like it, at places from 1. Columns feature;
        query (row of the former); content of both, in hex: content, neighbour; place; cosine (NaN at place 0); label (class
        of the latter, empty where it has none); same_class (1, 0, or empty where one of the two has none). Where windows
        slide, also where they begin: start_s, neighbour_start_s.
    """
    parts = []
    for feature in FEATURES:
        rows, cosine = nearest(getattr(found, feature), found.content, max(AT), queries)
        rows, cosine = np.column_stack([queries, rows]), np.column_stack([np.full(len(queries), np.nan), cosine])
        parts.append(pd.DataFrame({"feature": feature, "query": np.repeat(queries, rows.shape[1]), "row": rows.ravel(),
                                   "place": np.tile(np.arange(rows.shape[1]), len(rows)), "cosine": cosine.ravel()}))
    table = pd.concat(parts)
    table = table[table["row"] >= 0]
    content = np.array([f"{content:016x}" for content in found.content.tolist()])
    label = np.array(["" if number == NO_LABEL else names.get(number, str(number)) for number in found.label.tolist()])
    asked, other = label[table["query"]], label[table["row"]]
    same = np.where((asked != "") & (other != ""), (asked == other).astype(int).astype(str), "")
    table = table.assign(content=content[table["query"]], neighbour=content[table["row"]], label=other, same_class=same)
    if found.start_s is None:
        return table
    return table.assign(start_s=found.start_s[table["query"]], neighbour_start_s=found.start_s[table["row"]])


def read_thumbnails(manifest: Path, contents: Iterable[str]) -> dict[str, str]:
    """A picture of each clip as base64 JPEG, by content in hex; clips that cannot be read have none.

    Raises:
        ValueError: The manifest cannot be used, or has none of the clips.
    """
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    done = subprocess.run([sys.executable, "-m", PROGRAM, str(manifest)], env=env, text=True, capture_output=True,
                          input="\n".join(sorted(set(contents))))
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"{PROGRAM} failed"])[-1].removeprefix("error: "))
    return {line["content"]: line["jpeg"] for line in map(json.loads, done.stdout.splitlines())}
