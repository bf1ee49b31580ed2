"""`python jobs/prepare.py footage`: every recording decoded once and kept as small frames (vidmae/preparing/)."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.place.catalogue import MANIFESTS, environment_catalogue, find_data
from jobs.place.experiment import SLURM_ONLY
from jobs.submit import sharding
from jobs.submit.shards_here import Work
from vidmae.clips.clip_cost import known_summary, record_clip_cost
from vidmae.footage.manifest import Summary, read_all, read_summary
from vidmae.preparing.preparation import FOOTAGE_QUALITY, FPS, QUALITY, SHORT_SIDE_PX, Preparation, PrepareError
from vidmae.ranks.local_program import prepare_folder, progress, tell
from vidmae.runs.record import read_json
from vidmae.settings.programs.prepare_config import PrepareConfig

HELP = """Prepare footage once, so that a GPU never waits for a decoder.

    python jobs/prepare.py footage s
    python jobs/prepare.py footage s --dry-run
    python jobs/prepare.py footage s --short-side 512 --workers 16
    python jobs/prepare.py footage ssv2 --fps 7.5 --name ssv2-small
    python jobs/prepare.py footage s --format chunks
    python jobs/prepare.py footage s --cluster slurm --shards 16 --partition cpu

Every recording of the manifest is decoded once, in order. Of its frames those are kept that training samples (--fps), made
smaller (--short-side) and written as JPEG into archives: large tar files with an index. What comes out is a manifest like
any other, with the same labels in the same order: `--data s-256` trains on it. The footage itself is only read.

The phase at which frames are kept is drawn for each recording. --fps 3.75 keeps what frame stride 8 at 30 fps samples; a
multiple of it (7.5, 15) keeps more phases, for as many times the bytes. A recording with fewer frames a second keeps all.

A call that is stopped loses the recordings that it was at, and the same command goes on. Where the manifest has got new
recordings, the same command adds archives for these alone. A recording that cannot be decoded is left out and listed in
NAME.unreadable.csv with the reason.
"""
MIB, GIB = 2**20, 2**30


def add_options(p: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    what = p.add_argument_group("what")
    what.add_argument("manifest", metavar="NAME|MANIFEST", help="the data set, or its manifest (.csv)")
    what.add_argument("--fps", type=float, default=FPS, help="frames per second that are kept (default: %(default)s)")
    what.add_argument("--short-side", type=int, default=SHORT_SIDE_PX, metavar="PX",
                      help="of a frame, at most; 512 for clips of 448 px (default: %(default)s)")
    what.add_argument("--format", choices=("archives", "chunks"), default="archives",
                      help="archives of JPEG frames, which read fastest, or chunks: small mp4 files of ten minutes with a "
                           "key frame every 16 frames, which take half of the bytes (default: %(default)s)")
    what.add_argument("--quality", type=int, help="of JPEG, 1 to 100 (default: as what is in --out already; else "
                                                  f"{FOOTAGE_QUALITY}, of chunks {QUALITY})")
    what.add_argument("--seed", type=int, default=0, help="of the phases (default: %(default)s)")
    control = p.add_argument_group("processes")
    control.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="default: all %(default)s cores")
    control.add_argument("--time-limit-s", type=float, default=0.0,
                         help="seconds for one recording before its process is killed (default: 600, or as long as the "
                              "longest recording lasts)")
    sharding.add_shards(p, dry_run="estimate hours and bytes from a sample, or with --cluster slurm show the script; write "
                                   "nothing")
    out = p.add_argument_group("output")
    out.add_argument("--name", help="name of the prepared data set (default: NAME-256, NAME-256-7.5fps ...)")
    out.add_argument("--out", type=Path, metavar="FOLDER", help="holds the archives (default: prepared/NAME)")
    out.add_argument("--json", action="store_true", help="with --cluster slurm: one JSON object instead of the job's id")
    out.add_argument("--archive-mib", type=float, default=1024.0, metavar="MIB",
                     help="about how large an archive becomes (default: %(default)g)")


def run(args: argparse.Namespace) -> int:
    """Prepare one data set and say what came of it."""
    if args.workers < 1 or args.time_limit_s < 0 or args.archive_mib <= 0:
        raise PrepareError(f"--workers {args.workers} must be 1 or more, --time-limit-s {args.time_limit_s:g} 0 or more, "
                           f"--archive-mib {args.archive_mib:g} more than 0")
    how = Preparation(args.fps, args.short_side, QUALITY if args.quality is None else args.quality, args.seed, args.format)
    source = find_data(args.manifest, args.manifest, environment_catalogue())
    if read_summary(source.manifest).pictures:
        raise PrepareError(f"{source.manifest} lists pictures: they are read as they are, and nothing need be prepared")
    name, earlier = args.name or default_name(source.name, how), source.name + _ending(how)
    if "/" in name or name.startswith("."):
        raise PrepareError(f"--name {name} is not the name of a data set: no slash, no dot at its beginning")
    manifest = (MANIFESTS / f"{name}.csv").absolute()
    if manifest == source.manifest.absolute():
        raise PrepareError(f"--name {name} is the footage's own name; choose another")
    console, folder = Console(stderr=True), (args.out or Path("prepared") / name).absolute()
    if args.quality is None:
        how = replace(how, quality=_quality(folder, how.form))
    if not args.name and name != earlier and (MANIFESTS / f"{earlier}.csv").exists():
        tell(console, f"note: {MANIFESTS / earlier}.csv is there from before; --name {earlier} goes on with it")
    if args.cluster is None and (asked := next((f"--{flag}" for flag in SLURM_ONLY if getattr(args, flag)), None)):
        raise PrepareError(f"{asked} is for a job; add --cluster slurm, or leave it out to prepare on this machine")
    if args.cluster == "slurm":
        return _submit(console, config_of(source.manifest, how, manifest, args), folder, args)
    if args.dry_run:
        return _estimate(console, source.manifest, how, args)
    prepare_folder(folder, config_of(source.manifest, how, manifest, args))
    return _prepare(console, source.manifest, how, folder, manifest, args)


def _quality(folder: Path, form: str) -> int:
    """Of what is prepared in a folder already, so that it grows; else the default."""
    there = read_json(folder / "prepared.json") or {}
    return int(there.get("quality", FOOTAGE_QUALITY if form == "archives" else QUALITY))


def default_name(of: str, how: Preparation) -> str:
    """Name of a prepared data set; that of a validation set ends in -val as before, so that sweeps find it."""
    name = of.removesuffix("-val")
    return name + _ending(how) + of[len(name):]


def _ending(how: Preparation) -> str:
    """What a name gets, such as -256 or -256-7.5fps."""
    return f"-{how.short_side_px}" + ("" if how.fps == FPS else f"-{how.fps:g}fps") + (
        "" if how.form == "archives" else f"-{how.form}")


def _estimate(console: Console, source: Path, how: Preparation, args: argparse.Namespace) -> int:
    from vidmae.preparing.prepare_estimate import estimate

    found = estimate(read_all(source)[1], how, workers=args.workers, time_limit_s=args.time_limit_s or 600)
    tell(console, f"{found.hours:.2f} h of footage: about {found.cpu_hours / args.workers:.2f} h in {args.workers} "
                  f"processes ({found.hours / found.cpu_hours:.0f} times real time per core) and {found.bytes / GIB:.2f} "
                  f"GiB ({found.bytes / MIB / found.hours:.0f} MiB an hour), judged by {found.sampled_s:.0f} s of it")
    if found.failed:
        tell(console, f"{found.failed} recordings of the sample could not be read")
    tell(console, "dry run: nothing was written")
    return 0


def config_of(source: Path, how: Preparation, manifest: Path, args: argparse.Namespace) -> PrepareConfig:
    """What is asked for, as OUT/config.yaml has it."""
    return PrepareConfig(str(source.absolute()), read_summary(source).content_sha256, str(manifest), **asdict(how),
                         archive_mib=args.archive_mib, time_limit_s=args.time_limit_s)


def _submit(console: Console, config: PrepareConfig, folder: Path, args: argparse.Namespace) -> int:
    """An array of jobs, each for some of the archives."""
    if config.form != "archives":
        raise PrepareError("--format chunks is made on one machine: leave out --cluster slurm, or call it within a job")
    if args.gpus_per_node is None:
        args.gpus_per_node = 0
    if not args.dry_run:
        from vidmae.preparing.prepared_folder import Order, reopen

        how = Preparation(config.fps, config.short_side_px, config.quality, config.seed, config.form)
        reopen(Order(Path(config.source), how, folder, Path(config.manifest), config.archive_mib))
    work = Work("vidmae.preparing.prepare_shard", folder, args.shards, "cpu", 0)
    return sharding.run(work, config, args, ["python", "jobs/prepare.py", "footage", args.manifest], console, _show)


def _show(record: dict[str, Any], console: Console) -> None:
    """What an array did."""
    lost = sum(record["unreadable"].values())
    tell(console, f"{record['recordings']} recordings, {lost} lost with {record['lost_s']:.0f} s, "
                  f"{record['seconds'] / 3600:.2f} h, {record['frames']} frames, {record['bytes'] / GIB:.2f} GiB, "
                  f"PSNR {record['psnr_db']:.1f} dB\nmanifest: {record['manifest']}")


def _prepare(console: Console, source: Path, how: Preparation, folder: Path, manifest: Path,
             args: argparse.Namespace) -> int:
    from vidmae.preparing.prepare_archives import prepare
    from vidmae.preparing.prepare_chunks import prepare_chunks
    from vidmae.preparing.prepared_folder import Order

    order, known = Order(source, how, folder, manifest, args.archive_mib), known_summary(manifest)
    try:
        with progress(console, "s of footage") as show:
            work = prepare if how.form == "archives" else prepare_chunks
            summary, report = work(order, workers=args.workers, time_limit_s=args.time_limit_s, tell=show)
    except KeyboardInterrupt:
        tell(console, "\nstopped; recordings that are done are kept: the same command goes on")
        return 130
    assert summary is not None
    summary = record_clip_cost(manifest, summary, known)
    _say(console, summary, report, source)
    tell(console, f"{how.form}: {folder}\nmanifest: {manifest}\n"
                  f"next: python jobs/pretrain.py --data {manifest.stem} --dry-run")
    print(manifest)
    return 0 if summary.videos else 3


def _say(console: Console, summary: Summary, report: object, source: Path) -> None:
    from vidmae.preparing.prepare_archives import Report

    assert isinstance(report, Report)
    hours = report.seconds / 3600
    known = f" ({report.done_before} of them were there)" if report.done_before else ""
    tell(console, f"{report.recordings} recordings of {source.stem}{known}: {summary.videos} rows, {hours:.2f} h in, "
                  f"{summary.hours:.2f} h out, {report.frames} frames, {report.bytes / GIB:.2f} GiB"
                  + (f" ({report.bytes / MIB / hours:.0f} MiB an hour)" if hours else ""))
    if report.cpu_s:
        tell(console, f"{report.cpu_footage_s / report.cpu_s:.0f} times real time per core")
    if report.frames:
        tell(console, f"against the resized source: PSNR {report.psnr_db:.1f} dB (worst recording "
                      f"{report.least_psnr_db:.1f})" + (f", SSIM {report.ssim:.4f}" if report.ssim else ""))
    if summary.clip_cost:
        once, often = summary.clip_cost["ms_per_clip"].values()
        tell(console, f"a clip costs {once:.1f} ms of CPU time, {often:.1f} where 16 are cut out of an opened recording")
    if report.lost:
        tell(console, f"{sum(report.lost.values())} recordings with {report.lost_s:.0f} s of footage are lost:")
        for reason, count in report.lost.most_common(20):
            tell(console, f"  {count} x {reason}")
