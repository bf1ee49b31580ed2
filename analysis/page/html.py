"""A page of headings, tables, charts and pictures as one HTML file that needs nothing else: no network, no script.

What stands on it is escaped by the template engine (jinja2, autoescape); a policy in the page itself forbids every request.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.page.charts import Bar, Chart, Overlay

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Texts under a caption; the first of each row is its heading."""

    caption: str
    cells: pd.DataFrame
    texts: int | None = None  # so many columns hold words, the others numbers; None: names and values, without headings
    folded: bool = False  # shown on demand: long, and seldom wanted
    best: pd.DataFrame | None = None  # which cells are the best of their kind, of the shape of `cells`; they are bold

    @property
    def rows(self) -> list[list[tuple[str, bool]]]:
        """The texts of each row, and whether they are bold."""
        texts = self.cells.to_numpy(dtype=object).tolist()
        marks = np.zeros(self.cells.shape, bool) if self.best is None else self.best.to_numpy(dtype=bool)
        return [list(zip(*pair, strict=True)) for pair in zip(texts, marks.tolist(), strict=True)]


@dataclass(frozen=True)
class Section:
    """A part of the page; what it has comes in this order."""

    title: str
    words: Sequence[str] = ()
    bar: Bar | None = None
    charts: Sequence[Chart] = ()
    overlay: Overlay | None = None
    tables: Sequence[Table] = ()
    plots: Sequence[tuple[str, Path]] = ()  # what it shows, for who cannot see it, and the PNG, on white
    pictures: Sequence[tuple[str, Path]] = ()  # the same, of footage


def to_html(template: str, **values: object) -> str:
    """A template of this room, with values."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    environment.filters["base64"] = lambda path: base64.b64encode(path.read_bytes()).decode()
    return environment.get_template(template).render(values)
