"""Screens over the table: a question, help, and the whole of a log that grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Log, Static

from jobs.standing.follow import Tail
from jobs.watching.background import plain_text

FOLLOW_S = 0.5
FIRST_LINES, MOST_LINES = 5_000, 50_000


class Question(ModalScreen[bool]):
    """Shows exactly what would be done; `y` does it, and any other of its keys does not.

    Args:
        question: What is asked.
        lines: What it is about, a line each.
        yes: What `y` does; empty where there is nothing to do but to read.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", show=False), Binding("n,escape,q,enter,question_mark", "answer(False)", show=False)]

    def __init__(self, question: str, lines: Sequence[str], yes: str = "") -> None:
        super().__init__()
        self._question, self._lines, self._yes = question, lines, yes

    def compose(self) -> ComposeResult:
        """The question, the list, the keys."""
        with Vertical(id="box"):
            yield Static(Text(self._question, style="bold"))
            with VerticalScroll(id="list"):
                yield Static(Text("\n".join(["", *self._lines, ""])))
            keys = f"y: {self._yes}    n, Esc: leave everything as it is" if self._yes else "Esc: back"
            yield Static(Text(keys, style="reverse"))

    def action_answer(self, yes: bool) -> None:
        """Close with the answer."""
        self.dismiss(yes and bool(self._yes))


class LogView(Screen[None]):
    """The end of a log, and what is added to it.

    Args:
        path: The log, which may not exist yet.
        title: What it is the log of.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,l", "leave", show=False), Binding("f", "follow", show=False),
        Binding("home,g", "first", show=False), Binding("end,G", "last", show=False)]

    def __init__(self, path: Path, title: str) -> None:
        super().__init__()
        self._path, self._title = path, title
        self._tail = Tail(path, last_lines=FIRST_LINES)

    def compose(self) -> ComposeResult:
        """The title, the lines, the keys."""
        yield Static(Text(f"{self._title}  {self._path}", style="bold"), id="title")
        yield Log(id="log", max_lines=MOST_LINES)
        yield Static(Text("f: follow or not   Home, End   q, Esc: back", style="reverse"))

    def on_mount(self) -> None:
        """Read now, and again and again."""
        self._read()
        self.set_interval(FOLLOW_S, self._read)
        self.query_one(Log).focus()

    def _read(self) -> None:
        try:
            lines = self._tail.lines()
        except OSError as error:
            lines = [f"[{error.strerror}]"]
        self.query_one(Log).write_lines([plain_text(line) for line in lines])

    def action_leave(self) -> None:
        """Go back to the table."""
        self.dismiss(None)

    def action_follow(self) -> None:
        """Go with what is added, or stay."""
        log = self.query_one(Log)
        log.auto_scroll = not log.auto_scroll
        if log.auto_scroll:
            log.scroll_end(animate=False)

    def action_first(self) -> None:
        """The first line that is kept."""
        log = self.query_one(Log)
        log.auto_scroll = False
        log.scroll_home(animate=False)

    def action_last(self) -> None:
        """The last line, and with what is added."""
        log = self.query_one(Log)
        log.auto_scroll = True
        log.scroll_end(animate=False)
