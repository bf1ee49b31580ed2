"""`python jobs/prepare.py check`: whether a training and a validation manifest fit each other (vidmae/labels/splits.py)."""

from __future__ import annotations

import argparse
import sys

from jobs.place.catalogue import environment_catalogue, find_data
from vidmae.labels.splits import check_apart, read_labelled

HELP = """Check that no recording is in both of two manifests, by content, and that both number their classes alike.

    python jobs/prepare.py check ssv2 ssv2-val
"""


def add_options(p: argparse.ArgumentParser) -> None:
    """The arguments of the verb."""
    p.add_argument("train", metavar="TRAIN", help="manifest, or name of a data set")
    p.add_argument("val", metavar="VAL", help="manifest, or name of a data set")


def run(args: argparse.Namespace) -> int:
    """Compare two manifests and say that they fit."""
    train, val = (read_labelled(find_data(name, name, environment_catalogue()).manifest) for name in (args.train, args.val))
    check_apart(train, val)
    print(f"{len(train)} videos to train on and {len(val)} to validate on share no recording; {len(val.classes)} classes",
          file=sys.stderr)
    return 0
