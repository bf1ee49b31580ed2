"""A budget of GPU-hours, which a cluster profile sets: a submission that would pass it asks first.

What counts is what the jobs of the runs folder have used (jobs/standing/spending.py), what those that wait or run will
still use by their estimates, and the estimate of what is submitted now. Arrays of jobs/prepare.py, jobs/embed.py and the
like have no run folder and are not counted.
"""

from __future__ import annotations

import select
import sys
from pathlib import Path

from jobs.place.experiment import Experiment
from jobs.place.profiles import ClusterProfile
from jobs.place.speak import say
from jobs.standing.runs import all_runs
from jobs.standing.spending import since, under_way_gpu_h, usage_of
from jobs.submit.step_rows import step_of
from vidmae.settings.layers import ConfigError

ANSWER_S = 60.0  # the launcher's lock is held meanwhile; it would be taken for a dead one's after five minutes


def planned_gpu_h(e: Experiment) -> float:
    """GPU-hours of a pretraining run, by the plan that is shown before it is submitted; 0 on CPUs."""
    return 0.0 if e.on_cpu or e.plan is None else step_of(e).gpu_hours(e.plan.total_clips)


def keep_to_budget(profile: ClusterProfile, runs_dir: Path, wanted_gpu_h: float, *, over: bool,
                   dry_run: bool = False) -> None:
    """Say how a submission stands to the budget of its profile; ask, or refuse, where it would pass it.

    Args:
        profile: Of the site.
        runs_dir: Folder of the runs.
        wanted_gpu_h: Estimate of what is submitted; 0 on CPUs, where nothing is asked.
        over: `--over-budget`: it is said, and nobody is asked.
        dry_run: It is said, and nothing is asked or refused.
    Raises:
        ConfigError: It would pass the budget, and the one at the terminal does not want it, or there is no terminal.
    """
    budget_h = profile.budget_gpu_hours
    if budget_h is None or not wanted_gpu_h:
        return
    usages, notes = usage_of(all_runs(runs_dir))
    for note in notes:
        say(f"note: {note}")
    spent_h = sum(use.gpu_h for usage in since(usages, profile.budget_since) for use in usage.uses)
    active_h = under_way_gpu_h(usages)
    days = f" since {profile.budget_since}" if profile.budget_since else ""
    stands = (f"{spent_h:,.1f} GPU-hours are spent{days}, {active_h:,.1f} are under way, and this would use about "
              f"{wanted_gpu_h:,.1f} of budget_gpu_hours {budget_h:,.1f}")
    if spent_h + active_h + wanted_gpu_h <= budget_h:
        say(f"budget: {stands}")
        return
    passed = f"over the budget by {spent_h + active_h + wanted_gpu_h - budget_h:,.1f} GPU-hours: {stands}"
    if over or dry_run:
        say(f"warning: {passed}" + ("" if over else "; without --dry-run it would ask (--over-budget does not ask)"))
    elif not _agreed(passed):
        raise ConfigError(f"{passed}; nothing was submitted. Submit it all the same: --over-budget")


def _agreed(passed: str) -> bool:
    """Whether the one at the terminal wants it; False where there is no terminal, or no answer in a minute."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{passed}\nsubmit it all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    ready, _, _ = select.select([sys.stdin], [], [], ANSWER_S)
    if not ready:
        say("no answer")
        return False
    return sys.stdin.readline().strip().lower() in ("y", "yes")
