"""A table of any columns in four forms: rich for the console, CSV with plain numbers for programs, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table as ConsoleTable
from rich.text import Text

from analysis.tables.sheet import MISSING, WIDEST, escape_latex, escape_markdown


@dataclass(frozen=True)
class Sheet:
    """Rows for people, and the same as records for programs.

    Attributes:
        name: Of its files.
        title: One line.
        columns: Headings; the first `texts` hold words, the others numbers.
        texts: How many columns are words.
        rows: One text per column.
        records: Rows of the CSV, all with the same keys; None is `--`.
        footer: What has to be said below.
    """

    name: str
    title: str
    columns: Sequence[str]
    texts: int
    rows: Sequence[Sequence[str]]
    records: Sequence[Mapping[str, object]]
    footer: Sequence[str]


def to_csv(sheet: Sheet) -> str:
    """Comma-separated records."""
    names = list(sheet.records[0]) if sheet.records else list(sheet.columns)
    return csv_text([names, *([record[name] for name in names] for record in sheet.records)])


def to_markdown(sheet: Sheet) -> str:
    """A Markdown table under its title."""
    rule = ["---"] * sheet.texts + ["---:"] * (len(sheet.columns) - sheet.texts)
    lines = [list(map(escape_markdown, sheet.columns)), rule, *(list(map(escape_markdown, row)) for row in sheet.rows)]
    return "\n".join([f"**{escape_markdown(sheet.title)}**", "", *(f"| {' | '.join(line)} |" for line in lines), "",
                      *(f"- {escape_markdown(line)}" for line in sheet.footer), ""])


def to_latex(sheet: Sheet) -> str:
    r"""A `table` environment; the document needs `\usepackage{booktabs}`."""
    head, *body = (" & ".join(map(escape_latex, line)) + r" \\" for line in (sheet.columns, *sheet.rows))
    align = "l" * sheet.texts + "r" * (len(sheet.columns) - sheet.texts)
    below = [f"\\par\\noindent\\footnotesize {escape_latex(line)}" for line in sheet.footer]
    return "\n".join([r"% \usepackage{booktabs}", r"\begin{table}", r"\centering",
                      f"\\caption{{{escape_latex(sheet.title)}}}", f"\\begin{{tabular}}{{{align}}}", r"\toprule", head,
                      r"\midrule", *body, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}", ""])


def to_console(sheet: Sheet) -> ConsoleTable:
    """Rows and columns for `rich.console.Console.print`, without title and footer."""
    shown = ConsoleTable(box=SIMPLE)
    for place, name in enumerate(sheet.columns):
        shown.add_column(Text(name), justify="left" if place < sheet.texts else "right", no_wrap=True)
    for row in sheet.rows:
        shown.add_row(*map(Text, row))
    return shown


def csv_text(lines: Sequence[Sequence[object]]) -> str:
    """Rows as comma-separated values; None is `--`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [MISSING if value is None else value for value in line] for line in lines)
    return text.getvalue()


__all__ = ["WIDEST", "Sheet", "csv_text", "to_console", "to_csv", "to_latex", "to_markdown"]
