"""Slurm's commands with time limits, their answers as plain values. The one place that calls them. Stdlib only.

A command that fails or does not answer raises `SlurmError`, which names the command: sbatch on its own would retry an
unreachable controller for a minute and then say little.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

QUERY_TIMEOUT_S = 10.0
SUBMIT_TIMEOUT_S = 60.0

STATES = {  # state -> what squeue calls it in two letters, and whether the job may still do something
    "PENDING": ("PD", True), "CONFIGURING": ("CF", True), "RUNNING": ("R", True), "COMPLETING": ("CG", True),
    "SUSPENDED": ("S", True), "STOPPED": ("ST", True), "REQUEUED": ("RQ", True), "REQUEUE_HOLD": ("RH", True),
    "REQUEUE_FED": ("RF", True), "SPECIAL_EXIT": ("SE", True), "RESIZING": ("RS", True), "SIGNALING": ("SI", True),
    "STAGE_OUT": ("SO", True), "RESV_DEL_HOLD": ("RD", True),
    "COMPLETED": ("CD", False), "FAILED": ("F", False), "CANCELLED": ("CA", False), "TIMEOUT": ("TO", False),
    "NODE_FAIL": ("NF", False), "OUT_OF_MEMORY": ("OOM", False), "PREEMPTED": ("PR", False),
    "BOOT_FAIL": ("BF", False), "DEADLINE": ("DL", False), "REVOKED": ("RV", False), "LAUNCH_FAILED": ("LF", False),
}
USABLE = ("idle", "mix", "mixed", "alloc", "allocated", "completing", "comp", "reserved", "resv", "planned", "plnd")


class SlurmError(RuntimeError):
    """Slurm refused or did not answer; the message names the command."""


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


def run(command: Sequence[str], *, timeout_s: float = QUERY_TIMEOUT_S, stdin: str | None = None) -> str:
    """Run a Slurm command; its standard output.

    Raises:
        SlurmError: It is not installed, failed, or took longer than `timeout_s`.
    """
    done = _run(command, timeout_s=timeout_s, stdin=stdin)
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split()) or "no message"
        raise SlurmError(f"`{shlex.join(command)}` failed (exit {done.returncode}): {words}")
    return done.stdout


def _run(command: Sequence[str], *, timeout_s: float, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s,
                              **({"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}))
    except FileNotFoundError:
        raise SlurmError(f"`{command[0]}` is not installed here; --cluster local runs on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"`{shlex.join(command)}` did not answer within {timeout_s:g} s; is the Slurm controller "
                         "reachable? (scontrol ping)") from None


def absent() -> str | None:
    """Why Slurm cannot be used from here, or None where the controller answers."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    try:
        run(["sinfo", "--noheader", "--format=%R"], timeout_s=5)
    except SlurmError as error:
        return str(error)
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
    return parse_partitions(run(["sinfo", "--noheader", "--exact", "--format=%P|%a|%l|%s|%D|%c|%m|%T|%G"]))


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
    match = re.search(r"^ClusterName\s*=\s*(\S+)", run(["scontrol", "show", "config"]), re.MULTILINE)
    return match[1] if match else ""


def test_start(script: str) -> str:
    """When Slurm would start this batch script, in its own words; nothing is submitted.

    Raises:
        SlurmError: Slurm would refuse it.
    """
    done = _run(["sbatch", "--test-only"], timeout_s=SUBMIT_TIMEOUT_S, stdin=script)
    words = " ".join((done.stderr + done.stdout).replace("sbatch: ", "").split())
    if done.returncode:
        raise SlurmError(f"`sbatch --test-only` refused the job: {words}")
    return words


def queued(ids: Iterable[str] = (), *, name: str | None = None) -> list[Job]:
    """Jobs that squeue knows (it also keeps those of the last minutes), by id or by name.

    Raises:
        SlurmError: The controller does not answer.
    """
    wanted = sorted(set(ids))
    if not wanted and name is None:
        return []
    command = ["squeue", "--noheader", "--all", "--states=all", "--format=%i|%T|%M|%D|%j|%R|%k"]
    command += [f"--jobs={','.join(wanted)}"] if wanted else [f"--name={name}", "--me"]
    done = _run(command, timeout_s=QUERY_TIMEOUT_S)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise SlurmError(f"`{shlex.join(command)}` failed: {' '.join(done.stderr.split())}")
    jobs = []
    for line in done.stdout.splitlines():
        fields = line.split("|", 6)
        if len(fields) == 7:
            number, state, elapsed, nodes, job_name, where, comment = fields
            jobs.append(Job(number, job_name, state, elapsed, nodes, where, None, "squeue",
                            "" if comment == "(null)" else comment))
    return jobs


def accounted(ids: Iterable[str]) -> list[Job]:
    """Jobs that the accounting knows.

    Raises:
        SlurmError: There is no accounting, or it does not answer.
    """
    wanted = sorted(set(ids))
    if not wanted:
        return []
    text = run(["sacct", "--allocations", "--noheader", "--parsable2", f"--jobs={','.join(wanted)}",
                "--format=JobID,State,Elapsed,NNodes,ExitCode,NodeList,JobName"])
    jobs = []
    for line in text.splitlines():
        fields = line.split("|", 6)
        if len(fields) == 7:
            number, state, elapsed, nodes, code, where, name = fields
            jobs.append(Job(number, name, state.split(" ")[0], elapsed, nodes, where, _number(code), "sacct"))
    return jobs


def cancel(job_id: str) -> None:
    """Cancel a job.

    Raises:
        SlurmError: Slurm refused.
    """
    run(["scancel", job_id], timeout_s=30)
