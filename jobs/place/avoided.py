"""Nodes that runs found unfit not long ago, which their next job avoids (left_out.jsonl, checks.jsonl)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from jobs.place.profiles import ClusterProfile
from jobs.place.resources import Resources
from jobs.place.scheduler import slurm
from vidmae.runs.nodes.left_out import nodes_left_out
from vidmae.runs.record import RunFolder

RECENT_H = 24.0  # sites repair or drain a bad node within a day, or it was a matter of the moment


@dataclass(frozen=True)
class Avoided:
    """What --exclude gets, in Slurm's form, and what is said of it; both may be empty."""

    exclude: str
    said: str


def avoided(runs: Iterable[RunFolder], profile: ClusterProfile, origins: Mapping[str, str],
            partition: slurm.Partition | None, resources: Resources) -> Avoided:
    """The nodes that a job avoids: those of --exclude, and those that its runs left out within a day.

    Args:
        runs: Their folders; they may not exist.
        profile: With the flags over it.
        origins: Of every value of the profile.
        partition: What Slurm says of it; None on this machine.
        resources: What the job gets.
    """
    since = time.time() - RECENT_H * 3600
    bad = {node: why for run in runs for node, why in nodes_left_out(run, since=since).items()} if partition else {}
    if not bad:
        return Avoided(profile.exclude, "")
    names = ", ".join(f"{node} ({reason})" for node, reason in bad.items())
    found = f"left out within {RECENT_H:g} h: {names}"
    if not profile.exclude and origins.get("exclude") == "--exclude":
        return Avoided("", f"{found}; --exclude '' takes them all the same")
    if profile.nodelist:
        return Avoided(profile.exclude, f"{found}; --nodelist says which nodes it gets, so they are not excluded")
    others = partition.nodes_with(resources.gpus_per_node) - len(bad) if partition else 0
    if others < resources.nodes:
        return Avoided(profile.exclude, f"{found}; partition {resources.partition} has {others} others, and the job needs "
                                        f"{resources.nodes}, so they are not excluded")
    exclude = ",".join(filter(None, [profile.exclude, *bad]))
    return Avoided(exclude, f"{found}; the job avoids them (--exclude '' takes them)")
