"""The table of runs. It draws the rows that are on the screen and no others, so ten thousand runs scroll like ten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, Resize
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from jobs.watching.curve import sparkline
from jobs.watching.lines import COLUMNS, CURVE_CHARS, GAP, Line, chosen_columns
from jobs.watching.seen_runs import Seen

STATE, CURVE = COLUMNS.index("ST"), COLUMNS.index("CURVE")
CODES = {"R": "green", "CG": "green", "PD": "yellow", "CF": "yellow", "SB": "yellow", "CD": "bright_black", "?": "magenta",
         "F": "red", "TO": "red", "OOM": "red", "NF": "red", "BF": "red", "REF": "red", "END": "red", "CA": "bright_black"}
HEADER = Style(bold=True)
CHOSEN = Style(reverse=True)


class RunTable(ScrollView, can_focus=True):
    """Rows, one of which is chosen. Up, down, page up and down, home and end choose; Enter opens and folds an array."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False), Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False), Binding("pagedown", "page(1)", show=False),
        Binding("home,g", "move(-1000000)", show=False), Binding("end,G", "move(1000000)", show=False),
        Binding("enter,space", "fold", show=False)]

    class Chosen(Message):
        """Another row is chosen, or other rows are on the screen."""

    class Folded(Message):
        """An array is to be opened, or to be folded away."""

        def __init__(self, key: str) -> None:
            super().__init__()
            self.key = key

    def __init__(self) -> None:
        super().__init__(id="table")
        self.lines: Sequence[Line] = ()
        self._losses: Mapping[str, Sequence[float]] = {}
        self._columns: list[tuple[int, int]] = []
        self._place, self._base = 0, Style()

    @property
    def chosen(self) -> Line | None:
        """The row that is chosen; None where there are no rows."""
        return self.lines[self._place] if self.lines else None

    @property
    def visible_runs(self) -> list[Seen]:
        """The runs whose rows are on the screen."""
        first = int(self.scroll_offset.y)
        return [line.seen[0] for line in self.lines[first:first + max(0, self.size.height - 1)] if not line.is_array]

    def show(self, lines: Sequence[Line]) -> None:
        """Show other rows; the same run stays chosen where it is among them."""
        key = self.chosen.key if self.chosen else ""
        self.lines = lines
        self._place = next((i for i, line in enumerate(lines) if line.key == key), min(self._place, max(0, len(lines) - 1)))
        self._lay_out()

    def show_losses(self, losses: Mapping[str, Sequence[float]]) -> None:
        """Draw the curves of these runs."""
        if losses != self._losses:
            self._losses = losses
            self.refresh()

    def _lay_out(self) -> None:
        self._columns = chosen_columns(self.lines, self.size.width)
        self.virtual_size = Size(self.size.width, len(self.lines) + 1)
        self._base = self.rich_style  # which takes half a millisecond
        self._scroll_to_chosen()
        self.refresh()
        self.post_message(self.Chosen())

    def _scroll_to_chosen(self) -> None:
        first, rows = int(self.scroll_offset.y), max(1, self.size.height - 1)
        wanted = min(max(first, self._place - rows + 1), self._place)
        if wanted != first:
            self.scroll_to(y=wanted, animate=False, immediate=True)

    def action_move(self, rows: int) -> None:
        """Choose a row further down, or up."""
        before, self._place = self._place, min(max(0, self._place + rows), max(0, len(self.lines) - 1))
        if before != self._place:
            for place in (before, self._place):  # scrolling draws all rows anew
                self.refresh(Region(0, place - int(self.scroll_offset.y) + 1, self.size.width, 1))
            self._scroll_to_chosen()
            self.post_message(self.Chosen())

    def action_page(self, pages: int) -> None:
        """Choose a row a screen further down, or up."""
        self.action_move(pages * max(1, self.size.height - 2))

    def action_fold(self) -> None:
        """Open the array that is chosen, or fold it away."""
        if self.chosen and self.chosen.is_array:
            self.post_message(self.Folded(self.chosen.key))

    def on_resize(self, _: Resize) -> None:
        """Choose the columns anew."""
        self._lay_out()

    def on_click(self, event: Click) -> None:
        """Choose the row that is clicked."""
        if event.y:
            self.action_move(int(self.scroll_offset.y) + event.y - 1 - self._place)

    def render_line(self, y: int) -> Strip:
        """A line of the screen: the header, or a row."""
        if y == 0:
            return self._strip(self._segments(COLUMNS, HEADER), HEADER)
        place = int(self.scroll_offset.y) + y - 1
        if place >= len(self.lines):
            return Strip.blank(self.size.width, self._base)
        line = self.lines[place]
        cells = list(line.cells)
        if not line.is_array:
            cells[CURVE] = sparkline(self._losses.get(line.key, ()), CURVE_CHARS)
        style = CHOSEN if place == self._place else Style()
        return self._strip(self._segments(cells, style), style)

    def _segments(self, cells: Sequence[str], style: Style) -> list[Segment]:
        """The cells of the columns that fit."""
        found = []
        for i, width in self._columns:
            colour = CODES.get(cells[i]) if i == STATE else "cyan" if i == CURVE else None
            text = set_cell_size(cells[i], width) + " " * GAP
            found.append(Segment(text, style + Style(color=colour) if colour else style))
        return found

    def _strip(self, segments: list[Segment], style: Style) -> Strip:
        return Strip(segments).adjust_cell_length(self.size.width, style).apply_style(self._base)
