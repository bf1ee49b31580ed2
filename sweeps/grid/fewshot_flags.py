"""The command line of a few-shot sweep, and of the same with other defaults: sweeps/objects.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.place.launch_flags import Parser, add_notify, add_over_budget, add_resources, add_runs_dir
from sweeps.grid.grid import PROBES
from sweeps.grid.states import RETRY
from vidmae.settings.command_line import with_whole_key

DEFAULT_RECIPE = "finetune_vith14"
METHODS = ("finetune", *PROBES)


def make_parser(description: str | None, *, recipe: str = DEFAULT_RECIPE, data: Sequence[str] = (),
                fractions: Sequence[float] = ()) -> argparse.ArgumentParser:
    """The command line.

    Args:
        description: Of the command.
        recipe: Default of --recipe.
        data: Default of --data; empty takes all known labelled sets.
        fractions: Default of --fractions; empty makes --shots or --fractions needed.
    """
    parser = Parser(description)
    what = parser.add_argument_group("what")
    amount = what.add_mutually_exclusive_group(required=not fractions)
    amount.add_argument("--shots", type=_numbers, metavar="K,K,...",
                        help="labelled clips per class, such as 2,10,50; `all` (or 0) takes all clips")
    amount.add_argument("--fractions", type=_shares, default=list(fractions), metavar="F,F,...",
                        help="or shares of the clips of each class, such as 0.01,0.02; 1 takes all clips"
                             + (f" (default: {','.join(map(str, fractions))})" if fractions else ""))
    what.add_argument("--checkpoints", type=comma_list, default=[], metavar="C,C,...",
                      help="runs, weights files (.safetensors, .pth), scratch, conv: a convolutional net (default: all "
                           "finished pretraining runs, and scratch)")
    what.add_argument("--data", type=comma_list, default=list(data), metavar="NAME,NAME,...",
                      help="labelled data sets: names, manifests (.csv) or a catalogue (.yaml) "
                           f"(default: {', '.join(data) or 'all known ones'})")
    what.add_argument("--seeds", type=_numbers, default=[0, 1, 2], metavar="N,N,...",
                      help="one draw of clips and one training each (default: 0,1,2)")
    what.add_argument("--method", type=_methods, default=["finetune"], metavar="M,M,...",
                      help=f"{', '.join(METHODS)} (default: finetune)")
    what.add_argument("--select", choices=("last", "holdout", "val-best"),
                      help="which state of a model is tested (default: the recipe's)")
    what.add_argument("--views", metavar="VIEWS", help="center, random, TxS such as 10x3, or frames16, which is for "
                                                         "models of single frames (default: the recipe's)")
    what.add_argument("--recipe", default=recipe, metavar="NAME|FILE",
                      help="recipe in vidmae/recipes, or a .yaml (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of all cells, such as data.flip_prob=0; may be repeated")
    what.add_argument("--vary", action="append", default=[], type=with_whole_key, metavar="KEY=V,V,...",
                      help="another axis: cells for every value of a setting; may be repeated")
    what.add_argument("--allow-fewer", action="store_true", help="take what there is of classes with fewer clips than shots")
    what.add_argument("--shot-list", type=Path, metavar="FILE",
                      help="take the clips of this list of `path, label` lines, for one data set and one number of shots")
    what.add_argument("--prepare", nargs="?", type=int, const=0, metavar="PX",
                      help="decode each clip once, before the cells start, and let all cells read small JPEG frames, kept "
                           "by content in runs/clips; PX is their short side (default: 256 for clips of 224 px)")
    add_resources(parser)
    control = add_run_control(parser, what="the grid, its", continues=True, after=True)
    control.add_argument("--then-collect", action="store_true",
                         help="submit a job that makes the tables once all cells have ended")
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--out", type=Path, default=Path("tables"), metavar="FOLDER",
                     help="where the tables of --then-collect go (default: %(default)s)")
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the array ids")
    out.add_argument("--print-config", action="store_true",
                     help="print every setting of the first cell and where it comes from; run nothing")
    return parser


def add_run_control(parser: Parser, *, what: str = "the cells, their", continues: bool = False, after: bool = False) -> Any:
    """The flags of every sweep of cells that say what becomes of its arrays.

    Args:
        parser: The command line.
        what: That --dry-run shows, beside the cost.
        continues: A cell that is submitted again goes on where it was.
        after: Cells may wait for pretraining runs.
    Returns:
        The group of flags.
    """
    control = parser.add_argument_group("run control")
    control.add_argument("--dry-run", action="store_true", help=f"show {what} cost and the scripts; write nothing")
    add_over_budget(control)
    control.add_argument("--max-parallel", type=positive, metavar="N",
                         help="cells of an array that run at a time (default: no limit; on this machine its GPUs, or 1)")
    control.add_argument("--retry", nargs="?", choices=RETRY, const="all",
                         help="submit again the cells that ended so, with no word all that ended"
                              + ("; they continue" if continues else ""))
    if after:
        control.add_argument("--after", type=comma_list, default=[], metavar="RUN,RUN,...",
                             help="pretraining runs that are queued or running: their cells start once they are done")
    control.add_argument("--wait", "--watch", action="store_true", help="wait for the cells, and show how far they are")
    add_notify(control)
    return control


def comma_list(text: str) -> list[str]:
    """Words between commas, each once."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty part; write for example a,b")
    return list(dict.fromkeys(words))


def _numbers(text: str) -> list[int]:
    words = ["0" if word == "all" else word for word in comma_list(text)]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or several, such as 2,10,50")
    return list(dict.fromkeys(map(int, words)))


def _shares(text: str) -> list[float]:
    try:
        shares = [float(word) for word in comma_list(text)]
    except ValueError:
        shares = []
    if not shares or not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share or several, above 0 and at most 1, such as 0.01,0.02")
    return list(dict.fromkeys(shares))


def _methods(text: str) -> list[str]:
    words = comma_list(text)
    if unknown := [word for word in words if word not in METHODS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no method; allowed: {', '.join(METHODS)}")
    return words


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)
