"""A page of headings, tables, charts and pictures as one HTML file that needs nothing else: no network, no script.

What stands on it is escaped by the template engine (jinja2, autoescape); a policy in the page itself forbids every request.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analysis.page.charts import Bar, Chart

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Table:
    """Rows under a caption; the first cell of each is its heading.

    Attributes:
        caption: What it shows.
        columns: Headings; the first `texts` hold words, the others numbers. None at all: names and values.
        rows: One text per column.
        texts: How many columns are words.
        folded: Shown on demand: long, and seldom wanted.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int = 2
    folded: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG inside the page.

    Attributes:
        alt: What it shows, for who cannot see it.
        png: Its content.
    """

    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Section:
    """A part of the page, in this order: words, bar, charts, tables, pictures.

    Attributes:
        title: Its heading.
        words: Sentences above.
        bar: Shares of a whole.
        charts: Curves.
        tables: Tables.
        pictures: Pictures.
    """

    title: str
    words: Sequence[str] = ()
    bar: Bar | None = None
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """The whole.

    Attributes:
        title: Heading of all.
        kind: What the page is about, in two words.
        state: How it stands: done, failed, unfinished, not started.
        figures: Name and value of the few numbers that matter most.
        sections: The rest.
        made: When, and of what.
        warnings: What the reader has to know first.
    """

    title: str
    kind: str
    state: str
    figures: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    made: str
    warnings: Sequence[str] = field(default_factory=tuple)


def to_html(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html").render(page=page)
