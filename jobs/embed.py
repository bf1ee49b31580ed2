"""Write features of every clip of a data set: the class token and the mean of the patch tokens, by a trained encoder.

    python jobs/embed.py --run s-1a2b3c4d --data ssv2-val --out results/s-ssv2
    python jobs/embed.py --weights say.pth --data manifests/kinetics-val.csv --sampling-rate 4 --out results/say-kinetics
    python jobs/embed.py --run s-1a2b3c4d --data ssv2 --out results/s-ssv2-train --cluster slurm --shards 8 --gpus-per-node 1
    python jobs/embed.py --run s-1a2b3c4d --data s-val --window-s 4.27 --every-s 2 --layers 8,16,24 --out results/s-windows

Weights are a run, a cell of a sweep, an export or a released file, pretrained or finetuned. OUT/files/*.npz hold `content`
(hash of the clip), `label` (class index, or -1), `cls` and `mean` (float32, one row per clip) and no file names; with
--layers also the features of other blocks, with --window-s a row per window, its recording's row in the manifest and where
it begins. --tokens writes all patch tokens to OUT/tokens/*.npy, once it was said how large they are;
vidmae/insight/embedding_files.py reads them, and python analysis/embeddings.py OUT draws and scores them. Standard output
is the folder alone, or on Slurm the id of the array, until all is done. The same command again does what is missing.

Exit codes: 0 ok, 1 failed, 2 usage or configuration, 3 some clips could not be read, 4 Slurm refused or is away, 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass, replace
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
from vidmae.footage.manifest import content_hash, read_all, read_summary
from vidmae.insight.sliding import windows_of
from vidmae.insight.token_files import token_bytes
from vidmae.model.formats.file_model import model_in
from vidmae.ranks.local_program import tell
from vidmae.settings.layers import ConfigError
from vidmae.settings.programs.embed_config import EmbedConfig
from vidmae.settings.sizes import EncoderShape

if TYPE_CHECKING:
    from rich.console import Console


CLIPS_PER_FILE = 512
MOST_GIB = 16.0


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(__doc__)
    what = parser.add_argument_group("what")
    add_model(what, "a finished run or finetuned cell: its id, the start of it, its folder")
    what.add_argument("--data", required=True, metavar="DATA", help="the clips: name of a data set, or a manifest (.csv)")
    add_cutting(what, several=False)
    what.add_argument("--window-s", type=float, default=0.0, metavar="S",
                      help="let windows of so many seconds slide over the recordings (default: one clip in the middle)")
    what.add_argument("--every-s", type=float, default=0.0, metavar="S", help="with --window-s: from one start to the next")
    features = parser.add_argument_group("features")
    features.add_argument("--layers", type=_numbers, default=(), metavar="N,N,...",
                          help="also the features of these blocks, from 1 (default: of the last one alone)")
    features.add_argument("--tokens", action="store_true",
                          help="also all patch tokens, of the --layers or of the last block; they are large")
    features.add_argument("--token-type", choices=("float16", "float32"), default="float16",
                          help="of their numbers on disk (default: %(default)s)")
    features.add_argument("--most-gib", type=float, default=MOST_GIB, metavar="GIB",
                          help="refuse tokens that would take more (default: %(default)g)")
    computing = add_computing(parser)
    computing.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32",
                           help="arithmetic of the encoder; bf16 is the faster one on GPUs (default: %(default)s)")
    computing.add_argument("--batch", type=int, default=16, metavar="N",
                           help="clips of a forward pass (default: %(default)s)")
    computing.add_argument("--clips-per-file", type=int, metavar="N",
                           help="a multiple of --batch: what an interruption costs at most (default: "
                                f"{CLIPS_PER_FILE}, with --tokens as many as take 1 GiB)")
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
    err = console()
    config, tokens = resolve(args)
    if tokens:
        tell(err, tokens.words())
        tokens.check(args.most_gib)
    files = math.ceil(clips_of(config) / config.clips_per_file)
    if args.shards > files:
        tell(err, f"{files} shards, not {args.shards}: there are no more files of {config.clips_per_file} clips "
                      "(--clips-per-file)")
    work = Work("vidmae.insight.embed", args.out.absolute(), min(args.shards, files), args.device, args.workers)
    return sharding.run(work, config, args, ["python", "jobs/embed.py", *argv], err, show)


@dataclass(frozen=True)
class TokenSize:
    """How large the tokens will be.

    Attributes:
        clips, layers, tokens, width: How many of each there are, the last two of a clip and of a token.
        dtype: Of a number.
    """

    clips: int
    layers: int
    tokens: int
    width: int
    dtype: str

    @property
    def gib(self) -> float:
        """All of them."""
        return token_bytes(self.clips, self.layers, self.tokens, self.width, self.dtype) / 2**30

    def clips_per_file(self, batch: int) -> int:
        """A multiple of the batch that takes a GiB or a little less, CLIPS_PER_FILE at most."""
        fit = int(2**30 / token_bytes(1, self.layers, self.tokens, self.width, self.dtype))
        return max(1, min(fit, CLIPS_PER_FILE) // batch) * batch

    def words(self) -> str:
        """For people."""
        return (f"tokens: {self.clips:,} clips x {self.layers} layers x {self.tokens:,} tokens x {self.width:,} numbers as "
                f"{self.dtype}: {self.gib:.2f} GiB")

    def check(self, most_gib: float) -> None:
        """Refuse more than is allowed.

        Raises:
            ConfigError: They would take more.
        """
        if self.gib > most_gib:
            raise ConfigError(
                f"the tokens would take {self.gib:.2f} GiB, allowed: {most_gib:g} (--most-gib {math.ceil(self.gib)} allows "
                "it; fewer --layers, --token-type float16 or a fraction of the data take less)")


def resolve(args: argparse.Namespace) -> tuple[EmbedConfig, TokenSize | None]:
    """The configuration: names are looked up, weights and manifest get the hash of their content; and the size of tokens.

    Raises:
        ConfigError: Something that was named does not exist, or a value is out of range.
        ManifestError: The manifest cannot be used.
    """
    found, file = find_weights(args)
    manifest = find_data(args.data, args.data, environment_catalogue()).manifest
    config = EmbedConfig(
        weights=str(found.path), weights_content=content_hash(file), sizes=found.sizes, manifest=str(manifest),
        manifest_content=read_summary(manifest).content_sha256, sampling_rate=args.sampling_rate, decoder=args.decoder,
        precision=args.precision, batch=args.batch,
        clips_per_file=whole_files(args.batch) if args.clips_per_file is None else args.clips_per_file,
        device=args.device, workers=args.workers, layers=args.layers, tokens=args.tokens, token_type=args.token_type,
        window_s=args.window_s, every_s=args.every_s)
    shape = shape_of(file, found.sizes, needed=config.tokens) if config.tokens or config.layers else None
    if shape and (wrong := [layer for layer in config.layers if layer > shape.depth]):
        raise ConfigError(f"--layers {wrong[0]} does not exist, allowed: 1 to {shape.depth}, the blocks of {shape.name}")
    if not config.tokens:
        return config, None
    if shape is None:
        raise ConfigError(f"--tokens cannot be foretold for {file.name}, whose tensors cannot be listed; convert it first: "
                          "python jobs/weights.py convert")
    size = TokenSize(clips_of(config), max(1, len(config.layers)), shape.num_tokens, shape.embed_dim, config.token_type)
    if args.clips_per_file is None:
        config = replace(config, clips_per_file=size.clips_per_file(config.batch))
    return config, size


def shape_of(file: Path, sizes: dict[str, int], *, needed: bool) -> EncoderShape | None:
    """The sizes of the encoder in a file, without torch; None where its tensors cannot be listed.

    Raises:
        ConfigError: They are `needed`, and the file holds no encoder; else the program says so.
    """
    try:
        model = model_in(file, sizes)
    except ValueError as error:
        if needed:
            raise ConfigError(str(error)) from error
        return None
    return model.shape if model else None


def clips_of(config: EmbedConfig) -> int:
    """How many rows there will be: recordings, or windows of them."""
    summary = read_summary(Path(config.manifest))
    if not config.window_s:
        return summary.videos
    seconds = [row.seconds for row in read_all(Path(config.manifest))[1]]
    return int(windows_of(seconds, config.window_s, config.every_s).sum())


def whole_files(batch: int) -> int:
    """CLIPS_PER_FILE, or where that is no multiple of a batch the next multiple below, one at least."""
    return max(1, CLIPS_PER_FILE // batch) * batch if batch >= 1 else CLIPS_PER_FILE


def _numbers(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number or several, such as 8,16,24,32")
    return tuple(map(int, words))


def show(record: dict[str, Any], err: Console) -> None:
    """How many clips there are, and why some are not."""
    classes = f"{len(record['classes'])} classes" if record["classes"] else "no labels"
    tell(err, f"{record['data']}: {record['clips']} clips in {record['files']} files, {record['embed_dim']} "
                  f"numbers for each of cls and mean, {classes}")
    if found := record.get("tokens"):
        tell(err, f"tokens of each clip: {' x '.join(map(str, found['shape']))} (layers, tokens, numbers), {found['dtype']}")
    for reason, count in record["unreadable"].items():
        tell(err, f"{count} clips could not be read: {reason}")


if __name__ == "__main__":
    sys.exit(main())
