"""Maps of where a model looks in clips, and a number: does it look at what moves?

    python analysis/attention.py --weights ssv2-10shot.pth --videos ssv2-val --out results/attention
    python analysis/attention.py --run s-1a2b3c4d --videos manifests/s.csv --rollout --out results/attention-s
    python analysis/attention.py --run s-1a2b3c4d --videos /data/walk.mp4 --rollout --frames --clips 3 --out results/walk

The class token's attention in the last block, per head and mean over heads, on the patches of each clip; --rollout adds
attention rollout through all blocks. The number is the share of the attention that falls on moving pixels (optical flow
above --moving-px) by the share of the area that they are: 1 is what a map gets that does not care. clips.csv has it per
clip, summary.csv its mean with a 95 % interval, and what the mean map of the other recordings gets: a model that just
prefers the middle of the picture can be above 1, too. RUN is a run's folder or the start of its name, pretraining or
few-shot; VIDEOS a folder, a video, a manifest (.csv) or the name of one in manifests/. Runs on this machine; standard
output is the folder alone.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 some clips could not be read, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    import analysis  # noqa: F401  it says which library is missing

from rich.console import Console
from rich.table import Column, Table

from analysis.results.table_flags import Parser, add_runs_dir
from analysis.results.which_manifest import find_manifest
from vidmae.clips.clips_flags import add_computing, add_cutting, add_frames, add_model, add_output, pictures_of
from vidmae.footage.manifest import content_hash, read_summary
from vidmae.ranks.local_program import is_footage, make_manifest, prepare_folder, run_program
from vidmae.runs.record import RunFolder, read_json, runs_that_fit
from vidmae.settings.command_line import answer
from vidmae.settings.layers import ConfigError, nearest, to_yaml
from vidmae.settings.programs.attention_config import AttentionConfig
from vidmae.weights.finding import Found, weights_in


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a finished run with weights: its folder, or the start of its name")
    what.add_argument("--videos", required=True, metavar="VIDEOS", help="what the model looks at")
    what.add_argument("--rollout", action="store_true", help="attention rollout through all blocks, too")
    what.add_argument("--moving-px", type=float, default=1.0, metavar="PX",
                      help="a pixel moves whose optical flow is above PX per frame of the clip (default: %(default)s)")
    what.add_argument("--relative", action="store_true",
                      help="take each frame's median flow off first: a camera that pans moves nothing by itself")
    add_cutting(what, several=True)
    add_computing(parser).add_argument("--dry-run", action="store_true", help="print the configuration; write nothing")
    out = add_output(parser, "results")
    add_frames(out, "maps")
    add_runs_dir(out)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args), interrupted="nothing but pictures was written")


def run(args: argparse.Namespace) -> int:
    """Resolve, start the program, show its progress and the table."""
    console, out = Console(stderr=True), args.out.absolute()
    config = resolve(args, out)
    if args.dry_run:
        print(to_yaml(config), end="")
        return 0
    if is_footage(footage := Path(args.videos).expanduser()):
        make_manifest(footage, Path(config.videos), console, decoder=args.decoder, workers=args.workers)
    config = replace(config, videos_content=read_summary(Path(config.videos)).content_sha256)
    prepare_folder(out, config)
    code = run_program("vidmae.insight.attention.attention_maps", [str(out)], console, "clips", workers=config.workers)
    record = read_json(out / "result.json")
    if code not in (0, 3) or record is None:
        return code
    show(record, console)
    print(json.dumps(record) if args.json else out, flush=True)
    return code


def resolve(args: argparse.Namespace, out: Path) -> AttentionConfig:
    """The configuration; names are looked up, and nothing is written yet.

    Raises:
        ConfigError: Something that was named does not exist, or a value is out of range.
    """
    found, file = _of_run(args.run, args.runs_dir) if args.run else weights_in(args.weights, "--weights")
    videos = out / "videos.csv" if is_footage(Path(args.videos).expanduser()) else find_manifest(args.videos)
    return AttentionConfig(
        weights=str(found.path), weights_content=content_hash(file), sizes=found.sizes, videos=str(videos),
        rollout=args.rollout, moving_px=args.moving_px, relative=args.relative, sampling_rate=args.sampling_rate,
        per_video=args.per_video, pictures=pictures_of(args), decoder=args.decoder, device=args.device, workers=args.workers)


def _of_run(name: str, runs_dir: Path) -> tuple[Found, Path]:
    """A run, and the file that holds its weights."""
    run = find_run(name, runs_dir)
    file = RunFolder(run).weights
    if not file.is_file():
        raise ConfigError(f"the run {run} has no weights.safetensors: it is not finished, or is a few-shot run without "
                          "--set keep_weights=true")
    return Found(run, run.name), file


def find_run(given: str, runs_dir: Path) -> Path:
    """The folder of a run.

    Raises:
        ConfigError: None or several fit.
    """
    if (Path(given) / "run.json").is_file():
        return Path(given).absolute()
    names = sorted(path.parent.name for path in runs_dir.glob("*/run.json"))
    fit = runs_that_fit(given, names)
    if len(fit) != 1:
        found = f"fits {len(fit)} runs: {', '.join(fit[:8])}" if fit else f"is no run in {runs_dir}{nearest(given, names)}"
        raise ConfigError(f"--run {given!r} {found}; give its folder or its whole name (--runs-dir names another folder)")
    return (runs_dir / fit[0]).absolute()


def show(record: dict[str, Any], console: Console) -> None:
    """The ratio of every map, and which clips do not count."""
    columns = {"ratio": "ratio [95 %]", "others_ratio": "mean map of other recordings", "difference": "difference [95 %]"}
    title = f"attention on moving pixels by their area, {record['clips']} clips of {record['clip_s']:.2f} s"
    table = Table("map", *(Column(name, justify="right") for name in columns.values()), title=title)
    for row in record["maps"]:
        table.add_row(row["map"], *(_number(row, key) for key in columns))
    console.print(table)
    notes = {f"clips do not count in the means: less than {record['min_area_share']:.0%} of their area moves":
             record["still_clips"],
             f"videos are shorter than a clip ({record['clip_s']:.2f} s) and were left out": record["short_videos"]}
    for note, count in notes.items():
        if count:
            console.print(f"{count} {note}", style="yellow", highlight=False)
    for reason, count in record["unreadable"].items():
        console.print(f"{count} clips could not be read: {reason}", style="yellow", highlight=False, markup=False)


def _number(row: dict[str, Any], key: str) -> str:
    if row[key] is None:
        return "--"
    low = row.get(f"{key}_low")
    return f"{row[key]:.3f}" + (f" [{low:.3f}, {row[f'{key}_high']:.3f}]" if low is not None else "")


if __name__ == "__main__":
    sys.exit(main())
