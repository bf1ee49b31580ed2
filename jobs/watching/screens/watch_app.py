"""The interface of jobs/watch.py: the table, what waits in the queue, one run more closely, and the keys."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.events import Resize
from textual.message import Message
from textual.widgets import Input, Static

from jobs.standing.runs import State
from jobs.watching.acting import Retry, cancel_listed, is_sweep, is_whole_array, retry_of, run_in_terminal, to_cancel
from jobs.watching.background import Details, Looks, Peeks, Repeat
from jobs.watching.curve import sparkline
from jobs.watching.lines import COLUMNS, SORTS, Line, counts, lines_of
from jobs.watching.screens.dialogs import LogView, Question
from jobs.watching.screens.run_table import RunTable
from jobs.watching.seen_runs import Picture, Seen, Watcher

KEYS = "/ filter  s sort  Enter cells  c cancel  r retry  l log  p pager  F5 look now  ? help  q quit"
HELP = """\
Up, Down, Page Up, Page Down, Home, End   choose a run
Enter     show the cells of an array below it, or fold them away
/         show only runs in which all words fit: parts of the id, the state, the job id, the array, the nodes;
          Enter goes back to the table, Esc there takes the filter away
s         the next order: active first, newest, name, state, loss, clips/s, wait, goodput, time left
c         cancel the job of the run, or all jobs of the array: lists them, asks, then does what jobs/cancel.py does
r         type the command of the run again with --retry: shows it, asks, then runs it here
l         the log of rank 0, as it grows;  p  the same in $PAGER
F5        look at once;  q, Ctrl-C  leave: jobs go on

ST is the state as squeue writes it. RESULT is the last loss, of a cell that is done its accuracy. CURVE is the loss from the
first step to the newest. WAIT is the share of time that training waits for clips, GOOD is goodput (jobs/README.md)."""


TOLD_S = 8.0
FACTS = {"CLIPS/S": "clips/s", "WAIT": "waiting", "MFU": "MFU", "GIB": "GiB", "STRAGGLER": "straggler", "GOOD": "goodput"}
"""Columns that the panel of a run says, too, since a narrow terminal lacks them; and what they are called there."""


class Looked(Message):
    """All runs were looked at."""

    def __init__(self, picture: Picture) -> None:
        super().__init__()
        self.picture = picture


class Peeked(Message):
    """Curves and a log were read."""

    def __init__(self, details: Details) -> None:
        super().__init__()
        self.details = details


class Said(Message):
    """What was asked for was done, or was not."""

    def __init__(self, text: str, *, failed: bool = False) -> None:
        super().__init__()
        self.text, self.failed = text, failed


class WatchApp(App[int]):
    """Shows runs; its result is the exit code.

    Args:
        watcher: What is looked at.
        where: Name of what is looked at, for the first line.
        every_s: Seconds between two looks.
        run: Runs a command in the foreground: its words and its folder; the exit code.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head, #queue, #details, #keys, #title { text-wrap: nowrap; text-overflow: ellipsis; }
    #head { height: auto; }
    #table { height: 1fr; scrollbar-size-horizontal: 0; }
    #below { height: 35%; }
    #below.hidden, #queue.hidden, #filter.hidden { display: none; }
    #queue { width: 36%; height: 100%; border: round $secondary; }
    #details { width: 1fr; height: 100%; border: round $secondary; }
    #filter { height: 3; }
    #keys { height: 1; }
    Toast { width: 110; max-width: 90%; }
    Question { align: center middle; }
    #box { width: 90%; height: auto; max-height: 90%; border: thick $primary; background: $surface; }
    #list { height: auto; max-height: 70vh; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("slash", "filter"), ("s", "sort"), ("c", "cancel"), ("r", "retry"), ("l", "log"), ("p", "pager"), ("f5", "look"),
        ("question_mark", "help"), ("escape", "leave_filter"), ("q", "leave(0)"),
        Binding("ctrl+c", "leave(130)", priority=True)]

    def __init__(self, watcher: Watcher, where: str, every_s: float, *,
                 run: Callable[[Sequence[str], Path], int] = run_in_terminal) -> None:
        super().__init__()
        self.picture = Picture()
        self.details = Details()
        self.busy = 0  # how many cancellations are under way
        self._where, self._every_s, self._run = where, every_s, run
        self._filter, self._sort, self._opened = "", next(iter(SORTS)), set[str]()
        self._peeks = Peeks(lambda details: self._post(Peeked(details)))
        self._looking = Repeat(Looks(watcher, every_s, lambda picture: self._post(Looked(picture))), self._failed)
        self._peeking = Repeat(self._peeks, self._failed)

    def _post(self, message: Message) -> None:
        """From any thread; what comes after the end is dropped."""
        self.post_message(message)

    def _tell(self, text: str, *, failed: bool = False) -> None:
        """Show a sentence for some seconds."""
        self.notify(text, severity="error" if failed else "information", timeout=TOLD_S, markup=False)

    def _failed(self, text: str) -> None:
        self._post(Said(text, failed=True))

    def compose(self) -> ComposeResult:
        """The parts of the screen."""
        yield Static(id="head")
        yield RunTable()
        with Horizontal(id="below"):
            yield Static(id="queue")
            yield Static(id="details")
        yield Input(placeholder="words that all fit, such as: say running", id="filter", classes="hidden")
        yield Static(Text(KEYS, style="reverse"), id="keys")

    @property
    def table(self) -> RunTable:
        """The table."""
        return self.query_one(RunTable)

    def on_mount(self) -> None:
        """Begin to look."""
        self.query_one("#queue").border_title = "queue: job, expected start, nodes, reason, name"
        self.table.focus()
        self._show_head()
        self._looking.start()
        self._peeking.start()

    def on_unmount(self) -> None:
        """Look no more."""
        self._looking.stop()
        self._peeking.stop()

    def on_resize(self, event: Resize) -> None:
        """Leave out panels that have no room."""
        self.query_one("#below").set_class(event.size.height < 18, "hidden")
        self.query_one("#queue").set_class(event.size.width < 100, "hidden")

    def on_looked(self, message: Looked) -> None:
        """Show new states."""
        self.picture = message.picture
        self._show_lines()
        self._show_queue()

    def on_peeked(self, message: Peeked) -> None:
        """Show curves and the log."""
        self.details = message.details
        self.table.show_losses(self.details.losses)
        self._show_details()

    def on_said(self, message: Said) -> None:
        """Tell what became of a request."""
        self._tell(message.text, failed=message.failed)
        if not message.failed:
            self._looking.wake()

    def on_run_table_chosen(self) -> None:
        """Show the run that is chosen."""
        line = self.table.chosen
        self._peeks.want(self.table.visible_runs, line.seen[0] if line else None)
        self._peeking.wake()
        self._show_details()

    def on_run_table_folded(self, message: RunTable.Folded) -> None:
        """Show the cells of an array, or fold them away."""
        self._opened ^= {message.key}
        self._show_lines()

    def _show_lines(self) -> None:
        self.table.show(lines_of(self.picture.seen, filtered=self._filter, sort=self._sort, opened=self._opened))
        self._show_head()

    def _show_head(self) -> None:
        picture, head = self.picture, Text()
        head.append(f"{self._where}  ", "bold")
        if not picture.time_s:
            head.append("reading the run folders ...")
        else:
            filtered = f"  only: {self._filter}" if self._filter else ""
            head.append(f"{counts(picture.seen)}  [{self._sort}]{filtered}  "
                        f"{time.strftime('%H:%M:%S', time.localtime(picture.time_s))}, every {self._every_s:g} s")
        for note in picture.notes:
            head.append(f"\nnote: {note}", "yellow")
        self.query_one("#head", Static).update(head)

    def _show_queue(self) -> None:
        text = Text()
        for job in self.picture.queue:
            start = "" if job.start in ("N/A", "") else f"  {job.start.replace('T', ' ')[5:16]}"
            text.append(f"{job.id}{start}  {job.nodes} nodes  ({job.reason})  {job.name}  {job.partition}\n")
        self.query_one("#queue", Static).update(text if self.picture.queue else "nothing of these runs", layout=False)

    def _show_details(self) -> None:
        panel, line = self.query_one("#details", Static), self.table.chosen
        if line is None:
            panel.border_title = ""
            panel.update("", layout=False)
            return
        panel.border_title = line.key
        text = Text()
        head = facts(line, self.details)
        log = self.details.log if self.details.name == line.seen[0].name else ()
        room = max(0, panel.size.height - len(head))
        text.append("\n".join([*head, *log[max(0, len(log) - room):]]))
        panel.update(text, layout=False)

    def action_filter(self) -> None:
        """Ask for the words."""
        box = self.query_one("#filter", Input)
        box.remove_class("hidden")
        box.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what fits, at every letter."""
        self._filter = event.value
        self._show_lines()

    def on_input_submitted(self) -> None:
        """Go back to the table; the filter stays."""
        self.query_one("#filter").set_class(not self._filter, "hidden")
        self.table.focus()

    def action_leave_filter(self) -> None:
        """Take the filter away."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.add_class("hidden")
        self.table.focus()

    def action_sort(self) -> None:
        """Take the next order."""
        names = list(SORTS)
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        self._show_lines()

    def action_look(self) -> None:
        """Look at once."""
        self._looking.wake()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Question("Keys", HELP.splitlines()))

    def action_leave(self, code: int) -> None:
        """End; jobs go on."""
        self.exit(code)

    def action_cancel(self) -> None:
        """List what would be cancelled, and ask."""
        line = self.table.chosen
        listed = to_cancel(line.seen) if line else []
        if not line or not listed:
            self._tell("no job of this run waits or runs; there is nothing to cancel")
            return
        whole = line.is_array and is_whole_array(listed, self.picture.seen)
        lines = [f"{state.run_id}  job {state.job_id}  {state.state} {state.where}".rstrip() for state in listed]
        many = "1 job" if len(listed) == 1 else f"these {len(listed)} jobs"
        self.push_screen(Question(f"Cancel {many}? Jobs that run save first.", lines, f"cancel {many}"),
                         lambda yes: self._cancel(listed, whole) if yes else None)

    def _cancel(self, listed: Sequence[State], whole: bool) -> None:
        """Cancel in a thread of its own: a job may save for minutes."""
        def work() -> None:
            said, done = cancel_listed(listed, whole_array=whole)
            self.busy -= 1
            self._post(Said("\n".join(said), failed=not done))
        self.busy += 1
        Thread(target=work, daemon=True).start()

    def action_retry(self) -> None:
        """Show the command that continues the run, and ask."""
        if not (line := self.table.chosen):
            return
        one = retried(line)
        retry = retry_of(one, self.picture.seen, Path.cwd())
        if retry.problem:
            self.push_screen(Question(f"Not from here: {retry.problem}.", [retry.text] if retry.words else []))
            return
        lines = [retry.text, "", f"in {retry.folder}"]
        if retry.also:
            lines += ["", f"It submits these {len(retry.also)} cells of the same command again, too:", *retry.also]
        if is_sweep(one):
            lines += ["", "It submits all cells of its sweep without result and job, also those that are not shown here."]
        self.push_screen(Question("Run this command?", lines, "run it"), lambda yes: self._retry(retry) if yes else None)

    def _retry(self, retry: Retry) -> None:
        self._in_terminal(retry.words, retry.folder, f"$ {retry.text}")

    def action_log(self) -> None:
        """Show the whole log."""
        if (line := self.table.chosen) and line.seen[0].state.job_id:
            state = line.seen[0].state
            self.push_screen(LogView(state.log, f"{state.run_id}, job {state.job_id}, rank 0"))
        else:
            self._tell("this run has no job yet, so it has no log")

    def action_pager(self) -> None:
        """Show the log in the user's own program."""
        pager = shlex.split(os.environ.get("PAGER", "less"))
        log = self.table.chosen.seen[0].state.log if self.table.chosen else None
        if log is None or not log.is_file():
            self._tell("this run has no log yet")
        elif not pager or shutil.which(pager[0]) is None:
            self._tell(f"the pager {' '.join(pager) or '(PAGER is empty)'} is not installed; l shows the log")
        else:
            self._in_terminal([*pager, str(log)], Path.cwd(), "")

    def _in_terminal(self, words: Sequence[str], folder: Path, head: str) -> None:
        """Give the terminal to a command, and take it back."""
        try:
            with self.suspend():
                if head:
                    print(head, flush=True)
                code = self._run(words, folder)
                if head:
                    print(f"exit code {code}; Enter goes back", flush=True)
                    wait_for_enter()
        except SuspendNotSupported:
            self._tell(f"this terminal cannot be given to a command; type {shlex.join(words)}")
        except OSError as error:
            self._tell(f"{shlex.join(words)}: {error.strerror}", failed=True)
        self._looking.wake()


def retried(line: Line) -> Seen:
    """The run of a row whose command is typed again; of an array the first cell that is over without a result."""
    return next((one for one in line.seen if one.state.active is False and one.state.state != "COMPLETED"), line.seen[0])


def facts(line: Line, details: Details) -> list[str]:
    """What is known of the chosen row, in a few lines."""
    one = line.seen[0]
    state, record = one.state, one.record
    if line.is_array:
        return [counts(line.seen).replace("runs", "cells"), f"the log of {one.name}:"]
    lines = [f"job {state.job_id or '-'}  {state.state} ({state.source})  {state.elapsed}  {state.where}".rstrip()]
    lines += [one.why] if one.why else []
    losses = details.losses.get(one.name, ())
    if losses:
        lines.append(f"loss {losses[0]:.4g} {sparkline(losses, 32)} {losses[-1]:.4g}")
    known = dict(zip(COLUMNS, line.cells, strict=True))
    beat = record["heartbeat_age_s"] if state.active else None
    shown = [f"{text} {known[column]}" for column, text in FACTS.items() if known[column] != "-"]
    shown += [f"last sign of life {beat:.0f} s ago"] if beat is not None else []
    return [*lines, ", ".join(shown)] if shown else lines


def wait_for_enter() -> None:
    """Wait until a person has read what stands there."""
    try:
        input()
    except (EOFError, KeyboardInterrupt):
        return
