"""Write down what a user sees of the suite without running a job, for a comparison before and after a change of its code.

    python -m tests.same.surface before                  --help, --print-config and batch scripts, a file for each
    python -m tests.same.surface before --demo .         and what `make demo` left: losses, weights, predictions, tables
    diff -r before after

Nothing is submitted: the batch scripts are those of --dry-run, with a Slurm that never answers. The paths of this checkout
and of the working folder are written as ROOT and HERE, and the commit as COMMIT.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.place.console import commands
from jobs.prepare import VERBS
from tests.support.labelled import write_labelled
from tests.support.launching import ROOT, write_manifest, write_program

ALONE = ("--gpus-per-node", "0", "--cpus-per-task", "1", "--dry-run")
ON_SLURM = ("--cluster", "slurm", "--nodes", "8", "--partition", "gpu", "--gpus-per-node", "8", "--cpus-per-task", "8", "--time",
            "1-0", "--mem", "400G", "--dry-run")


def calls() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name of a file -> the words of a command."""
    for command in (str(script.relative_to(ROOT)) for script in commands().values()):
        yield f"help {command.replace('/', ' ')}", (command, "--help")
    for verb in VERBS:
        yield f"help prepare {verb}", ("jobs/prepare.py", verb, "--help")
    for recipe in sorted((ROOT / "vidmae/recipes").glob("*.yaml")):
        words = ("sweeps/fewshot.py", "--shots", "2", "--data", "toys") if "finetune" in recipe.stem else (
            "jobs/pretrain.py", "--data", "s")
        yield f"config {recipe.stem}", (*words, "--recipe", recipe.stem, *ALONE[:-1], "--print-config")
    for cluster, flags in (("local", ("--cluster", "local", *ALONE)), ("slurm", ON_SLURM)):
        yield f"batch pretrain {cluster}", ("jobs/pretrain.py", "--recipe", "pretrain_s_vith14", "--data", "s", *flags)
        yield f"batch fewshot {cluster}", ("sweeps/fewshot.py", "--shots", "2,10", "--data", "toys", *cell_flags(flags))
        yield f"batch embed {cluster}", ("jobs/embed.py", "--weights", "say.pth", "--data", "toys", "--out", "out", *flags)
        yield f"batch interpolate {cluster}", ("jobs/interpolate.py", "--weights", "say.pth", "--videos", "toys", "--out", "out",
                                               *flags)
    yield "batch scaling", ("sweeps/scaling.py", "--recipe", "demo", "--data", "s", "--fractions", "1", "--shots", "2", "--labelled",
                            "toys", "--fewshot", "--recipe finetune_demo --cpus-per-task 1", "--cluster", "local", *ALONE)


def cell_flags(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Of some resource flags those that a cell takes: it runs on one node."""
    return tuple(word for at, word in enumerate(flags) if "--nodes" not in (word, flags[at - 1]))


def write_surface(out: Path) -> None:
    """Write every call's exit code, standard output and standard error."""
    with tempfile.TemporaryDirectory() as made:
        here = Path(made)
        write_manifest(here / "manifests/s.csv")
        write_labelled(here / "manifests")
        (here / "say.pth").write_bytes(b"weights")
        for name in ("sbatch", "srun", "sinfo", "squeue", "scontrol", "sacct"):
            write_program(here / "bin", name, "exit 1")
        env = {**os.environ, "PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "120", "NO_COLOR": "1"}
        for name, words in calls():
            done = subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], cwd=here, env=env, text=True,
                                  capture_output=True, stdin=subprocess.DEVNULL)
            said = f"exit code {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
            (out / f"{name}.txt").write_text(anonymous(said, here))


def anonymous(text: str, here: Path) -> str:
    """A text without what differs from one checkout to another."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True, capture_output=True).stdout.strip()
    for value, name in ((str(here), "HERE"), (str(ROOT), "ROOT"), (commit, "COMMIT"), (commit[:7], "COMMIT")):
        text = text.replace(value, name)
    text = re.sub(r"\d{8}T\d{6}", "TIME", text)
    return re.sub(r"-[0-9a-f]{8}\b", "-SIGNATURE", re.sub(r"COMMIT\S*", "COMMIT", text))


def write_demo(folder: Path, out: Path) -> None:
    """Write what came of a demo: the losses of every run, the hashes of its weights and predictions, the tables."""
    for run in sorted((folder / "demo/runs").glob("*/run.json")):
        metrics = [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
        record = {"losses": [(line["step"], line["loss"]) for line in metrics if "loss" in line],
                  **{name: hashlib.sha256((run.parent / name).read_bytes()).hexdigest()
                     for name in ("weights.safetensors", "predictions.npz") if (run.parent / name).exists()}}
        (out / f"run {re.sub('-[0-9a-f]{8}$', '', run.parent.name)}.json").write_text(json.dumps(record, indent=1) + "\n")
    for table in sorted((folder / "demo/tables").glob("fewshot.*")):
        (out / table.name).write_text(anonymous(table.read_text(), folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--demo", type=Path, help="a checkout in which `make demo` was run")
    args = parser.parse_args()
    args.out.mkdir()
    write_surface(args.out)
    if args.demo:
        write_demo(args.demo, args.out)
    print(f"{len(list(args.out.iterdir()))} files in {args.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
