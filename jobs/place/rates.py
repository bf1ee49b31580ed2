"""What a cluster profile says of power and of a budget, for commands that add up what was used."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from jobs.place.profiles import ClusterProfile, find_site, is_day
from jobs.place.scheduler import slurm
from vidmae.runs.nodes.spent import Rates
from vidmae.settings.layers import build


@dataclass(frozen=True)
class Budget:
    """GPU-hours that the runs of a folder may use together, and the first day that counts, or empty."""

    gpu_hours: float
    since: str


def rates_of(profile: ClusterProfile) -> Rates:
    """What a site says of its power."""
    return Rates(profile.co2_g_per_kwh, profile.pue, profile.watts_per_core, profile.gpu_power_pct)


def budget_of(profile: ClusterProfile) -> Budget | None:
    """The budget; None where the site has none."""
    return None if profile.budget_gpu_hours is None else Budget(profile.budget_gpu_hours, profile.budget_since)


def find_profile(given: str | None) -> ClusterProfile:
    """The profile that --profile, VIDMAE_PROFILE or the cluster's name says, without flags; an empty one without any.

    Raises:
        ConfigError: There is no such profile, or it cannot be used.
    """
    try:
        cluster = slurm.cluster_name() if slurm.absent() is None else None
    except slurm.SlurmError:
        cluster = None  # it went away just now; what is named is found all the same
    return build(ClusterProfile, find_site(given, cluster).layers)[0]


def day(text: str) -> str:
    """An argparse type: a day such as 2026-01-31."""
    if not is_day(text):
        raise argparse.ArgumentTypeError(f"{text} is not allowed: a day such as 2026-01-31")
    return text
