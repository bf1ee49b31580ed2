"""Write features of every clip of a data set: the class token and the mean of the patch tokens, by a trained encoder.

    python jobs/embed.py --run s-1a2b3c4d --data ssv2-val --out results/s-ssv2
    python jobs/embed.py --weights say.pth --data manifests/kinetics-val.csv --sampling-rate 4 --out results/say-kinetics
    python jobs/embed.py --run s-1a2b3c4d --data ssv2 --out results/s-ssv2-train --cluster slurm --shards 8 --gpus-per-node 1

Weights are a run, a cell of a sweep, an export or a released file, pretrained or finetuned. OUT/files/*.npz hold `content`
(hash of the clip), `label` (class index, or -1), `cls` and `mean` (float32, one row per clip) and no file names;
vidmae/insight/embedding_files.py reads them, and python analysis/embeddings.py OUT draws and scores them. Standard output
is the folder alone, or on Slurm the id of the array, until all is done. The same command again does what is missing.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 some clips could not be read, 4 Slurm refused or is away, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.catalogue import environment_catalogue, find_data
from jobs.place.launch_flags import Parser, add_runs_dir
from jobs.place.speak import answer, console
from jobs.standing.runs import find_weights
from jobs.submit import sharding
from jobs.submit.shards_here import Work
from vidmae.clips.clips_flags import add_computing, add_cutting, add_model, add_output
from vidmae.footage.manifest import content_hash, read_summary
from vidmae.ranks.local_program import tell
from vidmae.settings.programs.embed_config import EmbedConfig

if TYPE_CHECKING:
    from rich.console import Console


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a finished run or finetuned cell: its id, the start of it, its folder")
    what.add_argument("--data", required=True, metavar="DATA", help="the clips: name of a data set, or a manifest (.csv)")
    add_cutting(what, several=False)
    computing = add_computing(parser)
    computing.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32",
                           help="arithmetic of the encoder; bf16 is the faster one on GPUs (default: %(default)s)")
    computing.add_argument("--batch", type=int, default=16, metavar="N",
                           help="clips of a forward pass (default: %(default)s)")
    computing.add_argument("--clips-per-file", type=int, default=512, metavar="N",
                           help="a multiple of --batch: what an interruption costs at most (default: %(default)s)")
    sharding.add_shards(parser)
    add_runs_dir(add_output(parser, "features"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: run(args, list(sys.argv[1:] if argv is None else argv)),
                  interrupted="the same command goes on with what is missing")


def run(args: argparse.Namespace, argv: list[str]) -> int:
    """Resolve, start or submit the program, show its progress and what came of it."""
    err, config = console(), resolve(args)
    files = math.ceil(read_summary(Path(config.manifest)).videos / config.clips_per_file)
    if args.shards > files:
        tell(err, f"{files} shards, not {args.shards}: there are no more files of {config.clips_per_file} clips "
                      "(--clips-per-file)")
    work = Work("vidmae.insight.embed", args.out.absolute(), min(args.shards, files), args.device, args.workers)
    return sharding.run(work, config, args, ["python", "jobs/embed.py", *argv], err, show)


def resolve(args: argparse.Namespace) -> EmbedConfig:
    """The configuration: names are looked up, weights and manifest get the hash of their content.

    Raises:
        ConfigError: Something that was named does not exist, or a value is out of range.
        ManifestError: The manifest cannot be used.
    """
    found, file = find_weights(args)
    manifest = find_data(args.data, args.data, environment_catalogue()).manifest
    return EmbedConfig(
        weights=str(found.path), weights_content=content_hash(file), sizes=found.sizes, manifest=str(manifest),
        manifest_content=read_summary(manifest).content_sha256, sampling_rate=args.sampling_rate, decoder=args.decoder,
        precision=args.precision, batch=args.batch, clips_per_file=args.clips_per_file, device=args.device,
        workers=args.workers)


def show(record: dict[str, Any], err: Console) -> None:
    """How many clips there are, and why some are not."""
    classes = f"{len(record['classes'])} classes" if record["classes"] else "no labels"
    tell(err, f"{record['data']}: {record['clips']} clips in {record['files']} files, {record['embed_dim']} "
                  f"numbers for each of cls and mean, {classes}")
    for reason, count in record["unreadable"].items():
        tell(err, f"{count} clips could not be read: {reason}")


if __name__ == "__main__":
    sys.exit(main())
