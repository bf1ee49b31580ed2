"""Submit a run once, however often it is asked for: done -> skip, active -> attach, failed -> only with --retry.

run.json notes `submitting` before sbatch is called and the job id after it. A launcher that dies in between leaves a
note without an id; the next one finds the job in the queue by its name and comment, or submits.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jobs.place.experiment import KIND, Experiment
from jobs.place.found_data import turns_of
from jobs.place.notify_ways import resolve
from jobs.place.scheduler import slurm
from jobs.place.snapshot import code_state, environment, take_snapshot
from jobs.standing.locks import live_holder
from jobs.standing.runs import NOT_STARTED, process_birth, state_of, states, submissions, why
from jobs.submit import launch, notice
from jobs.submit.budget import planned_gpu_h
from vidmae.runs.record import SCHEMA, RunFolder, make_private_folder, read_json, write_atomic, write_json
from vidmae.settings.layers import ConfigError, to_yaml

LOCK = ".submitting.json"
LOCK_WAIT_S, LOCK_STALE_S, COMPLETING_S = 90.0, 300.0, 60.0


@dataclass(frozen=True)
class Outcome:
    """What became of a request: `done` (before), `attached` (to a job that is active) or `submitted`."""

    kind: str
    job_id: str


def make_request(e: Experiment) -> launch.Request:
    """The job of an experiment."""
    p = e.profile
    options = {name: getattr(p, name) for name in ("account", "qos", "constraint", "nodelist", "dependency")}
    options["exclude"] = e.avoided.exclude
    return launch.Request(
        run=e.run, job_name=p.job_name or e.run.path.name, resources=e.resources, on_cpu=e.on_cpu,
        workers=e.config.data.workers, options={k: v for k, v in options.items() if v}, more_options=dict(p.sbatch),
        signal=e.config.recovery.signals[0], signal_delay_s=e.resources.signal_delay_s, max_requeues=p.max_requeues,
        setup=p.setup, python=p.python, env=dict(p.env), notify=resolve(p.notify))


def submit_once(e: Experiment, *, retry: bool, command: list[str], before: Callable[[], None] = lambda: None) -> Outcome:
    """Submit the experiment, unless it is done or active.

    Args:
        e: Without problems.
        retry: Submit again a run that failed or ended.
        command: What the user typed, for the record.
        before: Called just before it is submitted; what it raises keeps it from that.
    Raises:
        ConfigError: The run failed or ended before, and `retry` is not set.
        SlurmError: sbatch refused, or the state of an earlier job cannot be asked.
    """
    make_private_folder(e.run.path)
    with one_launcher(e.run.path):
        if e.run.result.exists():
            return Outcome("done", str((submissions(e.run) or [{}])[-1].get("job_id") or ""))
        if active := _active_job(e.run, retry=retry):
            return Outcome("attached", active)
        _refuse_if_held(e.run)
        before()
        return Outcome("submitted", _submit(e, command))


def standing(run: RunFolder) -> str:
    """What a call without --dry-run would meet in a run folder that is not new; nothing for a new one."""
    if not run.record.exists():
        return ""
    state = states([run])[0][0]
    if state.state == "COMPLETED":
        return "; this run is done, and nothing would be submitted"
    if state.active:
        return f"; job {state.job_id} of this run is {state.state}, and the command would attach to it"
    return "" if state.state in NOT_STARTED else f"; this run was started before: {why(state)}; --retry would continue it"


def _active_job(run: RunFolder, *, retry: bool) -> str | None:
    """Id of the run's active job, or None where a new one may be submitted."""
    adopt(run)
    state, deadline = state_of(run), time.monotonic() + COMPLETING_S
    while state.state == "COMPLETING" and time.monotonic() < deadline:  # no job to attach to any more
        print(f"job {state.job_id} is just ending, waiting for it", file=sys.stderr, flush=True)
        time.sleep(2)
        state = state_of(run)
    if state.active:
        return state.job_id
    if state.state not in NOT_STARTED and not retry:
        raise ConfigError(f"{run.path.name} was started before and is not done: {why(state)}; log {state.log}; continue it "
                          "from its newest checkpoint with --retry")
    return None


def adopt(run: RunFolder) -> None:
    """Note the id of a job that an earlier launcher submitted and did not live to note."""
    record = read_json(run.record) or {}
    last = (record.get("submissions") or [{}])[-1]
    if last.get("state") != "submitting" or last.get("cluster") != "slurm":
        return
    found = [job for job in slurm.queued(name=last["job_name"]) if job.comment in ("", str(run.path))]
    if found:
        last.update(state="submitted", job_id=found[-1].id)
        write_json(run.record, record)


def _refuse_if_held(run: RunFolder) -> None:
    if holder := live_holder(run):
        raise ConfigError(f"{run.path.name} is still being written by job {holder}; stop it: "
                          f"python jobs/cancel.py {run.path}")


def _submit(e: Experiment, command: list[str]) -> str:
    run, request, cluster = e.run, make_request(e), e.place.cluster
    code = code_state()
    write_atomic(run.config, to_yaml(e.config).encode())
    take_snapshot(run, code)
    notice.keep_ways(make_private_folder(run.submit), request.notify, cluster)
    before = [s for s in submissions(run) if s.get("state") != "refused"]
    record = {**_identity(e, command), **code.record(), "environment": environment(), "submissions": before}
    entry: dict[str, Any] = {
        "state": "submitting", "job_id": None, "cluster": cluster, "job_name": request.job_name, "command": command,
        **code.record(), **e.resources.record, **e.profile.rates.record, **_planned(e), "host": socket.gethostname(),
        "submitted_at": _now(), "submitted_at_s": time.time(),
    }
    before.append(entry)
    write_json(run.record, record)
    try:
        entry["job_id"] = launch.submit(request, cluster)
    except slurm.SlurmAwayError:
        raise  # there may be a job: the note stays, and the next launcher looks for it
    except slurm.SlurmError as error:
        entry |= {"state": "refused", "problem": str(error)}
        write_json(run.record, record)
        raise
    entry["state"] = "submitted"
    if cluster == "local":
        entry["process_birth"] = process_birth(int(entry["job_id"]))
    write_json(run.record, record)
    return str(entry["job_id"])


def _planned(e: Experiment) -> dict[str, float]:
    """The estimate that a later submission holds against a budget while this one runs."""
    planned = planned_gpu_h(e)
    return {"planned_gpu_h": planned} if planned else {}


def _identity(e: Experiment, command: list[str]) -> dict[str, Any]:
    """What run.json says of the experiment; the first submission's date and command stay."""
    assert e.plan is not None
    before, plan = read_json(e.run.record) or {}, e.plan
    pair, grid = e.pair or before.get("pair"), e.grid or before.get("grid")
    return {
        "schema": SCHEMA, "kind": KIND, "name": e.config.name, "signature": e.signature,
        "created": before.get("created", _now()), "command": before.get("command", command),
        "data": e.data.name, "manifest": e.config.data.manifest, **_sources(e), "manifest_sha256": e.summary.csv_sha256,
        "content_sha256": e.summary.content_sha256, "videos": e.summary.videos, "fraction": e.summary.fraction,
        **({"pair": dict(pair)} if pair else {}), **({"grid": dict(grid)} if grid else {}),
        "plan": {
            "world_size": plan.world_size, "micro_batch": plan.micro_batch, "grad_accum": plan.grad_accum,
            "global_batch": e.config.train.global_batch, "total_steps": plan.schedule.total_steps,
            "steps_per_epoch": plan.steps_per_epoch, "total_clips": plan.total_clips,
            "phase_ends": list(plan.schedule.ends), "peak_lrs": list(plan.schedule.peaks),
        },
    }


def _sources(e: Experiment) -> dict[str, Any]:
    """What run.json says of the sources of a mixture."""
    if not e.config.data.sources:
        return {}
    turns = turns_of(e.config, e.stocks)
    return {"sources": [
        {"name": one.source.name, "manifest": str(one.source.manifest), "content_sha256": one.summary.content_sha256,
         "videos": stock.videos, "hours": stock.seconds / 3600, "share": turn / sum(turns)}
        for one, stock, turn in zip(e.found, e.stocks, turns, strict=True)]}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@contextmanager
def one_launcher(folder: Path) -> Iterator[None]:
    """Let one launcher at a time touch a folder of this suite; others wait, and then see what it did.

    The lock is an exclusive create, which every shared file system has, and flock has not. It is dropped where its
    process is gone, or after five minutes.
    """
    path = folder / LOCK
    me = {"host": socket.gethostname(), "pid": os.getpid(), "birth": process_birth(os.getpid()), "time": time.time()}
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as f:
                json.dump(me, f)
            break
        except FileExistsError:
            if _is_stale(path):
                print(f"taking over from a launcher that is gone ({path.name})", file=sys.stderr)
                path.unlink(missing_ok=True)
            elif time.monotonic() > deadline:
                raise ConfigError(f"another launcher holds {folder} for {LOCK_WAIT_S:.0f} s ({path})") from None
            else:
                time.sleep(0.2)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text() or "{}")
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    except json.JSONDecodeError:
        return False  # it is just being written
    if holder.get("host") == socket.gethostname() and "pid" in holder:
        return bool(process_birth(int(holder["pid"])) != holder.get("birth"))
    return age_s > LOCK_STALE_S
