"""Which rank did not come: told from the files in which the ranks of a run wrote where they stand. Stdlib only.

    stacks/rank_00005.txt    of each rank, while it lives or where it hung (vidmae/ranks/stack_file.py)
    hang.txt                 made of them once the ranks are gone: a sentence, then every stack, equal ones once

The ranks that wait stand in a collective; the one that they wait for stands elsewhere, or has written nothing since it is
stopped, its node is gone, or it was ended with the others before its own time was up.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidmae.runs.record import LOST, SCHEMA, RunFolder, read_json, write_atomic, write_json

COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/", "/vidmae/ranks/dist.py")  # paths of code that waits for ranks
LOOKS = ("/vidmae/ranks/engine.py", "_look")  # where the host waits for a GPU, and a GPU for the other ranks
BACKWARD = "_engine_run_backward"  # the main thread, while another one goes through the hooks of the backward pass
SHOWN = 3  # ranks that are named
LATE_S = 1.5  # after the first: a rank that was stopped writes once Slurm wakes it to end it
_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.M)
_FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.M)


@dataclass(frozen=True)
class Frame:
    """A line of code in a stack."""

    path: str
    line: int
    function: str

    def __str__(self) -> str:
        if self.is_ours:
            place = f"vidmae/{self.path.rpartition('/vidmae/')[2]}"
        else:
            place = self.path.rpartition("/site-packages/")[2] if "/site-packages/" in self.path else Path(self.path).name
        return f"{place} line {self.line} in {self.function}"

    @property
    def is_ours(self) -> bool:
        """Whether it is code of this suite; the environment may lie within a checkout that is called vidmae."""
        return "/vidmae/" in self.path and "/site-packages/" not in self.path


@dataclass(frozen=True)
class Stack:
    """What one rank wrote.

    Attributes:
        rank: The rank.
        node: Its node.
        job_id: Its job.
        main: Frames of the main thread, the innermost first; empty where it wrote nothing.
        others: Those of all other threads.
        text: All that it wrote.
        written_s: When, seconds since 1970.
    """

    rank: int
    node: str
    job_id: str
    main: tuple[Frame, ...]
    others: tuple[Frame, ...]
    text: str
    written_s: float

    @property
    def waits(self) -> bool:
        """Whether it stands in a collective, and so waits for another rank."""
        frames = self.main
        if any(frame.function == BACKWARD for frame in frames):
            frames = (*frames, *self.others)
        return any(any(part in frame.path for part in COLLECTIVES)
                   or (frame.path.endswith(LOOKS[0]) and frame.function == LOOKS[1]) for frame in frames)

    @property
    def place(self) -> str:
        """The innermost line of this suite, and the innermost of all where that is another."""
        if not self.main:
            return "nowhere in Python"
        ours = next((frame for frame in self.main if frame.is_ours), self.main[0])
        return str(ours) + ("" if ours is self.main[0] else f" (there {self.main[0]})")


def read_stacks(folder: Path) -> list[Stack]:
    """What the ranks wrote, in their order; nothing where there are no files."""
    found = []
    for path in sorted(folder.glob("rank_*.txt")):
        head, _, text = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        try:
            about = json.loads(head)
            rank, node, job, main = int(about["rank"]), str(about["node"]), str(about["job_id"]), int(about["main_thread"])
        except (ValueError, KeyError, TypeError):  # it was just being made
            continue
        threads = list(_threads(text.partition("\npy-spy")[0]))
        mine = next((frames for thread, frames in threads if thread == main), ())
        others = tuple(frame for thread, frames in threads if thread != main for frame in frames)
        found.append(Stack(rank, node, job, mine, others, text, path.stat().st_mtime))
    return found


def _threads(text: str) -> Iterator[tuple[int, tuple[Frame, ...]]]:
    """Threads that faulthandler wrote, each with its frames."""
    heads = list(_THREAD.finditer(text))
    for i, head in enumerate(heads):
        part = text[head.end():heads[i + 1].start() if i + 1 < len(heads) else len(text)]
        yield int(head[1], 16), tuple(Frame(path, int(line), function) for path, line, function in _FRAME.findall(part))


def who_hangs(stacks: Sequence[Stack]) -> tuple[str, int | None]:
    """Who did not come, in a sentence, and the first rank that it names; an empty one where nobody hung."""
    wrote = [stack for stack in stacks if stack.text]
    if not wrote:
        return "", None
    late_s = min(stack.written_s for stack in wrote) + LATE_S
    silent = [stack for stack in stacks if not stack.text or stack.written_s > late_s]
    wrote = [stack for stack in wrote if stack.written_s <= late_s]
    waiting = [stack for stack in wrote if stack.waits]
    away = [stack for stack in wrote if not stack.waits]
    if silent:
        meanwhile = f", while {_numbers(waiting)} waited at {waiting[0].place}" if waiting else ""
        why = "wrote nothing in time: stopped, its node is gone, or it was ended before its time"
        return f"{_named(silent)} gave no sign any more ({why}){meanwhile}", silent[0].rank
    if away and waiting:
        stood = f"and stood at {away[0].place}"
        return f"{_named(away)} did not come to where {_numbers(waiting)} waited ({waiting[0].place}), {stood}", away[0].rank
    if away:
        return f"{_named(away)} hung, and no rank waited in a collective: {away[0].place}", away[0].rank
    places = {stack.place for stack in waiting}
    if len(places) == 1:
        return f"all ranks waited at {waiting[0].place}: the exchange between them hangs, or a GPU does", None
    few = [stack for stack in waiting if sum(other.place == stack.place for other in waiting) * 2 < len(waiting)] or waiting
    return f"the ranks waited in different collectives: {_named(few)} at {few[0].place}", few[0].rank


def _named(stacks: Sequence[Stack]) -> str:
    shown = ", ".join(f"rank {stack.rank} (node {stack.node})" for stack in stacks[:SHOWN])
    return shown + (f" and {len(stacks) - SHOWN} more" if len(stacks) > SHOWN else "")


def _numbers(stacks: Sequence[Stack]) -> str:
    ranks = [stack.rank for stack in stacks]
    if len(ranks) > SHOWN:
        return f"{len(ranks)} ranks"
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(map(str, ranks))


def report_hang(run: RunFolder, job: str) -> str:
    """Once the ranks of a job are gone: where it hung, say who did not come, and put all stacks into hang.txt.

    The sentence becomes the message of failure.json, unless a rank has failed of something that is no other rank's doing.

    Args:
        run: The run folder.
        job: Id of the job; what another one left does not count.
    Returns:
        The sentence; empty where no rank hung.
    """
    stacks = [stack for stack in read_stacks(run.stacks) if stack.job_id == job]
    sentence, rank = who_hangs(stacks)
    if sentence:
        when = time.strftime("%Y-%m-%d %H:%M:%S")
        write_atomic(run.hang, f"{when}, job {job}: {sentence}\n\n{_all_texts(stacks)}".encode())
        failure = read_json(run.failure) or {}
        if str(failure.get("job_id")) != job or failure.get("kind") == LOST:
            write_json(run.failure, {"schema": SCHEMA, "job_id": job, "time": time.time(), "rank": rank or 0, "kind": LOST,
                                     "error": "Hang", "message": f"{sentence} ({run.hang.name} has all stacks)"})
    shutil.rmtree(run.stacks, ignore_errors=True)
    return sentence


def _all_texts(stacks: Sequence[Stack]) -> str:
    """Every stack; ranks that stand alike share one."""
    alike: dict[str, list[Stack]] = {}
    for stack in stacks:
        alike.setdefault(re.sub(r"0x[0-9a-f]+", "", stack.text.partition("\npy-spy")[0]), []).append(stack)
    parts = []
    for same in alike.values():
        who = ", ".join(f"{stack.rank} (node {stack.node})" for stack in same)
        parts.append(f"=== rank {who}\n{same[0].text or 'nothing was written'}\n")
    return "\n".join(parts)
