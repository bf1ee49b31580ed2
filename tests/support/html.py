"""Read an HTML page as a reader would: headings, tables, pictures, by the standard library's parser; or in a real browser."""

from __future__ import annotations

import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

from tests.support.facilities import browser_exe, need


class Reader(HTMLParser):
    """Collects what a page says.

    Attributes:
        headings: Level and text.
        tables: Caption -> rows of texts, that of the headings first where there is one.
        tags: Every tag with its attributes.
        text: All text outside of style sheets.
        bold: Texts of cells that are bold.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.bold = "", list[str]()
        self._open: list[str] = []
        self._rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag in ("h1", "h2"):
            self.headings.append((tag, ""))
        elif tag == "caption":
            self._caption, self._rows = "", []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table":
            assert self._caption not in self.tables
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if self._open[-2:] == ["td", "strong"]:
            self.bold.append(data)
            self._rows[-1][-1] += data
        elif self._open and self._open[-1] in ("h1", "h2"):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
        elif self._open and self._open[-1] == "caption":
            self._caption += data
        elif self._open and self._open[-1] in ("th", "td"):
            self._rows[-1][-1] += data

    def records(self, caption: str) -> list[dict[str, str]]:
        """The rows of a table by their headings."""
        head, *rows = self.tables[caption]
        return [dict(zip(head, row, strict=True)) for row in rows]

    def facts(self, caption: str) -> dict[str, str]:
        """A table of names and values."""
        return dict(self.tables[caption])


def browse(page: Path, folder: Path, *flags: str) -> tuple[str, str, list[str]]:
    """Show a page in a headless browser: its output, what its console says, and every address that it asked for."""
    need("browser")
    net = folder / f"net{len(list(folder.iterdir()))}.json"
    command = [browser_exe() or "", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr",
               "--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}",
               f"--log-net-log={net}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    asked = [event["params"]["url"] for event in json.loads(net.read_text())["events"] if "url" in event.get("params", {})]
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line), asked
