"""What is asked of Slurm and its answers as plain values. The one place that names its commands. Stdlib only.

Every call has a time limit, and is tried again for some seconds while Slurm is away, where it may be done twice: see
commands.py beside this file. A call that fails raises `SlurmError`; of these, `SlurmAwayError` where there was no answer.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.place.scheduler.commands import SlurmAwayError as SlurmAwayError
from jobs.place.scheduler.commands import SlurmError as SlurmError
from jobs.place.scheduler.commands import ask, run

ABSENT_TIMEOUT_S = 5.0
ACT_TIMEOUT_S = 30.0  # what changes a job waits for locks that a question does not need
SUBMIT_TIMEOUT_S = 60.0
DEFAULT_ARRAY_SIZE = 1001  # MaxArraySize where slurm.conf does not say
MOST_IDS = 5000  # in one command: Linux takes 128 KiB in an argument

STATES = {  # state -> what squeue calls it in two letters, and whether the job may still do something
    "PENDING": ("PD", True), "CONFIGURING": ("CF", True), "RUNNING": ("R", True), "COMPLETING": ("CG", True),
    "SUSPENDED": ("S", True), "STOPPED": ("ST", True), "REQUEUED": ("RQ", True), "REQUEUE_HOLD": ("RH", True),
    "REQUEUE_FED": ("RF", True), "SPECIAL_EXIT": ("SE", True), "RESIZING": ("RS", True), "SIGNALING": ("SI", True),
    "STAGE_OUT": ("SO", True), "RESV_DEL_HOLD": ("RD", True),
    "COMPLETED": ("CD", False), "FAILED": ("F", False), "CANCELLED": ("CA", False), "TIMEOUT": ("TO", False),
    "NODE_FAIL": ("NF", False), "OUT_OF_MEMORY": ("OOM", False), "PREEMPTED": ("PR", False),
    "BOOT_FAIL": ("BF", False), "DEADLINE": ("DL", False), "REVOKED": ("RV", False), "LAUNCH_FAILED": ("LF", False),
}
BROKEN = ("down", "drain", "drng", "fail", "error", "unk", "inval")  # how the states of such nodes begin
USABLE = ("idle", "mix", "mixed", "alloc", "allocated", "completing", "comp", "reserved", "resv", "planned", "plnd")


@dataclass(frozen=True)
class NodeShape:
    """A kind of node in a partition.

    Attributes:
        count: Nodes of this kind.
        usable: Those of them that are not down or drained.
        cpus: CPUs of each.
        mem_mib: Memory of each.
        gpus: GPUs of each.
        gpu_type: What Slurm calls them, or empty.
    """

    count: int
    usable: int
    cpus: int
    mem_mib: int
    gpus: int
    gpu_type: str = ""

    def __str__(self) -> str:
        gpus = f"{self.gpus} GPUs{' (' + self.gpu_type + ')' if self.gpu_type else ''}" if self.gpus else "no GPU"
        return f"{self.count} nodes with {gpus}, {self.cpus} CPUs, {self.mem_mib / 1024:.0f} GiB"


@dataclass(frozen=True)
class Partition:
    """A partition and its nodes; `max_time_min` and `max_nodes` are None where there is no limit."""

    name: str
    default: bool
    up: bool
    max_time_min: int | None
    max_nodes: int | None
    shapes: tuple[NodeShape, ...]

    @property
    def nodes(self) -> int:
        """All nodes, whatever their state."""
        return sum(s.count for s in self.shapes)

    def nodes_with(self, gpus: int) -> int:
        """Nodes that have at least this many GPUs."""
        return sum(s.count for s in self.shapes if s.gpus >= gpus)


@dataclass(frozen=True)
class Waiting:
    """A job, or the tasks of an array, that wait in the queue.

    Attributes:
        id: As Slurm writes it (`123`, `123_[4-99%8]`).
        name: Job name.
        partition: Where it is to run; several have commas between them.
        nodes: How many nodes it wants.
        priority: Slurm's number; the largest starts first.
        start: When Slurm expects to start it (`2026-11-30T10:00:00`), or `N/A`.
        reason: Why it waits, in Slurm's word.
    """

    id: str
    name: str
    partition: str
    nodes: str
    priority: int
    start: str
    reason: str


@dataclass(frozen=True)
class Job:
    """What Slurm says of a job.

    Attributes:
        id: As Slurm writes it (`123`, `123_4`).
        name: Job name.
        state: A key of STATES, or what else Slurm wrote.
        elapsed: Time it has run, in Slurm's form.
        nodes: How many nodes.
        where: Node list, or the reason in brackets.
        exit_code: Of the batch script, where known.
        source: squeue or sacct.
        comment: As given to sbatch, where known.
    """

    id: str
    name: str
    state: str
    elapsed: str
    nodes: str
    where: str
    exit_code: int | None
    source: str
    comment: str = ""

    @property
    def active(self) -> bool:
        """True while it waits or runs."""
        return STATES.get(self.state, ("", True))[1]


def is_job_id(text: str) -> bool:
    """Whether a text is a job's id (`123`) or that of an array's task (`123_4`)."""
    return re.fullmatch(r"\d+(?:_\d+)?", text) is not None


def base_id(job_id: str) -> str:
    """The id of the array that a task belongs to; of any other job its own. Mind that Python's int("12_3") is 123."""
    return job_id.partition("_")[0]


def _asked_for(wanted: set[str], found: list[Job]) -> list[Job]:
    return [job for job in found if job.id in wanted or base_id(job.id) in wanted]


def absent() -> SlurmError | None:
    """Why Slurm cannot be used from here, or None where the controller answers. One try, since users wait for it."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        return SlurmError(f"{' and '.join(missing)} not installed")
    try:
        run(["sinfo", "--noheader", "--format=%R"], timeout_s=ABSENT_TIMEOUT_S)
    except SlurmError as error:
        if "configuration source" in str(error):  # three lines of Slurm's own, of which none says so plainly
            return SlurmError("Slurm's programs are installed, and no cluster is configured for them (slurm.conf)")
        return error
    return None


def leave_surrounding_job() -> None:
    """Forget the variables of a job that this process runs in: they would leak into the job that it submits."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")) and name not in ("SLURM_CONF", "SLURM_CLUSTERS",
                                                                                       "SUBMITIT_PREEMPT_SIGNAL"):
            del os.environ[name]


def parse_time(text: str) -> int:
    """A time limit in minutes, from any form that Slurm takes; seconds count as the minute they begin.

    Args:
        text: `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes` or
            `days-hours:minutes:seconds`.
    Raises:
        ValueError: Another form, or less than a second.
    """
    match = re.fullmatch(r"\s*(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?\s*", text)
    if not match:
        raise ValueError(f"{text!r} is no time; write minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS")
    days, *rest = match.groups()
    a, b, c = (int(part) if part is not None else None for part in rest)
    assert a is not None
    if days is not None:
        hours, minutes, seconds = a, b or 0, c or 0
    elif c is not None:
        hours, minutes, seconds = a, b or 0, c
    else:
        hours, minutes, seconds = 0, a, b or 0
    total_s = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total_s == 0:
        raise ValueError(f"{text!r} is no time: it must be more than 0")
    return -(-total_s // 60)


def format_time(minutes: int) -> str:
    """Minutes in the form that Slurm prints: `1-02:03:00`, `02:03:00`."""
    days, rest = divmod(minutes, 24 * 60)
    return (f"{days}-" if days else "") + f"{rest // 60:02d}:{rest % 60:02d}:00"


def partitions() -> list[Partition]:
    """All partitions that the user may see."""
    return parse_partitions(ask(["sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%s|%D|%c|%m|%T|%G"]).stdout)


def parse_partitions(text: str) -> list[Partition]:
    """Partitions from the lines of sinfo with the format above."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        fields = line.split("|", 8)
        if len(fields) == 9:
            found.setdefault(fields[0], []).append(fields)
    return [_partition(name, rows) for name, rows in found.items()]


def _partition(name: str, rows: list[list[str]]) -> Partition:
    _, up, limit, size, *_ = rows[0]
    shapes: dict[tuple[int, int, int, str], tuple[int, int]] = {}
    for row in rows:
        gpus, gpu_type = parse_gres(row[8])
        key = (_number(row[5]), _number(row[6]), gpus, gpu_type)
        count, usable = shapes.get(key, (0, 0))
        works = row[7].rstrip("*~#%$@!^-+").lower() in USABLE and not row[7].endswith("*")
        shapes[key] = (count + int(row[4]), usable + (int(row[4]) if works else 0))
    most = size.partition("-")[2] or size
    return Partition(
        name=name.rstrip("*"), default=name.endswith("*"), up=up.startswith("up"),
        max_time_min=None if limit in ("infinite", "UNLIMITED", "n/a") else parse_time(limit),
        max_nodes=int(most) if most.isdigit() else None,
        shapes=tuple(NodeShape(*counts, cpus, mem, gpus, kind) for (cpus, mem, gpus, kind), counts in shapes.items()))


def _number(text: str) -> int:
    return int(re.match(r"\d*", text)[0] or 0)  # type: ignore[index]


def parse_gres(text: str) -> tuple[int, str]:
    """GPUs of a node and what they are called, from its generic resources: `gpu:a100:8(S:0-1),nvme:1` -> 8, a100."""
    found = re.findall(r"(?:^|,)gpu:(?:([^:,(]+):)?(\d+)", text)
    names = dict.fromkeys(name for name, _ in found if name)
    return sum(int(count) for _, count in found), "+".join(names)


def cluster_name() -> str:
    """What the cluster calls itself."""
    return _setting("ClusterName")


def max_array_size() -> int:
    """Tasks of one array, at most."""
    size = _setting("MaxArraySize")
    return int(size) if size.isdigit() and int(size) > 0 else DEFAULT_ARRAY_SIZE


def _setting(name: str) -> str:
    match = re.search(rf"^{name}\s*=\s*(\S+)", ask(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    return match[1] if match else ""


def test_start(script: str) -> str:
    """When Slurm would start this batch script, in its own words; nothing is submitted.

    Raises:
        SlurmError: Slurm would refuse it, or does not answer.
    """
    done = ask(["sbatch", "--test-only"], timeout_s=SUBMIT_TIMEOUT_S, patience_s=SUBMIT_TIMEOUT_S, stdin=script)
    return " ".join((done.stderr + done.stdout).replace("sbatch: ", "").split())


def queued(ids: Iterable[str] = (), *, name: str | None = None) -> list[Job]:
    """Jobs that squeue knows (it also keeps those of the last minutes), by id or by name; every task of an array is one.

    Args:
        ids: Of jobs, of tasks of arrays (`123_4`), or of arrays (`123`: all of its tasks). An array is asked for once.
        name: Instead of ids.
    Raises:
        SlurmError: The controller does not answer.
    """
    wanted = set(ids)
    if not wanted and name is None:
        return []
    command = ["squeue", "--noheader", "--all", "--array", "--states=all", "--format=%i|%T|%M|%D|%j|%R|%k"]
    which = [[f"--jobs={some}"] for some in _lists(wanted)] if wanted else [[f"--name={name}", "--me"]]
    jobs = []
    for line in "".join(_known(command + words) for words in which).splitlines():
        fields = line.split("|", 6)
        if len(fields) == 7:
            number, state, elapsed, nodes, job_name, where, comment = fields
            jobs.append(Job(number, job_name, state, elapsed, nodes, where, None, "squeue",
                            "" if comment == "(null)" else comment))
    return _asked_for(wanted, jobs) if wanted else jobs


def _lists(ids: Iterable[str]) -> list[str]:
    """The jobs and arrays of these ids, with commas between them; several lists where one would be too long to give."""
    bases = sorted({base_id(i) for i in ids})
    return [",".join(bases[first:first + MOST_IDS]) for first in range(0, len(bases), MOST_IDS)]


def _known(command: list[str]) -> str:
    """What squeue prints; nothing of a single job that it has forgotten, which it calls an error."""
    try:
        return ask(command).stdout
    except SlurmError as error:
        if "Invalid job id" not in str(error):
            raise
        return ""


def waiting() -> list[Waiting]:
    """What of the user's jobs waits, the largest priority first; the tasks of an array that wait are one.

    Raises:
        SlurmError: The controller does not answer.
    """
    text = ask(["squeue", "--noheader", "--me", "--states=PENDING", "--format=%i|%j|%P|%D|%Q|%S|%r"]).stdout
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition("|")
        fields = rest.rsplit("|", 5)  # a name may hold what divides the others
        if len(fields) == 6:
            name, partition, nodes, priority, start, reason = fields
            found.append(Waiting(number, name, partition, nodes, _number(priority), start, reason))
    return sorted(found, key=lambda job: -job.priority)


def accounted(ids: Iterable[str]) -> list[Job]:
    """Jobs that the accounting knows.

    Raises:
        SlurmError: There is no accounting, or it does not answer.
    """
    wanted = set(ids)
    if not wanted:
        return []
    text = "".join(ask(["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={some}",
                        "--format=JobID,State,Elapsed,NNodes,ExitCode,NodeList,JobName"]).stdout for some in _lists(wanted))
    jobs = []
    for line in text.splitlines():
        fields = line.split("|", 6)
        if len(fields) == 7:
            number, state, elapsed, nodes, code, where, name = fields
            jobs += [Job(task, name, state.split(" ")[0], elapsed, nodes, where, _number(code), "sacct")
                     for task in _task_ids(number)]
    return _asked_for(wanted, jobs)


def _task_ids(number: str) -> list[str]:
    """Ids of single tasks: sacct writes those of an array that never started as one, `7_[0-2,5%4]`."""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", number)
    if not match:
        return [number]
    ranges = [part.partition("-") for part in match[2].split(",")]
    return [f"{match[1]}_{i}" for first, _, last in ranges for i in range(int(first), int(last or first) + 1)]


def cancel(*job_ids: str) -> None:
    """Cancel jobs.

    Args:
        job_ids: A few hundred at most: they are words of one command.
    Raises:
        SlurmError: Slurm refused, or does not answer.
    """
    ask(["scancel", *job_ids], timeout_s=ACT_TIMEOUT_S, patience_s=ACT_TIMEOUT_S)


def job_state(job_id: str) -> str | None:
    """The state of a job: a key of STATES, or what else squeue writes; None where Slurm knows no such job.

    Raises:
        SlurmError: The controller does not answer.
    """
    return next((job.state for job in queued([job_id])), None)


def requeue(job_id: str) -> None:
    """End a job's processes and put it back in the queue under the same id.

    From inside the job, too: its batch script gets SIGTERM then, and SIGKILL after the cluster's KillWait. One try, since
    a second could end the job that the first has started again.

    Raises:
        SlurmAwayError: No answer; it may have been requeued all the same.
        SlurmError: Slurm refused: it waits already, is long over, or may not be requeued.
    """
    run(["scontrol", "requeue", job_id], timeout_s=ACT_TIMEOUT_S)


def exclude_nodes(job_id: str, nodes: Iterable[str]) -> None:
    """Keep a job that waits off these nodes, too: they are added to those that it avoids already.

    A job that was just requeued waits at once, also while its processes still end.

    Raises:
        SlurmError: The job is unknown or not pending, a node does not exist, or Slurm does not answer.
    """
    before = excluded_nodes(job_id)
    wanted = list(dict.fromkeys([*before, *nodes]))
    if wanted != before:
        ask(["scontrol", "update", f"jobid={job_id}", f"excnodelist={','.join(wanted)}"], timeout_s=ACT_TIMEOUT_S,
            patience_s=ACT_TIMEOUT_S)


def excluded_nodes(job_id: str) -> list[str]:
    """The nodes that a job avoids (--exclude).

    Raises:
        SlurmError: The controller does not answer.
    """
    excluded = ask(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%x"]).stdout.strip()
    return ask(["scontrol", "show", "hostnames", excluded]).stdout.split() if excluded else []


def required_nodes(job_id: str) -> list[str]:
    """The nodes that a job asks for by name (--nodelist).

    Raises:
        SlurmError: The controller does not answer.
    """
    asked = ask(["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%n"]).stdout.split()
    return ask(["scontrol", "show", "hostnames", asked[0]]).stdout.split() if asked and asked[0] != "(null)" else []


def up_nodes(partition: str) -> list[str]:
    """The nodes of a partition that Slurm does not call bad, whether they are free or not.

    Raises:
        SlurmError: The controller does not answer.
    """
    text = ask(["sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N|%T"]).stdout
    found = [line.partition("|") for line in text.splitlines()]
    return list(dict.fromkeys(name for name, _, state in found if not (state.startswith(BROKEN) or state.endswith("*"))))


def bad_nodes(nodelist: str) -> list[str]:
    """Those nodes of a list that Slurm calls down, drained, draining, failing or not responding.

    Args:
        nodelist: As Slurm writes it, such as `cn[1-4,7]` (SLURM_JOB_NODELIST of a job).
    Raises:
        SlurmError: The controller does not answer.
    """
    if not nodelist:
        return []
    text = ask(["sinfo", "--noheader", "--Node", "--all", f"--nodes={nodelist}", "--format=%N|%T"]).stdout
    found = [line.partition("|") for line in text.splitlines()]
    return list(dict.fromkeys(name for name, _, state in found if state.startswith(BROKEN) or state.endswith("*")))
