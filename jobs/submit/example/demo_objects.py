"""Object recognition and robustness on this machine: a video model and an image model that saw the same frames.

    make objects                                     4 minutes on 2 quiet cores; needs no other demo
    python jobs/submit/example/demo_objects.py       the same in an environment that is ready

It types the commands that a user would type, and shows them: a pretrained pair from the demo's three films, then shares of
labelled pictures (handwritten digits that scikit-learn ships), then all corruptions of ImageNet-C and shapes and textures.
Runs, tables and figures go to demo/objects, manifests to manifests/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

if not __package__:  # a script runs the code of its own clone, wherever the environment's `-e .` points
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from jobs.demo import clips_folder, films, run

RUNS, OUT, PICTURES = "demo/objects/runs", "demo/objects/tables", "demo/objects/pictures"
HERE = "--cluster", "local", "--runs-dir", RUNS
SMALL = "model.img_size=64"
PHASES = "train.phases=[{duration: 150 steps, lr: 8.0e-4, warmup: 15 steps, schedule: cosine}]"


def main() -> int:
    """Pretrain the pair, learn from shares, test under conditions, tabulate."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    began = time.monotonic()
    try:
        folder = clips_folder()
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pair = pretrain(films(folder))
    pictures()
    objects(pair, "finetune", "0.02,0.1")
    objects(pair, "linear", "0.02,0.1")
    run("sweeps/robustness.py", "*-digits-10pct-seed0-finetune-*", "--data", "digits-100", "--conditions",
        "imagenet-c,shape", *HERE, "--max-parallel", "2", "--watch")
    run("analysis/collect.py", RUNS, "--out", OUT)
    run("analysis/robustness.py", RUNS, "--reference", "scratch-vit_nano_patch16-1x1-digits-10pct-finetune", "--out", OUT)
    print(f"""
Done in {time.monotonic() - began:.0f} s.
  objects     {OUT}/imagenet.md         what each model recognises, by share of the labels
  robustness  {OUT}/robustness.md       under groups of conditions; {OUT}/robustness-*.md have the details
  figures     {OUT}/robustness-*.png    over severity, against clean accuracy, differences of the pair""", file=sys.stderr)
    return 0


def pretrain(manifest: str) -> list[str]:
    """Pretrain a video model, and an image model on the same frames; the names of their runs."""
    said = run("sweeps/pair.py", "--video", "demo", "--image", "demo_image", "--match", "frames", "--name", "objects",
               "--data", manifest, "--set", SMALL, "--set", PHASES, "--set", "train.threads=1",
               "--image-set", "train.global_batch=256", "--image-set", "train.micro_batch=256", *HERE, "--json")
    pair = json.loads(said.splitlines()[-1])
    return [pair[which]["run"] for which in ("video", "image")]


def pictures() -> None:
    """Write the labelled pictures and list them."""
    for path in run("jobs/submit/example/demo_pictures.py", "--out", PICTURES).splitlines():
        run("jobs/prepare.py", "manifest", path, "--images", "--labels", "folders", "--name", Path(path).name,
            "--no-clip-cost")


def objects(pair: list[str], method: str, fractions: str) -> None:
    """Learn the pictures from shares of the labels, with random weights beside the pair."""
    run("sweeps/objects.py", "--recipe", "finetune_demo", "--data", "digits", "--fractions", fractions, "--seeds", "0",
        "--method", method, "--checkpoints", ",".join([*pair, "scratch"]), "--set", SMALL, "--set", "keep_weights=true",
        *HERE, "--max-parallel", "2", "--watch")


if __name__ == "__main__":
    sys.exit(main())
