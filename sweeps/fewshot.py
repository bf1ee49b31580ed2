"""Finetune or probe pretrained models with few labelled clips per class: a grid of cells as Slurm arrays.

    python sweeps/fewshot.py --shots 2,10,50
    python sweeps/fewshot.py --checkpoints s-vith14,scratch --data ssv2 --shots 10,50 --method finetune,linear --dry-run
    python sweeps/fewshot.py --shots 10 --vary train.layer_decay=0.75,0.8 --max-parallel 16 --retry failed --watch

A cell is checkpoint x data set x shots (or shares of each class, --fractions) x seed x method x overrides, and has a run
folder of its own. The same command again submits what is missing: cells that are done or active are left alone, cells that
failed are named and wait for --retry. For pictures there is sweeps/objects.py. Standard output is one array id a line;
everything for people goes to standard error.

Exit codes: 0 ok, 1 cells have failed (with --wait or --watch: not all are done), 2 usage or configuration, 4 Slurm refused
or unreachable, 130 Ctrl-C (the jobs go on).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.experiment import choose_place, folder_problems
from jobs.place.launch_flags import RUNS, masked_argv
from jobs.place.scheduler import slurm
from jobs.place.speak import answer, say, with_origins
from jobs.standing.arrays import ARRAYS
from jobs.submit.budget import keep_to_budget
from jobs.submit.submission import one_launcher
from sweeps.grid import fewshot_flags
from sweeps.grid.states import RETRY, look
from sweeps.run.array_submission import scripts, submit, submit_collect, task_ids
from sweeps.run.clips_first import announce, clips_first
from sweeps.run.show import SHOWN, name_ended, records, rows, show
from sweeps.run.sweep_plan import Plan, resolve
from sweeps.run.watch import wait_for
from vidmae.runs.record import make_private_folder
from vidmae.settings.layers import ConfigError, flatten


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return fewshot_flags.make_parser(__doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="python jobs/status.py shows what was submitted")


def run(args: argparse.Namespace, argv: list[str], script: str = "sweeps/fewshot.py") -> int:
    """Resolve, check, show; then print the scripts, or submit and wait. `script` is what the user typed."""
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    command = ["python", script, *masked_argv(argv)]
    if args.then_collect and place.cluster != "slurm":
        raise ConfigError("--then-collect needs Slurm; on this machine: --wait, then python analysis/collect.py")
    if args.print_config:
        print(config_text(resolve(args, command, place, say)), end="")
        return 0
    return carry_out(lambda: resolve(args, command, place, say), args)


def carry_out(make_plan: Callable[[], Plan], args: argparse.Namespace, tables: str = "analysis/collect.py",
              finish: Callable[[Plan], None] = lambda _: None) -> int:
    """Show a grid and its scripts, or submit it and wait, as the flags say; the exit code.

    Args:
        make_plan: Finds out what is to be done; called once nobody else submits into the folder.
        args: The flags.
        tables: The script that makes the tables; empty: `finish` does.
        finish: Called at the end, also where nobody waited.
    """
    if args.dry_run:
        return dry_run(make_plan(), args)
    runs_dir = args.runs_dir.expanduser().absolute()
    if found := folder_problems(runs_dir):
        raise ConfigError(found[0])
    with one_launcher(make_private_folder(runs_dir / ARRAYS)):
        plan = make_plan()
        present(plan)
        announce(plan, args, say)
        keep_to_budget(plan.sweep.profile, runs_dir, plan.gpu_h, over=args.over_budget)
        arrays = submit_all(plan, args)
    name_ended(plan.ended)
    next_commands(plan, args, arrays, tables)
    code = wait(plan, args) if args.wait else 1 if plan.ended else 0
    finish(plan)
    return code


def config_text(plan: Plan) -> str:
    """Every setting of the first cell and its origin."""
    cell = plan.standings[0].cell
    return "\n".join([f"# cell 1 of {len(plan.standings)}: {cell.run_id}; vidmae/settings/README.md explains every key",
                      *with_origins(flatten(cell.config), cell.origins)]) + "\n"


def present(plan: Plan) -> None:
    """The grid and what it costs, on stderr."""
    for line in plan.classes.said:
        say(f"  {line}")
    show(rows(plan.standings, plan.costs, plan.submits, plan.unit))
    say(plan.unit.basis())


def dry_run(plan: Plan, args: argparse.Namespace) -> int:
    """The grid on stderr, the batch scripts on stdout; or all of it as one object."""
    present(plan)
    announce(plan, args, say)
    keep_to_budget(plan.sweep.profile, plan.sweep.runs_dir, plan.gpu_h, over=args.over_budget, dry_run=True)
    name_ended(plan.ended)
    texts = scripts(plan.sweep, plan.batches) if plan.batches else []
    if args.json:
        cells = records(plan.standings, plan.costs, plan.submits, plan.unit)
        print(json.dumps({"cluster": plan.place.cluster, "cells": cells, "scripts": texts}))
    else:
        print("\n".join(texts), end="\n" if texts else "")
    if texts and plan.place.cluster == "slurm" and not plan.place.unasked:
        say(f"start: {slurm.test_start(texts[0])}")
    say("dry run: nothing was written or submitted")
    return 0


def submit_all(plan: Plan, args: argparse.Namespace) -> list[str]:
    """Submit the arrays, and the job that collects; ids of the arrays, printed one a line."""
    done = []
    if plan.batches:
        done = submit(clips_first(plan, args, plan.sweep.command, say), plan.batches, say)
    if not done:
        kinds = Counter(s.kind for s in plan.standings)
        say(f"nothing to submit: {', '.join(f'{count} {kind}' for kind, count in kinds.items())}")
    arrays = [array.job_id for array in done]
    collect = ""
    if args.then_collect:
        collect = _collect(plan, args, arrays)
    if args.json:
        jobs = task_ids(done)
        cells: list[dict[str, Any]] = records(plan.standings, plan.costs, plan.submits, plan.unit)
        for cell, s in zip(cells, plan.standings, strict=True):
            cell["job_id"] = jobs.get(s.cell.signature, cell["job_id"])
        print(json.dumps({"cluster": plan.place.cluster, "arrays": arrays, "collect": collect or None, "cells": cells}),
              flush=True)
    else:
        for job_id in [*arrays, *([collect] if collect else [])]:
            print(job_id, flush=True)
    return arrays


def _collect(plan: Plan, args: argparse.Namespace, arrays: Sequence[str]) -> str:
    """Submit the job that makes the tables, after all arrays that cells of this grid wait or run in."""
    active = {slurm.base_id(s.state.job_id) for s in plan.standings if s.kind == "active" and s.state}
    waits_for = sorted({*arrays, *active}, key=int)
    if not waits_for:
        say("nothing to wait for, so no job was submitted that collects: python analysis/collect.py")
        return ""
    job_id, folder = submit_collect(plan.sweep, waits_for, args.out, plan.classes.trained.partition)
    say(f"submitted job {job_id}, which makes the tables in {args.out} once all cells have ended; log "
         f"{folder.submit / job_id / f'{job_id}_0_log.out'}")
    return job_id


def next_commands(plan: Plan, args: argparse.Namespace, arrays: Sequence[str], tables: str) -> None:
    """What to type next; `tables` is the script that makes the tables, if another one does."""
    where = "" if args.runs_dir == RUNS else f" --runs-dir {shlex.quote(str(args.runs_dir))}"
    again = shlex.join(_without_retry(plan.sweep.command))
    stop = f"\n  scancel {' '.join(arrays)}" if arrays and plan.place.cluster == "slurm" else ""
    table = f"\n  python {tables} {shlex.quote(str(args.runs_dir))}" if tables else ""
    say(f"next:\n  python jobs/status.py{where}\n  {again} --watch{table}{stop}")


def _without_retry(command: Sequence[str]) -> list[str]:
    """The command for looking on: it is to submit nothing that fails meanwhile."""
    dropped = ("--wait", "--watch", "--then-collect")
    words = [word for word in command if word not in dropped and not word.startswith("--retry=")]
    place = words.index("--retry") if "--retry" in words else len(words)
    return words[:place] + words[place + (2 if words[place + 1:place + 2] and words[place + 1] in RETRY else 1):]


def wait(plan: Plan, args: argparse.Namespace) -> int:
    """Wait for all cells; 0 if all are done."""
    standings, _ = look([s.cell for s in plan.standings], args.runs_dir.expanduser().absolute())
    try:
        standings = wait_for(standings)
    except KeyboardInterrupt:
        say("\nstopped watching; the cells go on")
        return 130
    ended = [s for s in standings if s.kind != "done"]
    say(f"{len(standings) - len(ended)} of {len(standings)} cells are done")
    for s in ended[:SHOWN]:
        say(f"{s.kind}: {s.run.path.name}: {s.reason}; log {s.state.log if s.state else '-'}")
    return 1 if ended else 0


if __name__ == "__main__":
    sys.exit(main())
