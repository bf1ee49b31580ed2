"""A result table in four forms: rich for the console, CSV for programs, Markdown, LaTeX (booktabs).

Rows are models, columns tasks, each with top-1 and top-5 accuracy in %. A cell without a value is `--`. The best value of
each column is bold, among the rows that compete: published numbers and chance do not. How the numbers were selected stands
under every table; in CSV, where there is no such place, in a column of its own.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.table import Table as ConsoleTable
from rich.text import Text

METRICS = ("top-1", "top-5")
MISSING = "--"
UNIT = "Accuracy in %."
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          **{character: f"\\{character}" for character in "&%$#_{}"}}

Accuracies = tuple[float | None, float | None]  # top-1 and top-5 in %


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        model: What was tested.
        source: Where the numbers come from, such as `logs` or `published v3`.
        cells: Column -> accuracies; a column that is not here is missing.
        competes: Whether its values can be the best of their column.
    """

    model: str
    source: str
    cells: Mapping[str, Accuracies]
    competes: bool = True


@dataclass(frozen=True)
class Table:
    """Rows and columns, and what has to be said about them.

    Attributes:
        name: Of its files.
        title: One line.
        columns: Names of the tasks, in order.
        rows: In order.
        selection: How the numbers were selected.
        footer: Further sentences.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    selection: str
    footer: Sequence[str]

    @property
    def lines_below(self) -> list[str]:
        """Everything that stands under the table."""
        return [f"{UNIT} Selection: {self.selection}. Bold: the best of what is not published.", *self.footer]


@dataclass(frozen=True)
class Cell:
    """A value as text."""

    text: str
    bold: bool = False


def cells(table: Table) -> list[list[Cell]]:
    """The values of each row, two per column. Equal values, as printed, are equally bold."""
    grid = [[_number(pct) for column in table.columns for pct in row.cells.get(column, (None, None))] for row in table.rows]
    best = [max((float(text) for row, text in zip(table.rows, column, strict=True) if row.competes and text != MISSING),
                default=None) for column in zip(*grid, strict=True)]
    return [[Cell(text, row.competes and text != MISSING and float(text) == most)
             for text, most in zip(texts, best, strict=True)] for row, texts in zip(table.rows, grid, strict=True)]


def to_csv(table: Table) -> str:
    """Comma-separated values; every row says how its numbers were selected."""
    header = ["model", "source", *(f"{column} {metric}_pct" for column in table.columns for metric in ("top1", "top5")),
              "selection"]
    lines = [[row.model, row.source, *(cell.text for cell in line), table.selection if row.competes else None]
             for row, line in zip(table.rows, cells(table), strict=True)]
    return csv_text([header, *lines])


def csv_text(lines: Sequence[Sequence[object]]) -> str:
    """Rows as comma-separated values; None is `--`."""
    text = io.StringIO()
    rows = ([MISSING if value is None else value for value in line] for line in lines)
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """A Markdown table under its title."""
    header = ["model", "source", *(f"{column} {metric}" for column in table.columns for metric in METRICS)]
    lines = [f"**{escape_markdown(table.title)}**", "", _pipes(map(escape_markdown, header)),
             _pipes(["---", "---", *["---:"] * (len(header) - 2)])]
    for row, line in zip(table.rows, cells(table), strict=True):
        values = (f"**{cell.text}**" if cell.bold else cell.text for cell in line)
        lines.append(_pipes([escape_markdown(row.model), escape_markdown(row.source), *values]))
    return "\n".join([*lines, "", *(f"- {escape_markdown(line)}" for line in table.lines_below), ""])


def to_latex(table: Table) -> str:
    r"""A `table` environment; the document needs `\usepackage{booktabs}`."""
    above = [f"\\multicolumn{{2}}{{c}}{{{escape_latex(column)}}}" for column in table.columns]
    rules = [f"\\cmidrule(lr){{{3 + 2 * index}-{4 + 2 * index}}}" for index in range(len(table.columns))]
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering", f"\\caption{{{escape_latex(table.title)}}}",
             f"\\begin{{tabular}}{{ll{'rr' * len(table.columns)}}}", r"\toprule",
             _ampersands(["", "", *above]), "".join(rules), _ampersands(["model", "source", *METRICS * len(table.columns)]),
             r"\midrule"]
    for row, line in zip(table.rows, cells(table), strict=True):
        values = (f"\\textbf{{{cell.text}}}" if cell.bold else cell.text for cell in line)
        lines.append(_ampersands([escape_latex(row.model), escape_latex(row.source), *values]))
    below = [f"\\par\\noindent\\footnotesize {escape_latex(line)}" for line in table.lines_below]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}", ""])


def to_console(table: Table) -> ConsoleTable:
    """Rows and columns for `rich.console.Console.print`, without title and footer."""
    shown = ConsoleTable(box=SIMPLE)
    for name in ("model", "source"):
        shown.add_column(name, no_wrap=True)
    for column in table.columns:
        for metric in METRICS:
            shown.add_column(Text(f"{column}\n{metric}"), justify="right", no_wrap=True)
    for row, line in zip(table.rows, cells(table), strict=True):
        shown.add_row(Text(row.model), Text(row.source), *(Text(cell.text, "bold" if cell.bold else "") for cell in line),
                      style="" if row.competes else "dim")
    return shown


def escape_latex(text: str) -> str:
    """Text without a character that LaTeX takes for a command."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def escape_markdown(text: str) -> str:
    """Text without a character that ends a cell or changes the print; an underscore inside a word does not."""
    return re.sub(r"([\\|*`<])", r"\\\1", _one_line(text))


def _number(pct: float | None) -> str:
    return MISSING if pct is None else f"{pct:.3f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pipes(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def _ampersands(values: Sequence[str]) -> str:
    return f"{' & '.join(values)} \\\\"
