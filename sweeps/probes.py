"""Ask frozen models what they know of time: order of two halves, arrow of time, speed, which of two clips comes first.

    python sweeps/probes.py s-vith14 scratch --videos s-val --probes halves,arrow,speed,first --dry-run
    python sweeps/probes.py --videos s-val --seeds 0,1,2 --watch
    python sweeps/probes.py s-vith14 say.pth --videos s-val,a-val --set temporal.windows=500 --retry failed

A probe is a logistic regression on frozen features. It learns on some recordings, and is tested on others. Beside each model
stand controls that cannot see time. A cell of this sweep is checkpoint x recordings x seed, and has a run folder of its own;
it asks all probes, so that each clip is decoded once. The same command again submits what is missing: cells that are done or
active are left alone, cells that failed are named and wait for --retry. No labels are needed. Standard output is one array
id a line; everything for people goes to standard error. python analysis/time.py makes the table.

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
from sweeps.run import probes_plan

MAKES_TABLES = "analysis/time.py"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return probes_plan.make_parser(__doc__)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="python jobs/status.py shows what was submitted")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, check, show; then print the scripts, or submit and wait."""
    place = choose_place(args)
    say(f"cluster: {place.cluster} ({place.why})")
    slurm.leave_surrounding_job()
    command = ["python", "sweeps/probes.py", *masked_argv(argv)]
    return carry_out(lambda: probes_plan.resolve(args, command, place, say), args, MAKES_TABLES)


if __name__ == "__main__":
    sys.exit(main())
