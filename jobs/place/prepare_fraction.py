"""`python jobs/prepare.py fraction`: fractions of a recording history as manifests (vidmae/footage/history.py)."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import date
from pathlib import Path
from typing import Any, get_args

from jobs.place.catalogue import environment_catalogue, find_data
from vidmae.footage.history import (
    Choice,
    FractionError,
    History,
    Subset,
    fraction_path,
    parse_hours,
    parse_share,
    read_history,
    write_fraction,
)
from vidmae.footage.manifest import Summary
from vidmae.footage.recordings import NAMINGS, SAYCAM

HELP = """Make manifests of fractions of a recording history, for data scaling; the smaller ones lie within the larger ones.

    python jobs/prepare.py fraction s --fractions 0.001,0.01,0.1
    python jobs/prepare.py fraction s --fractions 0.001,0.01,0.1 --subset random --seed 1
    python jobs/prepare.py fraction s --hours 1,10,100 --subset spread --born 2012-01-01

A share is ceil(n * share) of the n videos, each content counted once; hours are as many videos as make them up.
Each fraction is written as NAME-SHARE-SUBSET.csv (NAME-10h-..., and ...-seedN for random); train on it with --data NAME-...
"""
SUBSET_HELP = ("contiguous: the first by file name, the earliest, as in the paper; random: recordings in a drawn order; "
               "spread: evenly over the age range (default: %(default)s)")


def add_options(p: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = p.add_argument_group("what")
    what.add_argument("manifest", metavar="MANIFEST", help="manifest, or name of a data set")
    what.add_argument("--fractions", type=_words, default=[], metavar="F,F,...", help="shares, such as 0.001,0.01,0.1")
    what.add_argument("--hours", type=_words, default=[], metavar="H,H,...", help="hours, such as 1,10,100")
    what.add_argument("--subset", choices=get_args(Subset), default="contiguous", help=SUBSET_HELP)
    what.add_argument("--seed", type=int, metavar="N", help="of --subset random; another seed draws others (default: 0)")
    add_reading(what)
    p.add_argument_group("output").add_argument("--out", type=Path, metavar="FOLDER", help="default: the manifest's folder")


def add_reading(what: Any) -> None:
    """The flags that say how names are read."""
    what.add_argument("--names", dest="pattern", type=_naming, metavar="|".join(NAMINGS), default=argparse.SUPPRESS,
                      help="a known way of naming (default: saycam); what the manifest knows (--about) goes before it")
    what.add_argument("--pattern", default=SAYCAM, metavar="REGEX",
                      help="how names are read: a regular expression with the groups recording and, as there are, child, "
                           "date, time, part (default: SAYCam's, S_20130417_0626_01_segment12.mp4)")
    what.add_argument("--born", type=_births, default={}, metavar="DATE",
                      help="the child's date of birth, 2012-01-01, or S=2012-01-01,A=... for several; else ages count from "
                           "the child's first recording")


def run(args: argparse.Namespace) -> int:
    """Write every fraction that was asked for; standard output is their paths."""
    amounts = [*map(parse_share, args.fractions), *map(parse_hours, args.hours)]
    if not amounts:
        raise FractionError("nothing is asked for: give --fractions 0.001,0.01,0.1 or --hours 1,10 or both")
    if args.seed is not None and (args.subset != "random" or args.seed < 0):
        raise FractionError(f"--seed {args.seed} is not allowed: 0 or more, and with --subset random only")
    history = read_history(find_data(args.manifest, args.manifest, environment_catalogue()).manifest,
                           Choice(args.subset, args.seed, args.pattern, args.born))
    if history.repeated:
        print(f"{history.repeated} of {history.whole.videos} rows repeat the content of another and are left out",
              file=sys.stderr)
    for amount in {amount.text: amount for amount in amounts}.values():
        path = fraction_path(history.path, amount, history.choice)
        out = (args.out or history.path.parent).absolute() / path.name
        print(describe(amount.text, write_fraction(out, history, amount), history), file=sys.stderr)
        print(out)
    return 0


def describe(amount: str, summary: Summary, history: History) -> str:
    """What a fraction holds, on one line, without a name of a file."""
    said = summary.fraction or {}
    words = [f"{amount}: {summary.videos} of {said['of_videos']} videos", f"{summary.hours:.2f} of {said['of_hours']:.2f} h"]
    if said["recordings"]:
        words.append(f"{said['recordings']} recordings")
    if said["age_days"]:
        words.append(f"{said['days']} recording days, {said['age_days'][0]:.0f} to {said['age_days'][1]:.0f} days since "
                     f"{said['age_since']}")
    everyone = {part.child for part in history.parts if part}
    if said["children"] and len(said["children"]) < len(everyone):
        words.append(f"{len(said['children'])} of {len(everyone)} children only")
    return ", ".join([*words, summary.content_sha256[:8]])


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _naming(text: str) -> str:
    """The pattern of a known way of naming."""
    if text not in NAMINGS:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(NAMINGS)}; --pattern takes any other way")
    return NAMINGS[text]


def _births(text: str) -> dict[str, date]:
    """Child to date of birth; one date alone has the key ""."""
    found = {}
    for word in _words(text):
        match = re.fullmatch(r"(?:(\w+)=)?(\d{4}-\d\d-\d\d)", word)
        try:
            if not match:
                raise ValueError
            found[match[1] or ""] = date.fromisoformat(match[2])
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{word!r} is not a date such as 2012-01-01 or S=2012-01-01") from error
    return found
