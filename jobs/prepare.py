"""Prepare data, once, before training: `manifest` lists and checks videos, `check` compares the manifests of training and
validation, `shots` draws k clips of every class, `fraction` takes a part of a recording history. `VERB --help` says more.

    python jobs/prepare.py manifest /data/headcam/S --name s
    python jobs/prepare.py check ssv2 ssv2-val
    python jobs/prepare.py shots ssv2 --shots 2,10,50
    python jobs/prepare.py fraction s --fractions 0.001,0.01,0.1
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place import prepare_fraction
from jobs.place.catalogue import environment_catalogue, find_data
from vidmae.footage.history import FractionError
from vidmae.footage.manifest import AUTO, Check, Manifest, ManifestError, Summary, other_files, unreadable_path
from vidmae.footage.manifest_build import build
from vidmae.footage.open_video import DECODERS, candidates
from vidmae.footage.recordings import RecordingsError
from vidmae.footage.verify import CLIP_S
from vidmae.labels.shot_list import listed_shots
from vidmae.labels.shots import ShotsError, draw_shots, rows_by_class, shots_path, write_shots
from vidmae.labels.sources import count_note, find_labelled
from vidmae.labels.splits import check_apart, read_labelled
from vidmae.ranks.local_program import progress
from vidmae.settings.layers import ConfigError

MANIFEST_HELP = """Make a manifest: the checked list of the videos of a data set.

    python jobs/prepare.py manifest /data/headcam/S --name s
    python jobs/prepare.py manifest train.csv --root /data/ssv2 --name ssv2 --workers 16
    python jobs/prepare.py manifest clips/ --name quick --no-verify
    python jobs/prepare.py manifest /data/k700/val --labels folders --name kinetics-val
    python jobs/prepare.py manifest something-something-v2-train.json --root /data/ssv2 --name ssv2

SOURCE is a folder (.mp4 .mkv .webm .avi .mov at any depth), a list of `path, label` or `path label` lines, a label file of
Something-Something-V2 (.json), or a video. Every file is decoded, and each gets the decoder that reads it rightly; what no
decoder reads rightly is listed in NAME.unreadable.csv with the reason. A second call looks at new and changed files only,
and goes on where a call was stopped.
"""
CHECK_HELP = """Check that no recording is in both of two manifests, by content, and that both number their classes alike.

    python jobs/prepare.py check ssv2 ssv2-val
"""
SHOTS_HELP = """Draw k-shot subsets: exactly k clips of every class, the few among the many, the same on every machine.

    python jobs/prepare.py shots ssv2 --shots 2,10,50
    python jobs/prepare.py shots ssv2 --shots 10 --shot-list released/ssv2-10shot/train.csv

Rows of one class with the same content count once. Each subset is written beside the manifest as NAME.shotsK-seedS.json
(NAME.shotsK-list.json where a list names the clips).
"""


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _manifest_options(_verb(verbs, "manifest", manifest, "list and check the videos of a data set", MANIFEST_HELP))
    p = _verb(verbs, "check", check, "compare the manifests of training and validation", CHECK_HELP)
    p.add_argument("train", metavar="TRAIN", help="manifest, or name of a data set")
    p.add_argument("val", metavar="VAL", help="manifest, or name of a data set")
    _shots_options(_verb(verbs, "shots", shots, "draw k clips of every class", SHOTS_HELP))
    prepare_fraction.add_options(_verb(verbs, "fraction", prepare_fraction.run, "take a part of a recording history",
                                       prepare_fraction.HELP))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 done, 2 the source cannot be used, 3 not one readable video."""
    args = make_parser().parse_args(argv)
    try:
        return int(args.run(args))
    except (ManifestError, ShotsError, FractionError, RecordingsError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror} (change --out)", file=sys.stderr)
        return 2


def _verb(verbs: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, description: str,
          ) -> argparse.ArgumentParser:
    p: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=description,
                                                  formatter_class=argparse.RawDescriptionHelpFormatter)
    p.set_defaults(run=run)
    return p


def _manifest_options(p: argparse.ArgumentParser) -> None:
    what = p.add_argument_group("what")
    what.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folder, list, label file or video")
    what.add_argument("--root", type=Path, help="what relative paths of a list are relative to, and where the videos of a "
                                                "label file lie (default: its folder)")
    what.add_argument("--labels", choices=("folders",), help="SOURCE/CLASS/VIDEO: the folders' names are the classes")
    what.add_argument("--decoder", choices=(AUTO, *DECODERS), default=AUTO,
                      help="auto: each file gets the first of these that reads it rightly; another lists what it reads "
                           "wrongly as unreadable (default: %(default)s)")
    what.add_argument("--no-verify", action="store_true", help="read one frame of each file instead of all")
    control = p.add_argument_group("run control")
    control.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    control.add_argument("--time-limit-s", type=float, default=600.0,
                         help="seconds for one file and decoder before it is killed (default: %(default)g)")
    out = p.add_argument_group("output")
    out.add_argument("--name", help="name of the data set (default: the source's name)")
    out.add_argument("--out", type=Path, help="the csv to write (default: manifests/NAME.csv)")
    out.add_argument("--show-names", action="store_true", help="show the names of unreadable files; they may be private")


def _shots_options(p: argparse.ArgumentParser) -> None:
    what = p.add_argument_group("what")
    what.add_argument("manifest", metavar="MANIFEST", help="manifest with labels, or name of a data set")
    what.add_argument("--shots", type=_numbers, required=True, metavar="K,K,...", help="clips per class, such as 2,10,50")
    what.add_argument("--seed", type=int, help="another seed draws other clips (default: 0)")
    what.add_argument("--allow-fewer", action="store_true", help="take what there is of a class with fewer than K clips")
    what.add_argument("--shot-list", type=Path, metavar="FILE", help="take the clips of this list of `path, label` lines")
    out = p.add_argument_group("output")
    out.add_argument("--out", type=Path, metavar="FOLDER", help="default: the manifest's folder")


def _numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or several, such as 2,10,50")
    return [int(word) for word in words]


def manifest(args: argparse.Namespace) -> int:
    """Build one manifest and say what came of it."""
    if args.workers < 1 or args.time_limit_s <= 0:
        raise ManifestError(f"--workers {args.workers} must be 1 or more, --time-limit-s {args.time_limit_s:g} more than 0")
    name = args.name or args.sources[0].resolve().stem
    path = (args.out or Path("manifests") / f"{name}.csv").absolute()
    if path.suffix != ".csv":
        raise ManifestError(f"--out {path} must end in .csv")
    by_folder = args.labels == "folders"
    sources = [found for source in args.sources for found in find_labelled(source, args.root, label_folders=by_folder)]
    console = Console(stderr=True)
    per_class = sorted(Counter(source.label for source in sources if source.label).values())
    if per_class:
        console.print(f"labels: {len(per_class)} classes of {per_class[0]} to {per_class[-1]} videos", highlight=False)
    if skipped := other_files(args.sources):
        console.print(f"{sum(skipped.values())} files of other kinds are not looked at: "
                      + ", ".join(f"{count} {kind or 'without an ending'}" for kind, count in skipped.most_common(5)),
                      style="yellow", highlight=False)
    how = "one frame of each of" if args.no_verify else "checking"
    console.print(f"{how} {len(sources)} files with {' or '.join(candidates(args.decoder))} in {args.workers} processes",
                  highlight=False)
    try:
        with progress(console, "files") as tell:
            summary, reused = build(sources, path, Check(args.decoder, not args.no_verify), workers=args.workers,
                                    time_limit_s=args.time_limit_s, progress=tell)
    except KeyboardInterrupt:
        console.print("\nstopped; what was checked so far is kept: the same command goes on", highlight=False)
        return 130
    _say_totals(console, path, summary, reused)
    if summary.unreadable:
        _say_unreadable(console, path, args.show_names)
        if args.decoder != AUTO:
            console.print("  --decoder auto may read more of them", highlight=False)
    if note := count_note(path.stem, summary):
        console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)
    following = f"sweeps/fewshot.py --data {path} --shots 10" if summary.classes else f"jobs/pretrain.py --data {path}"
    console.print(f"manifest: {path}\nnext: python {following} --dry-run", highlight=False, soft_wrap=True)
    print(path)
    return 0 if summary.videos else 3


def _say_totals(console: Console, path: Path, summary: Summary, reused: int) -> None:
    """What there is, and what of it a user may not expect."""
    console.print(f"{summary.videos} videos, {summary.hours:.2f} h, {summary.bytes / 2**30:.2f} GiB"
                  + (f", {summary.classes} classes" if summary.classes else "")
                  + (f" ({reused} unchanged since the last call)" if reused else ""), highlight=False)
    console.print("read by " + ", ".join(f"{name}: {count}" for name, count in summary.decoders.items()), highlight=False)
    if not summary.videos:
        return
    videos = Manifest.read(path)
    short = int((videos.seconds < CLIP_S).sum())
    if copies := len(videos) - len(set(videos.content.tolist())):
        console.print(f"note: {copies} videos are copies of others in the list, by content", style="yellow", highlight=False)
    if short:
        console.print(f"note: {short} videos are shorter than the paper's clips of {CLIP_S:.2f} s: a clip of them repeats "
                      "the last frame", style="yellow", highlight=False, soft_wrap=True)


def check(args: argparse.Namespace) -> int:
    """Compare two manifests and say that they fit."""
    train, val = (read_labelled(find_data(name, name, environment_catalogue()).manifest) for name in (args.train, args.val))
    check_apart(train, val)
    print(f"{len(train)} videos to train on and {len(val)} to validate on share no recording; {len(val.classes)} classes",
          file=sys.stderr)
    return 0


def shots(args: argparse.Namespace) -> int:
    """Make k-shot subsets and say what came of it."""
    path = find_data(args.manifest, args.manifest, environment_catalogue()).manifest
    labelled = read_labelled(path, paths=bool(args.shot_list))
    if args.shot_list and args.seed is not None:
        raise ShotsError(f"--seed {args.seed} draws clips and --shot-list names them; leave out one of the two")
    if args.shot_list and len(args.shots) != 1:
        raise ShotsError(f"--shots has {len(args.shots)} numbers; give the one that the list was made for (--shot-list)")
    subsets = [listed_shots(labelled, args.shot_list, args.shots[0], allow_fewer=args.allow_fewer)] if args.shot_list else \
        draw_shots(labelled, args.shots, args.seed or 0, allow_fewer=args.allow_fewer)
    repeated = len(labelled) - sum(map(len, rows_by_class(labelled).values()))
    if repeated:
        print(f"{repeated} rows repeat a clip of their class and count once", file=sys.stderr)
    for subset in subsets:
        out = shots_path((args.out or path.parent).absolute() / path.name, subset.shots, subset.seed)
        write_shots(out, subset)
        print(f"{subset.shots} shots: {len(subset)} clips of {len(subset.clips)} classes, {subset.content_sha256[:8]}"
              + (f"; {len(subset.short)} classes have fewer" if subset.short else ""), file=sys.stderr)
        print(out)
    return 0


def _say_unreadable(console: Console, path: Path, show_names: bool) -> None:
    import csv

    with unreadable_path(path).open(encoding="utf-8", errors="surrogateescape", newline="") as f:
        rows = list(csv.DictReader(f))
    console.print(f"{len(rows)} files left out, listed in {unreadable_path(path)}:", style="yellow", highlight=False,
                  soft_wrap=True)
    lines = [f"{row['path']}: {row['reason']}" for row in rows] if show_names else [
        f"{count} x {reason}" for reason, count in Counter(row["reason"] for row in rows).most_common()]
    for text in lines[:20]:
        console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
    if len(lines) > 20:
        console.print(f"  and {len(lines) - 20} more")


if __name__ == "__main__":
    sys.exit(main())
