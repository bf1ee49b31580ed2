"""A grid of 100,000 cells: its submission as arrays of 1,001, and looking after it, each in a fresh process of the command.

Programs stand in for Slurm's, as in the tests: sbatch keeps the scripts, squeue says twice that all cells wait, then for once
that a thousand run, then nothing, so that `--watch` ends. Time, CPU time and memory are of the whole command; on a busy
machine CPU time says more, and the limit is of it. The folder has nine files, folders and links for each cell.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.labelled import write_labelled
from tests.support.launching import write_program

ROOT = Path(__file__).parents[2]
SHOTS, SEEDS, DECAYS, MOST = 10, 100, 100, 1001
CELLS = SHOTS * SEEDS * DECAYS
LIMIT_S, LIMIT_GIB = 60.0, 1.0
RUNNING = 1000


def results(seeds: int = SEEDS) -> Iterator[dict[str, Any]]:
    """CPU seconds and GiB of the two commands against their limits."""
    cells = SHOTS * seeds * DECAYS
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        write_labelled(top / "manifests")
        env = slurm(top)
        argv = ["--recipe", "finetune_demo", "--checkpoints", "scratch", "--shots", ",".join(map(str, range(2, 2 + SHOTS))),
                "--seeds", ",".join(map(str, range(seeds))), "--max-parallel", "16",
                "--vary", "train.weight_decay=" + ",".join(f"{i / 1000}" for i in range(1, 1 + DECAYS))]
        for name, more, code in (("submit", [], 0), ("watch", ["--watch"], 1)):
            wall_s, cpu_s, gib = call(top, [*argv, *more], env, code)
            more_said = {"rounds": 1, "wall_s": wall_s, "cells": cells}
            yield {"name": f"arrays_{name}_seconds", "unit": f"s of CPU time, {cells:,} cells", "target": 1.0, "ours": cpu_s,
                   "peer": LIMIT_S, "ratio": LIMIT_S / cpu_s, **more_said}
            yield {"name": f"arrays_{name}_memory", "unit": f"GiB, {cells:,} cells", "target": 1.0, "ours": gib,
                   "peer": LIMIT_GIB, "ratio": LIMIT_GIB / gib, **more_said}
            if name == "submit":
                write_queue(top)


def slurm(top: Path) -> dict[str, str]:
    """An environment with programs that answer as Slurm's do."""
    programs = top / "bin"
    write_program(programs, "sbatch", f"n=$(($(cat '{top}/n' 2>/dev/null || echo 100) + 1)); echo $n > '{top}/n'\n"
                                      '[ "$1" = --test-only ] && exit 0; echo "Submitted batch job $n"')
    write_program(programs, "sinfo", 'case "$*" in *%P*) echo "gpu*|up|2-00:00:00|infinite|4|32|256000|idle|gpu:a100:4";; '
                                     "*) echo gpu;; esac")
    write_program(programs, "scontrol", f"echo 'ClusterName = fake'; echo 'MaxArraySize = {MOST}'")
    write_program(programs, "squeue", f"[ -f '{top}/queue.0' ] || exit 0; n=$(($(cat '{top}/asked' 2>/dev/null || echo -1) + 1))\n"
                                      f"echo $n > '{top}/asked'; cat '{top}/queue.'$n 2>/dev/null || exit 0")
    for name in ("srun", "sacct"):
        write_program(programs, name, "exit 0")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "VIDMAE_"))}, "PYTHONPATH": str(ROOT),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}


def write_queue(top: Path) -> None:
    """What squeue says: when the command plans, before it waits, and at the first look; later it has forgotten all."""
    waiting, running = [], []
    for array in (top / "runs/arrays").iterdir():
        tasks = [path.name for path in (array / "submit").iterdir() if "_" in path.name and path.is_dir()] if (
            array / "submit").is_dir() else []
        for task in tasks:
            line = f"{task}|{{}}|0:00|1|{array.name}|{{}}|{array}"
            waiting.append(line.format("PENDING", "(Priority)"))
            running.append(line.format(*(("RUNNING", "cn1") if len(running) < RUNNING else ("PENDING", "(Priority)"))))
    for number, lines in enumerate((waiting, waiting, running)):
        (top / f"queue.{number}").write_text("\n".join(lines) + "\n")


def call(top: Path, argv: list[str], env: dict[str, str], code: int) -> tuple[float, float, float]:
    """Seconds, seconds of CPU time, and peak GiB of one call."""
    began = time.perf_counter()
    with Path(top, "said").open("w") as said:
        process = subprocess.Popen([sys.executable, str(ROOT / "sweeps/fewshot.py"), *argv], cwd=top, env=env, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    assert os.waitstatus_to_exitcode(status) == code, Path(top, "said").read_text()[-3000:]
    return took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
