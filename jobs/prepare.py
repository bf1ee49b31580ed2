"""Make a manifest: the checked list of the videos of a data set. Needed once, before training.

    python jobs/prepare.py manifest /data/headcam/S --name s
    python jobs/prepare.py manifest train.csv --root /data/ssv2 --name ssv2 --workers 16
    python jobs/prepare.py manifest clips/ --name quick --no-verify

SOURCE is a folder (.mp4 .mkv .webm .avi .mov at any depth), a list of `path, label` or `path label` lines, or a video.
Every file is decoded once; what cannot be read, or would be read wrongly, is listed in NAME.unreadable.csv with the
reason. A second call looks at new and changed files only.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vidmae.manifest import Check, ManifestError, Source, build, find_sources, unreadable_path

PLAIN_EVERY_S = 10.0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 done, 2 the source cannot be used, 3 not one readable video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    p = verbs.add_parser("manifest", help="list and check the videos of a data set", description=__doc__,
                         formatter_class=argparse.RawDescriptionHelpFormatter)
    what = p.add_argument_group("what")
    what.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folder, list or video")
    what.add_argument("--root", type=Path, help="what relative paths of a list are relative to (default: its folder)")
    what.add_argument("--decoder", choices=("decord", "pyav"), default="decord",
                      help="the decoder that training will use, data.decoder (default: %(default)s)")
    what.add_argument("--no-verify", action="store_true", help="read one frame of each file instead of all")
    control = p.add_argument_group("run control")
    control.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    control.add_argument("--time-limit-s", type=float, default=600.0,
                         help="seconds for one file before its decoder is killed (default: %(default)g)")
    out = p.add_argument_group("output")
    out.add_argument("--name", help="name of the data set (default: the source's name)")
    out.add_argument("--out", type=Path, help="the csv to write (default: manifests/NAME.csv)")
    out.add_argument("--show-names", action="store_true", help="show the names of unreadable files; they may be private")
    args = parser.parse_args(argv)
    if args.workers < 1 or args.time_limit_s <= 0:
        parser.error(f"--workers {args.workers} must be 1 or more, --time-limit-s {args.time_limit_s:g} more than 0")
    try:
        return manifest(args)
    except ManifestError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {error.filename}: {error.strerror} (change --out)", file=sys.stderr)
        return 2


def manifest(args: argparse.Namespace) -> int:
    """Build one manifest and say what came of it."""
    name = args.name or args.sources[0].resolve().stem
    path = (args.out or Path("manifests") / f"{name}.csv").absolute()
    if path.suffix != ".csv":
        raise ManifestError(f"--out {path} must end in .csv")
    sources = [found for source in args.sources for found in find_sources(source, args.root)]
    console = Console(stderr=True)
    console.print(f"checking {len(sources)} files with {args.decoder} in {args.workers} processes", highlight=False)
    summary, reused = _with_progress(console, sources, path, args)
    console.print(f"{summary.videos} videos, {summary.hours:.2f} h, {summary.bytes / 2**30:.2f} GiB"
                  + (f", {summary.classes} classes" if summary.classes else "")
                  + (f" ({reused} unchanged since the last call)" if reused else ""), highlight=False)
    if summary.unreadable:
        _say_unreadable(console, path, args.show_names)
    console.print(f"manifest: {path}\nnext: python jobs/pretrain.py --data {path} --dry-run", highlight=False,
                  soft_wrap=True)
    print(path)
    return 0 if summary.videos else 3


def _with_progress(console: Console, sources: list[Source], path: Path, args: argparse.Namespace):  # type: ignore[no-untyped-def]
    check = Check(args.decoder, not args.no_verify)
    options = {"workers": args.workers, "time_limit_s": args.time_limit_s}
    if console.is_terminal:
        bar = Progress(TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console)
        with bar:
            task = bar.add_task("files", total=len(sources))
            return build(sources, path, check, progress=lambda done, total: bar.update(task, completed=done, total=total),
                         **options)
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > PLAIN_EVERY_S:
            last = time.monotonic()
            print(f"{done}/{total} files", file=sys.stderr, flush=True)

    return build(sources, path, check, progress=line, **options)


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
