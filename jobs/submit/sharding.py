"""A program that deals out a list of clips, as an array of jobs on Slurm or one shard after the other on this machine.

    OUT/config.yaml               what is asked for
    OUT/submitted.json            the arrays, oldest first; jobs/status.py, logs.py and cancel.py take OUT for them
    OUT/code/, OUT/submit/A_i/    snapshot; log of shard i of array A
    OUT/result.json               exists exactly when all shards are done

Each shard runs `python -m MODULE OUT --shard I/N` (vidmae/ranks/shard_program.py), and what was done before is not done
again. So a second call attaches to the array that works, and goes on with what is missing where none does.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.place.experiment import Place, choose_place, folder_problems, partition_problems, read_profile
from jobs.place.launch_flags import add_resources, masked_argv
from jobs.place.profiles import ClusterProfile
from jobs.place.resources import Resources, complete, local_resources
from jobs.place.scheduler import slurm
from jobs.place.snapshot import code_state, take_snapshot
from jobs.standing.runs import SUBMITTED, submissions
from jobs.standing.shard_runs import arrays_of, errors_of, shards_of
from jobs.submit import launch
from jobs.submit.shards_here import INCOMPLETE, Work, command_of, run_here
from jobs.submit.submission import one_launcher
from vidmae.ranks.local_program import ROOT, prepare_folder, tell
from vidmae.runs.record import CANCELLED, SCHEMA, RunFolder, make_private_folder, read_json, write_json
from vidmae.settings.layers import ConfigError, to_yaml

SIGNAL_DELAY_S = 10  # what is done is on the disk: there is nothing to save before the time limit
MOST_ERRORS = 5


@dataclass(frozen=True)
class Target:
    """Where it is done, and what each shard gets there."""

    place: Place
    profile: ClusterProfile
    partition: slurm.Partition | None
    resources: Resources


def add_shards(parser: argparse.ArgumentParser, *, dry_run: str = "show the configuration and the script; write nothing",
               ) -> None:
    """`--shards`, `--dry-run` (with its own words of help) and the resource flags."""
    group = parser.add_argument_group("run control")
    group.add_argument("--shards", type=_positive, default=1, metavar="N",
                       help="parts that the clips are dealt out to: tasks of the array on Slurm, on this machine one after "
                            "the other (default: %(default)s)")
    group.add_argument("--max-parallel", type=_positive, metavar="N", help="tasks that run at a time (default: no limit)")
    group.add_argument("--dry-run", action="store_true", help=dry_run)
    add_resources(parser)


def run(work: Work, config: Any, args: argparse.Namespace, command: Sequence[str], console: Console,
        show: Callable[[dict[str, Any], Console], object]) -> int:
    """Do the work, or submit it, or show what came of it; the exit code.

    Args:
        work: What is to be done.
        config: Of the program, for OUT/config.yaml.
        args: With the flags of `add_shards`, and `--json`.
        command: What the user typed, for the record.
        console: Standard error.
        show: Shows result.json.
    Raises:
        ConfigError: The folder holds other results, or what was asked for is not to be had.
        SlurmError: Slurm refused, or does not answer.
    """
    result = work.out / "result.json"
    if args.dry_run:
        return show_script(work, find_target(args, work, console), args, config, console)
    prepare_folder(work.out, config)
    if not result.exists():
        target = find_target(args, work, console)
        if target.place.cluster == "slurm":
            job_id = submit(work, target, args, masked_argv(command), console)
            print(json.dumps({"job_id": job_id, "out": str(work.out)}) if args.json else job_id, flush=True)
            return 0
        if code := run_here(work, console):
            return code
    record = read_json(result) or {}
    show(record, console)
    print(json.dumps(record) if args.json else work.out, flush=True)
    return INCOMPLETE if record.get("unreadable") else 0


def find_target(args: argparse.Namespace, work: Work, console: Console) -> Target:
    """Where the work is done.

    Raises:
        ConfigError: Something that was asked for is not to be had; all of it in one message.
        SlurmError: Slurm does not answer.
    """
    place = choose_place(args)
    tell(console, f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    _, profile, origins, partition = read_profile(args, place)
    if place.cluster == "slurm":
        resources, said = complete(profile, origins, partition)
    else:
        resources, said = local_resources(profile, origins, on_cpu=work.device == "cpu")
    for line in said if place.cluster == "slurm" else ():
        if not line.startswith("signal_delay_s"):  # shards have their own
            tell(console, f"  {line}")
    if found := [*(partition_problems(partition, resources) if partition else []), *folder_problems(work.out)]:
        raise ConfigError("; ".join(found))
    return Target(place, profile, partition, resources)


def make_request(work: Work, target: Target, args: argparse.Namespace) -> launch.Request:
    """The array."""
    p, r = target.profile, target.resources
    options = {name: getattr(p, name) for name in ("account", "qos", "constraint", "exclude", "nodelist", "dependency")}
    name = f"{work.module.rpartition('.')[2]}-{re.sub(r'[^A-Za-z0-9._-]', '_', work.out.name)}"
    return launch.Request(
        run=RunFolder(work.out), job_name=p.job_name or name, resources=r, workers=work.workers,
        on_cpu=work.device == "cpu" or r.gpus_per_node == 0, options={k: v for k, v in options.items() if v},
        more_options=dict(p.sbatch), signal_delay_s=p.signal_delay_s or SIGNAL_DELAY_S, max_requeues=p.max_requeues,
        setup=p.setup, python=p.python, env=dict(p.env), tasks=work.shards, max_parallel=args.max_parallel or 0,
        recovers=False)


def show_script(work: Work, target: Target, args: argparse.Namespace, config: Any, console: Console) -> int:
    """The configuration on standard error, the script on standard output; writes nothing."""
    tell(console, to_yaml(config).rstrip())
    if target.place.cluster == "slurm":
        script = launch.batch_script(make_request(work, target, args), "slurm")
        if not target.place.unasked:
            tell(console, f"start: {slurm.test_start(script)}")
    else:
        script = "\n".join(["#!/bin/bash", f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
                            *(shlex.join(command_of(work, number)) for number in range(work.shards)), ""])
    print(script, end="" if script.endswith("\n") else "\n")
    tell(console, "dry run: nothing was written or submitted")
    return 0


def submit(work: Work, target: Target, args: argparse.Namespace, command: Sequence[str], console: Console) -> str:
    """Submit the array, or attach to the one that works on this folder; its id.

    Raises:
        SlurmAwayError: sbatch was not answered; the next call finds the array, or submits it.
        SlurmError: sbatch refused.
    """
    out, request = work.out, make_request(work, target, args)
    with one_launcher(out):
        if active := active_array(request):
            tell(console, f"array {active} works on {out} already\n{next_commands(out)}")
            return active
        for line in errors_before(out):
            tell(console, line)
        code = code_state()
        take_snapshot(request.run, code)
        make_private_folder(request.run.submit)
        entry = {"job_id": None, "cluster": "slurm", "job_name": request.job_name, "shards": work.shards,
                 "command": list(command), **code.record(), "submitted_at_s": time.time()}
        job_id = submit_noted(work, request, entry)
    tell(console, f"submitted array {job_id}: {work.shards} shards\n{next_commands(out)}\n"
                  f"  the same command shows the result, or goes on where shards failed")
    return job_id


def submit_noted(work: Work, request: launch.Request, entry: dict[str, Any]) -> str:
    """Submit the array, with a note before and after; its id. One that is refused is not noted."""
    before = arrays_of(work.out)
    note(work.out, [*before, entry])
    try:
        shards = [launch.Shard(work.module, str(work.out), number, work.shards) for number in range(work.shards)]
        job_id = launch.submit_tasks(request, shards)
    except slurm.SlurmAwayError:
        raise  # there may be an array: the note stays, and the next call looks for it
    except slurm.SlurmError:
        note(work.out, before)
        raise
    note(work.out, [*before, {**entry, "job_id": job_id}])
    return job_id


def note(out: Path, arrays: Sequence[Mapping[str, Any]]) -> None:
    """Write submitted.json."""
    write_json(out / SUBMITTED, {"schema": SCHEMA, "submissions": list(arrays)})


def next_commands(out: Path) -> str:
    """What to type next."""
    name = shlex.quote(str(out))
    return f"next:\n  python jobs/status.py {name}\n  python jobs/logs.py {name} -f\n  python jobs/cancel.py {name}"


def active_array(request: launch.Request) -> str | None:
    """Id of the array that waits for or works on the request's folder; None where none does.

    Found by name and folder: a launcher may have died before it noted the id, which is made up for here. One that was
    cancelled by jobs/cancel.py counts as ended.
    """
    out = request.run.path
    *older, newest = arrays_of(out) or [{}]
    for name in {request.job_name, newest.get("job_name", request.job_name)}:
        for job in slurm.queued(name=name):
            if job.active and job.comment == str(out) and not (request.run.submit / job.id / CANCELLED).exists():
                array_id = slurm.base_id(job.id)
                if newest and newest["job_id"] is None:
                    note(out, [*older, {**newest, "job_id": array_id}])
                return array_id
    return None


def errors_before(out: Path) -> list[str]:
    """What the newest array said before it ended: each different error once, from the logs of its shards."""
    jobs = [(shard, str(submissions(shard)[-1]["job_id"])) for shard in shards_of(out)]
    said = [(slurm.base_id(job_id), line) for shard, job_id in jobs for line in errors_of(shard, job_id)]
    return [f"array {array_id} ended before with: {line}" for array_id, line in list(dict.fromkeys(said))[:MOST_ERRORS]]


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)
