"""Is a trained model more surprised by videos that break a law of physics than by their possible twins?

    python jobs/surprise.py --run s-1a2b3c4d --pairs possible-impossible.csv --out results/s-surprise
    python jobs/surprise.py --run s-1a2b3c4d --scenes 40 --backgrounds s-val --out results/s-scenes
    python jobs/surprise.py --weights say.pth --layout intphys=/data/intphys/dev --sampling-rate 4 --context-frames 4,8 \\
        --out results/say-intphys
    python jobs/surprise.py --run s-1a2b3c4d --layout inflevel=/data/inflevel --out results/s-inflevel --cluster slurm \\
        --shards 8 --gpus-per-node 1

A window slides over each video. The model sees its first frames (--context-frames) and predicts the others; surprise is the
loss of training there, and the plain error of pixels. A pair is right where the impossible video surprises more. Beside the
model stand the untrained model, the last frame that is seen, the difference of frames, optical flow and brightness.

--pairs is a CSV with the columns possible, impossible, concept and set, and paths from its folder
(vidmae/insight/surprise/pair_list.py). --layout reads IntPhys, IntPhys 2, GRASP and InfLevel as they are unpacked. --scenes
renders permanence, shape, colour, continuity and solidity over real pictures, so that possible and impossible videos have
the same frames. concepts.csv has the share of right pairs by concept with 95 % intervals, surprise.png the surprise in time.
Standard output is the folder alone, or on Slurm the id of the array, until all is done. The same command again does what is
missing, with the same --shards.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 some videos could not be read, 4 Slurm refused or away, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.catalogue import environment_catalogue, find_data
from jobs.place.launch_flags import Parser, add_runs_dir
from jobs.place.speak import answer, console
from jobs.standing.runs import find_weights
from jobs.standing.surprise_show import show
from jobs.submit import sharding
from jobs.submit.shards_here import Work
from vidmae.clips.clips_flags import add_computing, add_cutting, add_model, add_output
from vidmae.footage.manifest import content_hash, read_summary
from vidmae.insight.surprise.benchmark_layouts import LAYOUTS, read_layout
from vidmae.insight.surprise.pair_list import Pair, content_of, read_pairs, write_pairs
from vidmae.model.formats.file_model import target_of
from vidmae.ranks.local_program import has_results, is_footage, make_manifest, refuse_other_folder, tell
from vidmae.runs.record import make_private_folder
from vidmae.settings.layers import ConfigError
from vidmae.settings.programs.surprise_config import SurpriseConfig


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a finished pretraining run: its id, the start of it, or its folder")
    videos = what.add_mutually_exclusive_group(required=True)
    videos.add_argument("--pairs", type=Path, metavar="FILE.csv", help="a list of pairs")
    videos.add_argument("--layout", metavar="LAYOUT=FOLDER", help=f"an unpacked benchmark: {', '.join(LAYOUTS)}")
    videos.add_argument("--scenes", type=int, default=0, metavar="N",
                        help="generated scenes of each concept, two pairs each")
    what.add_argument("--backgrounds", metavar="VIDEOS",
                      help="of generated scenes: a folder, a video, a manifest, the name of a data set (default: noise)")
    what.add_argument("--context-frames", type=_numbers, default=(), metavar="N,N,...",
                      help="frames of a window that the model sees (default: a quarter, a half, three quarters of a clip)")
    what.add_argument("--window-step", type=int, default=2, metavar="N",
                      help="frames, at the model's rate, from one window to the next (default: %(default)s)")
    add_cutting(what, several=False)
    what.add_argument("--seed", type=int, default=0,
                      help="of generated scenes and of the untrained model (default: %(default)s)")
    what.add_argument("--set", action="append", default=[], metavar="model.KEY=VALUE",
                      help="what a released file does not say, such as model.norm_pix_loss=true; may be repeated")
    add_computing(parser).add_argument("--batch", type=int, default=16, metavar="N",
                                       help="windows of a forward pass (default: %(default)s)")
    sharding.add_shards(parser)
    out = add_output(parser, "results")
    out.add_argument("--show-names", action="store_true", help="write the videos' paths into pairs.csv; they may be private")
    add_runs_dir(out)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="the same command goes on with what is missing")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, start or submit the program, show its progress and the table."""
    err, out = console(), args.out.absolute()
    pairs, left_out = find_pairs(args)
    for line in left_out:
        tell(err, f"left out: {line}")
    config = resolve(args, pairs, out)
    if not args.dry_run:
        refuse_other_folder(out)
        if pairs and not has_results(out):
            write_pairs(make_private_folder(out) / Path(config.pairs).name, pairs)
        if config.backgrounds:
            if is_footage(Path(args.backgrounds).expanduser()):
                make_manifest(Path(args.backgrounds).expanduser(), Path(config.backgrounds), err, decoder=args.decoder,
                              workers=args.workers)
            config = replace(config, backgrounds_content=read_summary(Path(config.backgrounds)).content_sha256)
    work = Work("vidmae.insight.surprise.surprise", out, args.shards, args.device, args.workers)
    return sharding.run(work, config, args, ["python", "jobs/surprise.py", *argv], err, show)


def find_pairs(args: argparse.Namespace) -> tuple[list[Pair], list[str]]:
    """The pairs that are listed or lie in a benchmark, none of generated scenes; and what was left out of it.

    Raises:
        ConfigError: They cannot be read.
    """
    if args.pairs:
        return read_pairs(args.pairs.expanduser().absolute()), []
    if args.layout:
        layout, eq, folder = args.layout.partition("=")
        if not eq or not folder:
            raise ConfigError(f"--layout {args.layout!r} is not LAYOUT=FOLDER, such as intphys=/data/intphys/dev")
        return read_layout(layout, Path(folder).expanduser().absolute())
    return [], []


def resolve(args: argparse.Namespace, pairs: Sequence[Pair], out: Path) -> SurpriseConfig:
    """The configuration; names are looked up, and nothing is written yet.

    Args:
        args: The command line.
        pairs: From `find_pairs`.
        out: Folder of the results.
    Raises:
        ConfigError: Something that was named does not exist, or a value is out of range.
    """
    found, file = find_weights(args)
    if (predicts := target_of(file)) != "pixels":
        raise ConfigError(f"{file} predicts {predicts} (model.target) and has no pixel decoder, so pixels cannot "
                          "surprise it; allowed: a model of model.target pixels (--run or --weights)")
    return SurpriseConfig(
        weights=str(found.path), weights_content=content_hash(file), settings=(*found.settings, *args.set),
        pairs=str(out / "videos-pairs.csv") if pairs else "", pairs_content=content_of(pairs) if pairs else "",
        scenes=args.scenes, backgrounds=str(_backgrounds(args.backgrounds, out)) if args.backgrounds else "",
        context_frames=args.context_frames, window_step=args.window_step, seed=args.seed, batch=args.batch,
        names=args.show_names, sampling_rate=args.sampling_rate, decoder=args.decoder, device=args.device,
        workers=args.workers)


def _backgrounds(given: str, out: Path) -> Path:
    """The manifest of the videos that scenes are made of; of a folder or a file where it will be made."""
    if is_footage(Path(given).expanduser()):
        return out / "videos-backgrounds.csv"
    return find_data(given, given, environment_catalogue()).manifest


def _numbers(text: str) -> tuple[int, ...]:
    if not text or not all(part.isdecimal() for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 4,8,12")
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
