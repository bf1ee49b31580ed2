"""What jobs have used of machines, by Slurm's accounting: every start, also of those that left no word. Stdlib only."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from jobs.place.scheduler.commands import ask
from jobs.place.scheduler.slurm import base_id

FIELDS = ("JobID", "State", "ElapsedRaw", "Start", "AllocTRES", "ConsumedEnergyRaw", "User", "Account", "JobName")
MOST_IDS = 1000  # of one question: a command line is not endless
MOST_NODE_W = 20_000.0  # no node draws more
LONG_S = 30.0  # thousands of jobs take the accounting longer than one does


@dataclass(frozen=True)
class Allocation:
    """One start of a job on its machines.

    Attributes:
        id: As Slurm writes it (`123`, `123_4`).
        name: Job name.
        user: Whose it is.
        account: That is billed.
        state: As Slurm writes it.
        started: Seconds since 1970.
        seconds: That it had its machines; of one that runs until now.
        gpus: That it had; 0 also where the accounting does not track gres/gpu.
        gpu: What Slurm calls them, or empty.
        cpus: That it had.
        energy_j: That its nodes have drawn, whoever else was on them; 0 where Slurm measures nothing, or nothing possible.
        nodes: That it had; 0 where the accounting does not say so.
    """

    id: str
    name: str
    user: str
    account: str
    state: str
    started: float
    seconds: float
    gpus: int
    gpu: str
    cpus: int
    energy_j: float
    nodes: int = 0


def allocations(ids: Iterable[str]) -> list[Allocation]:
    """Every start of these jobs, of tasks of arrays (`123_4`) or of arrays (`123`: all of its tasks); requeues count each.

    Raises:
        SlurmError: There is no accounting, or it does not answer.
    """
    wanted = set(ids)
    bases = iter(sorted({base_id(each) for each in wanted}))
    found: list[Allocation] = []
    while some := list(islice(bases, MOST_IDS)):
        found += _ask([f"--jobs={','.join(some)}"])
    return [one for one in found if one.id in wanted or base_id(one.id) in wanted]


def allocations_of_account(account: str, since: str) -> list[Allocation]:
    """Every start of the jobs of an account, of all users whose jobs Slurm shows to the one who asks.

    Args:
        account: Its name.
        since: `2026-01-31`; jobs that ended before are left out.
    Raises:
        SlurmError: There is no accounting, or it does not answer.
    """
    return _ask(["--allusers", f"--accounts={account}", f"--starttime={since}"])


def _ask(which: Sequence[str]) -> list[Allocation]:
    text = ask(["sacct", "--allocations", "--duplicates", "--noheader", "--parsable2", *which,
                f"--format={','.join(FIELDS)}"], timeout_s=LONG_S, patience_s=LONG_S).stdout
    return parse_allocations(text)


def parse_allocations(text: str) -> list[Allocation]:
    """Starts from the lines of sacct with the fields above; those that never had a machine are left out."""
    found = []
    for line in text.splitlines():
        fields = line.split("|", len(FIELDS) - 1)
        if len(fields) < len(FIELDS) or not fields[2].isdigit() or not int(fields[2]):
            continue
        number, state, seconds, started, tres, energy, user, account, name = fields
        gpus, gpu, cpus, drawn = parse_tres(tres)
        joules = float(energy) if energy.isdigit() and int(energy) else drawn
        nodes = nodes_of(tres)
        most_j = MOST_NODE_W * max(nodes, 1) * float(seconds)  # a counter that is not there reads as 2^64 - 2
        found.append(Allocation(number, name, user, account, state.split(" ")[0], _moment(started), float(seconds), gpus,
                                gpu, cpus, joules if joules <= most_j else 0.0, nodes))
    return found


def parse_tres(text: str) -> tuple[int, str, int, float]:
    """GPUs, what they are called, CPUs and joules of an allocation: `cpu=8,energy=900,gres/gpu:a100=4,gres/gpu=4,node=1`."""
    pairs = [(key, value) for key, _, value in (part.partition("=") for part in text.split(","))]
    counts = {key: int(value) for key, value in pairs if value.isdigit()}
    typed = {key.removeprefix("gres/gpu:"): count for key, count in counts.items() if key.startswith("gres/gpu:")}
    return (counts.get("gres/gpu", sum(typed.values())), "+".join(typed), counts.get("cpu", 0),
            float(counts.get("energy", 0)))


def nodes_of(text: str) -> int:
    """Nodes of an allocation, as `parse_tres` reads it; 0 where there is no word of them."""
    return next((int(part[5:]) for part in text.split(",") if part.startswith("node=") and part[5:].isdigit()), 0)


def _moment(text: str) -> float:
    """Seconds since 1970 of what sacct writes in local time; 0 for `Unknown` and `None`."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", text):
        return 0.0
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
