"""Data scaling: pretrain on growing amounts of data, learn few-shot tasks from each, and fit what more would buy.

    python sweeps/scaling.py --fractions 0.001,0.01,0.1,1 --repeats 3 --nodes 8 --dry-run
    python sweeps/scaling.py --data s --subset contiguous,random --labelled ssv2 --shots 10,50 --runs-dir runs/scaling
    python sweeps/scaling.py --data s,say --hours 1,10,100 --subset random --repeats 3 --dry-run
    python sweeps/scaling.py --fractions 0.1,0.5,1 --repeats 1 --cluster local --retry failed

One command submits everything: a pretraining job for every amount and repeat, the few-shot cells of each, which start once
it has succeeded, and a last job that makes tables and figures once all has ended. The same command again submits what is
missing: what is done or active is left alone, what failed is named and waits for --retry. On this machine one thing runs
after the other, and the command ends with the last. Resource flags are those of the pretraining jobs; a cell gets one GPU,
or what --fewshot says. Standard output is the id of every job that was submitted, one a line.

Exit codes: 0 ok, 1 runs or cells have failed, 2 usage or configuration, 3 the analysis says that results are missing (with
--wait), 4 Slurm refused or unreachable, 130 Ctrl-C (the jobs go on).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.launch_flags import Parser
from jobs.place.speak import answer
from sweeps.pretraining.carry_out import run
from sweeps.pretraining.matching import Match
from sweeps.pretraining.scaling_points import SCALING
from sweeps.pretraining.study_flags import add_pretraining, add_the_rest


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what is pretrained")
    amounts = what.add_mutually_exclusive_group()
    amounts.add_argument("--fractions", default="0.001,0.01,0.1,1", metavar="F,F,...",
                         help="shares of the data set (default: %(default)s)")
    amounts.add_argument("--hours", metavar="H,H,...", help="hours of it instead, as many videos as make them up")
    what.add_argument("--repeats", type=int, default=3, metavar="N",
                      help="runs of every amount; repeat r has the seed r, from 0 (default: %(default)s)")
    what.add_argument("--match", choices=get_args(Match), default="steps",
                      help="steps: each trains as many steps as the recipe gives for the whole, of several data sets the "
                           "first; epochs: as many epochs; paper: the released runs' epochs (default: %(default)s)")
    add_pretraining(what, subset="contiguous")
    add_the_rest(parser, method="finetune")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv), SCALING),
                  interrupted="what was started goes on, and the same command again attaches to it")


if __name__ == "__main__":
    sys.exit(main())
