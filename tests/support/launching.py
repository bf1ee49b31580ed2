"""What the launcher's tests share: a manifest without videos, and a stand-in for training that needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support import started
from vidmae.footage.manifest import SCHEMA, Summary, summary_path

Told = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]

# Takes the place of vidmae/train/pretrain.py in a run's snapshot, so it also shows that jobs run the snapshot. STAND_IN says
# what to do: `ok`, `fail:<rank>:<code>`, `sleep`, `hears` (sleeps until a signal asks it to leave); with `@<part>` only runs
# do so whose names have that part
STAND_IN = '''
import json, os, sys, time
from pathlib import Path

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "VIDMAE_JOB_ID", "LOCAL_SIZE", "PYTHONPATH",
         "OMP_NUM_THREADS", "DS_ACCELERATOR", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "CUDA_VISIBLE_DEVICES",
         "SITE_NOTE", "SLURM_JOB_NAME", "SLURMD_NODENAME", "SLURM_CPUS_PER_TASK")

def main(run_path):
    run, rank = Path(run_path), int(os.environ["RANK"])
    seen = {name: os.environ.get(name) for name in NAMES} | {"file": __file__, "cwd": os.getcwd(), "threads": os.cpu_count()}
    (run / f"seen.{os.environ['VIDMAE_JOB_ID']}.{rank}.json").write_text(json.dumps(seen))
    asked, _, part = os.environ.get("STAND_IN", "ok").partition("@")
    what, *more = (asked if part in run.name else "ok").split(":")
    print(f"stand-in rank {rank}: {what}", flush=True)
    beat = {"schema": 1, "job_id": os.environ["VIDMAE_JOB_ID"], "host": "h", "time": time.time(), "state": "training",
            "step": 3, "total_steps": 10, "loss": 0.5, "clips_per_s": 2.0, "eta_s": 70.0}
    if rank == 0:
        (run / "heartbeat.json").write_text(json.dumps(beat))
    if what == "hears":
        from vidmae.ranks import preempt
        while not preempt.received():
            time.sleep(0.1)
        return preempt.EXIT_PREEMPTED
    if what == "sleep" or what == "fail" and int(more[0]) != rank:
        time.sleep(300)
    if what == "fail":
        while len(list(run.glob(f"seen.{beat['job_id']}.*.json"))) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.1)  # a rank that has not started yet would be killed before it says a word
        time.sleep(0.5)
        (run / "failure.json").write_text(json.dumps({"schema": 1, "job_id": beat["job_id"], "time": time.time(),
                                                      "rank": rank, "kind": "error", "error": "ValueError", "message": "asked to"}))
        return int(more[1])
    time.sleep(1)
    if rank == 0:
        (run / "weights.safetensors").touch()
        result = {"schema": 1, "kind": "pretrain", "steps": 10, "first_loss": 1.0, "last_loss": 0.25}
        (run / "result.json").write_text(json.dumps(result))
    return 0
'''


# Takes the place of vidmae/train/cell.py. FAILS, SLEEPS, HEARS and LEAVES hold a part of the names of the cells that fail, that sleep until
# they are killed, or until a signal asks them to leave, and that save and leave at their first attempt; PAUSE_S is how long the others take; GROWS is how many points
# of accuracy a decade of data is worth, where the checkpoint is called NAME-SHARE...-seedN
CELL_STAND_IN = '''
import json, math, os, sys, time
from pathlib import Path

def main(run_path):
    run, job = Path(run_path), os.environ["VIDMAE_JOB_ID"]
    seen = {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME")}
    seen |= {"file": os.path.realpath(__file__), "began": time.time(), "torch": "torch" in sys.modules}
    part = lambda name: os.environ.get(name) and os.environ[name] in run.name
    if part("SLEEPS"):
        time.sleep(300)
    while part("HEARS"):
        from vidmae.ranks import preempt
        if preempt.received():
            return preempt.EXIT_PREEMPTED
        time.sleep(0.1)
    time.sleep(float(os.environ.get("PAUSE_S", "0")))
    (run / f"seen.{job}.json").write_text(json.dumps(seen | {"ended": time.time()}))
    if part("LEAVES") and not (run / "saved").exists():
        (run / "saved").touch()
        return 75
    if part("FAILS"):
        (run / "failure.json").write_text(json.dumps({"schema": 1, "job_id": job, "time": time.time(), "rank": 0, "kind": "error",
                                                      "error": "ValueError", "message": "asked to"}))
        return 1
    record = json.loads((run / "run.json").read_text())
    top1, grows = 25.0, float(os.environ.get("GROWS", "0"))
    if grows:
        name = record["cell"]["checkpoint"]
        top1 += grows * math.log10(float(name.split("-")[1])) + 0.2 * int(name.rpartition("seed")[2])
    result = {"schema": 1, "kind": "fewshot", "name": record["name"], "cell": record["cell"], "select": "last",
              "selected_step": 12, "views": "center", "top1_pct": top1, "top5_pct": 60.0, "top1_ci_pct": [top1 - 5, top1 + 5],
              "top5_ci_pct": [50.0, 70.0], "clips": 12, "classes": 3, "train_clips": 6, "steps": 12, "train_s": 1.0,
              "eval_s": 1.0, "world_size": 1, "precision": "fp32", "commit": record["commit"], "dirty": record["dirty"],
              "job_id": job, "finished": time.time()}
    (run / "result.json").write_text(json.dumps(result))
    return 0
'''


def write_cell_profile(folder: Path, name: str = "cells", pretrain: str = "", **env: str) -> Path:
    """Write a cluster profile whose setup puts the stand-in for a cell into the snapshot; `env` steers it.

    Args:
        folder: Where it is written.
        name: Of the profile.
        pretrain: What the stand-in for pretraining does, where that is wanted, too.
        env: FAILS, SLEEPS, HEARS, LEAVES, PAUSE_S, GROWS.
    """
    (folder / "cell.py").write_text(CELL_STAND_IN)
    (folder / "stand_in.py").write_text(STAND_IN)
    profile = folder / f"{name}.yaml"
    lines = [f"  {key}: {json.dumps(value)}" for key, value in {**env, **({"STAND_IN": pretrain} if pretrain else {})}.items()]
    profile.write_text("\n".join(["setup:", f"  - cp '{folder}/cell.py' vidmae/train/cell.py", *(
        [f"  - cp '{folder}/stand_in.py' vidmae/train/pretrain.py"] if pretrain else []), *(["env:"] if lines else []), *lines, ""]))
    return profile


def write_manifest(path: Path, *, videos: int = 64, content: str = "a", fraction: dict | None = None) -> Path:
    """Write a manifest that has totals and no rows: all that a launcher reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("not read by the launcher\n")
    digest = hashlib.sha256(content.encode()).hexdigest()
    summary = Summary(schema=SCHEMA, videos=videos, unreadable=0, seconds=60.0 * videos, bytes=1, classes=0,
                      decoder="decord", decoders={"decord": videos}, verified=True, percentiles_s=[60.0] * 101, csv_bytes=path.stat().st_size, csv_sha256=digest,
                      content_sha256=digest, fraction=fraction)
    summary_path(path).write_text(json.dumps(asdict(summary)))
    return path


def write_stand_in_profile(folder: Path, what: str = "ok", more: str = "") -> Path:
    """Write a cluster profile whose setup puts the stand-in into the snapshot (the job starts there)."""
    (folder / "stand_in.py").write_text(STAND_IN)
    profile = folder / f"profile_{what.replace(':', '_')}.yaml"
    profile.write_text(f"setup:\n  - cp '{folder}/stand_in.py' vidmae/train/pretrain.py\n"
                       f"env:\n  STAND_IN: {what}\n  SITE_NOTE: it's \"quoted\" $HOME\n{more}")
    return profile


def write_program(folder: Path, name: str, text: str) -> None:
    """Write a small shell program, to stand for one of Slurm's that hangs, fails or refuses."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def hear_ctrl_c() -> None:
    """Give a child the default answer to SIGINT: tests that run in the background inherit that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def cli(script: str, *args: str, cwd: Path, env: dict[str, str] | None = None, timeout_s: float = 60, anew: bool = False,
        ) -> subprocess.CompletedProcess[str]:
    """Run a script of jobs/, or of another wing (`sweeps/fewshot.py`), in a process of its own.

    That process is forked from one which has loaded the libraries (tests/support/started.py). Python itself starts the script
    where `anew` or a PYTHONPATH asks for it; tests/house/test_house.py starts every script so.
    """
    path = str(ROOT / script if "/" in script else ROOT / "jobs" / script)
    env = dict(os.environ if env is None else env)
    anew = anew or env.get("PYTHONPATH") != os.environ.get("PYTHONPATH")
    return started.run(path, *args, cwd=cwd, env=env, timeout_s=timeout_s, anew=anew)


def caller(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> Told:
    """Call a command in this process: exit code, standard output, standard error."""
    def call(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(list(args))
        except SystemExit as left:
            code = int(str(left.code))
        out, err = capsys.readouterr()
        return code, out, err
    return call
