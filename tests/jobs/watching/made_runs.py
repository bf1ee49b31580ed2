"""Run folders as jobs leave them, without a job: pretraining that runs, waits or failed, and the cells of arrays.

The files are those of vidmae/runs and of the launchers, with values that a test can compute itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.launching import write_program
from vidmae.runs.record import RunFolder

KINDS = ("running", "waiting", "failed", "done")
STEPS = 1000
FIRST_JOB = 5000
CODE = {"commit": "8" * 40, "dirty": False, "nodes": 8, "gpus_per_node": 8, "cpus_per_task": 8, "mem_mib": 515000, "time_min": 2880}


@dataclass(frozen=True)
class Made:
    """A run that was made: its name, the id of its job, what it is (of KINDS), the loss that stands last."""

    name: str
    job_id: str
    kind: str
    loss: float


def loss_at(step: int, number: int) -> float:
    """The loss of a run at a step."""
    return 0.4 + 0.6 * math.exp(-step / 300) + number % 7 / 1000


def metrics_line(step: int, number: int, **more: Any) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    return {"step": step, "epoch": step / 100, "loss": loss_at(step, number), "lr": 1e-4, "grad_norm": 0.5, "phase": 0,
            "step_s": 0.8, "save_s": 0.0, "data_wait": 0.03, "clips_per_s": 300.0 + number, "mfu": 0.41, "peak_gib": 61.5,
            "skipped": 0, "substituted": 0, **more}


def write(path: Path, record: dict[str, Any]) -> None:
    """One JSON object, as the suite writes it."""
    path.write_text(json.dumps(record, indent=2) + "\n")


def make_pretraining(runs: Path, number: int, kind: str, *, now: float, lines: int = 40, cluster: str = "slurm",
                     command: Sequence[str] = ()) -> Made:
    """A pretraining run; its last line of metrics is that of step 10 * `lines`."""
    name, job_id = f"say-vith14-{number:08x}", str(FIRST_JOB + number)
    run, step = runs / name, 10 * lines
    run.mkdir(parents=True)
    typed = [*command] or ["python", "jobs/pretrain.py", "--nodes", "8", "--partition", "gpu", "--set", f"seed={number}"]
    entry = {"state": "submitted", "job_id": job_id, "cluster": cluster, "job_name": name, "command": typed, **CODE, "host": "login1",
             "submitted_at": "2026-11-28T10:00:00+00:00", "submitted_at_s": now - 9000}
    write(run / "run.json", {"schema": 1, "kind": "pretrain", "name": "say-vith14", "signature": name[-8:], "data": "say",
                             "content_sha256": "ab" * 32, "created": "2026-11-28T10:00:00+00:00", "command": typed, **CODE,
                             "plan": {"steps": STEPS, "ranks": 64, "flops": 1e21}, "submissions": [entry]})
    if kind == "waiting":
        return Made(name, job_id, kind, math.nan)
    with (run / "metrics.jsonl").open("w") as f:
        for i in range(1, lines + 1):
            f.write(json.dumps(metrics_line(10 * i, number)) + "\n")
    write(run / "heartbeat.json", {"schema": 1, "job_id": job_id, "host": "cn1", "time": now, "state": "training", "step": step,
                                   "total_steps": STEPS, "loss": loss_at(step, number), "clips_per_s": 300.0 + number, "eta_s": 7200.0})
    write(run / "attempts.json", {"schema": 1, "attempts": [
        {"job_id": job_id, "restart": 0, "started": now - 8000, "updated": now, "first_step": 0, "last_step": step,
         "starting_s": 100.0, "useful_s": 7500.0, "waiting_s": 225.0, "repeated_s": 0.0, "saving_s": 175.0, "repeated_steps": 0,
         "slowest_save_s": 20.0, "ended": ""}]})
    write_log(run, job_id, [f"step {10 * i}/{STEPS}  loss {loss_at(10 * i, number):.4f}" for i in range(1, lines + 1)])
    if kind == "failed":
        write(run / "failure.json", {"schema": 1, "job_id": job_id, "time": now, "rank": 3, "kind": "error", "error": "ValueError",
                                     "message": "asked to"})
    if kind == "done":
        write(run / "result.json", {"schema": 1, "kind": "pretrain", "steps": STEPS, "first_loss": 1.0, "last_loss": 0.25})
    return Made(name, job_id, kind, 0.25 if kind == "done" else loss_at(step, number))


def write_log(run: Path, job_id: str, lines: Sequence[str]) -> Path:
    """The log of rank 0."""
    log = run / "submit" / job_id / f"{job_id}_0_log.out"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(f"{line}\n" for line in lines))
    return log


def make_array(runs: Path, array_id: int, kinds: Sequence[str], *, now: float) -> list[Made]:
    """The cells of an array of few-shot runs, with a kind for each."""
    folder = runs / "arrays" / f"20261128T100000-fewshot-{array_id}"
    folder.mkdir(parents=True)
    made, cells = [], []
    for task, kind in enumerate(kinds):
        name, job_id = f"say-vith14-ssv2-10shot-seed{task}-finetune-{array_id * 1000 + task:08x}", f"{array_id}_{task}"
        run = runs / name
        run.mkdir()
        cells.append(RunFolder(run))
        cell = {"checkpoint": "say-vith14", "data": "ssv2", "shots": 10, "seed": task, "method": "finetune", "overrides": {}, "sweep": "fewshot"}
        typed = ["python", "sweeps/fewshot.py", "--shots", "10"]
        entry = {"state": "submitted", "job_id": job_id, "cluster": "slurm", "job_name": folder.name, "array": str(folder), "task": task,
                 "command": typed, **CODE, "host": "login1", "submitted_at": "2026-11-28T10:00:00+00:00", "submitted_at_s": now - 9000}
        write(run / "run.json", {"schema": 1, "kind": "fewshot", "name": name[:-9], "signature": name[-8:], "cell": cell, "data": "ssv2",
                                 "content_sha256": "cd" * 32, "command": typed, **CODE, "submissions": [entry]})
        if kind != "waiting":
            write(run / "attempts.json", {"schema": 1, "attempts": [
                {"job_id": job_id, "restart": 0, "started": now - 900, "updated": now, "first_step": 0, "last_step": 500,
                 "starting_s": 30.0, "useful_s": 800.0, "waiting_s": 50.0, "repeated_s": 0.0, "saving_s": 20.0, "repeated_steps": 0,
                 "slowest_save_s": 4.0, "ended": "done" if kind == "done" else ""}]})
            write(run / "heartbeat.json", {"schema": 1, "job_id": job_id, "host": "cn2", "time": now, "state": "training", "step": 500,
                                           "total_steps": STEPS, "loss": 1.5, "clips_per_s": 40.0, "eta_s": 600.0})
        if kind == "failed":
            write(run / "failure.json", {"schema": 1, "job_id": job_id, "time": now, "rank": 0, "kind": "error", "error": "ValueError",
                                         "message": "asked to"})
        if kind == "done":
            write(run / "result.json", {"schema": 1, "kind": "fewshot", "name": "say-vith14", "cell": cell, "steps": STEPS, "last_loss": 1.25,
                                        "top1_pct": 30.0 + task % 10, "top5_pct": 60.0, "clips": 2000, "job_id": job_id, "finished": now})
        made.append(Made(name, job_id, kind, 1.25 if kind == "done" else 1.5 if kind != "waiting" else math.nan))
    (folder / "cells.txt").write_text("".join(f"{cell.path}\n" for cell in cells))
    return made


def make_slurm(bin_folder: Path, made: Sequence[Made], names: dict[str, str] | None = None) -> None:
    """Programs that answer as Slurm would of these jobs; scancel notes what it was asked, and ends it.

    Args:
        bin_folder: Where they are written.
        made: The runs.
        names: Name of the job of a run, where it is not the run's.
    """
    bin_folder.mkdir(parents=True, exist_ok=True)
    called = {m.name: (names or {}).get(m.name, m.name) for m in made}
    active = [f"{m.job_id}|{'RUNNING|2:13:20' if m.kind == 'running' else 'PENDING|0:00'}|8|{called[m.name]}|"
              f"{'cn[1-8]' if m.kind == 'running' else '(Priority)'}|(null)" for m in made if m.kind in ("running", "waiting")]
    over = [f"{m.job_id}|{'COMPLETED' if m.kind == 'done' else 'FAILED'}|00:15:00|8|{0 if m.kind == 'done' else 1}:0|cn[1-8]|{called[m.name]}"
            for m in made if m.kind in ("done", "failed")]
    waiting = [f"{m.job_id}|{called[m.name]}|gpu|8|4000|2026-11-30T10:00:00|Priority" for m in made if m.kind == "waiting"]
    for name, lines in (("squeue", active), ("waiting", waiting), ("sacct", over)):
        (bin_folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))
    note = f"echo \"$*\" >> '{bin_folder}/CALLS'"
    write_program(bin_folder, "squeue", f"{note.replace('CALLS', 'squeue.calls')}\n"
                  f"case \"$*\" in *PENDING*) cat '{bin_folder}/waiting.txt';; *) cat '{bin_folder}/squeue.txt';; esac")
    write_program(bin_folder, "sacct", f"cat '{bin_folder}/sacct.txt'")
    write_program(bin_folder, "scancel", f"{note.replace('CALLS', 'scancel.calls')}")


def make_many(runs: Path, count: int, *, now: float, lines: int = 20) -> tuple[list[Made], dict[str, str]]:
    """`count` runs: of ten one pretraining run, the others cells of arrays of 500, most of them done; and the names of jobs."""
    pretraining = [make_pretraining(runs, n, ("running", "waiting", "failed", "done", "done")[n % 5], now=now, lines=lines)
                   for n in range(count // 10)]
    kinds = ["running" if n % 20 == 0 else "waiting" if n % 20 == 1 else "failed" if n % 20 == 2 else "done"
             for n in range(count - len(pretraining))]
    cells, names = [], {}
    for first in range(0, len(kinds), 500):
        array_id = 100_000 + first // 500
        some = make_array(runs, array_id, kinds[first:first + 500], now=now)
        cells += some
        names |= {m.name: f"20261128T100000-fewshot-{array_id}" for m in some}
    return pretraining + cells, names
