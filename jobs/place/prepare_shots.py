"""`python jobs/prepare.py shots`: k-shot subsets of a labelled manifest (vidmae/labels/shots.py)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from jobs.place.catalogue import environment_catalogue, find_data
from vidmae.labels.shot_list import listed_shots
from vidmae.labels.shots import ShotsError, draw_fractions, draw_shots, rows_by_class, shots_path, write_shots
from vidmae.labels.splits import read_labelled

HELP = """Draw k-shot subsets: exactly k clips of every class, the few among the many, the same on every machine. Or shares
of every class, rounded, one clip at least.

    python jobs/prepare.py shots ssv2 --shots 2,10,50
    python jobs/prepare.py shots imagenet --fractions 0.01,0.02
    python jobs/prepare.py shots ssv2 --shots 10 --shot-list released/ssv2-10shot/train.csv

Rows of one class with the same content count once. Each subset is written beside the manifest as NAME.shotsK-seedS.json
(NAME.shotsK-list.json where a list names the clips, NAME.shots2pct-seedS.json for a share of 2 %).
"""


def add_options(p: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = p.add_argument_group("what")
    what.add_argument("manifest", metavar="MANIFEST", help="manifest with labels, or name of a data set")
    amount = what.add_mutually_exclusive_group(required=True)
    amount.add_argument("--shots", type=_numbers, default=[], metavar="K,K,...", help="clips per class, such as 2,10,50")
    amount.add_argument("--fractions", type=_shares, default=[], metavar="F,F,...",
                        help="or shares of the clips of each class, above 0 and below 1, such as 0.01,0.02")
    what.add_argument("--seed", type=int, help="another seed draws other clips (default: 0)")
    what.add_argument("--allow-fewer", action="store_true", help="take what there is of a class with fewer than K clips")
    what.add_argument("--shot-list", type=Path, metavar="FILE", help="take the clips of this list of `path, label` lines")
    out = p.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="FOLDER", help="default: the manifest's folder")


def run(args: argparse.Namespace) -> int:
    """Make k-shot subsets and say what came of it."""
    path = find_data(args.manifest, args.manifest, environment_catalogue()).manifest
    labelled = read_labelled(path, paths=bool(args.shot_list))
    if args.shot_list and args.seed is not None:
        raise ShotsError(f"--seed {args.seed} draws clips and --shot-list names them; leave out one of the two")
    if args.shot_list and len(args.shots) != 1:
        raise ShotsError(f"--shots has {len(args.shots)} numbers; give the one that the list was made for (--shot-list)")
    subsets = [listed_shots(labelled, args.shot_list, args.shots[0], allow_fewer=args.allow_fewer)] if args.shot_list else \
        draw_fractions(labelled, args.fractions, args.seed or 0) if args.fractions else \
        draw_shots(labelled, args.shots, args.seed or 0, allow_fewer=args.allow_fewer)
    repeated = len(labelled) - sum(map(len, rows_by_class(labelled).values()))
    if repeated:
        print(f"{repeated} rows repeat a clip of their class and count once", file=sys.stderr)
    for subset in subsets:
        out = shots_path((args.out or path.parent).absolute() / path.name, subset.shots, subset.seed,
                         subset.fraction)
        write_shots(out, subset)
        amount = subset.amount if subset.fraction else f"{subset.shots} shots"
        print(f"{amount}: {len(subset)} clips of {len(subset.clips)} classes, {subset.content_sha256[:8]}"
              + (f"; {len(subset.short)} classes have fewer" if subset.short else ""), file=sys.stderr)
        print(out)
    return 0


def _shares(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share or several, such as 0.01,0.02") from None


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or several, such as 2,10,50")
    return [int(word) for word in words]
