"""A grid of pretraining runs: every combination of settings, learn few-shot tasks from each, and make the tables.

    python sweeps/pretrain.py --vary data.order=shuffled,age --vary data.clip=normal,frozen --repeats 3 --dry-run
    python sweeps/pretrain.py --vary model.t_patch_size=1,2 --match flops --repeats 1 --nodes 8 --partition gpu
    python sweeps/pretrain.py --data say --leave-out-children --repeats 1 --method linear,knn --dry-run
    python sweeps/pretrain.py --data s,kinetics-200h --hours 100 --repeats 3 --retry failed

A run is portion of data x combination x repeat; repeat r has the seed r. All runs see as much as the recipe as it is
(--match), and differ in what varies alone, which stands in their names: s-vith14-order.age-clip.frozen-r0. One command
submits everything: the runs, the few-shot cells and probes after each, those of random weights, and a last job that makes
the tables. The same command again submits what is missing: what is done or active is left alone, what failed is named and
waits for --retry. On this machine one thing runs after the other, and the command ends with the last. Resource flags are
those of the pretraining jobs; a cell gets one GPU, or what --fewshot says. Standard output is the id of every job that was
submitted, one a line.

Exit codes: 0 ok, 1 runs or cells have failed, 2 usage or configuration, 3 the tables say that results are missing (with
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
from sweeps.grid.fewshot_flags import positive
from sweeps.pretraining.carry_out import run
from sweeps.pretraining.grid_points import EVERY, GRID
from sweeps.pretraining.matching import GridMatch
from sweeps.pretraining.study_flags import add_pretraining, add_the_rest
from vidmae.settings.command_line import with_whole_key

MOST_RUNS = 100


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what is pretrained")
    what.add_argument("--vary", action="append", default=[], type=with_whole_key, metavar="KEY=V,V,...",
                      help="an axis: runs for every value of a setting of the recipe, or recipe=NAME,NAME; may be repeated")
    what.add_argument("--leave-out-children", nargs="?", const=EVERY, metavar="CHILD,CHILD,...",
                      help="another axis: a run with everybody, and one without each of these children, or of all that the "
                           "manifest knows; short for --vary data.without_child=null,...")
    what.add_argument("--hours", metavar="H,H,...",
                      help="train on so many hours of each data set, as many videos as make them up (default: all)")
    what.add_argument("--repeats", type=int, default=3, metavar="N",
                      help="runs of every combination; repeat r has the seed r, from 0 (default: %(default)s)")
    what.add_argument("--match", choices=get_args(GridMatch), default="steps",
                      help="what all runs have as much of as the recipe on the first data set: steps, clips, frames, FLOPs "
                           "of training; with a single pass among them, as it has; none: each as long as its own settings "
                           "say (default: %(default)s)")
    what.add_argument("--max-runs", type=positive, default=MOST_RUNS, metavar="N",
                      help="refuse a grid of more pretraining runs (default: %(default)s)")
    add_pretraining(what, subset="random")
    parser.set_defaults(fractions="1")  # shares of a data set are for sweeps/scaling.py
    add_the_rest(parser, method="finetune,linear")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv), GRID),
                  interrupted="what was started goes on, and the same command again attaches to it")


if __name__ == "__main__":
    sys.exit(main())
