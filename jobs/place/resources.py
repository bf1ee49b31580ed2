"""From profile, flags and what the partition has to numbers that a job can be asked for, each with its origin.

Precedence: read from the partition < SBATCH_* variables < profile < flag.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.place.profiles import ClusterProfile
from jobs.place.scheduler import slurm
from vidmae.settings.layers import ConfigError, nearest

DEFAULT_TIME_MIN = 24 * 60
SIGNAL_DELAY_S = 300
SAVE_MARGIN_S = 60  # Slurm may send its warning this much off


@dataclass(frozen=True)
class Resources:
    """What a job gets: every number known.

    Attributes:
        partition: Name, or empty on this machine.
        nodes: Nodes.
        gpus_per_node: GPUs of each, 0 for a CPU job.
        tasks_per_node: Ranks of each.
        cpus_per_task: CPUs of a rank.
        mem_mib: Memory per node; 0 is all of it.
        time_min: Time limit; None is none.
        gpu_type: What Slurm calls the GPUs, or empty.
        node_mem_mib: Memory of a whole node, or None where it is not known.
        signal_delay_s: Seconds between the warning signal and the time limit.
    """

    partition: str
    nodes: int
    gpus_per_node: int
    tasks_per_node: int
    cpus_per_task: int
    mem_mib: int
    time_min: int | None
    gpu_type: str = ""
    node_mem_mib: int | None = None
    signal_delay_s: int = SIGNAL_DELAY_S

    @property
    def world_size(self) -> int:
        """Ranks of the job."""
        return self.nodes * self.tasks_per_node

    @property
    def record(self) -> dict[str, Any]:
        """What run.json keeps of a submission's resources."""
        kept = ("partition", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "time_min", "signal_delay_s",
                "gpu_type")
        return {name: getattr(self, name) for name in kept}


def choose_partition(name: str, known: Sequence[slurm.Partition]) -> slurm.Partition:
    """The partition of a name, or the default one.

    Raises:
        ConfigError: There is none; the message lists those that there are.
    """
    listed = ", ".join(p.name + (" (default)" if p.default else "") for p in known) or "none"
    if not name:
        found = [p for p in known if p.default]
        if not found:
            raise ConfigError(f"this cluster has no default partition; choose one with --partition: {listed}")
        return found[0]
    if "," in name:
        raise ConfigError(f"partition is {name!r}, allowed: one partition, of: {listed}")
    for partition in known:
        if partition.name == name:
            return partition
    raise ConfigError(f"no partition {name!r}{nearest(name, [p.name for p in known])}; there are: {listed} (--partition)")


def complete(profile: ClusterProfile, origins: dict[str, str], partition: slurm.Partition | None,
             ) -> tuple[Resources, list[str]]:
    """Fill in what neither profile nor flags say from what the partition's nodes have.

    Args:
        profile: Profile and flags.
        origins: Of every value; those that are filled in here are added.
        partition: None where Slurm could not be asked.
    Returns:
        The resources, and a line for each number that was not given.
    Raises:
        ConfigError: A number is not given and cannot be read.
    """
    filler = _Filler(profile, partition, origins)
    if partition and not profile.partition:
        filler.note("partition", partition.name, "the cluster's default partition")
    gpus = filler.gpus()
    tasks = filler.tasks(gpus)
    cpus = filler.cpus(gpus, tasks)
    shape, mem_mib, time_min = filler.shape, filler.mem_mib(gpus, tasks * cpus), filler.time_min()
    resources = Resources(
        partition.name if partition else profile.partition, profile.nodes, gpus, tasks, cpus, mem_mib, time_min,
        shape.gpu_type if shape else "", shape.mem_mib if shape else None, filler.signal_delay_s(time_min))
    return resources, filler.said


class _Filler:
    """Works the numbers out one after the other and notes where each came from."""

    def __init__(self, profile: ClusterProfile, partition: slurm.Partition | None, origins: dict[str, str]) -> None:
        self.profile, self.partition, self.origins = profile, partition, origins
        self.said: list[str] = []
        self.shape = self._shape()
        self.source = f"read from partition {partition.name}" if partition else ""

    def note(self, key: str, shown: object, origin: str) -> None:
        self.origins[key] = origin
        self.said.append(f"{key} {shown}: {origin}")

    def _shape(self) -> slurm.NodeShape | None:
        """The commonest kind of node that has the GPUs asked for; where none has, any: preflight then says so."""
        if self.partition is None:
            return None
        fit = [s for s in self.partition.shapes if s.gpus >= (self.profile.gpus_per_node or 0)]
        fit = fit or list(self.partition.shapes)  # too many GPUs: the preflight says so
        shape = max(fit or self.partition.shapes, key=lambda s: (s.count, s.gpus), default=None)
        if shape and len(self.partition.shapes) > 1:
            self.said.append(f"partition {self.partition.name} mixes {'; '.join(map(str, self.partition.shapes))}: numbers "
                             f"are those of a node with {shape.gpus} GPUs and {shape.cpus} CPUs")
        return shape

    def _read(self, key: str, flag: str) -> int:
        if self.shape is None:
            raise ConfigError(f"{flag} must be given (flag or cluster profile): there is no partition to read it from")
        return int(getattr(self.shape, key))

    def gpus(self) -> int:
        if self.profile.gpus_per_node is not None:
            return self.profile.gpus_per_node
        gpus = self._read("gpus", "--gpus-per-node")
        self.note("gpus_per_node", gpus, self.source)
        return gpus

    def tasks(self, gpus: int) -> int:
        if self.profile.tasks_per_node is None:
            self.note("tasks_per_node", gpus or 1, "one per GPU" if gpus else "one per CPU node (--tasks-per-node)")
        return _tasks(self.profile, gpus)

    def cpus(self, gpus: int, tasks: int) -> int:
        if self.profile.cpus_per_task is not None:
            return self.profile.cpus_per_task
        of_node = self._read("cpus", "--cpus-per-task")
        share = self._gpu_share(gpus)
        cpus = max(1, int(of_node * share) // tasks)
        self.note("cpus_per_task", cpus, f"{self.source}: {share:.0%} of {of_node} CPUs for {tasks} tasks")
        return cpus

    def mem_mib(self, gpus: int, cpus: int) -> int:
        if self.profile.mem_gib is not None:
            return int(self.profile.mem_gib * 1024)
        of_node = self.shape.mem_mib if self.shape else 0
        share = self._gpu_share(gpus) if gpus or not self.shape else min(1.0, cpus / self.shape.cpus)
        if share >= 1 or not of_node:
            self.note("mem_gib", 0, "all of a node's memory" + (f", {of_node / 1024:.0f} GiB" if of_node else ""))
            return 0
        mem_mib = int(of_node * share)
        self.note("mem_gib", f"{mem_mib / 1024:.1f}", f"{self.source}: {share:.0%} of a node, as of its "
                                                      f"{'GPUs' if gpus else 'CPUs'}")
        return mem_mib

    def _gpu_share(self, gpus: int) -> float:
        return min(1.0, gpus / self.shape.gpus) if gpus and self.shape and self.shape.gpus else 1.0

    def time_min(self) -> int:
        if self.profile.time:
            return slurm.parse_time(self.profile.time)
        partition = self.partition
        if partition and partition.max_time_min:
            self.note("time", slurm.format_time(partition.max_time_min), f"the most that partition {partition.name} allows")
            return partition.max_time_min
        why = f"partition {partition.name} has no limit" if partition else "there is no partition to read it from"
        self.note("time", slurm.format_time(DEFAULT_TIME_MIN), f"{why}, so a day is assumed (--time)")
        return DEFAULT_TIME_MIN

    def signal_delay_s(self, time_min: int) -> int:
        limit_s = 60 * time_min
        if (given := self.profile.signal_delay_s) is not None:
            if given >= limit_s:
                raise ConfigError(f"signal_delay_s is {given}, allowed: less than the time limit of {limit_s} s "
                                  "(--signal-delay-s, --time)")
            return given
        delay_s = min(SIGNAL_DELAY_S, limit_s // 4)
        if delay_s < SIGNAL_DELAY_S:
            self.note("signal_delay_s", delay_s, f"a quarter of the time limit of {limit_s} s")
        return delay_s


def _tasks(profile: ClusterProfile, gpus: int) -> int:
    tasks = profile.tasks_per_node or gpus or 1
    if gpus and tasks != gpus:
        raise ConfigError(f"tasks_per_node is {tasks}, allowed: {gpus}, one task per GPU (leave --tasks-per-node out, or "
                          "set --gpus-per-node 0 for CPUs)")
    return tasks


def local_resources(profile: ClusterProfile, origins: dict[str, str], *, on_cpu: bool) -> tuple[Resources, list[str]]:
    """What a job on this machine gets: its GPUs, one task each, or its CPUs.

    Args:
        profile: Flags (of a profile, only what is no request to Slurm has a meaning here).
        origins: Of every value; those that are filled in here are added.
        on_cpu: The run is to train on the CPU.
    Raises:
        ConfigError: More than one node, or more GPUs than there are.
    """
    if profile.nodes > 1:
        raise ConfigError(f"nodes is {profile.nodes}, allowed: 1 on this machine (--cluster local); --cluster slurm "
                          "submits to a cluster")
    said: list[str] = []
    here, cpus_here = count_gpus(), len(os.sched_getaffinity(0))
    gpus = profile.gpus_per_node if profile.gpus_per_node is not None else (0 if on_cpu else here)
    if gpus > here:
        raise ConfigError(f"gpus_per_node is {gpus}, allowed: 0 to {here} on this machine (--gpus-per-node)")
    tasks = _tasks(profile, gpus)
    if profile.gpus_per_node is None:
        origins["gpus_per_node"] = "train.device is cpu" if on_cpu else "counted on this machine"
        said.append(f"gpus_per_node {gpus}: {origins['gpus_per_node']}")
    cpus = profile.cpus_per_task or max(1, cpus_here // tasks)
    if not profile.cpus_per_task:
        origins["cpus_per_task"] = f"this machine has {cpus_here}"
        said.append(f"cpus_per_task {cpus}: {origins['cpus_per_task']}")
    time_min = slurm.parse_time(profile.time) if profile.time and origins.get("time", "").startswith("--") else None
    delay_s = profile.signal_delay_s or (min(SIGNAL_DELAY_S, 60 * time_min // 4) if time_min else SIGNAL_DELAY_S)
    return Resources("", 1, gpus, tasks, cpus, 0, time_min, signal_delay_s=delay_s), said


def count_gpus() -> int:
    """GPUs that a process started from here would see, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([v for v in visible.split(",") if v.strip() and v.strip() != "-1"])
    return len([p for p in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", p.name)])
