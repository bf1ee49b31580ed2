"""Test finished few-shot cells under conditions: corruptions, other sets of images, conflicts of shape and texture.

    python sweeps/robustness.py runs/s-vith14-*-finetune-* --conditions imagenet-c,video
    python sweeps/robustness.py 's-vith14-*' --sets sketches=manifests/sketches.csv --dry-run
    python sweeps/robustness.py s-vith14-ssv2-10shot-seed0-finetune --conditions video --part 8 --retry failed --watch

A cell of this sweep is model x clips x group of conditions, and has a run folder of its own. A clip is decoded once for all
conditions of a cell. Cells that finetuned must have kept their weights (--set keep_weights=true); probes are fitted again on
their features. The same command again submits what is missing: cells that are done or active are left alone, cells that
failed are named and wait for --retry. Standard output is one array id a line; everything for people goes to standard error.
python analysis/robustness.py makes tables and figures, of --conditions time python analysis/time.py.

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
from sweeps.grid import robustness_flags
from sweeps.run.robustness_plan import resolve

MAKES_TABLES, OF_TIME = "analysis/robustness.py", "analysis/time.py"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return robustness_flags.make_parser(__doc__)


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
    command = ["python", "sweeps/robustness.py", *masked_argv(argv)]
    return carry_out(lambda: resolve(args, command, place, say), args,
                     OF_TIME if args.conditions == "time" else MAKES_TABLES)


if __name__ == "__main__":
    sys.exit(main())
