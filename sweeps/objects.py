"""Object recognition: finetune or probe video and image models on pictures, with a share of the labels of each class.

    python sweeps/objects.py --checkpoints s-vith14,s-image-vith14,scratch --data imagenet --fractions 0.01,0.02
    python sweeps/objects.py --checkpoints s-vith14,say.pth --method linear,knn,attentive --fractions 0.02,1 --dry-run
    python sweeps/objects.py --data imagenet --shots 10 --max-parallel 16 --retry failed --watch

It is sweeps/fewshot.py with other defaults, and takes the same flags. A video model sees a picture as a clip of equal
frames, an image model (model.num_frames 1) sees it once. Which pictures a share has is drawn once per class and seed, and
written beside the manifest, so every model, rank and machine learns from the same ones. The same command again submits what
is missing; analysis/collect.py makes the table.

Exit codes: 0 ok, 1 cells have failed (with --wait or --watch: not all are done), 2 usage or configuration, 4 Slurm refused
or unreachable, 130 Ctrl-C (the jobs go on).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.place.speak import answer
from sweeps import fewshot
from sweeps.grid import fewshot_flags


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    return fewshot_flags.make_parser(__doc__, recipe="finetune_imagenet", data=("imagenet",), fractions=(0.01, 0.02))


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code."""
    args = make_parser().parse_args(argv)
    return answer(lambda: fewshot.run(args, list(sys.argv[1:] if argv is None else argv), "sweeps/objects.py"),
                  interrupted="python jobs/status.py shows what was submitted")


if __name__ == "__main__":
    sys.exit(main())
