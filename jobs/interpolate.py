"""Let a trained model fill in hidden parts of clips, and score it against baselines that need no training.

    python jobs/interpolate.py --run s-1a2b3c4d --videos s --out results/s-center
    python jobs/interpolate.py --weights say.pth --videos /data/walk.mp4 --mask center --ratio 0.5 --sampling-rate 4 \\
        --frames --clips 3 --out results/walk
    python jobs/interpolate.py --run s-1a2b3c4d --videos s --untrained --track 50 --out results/s-tracking
    python jobs/interpolate.py --run s-1a2b3c4d --image s-image --mask random --ratio 0.9 --videos s --out results/s-random
    python jobs/interpolate.py --run s-1a2b3c4d --domains own=s other-child=a kinetics=kinetics-val --out results/domains \\
        --cluster slurm --shards 8 --gpus-per-node 1

VIDEOS is a folder, a video, a manifest (.csv) or the name of a data set. Of 16 frames, center hides 7 to 10 at ratio 0.25
and 5 to 12 at 0.5; temporal hides the last frames. Scores are of the hidden pixels alone: scores.csv has a row per clip and
method, methods.csv the means, differences.csv the model minus each baseline with 95 % intervals, each for all clips and for
the thirds that move least, middling and most. Of several domains, domains.csv has that difference in the first domain minus
that in each other one: is the model better on its own child? --track renders scenes in which real textures move along known
paths, and says where a completion shows them, and whether once: a cross-fade shows two ghosts. Standard output is the folder
alone, or on Slurm the id of the array, until all is done. The same command again does what is missing, with the same
--shards.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 some clips could not be read, 4 Slurm refused or is away, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.catalogue import environment_catalogue, find_data
from jobs.place.launch_flags import Parser, add_runs_dir
from jobs.place.speak import answer, console
from jobs.standing.interpolate_show import show
from jobs.standing.runs import find_model, find_run, find_weights
from jobs.submit import sharding
from jobs.submit.shards_here import Work
from vidmae.clips.clips_flags import add_computing, add_cutting, add_frames, add_model, add_output, pictures_of
from vidmae.footage.manifest import content_hash, read_summary
from vidmae.model.formats.file_model import target_of
from vidmae.ranks.local_program import is_footage, make_manifest
from vidmae.runs.record import read_json
from vidmae.settings.layers import ConfigError
from vidmae.settings.programs.interpolate_config import InterpolateConfig


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a finished pretraining run: its id, the start of it, or its folder")
    videos = what.add_mutually_exclusive_group(required=True)
    videos.add_argument("--videos", metavar="VIDEOS", help="one set of videos")
    videos.add_argument("--domains", nargs="+", metavar="NAME=VIDEOS",
                        help="several, each with a name: tables say which, and set the first against the others")
    what.add_argument("--mask", choices=("center", "temporal", "random", "tube"), default="center",
                      help="what is hidden (default: %(default)s)")
    what.add_argument("--ratio", type=float, default=0.25, help="share of the tokens that is hidden (default: %(default)s)")
    add_cutting(what, several=True)
    what.add_argument("--image", default="", metavar="RUN|FILE",
                      help="an image MAE that fills in frame by frame, as a baseline: a run with model.num_frames=1, its "
                           "export, or a released .pth")
    what.add_argument("--untrained", action="store_true", help="score the model as it was before training, too")
    what.add_argument("--track", type=int, default=0, metavar="N",
                      help="tracking probe: N scenes of each path, real textures moved over real pictures (default: none)")
    what.add_argument("--true-stats", action="store_true",
                      help="a model with norm_pix_loss takes brightness and contrast from the hidden patches")
    what.add_argument("--seed", type=int, default=0, help="of random and tube masks (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], metavar="model.KEY=VALUE",
                      help="what a released file does not say, such as model.norm_pix_loss=true; may be repeated")
    add_computing(parser)
    sharding.add_shards(parser)
    out = add_output(parser, "results")
    add_frames(out, "completions")
    out.add_argument("--show-names", action="store_true", help="write the files' paths into scores.csv; they may be private")
    add_runs_dir(out)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="the same command goes on with what is missing")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, start or submit the program, show its progress and the tables."""
    err, out = console(), args.out.absolute()
    named = named_videos(args)
    config = resolve(args, named, out)
    if not args.dry_run:
        for name, given in named.items():
            if is_footage(given):
                make_manifest(given, Path(config.videos[name]), err, decoder=args.decoder, workers=args.workers)
        config = replace(config, videos_content={name: read_summary(Path(made)).content_sha256
                                                 for name, made in config.videos.items()})
    work = Work("vidmae.insight.interpolation.interpolate", out, args.shards, args.device, args.workers)
    return sharding.run(work, config, args, ["python", "jobs/interpolate.py", *argv], err, show)


def named_videos(args: argparse.Namespace) -> dict[str, Path]:
    """What each set of videos is called, and what was given for it.

    Raises:
        ConfigError: A name is missing, given twice or cannot be that of a file.
    """
    named = dict(_named(item) for item in args.domains) if args.domains else {"videos": args.videos}
    if args.domains and len(named) != len(args.domains):
        raise ConfigError(f"--domains {' '.join(args.domains)} has a name twice")
    return {name: Path(given).expanduser() for name, given in named.items()}


def resolve(args: argparse.Namespace, named: Mapping[str, Path], out: Path) -> InterpolateConfig:
    """The configuration; names are looked up, and nothing is written yet.

    Args:
        args: The command line.
        named: From `named_videos`.
        out: Folder of the results.
    Raises:
        ConfigError: Something that was named does not exist, or a value is out of range.
    """
    if args.run and (read_json(find_run(args.run, args.runs_dir).record) or {}).get("kind") == "fewshot":
        raise ConfigError(f"--run {args.run} is a few-shot run, whose model has no decoder and cannot fill in; give a "
                          "pretraining run")
    found, file = find_weights(args)
    image, image_file = find_model(args.image, "--image", args.runs_dir) if args.image else (None, None)
    for flag, given in (("--run or --weights", file), ("--image", image_file)):
        if given and target_of(given) != "pixels":
            raise ConfigError(f"{given} predicts {target_of(given)} (model.target) and has no pixel decoder, so it cannot "
                              f"fill in; allowed: a model of model.target pixels ({flag})")
    return InterpolateConfig(
        weights=str(found.path), weights_content=content_hash(file), settings=(*found.settings, *args.set),
        videos={name: str(find_manifest(given, name, out)) for name, given in named.items()},
        mask=args.mask, ratio=args.ratio, seed=args.seed, sampling_rate=args.sampling_rate, per_video=args.per_video,
        image=str(image.path) if image else "", image_content=content_hash(image_file) if image_file else "",
        untrained=args.untrained, true_stats=args.true_stats, track=args.track, pictures=pictures_of(args),
        names=args.show_names, decoder=args.decoder, device=args.device, workers=args.workers)


def find_manifest(given: Path, name: str, out: Path) -> Path:
    """The manifest of a set of videos; of a folder or a file where it will be made."""
    if is_footage(given):
        return out / f"videos-{name}.csv"
    return find_data(str(given), str(given), environment_catalogue()).manifest


def _named(item: str) -> tuple[str, str]:
    name, eq, given = item.partition("=")
    if not eq or not given or not re.fullmatch(r"[\w.-]+", name):
        raise ConfigError(f"--domains {item!r} is not NAME=VIDEOS, with letters, digits, dot and dash in the name")
    return name, given


if __name__ == "__main__":
    sys.exit(main())
