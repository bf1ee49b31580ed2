"""A table in four forms: rich for the console, CSV with plain numbers for programs, Markdown, LaTeX (booktabs).

The forms are written here and not by pandas: `DataFrame.to_markdown` needs a further library and pads cells. The Styler
makes neither the rules under two-line headings nor the sentences below, and takes 20 times as long (1,000 rows of ten texts:
0.71 against 0.035 s).
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vidmae.runs.record import make_private_folder, write_atomic

# texts are Python's own: pandas 3 would store them with pyarrow, which refuses names of files that are not UTF-8
pd.set_option("mode.string_storage", "python")

MISSING = "--"
WIDEST = 10_000  # characters of a line where no terminal reads it
PADDING = 3  # characters between columns, and of both margins
MOST_NAMES = 5  # in a sentence
_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
          **{character: f"\\{character}" for character in "&%$#_{}"}}


@dataclass(frozen=True)
class Sheet:
    """One table.

    Attributes:
        name: Of its files.
        title: One line.
        shown: The texts that people read. Columns are headings, or pairs of a heading and one below it.
        texts: How many of the columns, from the left, are words; the others are numbers.
        records: The same for programs: the CSV. Missing values are written as `--`.
        footer: Sentences below the table.
        bold: Which texts are bold, of the shape of `shown`; None: none.
        dim: Which rows are dim on the console; None: none.
    """

    name: str
    title: str
    shown: pd.DataFrame
    texts: int
    records: pd.DataFrame
    footer: Sequence[str] = field(default_factory=list)
    bold: pd.DataFrame | None = None
    dim: Sequence[bool] | None = None

    @property
    def headings(self) -> list[str]:
        """One text per column."""
        return [" ".join(filter(None, name)) if isinstance(name, tuple) else str(name) for name in self.shown.columns]

    def rows(self, bold: Callable[[str], str], escape: Callable[[str], str] = str) -> Iterable[list[str]]:
        """The texts of each row, escaped; those that are bold through `bold`."""
        for line in self.cells():
            yield [bold(escape(text)) if marked else escape(text) for text, marked in line]

    def cells(self) -> Iterable[list[tuple[str, bool]]]:
        """The texts of each row, and whether they are bold."""
        texts = self.shown.to_numpy(dtype=object).tolist()
        marks = np.zeros(self.shown.shape, bool) if self.bold is None else self.bold.to_numpy(dtype=bool)
        return (list(zip(*pair, strict=True)) for pair in zip(texts, marks.tolist(), strict=True))


def to_csv(sheet: Sheet) -> str:
    """Comma-separated records."""
    return csv_text(sheet.records)


def csv_text(frame: pd.DataFrame) -> str:
    """Comma-separated values with a header; missing ones are `--`."""
    return str(frame.to_csv(index=False, na_rep=MISSING, lineterminator="\n"))


def to_markdown(sheet: Sheet) -> str:
    """A Markdown table under its title."""
    lines = [list(map(escape_markdown, sheet.headings)), _by_kind(sheet, "---", "---:"),
             *sheet.rows("**{}**".format, escape_markdown)]
    return "\n".join([f"**{escape_markdown(sheet.title)}**", "", *(f"| {' | '.join(line)} |" for line in lines), "",
                      *(f"- {escape_markdown(line)}" for line in sheet.footer), ""])


def to_latex(sheet: Sheet) -> str:
    r"""A `table` environment; the document needs `\usepackage{booktabs}`."""
    body = [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering", f"\\caption{{{escape_latex(sheet.title)}}}",
            f"\\begin{{tabular}}{{{''.join(_by_kind(sheet, 'l', 'r'))}}}", r"\toprule", *_latex_head(sheet), r"\midrule",
            *map(_latex_row, sheet.rows(r"\textbf{{{}}}".format, escape_latex))]
    below = [f"\\par\\noindent\\footnotesize {escape_latex(line)}" for line in sheet.footer]
    return "\n".join([*body, r"\bottomrule", r"\end{tabular}", *below, r"\end{table}", ""])


def to_console(sheet: Sheet, most_rows: int | None = None, width: int = WIDEST) -> list[Table]:
    """Rows and columns for rich, without title and footer, and only so many rows.

    A table that is too wide becomes several, one below the other: each has the words on the left, and those of the numbers
    that fit. Where the words alone are too wide, the first column is folded.
    """
    lines = list(islice(sheet.cells(), most_rows))
    names = ["\n".join(name) if isinstance(name, tuple) and name[0] else heading
             for name, heading in zip(sheet.shown.columns, sheet.headings, strict=True)]
    widths = [max(len(text) for text in (*name.split("\n"), *(line[place][0] for line in lines))) + PADDING
              for place, name in enumerate(names)]
    tables = []
    for columns in _blocks(widths, sheet.texts, width - PADDING):
        shown = Table(box=SIMPLE)
        for place in columns:
            folds = place == 0 and sum(widths[i] for i in columns) > width - PADDING
            shown.add_column(Text(names[place]), justify="left" if place < sheet.texts else "right", no_wrap=not folds,
                             overflow="fold")
        for number, line in enumerate(lines):
            shown.add_row(*(Text(text, "bold" if marked else "") for text, marked in (line[place] for place in columns)),
                          style="dim" if sheet.dim is not None and sheet.dim[number] else "")
        tables.append(shown)
    return tables


def _blocks(widths: Sequence[int], texts: int, width: int) -> list[list[int]]:
    """Columns that stand beside each other: the words each time, and numbers until the width is full, one at least."""
    words = list(range(texts))
    blocks = [list(words)]
    for place in range(texts, len(widths)):
        if len(blocks[-1]) > texts and sum(widths[i] for i in blocks[-1]) + widths[place] > width:
            blocks.append(list(words))
        blocks[-1].append(place)
    return blocks


FORMATS: Mapping[str, Callable[[Sheet], str]] = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def write(sheets: Sequence[Sheet], folder: Path, more: Mapping[str, str] | None = None) -> list[Path]:
    """Write every table in every form, and `more` files by name; the paths. The folder is the owner's alone.

    Raises:
        OSError: It cannot be written.
    """
    texts = {f"{sheet.name}.{suffix}": form(sheet) for sheet in sheets for suffix, form in FORMATS.items()}
    texts |= more or {}
    make_private_folder(folder)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode(errors="backslashreplace"))
    return [folder / name for name in texts]


def show(sheets: Sequence[Sheet], most_rows: int | None = None) -> None:
    """The tables on standard error, of each `most_rows` rows."""
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else WIDEST
    console = Console(stderr=True, highlight=False, width=width)
    for sheet in sheets:
        more = len(sheet.shown) - (most_rows or len(sheet.shown))
        below = [*([f"and {more} more rows in the files"] if more > 0 else []), *sheet.footer]
        console.print(Text(sheet.title, "bold"), *to_console(sheet, most_rows, width), *map(Text, below), sep="\n")


def texts(numbers: pd.Series, form: str) -> pd.Series:
    """Numbers as people read them, by a format such as `.2f`; `--` where there is none."""
    return numbers.map(f"{{:{form}}}".format, na_action="ignore").astype(object).fillna(MISSING)


def some(names: Sequence[str]) -> str:
    """Names in a sentence, not too many of them."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def escape_latex(text: str) -> str:
    """Text without a character that LaTeX takes for a command."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def escape_markdown(text: str) -> str:
    """Text without a character that ends a cell or changes the print; an underscore inside a word does not."""
    return re.sub(r"([\\|*`<])", r"\\\1", " ".join(text.split()))


def _by_kind(sheet: Sheet, text: str, number: str) -> list[str]:
    return [text] * sheet.texts + [number] * (sheet.shown.shape[1] - sheet.texts)


def _latex_row(line: Sequence[str]) -> str:
    return f"{' & '.join(line)} \\\\"


def _latex_head(sheet: Sheet) -> list[str]:
    """The headings; of two lines those above span their columns, with a rule under each."""
    if not isinstance(sheet.shown.columns, pd.MultiIndex):
        return [_latex_row(list(map(escape_latex, sheet.headings)))]
    above, rules, place = [], "", 1
    for name, group in sheet.shown.columns.to_frame(index=False).groupby(0, sort=False):
        if name:
            above.append(f"\\multicolumn{{{len(group)}}}{{c}}{{{escape_latex(str(name))}}}")
            rules += f"\\cmidrule(lr){{{place}-{place + len(group) - 1}}}"
        else:
            above += [""] * len(group)
        place += len(group)
    return [_latex_row(above), rules, _latex_row([escape_latex(below) for _, below in sheet.shown.columns])]
