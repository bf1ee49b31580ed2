"""What stands in the pages of the documentation: commands, links, and names of files, flags and settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.launching import ROOT

PAGES = tuple(ROOT / folder / "README.md" for folder in ("", "jobs", "sweeps", "analysis", "vidmae", "tests", "vidmae/weights"))
STARTS = re.compile(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:python|make|bash|pip|cp|eval|apptainer|podman)\b")
IN_PROSE = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python (?:jobs|sweeps|analysis|tests|-m \w)|make [a-z]).*")
PROMPT = "$ "


@dataclass(frozen=True)
class Command:
    """A command of a page, as a reader would type it."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """Without comment, and without variables that are set for it."""
        words = shlex.split(self.text, comments=True)
        while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        return words

    @property
    def name(self) -> str:
        """Of its test."""
        return f"{self.page}:{self.line} {' '.join(self.text.split('#')[0].split())}"


def name_of(page: Path) -> str:
    """`README.md`, `jobs/README.md` ..."""
    return str(page.relative_to(ROOT))


def parts(page: Path) -> Iterator[tuple[str, int, list[str]]]:
    """The page in order: `fence`, `block` (indented) or `prose`, the number of the first line, and the lines."""
    kind, first, lines = "prose", 1, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if kind == "fence":
            now = "prose" if line == "```" else "fence"
        else:
            now = "fence" if line.startswith("```") else "block" if line.startswith("    ") else "prose"
        if now != kind:
            if lines:
                yield kind, first, lines
            kind, first, lines = now, number, []
        if not line.startswith("```"):
            lines.append(line[4:] if now == "block" else line)
    if lines:
        yield kind, first, lines


def spans(page: Path) -> list[tuple[int, str]]:
    """All inline code, with its line."""
    return [(first + at, span) for kind, first, lines in parts(page) if kind == "prose" for at, line in enumerate(lines)
            for span in re.findall(r"`([^`]+)`", line)]


def commands() -> list[Command]:
    """Every command of every page, each once. A block that begins with a command has nothing but commands, or, where it
    begins with a prompt, what they print."""
    found: dict[str, Command] = {}
    for page in PAGES:
        for kind, first, lines in parts(page):
            if kind == "block" and STARTS.match(lines[0]):
                prompted = lines[0].startswith(PROMPT)
                for at, line in enumerate(lines):
                    if line.startswith(PROMPT) or not prompted:
                        text = line.removeprefix(PROMPT)
                        found.setdefault(text.split("  #")[0].rstrip(), Command(name_of(page), first + at, text))
        for line, span in spans(page):
            if IN_PROSE.fullmatch(span):
                found.setdefault(span, Command(name_of(page), line, span))
    return list(found.values())


def links(page: Path) -> list[str]:
    """Targets of all links and pictures but those to the web."""
    text = "\n".join("\n".join(lines) for kind, _, lines in parts(page) if kind == "prose")
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.MULTILINE)
    return [target for target in targets if not target.startswith("https://")]


def anchors(page: Path) -> set[str]:
    """The headings as GitHub makes anchors of them."""
    headings = [line.lstrip("#").strip() for kind, _, lines in parts(page) if kind == "prose" for line in lines
                if re.match(r"#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(page: Path, heading: str) -> list[list[str]]:
    """Cells of the table below a heading."""
    text = page.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]
