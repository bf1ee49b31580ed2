"""The flags that every launcher shares: where it runs, resources under sbatch's own names, run control, output."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.place.notify_ways import ALLOWED, without_addresses
from jobs.place.profiles import parse_mem
from vidmae.settings.command_line import Parser as Parser

RUNS = Path("runs")
RUN_HELP = "run id, start of one, pattern ('s-*'), path or Slurm job id; or the folder OUT of an array over shards"


def add_resources(parser: argparse.ArgumentParser) -> None:
    """`--cluster`, `--profile` and what is asked of Slurm."""
    group = parser.add_argument_group("resources", "not given: the cluster profile's, else read from the partition")
    group.add_argument("--cluster", choices=("slurm", "local"),
                       help="where it runs (default: slurm where the controller answers, else local)")
    group.add_argument("--profile", metavar="NAME|FILE",
                       help="cluster profile, jobs/clusters/NAME.yaml (default: VIDMAE_PROFILE, else the cluster's name)")
    group.add_argument("-N", "--nodes", type=int, metavar="N", help="nodes (default: 1)")
    group.add_argument("-p", "--partition", metavar="NAME", help="partition (default: the cluster's default)")
    group.add_argument("-A", "--account", metavar="NAME", help="account that is billed")
    group.add_argument("-q", "--qos", metavar="NAME", help="quality of service")
    group.add_argument("-t", "--time", metavar="LIMIT",
                       help="minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS (default: the partition's limit)")
    group.add_argument("--gpus-per-node", type=int, metavar="N", help="GPUs per node, one task each; 0 uses CPUs")
    group.add_argument("--tasks-per-node", "--ntasks-per-node", type=int, metavar="N",
                       help="tasks per node without GPUs (default: 1)")
    group.add_argument("-c", "--cpus-per-task", type=int, metavar="N", help="CPUs per task (default: the node's share)")
    group.add_argument("--mem", type=_mem, metavar="SIZE", dest="mem_gib",
                       help="memory per node: 480G, 65536 (MiB), 0 for all of it (default: all, or the share of the GPUs)")
    group.add_argument("-C", "--constraint", metavar="LIST", help="node features")
    group.add_argument("-x", "--exclude", metavar="NODES", help="nodes to avoid")
    group.add_argument("-w", "--nodelist", metavar="NODES", help="nodes to use")
    group.add_argument("-d", "--dependency", metavar="LIST", help="jobs to wait for, such as afterok:123")
    group.add_argument("-J", "--job-name", metavar="NAME", help="name in squeue (default: the run's id)")
    group.add_argument("--signal-delay-s", type=int, metavar="S",
                       help="seconds from Slurm's warning signal to the time limit (default: 300, at most a quarter of it)")
    group.add_argument("--max-requeues", type=int, metavar="N",
                       help="how often a job that was stopped before its end goes back into the queue, or on one machine "
                            "starts again after a rank was killed (default: 20)")
    group.add_argument("--sbatch", action="append", default=[], metavar="KEY=VALUE", help="any other sbatch option")


def resource_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The resource flags as fields of ClusterProfile."""
    names = ("nodes", "partition", "account", "qos", "time", "gpus_per_node", "tasks_per_node", "cpus_per_task", "mem_gib",
             "constraint", "exclude", "nodelist", "dependency", "job_name", "signal_delay_s", "max_requeues")
    return {**{name: getattr(args, name) for name in names}, "notify": getattr(args, "notify", None)}  # not of every command


def add_notify(group: Any) -> None:
    """`--notify`."""
    group.add_argument("--notify", action="append", metavar="WAY",
                       help=f"say in one line how it ended, to {ALLOWED}; may be repeated (default: the cluster profile's)")


def add_over_budget(group: Any) -> None:
    """`--over-budget`."""
    group.add_argument("--over-budget", action="store_true",
                       help="submit also where the runs folder would pass budget_gpu_hours of the profile")


def add_runs_dir(group: Any) -> None:
    """`--runs-dir`."""
    group.add_argument("--runs-dir", type=Path, default=RUNS, metavar="FOLDER",
                       help="folder of the run folders (default: %(default)s)")


def _mem(text: str) -> float:
    try:
        return parse_mem(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def masked_argv(argv: Sequence[str]) -> list[str]:
    """A command line for the record, without values of what looks like a secret, and of whom it tells (--notify)."""
    return [re.sub(r"(?i)((?:token|secret|passw(?:or)?d|api_?key|credential)[^=]*=).*", r"\1***", arg)
            for arg in without_addresses(argv)]
