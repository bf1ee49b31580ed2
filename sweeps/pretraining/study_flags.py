"""The flags that commands share which pretrain a study, and the few-shot command that follows from them."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from jobs.place.experiment import Place
from jobs.place.launch_flags import add_notify, add_over_budget, add_resources, add_runs_dir
from jobs.place.prepare_fraction import add_reading
from jobs.pretrain import DEFAULT_RECIPE
from sweeps.grid import fewshot_flags
from sweeps.grid.states import RETRY
from vidmae.settings.command_line import with_whole_key
from vidmae.settings.layers import ConfigError

SHARED = ("profile", "partition", "account", "qos", "constraint", "exclude", "max_requeues")  # hold for cells, too
DECIDED = ("--checkpoints", "--after", "--then-collect", "--wait", "--watch", "--dry-run", "--json", "--cluster",
           "--runs-dir", "--out", "--retry", "--over-budget", "--notify")  # of sweeps/fewshot.py what a study decides


def add_pretraining(what: Any, *, subset: str) -> None:
    """What is pretrained, but for amounts and lengths.

    Args:
        what: A group of the parser.
        subset: Default of --subset.
    """
    what.add_argument("--subset", default=subset, metavar="S,S,...",
                      help="contiguous: the earliest, as in the paper; random: drawn with the repeat's seed; spread: evenly "
                           "over the age range; several are compared (default: %(default)s)")
    what.add_argument("--data", metavar="NAME|PATH,...",
                      help="data sets of the catalogue, manifests (.csv), folders or catalogues (.yaml); several are "
                           "compared at equal hours (default: the recipe's)")
    what.add_argument("--recipe", default=DEFAULT_RECIPE, metavar="NAME|FILE",
                      help="recipe in vidmae/recipes, or a .yaml (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of the recipe; may be repeated")
    what.add_argument("--name", help="first part of the runs' ids (default: the recipe's)")
    add_reading(what)


def add_the_rest(parser: argparse.ArgumentParser, *, method: str) -> None:
    """Cells, resources, run control and output.

    Args:
        parser: The command line.
        method: Default of --method.
    """
    cells = parser.add_argument_group("what is learned from few labelled clips", "as for python sweeps/fewshot.py")
    _add_cells(cells, method)
    add_resources(parser)
    control = parser.add_argument_group("run control")
    control.add_argument("--dry-run", action="store_true", help="show the runs, their cost and the scripts; write nothing")
    add_over_budget(control)
    control.add_argument("--max-parallel", type=fewshot_flags.positive, metavar="N",
                         help="pretraining jobs that run at a time (default: no limit; on this machine 1)")
    control.add_argument("--retry", nargs="?", choices=RETRY, const="all",
                         help="submit again the runs and cells that ended so, with no word all that ended; they continue")
    control.add_argument("--wait", action="store_true", help="wait for the last job (on this machine always)")
    add_notify(control)
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--manifests", type=Path, metavar="FOLDER",
                     help="where manifests of fractions go (default: beside the data set's)")
    out.add_argument("--out", type=Path, default=Path("tables"), metavar="FOLDER",
                     help="where tables and figures go (default: %(default)s)")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the job ids")


def _add_cells(group: argparse._ArgumentGroup, method: str) -> None:
    group.add_argument("--shots", default="10,50", metavar="K,K,...", help="labelled clips per class (default: %(default)s)")
    group.add_argument("--labelled", metavar="NAME,NAME,...", help="labelled data sets (default: all known ones)")
    group.add_argument("--seeds", default="0,1,2", metavar="N,N,...",
                       help="one draw of clips and one training each (default: %(default)s)")
    group.add_argument("--method", default=method, metavar="M,M,...", help="default: %(default)s")
    group.add_argument("--select", metavar="RULE", help="which state of a model is tested (default: the recipe's)")
    group.add_argument("--fewshot", default="", metavar="FLAGS",
                       help="further flags of sweeps/fewshot.py in quotes, such as \"--time 2:00:00 --views 10x3\"")


def fewshot_args(args: argparse.Namespace, place: Place) -> argparse.Namespace:
    """The few-shot command on the pretrained models. Cells get one GPU each: their resources are those of --fewshot, and of
    the flags here the ones that say where a job may run.

    Raises:
        ConfigError: --fewshot cannot be read, or has what this sweep decides.
    """
    words = ["--shots", args.shots, "--seeds", args.seeds, "--method", args.method, "--cluster", place.cluster,
             "--runs-dir", str(args.runs_dir), "--out", str(args.out)]
    words += ["--data", args.labelled] if args.labelled else []
    words += ["--select", args.select] if args.select else []
    words += ["--retry", args.retry] if args.retry else []
    words += ["--dry-run"] if args.dry_run else []
    words += ["--gpus-per-node", "0"] if args.gpus_per_node == 0 else []
    for flag in SHARED:
        value = getattr(args, flag)
        words += [f"--{flag.replace('_', '-')}={value}"] if value is not None else []
    words += [f"--sbatch={item}" for item in args.sbatch] + [f"--notify={way}" for way in args.notify or ()]
    try:
        more = shlex.split(args.fewshot)
    except ValueError as error:
        raise ConfigError(f"--fewshot {args.fewshot!r} cannot be read: {error}") from error
    if decided := [word for word in more if word.partition("=")[0] in DECIDED]:
        raise ConfigError(f"--fewshot has {decided[0]}, which this sweep decides itself")
    found: argparse.Namespace = fewshot_flags.make_parser(None).parse_args([*words, *more])
    return found
