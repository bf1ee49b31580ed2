"""Pretrain a video MAE: one command from a recipe and a data set to a job on a cluster, or on this machine.

    python jobs/pretrain.py --nodes 8 --partition gpu
    python jobs/pretrain.py --recipe demo --data manifests/demo.csv --cluster local --follow
    python jobs/pretrain.py --recipe pretrain_say_vith14 --nodes 4 --time 2-00:00 --dry-run > job.sh

A job that is preempted, reaches its time limit or loses a node saves what it can and is requeued by itself. The same
command again attaches to it while it is active and says so once it is done; --retry continues a run that failed from its
newest checkpoint. Standard output is the job id alone; everything for people goes to standard error.

Exit codes: 0 ok, 1 the job failed (--wait, --follow), 2 usage or configuration, 4 Slurm refused or unreachable,
130 Ctrl-C (the job goes on).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.experiment import Experiment, Place, choose_place, problems, resolve, warnings
from jobs.place.launch_flags import RUNS, Parser, add_notify, add_over_budget, add_resources, add_runs_dir, masked_argv
from jobs.place.scheduler import slurm
from jobs.place.speak import answer, fail, say, with_origins
from jobs.standing.follow import outcome, wait_for
from jobs.standing.runs import log_path
from jobs.submit import launch
from jobs.submit.budget import keep_to_budget, planned_gpu_h
from jobs.submit.derived_table import show, table
from jobs.submit.submission import make_request, standing, submit_once
from vidmae.settings.command_line import with_whole_key
from vidmae.settings.layers import flatten

DEFAULT_RECIPE = "pretrain_s_vith14"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    what.add_argument("--recipe", default=DEFAULT_RECIPE, metavar="NAME|FILE",
                      help="recipe in vidmae/recipes, or a .yaml (default: %(default)s)")
    what.add_argument("--data", metavar="NAME|PATH",
                      help="data set of the catalogue, manifest (.csv), folder or catalogue (.yaml) (default: the recipe's)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of the recipe, such as train.global_batch=128 (short: batch=128); may be "
                           "repeated")
    what.add_argument("--name", help="first part of the run's id (default: the recipe's)")
    add_resources(parser)
    control = parser.add_argument_group("run control")
    control.add_argument("--dry-run", action="store_true", help="print the batch script and the numbers; write nothing")
    control.add_argument("--wait", action="store_true", help="wait for the job and leave with its exit code")
    control.add_argument("--follow", action="store_true", help="wait, and show rank 0's log; Ctrl-C leaves the job alone")
    control.add_argument("--retry", action="store_true", help="submit again a run that failed; it continues")
    control.add_argument("--checks", choices=("off", "warn", "enforce"),
                         help="before the first step the nodes check themselves: name what is wrong or slow (warn, the "
                              "default), or requeue the job without such nodes, too (enforce)")
    add_over_budget(control)
    control.add_argument("--stage", metavar="DIR",
                         help="copy archives of prepared footage to this folder on a disk of each node, such as '$TMPDIR', "
                              "while training reads them (--set data.stage_gib bounds it)")
    add_notify(control)
    control.add_argument("--profile-steps", type=int, metavar="STEPS",
                         help="rank 0 records so many steps with torch's profiler, to profile/ in the run folder")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the job id")
    out.add_argument("--print-config", action="store_true", help="print every setting and where it comes from; run nothing")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="python jobs/status.py shows whether a job was submitted")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, check, show; then print the script, or submit and wait."""
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    experiment = resolve(args, place)
    if args.print_config:
        print(config_text(experiment), end="")
        return 0
    if experiment.run.result.exists() and not args.dry_run:
        return submit(experiment, args, argv)  # which says that it is done
    for line in experiment.said:
        say(f"  {line}")
    found = problems(experiment)
    for problem in found:
        fail(problem, 2)
    if found:
        return 2
    show(table(experiment))
    for warning in warnings(experiment):
        say(f"warning: {warning}")
    if args.dry_run:
        keep_to_budget(experiment.profile, experiment.run.path.parent, planned_gpu_h(experiment), over=args.over_budget,
                       dry_run=True)
        return dry_run(experiment, place)
    return submit(experiment, args, argv)


def dry_run(e: Experiment, place: Place) -> int:
    """The exact batch script on stdout, and when Slurm would start it."""
    script = launch.batch_script(make_request(e), place.cluster)
    print(script, end="" if script.endswith("\n") else "\n")
    if place.cluster == "slurm" and not place.unasked:
        say(f"start: {slurm.test_start(script)}")
    say(f"dry run: nothing was written or submitted{standing(e.run)}")
    return 0


def submit(e: Experiment, args: argparse.Namespace, argv: list[str]) -> int:
    """Submit or attach, say how to go on, and wait if asked."""
    done = submit_once(e, retry=args.retry, command=["python", "jobs/pretrain.py", *masked_argv(argv)],
                       before=lambda: keep_to_budget(e.profile, e.run.path.parent, planned_gpu_h(e), over=args.over_budget))
    log = log_path(e.run, done.job_id, 0) if done.job_id else None
    if args.json:
        print(json.dumps({"job_id": done.job_id, "run": str(e.run.path), "state": done.kind, "cluster": e.place.cluster,
                          "log": str(log) if log else None}), flush=True)
    elif done.kind != "done":
        print(done.job_id, flush=True)
    if done.kind == "done":
        say(f"done before: {e.run.result}")
        return 0
    say(f"{'submitted' if done.kind == 'submitted' else 'already active, attached to'} job {done.job_id}\n"
         f"  run  {e.run.path}\n  log  {log}")
    if done.kind == "attached" and args.notify:
        say("--notify: the job that is active tells whom it was submitted for")
    if not (args.wait or args.follow):
        say(next_commands(e, args))
        return 0
    return wait(e, done.job_id, show=args.follow, attached=done.kind == "attached")


def wait(e: Experiment, job_id: str, *, show: bool, attached: bool) -> int:
    """Wait for the job; its exit code."""
    try:
        code, line = outcome(wait_for(e.run, show=show, last_lines=20 if attached else None))
    except KeyboardInterrupt:
        say(f"\nstopped watching; job {job_id} goes on. To stop it: python jobs/cancel.py {shlex.quote(str(e.run.path))}")
        return 130
    say(line)
    return code


def next_commands(e: Experiment, args: argparse.Namespace) -> str:
    """What to type next."""
    where = "" if args.runs_dir == RUNS else f" --runs-dir {shlex.quote(str(args.runs_dir))}"
    name = shlex.quote(e.run.path.name) + where
    curves = f"\n  tensorboard --logdir {shlex.quote(str(e.run.path / 'tensorboard'))}" if e.config.log.tensorboard else ""
    return f"next:\n  python jobs/status.py {name}\n  python jobs/logs.py {name} -f\n  python jobs/cancel.py {name}{curves}"


def config_text(e: Experiment) -> str:
    """Every value with its origin; YAML, with the origins as comments."""
    lines = ["# the experiment: vidmae/settings/README.md explains every key"]
    lines += with_origins(flatten(e.config), e.origins)
    lines.append("# what is asked of Slurm: jobs/place/profiles.py explains every key")
    r = e.resources
    values = {**flatten(e.profile), "partition": r.partition, "gpus_per_node": r.gpus_per_node, "mem_gib": r.mem_mib / 1024,
              "tasks_per_node": r.tasks_per_node, "cpus_per_task": r.cpus_per_task,
              "signal_delay_s": r.signal_delay_s, "time": slurm.format_time(r.time_min) if r.time_min else ""}
    shown = {k: "(not shown)" if k.startswith("env.") or (k == "notify" and v) else v for k, v in values.items()}
    return "\n".join(lines + with_origins(shown, e.profile_origins)) + "\n"


if __name__ == "__main__":
    sys.exit(main())
