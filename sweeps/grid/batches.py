"""From the cells to submit to arrays: one per resource class, and what each of them waits for. Pure numbers and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.place.experiment import Place
from jobs.place.profiles import ClusterProfile
from jobs.place.resources import Resources, complete, count_gpus, local_resources
from jobs.place.scheduler import slurm
from sweeps.grid.any_cell import AnyCell
from sweeps.grid.states import Standing
from vidmae.settings.layers import ConfigError


@dataclass(frozen=True)
class Classes:
    """What cells get.

    Attributes:
        trained: A cell that finetunes.
        fitted: A probe, which has one process.
        said: A line for each number that nobody gave.
        max_parallel: Cells of an array at a time; 0 is no limit.
    """

    trained: Resources
    fitted: Resources
    said: list[str]
    max_parallel: int

    def of(self, cell: AnyCell) -> Resources:
        """What this cell gets."""
        return self.fitted if cell.one_process else self.trained


@dataclass(frozen=True)
class Batch:
    """One array.

    Attributes:
        cells: Its tasks in order.
        resources: Of each task.
        after: Slurm job that must have succeeded before, or empty.
        waits_for: Places of earlier batches that must have ended before.
    """

    cells: tuple[Standing, ...]
    resources: Resources
    after: str = ""
    waits_for: tuple[int, ...] = ()


def make_classes(place: Place, profile: ClusterProfile, origins: Mapping[str, str], partition: slurm.Partition | None, *,
                 on_cpu: bool, max_parallel: int | None) -> Classes:
    """Work out what cells get: one GPU each, where nobody says otherwise and there is one.

    Raises:
        ConfigError: A number is missing or cannot be.
    """
    known = dict(origins)
    if place.cluster == "local":
        return _here(profile, known, on_cpu=on_cpu, max_parallel=max_parallel)
    said = []
    if profile.gpus_per_node is None and partition:
        gpus = 0 if on_cpu else min(1, max((s.gpus for s in partition.shapes), default=0))
        known["gpus_per_node"] = "train.device is cpu" if on_cpu else "one per cell (--gpus-per-node)"
        said.append(f"gpus_per_node {gpus}: {known['gpus_per_node']}")
        profile = replace(profile, gpus_per_node=gpus)
    trained, more = complete(profile, known, partition)
    fitted = trained
    if trained.world_size > 1:
        single = replace(profile, nodes=1, gpus_per_node=min(1, trained.gpus_per_node), tasks_per_node=None)
        fitted, _ = complete(single, known, partition)
    return Classes(trained, fitted, said + more, max_parallel or 0)


def _here(profile: ClusterProfile, origins: dict[str, str], *, on_cpu: bool, max_parallel: int | None) -> Classes:
    if (profile.gpus_per_node or 0) > 1 or (profile.tasks_per_node or 1) > 1:
        raise ConfigError("a cell has one process on this machine, with one GPU at most (--gpus-per-node, "
                          "--tasks-per-node); --max-parallel says how many cells run at a time")
    gpus = 0 if on_cpu or profile.gpus_per_node == 0 else count_gpus()
    parallel = max_parallel or max(1, gpus)
    resources, said = local_resources(replace(profile, gpus_per_node=min(1, gpus)), origins, on_cpu=on_cpu)
    if not profile.cpus_per_task:
        resources = replace(resources, cpus_per_task=max(1, resources.cpus_per_task // parallel))
        said = [f"cpus_per_task {resources.cpus_per_task}: of this machine for {parallel} cells at a time"]
    return Classes(resources, resources, said, parallel)


def make_batches(chosen: Sequence[Standing], everything: Sequence[Standing], classes: Classes, max_array_size: int,
                 ) -> list[Batch]:
    """The arrays, those that others wait for first.

    Probes share the features of a checkpoint on a data set. Where nobody has extracted them yet and several cells want
    them, one of the cells leads, and the others wait for its end, however it ends.

    Args:
        chosen: The cells to submit.
        everything: All cells of the grid.
        classes: What cells get.
        max_array_size: Tasks of an array, at most.
    """
    extracted = {s.cell.shares for s in everything if s.kind == "done"}
    wanting = [s.cell for s in chosen if s.cell.shares and s.cell.shares not in extracted]
    leaders = {cell.signature for cell in first_of_sharing(wanting)}
    led = {cell.shares for cell in wanting if cell.signature not in leaders}
    leading = [s for s in chosen if s.cell.signature in leaders and s.cell.shares in led]
    first = _by_class(leading, classes, max_array_size)
    ahead = {s.cell.signature for s in leading}
    followers: list[Standing] = []
    free: list[Standing] = []
    for s in chosen:
        if s.cell.signature not in ahead:
            (followers if s.cell.shares in led else free).append(s)
    batches = first + _by_class(free, classes, max_array_size)
    for batch in _by_class(followers, classes, max_array_size):
        needed = {s.cell.shares for s in batch.cells}
        places = [i for i, other in enumerate(first) if needed & {s.cell.shares for s in other.cells}]
        batches.append(replace(batch, waits_for=tuple(places)))
    return batches


def _by_class(standings: Sequence[Standing], classes: Classes, most: int) -> list[Batch]:
    groups: dict[tuple[Resources, str], list[Standing]] = {}
    for s in standings:
        groups.setdefault((classes.of(s.cell), s.cell.after), []).append(s)
    return [Batch(tuple(group[i:i + most]), resources, after)
            for (resources, after), group in groups.items() for i in range(0, len(group), most)]


def first_of_sharing(cells: Sequence[AnyCell]) -> list[AnyCell]:
    """Of the cells that share something, such as features, the one that makes most of it: it runs before the others."""
    leaders: dict[tuple[str, str, str], AnyCell] = {}
    for cell in cells:
        if cell.shares and cell.amount > leaders.setdefault(cell.shares, cell).amount:
            leaders[cell.shares] = cell
    return list(leaders.values())
