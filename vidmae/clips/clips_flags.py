"""The flags of command lines that show clips to a trained model: which model, how clips are cut, where it computes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vidmae.footage.manifest import AUTO
from vidmae.footage.open_video import DECODERS
from vidmae.settings.layers import ConfigError

PICTURES = 3


def add_model(group: Any, run_help: str) -> None:
    """`--run` or `--weights`, one of which must be there."""
    model = group.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", metavar="RUN", help=run_help)
    model.add_argument("--weights", metavar="FILE|NAME", help=".safetensors export, released .pth, folder of a hub, a name "
                       "of python jobs/weights.py list, or hf://owner/name/file")


def add_cutting(group: Any, *, several: bool) -> None:
    """`--sampling-rate`, and where a video may give several clips `--per-video`."""
    group.add_argument("--sampling-rate", type=int, default=0, metavar="N",
                       help="frame stride at 30 fps; the paper's pictures have 4 (default: that of training)")
    if several:
        group.add_argument("--per-video", type=int, default=1, metavar="N",
                           help="clips of each video, evenly spread (default: %(default)s)")


def add_computing(parser: argparse.ArgumentParser) -> Any:
    """`--device`, `--decoder`, `--workers`; the group that they are in."""
    group = parser.add_argument_group("computing")
    group.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="default: %(default)s")
    group.add_argument("--decoder", choices=(AUTO, *DECODERS), default=AUTO,
                       help="auto takes for each file the one that reads it rightly (default: %(default)s)")
    group.add_argument("--workers", type=int, default=1, metavar="N",
                       help="processes per rank that read videos (default: %(default)s)")
    return group


def add_output(parser: argparse.ArgumentParser, what: str) -> Any:
    """`--out` and `--json`; the group that they are in."""
    group = parser.add_argument_group("output")
    group.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=f"where the {what} go")
    group.add_argument("--json", action="store_true", help="print result.json instead of the folder")
    return group


def add_frames(group: Any, what: str) -> None:
    """`--frames` and `--clips`."""
    group.add_argument("--frames", action="store_true",
                       help=f"write {what} as pictures and videos; they show the footage, which may be private")
    group.add_argument("--clips", type=int, metavar="N", help=f"with --frames: of how many clips (default: {PICTURES})")


def pictures_of(args: argparse.Namespace) -> int:
    """Of how many clips pictures are written, by `--frames` and `--clips`.

    Raises:
        ConfigError: --clips without --frames.
    """
    if args.frames:
        return PICTURES if args.clips is None else int(args.clips)
    if args.clips is not None:
        raise ConfigError(f"--clips {args.clips} says of how many clips pictures are written; add --frames to write them")
    return 0
