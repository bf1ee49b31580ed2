"""A result table in four forms: rich for the console, CSV for programs, Markdown, LaTeX (booktabs).

Rows are models, columns tasks, each with top-1 and top-5 accuracy in %: a number, or `mean ± half (n)` over n seeds, half
being half of the 95 % confidence interval. A cell without a value is `--`. The best value of each column is bold among the
rows that were selected alike; published numbers and chance do not compete. How the numbers were selected stands under every
table; in CSV, where there is no such place, in a column of its own.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from rich.box import SIMPLE
from rich.table import Table as ConsoleTable
from rich.text import Text

from analysis.tables.stats import Estimate

METRICS = ("top-1", "top-5")
MISSING = "--"
WIDEST = 10_000  # characters, of a console table: never cut, a terminal that is too narrow wraps it
UNIT = "Accuracy in %."
INTERVAL = ("Mean ± half of the 95 % confidence interval over seeds (Student t); in brackets the number of seeds. Of one "
            "seed no interval is claimed.")
CSV_PARTS = ("pct", "lower_pct", "upper_pct", "n")
MOST_NAMES = 5  # of rows, in a sentence
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
          **{character: f"\\{character}" for character in "&%$#_{}"}}

Accuracies = tuple[Estimate | None, Estimate | None]  # top-1 and top-5


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        model: What was tested.
        source: Where the numbers come from, such as `logs` or `published v3`.
        cells: Column -> accuracies; a column that is not here is missing.
        selection: How the numbers were selected. Among rows of the same selection the best of a column is bold; rows
            without one do not compete.
    """

    model: str
    source: str
    cells: Mapping[str, Accuracies]
    selection: str = ""


@dataclass(frozen=True)
class Table:
    """Rows and columns, and what has to be said about them.

    Attributes:
        name: Of its files.
        title: One line.
        columns: Names of the tasks, in order.
        rows: In order.
        footer: Further sentences.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    footer: Sequence[str]

    @property
    def lines_below(self) -> list[str]:
        """Everything that stands under the table."""
        selected: dict[str, list[str]] = defaultdict(list)
        for row in self.rows:
            if row.selection:
                selected[row.selection].append(row.model)
        if len(selected) < 2:
            lines = [f"{UNIT} Selection: {''.join(selected)}. Bold: the best of what is not published."]
        else:
            lines = [f"{UNIT} Bold: the best among rows that were selected alike, of what is not published."]
            lines += [f"Selection of {some(names)}: {selection}." for selection, names in selected.items()]
        counted = any(value and value.n for row in self.rows for pair in row.cells.values() for value in pair)
        return [*lines, *([INTERVAL] if counted else []), *self.footer]


@dataclass(frozen=True)
class Cell:
    """A value as text."""

    text: str
    bold: bool = False


def cells(table: Table) -> list[list[Cell]]:
    """The values of each row, two per column. Equal values, as printed, are equally bold."""
    grid = [[_printed(value) for value in _values(table, row)] for row in table.rows]
    best: dict[tuple[str, int], float] = {}
    for row, line in zip(table.rows, grid, strict=True):
        for index, text in enumerate(line):
            if row.selection and text != MISSING:
                key = row.selection, index
                best[key] = max(best.get(key, 0.0), _leading(text))
    return [[Cell(text, bool(row.selection) and text != MISSING and _leading(text) == best[row.selection, index])
             for index, text in enumerate(line)] for row, line in zip(table.rows, grid, strict=True)]


def to_csv(table: Table) -> str:
    """Comma-separated values: mean, ends of the interval and seeds, and in every row how its numbers were selected."""
    header = ["model", "source", *(f"{column} {metric}_{part}" for column in table.columns for metric in ("top1", "top5")
                                   for part in CSV_PARTS), "selection"]
    lines = [[row.model, row.source, *(part for value in _values(table, row) for part in _parts(value)),
              row.selection or None] for row in table.rows]
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
        values = (f"\\textbf{{{escape_latex(cell.text)}}}" if cell.bold else escape_latex(cell.text) for cell in line)
        lines.append(_ampersands([escape_latex(row.model), escape_latex(row.source), *values]))
    below = [f"\\par\\noindent\\footnotesize {escape_latex(line)}" for line in table.lines_below]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}", ""])


def to_console(table: Table, most_rows: int | None = None) -> ConsoleTable:
    """Rows and columns for `rich.console.Console.print`, without title and footer, and only so many rows."""
    shown = ConsoleTable(box=SIMPLE)
    for name in ("model", "source"):
        shown.add_column(name, no_wrap=True)
    for column in table.columns:
        for metric in METRICS:
            shown.add_column(Text(f"{column}\n{metric}"), justify="right", no_wrap=True)
    for row, line in islice(zip(table.rows, cells(table), strict=True), most_rows):
        shown.add_row(Text(row.model), Text(row.source), *(Text(cell.text, "bold" if cell.bold else "") for cell in line),
                      style="" if row.selection else "dim")
    return shown


def escape_latex(text: str) -> str:
    """Text without a character that LaTeX takes for a command."""
    return "".join(_LATEX.get(character, character) for character in _one_line(text))


def escape_markdown(text: str) -> str:
    """Text without a character that ends a cell or changes the print; an underscore inside a word does not."""
    return re.sub(r"([\\|*`<])", r"\\\1", _one_line(text))


def some(names: Sequence[str]) -> str:
    """Names in a sentence, not too many of them."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _values(table: Table, row: Row) -> list[Estimate | None]:
    return [value for column in table.columns for value in row.cells.get(column, (None, None))]


def _printed(value: Estimate | None) -> str:
    if value is None:
        return MISSING
    if value.n is None:
        return f"{value.pct:.3f}"
    half = "" if value.half_width is None else f" ± {value.half_width:.2f}"
    return f"{value.pct:.2f}{half} ({value.n})"


def _leading(text: str) -> float:
    return float(text.split()[0])


def _parts(value: Estimate | None) -> list[object]:
    if value is None:
        return [None] * len(CSV_PARTS)
    return [*(None if part is None else f"{part:.3f}" for part in (value.pct, value.lower, value.upper)), value.n]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _pipes(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"


def _ampersands(values: Sequence[str]) -> str:
    return f"{' & '.join(values)} \\\\"
