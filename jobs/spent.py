"""Show what runs have used: GPU-hours, core-hours, energy and CO2, of each run, sweep or user, and what is left of a budget.

    python jobs/spent.py                            all runs in runs/, and their sum
    python jobs/spent.py --by sweep --since 2026-11-01
                                                    jobs since that day, by the array or command that they belong to
    python jobs/spent.py 's-vith14-*' --csv         the runs of a pattern, as a table for other programs
    python jobs/spent.py --account lab_smith --since 2026-11-01 --by user
                                                    with all other jobs of a Slurm account, as far as Slurm shows them

Hours are those of every start of a job, by Slurm's accounting (sacct) where there is one, else by the records of the run.
ENERGY BY says who measured: Slurm (ConsumedEnergyRaw, whole nodes), NVML (the counters of the GPUs, read by the run), or an
estimate (board power of the GPUs, so the most that they can have drawn, times `gpu_power_pct` of the profile). KWH is at the
machines; CO2 is KWH x `pue` x `co2_g_per_kwh` of the profile. What a number lacks is said below the table, with the key of
the profile. Jobs that compute on CPUs have no energy unless the profile says `watts_per_core`.

Exit codes: 0 ok, 2 no such run, folder or profile, 4 --account, and the accounting cannot be asked.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import RUN_HELP, RUNS, Parser, add_runs_dir
from jobs.place.profiles import ClusterProfile, find_site, is_day
from jobs.place.scheduler import slurm
from jobs.place.speak import answer, say
from jobs.standing.runs import all_runs
from jobs.standing.shard_runs import find_runs
from jobs.standing.spending import Usage, others_of_account, since, usage_of
from vidmae.runs.nodes.usage import Rates, Spent, Use, spent
from vidmae.settings.layers import ConfigError, build

HEADER = ("JOBS", "GPU-H", "CORE-H", "KWH", "ENERGY BY", "CO2 KG")
BY = ("run", "sweep", "user")
OTHERS = "(other jobs of the account)"
Group = tuple[str, Spent]


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("runs", nargs="*", metavar="RUN", help=f"{RUN_HELP} (default: all runs)")
    what.add_argument("--by", choices=BY, default="run", help="what a line is of (default: %(default)s)")
    what.add_argument("--since", type=day, metavar="YYYY-MM-DD",
                      help="only jobs that began on this day or later")
    what.add_argument("--account", metavar="NAME",
                      help="also all other jobs of this Slurm account, of all users that Slurm shows to you; needs --since")
    what.add_argument("--profile", metavar="NAME|FILE",
                      help="cluster profile with co2_g_per_kwh, pue, watts_per_core, gpu_power_pct and the budget (default: "
                           "VIDMAE_PROFILE, else the cluster's name; what it lacks is taken from the run's submission)")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    form = out.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true",
                      help="one JSON object instead of the table: lines, total, budget, notes")
    form.add_argument("--csv", action="store_true", help="comma-separated values instead of the table")
    return parser


def day(text: str) -> str:
    """An argparse type: a day such as 2026-01-31."""
    if not is_day(text):
        raise argparse.ArgumentTypeError(f"{text} is not allowed: a day such as 2026-01-31")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="nothing was written")


def run(args: argparse.Namespace) -> int:
    """Read, add up, show; the exit code."""
    if args.account and not args.since:
        raise ConfigError("--account needs --since: the accounting is asked for the jobs since a day")
    if args.runs_dir != RUNS and not args.runs_dir.is_dir():
        raise ConfigError(f"--runs-dir {args.runs_dir} is not a folder")
    profile = find_profile(args.profile)
    rates = profile.rates
    chosen = [found for given in args.runs for found in find_runs(given, args.runs_dir)]
    everything, notes = usage_of(chosen if args.runs else all_runs(args.runs_dir.absolute()))
    usages = since(everything, args.since or "")
    others = others_of_account(args.account, args.since, everything) if args.account else []
    lines = grouped(usages, others, args.by, rates)
    total = spent([*(use for usage in usages for use in usage.uses), *others], rates)
    left: dict[str, Any] | None = None
    if profile.budget_gpu_hours is not None and not args.runs:
        used_gpu_h = sum(use.gpu_h for usage in since(everything, profile.budget_since) for use in usage.uses)
        left = {"gpu_hours": profile.budget_gpu_hours, "since": profile.budget_since, "spent_gpu_h": used_gpu_h,
                "left_gpu_h": profile.budget_gpu_hours - used_gpu_h}
    notes += [f"not counted: {line}" for line in total.without]
    if args.json:
        print(json.dumps({"by": args.by, "lines": [{args.by: name, **asdict(found)} for name, found in lines],
                          "total": asdict(total), "budget": left, "notes": notes}))
        return 0
    show_csv(lines, args.by) if args.csv else show(lines, total, args.by)
    for note in notes:
        say(f"note: {note}")
    if left:
        say(f"budget: {left['spent_gpu_h']:,.1f} of {left['gpu_hours']:,.1f} GPU-hours are spent"
            + (f" since {left['since']}" if left["since"] else "") + f", {left['left_gpu_h']:,.1f} are left")
    return 0


def find_profile(given: str | None) -> ClusterProfile:
    """The profile of the site, without flags; an empty one where there is none.

    Raises:
        ConfigError: There is no such profile, or it cannot be used.
    """
    try:
        cluster = slurm.cluster_name() if slurm.absent() is None else None
    except slurm.SlurmError:
        cluster = None  # it went away just now; what is named is found all the same
    return build(ClusterProfile, find_site(given, cluster).layers)[0]


def grouped(usages: Sequence[Usage], others: Sequence[Use], by: str, rates: Rates) -> list[Group]:
    """What each run, sweep or user has used, in the order in which the first job of each began."""
    groups: dict[str, list[Use]] = {}
    for usage in usages:
        for use in usage.uses:
            name = {"run": usage.run.path.name, "sweep": usage.sweep, "user": use.user or "?"}[by]
            groups.setdefault(name, []).append(use)
    for use in others:
        groups.setdefault(use.user or "?" if by == "user" else OTHERS, []).append(use)
    order = sorted(groups, key=lambda name: (name == OTHERS, min(use.started for use in groups[name])))
    return [(name, spent(groups[name], rates)) for name in order]


def show(lines: Sequence[Group], total: Spent, by: str) -> None:
    """The table on standard output."""
    rows = [(by.upper(), *HEADER), *((name, *texts_of(found)) for name, found in lines), ("all", *texts_of(total))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    words = (0, 1 + HEADER.index("ENERGY BY"))  # columns of words; the others are numbers
    for row in rows:
        cells = (f"{cell:<{width}}" if i in words else f"{cell:>{width}}"
                 for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        print("  ".join(cells).rstrip())


def texts_of(found: Spent) -> tuple[str, ...]:
    """A line of the table; `-` is what is not known."""
    partly = found.by and 0 < found.measured_pct < 99.5
    by = "+".join(found.by) + (f" ({found.measured_pct:.0f} %)" if partly else "")
    return (f"{found.jobs:,}", f"{found.gpu_h:,.1f}", f"{found.core_h:,.1f}", _text(found.kwh), by or "-",
            _text(found.co2_kg))


def show_csv(lines: Iterable[Group], by: str) -> None:
    """The same as comma-separated values, numbers as they are; empty is what is not known."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([by, "jobs", "gpu_h", "core_h", "kwh", "energy_by", "measured_pct", "co2_kg"])
    for name, s in lines:
        out.writerow([name, s.jobs, s.gpu_h, s.core_h, s.kwh, "+".join(s.by), s.measured_pct, s.co2_kg])


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


if __name__ == "__main__":
    sys.exit(main())
