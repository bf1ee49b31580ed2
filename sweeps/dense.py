"""Probe the patch features of models: do they carry masks and points through a video? As Slurm arrays.

    python sweeps/dense.py s-vith14 --dry-run
    python sweeps/dense.py s-vith14 say.pth --sets davis=data/DAVIS,tapvid=data/tapvid_davis.pkl,generated
    python sweeps/dense.py s-vith14 --set dense.clip=still --retry failed --watch

A cell is model x set, and has a run folder of its own. Random weights of every shape and controls are always among the
models: colours of patches, a feature that says nothing, labels that stay where they are, and the truth. The same command
again submits what is missing: cells that are done or active are left alone, cells that failed are named and wait for
--retry. The table of what is done is shown and written each time. Standard output is one array id a line; everything for
people goes to standard error.

Exit codes: 0 ok, 1 cells have failed (with --wait or --watch: not all are done), 2 usage or configuration, 4 Slurm refused
or unreachable, 130 Ctrl-C (the jobs go on).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.experiment import choose_place
from jobs.place.launch_flags import masked_argv
from jobs.place.scheduler import slurm
from jobs.place.speak import answer, say
from sweeps.fewshot import carry_out
from sweeps.run import dense_plan
from sweeps.run.sweep_plan import Plan
from vidmae.evaluate.dense.dense_table import write_table


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return dense_plan.make_parser(__doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="python jobs/status.py shows what was submitted")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, check, show; then print the scripts, or submit, wait, and show what is done."""
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    command = ["python", "sweeps/dense.py", *masked_argv(argv)]
    return carry_out(lambda: dense_plan.resolve(args, command, place, say), args, tables="",
                     finish=lambda plan: show_table(plan, args.out.expanduser()))


def show_table(plan: Plan, out: Path) -> None:
    """Show and write the table of the cells that are done now."""
    lines = dense_plan.finished(plan)
    if lines:
        shown, files = write_table(lines, out)
        say(f"\n{shown}{len(lines)} of {len(plan.standings)} cells, in {', '.join(map(str, files))}")
    if len(lines) < len(plan.standings):
        say("when the cells are done, the same command shows the table")


if __name__ == "__main__":
    sys.exit(main())
