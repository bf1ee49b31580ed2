"""`python jobs/prepare.py manifest`: the checked list of the videos of a data set (vidmae/footage/manifest_build.py)."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from jobs.place.catalogue import MANIFESTS
from jobs.place.experiment import SLURM_ONLY
from jobs.submit import sharding
from jobs.submit.shards_here import Work
from vidmae.clips.clip_cost import known_summary, record_clip_cost
from vidmae.footage.known.unreadable import read_unreadable, unreadable_path
from vidmae.footage.known.withdrawn import read_withdrawn, withdrawn_path
from vidmae.footage.manifest import AUTO, Check, Manifest, ManifestError, Source, Summary, read_all, read_summary
from vidmae.footage.manifest_build import build, check_part, still_holds
from vidmae.footage.open_video import DECODERS, PILLOW, candidates
from vidmae.footage.recordings import NAMINGS
from vidmae.footage.verify import CLIP_S
from vidmae.footage.video_list import EXTENSIONS, PICTURES, other_files
from vidmae.labels.side_table import join
from vidmae.labels.sources import count_note, find_labelled
from vidmae.labels.synsets import name_classes, read_synsets
from vidmae.ranks.local_program import prepare_folder, progress
from vidmae.settings.programs.prepare_config import ManifestConfig

HELP = """Make a manifest: the checked list of the videos of a data set.

    python jobs/prepare.py manifest /data/headcam/S --name s
    python jobs/prepare.py manifest train.csv --root /data/ssv2 --name ssv2 --workers 16
    python jobs/prepare.py manifest clips/ --name quick --no-verify
    python jobs/prepare.py manifest /data/k700/val --labels folders --name kinetics-val
    python jobs/prepare.py manifest something-something-v2-train.json --root /data/ssv2 --name ssv2
    python jobs/prepare.py manifest /data/headcam --name say --about table.csv
    python jobs/prepare.py manifest /data/imagenet/train --images --labels folders --class-names synsets.txt --name imagenet
    python jobs/prepare.py manifest /data/headcam --name say --cluster slurm --shards 100 --partition cpu

SOURCE is a folder (.mp4 .mkv .webm .avi .mov at any depth), a list of `path, label` or `path label` lines, a label file of
Something-Something-V2 (.json), or a video. Every file is decoded, and each gets the decoder that reads it rightly; what no
decoder reads rightly is listed in NAME.unreadable.csv with the reason. A second call looks at new and changed files only,
and goes on where a call was stopped.

With --images, pictures are listed in place of videos (.jpg .jpeg .png .webp .bmp), each a video of one frame.

--about joins a table (CSV) of what is known of the recordings: the column file, and of child, date, age_months or
birth_date, session, licence and embargo those that are there. --names reads child and date from names of SAYCam or BabyView.
"""


UNTIL_2026 = "decord,pyav,torchcodec"  # the order of auto before PyAV was first: runs from then go on with it
PICTURE_KINDS = {  # kind of a picture -> what is said of how it is read
    "grey": "are grey", "palette": "have a palette", "cmyk": "are CMYK, which becomes RGB",
    "16-bit": "have 16 bits, of which the higher 8 count", "transparent": "are transparent, which is left out",
    "animated": "are animated, of which the first frame counts", "turned": "are turned as their EXIF tag says"}


def add_options(p: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = p.add_argument_group("what")
    what.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folder, list, label file or video")
    what.add_argument("--root", type=Path, help="what relative paths of a list are relative to, and where the videos of a "
                                                "label file lie (default: its folder)")
    what.add_argument("--labels", choices=("folders", "names"),
                      help="folders: SOURCE/CLASS/FILE, the folders' names are the classes; names: the class is the fifth "
                           "word of a file's name, between underscores, as in the sets of model-vs-human")
    what.add_argument("--images", action="store_true", help="list pictures in place of videos")
    what.add_argument("--class-names", type=Path, metavar="FILE",
                      help="lines such as `n01440764 tench, Tinca tinca`: classes that are WordNet ids get their name")
    what.add_argument("--about", type=Path, metavar="TABLE.csv", help="what is known of the recordings, by file")
    what.add_argument("--names", choices=tuple(NAMINGS), help="names that say child and date; --about goes before them")
    what.add_argument("--partial", action="store_true",
                      help="take it that rows of --about name no video, that videos are not in it, and other --names")
    what.add_argument("--decoder", choices=(AUTO, *DECODERS, UNTIL_2026), default=AUTO,
                      help=f"auto: each file gets the first of {', '.join(DECODERS)} that reads it rightly; {UNTIL_2026}: "
                           "the first of these; a single one: what it reads wrongly is unreadable (default: %(default)s)")
    what.add_argument("--no-verify", action="store_true", help="read one frame of each file instead of all")
    control = p.add_argument_group("processes")
    control.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    control.add_argument("--part", type=_part, metavar="I/N",
                         help="check part I of N only, I from 0, as a task of an array; the same command without --part "
                              "then makes the manifest of all parts")
    control.add_argument("--time-limit-s", type=float, default=600.0,
                         help="seconds for one file and decoder before it is killed (default: %(default)g)")
    control.add_argument("--no-clip-cost", action="store_true",
                         help="do not measure the CPU time of a clip (up to 8 videos, about 20 s), which plans show")
    sharding.add_shards(p, dry_run="count the files, or with --cluster slurm show the script; write nothing")
    out = p.add_argument_group("output")
    out.add_argument("--name", help="name of the data set (default: the source's name)")
    out.add_argument("--out", type=Path, help="the csv to write (default: manifests/NAME.csv)")
    out.add_argument("--show-names", action="store_true",
                     help="show the names of unreadable files, and of those that --about misses; they may be private")
    out.add_argument("--json", action="store_true", help="with --cluster slurm: one JSON object instead of the job's id")


def run(args: argparse.Namespace) -> int:
    """Build one manifest and say what came of it."""
    if args.workers < 1 or args.time_limit_s <= 0:
        raise ManifestError(f"--workers {args.workers} must be 1 or more, --time-limit-s {args.time_limit_s:g} more than 0")
    name = args.name or args.sources[0].resolve().stem
    path = (args.out or Path("manifests") / f"{name}.csv").absolute()
    if path.suffix != ".csv":
        raise ManifestError(f"--out {path} must end in .csv")
    if args.images and args.decoder != AUTO:
        raise ManifestError(f"--decoder {args.decoder} decodes videos, and --images are read by {PILLOW}; leave one out")
    decoder, extensions = (PILLOW, PICTURES) if args.images else (args.decoder, EXTENSIONS)
    sources = [found for source in args.sources for found in find_labelled(
        source, args.root, label_folders=args.labels == "folders", label_names=args.labels == "names",
        extensions=extensions)]
    if args.class_names:
        sources = name_classes(sources, read_synsets(args.class_names))
    console = Console(stderr=True)
    if args.about or args.names:
        sources = _join(console, sources, args)
    per_class = sorted(Counter(source.label for source in sources if source.label).values())
    if per_class:
        console.print(f"labels: {len(per_class)} classes of {per_class[0]} to {per_class[-1]} "
                      f"{'pictures' if args.images else 'videos'}", highlight=False)
    if skipped := other_files(args.sources, extensions):
        console.print(f"{sum(skipped.values())} files of other kinds are not looked at: "
                      + ", ".join(f"{count} {kind or 'without an ending'}" for kind, count in skipped.most_common(5)),
                      style="yellow", highlight=False)
    check = Check(decoder, args.images or not args.no_verify)
    if args.cluster is None and (asked := next((f"--{flag}" for flag in SLURM_ONLY if getattr(args, flag)), None)):
        raise ManifestError(f"{asked} is for a job; add --cluster slurm, or leave it out to check the files on this machine")
    if args.cluster == "slurm":
        return _submit(console, sources, path, check, args)
    if args.dry_run:
        console.print(f"{len(sources)} files\ndry run: nothing was written", highlight=False)
        return 0
    how = "one frame of each of" if args.no_verify else "checking"
    console.print(f"{how} {len(sources)} files with {' or '.join(candidates(decoder))} in {args.workers} processes",
                  highlight=False)
    known = known_summary(path)
    try:
        if args.part:
            return _check_part(console, sources, path, check, args)
        with progress(console, "files") as tell:
            summary, reused = build(sources, path, check, workers=args.workers, time_limit_s=args.time_limit_s,
                                    progress=tell)
        if not args.no_clip_cost:
            summary = record_clip_cost(path, summary, known)
    except KeyboardInterrupt:
        console.print("\nstopped; what was checked so far is kept: the same command goes on", highlight=False)
        return 130
    _say(console, path, summary, reused, args)
    console.print(f"manifest: {path}\nnext: python {_following(path, summary)} --dry-run", highlight=False, soft_wrap=True)
    print(path)
    return 0 if summary.videos else 3


def _say(console: Console, path: Path, summary: Summary, reused: int, args: argparse.Namespace) -> None:
    """What came of it."""
    _say_totals(console, path, summary, reused)
    if summary.unreadable:
        _say_unreadable(console, path, args.show_names)
        if summary.decoder not in (AUTO, UNTIL_2026, PILLOW):
            console.print("  --decoder auto may read more of them", highlight=False)
    if withdrawn := len(read_withdrawn(path)):
        console.print(f"note: {withdrawn} recordings were withdrawn before and stay out ({withdrawn_path(path).name})",
                      style="yellow", highlight=False, soft_wrap=True)
    if note := count_note(path.stem, summary):
        console.print(f"note: {note}", style="yellow", highlight=False, soft_wrap=True)


def _submit(console: Console, sources: list[Source], path: Path, check: Check, args: argparse.Namespace) -> int:
    """An array of jobs, each for some of the files; the last one makes the manifest."""
    from vidmae.preparing.manifest_shard import write_sources

    if args.part:
        raise ManifestError("--part is for a task of your own array; with --cluster slurm, --shards N makes one")
    if args.gpus_per_node is None:
        args.gpus_per_node = 0
    out = path.with_name(f".{path.stem}.array")
    config = ManifestConfig(str(path), check.decoder, check.verify, time_limit_s=args.time_limit_s)
    if not args.dry_run:
        prepare_folder(out, config)
        others = write_sources(out, sources, check)  # what was checked is known, what is new or was replaced is not
        if others or ((out / "result.json").exists() and not still_holds(path)):
            for old in (*out.glob("done-*.json"), out / "result.json"):
                old.unlink(missing_ok=True)

    def show(_: dict[str, Any], console: Console) -> None:
        summary = read_summary(path)
        _say(console, path, summary if args.no_clip_cost else record_clip_cost(path, summary, summary), 0, args)

    work = Work("vidmae.preparing.manifest_shard", out, args.shards, "cpu", 0)
    command = ["python", "jobs/prepare.py", "manifest", *map(str, args.sources)]
    return sharding.run(work, config, args, command, console, show)


def _following(path: Path, summary: Summary) -> str:
    """The command that takes a manifest: a sweep takes NAME, and finds NAME-val beside it."""
    named = path if not summary.classes else path.with_stem(path.stem.removesuffix("-val"))
    data = named.stem if named.parent == MANIFESTS.absolute() else shlex.quote(str(named))
    if not summary.classes:
        return f"jobs/pretrain.py --data {data}"
    return f"sweeps/objects.py --data {data} --fractions 0.02" if summary.pictures else \
        f"sweeps/fewshot.py --data {data} --shots 10"


def _join(console: Console, sources: list[Source], args: argparse.Namespace) -> list[Source]:
    """The videos with what is known of them; what does not fit is an error, or a note with --partial."""
    joined = join(sources, args.about, args.names, names_shown=args.show_names)
    if joined.unknown_columns:
        console.print(f"note: columns of {args.about} that are not used: {', '.join(joined.unknown_columns)}",
                      style="yellow", highlight=False, markup=False, soft_wrap=True)
    if joined.problems and not args.partial:
        raise ManifestError("; ".join(joined.problems) + ". --show-names shows the names, --partial goes on without them")
    for problem in joined.problems:
        console.print(f"note: {problem}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    return joined.sources


def _check_part(console: Console, sources: list[Source], path: Path, check: Check, args: argparse.Namespace) -> int:
    """Check one part; the manifest is made by another call."""
    part, parts = args.part
    with progress(console, "files") as tell:
        files, unreadable = check_part(sources, path, check, part, parts, workers=args.workers,
                                       time_limit_s=args.time_limit_s, progress=tell)
    console.print(f"part {part}/{parts}: {files} files checked, {unreadable} of them unreadable; when all parts are done, "
                  "the same command without --part makes the manifest", highlight=False, soft_wrap=True)
    return 0


def _part(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if not (first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 0 to N - 1, such as 0/100")
    return int(first), int(second)


def _say_totals(console: Console, path: Path, summary: Summary, reused: int) -> None:
    """What there is, and what of it a user may not expect."""
    what = "pictures" if summary.pictures else f"videos, {summary.hours:.2f} h"
    console.print(f"{summary.videos} {what}, {summary.bytes / 2**30:.2f} GiB"
                  + (f", {summary.classes} classes" if summary.classes else "")
                  + (f" ({reused} unchanged since the last call)" if reused else ""), highlight=False)
    console.print("read by " + ", ".join(f"{name}: {count}" for name, count in summary.decoders.items()), highlight=False)
    if summary.clip_cost:
        once, often = summary.clip_cost["ms_per_clip"].values()
        console.print(f"CPU time of a clip: {once:.3g} ms, with 16 clips of each opened video {often:.3g} ms",
                      highlight=False)
    if not summary.videos:
        return
    videos = Manifest.read(path)
    short = int((videos.seconds < CLIP_S).sum())
    if summary.pictures:
        _say_kinds(console, path)
    if summary.facts_sha256:
        _say_facts(console, videos)
    if copies := len(videos) - len(set(videos.content.tolist())):
        console.print(f"note: {copies} {what.split(',')[0]} are copies of others in the list, by content", style="yellow",
                      highlight=False)
    if short:
        console.print(f"note: {short} videos are shorter than the paper's clips of {CLIP_S:.2f} s: a clip of them repeats "
                      "the last frame", style="yellow", highlight=False, soft_wrap=True)


def _say_kinds(console: Console, path: Path) -> None:
    """Which formats pictures have, and how many of them are changed before a model sees them."""
    rows = read_all(path)[1]
    formats = Counter(row.codec.partition(" ")[0] for row in rows)
    console.print("formats: " + ", ".join(f"{count} {name}" for name, count in formats.most_common()), highlight=False)
    kinds = Counter(kind for row in rows for kind in row.codec.split()[1:])
    kinds["turned"] = sum(row.rotation > 0 for row in rows)
    said = [f"{kinds[kind]} {what}" for kind, what in PICTURE_KINDS.items() if kinds[kind]]
    if said:
        console.print(f"note: {', '.join(said)}", style="yellow", highlight=False, soft_wrap=True)


def _say_facts(console: Console, videos: Manifest) -> None:
    """Children, dates and ages, in one line."""
    dates, ages = videos.date[~np.isnat(videos.date)], videos.age_months[~np.isnan(videos.age_months)]
    words = [f"{len(videos.children)} children"] if videos.children else []
    days = dates.astype("datetime64[D]")
    words += [f"recorded {days.min()} to {days.max()}"] if len(days) else []
    words += [f"{ages.min():.1f} to {ages.max():.1f} months old"] if len(ages) else []
    console.print("known: " + (", ".join(words) or "sessions, licences or embargoes only"), highlight=False, soft_wrap=True)
    for what, known in (("child", int((videos.child >= 0).sum())), ("date", len(dates)), ("age", len(ages))):
        if 0 < known < len(videos):
            console.print(f"note: {len(videos) - known} of {len(videos)} videos have no {what}", style="yellow",
                          highlight=False)


def grouped(reasons: Sequence[str]) -> list[str]:
    """How often each reason stands in a list, the commonest first; those that differ in numbers alone are one, shown by the
    first of them."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"\d+(?:\.\d+)?", "0", reason), []).append(reason)
    return [f"{len(alike)} x {alike[0]}{' (the numbers differ)' if len(set(alike)) > 1 else ''}"
            for alike in sorted(kinds.values(), key=len, reverse=True)]


def _say_unreadable(console: Console, path: Path, show_names: bool) -> None:
    rows = read_unreadable(path)
    console.print(f"{len(rows)} files left out, listed in {unreadable_path(path)}:", style="yellow", highlight=False,
                  soft_wrap=True)
    lines = [f"{name}: {reason}" for name, reason in rows] if show_names else grouped([reason for _, reason in rows])
    for text in lines[:20]:
        console.print(f"  {text}", highlight=False, markup=False, soft_wrap=True)
    if len(lines) > 20:
        console.print(f"  and {len(lines) - 20} more")
