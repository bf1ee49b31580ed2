"""The command line of a robustness sweep."""

from __future__ import annotations

import argparse
from pathlib import Path

from jobs.place.launch_flags import Parser, add_resources, add_runs_dir
from sweeps.grid.fewshot_flags import add_run_control, comma_list, positive
from vidmae.settings.command_line import with_whole_key


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(description)
    what = parser.add_argument_group("what")
    what.add_argument("cells", nargs="*", metavar="MODEL",
                      help="finished few-shot cells: ids, starts of ids, folders, or patterns such as 's-vith14-*'; "
                           "finetuned files (.safetensors, .pth), whose classes are the labels of --data")
    what.add_argument("--data", metavar="NAME|FILE.csv",
                      help="labelled clips that the conditions are applied to (default: the validation set of each cell)")
    what.add_argument("--conditions", metavar="C,C,...",
                      help="conditions such as gaussian_noise:3, or groups of them such as imagenet-c, video; `clean` is "
                           "always among them")
    what.add_argument("--part", type=positive, metavar="N",
                      help="conditions of a cell, at most (default: all of a group, which decodes each clip once)")
    what.add_argument("--sets", type=named, action="append", default=[], metavar="NAME=FILE.csv",
                      help="also test on these images or clips as they are; folders corruption/severity/class are told "
                           "apart; may be repeated")
    what.add_argument("--cues", type=named, action="append", default=[], metavar="NAME=FILE.csv",
                      help="the same for images of cue conflict: the label is the shape, the name says the texture, as in "
                           "cat4-elephant2.png")
    what.add_argument("--label-map", type=named, action="append", default=[], metavar="NAME=FILE.csv",
                      help="CSV with the columns label and class: which classes of the model stand for the labels of a "
                           "set, or of --data")
    what.add_argument("--own-classes", type=comma_list, default=[], metavar="NAME,...",
                      help="sets on which the model chooses among the set's own classes (always: imagenet-a, imagenet-r)")
    what.add_argument("--as-one", type=comma_list, default=[], metavar="NAME,...",
                      help="sets of --sets whose folders say nothing of conditions, such as parts called 1 to 5")
    what.add_argument("--set", action="append", default=[], type=with_whole_key, metavar="KEY=VALUE",
                      help="change a setting of all cells, such as evaluate.batch=64 or data.workers=8; may be repeated")
    add_resources(parser)
    add_run_control(parser)
    out = parser.add_argument_group("output")
    add_runs_dir(out)
    out.add_argument("--json", action="store_true", help="one JSON object on standard output instead of the array ids")
    parser.set_defaults(then_collect=False)
    return parser


def named(text: str) -> tuple[str, Path]:
    """A name and a file, from NAME=FILE."""
    name, equal, file = text.partition("=")
    if not equal or not name.strip() or not file.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FILE.csv")
    return name.strip(), Path(file.strip()).expanduser()
